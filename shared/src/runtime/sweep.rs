//! The schedule's look at every target: what is due to be restored, kept longer, verified or learned.
//!
//! Events can be lost, and stabilisation and expiry come at times at which nothing else happens. A rule of
//! `EventBridge` on a schedule invokes the function with its `Scheduled Event`
//! (Amazon `EventBridge` User Guide, "Creating a rule that runs on a schedule"), and this is its answer.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::aws_error::AwsError;
use crate::guard::{Facts, Snapshot};
use crate::ledger::Place;
use crate::outcome::{Report, Response};
use crate::policy::{Action as _, Loaded, Target};
use crate::remediation::{Remediation, Temporary};
use crate::runtime::{Invocation, Ran, Run, RunError, Runtime, Shared};

/// Whether the payload is what a rule on a schedule sends.
pub(super) fn is_schedule(payload: &Value) -> bool {
    payload["source"] == "aws.events" && payload["detail-type"] == "Scheduled Event"
}

/// A target's alarms as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alarms {
    /// The names of those in ALARM.
    pub(super) in_alarm: Vec<String>,
    /// Whether each of them exists and is at OK.
    all_ok: bool,
}

/// What is due for a target with something temporary in place.
#[derive(Debug, Clone, PartialEq)]
enum Duty {
    /// Nothing yet.
    Wait,
    /// How long it stays has changed.
    Amend(Box<Snapshot>),
    /// It is taken back. The time is that at which it fell due, the same at every look.
    Restore(DateTime<Utc>),
}

/// Decides what is due.
fn duty(
    snapshot: &Snapshot,
    temporary: Option<Temporary>,
    alarms: &Alarms,
    now: DateTime<Utc>,
) -> Duty {
    let alarmed = !alarms.in_alarm.is_empty();
    if let (Some(expires_at), Some(temporary)) = (snapshot.expires_at, temporary) {
        let at_most = snapshot.taken_at + temporary.at_most;
        if expires_at <= now && (!alarmed || at_most <= now) {
            return Duty::Restore(expires_at);
        }
        let half = temporary.expires_after / 2;
        let wanes = expires_at < at_most && expires_at - now < half;
        if alarmed && (wanes || snapshot.restore_at.is_some()) {
            return Duty::Amend(Box::new(snapshot.renewed(Some(temporary), now)));
        }
    } else if alarmed && snapshot.restore_at.is_some() {
        return Duty::Amend(Box::new(snapshot.renewed(temporary, now)));
    }
    if !alarms.all_ok {
        return Duty::Wait;
    }
    match snapshot.restore_at {
        Some(restore_at) if restore_at <= now => Duty::Restore(restore_at),
        Some(_) => Duty::Wait,
        // The event of the alarm's return to OK was lost.
        None => {
            let stabilisation =
                temporary.map_or(TimeDelta::zero(), |temporary| temporary.stabilisation);
            Duty::Amend(Box::new(snapshot.ending(now + stabilisation)))
        }
    }
}

impl<R: Remediation> Runtime<R> {
    /// Looks at every target of the policy.
    pub(super) async fn sweep(&self, invocation: &Invocation) -> Result<Response, RunError> {
        if self.suite.settings.dry_run {
            tracing::info!("a dry run neither restores nor learns");
            return Ok(Response::new(
                String::new(),
                "SCHEDULE".to_owned(),
                Vec::new(),
            ));
        }
        let known = self.policy().await?;
        let policy = self.refreshed(&known).await?;
        let targets = policy.document.targets.iter();
        let reports = join_all(targets.map(|target| self.tend(invocation, &policy, target))).await;
        let reports = reports.into_iter().flatten().collect();
        Ok(Response::new(String::new(), "SCHEDULE".to_owned(), reports))
    }

    async fn tend(
        &self,
        invocation: &Invocation,
        policy: &Arc<Loaded<R::Action>>,
        target: &Target<R::Action>,
    ) -> Option<Report> {
        let resource = target.action.resource();
        let failed = |error: &dyn std::fmt::Display, retryable| {
            let mut report = Self::no_run(crate::outcome::Outcome::Failed {
                error: error.to_string(),
                retryable,
            });
            target.name.clone_into(&mut report.target);
            resource.clone_into(&mut report.resource);
            Some(report)
        };
        let facts = match self.suite.ledger.look(R::NAME, resource).await {
            Ok(facts) => facts,
            Err(error) => return failed(&error, error.is_transient()),
        };
        if let Some(engaged) = &facts.switch {
            tracing::warn!(target = %target.name, rule = ?engaged.rule, "a kill switch is on; what is in place stays");
            return None;
        }
        // What is taken back need not settle first.
        if let Some(snapshot) = &facts.snapshot {
            let alarms = match self.alarms(&target.alarms).await {
                Ok(alarms) => alarms,
                Err(error) => return failed(&error, error.is_transient()),
            };
            let now = self.suite.clock.now();
            let temporary = R::temporary(&target.action);
            match duty(snapshot, temporary, &alarms, now) {
                Duty::Wait => {}
                Duty::Amend(amended) => {
                    let written = self
                        .suite
                        .ledger
                        .amend(R::NAME, resource, &amended, now)
                        .await;
                    if let Err(error) = written {
                        return failed(&error, error.is_transient());
                    }
                }
                Duty::Restore(due) => {
                    let event = AlarmEvent {
                        state: State::Ok,
                        changed_at: due,
                        ..snapshot.event.clone()
                    };
                    return self
                        .on_behalf(invocation, policy, target, &event, true)
                        .await;
                }
            }
        }
        if let Some(settling) = &facts.settling {
            return self
                .on_behalf(invocation, policy, target, &settling.event, false)
                .await;
        }
        if facts.snapshot.is_none() {
            self.learn(target, &facts).await;
        }
        let undecided = facts.history.undecided.as_ref()?;
        self.on_behalf(invocation, policy, target, undecided, false)
            .await
    }

    /// Runs on a target as if `event` had been delivered now; `None` when there is nothing to tell.
    async fn on_behalf(
        &self,
        invocation: &Invocation,
        policy: &Arc<Loaded<R::Action>>,
        target: &Target<R::Action>,
        event: &AlarmEvent,
        due: bool,
    ) -> Option<Report> {
        let run = Run {
            place: Place {
                remediation: R::NAME,
                target: &target.name,
                resource: target.action.resource(),
                event,
                limits: &target.guard,
                request_id: &invocation.request_id,
                delivered: false,
            },
            target,
            invocation,
            trigger: &Value::Null,
            due,
            round: None,
            dry_run: false,
            began: self.suite.clock.now(),
        };
        let shared = Shared::default();
        match self.on_target(&run, policy, &shared).await {
            Ran::Reported(report, metrics) => {
                let still = matches!(report.outcome, crate::outcome::Outcome::Pending { .. });
                if !still && !report.duplicate {
                    self.emit(&report, &metrics, event).await;
                }
                Some(*report)
            }
            // The next look goes by the new policy.
            Ran::PolicyChanged(_) => None,
        }
    }

    async fn learn(&self, target: &Target<R::Action>, facts: &Facts) {
        if !R::LEARNS {
            return;
        }
        let now = self.suite.clock.now();
        let observed = match self.remediation.observe(&target.action, None, now).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(target = %target.name, %error, "nothing was learned");
                return;
            }
        };
        let memory = facts.history.memory.as_ref();
        let Some(lesson) = R::learn(&observed, &target.action, memory, now) else {
            return;
        };
        let resource = target.action.resource();
        let written = self
            .suite
            .ledger
            .remember(R::NAME, resource, facts, lesson.memory, now)
            .await;
        match written {
            Ok(true) => tracing::info!(target = %target.name, "{}", lesson.summary),
            Ok(false) => tracing::info!(target = %target.name, "a run was at work; learning later"),
            Err(error) => {
                tracing::warn!(target = %target.name, %error, "what was learned was not kept");
            }
        }
    }

    /// Reads a target's alarms, which the policy gives by name or by ARN.
    pub(super) async fn alarms(&self, wanted: &[String]) -> Result<Alarms, AwsError> {
        use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
        let names: Vec<&str> = wanted
            .iter()
            .map(|alarm| {
                alarm
                    .split_once(":alarm:")
                    .map_or(&**alarm, |(_, name)| name)
            })
            .collect();
        let mut states = Vec::new();
        // `DescribeAlarms` takes at most 100 names.
        for names in names.chunks(100) {
            let answer = self
                .suite
                .cloudwatch
                .describe_alarms()
                .set_alarm_names(Some(names.iter().map(|name| (*name).to_owned()).collect()))
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .max_records(100)
                .send()
                .await
                .map_err(|error| {
                    AwsError::new("cloudwatch:DescribeAlarms", names.join(", "), &error)
                })?;
            let metric = answer.metric_alarms().iter();
            states
                .extend(metric.map(|alarm| (alarm.alarm_name.clone(), alarm.state_value.clone())));
            let composite = answer.composite_alarms().iter();
            states.extend(
                composite.map(|alarm| (alarm.alarm_name.clone(), alarm.state_value.clone())),
            );
        }
        let all_ok = states.len() == names.len()
            && states
                .iter()
                .all(|(_, state)| *state == Some(StateValue::Ok));
        let in_alarm = states
            .into_iter()
            .filter(|(_, state)| *state == Some(StateValue::Alarm))
            .filter_map(|(name, _)| name)
            .collect();
        Ok(Alarms { in_alarm, all_ok })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ARN: &str = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:ApiOutage";

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    /// Raised at minute 100, to stay an hour without a sign of the alarm and two hours at most.
    const TEMPORARY: Temporary = Temporary {
        stabilisation: TimeDelta::minutes(10),
        expires_after: TimeDelta::minutes(60),
        at_most: TimeDelta::minutes(120),
    };

    fn snapshot(expires_at: i64, restore_at: Option<i64>) -> Snapshot {
        let event = crate::alarm::parse(&json!({
            "detail-type": "CloudWatch Alarm State Change",
            "source": "aws.cloudwatch",
            "resources": [ARN],
            "detail": {
                "alarmName": "ApiOutage",
                "state": {"value": "ALARM", "timestamp": "2026-11-02T09:28:12.144+0000"},
            },
        }));
        Snapshot {
            run_id: "run-1".into(),
            incident_id: "inc-1".into(),
            event: event.unwrap(),
            taken_at: at(100),
            expires_at: Some(at(expires_at)),
            restore_at: restore_at.map(at),
            version: 1,
            state: json!({"page": false}),
        }
    }

    fn alarms(state: &str) -> Alarms {
        Alarms {
            in_alarm: (state == "ALARM")
                .then(|| "ApiOutage".to_owned())
                .into_iter()
                .collect(),
            all_ok: state == "OK",
        }
    }

    #[test]
    fn each_duty_falls_due_in_its_time() {
        let amended = |expires_at, restore_at| {
            Duty::Amend(Box::new(Snapshot {
                version: 2,
                ..snapshot(expires_at, restore_at)
            }))
        };
        let cases = [
            // While the alarm stays, what is in place is renewed from its half-life on, up to the most.
            ("ALARM", 160, None, 129, Duty::Wait),
            ("ALARM", 160, None, 131, amended(191, None)),
            ("ALARM", 200, None, 190, amended(220, None)),
            ("ALARM", 220, None, 219, Duty::Wait),
            ("ALARM", 220, None, 220, Duty::Restore(at(220))),
            // A look that came late does not end it while the alarm stays.
            ("ALARM", 160, None, 170, amended(220, None)),
            // The alarm came back while its return to OK was being waited for.
            ("ALARM", 160, Some(115), 112, amended(172, None)),
            // Back at OK: in time, and not before.
            ("OK", 160, Some(115), 114, Duty::Wait),
            ("OK", 160, Some(115), 115, Duty::Restore(at(115))),
            ("OK", 160, Some(115), 130, Duty::Restore(at(115))),
            // The event of the return to OK was lost.
            ("OK", 160, None, 120, amended(160, Some(130))),
            // Nothing is known of the alarm: it stays until it expires.
            ("?", 160, None, 120, Duty::Wait),
            ("?", 160, Some(115), 120, Duty::Wait),
            ("?", 160, Some(115), 160, Duty::Restore(at(160))),
            ("OK", 160, None, 160, Duty::Restore(at(160))),
        ];
        for (state, expires_at, restore_at, now, expected) in cases {
            let found = duty(
                &snapshot(expires_at, restore_at),
                Some(TEMPORARY),
                &alarms(state),
                at(now),
            );
            assert_eq!(
                found, expected,
                "{state} expires {expires_at} restore {restore_at:?} now {now}"
            );
        }
    }

    #[test]
    fn what_has_no_term_stays_until_the_alarm_is_back_at_ok() {
        let stays = Snapshot {
            expires_at: None,
            ..snapshot(0, None)
        };
        assert_eq!(
            duty(&stays, None, &alarms("ALARM"), at(100_000)),
            Duty::Wait
        );
        assert_eq!(duty(&stays, None, &alarms("?"), at(100_000)), Duty::Wait);
        let Duty::Amend(ending) = duty(&stays, None, &alarms("OK"), at(100_000)) else {
            panic!()
        };
        assert_eq!(ending.restore_at, Some(at(100_000)));
    }
}
