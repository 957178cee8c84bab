//! The policy, the alarms and the bus in the world.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use shared::aws_error::{AwsError, Kind};
use shared::guard::LiveAlarm;
use shared::guard::effect::Told;
use shared::policy::PolicyError;
use shared::runtime::outside::{Described, OutcomeEvent, Outside, PolicyText};

use crate::store::Door;
use crate::world::alarm_arn_in;

/// `DescribeAlarms` allows nine calls a second (Amazon `CloudWatch` User Guide, "`CloudWatch` service quotas").
const DESCRIBES_A_SECOND: u32 = 9;

#[async_trait]
impl Outside for Door {
    async fn policy(&self, parameter: &str) -> Result<PolicyText, PolicyError> {
        let unreadable = |source| PolicyError::Unreadable { source };
        let found = self
            .call("GetParameter", parameter, |world| {
                world.inner().policies.get(parameter).cloned()
            })
            .await
            .map_err(unreadable)?;
        let (text, version) = found.ok_or_else(|| PolicyError::Empty {
            parameter: parameter.to_owned(),
        })?;
        Ok(PolicyText { text, version })
    }

    async fn alarms(&self, region: &str, names: &[String]) -> Result<Vec<Described>, AwsError> {
        const CALL: &str = "DescribeAlarms";
        let found = self
            .call(CALL, &names.join(","), |world| {
                let second = world.now().timestamp();
                let mut inner = world.inner();
                if inner.described.0 != second {
                    inner.described = (second, 0);
                }
                inner.described.1 += 1;
                if inner.described.1 > DESCRIBES_A_SECOND {
                    inner.visits.throttles += 1;
                    return None;
                }
                let alarms = names.iter().filter_map(|name| {
                    let arn = alarm_arn_in(region, name);
                    let alarm = inner.alarms.get(&arn)?;
                    let live = LiveAlarm::Found {
                        state: alarm.state,
                        actions_enabled: true,
                        since: Some(alarm.since),
                    };
                    Some(Described { arn, live })
                });
                Some(alarms.collect::<Vec<_>>())
            })
            .await?;
        self.world
            .saw(self.invocation(), found.as_deref().unwrap_or_default());
        found.ok_or_else(|| AwsError {
            operation: CALL,
            subject: names.join(","),
            kind: Kind::Throttled,
            code: Some("Throttling".to_owned()),
            message: "Rate exceeded".to_owned(),
        })
    }

    async fn course(
        &self,
        region: &str,
        name: &str,
        _since: DateTime<Utc>,
        _now: DateTime<Utc>,
    ) -> Result<Told, AwsError> {
        let arn = alarm_arn_in(region, name);
        self.call("GetMetricData", name, |world| {
            let found = world.inner().courses.get(&arn).cloned();
            found.unwrap_or_else(|| Told::Nothing("it has no metric of its own".to_owned()))
        })
        .await
    }

    async fn publish(&self, _bus: &str, outcomes: &[OutcomeEvent]) -> Result<(), AwsError> {
        self.call("PutEvents", "the bus", |world| {
            let read = outcomes
                .iter()
                .filter_map(|outcome| serde_json::from_str(&outcome.detail).ok());
            let read: Vec<serde_json::Value> = read.collect();
            for outcome in &read {
                world.tell(|| {
                    format!(
                        "told: {} {} {} {}",
                        outcome["remediation"].as_str().unwrap_or_default(),
                        outcome["target"].as_str().unwrap_or_default(),
                        outcome["outcome"].as_str().unwrap_or_default(),
                        outcome["reason"]
                            .as_str()
                            .or(outcome["summary"].as_str())
                            .or(outcome["error"].as_str())
                            .unwrap_or_default()
                    )
                });
            }
            let mut inner = world.inner();
            let escalated = read
                .iter()
                .filter(|outcome| outcome["outcome"] == "Escalated");
            inner.visits.escalations += u64::try_from(escalated.count()).unwrap_or(0);
            inner.published.extend(read);
        })
        .await
    }
}
