//! The calls that a rollback makes: to Lambda, `CloudWatch` and, where the policy names a group, `CodeDeploy`.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_cloudwatch::operation::get_metric_data::GetMetricDataOutput;
use aws_sdk_codedeploy::operation::stop_deployment::StopDeploymentError;
use aws_sdk_codedeploy::types::{
    DeploymentCreator, DeploymentInfo, DeploymentStatus, RollbackInfo,
};
use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::operation::update_alias::UpdateAliasError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    AliasRoutingConfiguration, DeadLetterConfig, EventSourceMappingConfiguration,
    EventSourceMappingMetric, EventSourceMappingMetricsConfig, FunctionConfiguration, Layer,
    ProvisionedConcurrencyStatusEnum, State as LambdaState, StateReasonCode,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::try_join_all;
use serde_json::Value;
use shared::aws_error::{AwsError, Kind};
use shared::metric_data;
use shared::remediation::Clearance;

use crate::error::RollbackError;
use crate::observed::{
    Alias, Deployment, Minutes, Observed, Provisioned, Served, State, Traffic, Version,
};
use crate::onset::minute_of;
use crate::policy::{CodeDeploy, DeploymentGroup, Rollback, SmokeTest, name_and_qualifier};
use crate::shift;

/// Pages of versions read at most; 50 versions each.
const PAGES: usize = 20;
/// How far back figures by the minute are read at most, in seconds: with the hour before, 1,500 of each fit into one answer
/// (Amazon `CloudWatch` API Reference, "`GetMetricData`": 100,800 data points), of which there are two for the alias, its
/// versions, its throttles, the API, each peer and each of these event sources, and one for how long it and its versions took.
const LONGEST_REACH: u32 = 86_400;
/// Event sources whose events are counted at most.
const MOST_EVENT_SOURCES: usize = 5;
/// What was served before a take-over is read besides.
const BEFORE: TimeDelta = TimeDelta::hours(1);
/// The tag that `CloudFormation` puts on all that it makes.
const STACK_TAG: &str = "aws:cloudformation:stack-name";

/// The clients.
#[derive(Debug)]
pub struct Aws {
    lambda: aws_sdk_lambda::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
    codedeploy: aws_sdk_codedeploy::Client,
}

/// What became of moving an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is where it should be.
    There,
    /// It is neither where it was nor where it should be.
    Overtaken,
}

/// An alias that was not put as it should be, as far as the answer tells.
struct Unput {
    error: AwsError,
    /// Whether it has another revision than the one observed.
    overtaken: bool,
}

impl Aws {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            lambda: aws_sdk_lambda::Client::new(config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            codedeploy: aws_sdk_codedeploy::Client::new(config),
        }
    }

    /// Reads the alias and all around it at once, then what its versions served.
    pub async fn observe(
        &self,
        policy: &Rollback,
        scheduled: bool,
        now: DateTime<Utc>,
    ) -> Result<Observed, RollbackError> {
        let function = policy.function_arn();
        let deployment = async {
            match &policy.codedeploy {
                Some(CodeDeploy::Group(group)) => self.deployment(group).await,
                Some(CodeDeploy::No(_)) | None => Ok(None),
            }
        };
        let (alias, (versions, more_versions), deployment, mappings, permitted, stack, provisioned) =
            tokio::try_join!(
                self.alias(function, policy.name()),
                self.versions(function),
                deployment,
                self.mappings(policy),
                self.permitted(policy),
                self.stack(policy),
                self.allocating(policy),
            )?;
        let reach = if scheduled {
            policy.attestation.max_window_seconds.get()
        } else {
            let shift = policy.shift.as_ref().map(shift::patience);
            let recent = policy.blame.recency_seconds.get();
            recent.max(shift.unwrap_or_default())
        };
        let (counted, uncounted) = counted_sources(policy, &mappings);
        let (minutes, deployment) = tokio::try_join!(
            self.served(policy, (&alias, &counted), (reach, now)),
            self.told(deployment)
        )?;
        let (total, by_version) = in_window(policy, &minutes, now);
        Ok(Observed {
            alias,
            versions,
            more_versions,
            deleted: BTreeSet::new(),
            by_version,
            total,
            minutes,
            scheduled,
            deployment,
            provisioned,
            used_by: mappings
                .into_iter()
                .map(|mapping| mapping.source)
                .chain(permitted)
                .collect(),
            uncounted,
            stack,
        })
    }

    /// Reads an alias of the function with this ARN.
    pub async fn alias(&self, function: &str, name: &str) -> Result<Alias, RollbackError> {
        let answer = self
            .lambda
            .get_alias()
            .function_name(function)
            .name(name)
            .send()
            .await
            .map_err(|error| failed("lambda:GetAlias", format!("{function}:{name}"), &error))?;
        let weights = answer
            .routing_config()
            .and_then(AliasRoutingConfiguration::additional_version_weights)
            .into_iter()
            .flatten()
            .filter_map(|(version, weight)| Some((version.parse().ok()?, *weight)))
            .collect();
        Ok(Alias {
            // An alias of `$LATEST` has no version to go back from.
            version: answer
                .function_version()
                .and_then(|version| version.parse().ok())
                .unwrap_or(0),
            weights,
            revision_id: answer.revision_id().unwrap_or_default().to_owned(),
        })
    }

    /// The published versions, and whether there are more than were read.
    async fn versions(
        &self,
        function: &str,
    ) -> Result<(BTreeMap<u64, Version>, bool), RollbackError> {
        let mut found = BTreeMap::new();
        let mut marker = None;
        for _ in 0..PAGES {
            let answer = self
                .lambda
                .list_versions_by_function()
                .function_name(function)
                .set_marker(marker)
                .send()
                .await
                .map_err(|error| failed("lambda:ListVersionsByFunction", function, &error))?;
            for version in answer.versions() {
                let Some(number) = version.version().and_then(|number| number.parse().ok()) else {
                    continue;
                };
                // The list leaves the state out (see `state_of`).
                let version = published(number, version, None);
                found.insert(number, version);
            }
            marker = answer.next_marker().map(str::to_owned);
            if marker.is_none() {
                return Ok((found, false));
            }
        }
        Ok((found, true))
    }

    /// Reads these versions by number, and so their states, however many others there are.
    pub async fn look_up(
        &self,
        policy: &Rollback,
        numbers: BTreeSet<u64>,
        mut observed: Observed,
    ) -> Result<Observed, RollbackError> {
        let asked = numbers.into_iter().map(|number| async move {
            let found = self.version(policy.function_arn(), number).await?;
            Ok::<_, RollbackError>((number, found))
        });
        for (number, found) in try_join_all(asked).await? {
            if let Some(version) = found {
                observed.versions.insert(number, version);
            } else {
                observed.versions.remove(&number);
                observed.deleted.insert(number);
            }
        }
        Ok(observed)
    }

    /// A version by its number, with its state; `None` where it is not there.
    ///
    /// Of the answers that hold a version's settings, those to `GetFunction` and `GetFunctionConfiguration` tell its state
    /// (AWS Lambda Developer Guide, "Lambda function states").
    pub async fn version(
        &self,
        function: &str,
        number: u64,
    ) -> Result<Option<Version>, RollbackError> {
        let answer = self
            .lambda
            .get_function_configuration()
            .function_name(function)
            .qualifier(number.to_string())
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let state = state_of(&answer);
                Ok(Some(published(number, &settings(answer), Some(state))))
            }
            Err(error) => {
                let subject = format!("{function}:{number}");
                let error = AwsError::new("lambda:GetFunctionConfiguration", subject, &error);
                if error.kind == Kind::NotFound {
                    Ok(None)
                } else {
                    Err(RollbackError::Aws(error))
                }
            }
        }
    }

    /// Invokes a version that sleeps once, by number, which fails and wakes it; gives the failure.
    pub async fn wake(
        &self,
        policy: &Rollback,
        (test, version): (&SmokeTest, u64),
        _clearance: Clearance<'_>,
    ) -> Option<RollbackError> {
        let function = format!("{}:{version}", policy.function_arn());
        self.invoke(&function, &test.payload).await.err()
    }

    /// The group's deployment in flight, the latest if there are several.
    async fn deployment(&self, group: &DeploymentGroup) -> Result<Option<String>, RollbackError> {
        let answer = self
            .codedeploy
            .list_deployments()
            .application_name(&group.application)
            .deployment_group_name(&group.group)
            .include_only_statuses(DeploymentStatus::Created)
            .include_only_statuses(DeploymentStatus::Queued)
            .include_only_statuses(DeploymentStatus::InProgress)
            .include_only_statuses(DeploymentStatus::Ready)
            .send()
            .await
            .map_err(|error| {
                let subject = format!("{}/{}", group.application, group.group);
                failed("codedeploy:ListDeployments", subject, &error)
            })?;
        Ok(answer.deployments().first().cloned())
    }

    /// A deployment, and whether it is itself a rollback.
    async fn told(&self, deployment: Option<String>) -> Result<Option<Deployment>, RollbackError> {
        let Some(id) = deployment else {
            return Ok(None);
        };
        let info = self.info(&id).await?;
        let info = info.as_ref();
        let by_itself = info
            .and_then(DeploymentInfo::creator)
            .is_some_and(|creator| {
                matches!(
                    creator,
                    DeploymentCreator::CodeDeployRollback
                        | DeploymentCreator::CloudFormationRollback
                )
            });
        let of_another = info
            .and_then(DeploymentInfo::rollback_info)
            .and_then(RollbackInfo::rollback_triggering_deployment_id)
            .is_some();
        let revision = info.and_then(DeploymentInfo::revision);
        #[allow(deprecated)] // What CloudFormation begins may still be of this form.
        let app_spec = revision.and_then(|revision| {
            let content = revision.app_spec_content().and_then(|spec| spec.content());
            content.or_else(|| revision.string().and_then(|spec| spec.content()))
        });
        Ok(Some(Deployment {
            id,
            rolls_back: by_itself || of_another,
            target: app_spec.and_then(target_version),
        }))
    }

    async fn info(&self, deployment: &str) -> Result<Option<DeploymentInfo>, RollbackError> {
        let answer = self
            .codedeploy
            .get_deployment()
            .deployment_id(deployment)
            .send()
            .await
            .map_err(|error| failed("codedeploy:GetDeployment", deployment, &error))?;
        Ok(answer.deployment_info)
    }

    /// Stops a deployment, which rolls back by its own means; gives how it ended, if it ended otherwise before.
    pub async fn stop(
        &self,
        deployment: &str,
        _clearance: Clearance<'_>,
    ) -> Result<Option<String>, RollbackError> {
        let answer = self
            .codedeploy
            .stop_deployment()
            .deployment_id(deployment)
            .auto_rollback_enabled(true)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(None),
            Err(error)
                if error.as_service_error().is_some_and(
                    StopDeploymentError::is_deployment_already_completed_exception,
                ) =>
            {
                let status = self.info(deployment).await?.and_then(|info| info.status);
                Ok(status
                    .filter(|status| *status != DeploymentStatus::Stopped)
                    .map(|status| status.to_string()))
            }
            Err(error) => Err(failed("codedeploy:StopDeployment", deployment, &error)),
        }
    }

    /// How a deployment ended, if it has, and so has the rollback that it began, if it began one.
    pub async fn ended(&self, deployment: &str) -> Result<Option<String>, RollbackError> {
        let over = |info: &DeploymentInfo| {
            let status = info.status()?;
            let over = [
                DeploymentStatus::Stopped,
                DeploymentStatus::Failed,
                DeploymentStatus::Succeeded,
            ];
            over.contains(status).then(|| status.to_string())
        };
        let info = self.info(deployment).await?;
        let Some(status) = info.as_ref().and_then(over) else {
            return Ok(None);
        };
        let rollback = info
            .as_ref()
            .and_then(DeploymentInfo::rollback_info)
            .and_then(RollbackInfo::rollback_deployment_id);
        if let Some(rollback) = rollback {
            let rollback = self.info(rollback).await?;
            return Ok(rollback.as_ref().and_then(over).map(|_| status));
        }
        Ok(Some(status))
    }

    /// The event sources that invoke the alias.
    async fn mappings(&self, policy: &Rollback) -> Result<Vec<Mapping>, RollbackError> {
        let answer = self
            .lambda
            .list_event_source_mappings()
            .function_name(policy.alias.as_str())
            .send()
            .await
            .map_err(|error| {
                failed(
                    "lambda:ListEventSourceMappings",
                    policy.alias.as_str(),
                    &error,
                )
            })?;
        Ok(answer
            .event_source_mappings()
            .iter()
            .filter_map(Mapping::of)
            .collect())
    }

    /// Who the alias's resource policy lets invoke it: API Gateway, S3, `EventBridge` and the like.
    async fn permitted(&self, policy: &Rollback) -> Result<Vec<String>, RollbackError> {
        let answer = self
            .lambda
            .get_policy()
            .function_name(policy.function_arn())
            .qualifier(policy.name())
            .send()
            .await;
        let document = match answer {
            Ok(answer) => answer.policy,
            Err(error) => {
                let error = AwsError::new("lambda:GetPolicy", policy.alias.as_str(), &error);
                if error.kind != Kind::NotFound {
                    return Err(RollbackError::Aws(error));
                }
                None
            }
        };
        let document: Value = document
            .and_then(|document| serde_json::from_str(&document).ok())
            .unwrap_or_default();
        Ok(document["Statement"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|statement| statement["Principal"]["Service"].as_str())
            .map(str::to_owned)
            .collect())
    }

    async fn stack(&self, policy: &Rollback) -> Result<Option<String>, RollbackError> {
        let function = policy.function_arn();
        let answer = self
            .lambda
            .list_tags()
            .resource(function)
            .send()
            .await
            .map_err(|error| failed("lambda:ListTags", function, &error))?;
        Ok(answer.tags().and_then(|tags| tags.get(STACK_TAG)).cloned())
    }

    /// How it stands with the alias's provisioned concurrency.
    pub async fn allocating(&self, policy: &Rollback) -> Result<Provisioned, RollbackError> {
        let answer = self
            .lambda
            .get_provisioned_concurrency_config()
            .function_name(policy.function_arn())
            .qualifier(policy.name())
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let allocating = ProvisionedConcurrencyStatusEnum::InProgress;
                Ok(if answer.status() == Some(&allocating) {
                    Provisioned::Allocating
                } else {
                    Provisioned::Ready
                })
            }
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_provisioned_concurrency_config_not_found_exception()
                }) =>
            {
                Ok(Provisioned::None)
            }
            Err(error) => Err(failed(
                "lambda:GetProvisionedConcurrencyConfig",
                policy.alias.as_str(),
                &error,
            )),
        }
    }

    /// What was served minute by minute, up to `reach` seconds ago: by the alias, as a whole and by version, and by what
    /// else the policy has counted.
    ///
    /// Lambda counts an alias's invocations under `FunctionName` and `Resource`, and by `ExecutedVersion` besides, by the
    /// minute in which an invocation began (AWS Lambda Developer Guide, "Viewing metrics for Lambda functions" and "Types
    /// of metrics for Lambda functions"). API Gateway counts a REST API's requests as `Count` and its server errors as
    /// `5XXError`, under `ApiName` and, with it, `Stage` (Amazon API Gateway Developer Guide, "Amazon API Gateway
    /// dimensions and metrics"). A mapping with `EventCount` metrics counts under `EventSourceMappingUUID` the events with
    /// which it invoked the function as `InvokedEventCount`, and as `FailedInvokeEventCount` those that failed or are among
    /// the `BatchItemFailures`, by the minute in which the invocation ended ("Types of metrics for Lambda functions"). `Duration`
    /// is how long the function's code took, in milliseconds.
    async fn served(
        &self,
        policy: &Rollback,
        (alias, sources): (&Alias, &[&Mapping]),
        (reach, now): (u32, DateTime<Utc>),
    ) -> Result<Served, RollbackError> {
        let reach = TimeDelta::seconds(i64::from(reach.min(LONGEST_REACH))) + BEFORE;
        let counts = counts(policy, alias, sources);
        let mut request = metric_data::of_window(&self.cloudwatch, reach, now);
        for (number, count) in counts.iter().enumerate() {
            for (which, metric) in count.queries() {
                let dimensions: Vec<_> = count
                    .dimensions
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                let id = format!("{which}_{number}");
                let query = metric_data::sums(&id, count.namespace, metric, &dimensions);
                request = request.metric_data_queries(query);
            }
        }
        let answer = request
            .send()
            .await
            .map_err(|error| failed("cloudwatch:GetMetricData", policy.alias.as_str(), &error))?;
        // Of some of the figures no rate can be made.
        if metric_data::missing(&answer).is_some() {
            return Err(RollbackError::Partial {
                alias: policy.alias.to_string(),
            });
        }
        let mut served = Served::default();
        for (number, count) in counts.into_iter().enumerate() {
            let all = by_minute(&answer, &format!("all_{number}"));
            let bad = by_minute(&answer, &format!("bad_{number}"));
            let minutes = minutes(&all, &bad, count.what == Counted::Throttled);
            match count.what {
                Counted::Alias => served.alias = minutes,
                Counted::Version(version) => {
                    served.by_version.insert(version, minutes);
                }
                Counted::Throttled => served.throttled = minutes,
                Counted::Durations(None) => served.durations = all,
                Counted::Durations(Some(version)) => {
                    served.durations_by_version.insert(version, all);
                }
                Counted::EventSource(source) => {
                    served.event_sources.insert(source, minutes);
                }
                Counted::Api => served.api = minutes,
                Counted::Peer(peer) => {
                    served.peers.insert(peer, minutes);
                }
            }
        }
        Ok(served)
    }

    /// Points the alias from a version, or off the weights beside it, to one version alone, under the revision that was
    /// observed.
    pub async fn point(
        &self,
        policy: &Rollback,
        (from, version): (Option<u64>, u64),
        revision_id: &str,
        _clearance: Clearance<'_>,
    ) -> Result<Moved, RollbackError> {
        let Err(error) = self.put(policy, (version, None), revision_id).await else {
            return Ok(Moved::There);
        };
        // One that was at the version before has not been moved while a weight is left.
        self.looked_up(policy, error, |alias| {
            from.map_or(alias.points_alone_to(version), |from| {
                alias.is_leaving(from, version)
            })
        })
        .await
    }

    /// Gives a share of the traffic of one version to another, in percent, under the revision that was observed.
    pub async fn share(
        &self,
        policy: &Rollback,
        (from, to, percent): (u64, u64, u8),
        revision_id: &str,
        _clearance: Clearance<'_>,
    ) -> Result<Moved, RollbackError> {
        let put = self.put(policy, (from, Some((to, percent))), revision_id);
        let Err(error) = put.await else {
            return Ok(Moved::There);
        };
        self.looked_up(policy, error, |alias| alias.gives((from, to), percent))
            .await
    }

    async fn put(
        &self,
        policy: &Rollback,
        (version, share): (u64, Option<(u64, u8)>),
        revision_id: &str,
    ) -> Result<(), Unput> {
        let weights = share.map(|(to, percent)| (to.to_string(), f64::from(percent) / 100.0));
        // Leaving the routing configuration out would leave the weights as they are.
        let weights = AliasRoutingConfiguration::builder()
            .set_additional_version_weights(Some(weights.into_iter().collect()))
            .build();
        let answer = self
            .lambda
            .update_alias()
            .function_name(policy.function_arn())
            .name(policy.name())
            .function_version(version.to_string())
            .routing_config(weights)
            .revision_id(revision_id)
            .send()
            .await;
        answer.map(drop).map_err(|error| {
            let overtaken = error
                .as_service_error()
                .is_some_and(UpdateAliasError::is_precondition_failed_exception);
            let error = AwsError::new("lambda:UpdateAlias", policy.alias.as_str(), &error);
            Unput { error, overtaken }
        })
    }

    /// An answer that was lost, or an earlier attempt of this run, may have put the alias as it should be.
    async fn looked_up(
        &self,
        policy: &Rollback,
        Unput { error, overtaken }: Unput,
        is_there: impl Fn(&Alias) -> bool,
    ) -> Result<Moved, RollbackError> {
        if !error.is_conflict() && !error.may_have_taken_effect() {
            return Err(RollbackError::Aws(error));
        }
        let alias = self.alias(policy.function_arn(), policy.name()).await?;
        if is_there(&alias) {
            Ok(Moved::There)
        } else if overtaken {
            Ok(Moved::Overtaken)
        } else {
            Err(RollbackError::Aws(error))
        }
    }

    /// Invokes the function under this qualified ARN once, never again by itself; gives what is wrong with the answer,
    /// if something is: a function error, a proxy answer whose status the policy takes for a failure, or the answer of
    /// another version than the one meant.
    ///
    /// `ExecutedVersion` names the version that ran, where an alias was invoked (AWS Lambda API Reference, "Invoke"). A
    /// function behind an API tells its failure by `statusCode` (Amazon API Gateway Developer Guide, "Output format of a
    /// Lambda function for proxy integration").
    pub async fn smoke_test(
        &self,
        function: &str,
        (test, version): (&SmokeTest, u64),
        _clearance: Clearance<'_>,
    ) -> Result<Option<String>, RollbackError> {
        let answer = self.invoke(function, &test.payload).await?;
        let payload = answer
            .payload()
            .map(|payload| String::from_utf8_lossy(payload.as_ref()).into_owned())
            .unwrap_or_default();
        let verdict = Answer {
            function_error: answer.function_error(),
            executed_version: answer.executed_version(),
            payload: &payload,
        };
        Ok(verdict.problem(test, version))
    }

    /// Invokes the function under this qualified ARN once, never again by itself.
    async fn invoke(
        &self,
        function: &str,
        payload: &Value,
    ) -> Result<aws_sdk_lambda::operation::invoke::InvokeOutput, RollbackError> {
        self.lambda
            .invoke()
            .function_name(function)
            .payload(Blob::new(payload.to_string()))
            .customize()
            .config_override(
                aws_sdk_lambda::config::Builder::new().retry_config(RetryConfig::disabled()),
            )
            .send()
            .await
            .map_err(|error| failed("lambda:InvokeFunction", function, &error))
    }
}

fn failed<E>(
    operation: &'static str,
    subject: impl Into<String>,
    error: &aws_sdk_lambda::error::SdkError<E, aws_sdk_lambda::config::http::HttpResponse>,
) -> RollbackError
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + 'static,
{
    RollbackError::Aws(AwsError::new(operation, subject, error))
}

/// What is known of a published version.
fn published(number: u64, version: &FunctionConfiguration, state: Option<State>) -> Version {
    let published_at = version
        .last_modified()
        .and_then(|at| DateTime::parse_from_str(at, "%Y-%m-%dT%H:%M:%S%.f%z").ok())
        .map(|at| at.with_timezone(&Utc));
    Version {
        number,
        code_sha256: version.code_sha256().unwrap_or_default().to_owned(),
        configuration: configuration(version),
        in_common: in_common(version),
        published_at,
        state,
    }
}

/// The same settings as a list of versions has them, so that one digest serves for both.
fn settings(answer: GetFunctionConfigurationOutput) -> FunctionConfiguration {
    FunctionConfiguration::builder()
        .set_config_sha256(answer.config_sha256)
        .set_code_sha256(answer.code_sha256)
        .set_last_modified(answer.last_modified)
        .set_environment(answer.environment)
        .set_layers(answer.layers)
        .set_runtime(answer.runtime)
        .set_handler(answer.handler)
        .set_role(answer.role)
        .set_timeout(answer.timeout)
        .set_memory_size(answer.memory_size)
        .set_vpc_config(answer.vpc_config)
        .set_file_system_configs(answer.file_system_configs)
        .set_architectures(answer.architectures)
        .set_ephemeral_storage(answer.ephemeral_storage)
        .set_dead_letter_config(answer.dead_letter_config)
        .set_image_config_response(answer.image_config_response)
        .build()
}

/// What a version's state says. One that is inactive for another reason than idleness was woken in vain: where its
/// resources cannot be made anew, it goes back to that state (AWS Lambda Developer Guide, "Lambda function states").
fn state_of(answer: &GetFunctionConfigurationOutput) -> State {
    let code = answer.state_reason_code();
    match answer.state() {
        Some(LambdaState::Active) => State::Active,
        Some(LambdaState::Pending) => State::Pending,
        Some(LambdaState::Inactive) if matches!(code, None | Some(StateReasonCode::Idle)) => {
            State::Asleep
        }
        Some(LambdaState::Inactive) if code == Some(&StateReasonCode::Restoring) => State::Pending,
        other => {
            let state = other.map_or("in no state that Lambda tells", LambdaState::as_str);
            let code = code.map(|code| format!(" ({})", code.as_str()));
            let reason = answer.state_reason().map(|reason| format!(": {reason}"));
            let reason = [code, reason].into_iter().flatten().collect::<String>();
            State::Unable {
                reason: format!("{state}{reason}"),
            }
        }
    }
}

/// A digest of the role and the dead-letter queue.
fn in_common(version: &FunctionConfiguration) -> String {
    let queue = version.dead_letter_config();
    let queue = queue.and_then(DeadLetterConfig::target_arn);
    let settings = [version.role(), queue].map(Option::unwrap_or_default);
    shared::ids::digest(&settings, 16)
}

/// A digest of what is published with a version besides its code: Lambda's own where it gives one.
fn configuration(version: &FunctionConfiguration) -> String {
    if let Some(digest) = version.config_sha256() {
        return digest.to_owned();
    }
    let variables = version
        .environment()
        .and_then(|environment| environment.variables());
    let variables: BTreeMap<_, _> = variables.into_iter().flatten().collect();
    let layers: Vec<_> = version.layers().iter().map(Layer::arn).collect();
    let settings = [
        format!(
            "{:?} {:?} {:?}",
            version.runtime(),
            version.handler(),
            version.role()
        ),
        format!("{:?} {:?}", version.timeout(), version.memory_size()),
        format!("{variables:?} {layers:?}"),
        format!(
            "{:?} {:?}",
            version.vpc_config(),
            version.file_system_configs()
        ),
        format!(
            "{:?} {:?}",
            version.architectures(),
            version.ephemeral_storage()
        ),
        format!(
            "{:?} {:?}",
            version.dead_letter_config(),
            version.image_config_response()
        ),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    shared::ids::digest(&settings, 16)
}

/// What is counted, as `CloudWatch` has it.
struct Count {
    what: Counted,
    namespace: &'static str,
    all: &'static str,
    /// What of it was bad, where that is counted.
    bad: Option<&'static str>,
    dimensions: Vec<(&'static str, String)>,
}

impl Count {
    /// How long it took what was invoked.
    fn duration(&self) -> Self {
        let version = match self.what {
            Counted::Version(version) => Some(version),
            _ => None,
        };
        Self {
            what: Counted::Durations(version),
            namespace: self.namespace,
            all: "Duration",
            bad: None,
            dimensions: self.dimensions.clone(),
        }
    }

    /// The figures that it takes, by the beginning of their queries' ids.
    fn queries(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let bad = self.bad.map(|bad| ("bad", bad));
        [("all", self.all)].into_iter().chain(bad)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Counted {
    Alias,
    Version(u64),
    Throttled,
    /// Of the alias, or of a version of it.
    Durations(Option<u64>),
    EventSource(String),
    Api,
    Peer(String),
}

/// An event source mapping that invokes the alias.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    /// The source's ARN; the mapping's own id where it has none.
    source: String,
    uuid: String,
    counts_events: bool,
    is_on: bool,
}

impl Mapping {
    fn of(mapping: &EventSourceMappingConfiguration) -> Option<Self> {
        let uuid = mapping.uuid()?.to_owned();
        let metrics = mapping
            .metrics_config()
            .map(EventSourceMappingMetricsConfig::metrics);
        let off = |state: &str| state.starts_with("Disabl") || state == "Deleting";
        Some(Self {
            source: mapping.event_source_arn().unwrap_or(&uuid).to_owned(),
            counts_events: metrics
                .is_some_and(|metrics| metrics.contains(&EventSourceMappingMetric::EventCount)),
            is_on: !mapping.state().is_some_and(off),
            uuid,
        })
    }
}

/// The mappings whose events are counted, where the policy wants that, and the sources of the others.
fn counted_sources<'a>(
    policy: &Rollback,
    mappings: &'a [Mapping],
) -> (Vec<&'a Mapping>, Vec<String>) {
    if !policy.blame.event_sources {
        return (Vec::new(), Vec::new());
    }
    let on = mappings.iter().filter(|mapping| mapping.is_on);
    let (mut counted, others): (Vec<_>, Vec<_>) = on.partition(|mapping| mapping.counts_events);
    counted.sort_by(|one, other| one.source.cmp(&other.source));
    let too_many = counted.split_off(counted.len().min(MOST_EVENT_SOURCES));
    let no_metrics = others
        .into_iter()
        .map(|mapping| format!("{} has no EventCount metrics", mapping.source));
    let too_many = too_many.into_iter().map(|mapping| {
        format!(
            "{} is beyond the first {MOST_EVENT_SOURCES} of them",
            mapping.source
        )
    });
    (counted, no_metrics.chain(too_many).collect())
}

fn counts(policy: &Rollback, alias: &Alias, sources: &[&Mapping]) -> Vec<Count> {
    let of_function = |what, bad, dimensions| Count {
        what,
        namespace: "AWS/Lambda",
        all: "Invocations",
        bad: Some(bad),
        dimensions,
    };
    let of_alias = vec![
        ("FunctionName", policy.function().to_owned()),
        (
            "Resource",
            format!("{}:{}", policy.function(), policy.name()),
        ),
    ];
    let mut counts = vec![of_function(Counted::Alias, "Errors", of_alias.clone())];
    for version in [alias.version].iter().chain(alias.weights.keys()) {
        let executed = ("ExecutedVersion", version.to_string());
        let dimensions = of_alias.iter().cloned().chain([executed]).collect();
        counts.push(of_function(
            Counted::Version(*version),
            "Errors",
            dimensions,
        ));
    }
    if policy.blame.duration.is_some() {
        let durations = counts.iter().map(Count::duration);
        let durations: Vec<_> = durations.collect();
        counts.extend(durations);
    }
    if policy.blame.throttles {
        counts.push(of_function(Counted::Throttled, "Throttles", of_alias));
    }
    counts.extend(sources.iter().map(|mapping| Count {
        what: Counted::EventSource(mapping.source.clone()),
        namespace: "AWS/Lambda",
        all: "InvokedEventCount",
        bad: Some("FailedInvokeEventCount"),
        dimensions: vec![("EventSourceMappingUUID", mapping.uuid.clone())],
    }));
    for peer in &policy.blame.peers {
        let (name, qualifier) = name_and_qualifier(peer);
        let mut dimensions = vec![("FunctionName", name.to_owned())];
        if !qualifier.is_empty() {
            dimensions.push(("Resource", format!("{name}:{qualifier}")));
        }
        counts.push(of_function(
            Counted::Peer(peer.to_string()),
            "Errors",
            dimensions,
        ));
    }
    counts.extend(policy.blame.api.as_ref().map(|api| {
        let stage = api.stage.iter().map(|stage| ("Stage", stage.clone()));
        Count {
            what: Counted::Api,
            namespace: "AWS/ApiGateway",
            all: "Count",
            bad: Some("5XXError"),
            dimensions: [("ApiName", api.name.clone())]
                .into_iter()
                .chain(stage)
                .collect(),
        }
    }));
    counts
}

/// A query's figures by minute.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts.
fn by_minute(answer: &GetMetricDataOutput, id: &str) -> BTreeMap<DateTime<Utc>, u64> {
    let results = answer.metric_data_results().iter();
    let values = metric_data::values(results.filter(|result| result.id() == Some(id)));
    let counts = values.into_iter();
    counts
        .map(|(at, value)| (at, value.round() as u64))
        .collect()
}

/// What was served, of which how much failed. What was throttled is not among the invocations (AWS Lambda Developer
/// Guide, "Types of metrics for Lambda functions").
fn minutes(
    all: &BTreeMap<DateTime<Utc>, u64>,
    bad: &BTreeMap<DateTime<Utc>, u64>,
    besides: bool,
) -> Minutes {
    let keys: BTreeSet<_> = all.keys().chain(bad.keys()).collect();
    let minutes = keys.into_iter().map(|at| {
        let errors = bad.get(at).copied().unwrap_or_default();
        let all = all.get(at).copied().unwrap_or_default();
        // What could not be invoked at all may be counted as failed only.
        let invocations = if besides {
            all + errors
        } else {
            all.max(errors)
        };
        (
            *at,
            Traffic {
                invocations,
                errors,
            },
        )
    });
    minutes.collect()
}

/// What the alias served in the window, as a whole and by version.
fn in_window(
    policy: &Rollback,
    served: &Served,
    now: DateTime<Utc>,
) -> (Traffic, BTreeMap<u64, Traffic>) {
    let window = TimeDelta::seconds(i64::from(policy.blame.window_seconds.get()));
    // The minute that holds its beginning counts as a whole, as CloudWatch has it.
    let from = minute_of(now - window);
    let sum = |minutes: &Minutes| minutes.range(from..).map(|(_, traffic)| *traffic).sum();
    let by_version = served.by_version.iter();
    let by_version = by_version.map(|(version, minutes)| (*version, sum(minutes)));
    (sum(&served.alias), by_version.collect())
}

/// What an invocation gave.
struct Answer<'a> {
    function_error: Option<&'a str>,
    executed_version: Option<&'a str>,
    payload: &'a str,
}

impl Answer<'_> {
    fn problem(&self, test: &SmokeTest, version: u64) -> Option<String> {
        let told: String = self.payload.chars().take(300).collect();
        if let Some(error) = self.function_error {
            return Some(format!("{error}: {told}"));
        }
        let executed = self.executed_version.and_then(|v| v.parse::<u64>().ok());
        if let Some(other) = executed.filter(|executed| *executed != version) {
            return Some(format!(
                "version {other} answered, and not version {version}: {told}"
            ));
        }
        let answer: Value = serde_json::from_str(self.payload).unwrap_or_default();
        let status = answer["statusCode"].as_u64()?;
        (status >= u64::from(test.fails_from_status))
            .then(|| format!("it answers with status {status}: {told}"))
    }
}

/// The version that a deployment brings, from its `AppSpec`, which is JSON or YAML (AWS `CodeDeploy` User Guide, "`AppSpec`
/// 'resources' section (AWS Lambda deployments)").
fn target_version(app_spec: &str) -> Option<u64> {
    let found = app_spec.to_ascii_lowercase();
    let (_, rest) = found.split_once("targetversion")?;
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "\"':".contains(c));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_lambda::types::{EnvironmentResponse, Runtime};
    use serde_json::json;
    use shared::policy::Action as _;

    fn test() -> SmokeTest {
        serde_json::from_value(json!({"payload": {}})).unwrap()
    }

    fn answer<'a>(version: Option<&'a str>, payload: &'a str) -> Answer<'a> {
        Answer {
            function_error: None,
            executed_version: version,
            payload,
        }
    }

    /// A version of the same code is another where anything that is published with it is.
    #[test]
    fn a_configuration_is_another_where_anything_published_with_the_code_is() {
        let version = || {
            let variables = EnvironmentResponse::builder().variables("TABLE", "orders");
            FunctionConfiguration::builder()
                .code_sha256("the same")
                .description("told apart by nothing")
                .timeout(30)
                .memory_size(256)
                .handler("handler.handle")
                .runtime(Runtime::Python312)
                .environment(variables.variables("LEVEL", "info").build())
                .layers(Layer::builder().arn("arn:of:layer:1").build())
        };
        let one = configuration(&version().build());
        let same = version().version("7").revision_id("other").build();
        assert_eq!(configuration(&same), one);
        let variable = EnvironmentResponse::builder().variables("TABLE", "missing");
        let others = [
            version().environment(variable.build()).build(),
            version()
                .layers(Layer::builder().arn("arn:of:layer:2").build())
                .build(),
            version().memory_size(128).build(),
            version().timeout(3).build(),
            version().handler("other.handle").build(),
            version().runtime(Runtime::Python313).build(),
            version().role("another").build(),
        ];
        let all: BTreeSet<String> = others.iter().map(configuration).collect();
        assert_eq!((all.len(), all.contains(&one)), (others.len(), false));
        // Lambda's own digest says it all, where it gives one.
        let told = |digest: &str| configuration(&version().config_sha256(digest).build());
        assert_ne!(told("a"), told("b"));
    }

    #[test]
    fn a_server_error_in_a_good_answer_fails_the_smoke_test() {
        let failing = answer(Some("3"), r#"{"statusCode": 502, "body": "no database"}"#);
        let problem = failing.problem(&test(), 3).unwrap();
        assert!(problem.contains("status 502") && problem.contains("no database"));
        let refused = answer(Some("3"), r#"{"statusCode": 403}"#);
        assert_eq!(refused.problem(&test(), 3), None);
        let strict = SmokeTest {
            fails_from_status: 400,
            ..test()
        };
        assert!(refused.problem(&strict, 3).is_some());
        for fine in ["null", "", "[1]", r#"{"statusCode": "teapot"}"#, "\"done\""] {
            assert_eq!(answer(None, fine).problem(&test(), 3), None, "{fine}");
        }
    }

    fn state(state: LambdaState, code: Option<StateReasonCode>) -> State {
        let answer = GetFunctionConfigurationOutput::builder()
            .state(state)
            .set_state_reason_code(code)
            .state_reason("told");
        state_of(&answer.build())
    }

    #[test]
    fn an_idle_version_sleeps_and_one_that_was_woken_in_vain_is_unable() {
        assert_eq!(state(LambdaState::Active, None), State::Active);
        let idle = Some(StateReasonCode::Idle);
        assert_eq!(state(LambdaState::Inactive, idle), State::Asleep);
        let creating = Some(StateReasonCode::Creating);
        assert_eq!(state(LambdaState::Pending, creating), State::Pending);
        for (given, code, reason) in [
            (
                LambdaState::Inactive,
                StateReasonCode::SubnetOutOfIpAddresses,
                "Inactive (SubnetOutOfIPAddresses): told",
            ),
            (
                LambdaState::Failed,
                StateReasonCode::InternalError,
                "Failed (InternalError): told",
            ),
        ] {
            let reason = reason.to_owned();
            assert_eq!(state(given, Some(code)), State::Unable { reason });
        }
    }

    #[test]
    fn the_answer_of_another_version_proves_nothing() {
        let other = answer(Some("4"), r#"{"statusCode": 200}"#);
        let problem = other.problem(&test(), 3).unwrap();
        assert!(problem.contains("version 4 answered, and not version 3"));
    }

    #[test]
    fn the_version_that_a_deployment_brings_is_read_in_either_form() {
        let json =
            r#"{"Resources":[{"f":{"Properties":{"CurrentVersion":"6","TargetVersion":"7"}}}]}"#;
        assert_eq!(target_version(json), Some(7));
        let yaml = "properties:\n  currentversion: 6\n  targetversion: 7\n";
        assert_eq!(target_version(yaml), Some(7));
        assert_eq!(target_version("hooks: []"), None);
    }

    #[test]
    fn throttled_attempts_are_none_of_the_invocations() {
        let at = DateTime::UNIX_EPOCH;
        let (all, bad) = (BTreeMap::from([(at, 10)]), BTreeMap::from([(at, 5)]));
        assert_eq!(minutes(&all, &bad, true)[&at].invocations, 15);
        assert_eq!(minutes(&all, &bad, false)[&at].invocations, 10);
    }

    fn mapping(source: &str, counts_events: bool, state: &str) -> Mapping {
        let metrics = EventSourceMappingMetricsConfig::builder()
            .set_metrics(counts_events.then(|| vec![EventSourceMappingMetric::EventCount]));
        let mapping = EventSourceMappingConfiguration::builder()
            .uuid(format!("id-{source}"))
            .event_source_arn(source)
            .metrics_config(metrics.build())
            .state(state);
        Mapping::of(&mapping.build()).unwrap()
    }

    #[test]
    fn event_sources_are_counted_where_they_can_be_and_the_others_are_named() {
        let mut mappings: Vec<_> = ["g", "f", "e", "d", "c", "b"]
            .map(|source| mapping(source, true, "Enabled"))
            .into();
        mappings.push(mapping("silent", false, "Enabled"));
        mappings.push(mapping("off", false, "Disabled"));
        let alias = "arn:aws:lambda:eu-west-1:123456789012:function:orders:live";
        let policy = |on: bool| -> Rollback {
            serde_json::from_value(json!({"alias": alias, "blame": {"event_sources": on}})).unwrap()
        };
        assert_eq!(counted_sources(&policy(false), &mappings), (vec![], vec![]));
        let (counted, uncounted) = counted_sources(&policy(true), &mappings);
        let sources: Vec<_> = counted
            .iter()
            .map(|mapping| mapping.source.as_str())
            .collect();
        assert_eq!(sources, ["b", "c", "d", "e", "f"]);
        assert_eq!(
            uncounted,
            [
                "silent has no EventCount metrics",
                "g is beyond the first 5 of them"
            ]
        );
    }

    #[test]
    fn all_figures_that_a_policy_can_ask_for_fit_into_one_answer() {
        let function = "arn:aws:lambda:eu-west-1:123456789012:function";
        let peers: Vec<_> = (0..20).map(|peer| format!("{function}:f{peer}")).collect();
        let policy: Rollback = serde_json::from_value(json!({
            "alias": format!("{function}:orders:live"),
            "blame": {
                "peers": peers,
                "throttles": true,
                "duration": {"times": 2},
                "event_sources": true,
                "api": {"name": "orders-api"},
            },
        }))
        .unwrap();
        policy.check().unwrap();
        let mappings: Vec<_> = (0..9)
            .map(|number| mapping(&number.to_string(), true, "Enabled"))
            .collect();
        let (sources, _) = counted_sources(&policy, &mappings);
        let alias = Alias {
            version: 1,
            weights: BTreeMap::from([(2, 0.1)]),
            revision_id: String::new(),
        };
        let reach = usize::try_from(LONGEST_REACH / 60 + 60).unwrap();
        let counts = counts(&policy, &alias, &sources);
        let figures = counts.iter().flat_map(Count::queries).count();
        assert!(figures * reach <= 100_800, "{figures} figures");
    }
}
