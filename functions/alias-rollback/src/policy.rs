//! What the policy says of an alias: when its version is to blame, what a good version is, and how a rollback is tried.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::arn::Arn;
use shared::policy::{Action, Home};

/// Peers at most: each is two figures of one call, which takes 500.
const MOST_PEERS: usize = 20;

/// Shares at most on the way back.
const MOST_SHARES: usize = 5;

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
    /// The deployment group that shifts the alias's traffic, or `none`. A deployment of it in flight that brings what
    /// fails is stopped. Left out, none is looked for, and a rollback tells that.
    #[serde(default)]
    pub codedeploy: Option<CodeDeploy>,
    /// Goes back from a version that has all the traffic in steps, and compares both versions at each; at once where this
    /// is left out.
    #[serde(default)]
    pub shift: Option<Shift>,
    /// Invokes the alias once after a rollback.
    #[serde(default)]
    pub smoke_test: Option<SmokeTest>,
}

/// When errors are put down to a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Blame {
    /// How far back invocations and errors are counted where no onset is seen, 60 to 3,600 s, in whole minutes.
    pub window_seconds: NonZeroU32,
    /// Invocations in the window below which nothing is concluded.
    pub min_invocations: NonZeroU32,
    /// The error rate from which a version is bad, above 0 and up to 100 percent.
    pub error_percent: f64,
    /// By how many percentage points a canary has to be worse than the version beside it.
    pub margin_percent: f64,
    /// How long after a version took the traffic it is still to blame.
    pub recency_seconds: NonZeroU32,
    /// How long after a version took the traffic errors may begin and still be put down to it, 60 to 86,400 s.
    pub onset_seconds: NonZeroU32,
    /// Functions or aliases, by ARN, that depend on the same things and are not deployed together with this one.
    /// Where one of them begins to fail at the same time, what they share is to blame, and no version.
    pub peers: Vec<Arn>,
    /// Whether throttled invocations of the alias speak against its version, too.
    pub throttles: bool,
    /// Whether events that event source mappings could not have processed speak against the alias's version, too, such as
    /// those of partial batch failures. Seen are those of mappings with `EventCount` metrics.
    pub event_sources: bool,
    /// The REST API whose server errors speak against the alias's version, too, where they began as it took over.
    pub api: Option<Api>,
    /// When invocations that take longer than before speak against a version, too; never where this is left out.
    pub duration: Option<Slowness>,
}

/// When invocations take too long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slowness {
    /// How many times as long as those of the version before, or beside, on average, 1.1 to 100.
    pub times: f64,
    /// The average below which no version is too slow, in milliseconds.
    #[serde(default = "tenth_of_a_second")]
    pub from_milliseconds: NonZeroU32,
}

const fn tenth_of_a_second() -> NonZeroU32 {
    number(100)
}

/// A REST API of API Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Its name, by which its metrics are counted.
    pub name: String,
    /// A stage of it; all of them where this is left out.
    #[serde(default)]
    pub stage: Option<String>,
}

/// A way back in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The shares of the traffic that the earlier version gets one after the other, in percent: at most five, each 1 to 100
    /// and more than the one before, the last 100.
    pub percents: Vec<u8>,
    /// How long each share is watched at least, 60 to 3,600 s, in whole minutes; three times as long at most.
    pub step_seconds: NonZeroU32,
}

impl Shift {
    fn check(&self) -> Result<(), String> {
        let Self {
            percents,
            step_seconds,
        } = self;
        let rises = percents.is_sorted_by(|one, other| one < other);
        let first = percents.first().is_some_and(|first| *first > 0);
        let last = percents.last() == Some(&100);
        if !rises || !first || !last || percents.len() > MOST_SHARES {
            return Err(format!(
                "shift.percents is {percents:?}; it must rise from 1 or more to 100, in at most {MOST_SHARES} steps"
            ));
        }
        let step = step_seconds.get();
        if !(60..=3_600).contains(&step) || !step.is_multiple_of(60) {
            return Err(format!(
                "shift.step_seconds is {step}; it must be 60 to 3600, in whole minutes"
            ));
        }
        Ok(())
    }
}

/// When a version is recorded as good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attestation {
    /// Invocations that it has to have served alone: in `blame.window_seconds`, or longer if it has little traffic.
    pub min_invocations: NonZeroU32,
    /// How far back its invocations are added up until they are enough, 60 to 86,400 s.
    pub max_window_seconds: NonZeroU32,
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

/// Whether `CodeDeploy` shifts the alias's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "codedeploy is neither a deployment group nor none; give {\"application\": \"...\", \"group\": \"...\"} or \"none\""
)]
pub enum CodeDeploy {
    /// By this group.
    Group(DeploymentGroup),
    /// It does not.
    No(NoGroup),
}

/// No deployment group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoGroup {
    /// There is none.
    #[serde(rename = "none")]
    None,
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

/// One invocation of the alias, whose answer must be no function error, no server error, and from the right version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeTest {
    /// The payload: an event that changes nothing.
    pub payload: Value,
    /// The `statusCode` of a proxy answer from which it has failed, 100 to 600; 600 is above all of them.
    #[serde(default = "server_error")]
    pub fails_from_status: u16,
}

const fn server_error() -> u16 {
    500
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
            onset_seconds: number(600),
            peers: Vec::new(),
            throttles: false,
            event_sources: false,
            api: None,
            duration: None,
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
            max_window_seconds: number(86_400),
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

    fn check_shift(&self) -> Result<(), String> {
        let Some(shift) = &self.shift else {
            return Ok(());
        };
        if matches!(self.codedeploy, Some(CodeDeploy::Group(_))) {
            return Err(
                "shift and the deployment group of codedeploy would both give the alias weights, and undo each other's: leave shift out, or give \"codedeploy\": \"none\" where CodeDeploy does not deploy to it"
                    .to_owned(),
            );
        }
        shift.check()
    }

    fn parts(&self) -> (&str, &str) {
        name_and_qualifier(&self.alias)
    }
}

/// The name of a function, and the alias or version that its ARN names, or nothing.
#[must_use]
pub fn name_and_qualifier(function: &Arn) -> (&str, &str) {
    let resource = function.resource();
    let resource = resource.strip_prefix("function:").unwrap_or(resource);
    resource.split_once(':').unwrap_or((resource, ""))
}

fn check_peers(alias: &Arn, peers: &[Arn]) -> Result<(), String> {
    if peers.len() > MOST_PEERS {
        return Err(format!(
            "blame.peers names {} functions; give at most {MOST_PEERS}",
            peers.len()
        ));
    }
    for peer in peers {
        if peer.service() != "lambda" || !peer.resource().starts_with("function:") {
            return Err(format!(
                "blame.peers: {peer} is no function; give arn:aws:lambda:<region>:<account>:function:<function>, with :<alias> or without"
            ));
        }
        if name_and_qualifier(peer).0 == name_and_qualifier(alias).0 {
            return Err(format!(
                "blame.peers: {peer} is the function of the alias itself; name others"
            ));
        }
    }
    Ok(())
}

fn check_span(field: &str, value: NonZeroU32) -> Result<(), String> {
    if (60..=86_400).contains(&value.get()) {
        return Ok(());
    }
    Err(format!("{field} is {value}; it must be 60 to 86400"))
}

impl Action for Rollback {
    fn resource(&self) -> &str {
        self.alias.as_str()
    }

    /// A function of another region is not found, or another one of the same name is: an SDK client asks in its own
    /// region. Metrics of another account are not among this one's.
    fn check_reach(&self, home: &Home) -> Result<(), String> {
        if let Some(peer) = self.blame.peers.iter().find(|peer| !home.holds(peer)) {
            return Err(format!(
                "blame.peers: {peer} is not in account {} and region {} ({}), whose metrics are read; leave it out",
                home.account, home.region, home.partition
            ));
        }
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
        check_span("blame.onset_seconds", self.blame.onset_seconds)?;
        check_span(
            "attestation.max_window_seconds",
            self.attestation.max_window_seconds,
        )?;
        check_peers(&self.alias, &self.blame.peers)?;
        self.check_shift()?;
        if let Some(test) = &self.smoke_test
            && !(100..=600).contains(&test.fails_from_status)
        {
            return Err(format!(
                "smoke_test.fails_from_status is {}; it must be 100 to 600",
                test.fails_from_status
            ));
        }
        let percent = |field: &str, value: f64, from: f64| {
            if value >= from && value <= 100.0 {
                Ok(())
            } else {
                Err(format!("{field} is {value}; it must be {from} to 100"))
            }
        };
        if let Some(Slowness { times, .. }) = self.blame.duration
            && !(1.1..=100.0).contains(&times)
        {
            return Err(format!(
                "blame.duration.times is {times}; it must be 1.1 to 100"
            ));
        }
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
    fn a_deployment_group_is_named_or_there_is_none_or_nothing_is_said() {
        check(|v| v["codedeploy"] = json!("none")).unwrap();
        check(|v| v["codedeploy"] = json!(null)).unwrap();
        check(|v| v["codedeploy"] = json!({"application": "orders", "group": "live"})).unwrap();
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
        let cases: [(Change, &str); 19] = [
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
            (
                |v| v["blame"] = json!({"onset_seconds": 59}),
                "blame.onset_seconds is 59; it must be 60 to 86400",
            ),
            (
                |v| v["attestation"] = json!({"max_window_seconds": 90_000}),
                "attestation.max_window_seconds is 90000; it must be 60 to 86400",
            ),
            (
                |v| v["blame"] = json!({"peers": ["arn:aws:sqs:eu-west-1:123456789012:orders"]}),
                "orders is no function; give arn:aws:lambda:",
            ),
            (
                |v| {
                    let own = "arn:aws:lambda:eu-west-1:123456789012:function:orders:blue";
                    v["blame"] = json!({"peers": [own]});
                },
                "is the function of the alias itself",
            ),
            (
                |v| v["smoke_test"] = json!({"payload": {}, "fails_from_status": 99}),
                "smoke_test.fails_from_status is 99; it must be 100 to 600",
            ),
            (
                |v| v["codedeploy"] = json!("never"),
                "codedeploy is neither a deployment group nor none; give",
            ),
            (
                |v| v["blame"] = json!({"duration": {"times": 1.0}}),
                "blame.duration.times is 1; it must be 1.1 to 100",
            ),
            (
                |v| v["shift"] = json!({"percents": [10, 50], "step_seconds": 300}),
                "shift.percents is [10, 50]; it must rise from 1 or more to 100, in at most 5 steps",
            ),
            (
                |v| v["shift"] = json!({"percents": [50, 50, 100], "step_seconds": 300}),
                "shift.percents is [50, 50, 100]",
            ),
            (
                |v| v["shift"] = json!({"percents": [0, 100], "step_seconds": 300}),
                "shift.percents is [0, 100]",
            ),
            (
                |v| v["shift"] = json!({"percents": [10, 100], "step_seconds": 90}),
                "shift.step_seconds is 90; it must be 60 to 3600, in whole minutes",
            ),
            (
                |v| {
                    v["codedeploy"] = json!({"application": "orders", "group": "live"});
                    v["shift"] = json!({"percents": [10, 100], "step_seconds": 300});
                },
                "leave shift out, or give \"codedeploy\": \"none\"",
            ),
            (|v| v["alais"] = json!(1), "unknown field `alais`"),
        ];
        for (change, words) in cases {
            let problem = check(change).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
