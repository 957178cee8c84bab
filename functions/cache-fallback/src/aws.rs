//! The calls that a fallback to caching makes: to API Gateway and `CloudWatch`.

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_apigateway::types::{
    CacheClusterStatus, MethodSetting, Op as SdkOp, PatchOperation, Resource,
    UnauthorizedCacheControlHeaderStrategy as Strategy,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use chrono::{DateTime, TimeDelta, Utc};
use shared::aws_error::AwsError;
use shared::metric_data;
use shared::remediation::Clearance;

use crate::error::CacheError;
use crate::export::{self, Namespaces};
use crate::method::described;
use crate::plan::{
    ApiMethod, Caching, Observed, Op, Others, Patch, Served, Setting, Stage, Status, key,
};
use crate::policy::Cache;

/// Pages of resources read at most; 500 resources each.
const PAGES: usize = 20;
const PAGE: i32 = 500;
/// The clients.
#[derive(Debug)]
pub struct Aws {
    apigateway: aws_sdk_apigateway::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
}

impl Aws {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            apigateway: aws_sdk_apigateway::Client::new(config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
        }
    }

    /// Reads the stage and all around it at once, then what it served.
    pub async fn observe(
        &self,
        policy: &Cache,
        now: DateTime<Utc>,
    ) -> Result<Observed, CacheError> {
        let (stage, methods, name) = tokio::try_join!(
            self.stage(policy.rest_api(), policy.name()),
            self.methods(policy),
            self.api_name(policy),
        )?;
        let served = self.served(policy, &name, now).await?;
        Ok(Observed {
            stage,
            methods,
            requests: served.requests,
            server_errors: served.server_errors,
        })
    }

    /// Reads the stage, and what it served.
    pub async fn fares(
        &self,
        policy: &Cache,
        now: DateTime<Utc>,
    ) -> Result<(Stage, Served), CacheError> {
        let (stage, name) = tokio::try_join!(
            self.stage(policy.rest_api(), policy.name()),
            self.api_name(policy),
        )?;
        Ok((stage, self.served(policy, &name, now).await?))
    }

    /// Reads a stage.
    pub async fn stage(&self, rest_api: &str, stage: &str) -> Result<Stage, CacheError> {
        let answer = self
            .apigateway
            .get_stage()
            .rest_api_id(rest_api)
            .stage_name(stage)
            .send()
            .await
            .map_err(|error| {
                failed(
                    "apigateway:GET",
                    format!("stage {rest_api}/{stage}"),
                    &error,
                )
            })?;
        let status = status(answer.cache_cluster_status());
        let settings = answer.method_settings().into_iter().flatten();
        // One that is being taken away is as good as gone.
        let is_on = answer.cache_cluster_enabled() && status != Status::Deleting;
        Ok(Stage {
            canary: answer.canary_settings().is_some(),
            cluster: is_on.then(|| {
                answer
                    .cache_cluster_size()
                    .map(|size| size.as_str().to_owned())
                    .unwrap_or_default()
            }),
            status,
            settings: settings
                .map(|(key, setting)| (normal(key), read(setting)))
                .collect(),
        })
    }

    async fn api_name(&self, policy: &Cache) -> Result<String, CacheError> {
        let answer = self
            .apigateway
            .get_rest_api()
            .rest_api_id(policy.rest_api())
            .send()
            .await
            .map_err(|error| {
                let subject = format!("REST API {}", policy.rest_api());
                failed("apigateway:GET", subject, &error)
            })?;
        Ok(answer.name().unwrap_or_default().to_owned())
    }

    /// The methods as the stage serves them.
    async fn methods(&self, policy: &Cache) -> Result<Vec<ApiMethod>, CacheError> {
        let (export, edited) = tokio::try_join!(self.export(policy), self.edited(policy))?;
        let all = export::declared(&export, &edited).map_err(|problem| CacheError::Export {
            stage: policy.stage.to_string(),
            problem,
        })?;
        let named: BTreeSet<&str> = policy
            .resources
            .iter()
            .map(|cached| cached.path.as_str())
            .collect();
        Ok(described(&all, |path| named.contains(path)))
    }

    /// The deployed API, with integrations and authorizers.
    async fn export(&self, policy: &Cache) -> Result<Vec<u8>, CacheError> {
        let answer = self
            .apigateway
            .get_export()
            .rest_api_id(policy.rest_api())
            .stage_name(policy.name())
            .export_type("oas30")
            .accepts("application/json")
            .parameters("extensions", "integrations,authorizers")
            .send()
            .await
            .map_err(|error| {
                let subject = format!("the export of {}", policy.stage);
                failed("apigateway:GET", subject, &error)
            })?;
        let body = answer.body().map(AsRef::as_ref);
        Ok(body.unwrap_or_default().to_vec())
    }

    /// The cache namespaces of the API as it is edited, which an export may leave out.
    async fn edited(&self, policy: &Cache) -> Result<Namespaces, CacheError> {
        let mut namespaces = Namespaces::new();
        let (mut position, mut read) = (None, 0);
        for _ in 0..PAGES {
            let answer = self
                .apigateway
                .get_resources()
                .rest_api_id(policy.rest_api())
                .embed("methods")
                .limit(PAGE)
                .set_position(position)
                .send()
                .await
                .map_err(|error| {
                    let subject = format!("resources of {}", policy.rest_api());
                    failed("apigateway:GET", subject, &error)
                })?;
            namespaces.extend(answer.items().iter().flat_map(kept_in));
            read += answer.items().len();
            position = answer.position().map(str::to_owned);
            if position.is_none() {
                return Ok(namespaces);
            }
        }
        Err(CacheError::TooManyResources {
            rest_api: policy.rest_api().to_owned(),
            read,
        })
    }

    /// What the stage served in the window.
    ///
    /// API Gateway counts requests, errors and what the cache answered under `ApiName` and `Stage`
    /// (API Gateway Developer Guide, "Amazon API Gateway dimensions and metrics").
    async fn served(
        &self,
        policy: &Cache,
        api_name: &str,
        now: DateTime<Utc>,
    ) -> Result<Served, CacheError> {
        let window = TimeDelta::seconds(i64::from(policy.window_seconds.get()));
        let dimensions = [("ApiName", api_name), ("Stage", policy.name())];
        let query = |id, metric| metric_data::sums(id, "AWS/ApiGateway", metric, &dimensions);
        let answer = metric_data::of_window(&self.cloudwatch, window, now)
            .metric_data_queries(query("requests", "Count"))
            .metric_data_queries(query("errors", "5XXError"))
            .metric_data_queries(query("hits", "CacheHitCount"))
            .metric_data_queries(query("refused", "4XXError"))
            .send()
            .await
            .map_err(|error| failed("cloudwatch:GetMetricData", policy.stage.as_str(), &error))?;
        if let Some(part) = metric_data::missing(&answer) {
            return Err(CacheError::Partial {
                stage: policy.stage.to_string(),
                part,
            });
        }
        let sum = |id| metric_data::sum(&answer, id);
        Ok(Served {
            requests: sum("requests"),
            server_errors: sum("errors"),
            cache_hits: sum("hits"),
            client_errors: sum("refused"),
        })
    }

    /// Changes the stage.
    pub async fn patch(
        &self,
        rest_api: &str,
        stage: &str,
        patches: &[Patch],
        _clearance: Clearance<'_>,
    ) -> Result<(), CacheError> {
        let operations = patches.iter().map(|patch| {
            PatchOperation::builder()
                .op(match patch.op {
                    Op::Replace => SdkOp::Replace,
                    Op::Remove => SdkOp::Remove,
                })
                .path(&patch.path)
                .set_value(patch.value.clone())
                .build()
        });
        self.apigateway
            .update_stage()
            .rest_api_id(rest_api)
            .stage_name(stage)
            .set_patch_operations(Some(operations.collect()))
            .send()
            .await
            .map_err(|error| {
                failed(
                    "apigateway:PATCH",
                    format!("stage {rest_api}/{stage}"),
                    &error,
                )
            })?;
        Ok(())
    }
}

/// Where a resource's methods keep their answers: in the resource's own place where none is named (API Gateway API
/// Reference, "Integration", `cacheNamespace`).
fn kept_in(resource: &Resource) -> Vec<((String, String), String)> {
    let methods = resource.resource_methods().into_iter().flatten();
    let namespaces = methods.filter_map(|(name, method)| {
        let named = method.method_integration()?.cache_namespace();
        let path = resource.path()?.to_owned();
        let namespace = named.or(resource.id())?.to_owned();
        Some(((path, name.clone()), namespace))
    });
    namespaces.collect()
}

fn status(told: Option<&CacheClusterStatus>) -> Status {
    match told {
        Some(CacheClusterStatus::Available) => Status::Available,
        Some(CacheClusterStatus::CreateInProgress) => Status::Creating,
        Some(CacheClusterStatus::FlushInProgress) => Status::Flushing,
        Some(CacheClusterStatus::DeleteInProgress) => Status::Deleting,
        // After a deletion it is empty (API Gateway Developer Guide, "Cache settings for REST APIs").
        Some(CacheClusterStatus::NotAvailable) | None => Status::None,
        Some(other) if other.as_str().is_empty() => Status::None,
        Some(_) => Status::Unknown,
    }
}

/// The key of a method's settings in one form: API Gateway shows the path with or without its first slash, escaped or
/// not.
fn normal(shown: &str) -> String {
    let Some((path, method)) = shown.rsplit_once('/') else {
        return shown.to_owned();
    };
    let path = path.replace("~1", "/").replace("~0", "~");
    if path == "*" || path.starts_with('/') {
        key(&path, method)
    } else {
        key(&format!("/{path}"), method)
    }
}

fn read(setting: &MethodSetting) -> Setting {
    Setting {
        caching: Caching {
            enabled: setting.caching_enabled(),
            ttl_seconds: setting.cache_ttl_in_seconds(),
            encrypted: setting.cache_data_encrypted(),
            require_authorization: setting.require_authorization_for_cache_control(),
        },
        others: Others {
            metrics: setting.metrics_enabled(),
            log_level: setting.logging_level().unwrap_or("OFF").to_owned(),
            data_trace: setting.data_trace_enabled(),
            burst_limit: setting.throttling_burst_limit(),
            rate_limit: setting.throttling_rate_limit(),
            without_permission: setting
                .unauthorized_cache_control_header_strategy()
                .filter(|strategy| **strategy != Strategy::SucceedWithResponseHeader)
                .map(|strategy| strategy.as_str().to_owned()),
        },
    }
}

fn failed<E>(
    operation: &'static str,
    subject: impl Into<String>,
    error: &aws_sdk_apigateway::error::SdkError<E, aws_sdk_apigateway::config::http::HttpResponse>,
) -> CacheError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    CacheError::Aws(AwsError::new(operation, subject, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_one_key_however_they_are_shown() {
        for shown in ["~1orders~1{id}/GET", "orders/{id}/GET", "/orders/{id}/GET"] {
            assert_eq!(normal(shown), "~1orders~1{id}/GET", "{shown}");
        }
        assert_eq!(normal("*/*"), "*/*");
        assert_eq!(normal("~1/GET"), "~1/GET");
    }

    #[test]
    fn every_status_of_a_cluster_is_known_and_another_is_not_waited_for() {
        for (told, known, underway) in [
            ("AVAILABLE", Status::Available, false),
            ("CREATE_IN_PROGRESS", Status::Creating, true),
            ("FLUSH_IN_PROGRESS", Status::Flushing, true),
            ("DELETE_IN_PROGRESS", Status::Deleting, true),
            ("NOT_AVAILABLE", Status::None, false),
            ("", Status::None, false),
            ("RESTING", Status::Unknown, false),
        ] {
            assert_eq!(status(Some(&told.into())), known, "{told}");
            assert_eq!(known.underway().is_some(), underway, "{told}");
        }
        assert_eq!(CacheClusterStatus::values().len(), 5);
        assert_eq!(status(None), Status::None);
    }

    #[test]
    fn what_becomes_of_a_client_without_permission_is_read_unless_it_is_the_usual() {
        let told = |strategy: Option<Strategy>| {
            let setting = MethodSetting::builder()
                .set_unauthorized_cache_control_header_strategy(strategy)
                .build();
            read(&setting).others.without_permission
        };
        assert_eq!(told(None), None);
        assert_eq!(told(Some(Strategy::SucceedWithResponseHeader)), None);
        let refused = Some("FAIL_WITH_403".to_owned());
        assert_eq!(told(Some(Strategy::FailWith403)), refused);
    }

    #[test]
    fn numbers_that_are_not_all_there_are_asked_for_again() {
        let error = CacheError::Partial {
            stage: "prod".to_owned(),
            part: "requests: PartialData".to_owned(),
        };
        assert!(shared::remediation::Failure::is_transient(&error));
        assert!(error.to_string().contains("cloudwatch:GetMetricData"));
    }
}
