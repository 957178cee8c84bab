//! What one invocation reads once for all its targets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OnceCell};

use crate::aws_error::AwsError;
use crate::ledger::LedgerError;
use crate::ledger::items::Switches;
use crate::policy::{Action, Home, Loaded, PolicyError};
use crate::runtime::alarms::{self, Live, Recent};
use crate::runtime::policies::Policies;
use crate::runtime::suite::Suite;

/// What one invocation reads once for all its targets.
pub(super) struct Reads<'a, A> {
    pub(super) suite: &'a Suite,
    pub(super) home: &'a Home,
    pub(super) policies: &'a Policies<A>,
    pub(super) known: Arc<Loaded<A>>,
    recent: Option<&'a Recent>,
    event_at: DateTime<Utc>,
    wanted: BTreeSet<String>,
    until: DateTime<Utc>,
    seed: String,
    live: OnceCell<Result<Live, Arc<AwsError>>>,
    policy: OnceCell<Result<Arc<Loaded<A>>, Arc<PolicyError>>>,
    switches: Switchboard,
}

impl<'a, A: Action> Reads<'a, A> {
    pub(super) fn new(
        (suite, home, policies): (&'a Suite, &'a Home, &'a Policies<A>),
        known: Arc<Loaded<A>>,
        event_at: DateTime<Utc>,
        wanted: BTreeSet<String>,
        (until, seed): (DateTime<Utc>, &str),
    ) -> Self {
        Self {
            suite,
            home,
            policies,
            known,
            recent: None,
            event_at,
            wanted,
            until,
            seed: seed.to_owned(),
            live: OnceCell::new(),
            policy: OnceCell::new(),
            switches: Switchboard::default(),
        }
    }

    /// In a look of the schedule, which reads alarms for many targets.
    pub(super) fn beside(self, recent: &'a Recent) -> Self {
        Self {
            recent: Some(recent),
            ..self
        }
    }

    /// The alarms as they are now: those that could be read, if any could.
    pub(super) async fn live(&self) -> Result<&Live, Arc<AwsError>> {
        let read = self
            .live
            .get_or_init(|| async {
                let limits = (self.until, self.seed.as_str());
                let (suite, home, wanted) = (self.suite, self.home, &self.wanted);
                let (live, failure) = match self.recent {
                    Some(recent) => recent.read(suite, home, wanted, limits).await,
                    None => alarms::read(suite, home, wanted, limits).await,
                };
                match failure {
                    Some(error) if live.is_empty() => Err(Arc::new(error)),
                    Some(error) => {
                        tracing::error!(%error, "not every alarm could be read");
                        Ok(live)
                    }
                    None => Ok(live),
                }
            })
            .await;
        read.as_ref().map_err(Arc::clone)
    }

    /// The policy as it is now.
    pub(super) async fn policy(&self) -> Result<Arc<Loaded<A>>, Arc<PolicyError>> {
        self.policy
            .get_or_init(|| {
                self.policies
                    .refreshed((self.suite, self.home), &self.known, self.event_at)
            })
            .await
            .clone()
    }

    /// The kill switches, read after this was asked for.
    pub(super) async fn switches(&self) -> Result<Switches, LedgerError> {
        self.switches.now(self.suite).await
    }
}

/// Reads the kill switches for all who ask, and never answers with what was read before it was asked.
#[derive(Default)]
struct Switchboard {
    asked: AtomicU64,
    /// Who had asked when the last reading began, and what it found.
    last: Mutex<(u64, Switches)>,
}

impl Switchboard {
    async fn now(&self, suite: &Suite) -> Result<Switches, LedgerError> {
        let mine = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = self.last.lock().await;
        if last.0 < mine {
            let covers = self.asked.load(Ordering::Relaxed);
            *last = (covers, suite.ledger.switches().await?);
        }
        Ok(last.1.clone())
    }
}
