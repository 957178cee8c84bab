//! What arrived where: the proof that a replay lost nothing and sent nothing twice.

use serde::Serialize;

/// Counts of what was sent to one queue.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// How often each message of the corpus arrived unchanged.
    counts: Vec<u32>,
    /// Sends whose body or attributes are not those of a seeded message.
    changed: u64,
}

/// The account of one scenario so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Account {
    /// Messages put into the dead-letter queue at the start.
    pub(crate) seeded: u64,
    /// Messages that arrived at the destination exactly once.
    pub(crate) once: u64,
    /// Messages that arrived at the destination more than once.
    pub(crate) repeated: u64,
    /// Messages that never arrived at the destination.
    pub(crate) missing: u64,
    /// Sends to the destination that match no seeded message.
    pub(crate) changed: u64,
    /// Sends to any other queue.
    pub(crate) elsewhere: u64,
    /// Messages still in the dead-letter queue, in flight or not.
    pub(crate) left: u64,
}

impl Arrivals {
    /// Nothing arrived yet, of a corpus of `messages`.
    pub(crate) fn none(messages: usize) -> Self {
        Self {
            counts: vec![0; messages],
            changed: 0,
        }
    }

    /// Notes one arrival of the message at this position in the corpus, or of something that is none.
    pub(crate) fn note(&mut self, message: Option<u32>) {
        match message.and_then(|message| self.counts.get_mut(message as usize)) {
            Some(count) => *count += 1,
            None => self.changed += 1,
        }
    }

    /// The account, given what else happened.
    pub(crate) fn account(&self, elsewhere: u64, left: u64) -> Account {
        let mut account = Account {
            seeded: self.counts.len() as u64,
            once: 0,
            repeated: 0,
            missing: 0,
            changed: self.changed,
            elsewhere,
            left,
        };
        for count in &self.counts {
            match count {
                0 => account.missing += 1,
                1 => account.once += 1,
                _ => account.repeated += 1,
            }
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_counted_in_one_place() {
        let mut arrivals = Arrivals::none(4);
        arrivals.note(Some(0));
        arrivals.note(Some(1));
        arrivals.note(Some(1));
        arrivals.note(None);
        arrivals.note(Some(99));
        assert_eq!(
            arrivals.account(5, 2),
            Account {
                seeded: 4,
                once: 1,
                repeated: 1,
                missing: 2,
                changed: 2,
                elsewhere: 5,
                left: 2,
            }
        );
    }
}
