//! One function before a world, for stories that are told by hand.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;
use shared::clock::Clock;
use shared::ledger::Ledger;
use shared::outcome::Response;
use shared::runtime::{Invocation, RunError, Runtime, Suite};
use shared::settings::Settings;

use crate::store::Door;
use crate::toys::page::Page;
use crate::world::{ACCOUNT, REGION, World};

/// The remediation on the stage, which is also the name of its policy parameter.
pub const REMEDIATION: &str = "toy-page";
/// Lambda's time limit, in seconds.
const TIMEOUT: i64 = 60;

/// What the environment of a toy's function says, unless a story wants it otherwise.
pub(crate) fn settings(remediation: &str) -> Settings {
    Settings {
        ledger_table: "ledger".to_owned(),
        policy_parameter: remediation.to_owned(),
        event_bus: "default".to_owned(),
        orchestrated: false,
        dry_run: false,
        local: false,
        log: tracing::Level::ERROR,
    }
}

/// One instance of a function, warm from its first call on.
pub struct Stage {
    /// The world.
    pub world: World,
    door: Door,
    clock: Clock,
    runtime: Runtime<Page<false, false>>,
}

impl Stage {
    /// A cold instance.
    #[must_use]
    pub fn new(world: &World, dry_run: bool) -> Self {
        Self::set(world, dry_run, false)
    }

    /// A cold instance that playbooks wake.
    #[must_use]
    pub fn orchestrated(world: &World) -> Self {
        Self::set(world, false, true)
    }

    fn set(world: &World, dry_run: bool, orchestrated: bool) -> Self {
        let door = Door::new(world.clone());
        let told = world.clone();
        let clock = Clock::reading(move || told.now());
        let settings = Settings {
            orchestrated,
            dry_run,
            ..settings(REMEDIATION)
        };
        let ledger = Ledger::new(Arc::new(door.clone()));
        let suite = Suite::of(settings, clock.clone(), ledger, Arc::new(door.clone()));
        Self {
            world: world.clone(),
            runtime: Runtime::new(suite, Page { door: door.clone() }),
            door,
            clock,
        }
    }

    /// Puts a policy document in force.
    pub fn policy(&self, document: &Value) {
        self.world.publish(REMEDIATION, document.to_string());
    }

    /// Invokes the function.
    pub async fn send(&self, payload: Value, request: &str) -> Result<Response, RunError> {
        let (number, _) = self.world.begins(&format!("{REMEDIATION} {request}"));
        self.door.opens_for(number);
        let invocation = Invocation {
            payload,
            request_id: request.to_owned(),
            deadline: self.clock.now() + TimeDelta::seconds(TIMEOUT),
            function_arn: format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{REMEDIATION}"),
            trace_id: None,
        };
        let answer = Box::pin(self.runtime.handle(invocation)).await;
        self.world.ends(number);
        answer
    }
}
