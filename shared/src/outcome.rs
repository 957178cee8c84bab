//! What a run ended in: one shape for playbooks, the ledger, events, metrics and logs.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a run on one target ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all_fields = "snake_case")]
pub enum Outcome {
    /// The mitigation is in place and was read back.
    Applied {
        /// What was done, in one sentence.
        summary: String,
    },
    /// There was nothing left to change.
    AlreadyInPlace {
        /// What was found.
        reason: String,
    },
    /// The guard or the plan decided to do nothing.
    Skipped {
        /// The rule that decided.
        rule: Rule,
        /// Why, in one sentence.
        reason: String,
    },
    /// The work goes on; look again at `check_again_at`.
    Pending {
        /// What is still to come.
        reason: String,
        /// When to look again.
        check_again_at: DateTime<Utc>,
        /// The input that carries the work on, for a playbook to hand back. Absent when the function
        /// carries on by itself, or when another run does the work.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        continuation: Option<Value>,
    },
    /// A human has to decide.
    Escalated {
        /// The rule that decided.
        rule: Rule,
        /// Why, and what to do, in one sentence.
        reason: String,
    },
    /// The run failed.
    Failed {
        /// What failed and the remedy.
        error: String,
        /// Whether another attempt can succeed without anyone changing anything.
        retryable: bool,
    },
}

impl Outcome {
    /// Which of the six it is.
    #[must_use]
    pub fn kind(&self) -> Overall {
        match self {
            Self::Applied { .. } => Overall::Applied,
            Self::AlreadyInPlace { .. } => Overall::AlreadyInPlace,
            Self::Skipped { .. } => Overall::Skipped,
            Self::Pending { .. } => Overall::Pending,
            Self::Escalated { .. } => Overall::Escalated,
            Self::Failed { .. } => Overall::Failed,
        }
    }

    /// The outcome's name, as metrics and the playbooks' choices use it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The rule that decided, where one did.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Skipped { rule, .. } | Self::Escalated { rule, .. } => Some(*rule),
            _ => None,
        }
    }

    /// A failure that another attempt can mend, or not.
    #[must_use]
    pub fn failed(error: &dyn std::fmt::Display, retryable: bool) -> Self {
        Self::Failed {
            error: error.to_string(),
            retryable,
        }
    }

    /// Why, in one sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Applied { summary } => summary,
            Self::AlreadyInPlace { reason }
            | Self::Skipped { reason, .. }
            | Self::Pending { reason, .. }
            | Self::Escalated { reason, .. } => reason,
            Self::Failed { error, .. } => error,
        }
    }
}

/// The six ways in which a run ends, from the one that asks most of the reader to the one that asks least.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Overall {
    /// The run failed.
    Failed,
    /// A human has to decide.
    Escalated,
    /// The work goes on.
    Pending,
    /// The mitigation is in place and was read back.
    Applied,
    /// There was nothing left to change.
    AlreadyInPlace,
    /// Nothing was done.
    Skipped,
}

impl Overall {
    /// Its name, as it is serialised.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Escalated => "Escalated",
            Self::Pending => "Pending",
            Self::Applied => "Applied",
            Self::AlreadyInPlace => "AlreadyInPlace",
            Self::Skipped => "Skipped",
        }
    }
}

/// The rule that kept a run from acting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The kill switch for everything is on.
    KillSwitchGlobal,
    /// The kill switch for this remediation is on.
    KillSwitchRemediation,
    /// The kill switch for this target is on.
    KillSwitchTarget,
    /// The event is older than the policy allows.
    StaleEvent,
    /// The alarm, read again, is no longer in ALARM.
    AlarmRecovered,
    /// The alarm's actions are disabled.
    AlarmActionsDisabled,
    /// A composite alarm's suppressor holds its actions back.
    AlarmSuppressed,
    /// The new state never leads to an action.
    StateWithoutAction,
    /// No target of the policy lists the alarm.
    NoTarget,
    /// Another delivery of the same transition is being worked on.
    InProgress,
    /// The transition was worked on already.
    Duplicate,
    /// Another run holds the target's lease.
    LeaseHeld,
    /// Another remediation has the first word on the alarm.
    AfterAnother,
    /// The remediation acted on the target a moment ago.
    Cooldown,
    /// The remediation has used up its actions for now.
    Budget,
    /// The alarm changes state too often.
    Flapping,
    /// The alarm is put down to our own action.
    Breaker,
    /// The plan would go beyond the policy's cap.
    BlastCap,
    /// The run was asked for its plan only.
    DryRun,
    /// The plan found nothing to do.
    NothingToDo,
    /// The plan cannot be made safely.
    Unsafe,
    /// The policy wants a human to approve the plan first.
    ApprovalRequired,
    /// Another alarm of the target is still in ALARM.
    OtherAlarm,
    /// What was asked for did not come about in time.
    NotSettled,
    /// A newer change of the alarm is known.
    Superseded,
    /// It is too early to tell.
    Undecided,
    /// The invocation had no time left for the target.
    NoTimeLeft,
    /// Every attempt at the work died or failed.
    AttemptsUsedUp,
    /// The alarm belongs to an account that this function does not read.
    ForeignAccount,
    /// What is in place has outlasted its term, and nothing takes it back.
    Overdue,
    /// What is in place ends before long, and the alarm is still in ALARM.
    TermEndsSoon,
    /// The alarm is worse off since what was done.
    MadeWorse,
    /// What was in place was taken back because its term was over, although the alarm was still in ALARM.
    TermEnded,
}

impl Rule {
    /// Whether time alone can lift it: what it holds back is due as long as the alarm stays in ALARM, and the
    /// schedule takes it up. Any other rule ends the transition.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::KillSwitchGlobal
                | Self::KillSwitchRemediation
                | Self::KillSwitchTarget
                | Self::InProgress
                | Self::LeaseHeld
                | Self::AfterAnother
                | Self::Cooldown
                | Self::Budget
                | Self::Flapping
                | Self::Breaker
                | Self::Undecided
                | Self::NoTimeLeft
                | Self::AlarmActionsDisabled
        )
    }
}

/// A step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// The ledger, the alarm and the target were read.
    Observe,
    /// The guard and the plan decided.
    Plan,
    /// The claim was written.
    Claim,
    /// The plan was carried out.
    Apply,
    /// The target was read again.
    Verify,
    /// What was in place was taken back.
    Revert,
}

/// How long one step of a run took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The step.
    pub name: StepName,
    /// Milliseconds from the start of the run to the start of the step.
    pub started_ms: u64,
    /// Its length in milliseconds.
    pub took_ms: u64,
}

/// All there is to say of a run on one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The remediation.
    pub remediation: String,
    /// The target's name in the policy.
    pub target: String,
    /// The ARN of what is changed.
    pub resource: String,
    /// The incident whose timeline tells the rest. Absent when nothing was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
    /// Carried by every call and message of this run, so that what it causes can be told from what others cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The alarm's change that the run answers; what an approval has to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<String>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether this is the stored outcome of an earlier delivery of the same transition.
    #[serde(default)]
    pub duplicate: bool,
    /// The plan that was carried out, or would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Value>,
    /// The hash of the plan, which is what a human approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// What was done, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// What a reader should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How long each step took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

impl Report {
    /// A report of a run on `target` that says how it ended and nothing else.
    #[must_use]
    pub fn new(remediation: &str, target: &str, resource: &str, outcome: Outcome) -> Self {
        Self {
            remediation: remediation.to_owned(),
            target: target.to_owned(),
            resource: resource.to_owned(),
            incident_id: None,
            causation_id: None,
            transition: None,
            outcome,
            duplicate: false,
            plan: None,
            plan_hash: None,
            evidence: None,
            notes: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// What an invocation answers: one report for each target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// The alarm's ARN.
    pub alarm: String,
    /// The state it changed to.
    pub state: String,
    /// A report for each target.
    pub reports: Vec<Report>,
    /// The outcome among the reports that asks most of the reader, for a playbook's choice.
    pub overall: Overall,
}

impl Response {
    /// Puts reports together. The overall outcome is the one that asks most of the reader.
    #[must_use]
    pub fn new(alarm: String, state: String, reports: Vec<Report>) -> Self {
        let kinds = reports.iter().map(|report| report.outcome.kind());
        let overall = kinds.min().unwrap_or(Overall::Skipped);
        Self {
            alarm,
            state,
            reports,
            overall,
        }
    }
}
