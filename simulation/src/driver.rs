//! Plays a world: whatever happens, in the order of its time, with Lambda's retries and a playbook's steps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::alarm::State;
use shared::clock::Clock;
use shared::guard::effect::{Bad, Course, Told};
use shared::ledger::Ledger;
use shared::outcome::{Outcome, Report, Response, Rule};
use shared::remediation::Remediation;
use shared::runtime::{Invocation, RunError, Runtime, Suite};
use shared::settings::Settings;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::Instant;

use crate::error::Error;
use crate::fate::{Fates, draw};
use crate::invariants::{self, Invariant, Target, Violation};
use crate::script::{Happening, HumanTouch, Script, THRESHOLD};
use crate::stage::settings;
use crate::store::Door;
use crate::toys::page::Page;
use crate::toys::replay::Replay;
use crate::toys::rollback::Rollback;
use crate::world::{AlarmNow, Effect, NORMAL, OURS, Visits, World, alarm_arn, alarm_event};

/// Lambda's time limit of the functions, in seconds.
const TIMEOUT: u64 = 90;
/// How long a world is left alone before it is looked at, in seconds.
const REST: u64 = 52 * 60;
/// How often the schedule looks at a world that rests, in seconds.
const RESTING_LOOK: u64 = 300;

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Play {
    /// The seed.
    pub seed: u64,
    /// Happenings of the script that are left out, by their place.
    pub without: BTreeSet<usize>,
    /// Calls that go well all the same.
    pub spared: BTreeSet<String>,
    /// Whether to keep the story.
    pub tells: bool,
}

impl Play {
    /// All of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            without: BTreeSet::new(),
            spared: BTreeSet::new(),
            tells: false,
        }
    }
}

/// How a world ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The first violation.
    pub violation: Option<Violation>,
    /// How often things happened.
    pub visits: Visits,
    /// Calls whose fate was no plain answer.
    pub troubles: BTreeSet<String>,
    /// What happened.
    pub story: Vec<String>,
}

/// Plays a world.
pub fn play(play: &Play) -> Result<Ended, Error> {
    paused(async { Driver::new(play).run().await })
}

/// Plays a story whose time stands still unless it waits. The world is made inside of it: elsewhere, the true time of
/// its beginning would make every play another.
pub(crate) fn paused<T>(story: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(Error::Runtime)?;
    Ok(runtime.block_on(story))
}

type Answer = Result<Response, RunError>;

/// A function's instance, whatever its remediation.
trait Function: Send + Sync {
    fn answer(&self, invocation: Invocation) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

impl<R: Remediation> Function for Runtime<R> {
    fn answer(&self, invocation: Invocation) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.handle(invocation))
    }
}

struct Instance {
    function: Arc<dyn Function>,
    door: Door,
    clock: Clock,
    busy: bool,
}

/// Something to be delivered to a function.
#[derive(Debug, Clone)]
struct Delivery {
    remediation: &'static str,
    payload: Value,
    request: String,
    attempt: u32,
    playbook: Option<Playbook>,
}

/// Where a playbook stands.
#[derive(Debug, Clone)]
struct Playbook {
    alarm: Value,
    execution: String,
    tries: u32,
}

enum Task {
    Happens(Happening),
    Delivers(Delivery),
    Looks(&'static str),
    Rests,
}

struct Over {
    number: u64,
    remediation: &'static str,
    instance: usize,
    delivery: Delivery,
    /// None where the invocation died.
    answer: Option<Answer>,
    began: DateTime<Utc>,
}

struct Driver {
    seed: u64,
    world: World,
    script: Script,
    targets: Vec<Target>,
    broken: BTreeSet<&'static str>,
    instances: BTreeMap<&'static str, Vec<Instance>>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    tasks: BTreeMap<u64, Task>,
    order: u64,
    requests: u64,
    flying: usize,
    resting: bool,
}

impl Driver {
    fn new(play: &Play) -> Self {
        let mut script = Script::of(play.seed);
        let mut at = 0;
        script.happenings.retain(|_| {
            at += 1;
            !play.without.contains(&(at - 1))
        });
        let world = World::new(Fates::new(play.seed, play.spared.clone()), play.tells);
        Self {
            seed: play.seed,
            targets: script.targets.clone(),
            script,
            world,
            broken: BTreeSet::new(),
            instances: BTreeMap::new(),
            queue: BinaryHeap::new(),
            tasks: BTreeMap::new(),
            order: 0,
            requests: 0,
            flying: 0,
            resting: false,
        }
    }

    fn plan(&mut self, at: Instant, task: Task) {
        self.order += 1;
        self.tasks.insert(self.order, task);
        self.queue.push(Reverse((at, self.order)));
    }

    fn after(&mut self, seconds: u64, task: Task) {
        self.plan(Instant::now() + Duration::from_secs(seconds), task);
    }

    fn request(&mut self) -> String {
        self.requests += 1;
        format!("request-{}", self.requests)
    }

    async fn run(mut self) -> Ended {
        self.set_up();
        let (sender, mut over) = mpsc::unbounded_channel::<Over>();
        let mut rests_until = None;
        while rests_until.is_none_or(|until| Instant::now() < until) || self.flying > 0 {
            let next = self.queue.peek().map(|Reverse((at, _))| *at);
            let Some(next) = next else { break };
            tokio::select! {
                biased;
                Some(over) = over.recv() => self.is_over(&over),
                () = tokio::time::sleep_until(next) => {
                    let Some(Reverse((_, order))) = self.queue.pop() else { break };
                    match self.tasks.remove(&order) {
                        Some(Task::Happens(happening)) => self.happens(happening),
                        Some(Task::Delivers(delivery)) => self.delivers(delivery, &sender),
                        Some(Task::Looks(remediation)) => self.looks(remediation),
                        Some(Task::Rests) => {
                            self.comes_to_rest();
                            rests_until = Some(Instant::now() + Duration::from_secs(REST));
                        }
                        None => {}
                    }
                }
            }
            if self.world.inner().violation.is_some() {
                break;
            }
        }
        if self.world.inner().violation.is_none() {
            invariants::at_rest(&self.world, &self.targets);
        }
        let mut inner = self.world.inner();
        Ended {
            violation: inner.violation.take(),
            visits: inner.visits,
            troubles: std::mem::take(&mut inner.troubles),
            story: inner.story.take().unwrap_or_default(),
        }
    }

    fn set_up(&mut self) {
        let now = self.world.now();
        for alarm in &self.script.alarms {
            self.world.inner().alarms.insert(
                alarm_arn(alarm),
                AlarmNow {
                    state: State::Ok,
                    since: now,
                },
            );
        }
        for (alarm, values) in &self.script.metrics {
            let minutes = values.iter().zip(0..);
            let course = Course {
                bad: Bad::Above,
                threshold: THRESHOLD,
                includes_threshold: false,
                period: TimeDelta::minutes(1),
                evaluation_periods: 2,
                values: minutes
                    .map(|(value, minute)| (now + TimeDelta::minutes(minute), *value))
                    .collect(),
            };
            let courses = &mut self.world.inner().courses;
            courses.insert(alarm_arn(alarm), Told::Course(course));
        }
        for target in &self.targets {
            let (value, messages) = match target.remediation {
                "toy-rollback" => ("v1", 0),
                "toy-replay" => (NORMAL, 11),
                _ => (NORMAL, 0),
            };
            self.world.create(&target.resource, value, messages);
        }
        for remediation in self.script.remediations.clone() {
            self.publish_policy(remediation);
            let first = draw(self.seed, &["look", remediation], self.script.look_every);
            self.after(first, Task::Looks(remediation));
        }
        for (second, happening) in std::mem::take(&mut self.script.happenings) {
            self.plan(self.world.moment(second), Task::Happens(happening));
        }
        // What was still on its way when the story ended comes before the world rests.
        let rest = self.world.moment(self.script.ends_at);
        self.plan(rest, Task::Rests);
    }

    fn publish_policy(&self, remediation: &'static str) {
        let text = if self.broken.contains(remediation) {
            "{".to_owned()
        } else {
            Script::policy(&self.targets, remediation).to_string()
        };
        self.world.publish(remediation, text);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Flips {
                alarm,
                state,
                deliveries,
            } => self.flips(&alarm, state, deliveries),
            Happening::Edits {
                remediation,
                resource,
                listed,
            } => {
                self.world
                    .tell(|| format!("the policy of {remediation} names {resource}: {listed}"));
                let targets = self.targets.iter_mut();
                for target in targets.filter(|target| target.resource == resource) {
                    target.listed = listed;
                }
                if !listed {
                    self.world.inner().visits.removals += 1;
                }
                self.publish_policy(remediation);
            }
            Happening::Breaks {
                remediation,
                broken,
            } => {
                self.world
                    .tell(|| format!("the policy of {remediation} is broken: {broken}"));
                if broken {
                    self.broken.insert(remediation);
                } else {
                    self.broken.remove(remediation);
                }
                self.publish_policy(remediation);
            }
            Happening::Switches { scope, on } => {
                self.world.tell(|| format!("kill switch {scope}: {on}"));
                self.world.switch(&scope, on);
            }
            Happening::Human { resource, value } => self.human(&resource, &value),
            Happening::Expires => self.expires(),
        }
    }

    fn flips(&mut self, alarm: &str, state: State, deliveries: Vec<(&'static str, Vec<u64>)>) {
        let now = self.world.now();
        self.world.tell(|| format!("{alarm} is in {state}"));
        self.world
            .inner()
            .alarms
            .insert(alarm_arn(alarm), AlarmNow { state, since: now });
        if state == State::InsufficientData {
            return;
        }
        for (remediation, times) in deliveries {
            let known = self
                .targets
                .iter()
                .any(|target| target.remediation == remediation);
            for (nth, seconds) in times.into_iter().enumerate().filter(|_| known) {
                let request = self.request();
                let event = alarm_event(alarm, state, now, &format!("{request}-{nth}"));
                let playbook =
                    (remediation == "toy-approved" && state == State::Alarm).then(|| {
                        // One execution for each transition, whatever is delivered twice.
                        Playbook {
                            alarm: event.clone(),
                            execution: format!("{alarm}-{}", now.timestamp_millis()),
                            tries: 0,
                        }
                    });
                let payload = match &playbook {
                    Some(playbook) => step(playbook, "plan", None),
                    None => event,
                };
                let delivery = Delivery {
                    remediation,
                    payload,
                    request,
                    attempt: 1,
                    playbook,
                };
                self.after(seconds, Task::Delivers(delivery));
            }
        }
    }

    fn human(&self, resource: &str, touch: &HumanTouch) {
        let now = {
            let inner = self.world.inner();
            inner.things.get(resource).map(|thing| thing.value.clone())
        };
        let Some(now) = now else { return };
        let version: u64 = now.trim_start_matches('v').parse().unwrap_or(1);
        let value = match touch {
            HumanTouch::Value(value) => value.clone(),
            HumanTouch::Deploys => format!("v{}", version + 1),
            HumanTouch::GoesBack if version > 1 => format!("v{}", version - 1),
            HumanTouch::GoesBack => return,
        };
        let to: u64 = value.trim_start_matches('v').parse().unwrap_or(0);
        if let Some(thing) = self.world.inner().things.get_mut(resource) {
            // What served since a human's last change, a rollback in between or not, and is above where this one goes.
            let since = thing.past.iter().skip(thing.past_by_humans);
            let served = since.filter_map(|(_, value)| value.trim_start_matches('v').parse().ok());
            let left: Vec<u64> = served.filter(|served| *served > to).collect();
            thing.gone_back_from.extend(left);
            thing.past_by_humans = thing.past.len();
        }

        self.world
            .tell(|| format!("a human makes {resource} {value}"));
        let _ = self.world.change(resource, None, &value, 0);
    }

    /// The table deletes what it may, as if months had passed: leases that nobody holds, and everything of what
    /// stands or waits that has a term.
    fn expires(&self) {
        let now = self.world.now();
        let mut inner = self.world.inner();
        inner.table.retain(|key, item| {
            let stands = key.sk.starts_with("standing#") || key.sk.starts_with("waiting#");
            let index = stands || key.pk == "open";
            if index && item.expires_at.is_some() {
                return false;
            }
            if key.sk != "lease" {
                return true;
            }
            let lease: Option<shared::ledger::items::Lease> = crate::world::parsed(item);
            lease.is_some_and(|lease| lease.held_until + TimeDelta::seconds(30) > now)
        });
    }

    fn looks(&mut self, remediation: &'static str) {
        let every = if self.resting {
            RESTING_LOOK
        } else {
            self.script.look_every
        };
        self.after(every, Task::Looks(remediation));
        let delivery = Delivery {
            remediation,
            payload: json!({"source": "aws.events", "detail-type": "Scheduled Event"}),
            request: self.request(),
            attempt: 1,
            playbook: None,
        };
        self.after(0, Task::Delivers(delivery));
    }

    fn comes_to_rest(&mut self) {
        self.world.tell(|| "the world comes to rest".to_owned());
        self.resting = true;
        self.world.inner().rough = false;
        for remediation in std::mem::take(&mut self.broken) {
            self.publish_policy(remediation);
        }
    }

    fn instance(&mut self, remediation: &'static str) -> usize {
        let number = self.requests;
        let cold = draw(self.seed, &["cold", remediation, &number.to_string()], 4) == 0;
        let all = self.instances.entry(remediation).or_default();
        let idle = all.iter().position(|instance| !instance.busy);
        if let Some(idle) = idle.filter(|_| !cold) {
            return idle;
        }
        let skew = draw(
            self.seed,
            &["skew", remediation, &all.len().to_string()],
            4_001,
        );
        let skew = TimeDelta::milliseconds(i64::try_from(skew).unwrap_or(0) - 2_000);
        let world = self.world.clone();
        let clock = Clock::reading(move || world.now() + skew);
        let door = Door::new(self.world.clone());
        let settings = Settings {
            orchestrated: remediation == "toy-approved",
            ..settings(remediation)
        };
        let ledger = Ledger::new(Arc::new(door.clone()));
        let suite = Suite::of(settings, clock.clone(), ledger, Arc::new(door.clone()));
        let toy = door.clone();
        let function: Arc<dyn Function> = match remediation {
            "toy-page" => Arc::new(Runtime::new(suite, Page::<false, false> { door: toy })),
            "toy-cache" => Arc::new(Runtime::new(suite, Page::<true, false> { door: toy })),
            "toy-approved" => Arc::new(Runtime::new(suite, Page::<false, true> { door: toy })),
            "toy-rollback" => Arc::new(Runtime::new(suite, Rollback { door: toy })),
            _ => Arc::new(Runtime::new(suite, Replay { door: toy })),
        };
        all.push(Instance {
            function,
            door,
            clock,
            busy: false,
        });
        all.len() - 1
    }

    fn delivers(&mut self, delivery: Delivery, sender: &UnboundedSender<Over>) {
        let remediation = delivery.remediation;
        let at = self.instance(remediation);
        let Some(instance) = self
            .instances
            .get_mut(remediation)
            .and_then(|all| all.get_mut(at))
        else {
            return;
        };
        instance.busy = true;
        let name = format!(
            "{remediation} {} attempt {}",
            delivery.request, delivery.attempt
        );
        let (number, death) = self.world.begins(&name);
        instance.door.opens_for(number);
        self.world.tell(|| format!("#{number} begins: {name}"));
        let deadline = instance.clock.now() + TimeDelta::seconds(90);
        let invocation = Invocation {
            payload: delivery.payload.clone(),
            request_id: delivery.request.clone(),
            deadline,
            function_arn: format!("arn:aws:lambda:eu-west-1:123456789012:function:{remediation}"),
            trace_id: None,
        };
        let function = Arc::clone(&instance.function);
        let world = self.world.clone();
        let sender = sender.clone();
        self.flying += 1;
        tokio::spawn(async move {
            let began = world.now();
            let timeout = Duration::from_secs(TIMEOUT);
            let answer = tokio::select! {
                biased;
                () = death.notified() => None,
                answer = function.answer(invocation) => Some(answer),
                () = tokio::time::sleep(timeout) => {
                    world.inner().visits.deaths += 1;
                    world.tell(|| format!("#{number} is ended by Lambda"));
                    None
                }
            };
            let _ = sender.send(Over {
                number,
                remediation,
                instance: at,
                delivery,
                answer,
                began,
            });
        });
    }

    fn is_over(&mut self, over: &Over) {
        self.flying -= 1;
        self.world.ends(over.number);
        let died = over.answer.is_none();
        if let Some(all) = self.instances.get_mut(over.remediation)
            && let Some(instance) = all.get_mut(over.instance)
        {
            // What died is never used again.
            instance.busy = died;
        }
        let asked = std::mem::take(&mut self.world.inner().asked_for);
        for (remediation, payload) in asked {
            let delivery = Delivery {
                remediation,
                payload,
                request: self.request(),
                attempt: 1,
                playbook: None,
            };
            self.after(1, Task::Delivers(delivery));
        }
        let answer = over.answer.as_ref();
        self.world.tell(|| {
            format!(
                "#{} ends: {}",
                over.number,
                answer.map_or_else(|| "dead".to_owned(), told)
            )
        });
        for report in reports(answer) {
            self.is_honest(over, report);
        }
        match over.delivery.playbook.clone() {
            Some(playbook) => self.goes_on(over, playbook),
            None => self.comes_again(over),
        }
    }

    /// Lambda tries an asynchronous invocation three times.
    fn comes_again(&mut self, over: &Over) {
        let failed = over.answer.as_ref().is_none_or(Result::is_err);
        let delivery = &over.delivery;
        if failed && delivery.attempt < 3 {
            let next = Delivery {
                attempt: delivery.attempt + 1,
                ..delivery.clone()
            };
            self.after(60 * u64::from(delivery.attempt), Task::Delivers(next));
        }
    }

    /// A playbook retries with a new request, asks a human, and hands continuations back.
    fn goes_on(&mut self, over: &Over, mut playbook: Playbook) {
        playbook.tries += 1;
        if playbook.tries > 12 {
            return;
        }
        let deliver = |driver: &mut Self, seconds: u64, payload: Value, playbook: Playbook| {
            let delivery = Delivery {
                remediation: over.remediation,
                payload,
                request: driver.request(),
                attempt: 1,
                playbook: Some(playbook),
            };
            driver.after(seconds, Task::Delivers(delivery));
        };
        let Some(Ok(response)) = &over.answer else {
            let payload = over.delivery.payload.clone();
            deliver(self, 20, payload, playbook);
            return;
        };
        let now = self.world.now();
        let mut approvals = Vec::new();
        for report in &response.reports {
            match &report.outcome {
                Outcome::Pending {
                    continuation: Some(continuation),
                    ..
                } => deliver(self, 60, continuation.clone(), playbook.clone()),
                Outcome::Pending { .. } => {
                    let payload = over.delivery.payload.clone();
                    deliver(self, 100, payload, playbook.clone());
                }
                Outcome::Escalated {
                    rule: Rule::ApprovalRequired,
                    ..
                } => approvals.push(json!({
                    "target": report.target,
                    "plan_hash": report.plan_hash,
                    "transition": transition_of(report),
                    "by": "alice",
                    "at": now.to_rfc3339(),
                    "expires_at": (now + TimeDelta::minutes(20)).to_rfc3339(),
                })),
                _ => {}
            }
        }
        if !approvals.is_empty() {
            let after = 20 + draw(self.seed, &["approves", &over.delivery.request], 900);
            let payload = step(
                &playbook,
                &format!("act-{}", playbook.tries),
                Some(approvals),
            );
            deliver(self, after, payload, playbook);
        }
    }

    /// Whether the world shows what a report says.
    fn is_honest(&self, over: &Over, report: &Report) {
        if report.duplicate {
            return;
        }
        let inner = self.world.inner();
        let Some(thing) = inner.things.get(&report.resource) else {
            return;
        };
        let before = thing.past.iter().rev().find(|(at, _)| *at <= over.began);
        let since = thing.past.iter().filter(|(at, _)| *at > over.began);
        let mut shown = before.into_iter().chain(since).map(|(_, value)| value);
        let wrong = match (&report.outcome, over.remediation) {
            (Outcome::Applied { .. }, "toy-rollback") => {
                let to = report.plan.as_ref().and_then(|plan| plan["to"].as_u64());
                let to = format!("v{}", to.unwrap_or(0));
                !shown.any(|value| *value == to)
            }
            (Outcome::Applied { .. }, "toy-replay") => !thing.waiting.is_empty(),
            (Outcome::Applied { .. }, _) => {
                let transition = report.transition.as_deref().unwrap_or_default();
                let restores = transition.starts_with("restore|");
                !shown.any(|value| (value == OURS) != restores)
            }
            (
                Outcome::Escalated {
                    rule: Rule::TermEnded,
                    ..
                },
                _,
            ) => !shown.any(|value| value != OURS),
            (Outcome::Skipped { .. } | Outcome::AlreadyInPlace { .. }, _) => {
                inner.effects.iter().any(|effect| {
                    effect.invocation == over.number
                        && effect.resource == report.resource
                        && Some(&effect.run_id) == report.causation_id.as_ref()
                })
            }
            // Nobody is asked to approve what the run has put there, and it stands.
            (
                Outcome::Escalated {
                    rule: Rule::ApprovalRequired,
                    ..
                },
                _,
            ) => {
                let own = |effect: &Effect| {
                    !effect.reverts
                        && effect.resource == report.resource
                        && Some(&effect.run_id) == report.causation_id.as_ref()
                };
                thing.value == OURS && inner.effects.iter().any(own)
            }
            _ => false,
        };
        drop(inner);
        if wrong {
            self.world.violated(
                Invariant::HonestReport,
                format!(
                    "#{} reports {} of {}: {}",
                    over.number,
                    report.outcome.name(),
                    report.resource,
                    report.outcome.reason()
                ),
            );
        }
    }
}

/// The transition that an approval names: the alarm's change, without the playbook's step.
fn transition_of(report: &Report) -> String {
    let transition = report.transition.as_deref().unwrap_or_default();
    let end = transition.find("|step=").unwrap_or(transition.len());
    transition[..end].to_owned()
}

/// A playbook's input for one step.
fn step(playbook: &Playbook, step: &str, approvals: Option<Vec<Value>>) -> Value {
    let execution = format!(
        "arn:aws:states:eu-west-1:123456789012:execution:toy:{}",
        playbook.execution
    );
    json!({
        "playbook": {"execution": execution, "name": "toy", "step": step},
        "alarm": playbook.alarm,
        "approvals": approvals.unwrap_or_default(),
    })
}

fn reports(answer: Option<&Answer>) -> &[Report] {
    match answer {
        Some(Ok(response)) => &response.reports,
        Some(Err(RunError::Failed { response, .. })) => &response.reports,
        _ => &[],
    }
}

fn told(answer: &Answer) -> String {
    let outcomes = |response: &Response| {
        let reports = response.reports.iter();
        let told = reports.map(|report| {
            format!(
                "{} {} ({})",
                report.target,
                report.outcome.name(),
                report.outcome.reason()
            )
        });
        told.collect::<Vec<_>>().join("; ")
    };
    match answer {
        Ok(response) => outcomes(response),
        Err(RunError::Failed { response, .. }) => format!("failed: {}", outcomes(response)),
        Err(error) => format!("error: {error}"),
    }
}
