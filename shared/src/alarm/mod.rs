//! Reads everything that can wake a remediation into one typed value: strict about which alarm
//! changed to which state and when, lenient about all the rest.
//!
//! Accepted are, in the forms of the Amazon `CloudWatch` User Guide:
//!
//! - the `EventBridge` event `CloudWatch Alarm State Change` of every kind of alarm
//!   (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html>);
//! - the payload of an alarm's own Lambda action, `alarmData`
//!   (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html>);
//! - a playbook step's input, which carries either of the two:
//!
//! ```json
//! {
//!   "playbook": {
//!     "execution": "<ARN of the execution>",
//!     "name": "<name of the state machine>",
//!     "step": "<which of the playbook's calls this is>"
//!   },
//!   "alarm": { "source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change" },
//!   "dry_run": false,
//!   "approvals": [
//!     {
//!       "target": "<name of the target in the policy>",
//!       "plan_hash": "<hash of the plan that was shown>",
//!       "transition": "<the report's transition>",
//!       "by": "<who>",
//!       "at": "<when>",
//!       "expires_at": "<until when>"
//!     }
//!   ]
//! }
//! ```
//!
//! `playbook`, its `step`, `approvals` and `dry_run` are optional in that form, and `dry_run` may stand at the top of any of
//! the three. In a state machine that a rule starts with the alarm's event, the step's input is
//! `{"playbook": {"execution.$": "$$.Execution.Id", "name.$": "$$.StateMachine.Name"}, "alarm.$": "$"}`.
//!
//! The document is walked as a [`Value`]. The typed envelope and alarm types of `aws_lambda_events`
//! would refuse good events: their `time`, `resources` and `account` fail the whole event when they
//! hold an unexpected type or a `+0000` offset, a period of 86,400 s does not fit, and neither do
//! metric math, anomaly detection, or a composite alarm without a suppressor. Their errors name no field.

mod error;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::AlarmError;
pub use parse::{parse, parse_slice};

use error::printable;

/// One change of an alarm's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmEvent {
    /// The alarm's name, as its ARN holds it.
    pub alarm_name: String,
    /// The alarm's ARN; what identifies it.
    pub alarm_arn: String,
    /// The account of the alarm, from its ARN.
    pub account: String,
    /// The region of the alarm, from its ARN.
    pub region: String,
    /// The state that the alarm is in since.
    pub state: State,
    /// Why, for a reader.
    pub reason: Option<String>,
    /// Why, as data. `CloudWatch` sends JSON inside a string; a text that is not JSON stays a string.
    pub reason_data: Option<Value>,
    /// When the alarm's state, or the suppression of its actions, changed.
    pub changed_at: DateTime<Utc>,
    /// The state before, which `CloudWatch` leaves out of some events.
    pub previous_state: Option<PreviousState>,
    /// What keeps the alarm's actions from being executed. `EventBridge` receives the event all the same.
    pub suppressed_by: Option<Suppression>,
    /// What the alarm watches.
    pub kind: AlarmKind,
    /// How the event came here.
    pub path: Path,
    /// The `EventBridge` event's id. A weak key: see [`AlarmEvent::transition_key`].
    pub event_id: Option<String>,
    /// The alarm's description.
    pub description: Option<String>,
    /// Whether the sender asks to be shown the plan only.
    pub dry_run: bool,
    /// What humans have approved.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

/// A human's word for one plan on one target, in answer to one change of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The target's name in the policy.
    pub target: String,
    /// The hash of the plan that was shown.
    pub plan_hash: String,
    /// The transition that the plan was shown for, as the report gives it.
    pub transition: String,
    /// Who approved.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when it holds.
    pub expires_at: DateTime<Utc>,
}

impl AlarmEvent {
    /// The playbook's step that asks, which tells its calls for one transition apart.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match &self.path {
            Path::Playbook { step, .. } => step.as_deref(),
            Path::EventBridge | Path::AlarmAction => None,
        }
    }

    /// A payload that is read as this event, as far as a run depends on it: for a run that goes on after the payload
    /// that began it is gone.
    #[must_use]
    pub fn as_payload(&self) -> Value {
        let stamp = self.changed_at.format("%Y-%m-%dT%H:%M:%S%.3f+0000");
        let event = serde_json::json!({
            "version": "0",
            "id": self.event_id,
            "detail-type": "CloudWatch Alarm State Change",
            "source": "aws.cloudwatch",
            "account": self.account,
            "region": self.region,
            "resources": [self.alarm_arn],
            "detail": {
                "alarmName": self.alarm_name,
                "state": {
                    "value": self.state.as_str(),
                    "reason": self.reason,
                    "timestamp": stamp.to_string(),
                },
            },
        });
        match &self.path {
            Path::EventBridge | Path::AlarmAction => event,
            Path::Playbook {
                execution,
                name,
                step,
            } => serde_json::json!({
                "playbook": {"execution": execution, "name": name, "step": step},
                "alarm": event,
            }),
        }
    }

    /// A text that is the same for every delivery of one transition, and for no other transition.
    ///
    /// `EventBridge` and the alarm's Lambda action report one transition under different ids (or none), so
    /// the key is made of the alarm's ARN, its state, and the time of the transition in milliseconds. When a
    /// mute rule ends, `CloudWatch` executes the actions of the transition that it had held back; so that this
    /// delivery is not taken for a duplicate of the muted one, a suppressed delivery has a key of its own.
    #[must_use]
    pub fn transition_key(&self) -> String {
        let suppressed = if self.suppressed_by.is_some() {
            "|suppressed"
        } else {
            ""
        };
        format!(
            "{}|{}|{}{suppressed}",
            self.alarm_arn,
            self.state,
            self.changed_at.timestamp_millis()
        )
    }
}

/// A state of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Within the threshold.
    Ok,
    /// Outside the threshold.
    Alarm,
    /// Not enough is known.
    InsufficientData,
}

impl State {
    /// The name that `CloudWatch` gives the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }

    /// The state of that name in `CloudWatch`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ok, Self::Alarm, Self::InsufficientData]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state that an alarm left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviousState {
    /// The state. When suppression ends, a composite alarm goes from `ALARM` to `ALARM`.
    pub state: Option<State>,
    /// Why it was in that state, for a reader.
    pub reason: Option<String>,
    /// When it had come into that state.
    pub changed_at: Option<DateTime<Utc>>,
    /// What kept its actions from being executed.
    pub suppressed_by: Option<Suppression>,
}

/// What keeps an alarm's actions from being executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Suppression {
    /// The suppressor of a composite alarm.
    Suppressor {
        /// `Alarm`, `WaitPeriod` or `ExtensionPeriod`.
        by: String,
        /// Why, for a reader.
        reason: Option<String>,
    },
    /// An alarm mute rule.
    MuteRule {
        /// The rule's ARN.
        arn: Option<String>,
        /// When the rule's window ends.
        until: Option<DateTime<Utc>>,
    },
}

impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suppressor { by, reason: None } => f.write_str(&printable(by)),
            Self::Suppressor {
                by,
                reason: Some(reason),
            } => {
                write!(f, "{} ({})", printable(by), printable(reason))
            }
            Self::MuteRule { arn, until } => {
                match arn {
                    Some(arn) => write!(f, "the mute rule {}", printable(arn))?,
                    None => f.write_str("a mute rule")?,
                }
                until.map_or(Ok(()), |until| {
                    write!(
                        f,
                        " until {}",
                        until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                    )
                })
            }
        }
    }
}

/// What an alarm watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AlarmKind {
    /// A metric.
    Metric {
        /// The metric; more than one only if `CloudWatch` comes to allow it.
        metrics: Vec<Metric>,
    },
    /// A metric math expression.
    MetricMath {
        /// The expressions.
        expressions: Vec<String>,
        /// The metrics that they refer to.
        metrics: Vec<Metric>,
    },
    /// A metric against the band that `CloudWatch` expects.
    AnomalyDetection {
        /// The expression that makes the band.
        band: String,
        /// The metrics that it refers to.
        metrics: Vec<Metric>,
    },
    /// A Metrics Insights query over many time series.
    MetricsInsights {
        /// The query.
        query: String,
    },
    /// The states of other alarms.
    Composite {
        /// The rule over the other alarms' states.
        rule: String,
        /// The name or ARN of the alarm that suppresses this one's actions.
        suppressor: Option<String>,
    },
    /// The event does not say, or says it in a way that is not known.
    Unknown,
}

impl AlarmKind {
    /// The metrics that the alarm names. A composite alarm and a Metrics Insights query name none.
    #[must_use]
    pub fn metrics(&self) -> &[Metric] {
        match self {
            Self::Metric { metrics }
            | Self::MetricMath { metrics, .. }
            | Self::AnomalyDetection { metrics, .. } => metrics,
            Self::MetricsInsights { .. } | Self::Composite { .. } | Self::Unknown => &[],
        }
    }
}

/// A metric that an alarm watches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its id within the alarm.
    pub id: Option<String>,
    /// Its namespace, such as `AWS/SQS`.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its dimensions.
    pub dimensions: BTreeMap<String, String>,
    /// The statistic, such as `Sum` or `p99`.
    pub stat: Option<String>,
    /// The period in seconds.
    pub period_seconds: Option<u64>,
}

/// How an alarm's event reached the function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Path {
    /// An `EventBridge` rule.
    EventBridge,
    /// The alarm's own Lambda action.
    AlarmAction,
    /// A step of a playbook.
    Playbook {
        /// The ARN of the execution.
        execution: String,
        /// The name of the state machine.
        name: Option<String>,
        /// Which of the playbook's calls for one transition this is: `plan`, `act`, `look-again-1`.
        #[serde(default)]
        step: Option<String>,
    },
}
