//! The one entry point of every function: from an event to a report, through the guard, whatever the remediation.

mod sweep;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::alarm::{self, AlarmError, AlarmEvent, Path, State};
use crate::aws_error::AwsError;
use crate::clock::Clock;
use crate::guard::{self, Facts, Grounds, LiveAlarm, Permit, Question, Status, Verdict};
use crate::https;
use crate::ledger::{self, Amendment, Claim, Entry, Intent, Ledger, LedgerError, Place};
use crate::outcome::{Outcome, Report, Response, Rule, Step};
use crate::policy::{self, Loaded, PolicyError, Target};
use crate::remediation::{self, Done, End, Failure as _, Moment, Planned, Remediation, Work};
use crate::settings::{Settings, SettingsError};
use crate::telemetry::{self, Metric};

/// A policy older than this is read again, beside the guard's own reading.
const POLICY_FRESH: TimeDelta = TimeDelta::seconds(60);
/// A policy that cannot be read again is used for this long after it was read.
const POLICY_USABLE: TimeDelta = TimeDelta::minutes(15);
/// What is kept of Lambda's time for the report.
const RESERVE: TimeDelta = TimeDelta::seconds(5);
/// How often a run in its work says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// By when the next round of a run has begun, or is taken not to come.
const NEXT_ROUND: TimeDelta = TimeDelta::minutes(2);
/// By when a playbook has handed a continuation back, or is taken not to.
const NEXT_STEP: TimeDelta = TimeDelta::minutes(15);
/// How often a plan is made anew because the target was not as observed.
const REPLANS: u32 = 2;
/// When to look again at a target that takes its time.
const SETTLES_LATER: TimeDelta = TimeDelta::minutes(1);
/// When the schedule comes for what could not be decided yet, at the latest.
const UNDECIDED_FOR: TimeDelta = TimeDelta::minutes(5);
/// A target that has not settled by then is a human's business.
const SETTLES_WITHIN: TimeDelta = TimeDelta::minutes(20);
/// How often a decision is made anew because the ledger changed under it.
const DECISIONS: usize = 5;

/// What starts a run: the payload and what Lambda says of it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The event.
    pub payload: Value,
    /// Lambda's request id, the same over its own retries.
    pub request_id: String,
    /// When Lambda ends the invocation.
    pub deadline: DateTime<Utc>,
    /// The function, with its version or alias.
    pub function_arn: String,
    /// The X-Ray trace.
    pub trace_id: Option<String>,
}

/// A run that cannot be called a success. Lambda delivers the event again, and keeps it in the end.
#[derive(Debug, Error)]
pub enum RunError {
    /// The event is none that this function can act on.
    #[error("{0}")]
    Event(#[from] AlarmError),
    /// A continuation that this release did not write.
    #[error("the continuation cannot be read: {0}; start again from the alarm event")]
    Continuation(serde_json::Error),
    /// The policy cannot be used.
    #[error("{0}")]
    Policy(#[from] Arc<PolicyError>),
    /// At least one target failed. The message holds the whole response.
    #[error("{}", serde_json::to_string(.response).unwrap_or_default())]
    Failed {
        /// The reports.
        response: Box<Response>,
        /// Whether another attempt can succeed without anyone changing anything.
        retryable: bool,
    },
}

impl RunError {
    /// Whether another attempt can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Event(_) | Self::Continuation(_) => false,
            Self::Policy(error) => match &**error {
                PolicyError::Unreadable { source } => source.is_transient(),
                _ => false,
            },
            Self::Failed { retryable, .. } => *retryable,
        }
    }
}

/// The names that a playbook's `Retry` and `Catch` use.
impl From<RunError> for Diagnostic {
    fn from(error: RunError) -> Self {
        let error_type = match &error {
            RunError::Event(_) | RunError::Continuation(_) => "UnusableEvent",
            RunError::Policy(_) if !error.is_transient() => "UnusablePolicy",
            _ if error.is_transient() => "Retryable",
            _ => "NonRetryable",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error.to_string(),
        }
    }
}

/// A function that could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is missing or malformed.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The runtime's own error.
    #[error("the Lambda runtime stopped: {0}")]
    Runtime(lambda_runtime::Error),
}

/// What carries a run on in its next round.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Continuation {
    /// The target's name in the policy.
    target: String,
    /// The round that is asked for.
    round: u32,
    /// The event that began it all.
    trigger: Value,
}

/// The parts of the suite that every function shares.
#[derive(Debug, Clone)]
pub struct Suite {
    settings: Settings,
    clock: Clock,
    ledger: Ledger,
    ssm: aws_sdk_ssm::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
    eventbridge: aws_sdk_eventbridge::Client,
}

impl Suite {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock, config: &SdkConfig) -> Self {
        let ledger = Ledger::new(
            aws_sdk_dynamodb::Client::new(config),
            settings.ledger_table.clone(),
        );
        Self {
            ledger,
            settings,
            clock,
            ssm: aws_sdk_ssm::Client::new(config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            eventbridge: aws_sdk_eventbridge::Client::new(config),
        }
    }
}

/// A remediation with all that it needs to answer events.
pub struct Runtime<R: Remediation> {
    suite: Suite,
    remediation: R,
    policy: Mutex<Option<Arc<Loaded<R::Action>>>>,
}

/// The SDK's configuration, with time limits that leave a run room to report.
pub async fn sdk_config() -> SdkConfig {
    let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest());
    match https::client() {
        Ok(client) => loader = loader.http_client(client),
        Err(error) => tracing::warn!(%error, "each SDK client makes an HTTPS client of its own"),
    }
    loader
        .timeout_config(
            aws_config::timeout::TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(8))
                .operation_timeout(Duration::from_secs(25))
                .build(),
        )
        .retry_config(
            aws_config::retry::RetryConfig::standard()
                .with_max_attempts(4)
                .with_initial_backoff(Duration::from_millis(100))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .load()
        .await
}

/// Runs a function until Lambda ends it: settings, clients, policy, then one event after the other.
pub async fn run<R: Remediation>(build: impl FnOnce(&SdkConfig) -> R) -> Result<(), StartError> {
    let settings = Settings::from_environment();
    telemetry::start(
        settings
            .as_ref()
            .map_or(tracing::Level::INFO, |settings| settings.log),
    );
    let settings =
        settings.inspect_err(|error| tracing::error!(%error, "the function cannot start"))?;
    let config = sdk_config().await;
    let remediation = build(&config);
    let runtime = Runtime::new(Suite::new(settings, Clock::system(), &config), remediation);
    // Reading the policy now puts the one cold round trip before the first event. What fails here is
    // told when an event comes, so that the event is kept.
    let _ = runtime.policy().await;
    let runtime = &runtime;
    lambda_runtime::run(lambda_runtime::service_fn(
        |event: LambdaEvent<Value>| async move { runtime.handle(Invocation::from(event)).await },
    ))
    .await
    .map_err(StartError::Runtime)
}

impl From<LambdaEvent<Value>> for Invocation {
    fn from(event: LambdaEvent<Value>) -> Self {
        let deadline = i64::try_from(event.context.deadline)
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or(DateTime::UNIX_EPOCH);
        Self {
            payload: event.payload,
            request_id: event.context.request_id,
            deadline,
            function_arn: event.context.invoked_function_arn,
            trace_id: event.context.xray_trace_id,
        }
    }
}

/// What one invocation reads once for all its targets.
struct Shared<A> {
    live: OnceCell<Result<LiveAlarm, Arc<AwsError>>>,
    policy: OnceCell<Result<Arc<Loaded<A>>, Arc<PolicyError>>>,
}

impl<A> Default for Shared<A> {
    fn default() -> Self {
        Self {
            live: OnceCell::new(),
            policy: OnceCell::new(),
        }
    }
}

/// One run on one target.
#[allow(clippy::struct_field_names)] // A dry run is called a dry run everywhere.
struct Run<'a, A> {
    place: Place<'a>,
    target: &'a Target<A>,
    invocation: &'a Invocation,
    trigger: &'a Value,
    /// Whether the schedule has found the target due to be restored, whatever its alarm says.
    due: bool,
    round: Option<u32>,
    dry_run: bool,
    began: DateTime<Utc>,
}

/// The end of a run, or the news that the policy changed before anything was done.
enum Ran<A> {
    Reported(Box<Report>, Vec<Metric>),
    PolicyChanged(Arc<Loaded<A>>),
}

/// What a run needs to act, once the guard and the plan agree.
struct Agreed<R: Remediation> {
    facts: Facts,
    grounds: Grounds,
    plan: R::Plan,
    plan_value: Value,
    snapshot: Option<Value>,
}

enum Decided<R: Remediation> {
    Act(Box<Agreed<R>>),
    Restore(Box<(Facts, Grounds, guard::Snapshot)>),
    Settle(Box<(Facts, Grounds)>),
    Over(Box<Report>),
    Again,
    PolicyChanged(Arc<Loaded<R::Action>>),
}

impl<R: Remediation> Runtime<R> {
    /// A runtime for `remediation`.
    #[must_use]
    pub fn new(suite: Suite, remediation: R) -> Self {
        Self {
            suite,
            remediation,
            policy: Mutex::new(None),
        }
    }

    /// Answers one event.
    pub async fn handle(&self, invocation: Invocation) -> Result<Response, RunError> {
        let span = tracing::info_span!(
            "run",
            remediation = R::NAME,
            request_id = %invocation.request_id,
            trace_id = invocation.trace_id.as_deref().unwrap_or_default(),
        );
        let answer = self.answer(&invocation).instrument(span.clone()).await;
        span.in_scope(|| match &answer {
            Ok(response) => tracing::info!(overall = %response.overall, "answered"),
            Err(error) => tracing::error!(%error, retryable = error.is_transient(), "failed"),
        });
        answer
    }

    async fn answer(&self, invocation: &Invocation) -> Result<Response, RunError> {
        if sweep::is_schedule(&invocation.payload) {
            return Self::concluded(self.sweep(invocation).await?);
        }
        let (trigger, continuation) = match invocation.payload.get("continuation") {
            Some(continuation) => {
                let continuation: Continuation =
                    serde_json::from_value(continuation.clone()).map_err(RunError::Continuation)?;
                (continuation.trigger.clone(), Some(continuation))
            }
            None => (invocation.payload.clone(), None),
        };
        let event = alarm::parse(&trigger)?;
        let mut policy = self.policy().await?;
        let reports = loop {
            match self
                .on_targets(invocation, &trigger, &event, continuation.as_ref(), &policy)
                .await
            {
                Ok(reports) => break reports,
                Err(changed) => policy = changed,
            }
        };
        Self::concluded(Response::new(
            event.alarm_arn.clone(),
            event.state.as_str().to_owned(),
            reports,
        ))
    }

    /// The response, as an error where a target failed.
    fn concluded(response: Response) -> Result<Response, RunError> {
        let failures = || {
            response
                .reports
                .iter()
                .filter_map(|report| match &report.outcome {
                    Outcome::Failed { retryable, .. } => Some(*retryable),
                    _ => None,
                })
        };
        if failures().next().is_none() {
            return Ok(response);
        }
        let retryable = failures().any(|retryable| retryable);
        Err(RunError::Failed {
            response: Box::new(response),
            retryable,
        })
    }

    /// Runs on every target that the policy gives the alarm; `Err` when the policy changed before anything was done.
    async fn on_targets(
        &self,
        invocation: &Invocation,
        trigger: &Value,
        event: &AlarmEvent,
        continuation: Option<&Continuation>,
        policy: &Arc<Loaded<R::Action>>,
    ) -> Result<Vec<Report>, Arc<Loaded<R::Action>>> {
        let targets: Vec<_> = policy
            .document
            .targets_of(&event.alarm_arn, &event.alarm_name)
            .into_iter()
            .filter(|target| continuation.is_none_or(|wanted| wanted.target == target.name))
            .collect();
        if targets.is_empty() {
            tracing::warn!(alarm = %event.alarm_arn, "no target of the policy lists the alarm");
            return Ok(vec![Self::no_run(Outcome::Skipped {
                rule: Rule::NoTarget,
                reason: format!(
                    "no target in {} lists {}",
                    self.suite.settings.policy_parameter, event.alarm_name
                ),
            })]);
        }
        let shared = Shared::default();
        let runs = targets.into_iter().map(|target| {
            let run = Run {
                place: Place {
                    remediation: R::NAME,
                    target: &target.name,
                    resource: policy::Action::resource(&target.action),
                    event,
                    limits: &target.guard,
                    request_id: &invocation.request_id,
                    delivered: true,
                },
                target,
                invocation,
                trigger,
                due: false,
                round: continuation.map(|continuation| continuation.round),
                dry_run: self.suite.settings.dry_run || event.dry_run,
                began: self.suite.clock.now(),
            };
            let shared = &shared;
            async move {
                let causation_id = run.place.run_id();
                let span = tracing::info_span!("target", target = %target.name, %causation_id);
                self.on_target(&run, policy, shared).instrument(span).await
            }
        });
        let mut reports = Vec::new();
        for ran in join_all(runs).await {
            match ran {
                Ran::PolicyChanged(changed) => return Err(changed),
                Ran::Reported(report, metrics) => {
                    self.emit(&report, &metrics, event).await;
                    reports.push(*report);
                }
            }
        }
        Ok(reports)
    }

    /// A report of no run.
    fn no_run(outcome: Outcome) -> Report {
        Report {
            remediation: R::NAME.to_owned(),
            target: String::new(),
            resource: String::new(),
            incident_id: None,
            causation_id: None,
            outcome,
            duplicate: false,
            plan: None,
            evidence: None,
            notes: Vec::new(),
            steps: Vec::new(),
        }
    }

    async fn on_target(
        &self,
        run: &Run<'_, R::Action>,
        policy: &Arc<Loaded<R::Action>>,
        shared: &Shared<R::Action>,
    ) -> Ran<R::Action> {
        for _ in 0..DECISIONS {
            let mut steps = Steps::new(run.began);
            match self.decide(run, policy, shared, &mut steps).await {
                Decided::PolicyChanged(changed) => return Ran::PolicyChanged(changed),
                Decided::Over(report) => return Ran::Reported(report, Vec::new()),
                Decided::Again => {}
                Decided::Act(agreed) => {
                    if let Some((report, metrics)) = self.act(run, *agreed, steps).await {
                        return Ran::Reported(Box::new(report), metrics);
                    }
                }
                Decided::Restore(restore) => {
                    let (facts, grounds, snapshot) = *restore;
                    if let Some(report) = self.restore(run, facts, grounds, snapshot, steps).await {
                        return Ran::Reported(Box::new(report), Vec::new());
                    }
                }
                Decided::Settle(settle) => {
                    let (facts, grounds) = *settle;
                    if let Some(report) = self.settle(run, &facts, &grounds, steps).await {
                        return Ran::Reported(Box::new(report), Vec::new());
                    }
                }
            }
        }
        let failed = Outcome::Failed {
            error: format!(
                "the ledger's items for {} changed at every attempt to write them",
                run.place.resource
            ),
            retryable: true,
        };
        Ran::Reported(Box::new(Self::report(run, failed)), Vec::new())
    }

    fn report(run: &Run<'_, R::Action>, outcome: Outcome) -> Report {
        Report {
            remediation: R::NAME.to_owned(),
            target: run.target.name.clone(),
            resource: run.place.resource.to_owned(),
            incident_id: None,
            causation_id: Some(run.place.run_id()),
            outcome,
            duplicate: false,
            plan: None,
            evidence: None,
            notes: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn failed(run: &Run<'_, R::Action>, error: &dyn std::fmt::Display, retryable: bool) -> Report {
        Self::report(
            run,
            Outcome::Failed {
                error: error.to_string(),
                retryable,
            },
        )
    }

    /// Reads the ledger, the alarm, the target and, when it is due, the policy, all at once; then decides.
    async fn decide(
        &self,
        run: &Run<'_, R::Action>,
        policy: &Arc<Loaded<R::Action>>,
        shared: &Shared<R::Action>,
        steps: &mut Steps,
    ) -> Decided<R> {
        let event = run.place.event;
        let clock = &self.suite.clock;
        let alarmed = event.state == State::Alarm;
        let (facts, live, observed, current) = tokio::join!(
            self.suite.ledger.read(&run.place),
            shared.live.get_or_init(|| self.live(event)),
            async {
                if alarmed || (R::LEARNS && run.place.delivered) {
                    Some(
                        self.remediation
                            .observe(&run.target.action, Some(event), clock.now())
                            .await,
                    )
                } else {
                    None
                }
            },
            shared.policy.get_or_init(|| self.refreshed(policy)),
        );
        steps.end("observe", clock.now());
        let current = match current {
            Ok(current) => current,
            Err(error) => return Decided::Over(Box::new(Self::failed(run, error, false))),
        };
        if current.version != policy.version {
            return Decided::PolicyChanged(Arc::clone(current));
        }
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                return Decided::Over(Box::new(Self::failed(run, &error, error.is_transient())));
            }
        };
        let live = match live {
            Ok(live) => *live,
            Err(error) => {
                return Decided::Over(Box::new(Self::failed(run, error, error.is_transient())));
            }
        };
        let now = clock.now();
        let run_id = run.place.run_id();
        let verdict = guard::decide(&Question {
            event,
            live,
            facts: &facts,
            limits: &run.target.guard,
            request_id: &run.invocation.request_id,
            run_id: &run_id,
            round: run.round,
            now,
        });
        let grounds = match verdict {
            Verdict::Repeat(stored) => return self.repeat(run, &facts, *stored).await,
            Verdict::Refuse(refusal) => {
                let guard::Refusal { outcome, breaker } = *refusal;
                let amendment = Amendment {
                    breaker,
                    ..Amendment::default()
                };
                return self
                    .refuse(run, &facts, outcome, amendment, None, Vec::new())
                    .await;
            }
            Verdict::Proceed(grounds) => *grounds,
        };
        if grounds.settling {
            return self.settling(run, facts, grounds).await;
        }
        let observed = match observed {
            Some(observed) if alarmed => observed,
            observed => {
                let observed = observed.and_then(|observed| {
                    observed
                        .inspect_err(|error| tracing::warn!(%error, "nothing was learned"))
                        .ok()
                });
                return self.recovered(run, facts, grounds, live, observed).await;
            }
        };
        let observed = match observed {
            Ok(observed) => observed,
            Err(error) => {
                return Decided::Over(Box::new(Self::failed(run, &error, error.is_transient())));
            }
        };
        if let Some(refusal) = &grounds.too_late
            && !self.carried_out(&grounds).await
        {
            let outcome = refusal.outcome.clone();
            return self
                .refuse(run, &facts, outcome, Amendment::default(), None, Vec::new())
                .await;
        }
        let incident_id = run.place.incident_of(&facts);
        let planned = Self::planned(run, &facts, &grounds, &incident_id, &observed, None, now);
        steps.end("plan", clock.now());
        self.agreed(run, facts, grounds, planned).await
    }

    /// Whether the target is as the plan of an attempt that died leaves it.
    async fn carried_out(&self, grounds: &Grounds) -> bool {
        let begun = grounds.begun.clone().filter(|_| R::CONCLUDES);
        let Some(plan) = begun.and_then(|begun| serde_json::from_value::<R::Plan>(begun).ok())
        else {
            return false;
        };
        let done = Done::new(End::Finished, "an earlier attempt made the calls");
        let verified = self.read_back(&plan, &done).await;
        tracing::info!(holds = verified.holds, "{}", verified.summary);
        verified.holds
    }

    fn planned(
        run: &Run<'_, R::Action>,
        facts: &Facts,
        grounds: &Grounds,
        incident_id: &str,
        observed: &R::Observed,
        overtaken: Option<&Value>,
        now: DateTime<Utc>,
    ) -> Planned<R::Plan> {
        let moment = Moment {
            now,
            resuming: grounds.round > 1 || grounds.attempt > 1,
            event: run.place.event,
            incident_id,
            memory: facts.history.memory.as_ref(),
            begun: grounds.begun.as_ref(),
            overtaken,
            snapshot: facts.snapshot.as_ref(),
        };
        R::plan(observed, &run.target.action, &moment)
    }

    /// A target that takes its time is looked at, unless what the run put in place is not there any more.
    async fn settling(
        &self,
        run: &Run<'_, R::Action>,
        facts: Facts,
        grounds: Grounds,
    ) -> Decided<R> {
        let settling = facts.settling.as_ref();
        if settling.is_some_and(|settling| settling.run_id == run.place.run_id()) {
            return Decided::Settle(Box::new((facts, grounds)));
        }
        let outcome = Outcome::Skipped {
            rule: Rule::NothingToDo,
            reason: "what the run put in place was taken back before it had settled".to_owned(),
        };
        self.refuse(run, &facts, outcome, Amendment::default(), None, Vec::new())
            .await
    }

    /// What the plan comes to: an act, if nothing speaks against it.
    async fn agreed(
        &self,
        run: &Run<'_, R::Action>,
        facts: Facts,
        grounds: Grounds,
        planned: Planned<R::Plan>,
    ) -> Decided<R> {
        let mut amendment = Amendment::default();
        let mut shown = None;
        let outcome = match planned {
            Planned::Nothing { reason } => Outcome::Skipped {
                rule: Rule::NothingToDo,
                reason,
            },
            Planned::InPlace { reason } => {
                let kept = R::temporary(&run.target.action);
                let now = self.suite.clock.now();
                amendment.snapshot = facts
                    .snapshot
                    .as_ref()
                    .map(|found| found.renewed(kept, now));
                Outcome::AlreadyInPlace { reason }
            }
            Planned::Undecided { reason } if run.dry_run => Outcome::Skipped {
                rule: Rule::NothingToDo,
                reason,
            },
            Planned::Undecided { reason } => {
                amendment.undecided = true;
                Outcome::Pending {
                    reason,
                    check_again_at: self.suite.clock.now() + UNDECIDED_FOR,
                    continuation: Self::step_again(run),
                }
            }
            Planned::Escalate { rule, reason } => Outcome::Escalated { rule, reason },
            Planned::Act { plan, snapshot } => {
                let plan_value = serde_json::to_value(&plan).unwrap_or(Value::Null);
                if run.dry_run {
                    return self.rehearse(run, &facts, &plan, plan_value).await;
                }
                match Self::unapproved(run, &grounds, &plan_value) {
                    None => {
                        return Decided::Act(Box::new(Agreed {
                            facts,
                            grounds,
                            plan,
                            plan_value,
                            snapshot,
                        }));
                    }
                    Some(outcome) => {
                        shown = Some(plan_value);
                        outcome
                    }
                }
            }
        };
        self.refuse(run, &facts, outcome, amendment, shown, Vec::new())
            .await
    }

    /// Why the plan has to wait for a human, if it has to.
    fn unapproved(run: &Run<'_, R::Action>, grounds: &Grounds, plan: &Value) -> Option<Outcome> {
        let begun = grounds.round > 1 || grounds.attempt > 1;
        if begun || !R::needs_approval(&run.target.action) {
            return None;
        }
        let hash = crate::ids::plan_hash(plan);
        let reason = match &run.place.event.approved_plan {
            Some(approved) if *approved == hash => return None,
            Some(approved) => {
                format!(
                    "plan {approved} was approved, and by now the plan is another: approve plan {hash}"
                )
            }
            None => {
                format!("the policy wants a human to approve the plan first: approve plan {hash}")
            }
        };
        Some(Outcome::Escalated {
            rule: Rule::ApprovalRequired,
            reason,
        })
    }

    async fn live(&self, event: &AlarmEvent) -> Result<LiveAlarm, Arc<AwsError>> {
        use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
        let answer = self
            .suite
            .cloudwatch
            .describe_alarms()
            .alarm_names(&event.alarm_name)
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .send()
            .await
            .map_err(|error| {
                Arc::new(AwsError::new(
                    "cloudwatch:DescribeAlarms",
                    &event.alarm_name,
                    &error,
                ))
            })?;
        let read = |state: Option<&StateValue>| match state {
            Some(StateValue::Alarm) => State::Alarm,
            Some(StateValue::Ok) => State::Ok,
            _ => State::InsufficientData,
        };
        let metric = answer
            .metric_alarms()
            .first()
            .map(|alarm| LiveAlarm::Found {
                state: read(alarm.state_value()),
                actions_enabled: alarm.actions_enabled().unwrap_or(true),
            });
        let composite = answer
            .composite_alarms()
            .first()
            .map(|alarm| LiveAlarm::Found {
                state: read(alarm.state_value()),
                actions_enabled: alarm.actions_enabled().unwrap_or(true),
            });
        Ok(metric.or(composite).unwrap_or(LiveAlarm::Gone))
    }

    /// The policy, read if it never was.
    async fn policy(&self) -> Result<Arc<Loaded<R::Action>>, Arc<PolicyError>> {
        if let Some(policy) = self
            .policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            return Ok(policy);
        }
        self.read_policy().await
    }

    async fn read_policy(&self) -> Result<Arc<Loaded<R::Action>>, Arc<PolicyError>> {
        let Suite {
            ssm,
            settings,
            clock,
            ..
        } = &self.suite;
        let loaded = Arc::new(policy::load(ssm, &settings.policy_parameter, clock.now()).await?);
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The policy, read again if that is due. While SSM does not answer, a policy read lately still serves.
    async fn refreshed(
        &self,
        known: &Arc<Loaded<R::Action>>,
    ) -> Result<Arc<Loaded<R::Action>>, Arc<PolicyError>> {
        let now = self.suite.clock.now();
        if !known.is_older_than(POLICY_FRESH, now) {
            return Ok(Arc::clone(known));
        }
        match self.read_policy().await {
            Err(error)
                if matches!(&*error, PolicyError::Unreadable { source } if source.is_transient())
                    && !known.is_older_than(POLICY_USABLE, now) =>
            {
                tracing::warn!(%error, read_at = %known.read_at, "using the policy read before");
                Ok(Arc::clone(known))
            }
            answer => answer,
        }
    }

    async fn repeat(&self, run: &Run<'_, R::Action>, facts: &Facts, stored: Report) -> Decided<R> {
        let note = format!(
            "this transition was worked on already by {}; this delivery (request {}) did nothing",
            stored.causation_id.as_deref().unwrap_or("an earlier run"),
            run.invocation.request_id
        );
        let entry = Entry {
            kind: "duplicate",
            summary: note.clone(),
            detail: json!({"outcome": stored.outcome.name()}),
        };
        match self
            .suite
            .ledger
            .refuse(
                &run.place,
                facts,
                &entry,
                Amendment::default(),
                self.suite.clock.now(),
            )
            .await
        {
            Ok(Some(_)) => {}
            Ok(None) => return Decided::Again,
            // The stored report is the truth whether or not this line could be written.
            Err(error) => tracing::warn!(%error, "the timeline does not show this delivery"),
        }
        Decided::Over(Box::new(Report {
            duplicate: true,
            notes: vec![note],
            steps: Vec::new(),
            ..stored
        }))
    }

    async fn refuse(
        &self,
        run: &Run<'_, R::Action>,
        facts: &Facts,
        outcome: Outcome,
        amendment: Amendment,
        plan: Option<Value>,
        notes: Vec<String>,
    ) -> Decided<R> {
        let kind = match &outcome {
            Outcome::Escalated { .. } => "escalated",
            Outcome::AlreadyInPlace { .. } if run.place.event.state == State::Alarm => "in-place",
            Outcome::AlreadyInPlace { .. } => "recovered",
            Outcome::Pending { .. } => "pending",
            Outcome::Failed { .. } => "failed",
            Outcome::Skipped {
                rule: Rule::DryRun, ..
            } => "dry-run",
            _ => "skipped",
        };
        let entry = Entry {
            kind,
            summary: outcome.reason().to_owned(),
            detail: json!({
                "outcome": outcome,
                "plan": plan,
                "notes": notes,
                "request_id": run.invocation.request_id,
                "event": run.place.event_detail(),
            }),
        };
        let now = self.suite.clock.now();
        match self
            .suite
            .ledger
            .refuse(&run.place, facts, &entry, amendment, now)
            .await
        {
            Ok(None) => Decided::Again,
            Ok(Some(incident_id)) => {
                let report = Report {
                    incident_id: Some(incident_id),
                    plan,
                    notes,
                    ..Self::report(run, outcome)
                };
                Decided::Over(Box::new(report))
            }
            Err(error) => Decided::Over(Box::new(Self::failed(run, &error, error.is_transient()))),
        }
    }

    async fn rehearse(
        &self,
        run: &Run<'_, R::Action>,
        facts: &Facts,
        plan: &R::Plan,
        plan_value: Value,
    ) -> Decided<R> {
        match self.remediation.rehearse(plan, &run.target.action).await {
            Err(error) => Decided::Over(Box::new(Self::failed(run, &error, error.is_transient()))),
            Ok(notes) => {
                let outcome = Outcome::Skipped {
                    rule: Rule::DryRun,
                    reason: "a dry run ends with its plan; nothing was changed".to_owned(),
                };
                self.refuse(
                    run,
                    facts,
                    outcome,
                    Amendment::default(),
                    Some(plan_value),
                    notes,
                )
                .await
            }
        }
    }

    /// The alarm is back to OK: undo what is temporary once that has held, close the incident.
    async fn recovered(
        &self,
        run: &Run<'_, R::Action>,
        facts: Facts,
        grounds: Grounds,
        live: LiveAlarm,
        observed: Option<R::Observed>,
    ) -> Decided<R> {
        let now = self.suite.clock.now();
        let event = run.place.event;
        let back_in_alarm = matches!(
            live,
            LiveAlarm::Found {
                state: State::Alarm,
                ..
            }
        );
        let mut amendment = Amendment::default();
        let outcome = match facts.snapshot.clone() {
            Some(snapshot) if run.due => {
                return Decided::Restore(Box::new((facts, grounds, snapshot)));
            }
            _ if back_in_alarm => Outcome::Skipped {
                rule: Rule::StaleEvent,
                reason: "the alarm, read again, is in ALARM; what is in place stays".to_owned(),
            },
            None => {
                let memory = facts.history.memory.as_ref();
                let lesson = observed
                    .and_then(|observed| R::learn(&observed, &run.target.action, memory, now));
                let learned = lesson
                    .as_ref()
                    .map(|lesson| format!("; {}", lesson.summary))
                    .unwrap_or_default();
                amendment.memory = lesson.map(|lesson| lesson.memory);
                Outcome::AlreadyInPlace {
                    reason: format!(
                        "the alarm is back to OK, and nothing temporary is in place{learned}"
                    ),
                }
            }
            Some(snapshot) => {
                let alarms = match self.alarms(&run.target.alarms).await {
                    Ok(alarms) => alarms,
                    Err(error) => {
                        let failed = Self::failed(run, &error, error.is_transient());
                        return Decided::Over(Box::new(failed));
                    }
                };
                let stabilisation = R::temporary(&run.target.action)
                    .map_or(TimeDelta::zero(), |temporary| temporary.stabilisation);
                let restore_at = event.changed_at + stabilisation;
                if let Some(alarm) = alarms.in_alarm.first() {
                    Outcome::Skipped {
                        rule: Rule::OtherAlarm,
                        reason: format!("{alarm} is still in ALARM; what is in place stays"),
                    }
                } else if restore_at > now && !run.dry_run {
                    amendment.snapshot = Some(snapshot.ending(restore_at));
                    Outcome::Pending {
                        reason: format!(
                            "the alarm is back to OK; what is in place is taken back if that still holds {} s after",
                            stabilisation.num_seconds()
                        ),
                        check_again_at: restore_at,
                        continuation: None,
                    }
                } else {
                    return Decided::Restore(Box::new((facts, grounds, snapshot)));
                }
            }
        };
        self.refuse(run, &facts, outcome, amendment, None, Vec::new())
            .await
    }

    /// Claims, applies, verifies and reports; `None` when another run was first.
    async fn act(
        &self,
        run: &Run<'_, R::Action>,
        agreed: Agreed<R>,
        mut steps: Steps,
    ) -> Option<(Report, Vec<Metric>)> {
        let Suite { ledger, clock, .. } = &self.suite;
        let now = clock.now();
        let deadline = run.invocation.deadline;
        let snapshot = Self::snapshot(run, &agreed, now);
        let intent = Intent {
            facts: &agreed.facts,
            grounds: &agreed.grounds,
            plan: &agreed.plan_value,
            snapshot: snapshot.as_ref(),
        };
        let permit = match ledger.claim(&run.place, &intent, now, deadline).await {
            Ok(Claim::Granted(permit)) => permit,
            Ok(Claim::Overtaken) => return None,
            Err(error) => {
                return Some((Self::failed(run, &error, error.is_transient()), Vec::new()));
            }
        };
        steps.end("claim", clock.now());
        tracing::info!(incident_id = %permit.incident_id, token = permit.token, plan = %agreed.plan_value, "claimed");
        let (plan, mut done) = self
            .while_beating(&permit, self.applied(run, &permit, agreed, snapshot))
            .await;
        steps.end("apply", clock.now());
        let verified = self.verify(&plan, &done, &mut steps).await;
        let (outcome, status) = self.judge(run, &permit, &done, verified.as_ref());
        let metrics = std::mem::take(&mut done.metrics);
        let plan = serde_json::to_value(&plan).unwrap_or(Value::Null);
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan: Some(plan),
            evidence: Some(done.evidence.clone()),
            notes: done.notes.clone(),
            steps: steps.taken,
            ..Self::report(run, outcome)
        };
        Some((
            self.conclude(run, &permit, done, verified, status, report)
                .await,
            metrics,
        ))
    }

    /// The snapshot to write with the claim: that of the first plan, kept from then on.
    fn snapshot(
        run: &Run<'_, R::Action>,
        agreed: &Agreed<R>,
        now: DateTime<Utc>,
    ) -> Option<guard::Snapshot> {
        let temporary = R::temporary(&run.target.action);
        if let Some(found) = &agreed.facts.snapshot {
            return Some(found.renewed(temporary, now));
        }
        let state = agreed.snapshot.clone()?;
        Some(guard::Snapshot {
            run_id: run.place.run_id(),
            incident_id: run.place.incident_of(&agreed.facts),
            event: run.place.event.clone(),
            taken_at: now,
            expires_at: temporary.map(|kept| now + kept.expires_after.min(kept.at_most)),
            restore_at: None,
            version: 1,
            state,
        })
    }

    /// Carries the plan out, and plans anew where the target was not as observed.
    async fn applied(
        &self,
        run: &Run<'_, R::Action>,
        permit: &Permit,
        agreed: Agreed<R>,
        mut snapshot: Option<guard::Snapshot>,
    ) -> (R::Plan, Done) {
        let Suite { ledger, clock, .. } = &self.suite;
        let work = Work {
            clock,
            deadline: run.invocation.deadline - RESERVE,
            ledger,
        };
        let action = &run.target.action;
        let Agreed {
            facts,
            grounds,
            mut plan,
            ..
        } = agreed;
        let mut replans = Vec::new();
        let done = loop {
            let applied = self.remediation.apply(permit, &plan, action, &work).await;
            let done = applied.unwrap_or_else(|error| failed(&error, error.is_transient(), permit));
            let End::Overtaken { reason } = &done.end else {
                break done;
            };
            if replans.len() >= REPLANS as usize {
                let error = format!("{reason}, and so it was after every new look at it");
                break failed(&error, true, permit);
            }
            let observed = self
                .remediation
                .observe(action, Some(run.place.event), clock.now())
                .await;
            let observed = match observed {
                Ok(observed) => observed,
                Err(error) => break failed(&error, error.is_transient(), permit),
            };
            let overtaken = serde_json::to_value(&plan).unwrap_or(Value::Null);
            let planned = Self::planned(
                run,
                &facts,
                &grounds,
                &permit.incident_id,
                &observed,
                Some(&overtaken),
                clock.now(),
            );
            let end = match planned {
                Planned::Act {
                    plan: anew,
                    snapshot: state,
                } => {
                    replans.push(Entry {
                        kind: "replanned",
                        summary: reason.clone(),
                        detail: json!({"plan": anew}),
                    });
                    plan = anew;
                    // Nothing was changed yet, so what was observed now is the state to go back to.
                    if facts.snapshot.is_none()
                        && let (Some(taken), Some(state)) = (&mut snapshot, state)
                    {
                        taken.version += 1;
                        taken.state = state;
                        let written = ledger.retake(permit, taken, clock.now()).await;
                        if let Err(error) = written {
                            break failed(&error, error.is_transient(), permit);
                        }
                    }
                    continue;
                }
                Planned::Nothing { reason }
                | Planned::InPlace { reason }
                | Planned::Undecided { reason } => End::Nothing { reason },
                Planned::Escalate { rule, reason } => End::Escalated { rule, reason },
            };
            break Done::new(end, reason.clone());
        };
        let entries = replans.into_iter().chain(done.entries).collect();
        (plan, Done { entries, ..done })
    }

    /// Looks whether a target has settled into a plan whose calls were all made; `None` when another run was first.
    async fn settle(
        &self,
        run: &Run<'_, R::Action>,
        facts: &Facts,
        grounds: &Grounds,
        mut steps: Steps,
    ) -> Option<Report> {
        let Suite { ledger, clock, .. } = &self.suite;
        let plan = facts.settling.as_ref().and_then(|settling| {
            serde_json::from_value::<R::Plan>(settling.plan.clone())
                .ok()
                .map(|plan| (settling, plan))
        });
        let done = Done::new(End::Finished, "the calls were made before");
        let verified = match &plan {
            Some((_, plan)) => self.read_back(plan, &done).await,
            None => remediation::Verified {
                holds: false,
                summary: "the ledger does not hold the plan in a form that this release reads"
                    .to_owned(),
            },
        };
        steps.end("verify", clock.now());
        let now = clock.now();
        let in_time = plan
            .as_ref()
            .is_some_and(|(settling, _)| now - settling.since < SETTLES_WITHIN);
        if !verified.holds && in_time {
            let outcome = Outcome::Pending {
                reason: verified.summary,
                check_again_at: now + SETTLES_LATER,
                continuation: Self::step_again(run),
            };
            let incident_id = Some(run.place.incident_of(facts));
            return Some(Report {
                incident_id,
                ..Self::report(run, outcome)
            });
        }
        let plan_value = plan.map_or(Value::Null, |(settling, _)| settling.plan.clone());
        let intent = Intent {
            facts,
            grounds,
            plan: &plan_value,
            snapshot: None,
        };
        let claim = ledger
            .claim(&run.place, &intent, now, run.invocation.deadline)
            .await;
        let permit = match claim {
            Ok(Claim::Granted(permit)) => permit,
            Ok(Claim::Overtaken) => return None,
            Err(error) => return Some(Self::failed(run, &error, error.is_transient())),
        };
        steps.end("claim", clock.now());
        let outcome = if verified.holds {
            Outcome::Applied {
                summary: verified.summary.clone(),
            }
        } else {
            Outcome::Escalated {
                rule: Rule::NotSettled,
                reason: format!(
                    "{}, and {} minutes are more than it should take",
                    verified.summary,
                    SETTLES_WITHIN.num_minutes()
                ),
            }
        };
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan: Some(plan_value),
            steps: steps.taken,
            ..Self::report(run, outcome)
        };
        Some(
            self.conclude(
                run,
                &permit,
                done,
                Some(verified),
                Status::Completed,
                report,
            )
            .await,
        )
    }

    /// The input with which a playbook asks again.
    fn step_again(run: &Run<'_, R::Action>) -> Option<Value> {
        matches!(run.place.event.path, Path::Playbook { .. }).then(|| run.trigger.clone())
    }

    /// Does the work, and tells the ledger all the while that it is being done.
    async fn while_beating<T>(&self, permit: &Permit, work: impl Future<Output = T>) -> T {
        tokio::select! {
            worked = work => worked,
            never = self.beat_on(permit) => match never {},
        }
    }

    async fn beat_on(&self, permit: &Permit) -> Infallible {
        let mut ticks = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        loop {
            ticks.tick().await;
            let now = self.suite.clock.now();
            match self.suite.ledger.beat(permit, now).await {
                Ok(()) => permit.heard(now),
                Err(error @ LedgerError::Fenced { .. }) => {
                    tracing::error!(%error, "another run has taken over");
                    permit.lost();
                }
                Err(error) => tracing::warn!(%error, "the ledger missed a heartbeat"),
            }
        }
    }

    async fn verify(
        &self,
        plan: &R::Plan,
        done: &Done,
        steps: &mut Steps,
    ) -> Option<remediation::Verified> {
        if done.end != End::Finished {
            return None;
        }
        let verified = self.read_back(plan, done).await;
        steps.end("verify", self.suite.clock.now());
        Some(verified)
    }

    /// Looks at the target; what cannot be looked at does not hold.
    async fn read_back(&self, plan: &R::Plan, done: &Done) -> remediation::Verified {
        match self.remediation.verify(plan, done).await {
            Ok(verified) => verified,
            Err(error) => remediation::Verified {
                holds: false,
                summary: format!("what was done could not be read back: {error}"),
            },
        }
    }

    /// The outcome of a round, and the state that it leaves the record in.
    fn judge(
        &self,
        run: &Run<'_, R::Action>,
        permit: &Permit,
        done: &Done,
        verified: Option<&remediation::Verified>,
    ) -> (Outcome, Status) {
        match (&done.end, verified) {
            (End::Finished, Some(verified)) if verified.holds => (
                Outcome::Applied {
                    summary: format!("{}; {}", done.summary, verified.summary),
                },
                Status::Completed,
            ),
            (End::Finished, verified) => (
                Outcome::Escalated {
                    rule: Rule::Unsafe,
                    reason: format!(
                        "{}, but {}",
                        done.summary,
                        verified
                            .map_or("it was not read back", |verified| verified.summary.as_str())
                    ),
                },
                Status::Completed,
            ),
            (End::Escalated { rule, reason }, _) => (
                Outcome::Escalated {
                    rule: *rule,
                    reason: reason.clone(),
                },
                Status::Completed,
            ),
            (End::Failed { error, retryable }, _) => (
                Outcome::Failed {
                    error: error.clone(),
                    retryable: *retryable,
                },
                Status::Failed,
            ),
            (
                End::Settling {
                    reason,
                    check_again_at,
                },
                _,
            ) => (
                Outcome::Pending {
                    reason: format!("{}; {reason}", done.summary),
                    check_again_at: *check_again_at,
                    continuation: Self::step_again(run),
                },
                Status::Settling,
            ),
            (End::Nothing { reason }, _) => (
                Outcome::Skipped {
                    rule: Rule::NothingToDo,
                    reason: reason.clone(),
                },
                Status::Completed,
            ),
            (End::Overtaken { reason }, _) => (
                Outcome::Failed {
                    error: reason.clone(),
                    retryable: true,
                },
                Status::Failed,
            ),
            (End::Unfinished, _) => {
                let rounds = R::max_rounds(&run.target.action);
                if permit.round >= rounds {
                    let reason = format!(
                        "{}; the work goes beyond the {rounds} rounds that the policy allows: raise max_rounds, or start it again by hand",
                        done.summary
                    );
                    return (
                        Outcome::Escalated {
                            rule: Rule::RoundsUsedUp,
                            reason,
                        },
                        Status::Completed,
                    );
                }
                let orchestrated = matches!(run.place.event.path, Path::Playbook { .. });
                let check_again_at = self.suite.clock.now()
                    + if orchestrated {
                        TimeDelta::zero()
                    } else {
                        NEXT_ROUND
                    };
                (
                    Outcome::Pending {
                        reason: format!("{}; round {} carries on", done.summary, permit.round + 1),
                        check_again_at,
                        continuation: orchestrated.then(|| Self::continuation(run, permit)),
                    },
                    Status::Continuing,
                )
            }
        }
    }

    fn continuation(run: &Run<'_, R::Action>, permit: &Permit) -> Value {
        json!({
            "continuation": Continuation {
                target: run.target.name.clone(),
                round: permit.round + 1,
                trigger: run.trigger.clone(),
            }
        })
    }

    /// Writes the end of a round to the ledger, then asks for the next one where there is one.
    async fn conclude(
        &self,
        run: &Run<'_, R::Action>,
        permit: &Permit,
        done: Done,
        verified: Option<remediation::Verified>,
        status: Status,
        report: Report,
    ) -> Report {
        let now = self.suite.clock.now();
        let kind = match &report.outcome {
            Outcome::Applied { .. } => "applied",
            Outcome::Pending { .. } => "pending",
            Outcome::Escalated { .. } => "escalated",
            Outcome::Skipped { .. } => "skipped",
            _ => "failed",
        };
        let mut entries = done.entries;
        entries.push(Entry {
            kind,
            summary: report.outcome.reason().to_owned(),
            detail: json!({"evidence": done.evidence, "notes": done.notes, "steps": report.steps}),
        });
        if let Some(verified) = verified {
            let kind = if verified.holds {
                "verified"
            } else {
                "not-verified"
            };
            entries.push(Entry {
                kind,
                summary: verified.summary,
                detail: Value::Null,
            });
        }
        let orchestrated = matches!(
            &report.outcome,
            Outcome::Pending {
                continuation: Some(_),
                ..
            }
        );
        let continues_by = (status == Status::Continuing)
            .then(|| now + if orchestrated { NEXT_STEP } else { NEXT_ROUND });
        let end = ledger::End {
            status,
            report: &report,
            progress: done.progress,
            memory: done.memory,
            breaker: done.breaker,
            entries,
            continues_by,
            restored: false,
            settling: (status == Status::Settling).then(|| guard::Settling {
                run_id: permit.run_id.clone(),
                incident_id: permit.incident_id.clone(),
                event: run.place.event.clone(),
                since: now,
                plan: report.plan.clone().unwrap_or(Value::Null),
            }),
        };
        if let Err(error) = self.suite.ledger.finish(permit, end, now).await {
            return Self::unwritten(report, &error);
        }
        if status == Status::Continuing && !orchestrated {
            let payload = Self::continuation(run, permit);
            let function = &run.invocation.function_arn;
            if let Err(error) = self.remediation.carry_on(function, &payload).await {
                // The record says where to go on, and Lambda delivers the event again.
                let outcome = Outcome::Failed {
                    error: format!("the next round could not be asked for: {error}"),
                    retryable: true,
                };
                return Report { outcome, ..report };
            }
        }
        report
    }

    /// A report that did not reach the ledger is told in full in the log and in the error.
    fn unwritten(report: Report, error: &LedgerError) -> Report {
        let told = serde_json::to_string(&report).unwrap_or_default();
        tracing::error!(%error, report = %told, "the ledger does not hold this report");
        let outcome = Outcome::Failed {
            error: format!(
                "{} ({}), but the ledger does not hold it: {error}",
                report.outcome.name(),
                report.outcome.reason()
            ),
            retryable: error.is_transient(),
        };
        Report { outcome, ..report }
    }

    /// Restores a snapshot under a permit; `None` when another run was first.
    async fn restore(
        &self,
        run: &Run<'_, R::Action>,
        facts: Facts,
        grounds: Grounds,
        snapshot: guard::Snapshot,
        mut steps: Steps,
    ) -> Option<Report> {
        let Suite { ledger, clock, .. } = &self.suite;
        let deadline = run.invocation.deadline;
        let plan = json!({"restore": snapshot.state, "taken_at": snapshot.taken_at});
        if run.dry_run {
            let outcome = Outcome::Skipped {
                rule: Rule::DryRun,
                reason: "a dry run ends with its plan; nothing was restored".to_owned(),
            };
            return match self
                .refuse(
                    run,
                    &facts,
                    outcome,
                    Amendment::default(),
                    Some(plan),
                    Vec::new(),
                )
                .await
            {
                Decided::Over(report) => Some(*report),
                _ => None,
            };
        }
        let intent = Intent {
            facts: &facts,
            grounds: &grounds,
            plan: &plan,
            snapshot: None,
        };
        let permit = match ledger
            .claim(&run.place, &intent, clock.now(), deadline)
            .await
        {
            Ok(Claim::Granted(permit)) => permit,
            Ok(Claim::Overtaken) => return None,
            Err(error) => return Some(Self::failed(run, &error, error.is_transient())),
        };
        steps.end("claim", clock.now());
        let work = Work {
            clock,
            deadline: deadline - RESERVE,
            ledger,
        };
        let revert = self
            .remediation
            .revert(&permit, &snapshot.state, &run.target.action, &work);
        let reverted = self.while_beating(&permit, revert).await;
        steps.end("revert", clock.now());
        let (outcome, status, evidence) = match reverted {
            Ok(reverted) => (
                Outcome::Applied {
                    summary: reverted.summary,
                },
                Status::Completed,
                reverted.evidence,
            ),
            Err(error) => (
                Outcome::Failed {
                    error: error.to_string(),
                    retryable: error.is_transient(),
                },
                Status::Failed,
                Value::Null,
            ),
        };
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan: Some(plan),
            evidence: Some(evidence.clone()),
            steps: steps.taken,
            ..Self::report(run, outcome)
        };
        let entry = Entry {
            kind: if status == Status::Completed {
                "reverted"
            } else {
                "failed"
            },
            summary: report.outcome.reason().to_owned(),
            detail: evidence,
        };
        let end = ledger::End {
            status,
            report: &report,
            progress: None,
            memory: None,
            breaker: None,
            entries: vec![entry],
            continues_by: None,
            restored: status == Status::Completed,
            settling: None,
        };
        Some(match ledger.finish(&permit, end, clock.now()).await {
            Ok(()) => report,
            Err(error) => Self::unwritten(report, &error),
        })
    }

    /// Tells the outcome to the bus, the metrics and the log. What fails here fails alone: the ledger holds the truth.
    async fn emit(&self, report: &Report, metrics: &[Metric], event: &AlarmEvent) {
        let now = self.suite.clock.now();
        let took = report
            .steps
            .last()
            .map_or(0, |step| step.started_ms + step.took_ms);
        #[allow(clippy::cast_precision_loss)] // Milliseconds of one invocation are far below 2^52.
        let line = telemetry::metrics(report, took as f64, metrics, now);
        println!("{line}");
        let told = serde_json::to_string(report).unwrap_or_default();
        tracing::info!(
            incident_id = report.incident_id.as_deref().unwrap_or_default(),
            causation_id = report.causation_id.as_deref().unwrap_or_default(),
            outcome = report.outcome.name(),
            report = %told,
            "{}",
            report.outcome.reason()
        );
        let entry = aws_sdk_eventbridge::types::PutEventsRequestEntry::builder()
            .event_bus_name(&self.suite.settings.event_bus)
            .source("forgeguard")
            .detail_type("Forgeguard Remediation Outcome")
            .set_resources(Some(
                [&event.alarm_arn, &report.resource]
                    .into_iter()
                    .filter(|arn| !arn.is_empty())
                    .cloned()
                    .collect(),
            ))
            .detail(told)
            .build();
        match self
            .suite
            .eventbridge
            .put_events()
            .entries(entry)
            .send()
            .await
        {
            Ok(answer) if answer.failed_entry_count() == 0 => {}
            Ok(answer) => {
                let why = answer
                    .entries()
                    .first()
                    .and_then(|entry| entry.error_message());
                tracing::error!(why, "the bus refused the outcome");
            }
            Err(error) => {
                let error =
                    AwsError::new("events:PutEvents", &self.suite.settings.event_bus, &error);
                tracing::error!(%error, "the outcome did not reach the bus");
            }
        }
    }
}

/// A round that failed on the way.
fn failed(error: &dyn std::fmt::Display, retryable: bool, permit: &Permit) -> Done {
    let error = error.to_string();
    Done {
        progress: permit.progress.clone(),
        ..Done::new(
            End::Failed {
                error: error.clone(),
                retryable,
            },
            error,
        )
    }
}

/// The lengths of a run's steps.
struct Steps {
    began: DateTime<Utc>,
    last: DateTime<Utc>,
    taken: Vec<Step>,
}

impl Steps {
    fn new(began: DateTime<Utc>) -> Self {
        Self {
            began,
            last: began,
            taken: Vec::new(),
        }
    }

    fn end(&mut self, name: &str, now: DateTime<Utc>) {
        let millis = |from: DateTime<Utc>, to: DateTime<Utc>| {
            u64::try_from((to - from).num_milliseconds()).unwrap_or(0)
        };
        self.taken.push(Step {
            name: name.to_owned(),
            started_ms: millis(self.began, self.last),
            took_ms: millis(self.last, now),
        });
        self.last = now;
    }
}
