//! Every temporary remediation, under random interleavings of alarms, recoveries, repeats, deaths, looks and humans.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::alias::{Guarded, Pointing, code};
use end_to_end::api::{Shown, Staged};
use end_to_end::failure::{During as _, all, ensure};
use end_to_end::page::{Front, Fronted};
use end_to_end::proxy::{Phase, Proxy};
use end_to_end::replay::Run;
use end_to_end::world::{Alarm, World, alarm_event, scenario, scheduled};
use fastrand::Rng;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 6;
const SEEDS: u64 = 8;
const ORDERS: &str = "~1orders/GET";

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Alarm,
    Ok,
    /// The last event is delivered again under another request id.
    Again,
    /// A new event's delivery dies at this request, and is retried a minute later.
    Kill(&'static str, usize, Phase),
    Sweep,
    Human,
}

/// What is remediated, and what has to hold of it.
trait Scene {
    fn stage(&self) -> (&World, &Alarm);
    fn run(&self, proxy: &Proxy) -> Run;
    /// A human's hand.
    async fn human(&mut self, rng: &mut Rng) -> Result;
    /// After every delivery.
    async fn delivered(&mut self, _proxy: &Proxy, _state: &str, _response: &Value) -> Result {
        Ok(())
    }
    /// After the last return to OK.
    async fn check(&self) -> Result;
}

fn draw(rng: &mut Rng) -> Step {
    match rng.u8(..8) {
        0 | 1 => Step::Alarm,
        2 => Step::Ok,
        3 => Step::Again,
        4 | 5 => Step::Kill(
            ["ALARM", "ALARM", "OK", "sweep"][rng.usize(..4)],
            rng.usize(1..=14),
            [Phase::BeforeEffect, Phase::AfterEffect][rng.usize(..2)],
        ),
        6 => Step::Sweep,
        _ => Step::Human,
    }
}

/// The deliveries so far.
struct Story {
    proxy: Proxy,
    offset: TimeDelta,
    last: (&'static str, Value),
}

impl Story {
    async fn event(&mut self, scene: &impl Scene, state: &'static str) -> Result {
        self.offset += TimeDelta::minutes(1);
        let (world, alarm) = scene.stage();
        let (before, value) = match state {
            "ALARM" => ("OK", StateValue::Alarm),
            "OK" => ("ALARM", StateValue::Ok),
            _ => {
                self.last = (state, scheduled());
                return Ok(());
            }
        };
        world.set_alarm(&alarm.name, value).await?;
        let at = Clock::system().now() + self.offset;
        self.last = (state, alarm_event(alarm, before, state, at));
        Ok(())
    }

    async fn deliver(&mut self, scene: &mut impl Scene, death: Option<(usize, Phase)>) -> Result {
        let (state, event) = &self.last;
        let run = scene.run(&self.proxy).on(event);
        if let Some((nth, phase)) = death {
            let dying = run.clone().later_by(self.offset);
            dying.killed_at(&self.proxy, "*", nth, phase).await?;
            self.offset += TimeDelta::minutes(1);
        }
        let ended = run.later_by(self.offset).finish().await?;
        scene
            .delivered(&self.proxy, state, &ended.response()?)
            .await
    }

    async fn take(&mut self, scene: &mut impl Scene, step: Step, rng: &mut Rng) -> Result {
        let (state, death) = match step {
            Step::Human => return scene.human(rng).await,
            Step::Again if self.last.1.is_null() => return Ok(()),
            Step::Again => {
                self.offset += TimeDelta::seconds(10);
                return self.deliver(scene, None).await;
            }
            Step::Alarm => ("ALARM", None),
            Step::Ok => ("OK", None),
            Step::Sweep => ("sweep", None),
            Step::Kill(state, nth, phase) => (state, Some((nth, phase))),
        };
        self.event(scene, state).await?;
        self.deliver(scene, death).await
    }
}

async fn play(seed: u64, world: &World, mut scene: impl Scene) -> Result {
    let mut rng = Rng::with_seed(seed);
    let mut story = Story {
        proxy: Proxy::start(&world.cloud).await?,
        offset: TimeDelta::zero(),
        last: ("", Value::Null),
    };
    let count = rng.usize(4..=7);
    let mut steps: Vec<Step> = (0..count).map(|_| draw(&mut rng)).collect();
    steps.extend([Step::Ok, Step::Sweep]);
    for (index, step) in steps.iter().enumerate() {
        let taken = story.take(&mut scene, *step, &mut rng).await;
        taken.during(&format!("seed {seed}, {steps:?}, at {index}"))?;
    }
    let held = scene.check().await;
    held.during(&format!("seed {seed}, {steps:?}, at the end"))
}

async fn every_seed(test: impl AsyncFn(u64) -> Result) -> Result {
    let results: Vec<_> = stream::iter(1..=SEEDS)
        .map(async |seed| test(seed).await)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    all(results).map(drop)
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

    async fn human(&mut self, rng: &mut Rng) -> Result {
        let ttl = rng.u32(10..200).to_string();
        let path = format!("/{ORDERS}/caching/ttlInSeconds");
        self.staged.set(&[(&path, &ttl)]).await?;
        let shown = self.staged.shown().await?;
        let (key, hand) = shown
            .settings
            .iter()
            .find(|(_, setting)| setting.cache_ttl_in_seconds().to_string() == ttl)
            .during("the human's setting")?;
        self.expected.cluster = hand.caching_enabled();
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

    async fn human(&mut self, rng: &mut Rng) -> Result {
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

struct Pointed<'a> {
    guarded: Guarded<'a>,
    /// How often each incident moved the alias.
    moves: HashMap<String, usize>,
    moved: usize,
    bad: BTreeSet<String>,
}

impl Scene for Pointed<'_> {
    fn stage(&self) -> (&World, &Alarm) {
        (self.guarded.world, &self.guarded.alarm)
    }

    fn run(&self, proxy: &Proxy) -> Run {
        self.guarded.run(proxy)
    }

    async fn human(&mut self, rng: &mut Rng) -> Result {
        let version = rng.u8(1..=3).to_string();
        let mut to = Pointing::alone(&version);
        if version == "1" {
            to.weights.insert("2".to_owned(), 0.1);
        }
        self.guarded.point(&to).await
    }

    async fn delivered(&mut self, proxy: &Proxy, state: &str, response: &Value) -> Result {
        let mut calls = proxy.calls("lambda:UpdateAlias");
        calls.retain(|entry| entry.effect);
        let new = calls.split_off(self.moved);
        self.moved += new.len();
        for entry in &new {
            let to = entry.call.json()["FunctionVersion"].clone();
            let bad = to.as_str().is_none_or(|to| self.bad.contains(to));
            ensure(!bad, || format!("to {to}, with {:?} bad", self.bad))?;
            ensure(state == "ALARM", || format!("moved on {state}"))?;
        }
        if !new.is_empty() {
            let incident = response["reports"][0]["incident_id"].to_string();
            let count = self.moves.entry(incident).or_default();
            *count += new.len();
            ensure(*count == 1, || format!("{count} moves: {response}"))?;
        }
        for item in self.guarded.world.ledger().await? {
            let body = item["body"].as_str().unwrap_or_default();
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let bad = body["memory"]["bad"].as_object();
            self.bad
                .extend(bad.into_iter().flatten().map(|(bad, _)| bad.clone()));
        }
        let told = self.moves.is_empty() || !self.bad.is_empty();
        ensure(told, || "a rollback condemned no version".to_owned())
    }

    async fn check(&self) -> Result {
        self.guarded.world.holds_no_snapshot().await
    }
}

#[tokio::test]
async fn an_alias_moves_once_in_an_incident_and_never_to_a_bad_version() -> Result {
    every_seed(async |seed| {
        scenario("mixed-alias", async |world| {
            let codes = ["one", "two", "three"].map(code);
            let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
            let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
            patient(&mut guarded.policy);
            let first = Proxy::start(&world.cloud).await?;
            guarded.attested("1", &first).await?;
            guarded
                .set("blame", json!({"window_seconds": 3_600}))
                .await?;
            let lately = Clock::system().now() - TimeDelta::seconds(20);
            guarded.served(None, 1_000, 400, lately).await?;
            guarded.served(Some("1"), 900, 1, lately).await?;
            guarded.served(Some("2"), 100, 40, lately).await?;
            let scene = Pointed {
                guarded,
                moves: HashMap::new(),
                moved: 0,
                bad: BTreeSet::new(),
            };
            play(seed, world, scene).await
        })
        .await
    })
    .await
}
