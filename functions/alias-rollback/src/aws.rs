//! The calls that a rollback makes: to Lambda, `CloudWatch` and, where the policy names a group, `CodeDeploy`.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_cloudwatch::types::MetricDataQuery;
use aws_sdk_codedeploy::operation::stop_deployment::StopDeploymentError;
use aws_sdk_codedeploy::types::{
    DeploymentCreator, DeploymentInfo, DeploymentStatus, RollbackInfo,
};
use aws_sdk_lambda::operation::update_alias::UpdateAliasError;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    AliasRoutingConfiguration, FunctionConfiguration, Layer, ProvisionedConcurrencyStatusEnum,
    State,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use shared::aws_error::{AwsError, Kind};
use shared::metric_data;
use shared::remediation::Clearance;

use crate::error::RollbackError;
use crate::observed::{Alias, Deployment, Observed, Traffic, Version};
use crate::policy::{DeploymentGroup, Rollback};

/// Pages of versions read at most; 50 versions each.
const PAGES: usize = 20;
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

/// How it stands with provisioned concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioned {
    /// There is none.
    None,
    /// It is there.
    Ready,
    /// It is being allocated.
    Allocating,
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
        now: DateTime<Utc>,
    ) -> Result<Observed, RollbackError> {
        let function = policy.function_arn();
        let deployment = async {
            match &policy.codedeploy {
                Some(group) => self.deployment(group).await,
                None => Ok(None),
            }
        };
        let (alias, (versions, more_versions), deployment, mappings, permitted, stack, allocating) =
            tokio::try_join!(
                self.alias(function, policy.name()),
                self.versions(function),
                deployment,
                self.mappings(policy),
                self.permitted(policy),
                self.stack(policy),
                self.allocating(policy),
            )?;
        let ((total, by_version), deployment) =
            tokio::try_join!(self.traffic(policy, &alias, now), self.told(deployment))?;
        Ok(Observed {
            alias,
            versions,
            more_versions,
            by_version,
            total,
            deployment,
            allocating: allocating == Provisioned::Allocating,
            used_by: mappings.into_iter().chain(permitted).collect(),
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
                let published_at = version
                    .last_modified()
                    .and_then(|at| DateTime::parse_from_str(at, "%Y-%m-%dT%H:%M:%S%.f%z").ok())
                    .map(|at| at.with_timezone(&Utc));
                let version = Version {
                    number,
                    code_sha256: version.code_sha256().unwrap_or_default().to_owned(),
                    configuration: configuration(version),
                    published_at,
                    active: version.state().map(|state| *state == State::Active),
                };
                found.insert(number, version);
            }
            marker = answer.next_marker().map(str::to_owned);
            if marker.is_none() {
                return Ok((found, false));
            }
        }
        Ok((found, true))
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
        Ok(Some(Deployment {
            id,
            rolls_back: by_itself || of_another,
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

    /// The event sources that invoke the alias.
    async fn mappings(&self, policy: &Rollback) -> Result<Vec<String>, RollbackError> {
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
            .filter_map(|mapping| mapping.event_source_arn().or(mapping.uuid()))
            .map(str::to_owned)
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

    /// What the alias served in the window, as a whole and by version.
    ///
    /// Lambda counts an alias's invocations under `FunctionName` and `Resource`, and by `ExecutedVersion` besides
    /// (AWS Lambda Developer Guide, "Types of metrics for Lambda functions").
    async fn traffic(
        &self,
        policy: &Rollback,
        alias: &Alias,
        now: DateTime<Utc>,
    ) -> Result<(Traffic, BTreeMap<u64, Traffic>), RollbackError> {
        let window = TimeDelta::seconds(i64::from(policy.blame.window_seconds.get()));
        let resource = format!("{}:{}", policy.function(), policy.name());
        let versions: Vec<Option<u64>> = [None, Some(alias.version)]
            .into_iter()
            .chain(alias.weights.keys().copied().map(Some))
            .collect();
        let mut request = metric_data::of_window(&self.cloudwatch, window, now);
        for version in &versions {
            for metric in ["Invocations", "Errors"] {
                let id = id(metric, *version);
                request = request.metric_data_queries(query(
                    &id,
                    metric,
                    policy.function(),
                    &resource,
                    *version,
                ));
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
        let sum = |metric: &str, version| metric_data::sum(&answer, &id(metric, version));
        let served = |version| Traffic {
            invocations: sum("Invocations", version),
            errors: sum("Errors", version),
        };
        let by_version = versions
            .iter()
            .flatten()
            .map(|version| (*version, served(Some(*version))))
            .collect();
        Ok((served(None), by_version))
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
        // Leaving the routing configuration out would leave the weights as they are.
        let no_weights = AliasRoutingConfiguration::builder()
            .set_additional_version_weights(Some(std::collections::HashMap::new()))
            .build();
        let answer = self
            .lambda
            .update_alias()
            .function_name(policy.function_arn())
            .name(policy.name())
            .function_version(version.to_string())
            .routing_config(no_weights)
            .revision_id(revision_id)
            .send()
            .await;
        let Err(error) = answer else {
            return Ok(Moved::There);
        };
        let changed = error
            .as_service_error()
            .is_some_and(UpdateAliasError::is_precondition_failed_exception);
        let error = AwsError::new("lambda:UpdateAlias", policy.alias.as_str(), &error);
        if !error.is_conflict() && !error.may_have_taken_effect() {
            return Err(RollbackError::Aws(error));
        }
        // An answer that was lost, or an earlier attempt of this run, may have moved it already.
        let alias = self.alias(policy.function_arn(), policy.name()).await?;
        // One that was at the version before has not been moved while a weight is left.
        if from.map_or(alias.points_alone_to(version), |from| {
            alias.is_leaving(from, version)
        }) {
            Ok(Moved::There)
        } else if changed {
            Ok(Moved::Overtaken)
        } else {
            Err(RollbackError::Aws(error))
        }
    }

    /// Invokes the function under this qualified ARN once, never again by itself; gives the function's error, if it
    /// answers with one.
    pub async fn smoke_test(
        &self,
        function: &str,
        payload: &Value,
        _clearance: Clearance<'_>,
    ) -> Result<Option<String>, RollbackError> {
        let answer = self
            .lambda
            .invoke()
            .function_name(function)
            .payload(Blob::new(payload.to_string()))
            .customize()
            .config_override(
                aws_sdk_lambda::config::Builder::new().retry_config(RetryConfig::disabled()),
            )
            .send()
            .await
            .map_err(|error| failed("lambda:InvokeFunction", function, &error))?;
        Ok(answer.function_error().map(|error| {
            let told = answer
                .payload()
                .map(|payload| String::from_utf8_lossy(payload.as_ref()).into_owned())
                .unwrap_or_default();
            format!("{error}: {}", told.chars().take(300).collect::<String>())
        }))
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

fn id(metric: &str, version: Option<u64>) -> String {
    let metric = metric.to_lowercase();
    match version {
        Some(version) => format!("{metric}_{version}"),
        None => metric,
    }
}

fn query(
    id: &str,
    metric: &str,
    function: &str,
    resource: &str,
    version: Option<u64>,
) -> MetricDataQuery {
    let version = version.map(|version| version.to_string());
    let mut dimensions = vec![("FunctionName", function), ("Resource", resource)];
    dimensions.extend(
        version
            .as_deref()
            .map(|version| ("ExecutedVersion", version)),
    );
    metric_data::sums(id, "AWS/Lambda", metric, &dimensions)
}
