//! The policy: which alarm acts on which targets, under which limits; data that changes without a deployment of code.

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::arn::Arn;
use crate::aws_error::AwsError;

/// Changes of an alarm that the ledger remembers. A policy that takes so many or more for separate troubles never holds
/// anything for flapping.
pub const FLAPS_KEPT: u32 = 200;

/// A remediation's policy document, as the SSM parameter holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document<A> {
    /// The document's format; this release reads 1.
    pub version: u32,
    /// What the remediation may act on. At least one.
    pub targets: Vec<Target<A>>,
}

/// One thing that the remediation may act on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target<A> {
    /// A short name, unique in the document; it appears in the timeline and in metrics.
    pub name: String,
    /// The alarms that wake the remediation for this target, by name or by ARN. At least one.
    pub alarms: Vec<String>,
    /// Remediations that have the first word on the target's alarms: this one acts once they have said theirs and it did
    /// not help. None where a playbook says what comes after what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Predecessor>,
    /// The bounds that the guard keeps.
    #[serde(default)]
    pub guard: Limits,
    /// What the remediation does, and how far it may go.
    pub action: A,
}

/// A remediation that has the first word on an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its name, such as `alias-rollback`.
    pub remediation: String,
    /// The ARN of what it acts on in answer to the same alarm.
    pub resource: String,
    /// How long its word is waited for after the alarm's change, and after what it did for the alarm to recover; at most
    /// 3,600.
    #[serde(default = "first_word")]
    pub seconds: NonZeroU32,
}

/// The most remediations that have the first word on one target's alarms.
const PREDECESSORS: usize = 4;
/// How long a remediation is waited for at most.
const LONGEST_WAIT: u32 = 3_600;

fn first_word() -> NonZeroU32 {
    seconds(600)
}

impl Predecessor {
    /// How long it is waited for.
    #[must_use]
    pub fn wait(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.seconds.get()))
    }

    fn check(&self) -> Result<(), String> {
        if self.remediation.is_empty() {
            return Err(
                "after: a remediation has no name; name one, such as alias-rollback".to_owned(),
            );
        }
        if self.resource.parse::<Arn>().is_err() {
            return Err(format!(
                "after: {:?} is no ARN; give that of what {} acts on",
                self.resource, self.remediation
            ));
        }
        if self.seconds.get() > LONGEST_WAIT {
            return Err(format!(
                "after: {} s are too long to wait for {}; wait {LONGEST_WAIT} at most",
                self.seconds, self.remediation
            ));
        }
        Ok(())
    }
}

/// The bounds that the guard keeps for one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// An event older than this is stale and is not acted on. `EventBridge` delivers for up to 24 hours.
    pub max_event_age_seconds: NonZeroU32,
    /// How often the remediation may act.
    pub budget: Budget,
    /// How long a human's approval of a plan counts after it was given, however long its giver let it last.
    pub approval_seconds: NonZeroU32,
    /// How long the remediation rests after it acted.
    pub cooldown_seconds: u32,
    /// When the alarm is held to be flapping.
    pub flap: Flap,
    /// When the remediation is held to be causing the alarm itself.
    pub breaker: Breaker,
    /// Whether what is temporary is taken back where the alarm is seen to be worse off with it.
    pub undo_if_worse: bool,
}

impl Limits {
    /// How long an approval counts.
    #[must_use]
    pub fn approval_lasts(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.approval_seconds.get()))
    }
}

/// How long something temporary stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Term {
    /// How long the alarm has to be back at OK before it is taken back.
    pub stabilisation_seconds: u32,
    /// How long it stays without a sign that the alarm is still in ALARM.
    pub expires_after_seconds: NonZeroU32,
    /// How long it stays at most.
    pub at_most_seconds: NonZeroU32,
}

impl Default for Term {
    fn default() -> Self {
        Self {
            stabilisation_seconds: 600,
            expires_after_seconds: seconds(3_600),
            at_most_seconds: seconds(14_400),
        }
    }
}

impl Term {
    /// Why the term makes no sense, naming the field and what would be right.
    pub fn check(self) -> Result<(), String> {
        if self.expires_after_seconds > self.at_most_seconds {
            return Err(format!(
                "term.expires_after_seconds {} is above term.at_most_seconds {}",
                self.expires_after_seconds, self.at_most_seconds
            ));
        }
        Ok(())
    }

    /// As the runtime wants it.
    #[must_use]
    pub fn temporary(self) -> Temporary {
        let lasting = |seconds: u32| TimeDelta::seconds(i64::from(seconds));
        Temporary {
            stabilisation: lasting(self.stabilisation_seconds),
            expires_after: lasting(self.expires_after_seconds.get()),
            at_most: lasting(self.at_most_seconds.get()),
        }
    }
}

/// How long something temporary stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporary {
    /// How long the alarm has to be back at OK before the target is restored.
    pub stabilisation: TimeDelta,
    /// How long it stays without a sign that the alarm is still in ALARM.
    pub expires_after: TimeDelta,
    /// How long it stays at most, whatever the alarm says.
    pub at_most: TimeDelta,
}

/// At most `actions` actions in any `window_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Actions in the window.
    pub actions: NonZeroU32,
    /// Length of the sliding window.
    pub window_seconds: NonZeroU32,
}

/// More than `transitions` changes to ALARM in `window_seconds` hold the remediation and escalate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flap {
    /// Changes to ALARM that are still taken as separate troubles; from 200 on nothing is ever flapping.
    pub transitions: NonZeroU32,
    /// Length of the sliding window.
    pub window_seconds: NonZeroU32,
}

/// `refires` alarms, each within `window_seconds` of an action on the target, open the breaker for `open_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Alarms in a row that follow one of our own actions.
    pub refires: NonZeroU32,
    /// How soon after an action an alarm is put down to it.
    pub window_seconds: NonZeroU32,
    /// How long the breaker stays open.
    pub open_seconds: NonZeroU32,
}

const fn seconds(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_event_age_seconds: seconds(900),
            approval_seconds: seconds(3_600),
            budget: Budget::default(),
            cooldown_seconds: 60,
            flap: Flap::default(),
            breaker: Breaker::default(),
            undo_if_worse: false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            actions: seconds(6),
            window_seconds: seconds(3_600),
        }
    }
}

impl Default for Flap {
    fn default() -> Self {
        Self {
            transitions: seconds(6),
            window_seconds: seconds(1_800),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            refires: seconds(2),
            window_seconds: seconds(900),
            open_seconds: seconds(3_600),
        }
    }
}

/// A policy that cannot be used; nothing is changed while it stands.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The parameter could not be read.
    #[error("the policy cannot be read: {source}")]
    Unreadable {
        /// The failed call.
        source: AwsError,
    },
    /// The parameter holds no value.
    #[error("SSM parameter {parameter} has no value; put the policy document in it")]
    Empty {
        /// The parameter.
        parameter: String,
    },
    /// The document has another form than its schema.
    #[error("the policy in {parameter} does not fit its schema at {path}: {problem}")]
    Malformed {
        /// Where the document came from.
        parameter: String,
        /// Where in the document.
        path: String,
        /// What is wrong there.
        problem: String,
    },
    /// The document has the right form but says something that cannot be carried out.
    #[error("the policy in {parameter} cannot be carried out: {problem}")]
    Unsound {
        /// Where the document came from.
        parameter: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl PolicyError {
    /// Whether another attempt can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable { source } => source.is_transient(),
            Self::Empty { .. } | Self::Malformed { .. } | Self::Unsound { .. } => false,
        }
    }
}

/// What an action's policy must be able to say of itself.
pub trait Action:
    DeserializeOwned + Serialize + JsonSchema + Clone + Send + Sync + 'static
{
    /// Whether what the remediation does is temporary, and can be taken back.
    const TEMPORARY: bool = false;
    /// Whether what is in place keeps requests from what the alarms measure, so that their metrics tell little of it.
    const TURNS_REQUESTS_AWAY: bool = false;

    /// The ARN of what is changed: the thing that one hand at a time holds a lease on.
    fn resource(&self) -> &str;

    /// Refuses what has the right form but cannot be carried out, saying what would be right.
    fn check(&self) -> Result<(), String>;

    /// Refuses what cannot be reached from where the function runs, saying what would be right.
    fn check_reach(&self, home: &Home) -> Result<(), String> {
        let _ = home;
        Ok(())
    }
}

impl<A: Action> Document<A> {
    /// Reads a document. `parameter` names its source in errors.
    pub fn parse(parameter: &str, text: &str) -> Result<Self, PolicyError> {
        let deserializer = &mut serde_json::Deserializer::from_str(text);
        let document: Self = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            PolicyError::Malformed {
                parameter: parameter.to_owned(),
                path: error.path().to_string(),
                problem: error.into_inner().to_string(),
            }
        })?;
        document.check().map_err(|problem| PolicyError::Unsound {
            parameter: parameter.to_owned(),
            problem,
        })?;
        Ok(document)
    }

    /// Refuses targets that cannot be reached from `home`. `parameter` names the document's source in errors.
    pub fn check_reach(&self, parameter: &str, home: &Home) -> Result<(), PolicyError> {
        for Target { name, action, .. } in &self.targets {
            action
                .check_reach(home)
                .map_err(|problem| PolicyError::Unsound {
                    parameter: parameter.to_owned(),
                    problem: format!("target {name}: {problem}"),
                })?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.version != 1 {
            return Err(format!(
                "version is {}; this release reads version 1",
                self.version
            ));
        }
        if self.targets.is_empty() {
            return Err("targets is empty; name at least one target".to_owned());
        }
        for (index, target) in self.targets.iter().enumerate() {
            let name = &target.name;
            if name.is_empty() {
                return Err(format!(
                    "targets[{index}].name is empty; give the target a name"
                ));
            }
            if target.alarms.is_empty() || target.alarms.iter().any(String::is_empty) {
                return Err(format!(
                    "target {name} names no alarm; an empty selector is never read as every alarm"
                ));
            }
            if target.after.len() > PREDECESSORS {
                return Err(format!(
                    "target {name} comes after {} remediations; name {PREDECESSORS} at most",
                    target.after.len()
                ));
            }
            for predecessor in &target.after {
                predecessor
                    .check()
                    .map_err(|problem| format!("target {name}: {problem}"))?;
            }
            if target.guard.undo_if_worse && !A::TEMPORARY {
                return Err(format!(
                    "target {name}: guard.undo_if_worse is for what is temporary, and what this remediation does stays; leave it out"
                ));
            }
            if target.guard.undo_if_worse && A::TURNS_REQUESTS_AWAY {
                return Err(format!(
                    "target {name}: guard.undo_if_worse cannot be told where requests are turned away from what the alarm measures; leave it out"
                ));
            }
            let earlier = &self.targets[..index];
            if earlier.iter().any(|other| other.name == *name) {
                return Err(format!(
                    "two targets are named {name}; give each its own name"
                ));
            }
            if earlier
                .iter()
                .any(|other| other.action.resource() == target.action.resource())
            {
                return Err(format!(
                    "target {name} acts on {}, as an earlier target does; list all its alarms in one target",
                    target.action.resource()
                ));
            }
            target
                .action
                .check()
                .map_err(|problem| format!("target {name}: {problem}"))?;
        }
        Ok(())
    }

    /// The targets that an alarm acts on, seen from `home`.
    #[must_use]
    pub fn targets_of(&self, alarm_arn: &str, home: &Home) -> Vec<&Target<A>> {
        self.targets
            .iter()
            .filter(|target| target.alarm_arns(home).iter().any(|arn| arn == alarm_arn))
            .collect()
    }
}

impl<A> Target<A> {
    /// The ARNs of the target's alarms, each once, however the policy names them.
    #[must_use]
    pub fn alarm_arns(&self, home: &Home) -> Vec<String> {
        let mut arns: Vec<String> = self
            .alarms
            .iter()
            .map(|alarm| home.alarm_arn(alarm))
            .collect();
        arns.sort_unstable();
        arns.dedup();
        arns
    }
}

/// Where a function runs: what a bare name in the policy means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: String,
    /// The region.
    pub region: String,
    /// The account.
    pub account: String,
}

impl Home {
    /// The home of the function with this ARN.
    #[must_use]
    pub fn of_function(arn: &str) -> Option<Self> {
        let arn: Arn = arn.parse().ok()?;
        Some(Self {
            partition: arn.partition().to_owned(),
            region: arn.region().to_owned(),
            account: arn.account().to_owned(),
        })
    }

    /// Whether a resource is in this account and region.
    #[must_use]
    pub fn holds(&self, arn: &Arn) -> bool {
        (arn.partition(), arn.region(), arn.account())
            == (&*self.partition, &*self.region, &*self.account)
    }

    /// The ARN of an alarm that the policy gives by ARN or by a name in this account and region.
    #[must_use]
    pub fn alarm_arn(&self, alarm: &str) -> String {
        if alarm.starts_with("arn:") {
            return alarm.to_owned();
        }
        let Self {
            partition,
            region,
            account,
        } = self;
        format!("arn:{partition}:cloudwatch:{region}:{account}:alarm:{alarm}")
    }
}

/// The document's JSON Schema, generated from the types.
#[must_use]
pub fn schema<A: Action>() -> serde_json::Value {
    schemars::schema_for!(Document<A>).to_value()
}

/// A document with where and when it was read.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// The document.
    pub document: Document<A>,
    /// The parameter's version, raised by SSM with each change.
    pub version: i64,
    /// When it was read.
    pub read_at: DateTime<Utc>,
}

impl<A> Loaded<A> {
    /// Whether it was read longer ago than `age`.
    #[must_use]
    pub fn is_older_than(&self, age: TimeDelta, now: DateTime<Utc>) -> bool {
        now - self.read_at >= age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Restart {
        service: String,
    }

    impl Action for Restart {
        fn resource(&self) -> &str {
            &self.service
        }

        fn check(&self) -> Result<(), String> {
            if self.service.is_empty() {
                Err("service is empty".into())
            } else {
                Ok(())
            }
        }
    }

    fn parse(text: &str) -> Result<Document<Restart>, PolicyError> {
        Document::parse("/policy", text)
    }

    #[test]
    fn limits_have_defaults() {
        let document = parse(
            r#"{"version":1,"targets":[{"name":"a","alarms":["High"],"action":{"service":"s"}}]}"#,
        )
        .unwrap();
        assert_eq!(document.targets[0].guard, Limits::default());
    }

    #[test]
    fn a_bare_name_means_the_alarm_at_home_and_nowhere_else() {
        let document = parse(
            r#"{"version":1,"targets":[{"name":"a","alarms":["High","arn:aws:cloudwatch:eu-west-1:123456789012:alarm:High","arn:aws:cloudwatch:us-east-1:123456789012:alarm:Edge"],"action":{"service":"s"}}]}"#,
        )
        .unwrap();
        let home = Home::of_function("arn:aws:lambda:eu-west-1:123456789012:function:f").unwrap();
        let listed = |arn: &str| document.targets_of(arn, &home).len();
        assert_eq!(document.targets[0].alarm_arns(&home).len(), 2);
        assert_eq!(
            listed("arn:aws:cloudwatch:eu-west-1:123456789012:alarm:High"),
            1
        );
        assert_eq!(
            listed("arn:aws:cloudwatch:us-east-1:123456789012:alarm:Edge"),
            1
        );
        assert_eq!(
            listed("arn:aws:cloudwatch:us-east-1:123456789012:alarm:High"),
            0
        );
        assert_eq!(
            listed("arn:aws:cloudwatch:eu-west-1:999999999999:alarm:High"),
            0
        );
        assert_eq!(
            listed("arn:aws:cloudwatch:eu-west-1:123456789012:alarm:Low"),
            0
        );
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place() {
        let error = parse(
            r#"{"version":1,"targets":[{"name":"a","alarms":["High"],"guard":{"budget":{"action":3}},"action":{"service":"s"}}]}"#,
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("targets[0].guard.budget"), "{error}");
        assert!(error.contains("unknown field `action`"), "{error}");
    }

    #[test]
    fn unsound_documents_say_what_would_be_right() {
        let cases = [
            (
                r#"{"version":2,"targets":[]}"#,
                "this release reads version 1",
            ),
            (r#"{"version":1,"targets":[]}"#, "name at least one target"),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":[],"action":{"service":"s"}}]}"#,
                "an empty selector is never read as every alarm",
            ),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":["x"],"action":{"service":"s"}},{"name":"a","alarms":["x"],"action":{"service":"t"}}]}"#,
                "give each its own name",
            ),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":["x"],"action":{"service":"s"}},{"name":"b","alarms":["x"],"action":{"service":"s"}}]}"#,
                "list all its alarms in one target",
            ),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":["x"],"after":[{"remediation":"b","resource":"live"}],"action":{"service":"s"}}]}"#,
                "give that of what b acts on",
            ),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":["x"],"after":[{"remediation":"b","resource":"arn:aws:lambda:eu-west-1:123456789012:function:f:live","seconds":3601}],"action":{"service":"s"}}]}"#,
                "wait 3600 at most",
            ),
            (
                r#"{"version":1,"targets":[{"name":"a","alarms":["x"],"action":{"service":""}}]}"#,
                "target a: service is empty",
            ),
        ];
        for (text, words) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
