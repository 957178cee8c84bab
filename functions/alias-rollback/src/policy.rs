//! What the policy says of an alias: when its version is to blame, what a good version is, and how a rollback is tried.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::arn::Arn;
use shared::policy::{Action, Home};

/// One alias of a Lambda function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The alias, by ARN: `arn:aws:lambda:<region>:<account>:function:<function>:<alias>`.
    pub alias: Arn,
    /// When errors are put down to a version.
    #[serde(default)]
    pub blame: Blame,
    /// When a version is recorded as good.
    #[serde(default)]
    pub attestation: Attestation,
    /// How far back a rollback may go.
    #[serde(default)]
    pub way_back: WayBack,
    /// The deployment group that shifts the alias's traffic. A deployment of it in flight is stopped, and rolls
    /// back by its own means.
    #[serde(default)]
    pub codedeploy: Option<DeploymentGroup>,
    /// Invokes the alias once after a rollback.
    #[serde(default)]
    pub smoke_test: Option<SmokeTest>,
}

/// When errors are put down to a version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Blame {
    /// How far back invocations and errors are counted, 60 to 3,600 s, in whole minutes.
    pub window_seconds: NonZeroU32,
    /// Invocations in the window below which nothing is concluded.
    pub min_invocations: NonZeroU32,
    /// The error rate from which a version is bad, above 0 and up to 100 percent.
    pub error_percent: f64,
    /// By how many percentage points a canary has to be worse than the version beside it.
    pub margin_percent: f64,
    /// How long after a version took the traffic it is still to blame.
    pub recency_seconds: NonZeroU32,
}

/// When a version is recorded as good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attestation {
    /// Invocations in the window that it has to have served alone.
    pub min_invocations: NonZeroU32,
    /// The error rate that it must stay below, in percent.
    pub error_percent: f64,
}

/// How far back a rollback may go, beyond the version that served just before the bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WayBack {
    /// How long ago a version may have been seen to serve well last, in seconds.
    pub max_age_seconds: NonZeroU32,
    /// How many earlier versions that were seen to serve well are looked at, the newest first.
    pub max_versions: NonZeroU32,
}

/// A `CodeDeploy` deployment group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentGroup {
    /// The application's name.
    pub application: String,
    /// The group's name.
    pub group: String,
}

/// One invocation of the alias, whose answer must be no function error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeTest {
    /// The payload: an event that changes nothing.
    pub payload: Value,
}

const fn number(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

impl Default for Blame {
    fn default() -> Self {
        Self {
            window_seconds: number(300),
            min_invocations: number(20),
            error_percent: 5.0,
            margin_percent: 5.0,
            recency_seconds: number(86_400),
        }
    }
}

impl Default for WayBack {
    fn default() -> Self {
        Self {
            max_age_seconds: number(2_592_000),
            max_versions: number(5),
        }
    }
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            min_invocations: number(100),
            error_percent: 1.0,
        }
    }
}

impl Rollback {
    /// The function's name, by which its metrics are counted.
    #[must_use]
    pub fn function(&self) -> &str {
        self.parts().0
    }

    /// The function's ARN, without the alias: a bare name would mean a function of the caller's own account and region.
    #[must_use]
    pub fn function_arn(&self) -> &str {
        let alias = self.alias.as_str();
        alias
            .rsplit_once(':')
            .map_or(alias, |(function, _)| function)
    }

    /// The alias's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let resource = self.alias.resource();
        let resource = resource.strip_prefix("function:").unwrap_or(resource);
        resource.split_once(':').unwrap_or((resource, ""))
    }
}

impl Action for Rollback {
    fn resource(&self) -> &str {
        self.alias.as_str()
    }

    /// A function of another region is not found, or another one of the same name is: an SDK client asks in its own
    /// region. Metrics of another account are not among this one's.
    fn check_reach(&self, home: &Home) -> Result<(), String> {
        if home.holds(&self.alias) {
            return Ok(());
        }
        Err(format!(
            "alias {} is not in account {} and region {} ({}), where this function runs; deploy Forgeguard there and list the alias in its policy",
            self.alias, home.account, home.region, home.partition
        ))
    }

    fn check(&self) -> Result<(), String> {
        let is_alias = |name: &str| {
            !name.is_empty()
                && !name.contains(':')
                && !name.bytes().all(|byte| byte.is_ascii_digit())
        };
        if self.alias.service() != "lambda"
            || !self.alias.resource().starts_with("function:")
            || self.function().is_empty()
            || !is_alias(self.name())
        {
            return Err(format!(
                "alias {} is no alias; give arn:aws:lambda:<region>:<account>:function:<function>:<alias>",
                self.alias
            ));
        }
        let window = self.blame.window_seconds.get();
        if !(60..=3_600).contains(&window) || !window.is_multiple_of(60) {
            return Err(format!(
                "blame.window_seconds is {window}; it must be 60 to 3600, in whole minutes"
            ));
        }
        let percent = |field: &str, value: f64, from: f64| {
            if value >= from && value <= 100.0 {
                Ok(())
            } else {
                Err(format!("{field} is {value}; it must be {from} to 100"))
            }
        };
        percent("blame.error_percent", self.blame.error_percent, 0.1)?;
        percent("blame.margin_percent", self.blame.margin_percent, 0.0)?;
        percent(
            "attestation.error_percent",
            self.attestation.error_percent,
            0.0,
        )?;
        if self.attestation.error_percent > self.blame.error_percent {
            return Err(format!(
                "attestation.error_percent {} is above blame.error_percent {}; a version could be good and bad at once",
                self.attestation.error_percent, self.blame.error_percent
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut value =
            json!({"alias": "arn:aws:lambda:eu-west-1:123456789012:function:orders:live"});
        change(&mut value);
        serde_json::from_value::<Rollback>(value)
            .map_err(|error| error.to_string())?
            .check()
    }

    #[test]
    fn an_alias_alone_will_do() {
        check(|_| {}).unwrap();
        let rollback: Rollback = serde_json::from_value(
            json!({"alias": "arn:aws:lambda:eu-west-1:123456789012:function:orders:live"}),
        )
        .unwrap();
        assert_eq!((rollback.function(), rollback.name()), ("orders", "live"));
    }

    #[test]
    fn an_alias_of_another_account_region_or_partition_is_out_of_reach() {
        let rollback =
            |alias: &str| -> Rollback { serde_json::from_value(json!({"alias": alias})).unwrap() };
        let home = Home::of_function("arn:aws:lambda:eu-west-1:123456789012:function:f").unwrap();
        rollback("arn:aws:lambda:eu-west-1:123456789012:function:orders:live")
            .check_reach(&home)
            .unwrap();
        for elsewhere in [
            "arn:aws:lambda:us-east-1:123456789012:function:orders:live",
            "arn:aws:lambda:eu-west-1:999999999999:function:orders:live",
            "arn:aws-cn:lambda:eu-west-1:123456789012:function:orders:live",
        ] {
            let problem = rollback(elsewhere).check_reach(&home).unwrap_err();
            let words = "is not in account 123456789012 and region eu-west-1 (aws), where this function runs; deploy";
            assert!(
                problem.contains(elsewhere) && problem.contains(words),
                "{problem}"
            );
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 7] = [
            (
                |v| v["alias"] = json!("arn:aws:lambda:eu-west-1:123456789012:function:orders"),
                "is no alias",
            ),
            (
                |v| v["alias"] = json!("arn:aws:lambda:eu-west-1:123456789012:function:orders:7"),
                "is no alias",
            ),
            (
                |v| v["alias"] = json!("arn:aws:sqs:eu-west-1:123456789012:orders"),
                "is no alias",
            ),
            (
                |v| v["blame"] = json!({"window_seconds": 90}),
                "blame.window_seconds is 90",
            ),
            (
                |v| v["blame"] = json!({"error_percent": 0}),
                "blame.error_percent is 0; it must be 0.1 to 100",
            ),
            (
                |v| v["attestation"] = json!({"error_percent": 6}),
                "a version could be good and bad at once",
            ),
            (|v| v["alais"] = json!(1), "unknown field `alais`"),
        ];
        for (change, words) in cases {
            let problem = check(change).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
