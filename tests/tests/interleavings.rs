//! Every remediation of an API outage, under random interleavings of alarms, recoveries, repeats, deaths, looks and
//! humans.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use aws_sdk_cloudwatch::types::StateValue;
use chrono::{DateTime, TimeDelta, Utc};
use end_to_end::Result;
use end_to_end::alias::{Guarded, Pointing, code};
use end_to_end::api::{Shown, Staged};
use end_to_end::failure::{During as _, each, ensure};
use end_to_end::page::{Front, Fronted};
use end_to_end::proxy::{Phase, Proxy};
use end_to_end::replay::Run;
use end_to_end::world::{Alarm, World, alarm_event, scenario, scheduled};
use fastrand::Rng;
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 6;
/// The seeds that are played, unless the environment names others: `17`, or `100..200`.
const SEEDS: Range<u64> = 1..13;
const OTHER_SEEDS: &str = "FORGEGUARD_SEEDS";
const ORDERS: &str = "~1orders/GET";
/// A method that is not cached.
const HEALTH: &str = "~1health/GET";

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Alarm,
    Ok,
    /// The last event is delivered again under another request id.
    Again,
    /// A new event's delivery dies at this request, and is retried a minute later.
    Kill(&'static str, usize, Phase),
    /// The same, and a human comes between.
    KillAndHuman(&'static str, usize, Phase),
    Sweep,
    Human,
}

/// What is remediated, and what has to hold of it.
trait Scene {
    fn stage(&self) -> (&World, &Alarm);
    fn run(&self, proxy: &Proxy) -> Run;
    /// What makes the alarm go to ALARM at a time.
    async fn breaks(&mut self, _at: DateTime<Utc>) -> Result {
        Ok(())
    }
    /// A human's hand.
    async fn human(&mut self, rng: &mut Rng, proxy: &Proxy) -> Result;
    /// After every delivery.
    async fn delivered(&mut self, _proxy: &Proxy, _response: &Value) -> Result {
        Ok(())
    }
    /// After the last return to OK.
    async fn check(&self) -> Result;
}

fn draw(rng: &mut Rng) -> Step {
    match rng.u8(..9) {
        0 | 1 => Step::Alarm,
        2 => Step::Ok,
        3 => Step::Again,
        drawn @ 4..7 => {
            let state = ["ALARM", "ALARM", "OK", "sweep"][rng.usize(..4)];
            let nth = rng.usize(1..=16);
            let phase = [Phase::BeforeEffect, Phase::AfterEffect][rng.usize(..2)];
            match drawn {
                6 => Step::KillAndHuman(state, nth, phase),
                _ => Step::Kill(state, nth, phase),
            }
        }
        7 => Step::Sweep,
        _ => Step::Human,
    }
}

/// The deliveries so far.
struct Story {
    proxy: Proxy,
    offset: TimeDelta,
    last: Value,
}

impl Story {
    async fn event(&mut self, scene: &mut impl Scene, state: &str) -> Result {
        self.offset += TimeDelta::minutes(1);
        let (world, alarm) = scene.stage();
        let (before, value) = match state {
            "ALARM" => ("OK", StateValue::Alarm),
            "OK" => ("ALARM", StateValue::Ok),
            _ => {
                self.last = scheduled();
                return Ok(());
            }
        };
        let at = Clock::system().now() + self.offset;
        self.last = alarm_event(alarm, before, state, at);
        world.set_alarm(&alarm.name, value).await?;
        if state == "ALARM" {
            scene.breaks(at).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, scene: &mut impl Scene) -> Result {
        let run = scene.run(&self.proxy).on(&self.last);
        let ended = run.later_by(self.offset).finish().await?;
        scene.delivered(&self.proxy, &ended.response()?).await
    }

    async fn die(&mut self, scene: &mut impl Scene, nth: usize, phase: Phase) -> Result {
        let run = scene.run(&self.proxy).on(&self.last).later_by(self.offset);
        run.killed_at(&self.proxy, "*", nth, phase).await?;
        self.offset += TimeDelta::minutes(1);
        Ok(())
    }

    async fn take(&mut self, scene: &mut impl Scene, step: Step, rng: &mut Rng) -> Result {
        match step {
            Step::Human => return scene.human(rng, &self.proxy).await,
            Step::Again if self.last.is_null() => return Ok(()),
            Step::Again => self.offset += TimeDelta::seconds(10),
            Step::Alarm => self.event(scene, "ALARM").await?,
            Step::Ok => self.event(scene, "OK").await?,
            Step::Sweep => self.event(scene, "sweep").await?,
            Step::Kill(state, nth, phase) => {
                self.event(scene, state).await?;
                self.die(scene, nth, phase).await?;
            }
            Step::KillAndHuman(state, nth, phase) => {
                self.event(scene, state).await?;
                self.die(scene, nth, phase).await?;
                scene.human(rng, &self.proxy).await?;
            }
        }
        self.deliver(scene).await
    }
}

async fn play(seed: u64, world: &World, mut scene: impl Scene) -> Result {
    let mut rng = Rng::with_seed(seed);
    let mut story = Story {
        proxy: Proxy::start(&world.cloud).await?,
        offset: TimeDelta::zero(),
        last: Value::Null,
    };
    let count = rng.usize(4..=7);
    // Something is done in each.
    let mut steps = vec![Step::Alarm];
    steps.extend((0..count).map(|_| draw(&mut rng)));
    steps.extend([Step::Ok, Step::Sweep]);
    for (index, step) in steps.iter().enumerate() {
        let taken = story.take(&mut scene, *step, &mut rng).await;
        taken.during(&format!("seed {seed}, {steps:?}, at {index}"))?;
    }
    let held = scene.check().await;
    held.during(&format!("seed {seed}, {steps:?}, at the end"))
}

#[allow(clippy::disallowed_methods)] // The tests' own setting; functions have no such.
fn seeds() -> Result<Range<u64>> {
    let Ok(given) = std::env::var(OTHER_SEEDS) else {
        return Ok(SEEDS);
    };
    let (from, to) = match given.split_once("..") {
        Some((from, to)) => (from.parse()?, to.parse()?),
        None => (given.parse()?, given.parse::<u64>()? + 1),
    };
    Ok(from..to)
}

async fn every_seed(test: impl AsyncFn(u64) -> Result) -> Result {
    each(seeds()?, AT_ONCE, async |seed| test(seed).await).await
}

/// What would refuse the many alarms of a story has its own tests.
fn patient(policy: &mut Value) {
    policy["targets"][0]["guard"] = json!({
        "max_event_age_seconds": 86_400,
        "cooldown_seconds": 0,
        "budget": {"actions": 100},
        "flap": {"transitions": 100},
        "breaker": {"refires": 100},
    });
}

struct Cached<'a> {
    staged: Staged<'a>,
    expected: Shown,
}

impl Scene for Cached<'_> {
    fn stage(&self) -> (&World, &Alarm) {
        (self.staged.world, &self.staged.alarm)
    }

    fn run(&self, proxy: &Proxy) -> Run {
        self.staged.run(proxy)
    }

    async fn human(&mut self, rng: &mut Rng, _proxy: &Proxy) -> Result {
        let number = rng.u32(10..200).to_string();
        let (path, field) = if rng.bool() {
            (ORDERS, "caching/ttlInSeconds")
        } else {
            (HEALTH, "throttling/burstLimit")
        };
        let before = self.staged.shown().await?;
        let change = format!("/{path}/{field}");
        self.staged.set(&[(&change, &number)]).await?;
        let shown = self.staged.shown().await?;
        let Some((key, hand)) = shown
            .settings
            .iter()
            .find(|(key, setting)| before.settings.get(*key) != Some(setting))
        else {
            return Ok(());
        };
        if path == ORDERS {
            self.expected.cluster = hand.caching_enabled();
        }
        self.expected.settings.insert(key.clone(), hand.clone());
        Ok(())
    }

    async fn check(&self) -> Result {
        let after = self.staged.shown().await?;
        let expected = &self.expected;
        ensure(after == *expected, || {
            format!("{after:?}\nnot {expected:?}")
        })?;
        self.staged.world.holds_no_snapshot().await
    }
}

#[tokio::test]
async fn a_cached_stage_comes_back_with_what_a_human_set() -> Result {
    every_seed(async |seed| {
        scenario("mixed-cache", async |world| {
            let mut staged = Staged::new(world, RUN_ONCE).await?;
            staged.served(1_000, 400).await?;
            patient(&mut staged.policy);
            staged.policy["targets"][0]["action"]["window_seconds"] = json!(3_600);
            world.put_policy(&staged.policy).await?;
            let expected = staged.shown().await?;
            play(seed, world, Cached { staged, expected }).await
        })
        .await
    })
    .await
}

struct Paged<'a> {
    fronted: Fronted<'a>,
    anna: bool,
}

impl Scene for Paged<'_> {
    fn stage(&self) -> (&World, &Alarm) {
        (self.fronted.world, &self.fronted.alarm)
    }

    fn run(&self, proxy: &Proxy) -> Run {
        self.fronted.run(proxy)
    }

    async fn human(&mut self, rng: &mut Rng, _proxy: &Proxy) -> Result {
        if !self.fronted.get("/", &[]).await?.is_page() || rng.bool() {
            self.anna = true;
            return self.fronted.taken_by("anna").await;
        }
        self.anna = false;
        self.fronted.taken_down().await
    }

    async fn check(&self) -> Result {
        let after = self.fronted.get("/", &[]).await?;
        let hers = self.fronted.front == Front::Domain || after.body.contains("inc-by-hand");
        let holds = if self.anna {
            after.is_page() && hers
        } else {
            after.is_service()
        };
        ensure(holds, || format!("anna: {}, {after:?}", self.anna))?;
        self.fronted.world.holds_no_snapshot().await
    }
}

#[tokio::test]
async fn a_page_comes_down_unless_a_human_holds_it() -> Result {
    every_seed(async |seed| {
        for front in [Front::Distribution, Front::Domain] {
            let played = scenario("mixed-page", async |world| {
                let fronted = Fronted::new(world, front, RUN_ONCE).await?;
                let anna = false;
                play(seed, world, Paged { fronted, anna }).await
            });
            played.await.during(&format!("{front:?}"))?;
        }
        Ok(())
    })
    .await
}

/// An alias of four versions, of which the first two served well, and whichever has the traffic fails.
struct Pointed<'a> {
    guarded: Guarded<'a>,
    /// Where the last who moved it pointed it.
    pointing: Pointing,
    /// How often each incident moved the alias.
    moves: HashMap<String, usize>,
    moved: usize,
    /// Moves whose run has not told its incident yet.
    untold: Vec<String>,
    /// Versions that were rolled back from, and that a human saw to before the run could tell.
    bad: BTreeSet<String>,
    unsure: BTreeSet<String>,
}

impl Pointed<'_> {
    /// Checks the moves that came since, and follows them.
    fn follow(&mut self, proxy: &Proxy) -> Result {
        let mut calls = proxy.calls("lambda:UpdateAlias");
        calls.retain(|entry| entry.effect);
        let new = calls.split_off(self.moved);
        self.moved += new.len();
        for entry in &new {
            let to = entry.call.json()["FunctionVersion"].clone();
            let to = to.as_str().during("the version")?;
            let (from, back) = match self.pointing.weights.keys().next() {
                Some(canary) => (canary.clone(), to == self.pointing.version),
                None => (self.pointing.version.clone(), !self.bad.contains(to)),
            };
            ensure(back && from != to, || {
                format!(
                    "from {:?} to {to}, and {:?} are bad",
                    self.pointing, self.bad
                )
            })?;
            self.untold.push(from);
            self.pointing = Pointing::alone(to);
        }
        Ok(())
    }
}

impl Scene for Pointed<'_> {
    fn stage(&self) -> (&World, &Alarm) {
        (self.guarded.world, &self.guarded.alarm)
    }

    fn run(&self, proxy: &Proxy) -> Run {
        self.guarded.run(proxy)
    }

    async fn breaks(&mut self, at: DateTime<Utc>) -> Result {
        let at = at - TimeDelta::seconds(20);
        self.guarded.served(None, 100, 40, at).await?;
        if let Some(canary) = self.pointing.weights.keys().next() {
            let stable = Some(self.pointing.version.as_str());
            self.guarded.served(stable, 10_000, 1, at).await?;
            self.guarded.served(Some(canary), 1_000, 400, at).await?;
        }
        Ok(())
    }

    /// Points the alias to one version, alone or with a canary beside it.
    async fn human(&mut self, rng: &mut Rng, proxy: &Proxy) -> Result {
        self.follow(proxy)?;
        self.unsure.extend(self.untold.iter().cloned());
        let version = rng.u8(1..=4);
        // What a human brings back is forgiven once that is seen, which may be never.
        self.unsure.extend(self.bad.take(&version.to_string()));
        self.pointing = Pointing::alone(&version.to_string());
        if rng.bool() {
            let canary = version % 4 + 1;
            self.pointing.weights.insert(canary.to_string(), 0.1);
        }
        self.guarded.point(&self.pointing).await
    }

    async fn delivered(&mut self, proxy: &Proxy, response: &Value) -> Result {
        self.follow(proxy)?;
        let told = std::mem::take(&mut self.untold);
        if !told.is_empty() {
            let incident = response["reports"][0]["incident_id"].to_string();
            let count = self.moves.entry(incident).or_default();
            *count += told.len();
            ensure(*count == 1, || format!("{count} moves: {response}"))?;
        }
        let unsure = &self.unsure;
        self.bad
            .extend(told.into_iter().filter(|from| !unsure.contains(from)));
        let found = self.guarded.pointing().await?;
        ensure(found == self.pointing, || {
            format!("found {found:?}, wanted {:?}: {response}", self.pointing)
        })
    }

    async fn check(&self) -> Result {
        ensure(self.moved > 0, || "never rolled back".to_owned())?;
        let ledger = self.guarded.world.ledger().await?;
        let history = ledger
            .iter()
            .find(|item| item["sk"] == "history#alias-rollback");
        let history = history.and_then(|item| item["body"].as_str());
        let history: Value = serde_json::from_str(history.during("the history")?)?;
        let known = history["memory"]["bad"].as_object();
        // What a human went back from is known as bad, too, of no incident.
        let known: BTreeSet<String> = known
            .into_iter()
            .flatten()
            .filter(|(_, condemned)| condemned["incident_id"].is_string())
            .map(|(version, _)| version.clone())
            .collect();
        let possible = &self.bad | &self.unsure;
        ensure(
            known.is_superset(&self.bad) && known.is_subset(&possible),
            || format!("recorded {known:?}, wanted {:?}", self.bad),
        )?;
        self.guarded.world.holds_no_snapshot().await
    }
}

#[tokio::test]
async fn an_alias_moves_once_in_an_incident_and_stays_where_a_human_points_it() -> Result {
    every_seed(async |seed| {
        scenario("mixed-alias", async |world| {
            let codes = ["one", "two", "three", "four"].map(code);
            let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
            patient(&mut guarded.policy);
            let proxy = Proxy::start(&world.cloud).await?;
            guarded.attested("1", &proxy).await?;
            guarded.attested("2", &proxy).await?;
            world.put_policy(&guarded.policy).await?;
            let scene = Pointed {
                pointing: guarded.pointing().await?,
                guarded,
                moves: HashMap::new(),
                moved: 0,
                untold: Vec::new(),
                bad: BTreeSet::new(),
                unsure: BTreeSet::new(),
            };
            play(seed, world, scene).await
        })
        .await
    })
    .await
}
