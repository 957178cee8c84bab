//! Whether a destination's consumer is well enough to be given more, as its metrics and event source mappings tell.

use serde::Serialize;

/// A destination's consumer in the last minutes. What has no data points was not seen to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Consumer {
    /// The function's name.
    pub function: String,
    /// Invocations that Lambda began.
    pub invocations: u64,
    /// Of these, those that ended in an error.
    pub errors: u64,
    /// Invocations that Lambda did not begin, for want of concurrency.
    pub throttles: u64,
    /// Messages of the destination that were received. One that a consumer fails on is received again.
    pub received: u64,
    /// Messages of the destination that were deleted, as what was consumed is.
    pub deleted: u64,
    /// The event source mappings from the destination to the function, and whether each is on.
    pub mappings: Vec<Mapping>,
}

/// An event source mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Its id.
    pub uuid: String,
    /// Its state, such as `Enabled`.
    pub state: String,
}

/// Messages received from which on their deletion says something: a partial batch failure leaves some.
const RECEIVED_AT_LEAST: u64 = 10;

impl Consumer {
    /// Why it is not well, where more than `percent` of its work fails; `None` where nothing speaks against it. What is
    /// `in_flight` of the destination it may still be at work on.
    ///
    /// A function that reports partial batch failures ends without an error (AWS Lambda Developer Guide, "Handling errors
    /// for an SQS event source in Lambda"), so that only the messages that it leaves show them.
    #[must_use]
    pub fn trouble(&self, percent: u32, in_flight: u64) -> Option<String> {
        let Self {
            function,
            invocations,
            errors,
            throttles,
            received,
            deleted,
            mappings,
        } = self;
        let percent = u64::from(percent);
        let above = |part: u64, of: u64| part * 100 > of * percent;
        if !mappings.is_empty() && mappings.iter().all(|mapping| is_off(&mapping.state)) {
            let Mapping { uuid, state } = &mappings[0];
            return Some(format!(
                "the event source mapping {uuid} of {function} is {state}; enable it"
            ));
        }
        if above(*throttles, invocations + throttles) {
            return Some(format!(
                "{function} was throttled {throttles} times beside {invocations} invocations"
            ));
        }
        if above(*errors, *invocations) {
            return Some(format!(
                "{errors} of {invocations} invocations of {function} failed"
            ));
        }
        let left = received.saturating_sub(deleted + in_flight);
        (*received >= RECEIVED_AT_LEAST && above(left, *received))
            .then(|| format!("{function} left {left} of the {received} messages that it received"))
    }
}

/// Why the first of some consumers that is not well is not, each given with what is in flight of its destination.
pub fn first_trouble<'a>(
    mut consumers: impl Iterator<Item = (Option<&'a Consumer>, u64)>,
    percent: u32,
) -> Option<String> {
    consumers.find_map(|(consumer, in_flight)| consumer?.trouble(percent, in_flight))
}

fn is_off(state: &str) -> bool {
    matches!(state, "Disabled" | "Disabling" | "Deleting")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(state: &str) -> Mapping {
        Mapping {
            uuid: "m-1".into(),
            state: state.into(),
        }
    }

    fn well() -> Consumer {
        Consumer {
            function: "orders".into(),
            invocations: 100,
            received: 100,
            deleted: 100,
            mappings: vec![mapping("Enabled")],
            ..Consumer::default()
        }
    }

    #[test]
    fn what_fails_throttles_leaves_or_is_off_is_not_well() {
        for (consumer, words) in [
            (well(), None),
            (
                Consumer {
                    errors: 20,
                    ..well()
                },
                None,
            ),
            (
                Consumer {
                    errors: 21,
                    ..well()
                },
                Some("21 of 100 invocations of orders failed"),
            ),
            (
                Consumer {
                    throttles: 30,
                    ..well()
                },
                Some("orders was throttled 30 times"),
            ),
            // Only throttled: not one invocation began.
            (
                Consumer {
                    throttles: 1,
                    invocations: 0,
                    ..well()
                },
                Some("orders was throttled 1 times"),
            ),
            (
                Consumer {
                    deleted: 79,
                    ..well()
                },
                Some("left 21 of the 100 messages"),
            ),
            (
                Consumer {
                    received: 9,
                    deleted: 0,
                    ..well()
                },
                None,
            ),
            (
                Consumer {
                    mappings: vec![mapping("Disabled")],
                    ..well()
                },
                Some("m-1 of orders is Disabled; enable it"),
            ),
            (
                Consumer {
                    mappings: vec![mapping("Disabled"), mapping("Enabled")],
                    ..well()
                },
                None,
            ),
            // Nothing is known of what has not run.
            (Consumer::default(), None),
        ] {
            let trouble = consumer.trouble(20, 0);
            assert_eq!(trouble.is_some(), words.is_some(), "{consumer:?}");
            if let (Some(trouble), Some(words)) = (trouble, words) {
                assert!(trouble.contains(words), "{trouble}");
            }
        }
    }

    #[test]
    fn what_it_is_still_at_work_on_is_not_left() {
        let slow = Consumer {
            deleted: 0,
            ..well()
        };
        assert!(slow.trouble(20, 79).is_some());
        assert_eq!(slow.trouble(20, 80), None);
    }

    proptest! {
        #[test]
        fn one_that_fails_at_nothing_is_well(invocations in 0_u64..1_000_000, received in 0_u64..1_000_000, percent in 1_u32..=100) {
            let consumer = Consumer { invocations, received, deleted: received, ..Consumer::default() };
            prop_assert_eq!(consumer.trouble(percent, 0), None);
        }
    }
}
