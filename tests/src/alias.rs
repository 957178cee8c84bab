//! A Lambda function with versions and an alias, what they served, and a rollback ready to be run.

use std::collections::HashMap;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StateValue};
use aws_sdk_codedeploy::types::{
    AppSpecContent, DeploymentStatus, RevisionLocation, RevisionLocationType,
};
use aws_sdk_lambda::client::Waiters as _;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{AliasRoutingConfiguration, Environment, FunctionCode, Runtime};
use aws_smithy_types::DateTime as SdkDateTime;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::clock::Clock;
use zip::write::SimpleFileOptions;

use crate::failure::{During, Failure, Result};
use crate::proxy::Proxy;
use crate::replay::Run;
use crate::world::{Alarm, World, alarm_event, scheduled};

/// The alias's name.
pub const ALIAS: &str = "live";

/// How long a version may take to become active.
const PATIENCE: Duration = Duration::from_mins(1);

/// A function whose alias can be rolled back.
#[derive(Debug)]
pub struct Guarded<'a> {
    /// Where it takes place.
    pub world: &'a World,
    /// The function's name.
    pub function: String,
    /// The alarm.
    pub alarm: Alarm,
    /// The alarm's change to ALARM.
    pub event: Value,
    /// The policy that was put last.
    pub policy: Value,
    binary: PathBuf,
}

/// Where an alias points.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointing {
    /// The version.
    pub version: String,
    /// The other versions' shares.
    pub weights: HashMap<String, f64>,
}

impl Pointing {
    /// All traffic to one version.
    #[must_use]
    pub fn alone(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            weights: HashMap::new(),
        }
    }

    /// A share of the traffic to a canary, the rest to the version.
    #[must_use]
    pub fn with_canary(version: &str, canary: &str, share: f64) -> Self {
        Self {
            weights: [(canary.to_owned(), share)].into(),
            ..Self::alone(version)
        }
    }
}

fn archive(code: &str) -> Result<Blob> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive
        .start_file("handler.py", stored)
        .during("handler.py")?;
    archive.write_all(code.as_bytes())?;
    let written = archive.finish().during("the archive")?;
    Ok(Blob::new(written.into_inner()))
}

/// The code of a version: it answers with its name.
#[must_use]
pub fn code(answer: &str) -> String {
    format!("def handle(event, context):\n    return {answer:?}\n")
}

impl<'a> Guarded<'a> {
    /// A function with one version for each code, numbered from 1, and the alias at the last.
    pub async fn new(world: &'a World, binary: &str, codes: &[String]) -> Result<Self> {
        let function = format!("{}-api", world.name);
        let alarm = world.alarm("ApiFunctionErrorsHigh").await?;
        let mut guarded = Self {
            world,
            function: function.clone(),
            policy: json!({
                "version": 1,
                "targets": [{
                    "name": "api",
                    "alarms": [alarm.arn],
                    "guard": {"max_event_age_seconds": 86_400, "cooldown_seconds": 0},
                    "action": {"alias": format!(
                        "arn:aws:lambda:{}:{}:function:{function}:{ALIAS}",
                        world.cloud.region, world.cloud.account_id
                    )},
                }],
            }),
            alarm,
            event: Value::Null,
            binary: binary.into(),
        };
        guarded.create(codes).await?;
        // What is published after the alarm is not what raised it.
        let now = Clock::system().now();
        guarded.event = alarm_event(&guarded.alarm, "OK", "ALARM", now);
        world.put_policy(&guarded.policy).await?;
        Ok(guarded)
    }

    /// The function and the alias that the deployed template guards.
    pub async fn of_the_stack(world: &'a World, codes: &[String]) -> Result<Self> {
        let alias = world.cloud.output("ApiFunctionAliasArn")?;
        let function = alias.rsplit(':').nth(1).during(alias)?.to_owned();
        let alarm = world.cloud.output("ApiFunctionErrorsHighAlarmName")?;
        let alarm = world.existing_alarm(alarm).await?;
        let guarded = Self {
            world,
            function,
            event: Value::Null,
            alarm,
            policy: Value::Null,
            binary: PathBuf::new(),
        };
        guarded.create(codes).await?;
        Ok(guarded)
    }

    async fn create(&self, codes: &[String]) -> Result {
        let lambda = &self.world.aws.lambda;
        // Any role that Lambda may take will do; what the function does needs none.
        let role = format!(
            "arn:aws:iam::{}:role/{}",
            self.world.cloud.account_id,
            self.world.cloud.output("AliasRollbackFunctionRoleName")?
        );
        let (first, others) = codes.split_first().during("a version")?;
        self.world.will_remove_function(&self.function);
        lambda
            .create_function()
            .function_name(&self.function)
            .runtime(Runtime::Python312)
            .handler("handler.handle")
            .role(role)
            .code(FunctionCode::builder().zip_file(archive(first)?).build())
            .publish(true)
            .send()
            .await
            .during(&self.function)?;
        for (index, code) in others.iter().enumerate() {
            lambda
                .update_function_code()
                .function_name(&self.function)
                .zip_file(archive(code)?)
                .send()
                .await?;
            // Another description makes another version, even of the same code.
            lambda
                .update_function_configuration()
                .function_name(&self.function)
                .description(format!("version {}", index + 2))
                .send()
                .await?;
            lambda
                .publish_version()
                .function_name(&self.function)
                .send()
                .await?;
        }
        for number in 1..=codes.len() {
            lambda
                .wait_until_function_active_v2()
                .function_name(&self.function)
                .qualifier(number.to_string())
                .wait(PATIENCE)
                .await
                .during(&format!("version {number} to become active"))?;
        }
        lambda
            .create_alias()
            .function_name(&self.function)
            .name(ALIAS)
            .function_version(codes.len().to_string())
            .send()
            .await?;
        Ok(())
    }

    /// Publishes the code that is there with other variables, and points the alias to it, before the alarm; gives its number.
    pub async fn reconfigured(&mut self, variables: &[(&str, &str)]) -> Result<String> {
        let lambda = &self.world.aws.lambda;
        let named = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment::builder().set_variables(Some(named.collect()));
        lambda
            .update_function_configuration()
            .function_name(&self.function)
            .environment(environment.build())
            .send()
            .await?;
        let published = lambda.publish_version().function_name(&self.function);
        let published = published.send().await?;
        let version = published.version().during("its number")?.to_owned();
        lambda
            .wait_until_function_active_v2()
            .function_name(&self.function)
            .qualifier(&version)
            .wait(PATIENCE)
            .await
            .during(&format!("version {version} to become active"))?;
        self.point(&Pointing::alone(&version)).await?;
        self.event = alarm_event(&self.alarm, "OK", "ALARM", Clock::system().now());
        Ok(version)
    }

    /// Points the alias, as a deployment or an engineer would.
    pub async fn point(&self, to: &Pointing) -> Result {
        let weights = AliasRoutingConfiguration::builder()
            .set_additional_version_weights(Some(to.weights.clone()))
            .build();
        self.world
            .aws
            .lambda
            .update_alias()
            .function_name(&self.function)
            .name(ALIAS)
            .function_version(&to.version)
            .routing_config(weights)
            .send()
            .await?;
        Ok(())
    }

    /// Begins a deployment of the group that has the function's and the alias's names: it gives a version a tenth of the traffic; gives its id.
    pub async fn deploys(&self, from: &str, to: &str) -> Result<String> {
        let specification = json!({
            "version": 0.0,
            "Resources": [{"api": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Name": self.function,
                    "Alias": ALIAS,
                    "CurrentVersion": from,
                    "TargetVersion": to,
                },
            }}],
        });
        let content = AppSpecContent::builder().content(specification.to_string());
        let revision = RevisionLocation::builder()
            .revision_type(RevisionLocationType::AppSpecContent)
            .app_spec_content(content.build());
        let begun = self
            .world
            .aws
            .codedeploy
            .create_deployment()
            .application_name(&self.function)
            .deployment_group_name(ALIAS)
            .revision(revision.build())
            .send()
            .await
            .during(&self.function)?;
        Ok(begun.deployment_id().during("its id")?.to_owned())
    }

    /// Stops the deployments of the group that are under way.
    pub async fn no_deployment(&self) -> Result {
        let codedeploy = &self.world.aws.codedeploy;
        let under_way = codedeploy
            .list_deployments()
            .application_name(&self.function)
            .deployment_group_name(ALIAS)
            .include_only_statuses(DeploymentStatus::InProgress)
            .send()
            .await?;
        for deployment in under_way.deployments() {
            let stop = codedeploy.stop_deployment().deployment_id(deployment);
            stop.send().await?;
        }
        Ok(())
    }

    /// Gives version 2 a tenth of the traffic, of which it fails a good part.
    pub async fn canary_fails(&self) -> Result {
        self.point(&Pointing::with_canary("1", "2", 0.1)).await?;
        let lately = Clock::system().now() - TimeDelta::seconds(20);
        self.served(Some("1"), 900, 1, lately).await?;
        self.served(Some("2"), 100, 40, lately).await
    }

    /// Where the alias points.
    pub async fn pointing(&self) -> Result<Pointing> {
        let alias = self
            .world
            .aws
            .lambda
            .get_alias()
            .function_name(&self.function)
            .name(ALIAS)
            .send()
            .await?;
        let weights = alias
            .routing_config()
            .and_then(AliasRoutingConfiguration::additional_version_weights);
        Ok(Pointing {
            version: alias.function_version().unwrap_or_default().to_owned(),
            weights: weights.cloned().unwrap_or_default(),
        })
    }

    /// Puts on record what the alias served at a time, or, with a version, what that version of it served.
    pub async fn served(
        &self,
        version: Option<&str>,
        invocations: u32,
        errors: u32,
        at: DateTime<Utc>,
    ) -> Result {
        let resource = format!("{}:{ALIAS}", self.function);
        let mut dimensions = vec![
            ("FunctionName", self.function.as_str()),
            ("Resource", resource.as_str()),
        ];
        dimensions.extend(version.map(|version| ("ExecutedVersion", version)));
        let figures = [("Invocations", invocations), ("Errors", errors)];
        self.counted(&dimensions, &figures, at).await
    }

    /// Puts on record what Lambda counted in a minute under these dimensions.
    pub async fn counted(
        &self,
        dimensions: &[(&str, &str)],
        figures: &[(&str, u32)],
        at: DateTime<Utc>,
    ) -> Result {
        let dimensions = dimensions.iter();
        let dimensions: Vec<_> = dimensions
            .map(|(name, value)| Dimension::builder().name(*name).value(*value).build())
            .collect();
        let data = figures.iter().map(|(metric, value)| {
            MetricDatum::builder()
                .metric_name(*metric)
                .value(f64::from(*value))
                .timestamp(SdkDateTime::from_secs(at.timestamp()))
                .set_dimensions(Some(dimensions.clone()))
                .build()
        });
        self.world
            .aws
            .cloudwatch
            .put_metric_data()
            .namespace("AWS/Lambda")
            .set_metric_data(Some(data.collect()))
            .send()
            .await?;
        Ok(())
    }

    /// Lets the function's schedule see a version serve well, an hour ago. Nothing is learned in an alarm.
    pub async fn attested(&self, version: &str, proxy: &Proxy) -> Result {
        self.watched_in(version, StateValue::Ok, proxy).await
    }

    /// A version serves well for a while, with the alarm in a state; then all is as before, and the alarm in ALARM.
    pub async fn watched_in(&self, version: &str, state: StateValue, proxy: &Proxy) -> Result {
        let before = self.pointing().await?;
        let world = self.world;
        world.set_alarm(&self.alarm.name, state).await?;
        self.point(&Pointing::alone(version)).await?;
        let hour = TimeDelta::hours(1);
        let seen = Clock::system().now() - hour;
        self.served(None, 500, 1, seen + TimeDelta::minutes(6))
            .await?;
        let schedule = scheduled();
        for minutes in [0, 7] {
            let look = self
                .run(proxy)
                .on(&schedule)
                .later_by(TimeDelta::minutes(minutes) - hour);
            let ended = look.finish().await?;
            if let Err(error) = &ended.answer {
                return Err(Failure::new(error.message.clone()));
            }
        }
        world.set_alarm(&self.alarm.name, StateValue::Alarm).await?;
        self.point(&before).await
    }

    /// Changes what the policy says of the alias.
    pub async fn set(&mut self, field: &str, value: Value) -> Result {
        self.policy["targets"][0]["action"][field] = value;
        self.world.put_policy(&self.policy).await
    }

    /// A run on the alarm's event.
    #[must_use]
    pub fn run(&self, proxy: &Proxy) -> Run {
        Run::new(&self.binary, self.world, proxy, &self.event).of(alias_rollback::NAME)
    }
}
