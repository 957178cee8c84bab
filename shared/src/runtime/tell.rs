//! Telling an outcome: the metrics, the log, and the bus, until it has it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::LedgerError;
use crate::ledger::difference::Commit;
use crate::ledger::items::Untold;
use crate::ledger::store::Key;
use crate::outcome::Report;
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::job::Told;
use crate::runtime::outside::OutcomeEvent;
use crate::telemetry;

/// Whoever has an outcome tells it within this time, or is dead.
const TOLD_WITHIN: TimeDelta = TimeDelta::minutes(2);
/// Outcomes of the dead that one look of the schedule tells.
const AT_ONCE: usize = 100;

impl<R: Remediation> Runtime<R> {
    /// Tells an outcome. What fails here fails alone: the ledger keeps the outcome until the bus has it.
    pub(super) async fn tell(&self, told: &Told, alarm_arn: &str) {
        let Told {
            report,
            metrics,
            untold,
        } = told;
        let now = self.suite.clock.now();
        let took = report
            .steps
            .last()
            .map_or(0, |step| step.started_ms + step.took_ms);
        #[allow(clippy::cast_precision_loss)] // Milliseconds of one invocation are far below 2^52.
        let line = telemetry::metrics(report, took as f64, metrics, now);
        telemetry::print(&line);
        tracing::info!(
            incident_id = report.incident_id.as_deref().unwrap_or_default(),
            causation_id = report.causation_id.as_deref().unwrap_or_default(),
            outcome = report.outcome.name(),
            report = %serde_json::to_string(report).unwrap_or_default(),
            "{}",
            report.outcome.reason()
        );
        let keys = untold.iter().cloned().collect();
        self.publish(vec![event(report, alarm_arn)], keys).await;
    }

    /// Writes what was found outside of a run, and tells the outcome that goes with it; nothing where another was first.
    pub(super) async fn write_and_tell(
        &self,
        commit: &Commit<'_>,
    ) -> Result<Option<Report>, LedgerError> {
        let now = self.suite.clock.now();
        let written = self.suite.ledger.commit(commit, now).await?;
        let (Some(untold), Some(report)) = (written, commit.told.cloned()) else {
            return Ok(None);
        };
        let told = Told {
            untold,
            ..Told::new(report)
        };
        self.tell(&told, &commit.place.event.alarm_arn).await;
        Ok(Some(told.report))
    }

    /// Tells what the dead had to tell.
    pub(super) async fn tell_the_untold(
        &self,
        mut untold: Vec<(Key, Untold)>,
        (seed, until): (&str, DateTime<Utc>),
    ) {
        let now = self.suite.clock.now();
        untold.retain(|(_, untold)| now - untold.at >= TOLD_WITHIN);
        // In another order at each look, so that one that the bus refuses keeps nobody waiting for good.
        untold.sort_by_cached_key(|(key, _)| crate::ids::digest(&[seed, &key.sk], 8));
        for (key, untold) in untold.into_iter().take(AT_ONCE) {
            if self.suite.clock.now() >= until {
                return;
            }
            let event = event(&untold.report, &untold.alarm_arn);
            self.publish(vec![event], vec![key]).await;
        }
    }

    async fn publish(&self, events: Vec<OutcomeEvent>, keys: Vec<Key>) {
        let bus = &self.suite.settings.event_bus;
        if let Err(error) = self.suite.outside.publish(bus, &events).await {
            tracing::error!(%error, "the outcome did not reach the bus; the schedule tells it again");
            return;
        }
        if keys.is_empty() {
            return;
        }
        let now = self.suite.clock.now();
        if let Err(error) = self.suite.ledger.told(keys, now).await {
            tracing::warn!(%error, "the outcome was told, and will be told once more");
        }
    }
}

fn event(report: &Report, alarm_arn: &str) -> OutcomeEvent {
    OutcomeEvent {
        resources: [alarm_arn, &report.resource]
            .into_iter()
            .filter(|arn| !arn.is_empty())
            .map(str::to_owned)
            .collect(),
        detail: serde_json::to_string(report).unwrap_or_default(),
    }
}
