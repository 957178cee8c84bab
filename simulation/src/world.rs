//! The world below the kernel: a table, alarms, a policy, targets, and everything that was seen to happen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::alarm::State;
use shared::guard::effect::Told;
use shared::ledger::items::{Lease, Standing};
use shared::ledger::store::{Change, Item, Key, Transacted, Write};
use shared::runtime::outside::Described;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fate::{Fate, Fates};
use crate::invariants::{Invariant, Violation};

/// The account that the world is in.
pub const ACCOUNT: &str = "123456789012";
/// The region that the world is in.
pub const REGION: &str = "eu-west-1";

/// The value of a target that nobody has touched.
pub const NORMAL: &str = "normal";
/// The value that a toy puts in its place.
pub const OURS: &str = "ours";

/// An alarm as it is.
#[derive(Debug, Clone)]
pub struct AlarmNow {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A thing that a toy acts on.
#[derive(Debug, Clone)]
pub struct Thing {
    /// What it is like.
    pub value: String,
    /// Raised by every change.
    pub revision: u64,
    /// When what was put there is in force.
    pub ready_at: DateTime<Utc>,
    /// What it was like, and since when.
    pub past: Vec<(DateTime<Utc>, String)>,
    /// Messages that wait in it.
    pub waiting: BTreeSet<u32>,
    /// How often each message was delivered.
    pub delivered: BTreeMap<u32, u32>,
    /// Messages of which it was said that they may be delivered twice.
    pub counted: BTreeSet<u32>,
    /// Versions that a human went back from.
    pub gone_back_from: BTreeSet<u64>,
    /// How much of the past lies before a human's last change.
    pub past_by_humans: usize,
}

/// Something that a run changed.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The remediation.
    pub remediation: &'static str,
    /// The run.
    pub run_id: String,
    /// The invocation.
    pub invocation: u64,
    /// The thing.
    pub resource: String,
    /// Whether it took something back.
    pub reverts: bool,
}

/// A kill switch's history: from when to when it was on.
#[derive(Debug, Clone)]
pub struct Thrown {
    /// Its sort key in the table.
    pub scope: String,
    /// From when.
    pub from: Instant,
    /// To when; none while it is on.
    pub to: Option<Instant>,
}

/// How often the interesting things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visits {
    /// Invocations.
    pub invocations: u64,
    /// Invocations that died.
    pub deaths: u64,
    /// Transactions and calls that met another.
    pub conflicts: u64,
    /// Answers that were lost.
    pub lost_answers: u64,
    /// Calls that were throttled.
    pub throttles: u64,
    /// Invocations that began while another of the same remediation was at work.
    pub overlaps: u64,
    /// Effects that changed a target.
    pub effects: u64,
    /// Effects that took something back.
    pub restores: u64,
    /// Outcomes that ask for a human.
    pub escalations: u64,
    /// Kill switches thrown.
    pub switches: u64,
    /// Targets taken out of the policy.
    pub removals: u64,
}

impl Visits {
    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.invocations += other.invocations;
        self.deaths += other.deaths;
        self.conflicts += other.conflicts;
        self.lost_answers += other.lost_answers;
        self.throttles += other.throttles;
        self.overlaps += other.overlaps;
        self.effects += other.effects;
        self.restores += other.restores;
        self.escalations += other.escalations;
        self.switches += other.switches;
        self.removals += other.removals;
    }
}

/// An invocation that is being played.
#[derive(Debug)]
pub struct Playing {
    /// Its number.
    pub number: u64,
    /// Its place in the story: remediation, request and attempt.
    pub name: String,
    calls: u64,
    /// Set off when it dies.
    pub death: Arc<Notify>,
}

/// How many calls were made at once, and in one second.
#[derive(Debug, Clone, Default)]
pub struct Load {
    flying: u64,
    /// The most at once.
    pub most_flying: u64,
    seconds: BTreeMap<&'static str, (i64, u64)>,
    /// The most in one second, by operation.
    pub most_a_second: BTreeMap<&'static str, u64>,
}

impl Load {
    fn begins(&mut self, operation: &'static str, second: i64) {
        self.flying += 1;
        self.most_flying = self.most_flying.max(self.flying);
        let now = self.seconds.entry(operation).or_insert((second, 0));
        if now.0 != second {
            *now = (second, 0);
        }
        now.1 += 1;
        let most = self.most_a_second.entry(operation).or_default();
        *most = (*most).max(now.1);
    }
}

/// What happens in the world.
#[derive(Debug)]
pub struct Inner {
    /// The ledger's table.
    pub table: BTreeMap<Key, Item>,
    tokens: HashMap<String, Instant>,
    /// The alarms.
    pub alarms: BTreeMap<String, AlarmNow>,
    /// How the metrics of alarms went, where they have one.
    pub courses: BTreeMap<String, Told>,
    /// Policy documents by parameter.
    pub policies: BTreeMap<String, (String, i64)>,
    /// The things that toys act on.
    pub things: BTreeMap<String, Thing>,
    /// Fates of calls.
    pub fates: Fates,
    /// Whether calls may fail.
    pub rough: bool,
    playing: BTreeMap<u64, Playing>,
    invocations: u64,
    /// When each lease was asked for, by resource, token and invocation.
    claims: BTreeMap<(String, u64, u64), Instant>,
    /// Alarms that an invocation, when it last looked, saw in ALARM.
    seen: BTreeSet<(u64, String)>,
    /// Kill switches.
    pub thrown: Vec<Thrown>,
    /// What was changed by runs.
    pub effects: Vec<Effect>,
    /// Outcomes that were put on the bus.
    pub published: Vec<Value>,
    /// Continuations that were asked for.
    pub asked_for: Vec<(&'static str, Value)>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// How often things happened.
    pub visits: Visits,
    /// Calls whose fate was no plain answer.
    pub troubles: BTreeSet<String>,
    /// What happened, line by line, where it is wanted.
    pub story: Option<Vec<String>>,
    /// How many calls were made at once, and in one second by operation.
    pub load: Load,
    /// Changes of things that will still meet another.
    pub conflicts_to_come: u32,
    /// How many looks succeed before so many fail.
    pub looks_to_fail: (u32, u32),
    /// What becomes of every call of an operation, or of one with this subject: `Look`, or `Look thing`.
    pub troubled: BTreeMap<String, Fate>,
    /// The throttle of `DescribeAlarms`: calls in the running second.
    pub described: (i64, u32),
}

/// The world.
#[derive(Debug, Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    start: Instant,
    base: DateTime<Utc>,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(fates: Fates, tells: bool) -> Self {
        let base = DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default();
        let inner = Inner {
            table: BTreeMap::new(),
            tokens: HashMap::new(),
            alarms: BTreeMap::new(),
            courses: BTreeMap::new(),
            policies: BTreeMap::new(),
            things: BTreeMap::new(),
            fates,
            rough: true,
            playing: BTreeMap::new(),
            invocations: 0,
            claims: BTreeMap::new(),
            seen: BTreeSet::new(),
            thrown: Vec::new(),
            effects: Vec::new(),
            published: Vec::new(),
            asked_for: Vec::new(),
            violation: None,
            visits: Visits::default(),
            troubles: BTreeSet::new(),
            story: tells.then(Vec::new),
            load: Load::default(),
            conflicts_to_come: 0,
            looks_to_fail: (0, 0),
            troubled: BTreeMap::new(),
            described: (0, 0),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            start: Instant::now(),
            base,
        }
    }

    /// What is in it. Never held over an await.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.at(Instant::now())
    }

    /// The true time at a moment of tokio's.
    #[must_use]
    pub fn at(&self, instant: Instant) -> DateTime<Utc> {
        let elapsed = instant.saturating_duration_since(self.start);
        self.base + TimeDelta::from_std(elapsed).unwrap_or_default()
    }

    /// The moment so long after the beginning.
    #[must_use]
    pub fn moment(&self, seconds: u64) -> Instant {
        self.start + std::time::Duration::from_secs(seconds)
    }

    /// Writes a line of the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        let since = (self.now() - self.base).num_milliseconds();
        let mut inner = self.inner();
        if let Some(story) = &mut inner.story {
            let (seconds, millis) = (since / 1_000, since % 1_000);
            story.push(format!(
                "{:>3}:{:02}.{millis:03}  {}",
                seconds / 60,
                seconds % 60,
                line()
            ));
        }
    }

    /// Notes the first violation.
    pub fn violated(&self, invariant: Invariant, what: String) {
        self.tell(|| format!("VIOLATION {}: {what}", invariant.name()));
        let mut inner = self.inner();
        if inner.violation.is_none() {
            inner.violation = Some(Violation { invariant, what });
        }
    }

    /// An invocation begins.
    #[must_use]
    pub fn begins(&self, name: &str) -> (u64, Arc<Notify>) {
        let mut inner = self.inner();
        inner.invocations += 1;
        inner.visits.invocations += 1;
        let number = inner.invocations;
        let remediation = name.split(' ').next().unwrap_or_default();
        let others = inner.playing.values();
        if others
            .into_iter()
            .any(|other| other.name.starts_with(remediation))
        {
            inner.visits.overlaps += 1;
        }
        let death = Arc::new(Notify::new());
        inner.playing.insert(
            number,
            Playing {
                number,
                name: name.to_owned(),
                calls: 0,
                death: Arc::clone(&death),
            },
        );
        (number, death)
    }

    /// An invocation has ended.
    pub fn ends(&self, number: u64) {
        self.inner().playing.remove(&number);
    }

    /// A call begins.
    pub fn call_begins(&self, operation: &'static str) {
        let second = self.now().timestamp();
        self.inner().load.begins(operation, second);
    }

    /// A call has ended.
    pub fn call_ends(&self) {
        self.inner().load.flying -= 1;
    }

    /// Names a call and draws its fate.
    #[must_use]
    pub fn fate(
        &self,
        invocation: u64,
        what: &str,
        subject: &str,
    ) -> (String, Fate, std::time::Duration) {
        let mut inner = self.inner();
        let call = match inner.playing.get_mut(&invocation) {
            Some(playing) => {
                playing.calls += 1;
                format!("{} call {} {what}", playing.name, playing.calls)
            }
            None => format!("nobody {what}"),
        };
        let troubled = inner.troubled.get(what);
        let troubled = troubled.or_else(|| inner.troubled.get(&format!("{what} {subject}")));
        let fate = if let Some(fate) = troubled {
            *fate
        } else if what == "Look" && inner.looks_to_fail != (0, 0) {
            let (good, bad) = inner.looks_to_fail;
            inner.looks_to_fail = if good > 0 {
                (good - 1, bad)
            } else {
                (0, bad - 1)
            };
            if good > 0 {
                Fate::Answered
            } else {
                Fate::Failed
            }
        } else if what == "Put" && inner.conflicts_to_come > 0 {
            inner.conflicts_to_come -= 1;
            Fate::Conflict
        } else if inner.rough {
            inner.fates.of(&call)
        } else {
            Fate::Answered
        };
        let takes = inner.fates.takes(&call, fate);
        if fate != Fate::Answered {
            inner.troubles.insert(call.clone());
        }
        match fate {
            Fate::Conflict => inner.visits.conflicts += 1,
            Fate::AnswerLost => inner.visits.lost_answers += 1,
            Fate::Throttled => inner.visits.throttles += 1,
            _ => {}
        }
        (call, fate, takes)
    }

    /// Whether the next call is one that lands after it was given up on.
    #[must_use]
    pub fn lands_later(&self, invocation: u64) -> bool {
        let mut inner = self.inner();
        let Some(playing) = inner.playing.get(&invocation) else {
            return false;
        };
        let call = format!(
            "{} call {} TransactWriteItems",
            playing.name,
            playing.calls + 1
        );
        if !inner.rough || inner.fates.of(&call) != Fate::LandsLater {
            return false;
        }
        if let Some(playing) = inner.playing.get_mut(&invocation) {
            playing.calls += 1;
        }
        inner.visits.lost_answers += 1;
        inner.troubles.insert(call);
        true
    }

    /// The invocation dies here: whoever awaits this never goes on.
    pub async fn die(&self, invocation: u64) -> ! {
        let death = {
            let mut inner = self.inner();
            inner.visits.deaths += 1;
            inner
                .playing
                .get(&invocation)
                .map(|playing| Arc::clone(&playing.death))
        };
        self.tell(|| format!("#{invocation} dies"));
        if let Some(death) = death {
            death.notify_one();
        }
        std::future::pending::<()>().await;
        unreachable!()
    }

    /// Makes a transaction.
    pub fn transact(&self, writes: &[Write], token: &str) -> Transacted {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.tokens.contains_key(token) {
            return Transacted::Written;
        }
        let holds = writes
            .iter()
            .all(|write| write.condition.holds(inner.table.get(&write.key)));
        if !holds {
            return Transacted::Refused;
        }
        inner.tokens.insert(token.to_owned(), now);
        let mut lost = Vec::new();
        for write in writes {
            let before = inner.table.get(&write.key).cloned();
            match &write.change {
                Change::Check => continue,
                Change::Put(item) => {
                    inner.table.insert(write.key.clone(), item.clone());
                }
                Change::Delete => {
                    inner.table.remove(&write.key);
                }
            }
            let after = inner.table.get(&write.key);
            if snapshot(before.as_ref()).is_some()
                && snapshot(after).is_none()
                && let Some(standing) = before.as_ref().and_then(standing)
            {
                lost.push(standing.resource);
            }
        }
        drop(inner);
        for resource in lost {
            self.snapshot_is_gone(&resource);
        }
        Transacted::Written
    }

    /// A snapshot may only go when what it takes back is gone.
    fn snapshot_is_gone(&self, resource: &str) {
        let value = self
            .inner()
            .things
            .get(resource)
            .map(|thing| thing.value.clone());
        if value.as_deref() == Some(OURS) {
            self.violated(
                Invariant::SnapshotFirst,
                format!("the snapshot of {resource} is gone, and what was put in place stands"),
            );
        }
    }

    /// Notes when an invocation asked for a lease first.
    pub fn asks(&self, invocation: u64, writes: &[Write]) {
        let now = Instant::now();
        let mut inner = self.inner();
        for write in writes {
            if write.key.sk != "lease" {
                continue;
            }
            if let Change::Put(item) = &write.change
                && let Some(lease) = parsed::<Lease>(item)
            {
                let resource = write.key.pk.trim_start_matches("target#").to_owned();
                let claim = (resource, lease.token, invocation);
                inner.claims.entry(claim).or_insert(now);
            }
        }
    }

    /// An effect lands: it is checked against everything that must hold of it.
    pub fn lands(&self, effect: Effect, token: u64) {
        let found = self.unlawful(&effect, token);
        if let Some((invariant, what)) = found {
            self.violated(invariant, what);
        }
        let mut inner = self.inner();
        inner.visits.effects += 1;
        if effect.reverts {
            inner.visits.restores += 1;
        }
        inner.effects.push(effect);
    }

    fn unlawful(&self, effect: &Effect, token: u64) -> Option<(Invariant, String)> {
        let inner = self.inner();
        let Effect {
            run_id, resource, ..
        } = effect;
        let lease_key = Key::new(format!("target#{resource}"), "lease");
        let lease: Option<Lease> = inner.table.get(&lease_key).and_then(parsed);
        if lease.as_ref().is_some_and(|lease| lease.token > token) {
            return Some((
                Invariant::NoSupersededEffect,
                format!(
                    "{run_id} changes {resource} under token {token}, and the lease is {lease:?}"
                ),
            ));
        }
        let stands = standing_of(&inner, effect);
        let temporary = matches!(
            effect.remediation,
            "toy-page" | "toy-cache" | "toy-approved"
        );
        if temporary && stands.is_none_or(|stands| stands.snapshot.is_none()) {
            return Some((
                Invariant::SnapshotFirst,
                format!("{run_id} changes {resource}, and the ledger holds no snapshot"),
            ));
        }
        let claim = (resource.clone(), token, effect.invocation);
        let asked = inner.claims.get(&claim)?;
        if effect.reverts
            && let Some(stands) = standing_of(&inner, effect)
            && let Some(early) = self.early(&inner, &stands, (*asked, effect))
        {
            return Some((
                Invariant::RestoreInTime,
                format!("{run_id} on {resource}: {early}"),
            ));
        }
        let scopes = [
            "global".to_owned(),
            format!("remediation#{}", effect.remediation),
            format!("target#{resource}"),
        ];
        let thrown = inner.thrown.iter().find(|thrown| {
            scopes.contains(&thrown.scope)
                && thrown.from < *asked
                && thrown.to.is_none_or(|to| to > *asked)
        })?;
        Some((
            Invariant::KillSwitch,
            format!(
                "{run_id} changes {resource} although the switch {} was on when it claimed",
                thrown.scope
            ),
        ))
    }

    /// Whether what stands was taken back although an alarm was in ALARM when that was decided.
    fn early(
        &self,
        inner: &Inner,
        stands: &Standing,
        (asked, effect): (Instant, &Effect),
    ) -> Option<String> {
        // All that a decision reads, it reads within this time before its claim.
        let decided = self.at(asked) - TimeDelta::seconds(45);
        let taken_at = stands.snapshot.as_ref()?.taken_at;
        // What makes things worse is taken back at once.
        if stands.snapshot.as_ref()?.cut_short.is_some() {
            return None;
        }
        let at_most = stands.policy["action"]["at_most_seconds"].as_i64()?;
        if taken_at + TimeDelta::seconds(at_most - 5) <= self.at(asked) {
            return None;
        }
        let alarms = stands.policy["alarms"].as_array()?;
        let mut names = alarms.iter().filter_map(Value::as_str);
        let listed = inner
            .policies
            .get(effect.remediation)
            .is_some_and(|(text, _)| text.contains(&format!("\"{}\"", effect.resource)));
        let seen = |name: &str| inner.seen.contains(&(effect.invocation, alarm_arn(name)));
        let expires_at = stands.snapshot.as_ref()?.expires_at?;
        // What the policy names no more, or nobody could look at, ends with its term.
        if expires_at <= self.at(asked) + TimeDelta::seconds(5) {
            return names
                .find(|name| listed && seen(name))
                .map(|name| format!("{name} was seen to be in ALARM"));
        }
        names.find_map(|name| {
            let alarm = inner.alarms.get(&alarm_arn(name))?;
            let alarmed = alarm.state == State::Alarm && alarm.since < decided;
            alarmed.then(|| format!("{name} is in ALARM since {}", alarm.since))
        })
    }

    /// Notes which alarms an invocation saw last in ALARM.
    pub fn saw(&self, invocation: u64, found: &[Described]) {
        let mut inner = self.inner();
        for Described { arn, live } in found {
            let seen = (invocation, arn.clone());
            if live.state() == Some(State::Alarm) {
                inner.seen.insert(seen);
            } else {
                inner.seen.remove(&seen);
            }
        }
    }

    /// Changes a thing, if it is still at that revision.
    #[must_use]
    pub fn change(&self, resource: &str, revision: Option<u64>, value: &str, settles: u64) -> bool {
        let now = self.now();
        let mut inner = self.inner();
        let Some(thing) = inner.things.get_mut(resource) else {
            return false;
        };
        if revision.is_some_and(|revision| revision != thing.revision) {
            return false;
        }
        thing.revision += 1;
        value.clone_into(&mut thing.value);
        thing.past.push((now, value.to_owned()));
        let settles = i64::try_from(settles).unwrap_or(0);
        thing.ready_at = now + TimeDelta::seconds(settles);
        true
    }

    /// Puts a policy document in force, as the next version of the remediation's.
    pub fn publish(&self, remediation: &str, text: String) {
        let mut inner = self.inner();
        let version = inner
            .policies
            .get(remediation)
            .map_or(1, |(_, version)| version + 1);
        inner
            .policies
            .insert(remediation.to_owned(), (text, version));
    }

    /// Puts a thing into the world.
    pub fn create(&self, resource: &str, value: &str, messages: u32) {
        let now = self.now();
        let thing = Thing {
            value: value.to_owned(),
            revision: 1,
            ready_at: now,
            past: vec![(now, value.to_owned())],
            waiting: (0..messages).collect(),
            delivered: BTreeMap::new(),
            counted: BTreeSet::new(),
            gone_back_from: BTreeSet::new(),
            past_by_humans: 0,
        };
        self.inner().things.insert(resource.to_owned(), thing);
    }

    /// Throws a kill switch, or lifts it.
    pub fn switch(&self, scope: &str, on: bool) {
        let now = Instant::now();
        let key = Key::new("switch", scope);
        let mut inner = self.inner();
        if on {
            inner.table.insert(key, Item::default());
            inner.visits.switches += 1;
            inner.thrown.push(Thrown {
                scope: scope.to_owned(),
                from: now,
                to: None,
            });
        } else {
            inner.table.remove(&key);
            let thrown = inner.thrown.iter_mut();
            for thrown in thrown.filter(|thrown| thrown.scope == scope && thrown.to.is_none()) {
                thrown.to = Some(now);
            }
        }
    }
}

fn standing_of(inner: &Inner, effect: &Effect) -> Option<Standing> {
    let pk = format!("due#{}#", effect.remediation);
    let sk = format!("standing#{}", effect.resource);
    let mut items = inner.table.range(Key::new(pk.clone(), "")..);
    items
        .by_ref()
        .take_while(|(key, _)| key.pk.starts_with(&pk))
        .find(|(key, _)| key.sk == sk)
        .and_then(|(_, item)| standing(item))
}

/// An item's content.
#[must_use]
pub fn parsed<T: serde::de::DeserializeOwned>(item: &Item) -> Option<T> {
    serde_json::from_str(item.body.as_deref()?).ok()
}

/// What stands, where the item says so.
#[must_use]
pub fn standing(item: &Item) -> Option<Standing> {
    parsed(item)
}

fn snapshot(item: Option<&Item>) -> Option<()> {
    let body = item?.body.as_deref()?;
    // Only what stands has both.
    if !body.contains("\"snapshot\":{") {
        return None;
    }
    standing(item?)?.snapshot.map(|_| ())
}

/// The ARN of an alarm of this world.
#[must_use]
pub fn alarm_arn(name: &str) -> String {
    alarm_arn_in(REGION, name)
}

/// The ARN of an alarm of another region.
#[must_use]
pub fn alarm_arn_in(region: &str, name: &str) -> String {
    format!("arn:aws:cloudwatch:{region}:{ACCOUNT}:alarm:{name}")
}

/// The event of an alarm's change.
#[must_use]
pub fn alarm_event(name: &str, state: State, at: DateTime<Utc>, id: &str) -> Value {
    let stamp = at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string();
    json!({
        "version": "0",
        "id": id,
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": ACCOUNT,
        "region": REGION,
        "resources": [alarm_arn(name)],
        "detail": {
            "alarmName": name,
            "state": {"value": state.as_str(), "timestamp": stamp},
        },
    })
}
