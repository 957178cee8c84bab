//! The calls that a fallback to caching makes: to API Gateway and `CloudWatch`.

use std::collections::{BTreeSet, HashMap};

use aws_config::SdkConfig;
use aws_sdk_apigateway::types::{
    AuthorizerType, CacheClusterStatus, Integration, IntegrationType, Method, MethodSetting,
    Op as SdkOp, PatchOperation, Resource,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use chrono::{DateTime, TimeDelta, Utc};
use shared::aws_error::AwsError;
use shared::metric_data;
use shared::remediation::Clearance;

use crate::error::CacheError;
use crate::plan::{ApiMethod, Caching, Observed, Op, Others, Patch, Setting, Stage, key};
use crate::policy::Cache;
use crate::template::{self, PLACES, Read};

/// Pages of resources read at most; 500 resources each.
const PAGES: usize = 20;
const PAGE: i32 = 500;
/// Where API Gateway reads an API key.
const API_KEY: &str = "method.request.header.x-api-key";
/// Where an authorizer reads its token unless it says otherwise.
const TOKEN: &str = "method.request.header.Authorization";

/// Who lets clients in.
#[derive(Debug)]
struct Authorizer {
    name: String,
    /// Where it reads who the client is; nothing where that can be anywhere in the request.
    sources: Vec<String>,
}

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
        let (requests, server_errors) = self.requests(policy, &name, now).await?;
        Ok(Observed {
            stage,
            methods,
            requests,
            server_errors,
        })
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
        let status = answer.cache_cluster_status();
        let deleting = status == Some(&CacheClusterStatus::DeleteInProgress);
        let settings = answer.method_settings().into_iter().flatten();
        Ok(Stage {
            // One that is being taken away is as good as gone.
            cluster: (answer.cache_cluster_enabled() && !deleting).then(|| {
                answer
                    .cache_cluster_size()
                    .map(|size| size.as_str().to_owned())
                    .unwrap_or_default()
            }),
            available: status == Some(&CacheClusterStatus::Available),
            deleting,
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

    async fn methods(&self, policy: &Cache) -> Result<Vec<ApiMethod>, CacheError> {
        let (resources, authorizers) =
            tokio::try_join!(self.resources(policy), self.authorizers(policy))?;
        let named: BTreeSet<&str> = policy
            .resources
            .iter()
            .map(|cached| cached.path.as_str())
            .collect();
        let wanted = methods(&resources).filter(|(path, ..)| named.contains(path));
        let all = wanted.map(|(path, name, method)| ApiMethod {
            shares_cache_with: sharing(&resources, path, method),
            ..described(path, name, method, &authorizers)
        });
        Ok(all.collect())
    }

    async fn resources(&self, policy: &Cache) -> Result<Vec<Resource>, CacheError> {
        let mut resources = Vec::new();
        let mut position = None;
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
            resources.extend_from_slice(answer.items());
            position = answer.position().map(str::to_owned);
            if position.is_none() {
                return Ok(resources);
            }
        }
        Err(CacheError::TooManyResources {
            rest_api: policy.rest_api().to_owned(),
            read: resources.len(),
        })
    }

    /// The authorizers, by id.
    async fn authorizers(&self, policy: &Cache) -> Result<HashMap<String, Authorizer>, CacheError> {
        let answer = self
            .apigateway
            .get_authorizers()
            .rest_api_id(policy.rest_api())
            .limit(PAGE)
            .send()
            .await
            .map_err(|error| {
                let subject = format!("authorizers of {}", policy.rest_api());
                failed("apigateway:GET", subject, &error)
            })?;
        Ok(answer
            .items()
            .iter()
            .map(|found| (found.id().unwrap_or_default().to_owned(), authorizer(found)))
            .collect())
    }

    /// Requests of the window, and server errors among them.
    ///
    /// API Gateway counts both under `ApiName` and `Stage`
    /// (API Gateway Developer Guide, "Amazon API Gateway dimensions and metrics").
    async fn requests(
        &self,
        policy: &Cache,
        api_name: &str,
        now: DateTime<Utc>,
    ) -> Result<(u64, u64), CacheError> {
        let window = TimeDelta::seconds(i64::from(policy.window_seconds.get()));
        let dimensions = [("ApiName", api_name), ("Stage", policy.name())];
        let query = |id, metric| metric_data::sums(id, "AWS/ApiGateway", metric, &dimensions);
        let answer = metric_data::of_window(&self.cloudwatch, window, now)
            .metric_data_queries(query("requests", "Count"))
            .metric_data_queries(query("errors", "5XXError"))
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
        Ok((sum("requests"), sum("errors")))
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

/// All methods, each with its resource's path and its name.
fn methods(resources: &[Resource]) -> impl Iterator<Item = (&str, &str, &Method)> {
    resources.iter().flat_map(|resource| {
        let path = resource.path().unwrap_or_default();
        let methods = resource.resource_methods().into_iter().flatten();
        methods.map(move |(name, method)| (path, name.as_str(), method))
    })
}

/// The methods of other resources whose integrations keep their answers in the same namespace.
fn sharing(resources: &[Resource], path: &str, method: &Method) -> Vec<String> {
    let namespace = |method: &Method| {
        let integration = method.method_integration();
        integration
            .and_then(Integration::cache_namespace)
            .map(str::to_owned)
    };
    let Some(own) = namespace(method) else {
        return Vec::new();
    };
    methods(resources)
        .filter(|(other, _, method)| *other != path && namespace(method).as_ref() == Some(&own))
        .map(|(path, name, _)| format!("{name} {path}"))
        .collect()
}

/// What a method's answer may depend on, and what its cache key holds.
fn described(
    path: &str,
    name: &str,
    method: &Method,
    authorizers: &HashMap<String, Authorizer>,
) -> ApiMethod {
    let mut inputs = BTreeSet::new();
    let mut unkeyable = None;
    // Without them in the key, one answer serves every value of a path parameter.
    for part in path.split('/') {
        if let Some(parameter) = part.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
            let parameter = parameter.trim_end_matches('+');
            inputs.insert(format!("method.request.path.{parameter}"));
        }
    }
    inputs.extend(
        method
            .request_parameters()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone()),
    );
    if method.api_key_required() == Some(true) {
        inputs.insert(API_KEY.to_owned());
    }
    match method.authorization_type() {
        None | Some("NONE") => {}
        Some("AWS_IAM") => {
            unkeyable = Some(
                "it is signed by its callers (AWS_IAM), and no cache key can hold who signed"
                    .to_owned(),
            );
        }
        Some(_) => {
            let authorizer = method.authorizer_id().and_then(|id| authorizers.get(id));
            match authorizer {
                Some(Authorizer { name, sources }) if sources.is_empty() => {
                    unkeyable = Some(format!(
                        "its authorizer {name} can read all of the request (REQUEST without identitySource), and no cache key can hold that"
                    ));
                }
                Some(Authorizer { sources, .. }) => inputs.extend(sources.iter().cloned()),
                None => drop(inputs.insert(TOKEN.to_owned())),
            }
        }
    }
    let integration = method.method_integration();
    let mapped = integration
        .and_then(|integration| integration.request_parameters())
        .into_iter()
        .flatten()
        .map(|(_, from)| from);
    for from in mapped {
        let context = from.strip_prefix("context.");
        if context.is_some_and(|context| !template::is_alike(context)) {
            unkeyable.get_or_insert_with(|| {
                format!("its integration reads {from}, which no cache key can hold")
            });
        } else if from.starts_with("method.request.") {
            inputs.insert(from.clone());
        }
    }
    let cache_key = integration.map_or(&[][..], Integration::cache_key_parameters);
    let templates = integration.and_then(|integration| integration.request_templates());
    let templates = templates.into_iter().flatten();
    let reads: BTreeSet<Read> = templates
        .flat_map(|(_, template)| template::reads(template))
        .collect();
    for read in reads {
        match read {
            Read::Named(name) => inputs.extend(unless_known(&name, &inputs, cache_key)),
            Read::Placed(parameter) => drop(inputs.insert(parameter)),
            Read::Unkeyable(read) => {
                unkeyable.get_or_insert_with(|| {
                    format!("its mapping template reads {read}, which no cache key can hold")
                });
            }
        }
    }
    let held = |source: &String| source.starts_with("method.request.");
    if let Some(source) = inputs.iter().find(|source| !held(source)) {
        unkeyable.get_or_insert_with(|| {
            format!("its authorizer reads {source}, which no cache key can hold")
        });
    }
    let passes_all = passes_all(integration);
    ApiMethod {
        path: path.to_owned(),
        method: name.to_owned(),
        inputs: inputs.into_iter().collect(),
        passes_all,
        shares_cache_with: Vec::new(),
        unkeyable,
        cache_key: cache_key.to_vec(),
    }
}

/// Why an integration may pass on all of a request: whatever is not known to pass on chosen parts may. A body without a
/// mapping template is passed on unless `passthroughBehavior` says otherwise (API Gateway Developer Guide, "Method
/// request behavior for payloads without mapping templates").
fn passes_all(integration: Option<&Integration>) -> Option<String> {
    let Some(integration) = integration else {
        return Some("of no known type".to_owned());
    };
    let templates = integration.request_templates();
    let mapped = templates.is_some_and(|templates| !templates.is_empty());
    match (integration.r#type(), integration.passthrough_behavior()) {
        (Some(IntegrationType::Mock), _)
        | (Some(IntegrationType::Aws | IntegrationType::Http), Some("NEVER")) => None,
        (Some(IntegrationType::Aws | IntegrationType::Http), Some("WHEN_NO_TEMPLATES"))
            if mapped =>
        {
            None
        }
        (Some(kind @ (IntegrationType::Aws | IntegrationType::Http)), _) => Some(format!(
            "{} without a passthroughBehavior that keeps a request's body back",
            kind.as_str()
        )),
        (Some(kind), _) => Some(kind.as_str().to_owned()),
        (None, _) => Some("of no known type".to_owned()),
    }
}

/// A parameter that a template reads wherever the request has it, unless it is in the cache key or asked for already.
fn unless_known(name: &str, inputs: &BTreeSet<String>, cache_key: &[String]) -> Option<String> {
    let known = PLACES.iter().any(|place| {
        let parameter = template::parameter(place, name);
        inputs.contains(&parameter) || cache_key.contains(&parameter)
    });
    (!known).then(|| template::parameter("querystring", name))
}

fn authorizer(found: &aws_sdk_apigateway::types::Authorizer) -> Authorizer {
    let sources = found.identity_source().unwrap_or_default().split(',');
    let sources = sources.map(str::trim).filter(|source| !source.is_empty());
    let mut sources: Vec<String> = sources.map(str::to_owned).collect();
    if sources.is_empty() && found.r#type() != Some(&AuthorizerType::Request) {
        sources.push(TOKEN.to_owned());
    }
    Authorizer {
        name: found.name().or(found.id()).unwrap_or_default().to_owned(),
        sources,
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
    fn a_method_depends_on_its_path_its_client_and_what_it_declares() {
        let method = Method::builder()
            .authorization_type("CUSTOM")
            .authorizer_id("a1")
            .api_key_required(true)
            .request_parameters("method.request.querystring.page", false)
            .build();
        let cookie = aws_sdk_apigateway::types::Authorizer::builder()
            .r#type(AuthorizerType::Request)
            .identity_source("method.request.header.Cookie")
            .build();
        let authorizers = HashMap::from([("a1".to_owned(), authorizer(&cookie))]);
        let described = described("/orders/{id}/{rest+}", "GET", &method, &authorizers);
        assert_eq!(
            described.inputs,
            [
                "method.request.header.Cookie",
                "method.request.header.x-api-key",
                "method.request.path.id",
                "method.request.path.rest",
                "method.request.querystring.page",
            ]
        );
        assert_eq!(described.unkeyable, None);
    }

    #[test]
    fn who_signed_and_what_the_context_says_fits_in_no_key() {
        let none = HashMap::new();
        let signed = Method::builder().authorization_type("AWS_IAM").build();
        let told = described("/a", "GET", &signed, &none).unkeyable.unwrap();
        assert!(told.contains("AWS_IAM"), "{told}");
        let integration = aws_sdk_apigateway::types::Integration::builder()
            .request_parameters("integration.request.header.user", "context.authorizer.sub")
            .build();
        let reads = Method::builder().method_integration(integration).build();
        let told = described("/a", "GET", &reads, &none).unkeyable.unwrap();
        assert!(told.contains("context.authorizer.sub"), "{told}");
    }

    #[test]
    fn an_authorizer_that_can_read_everything_fits_in_no_key() {
        let mut whole = aws_sdk_apigateway::types::Authorizer::builder()
            .name("who")
            .r#type(AuthorizerType::Request);
        let method = Method::builder()
            .authorization_type("CUSTOM")
            .authorizer_id("a1")
            .build();
        let read = |found: &_| {
            let authorizers = HashMap::from([("a1".to_owned(), authorizer(found))]);
            described("/a", "GET", &method, &authorizers)
        };
        for source in [None, Some(String::new())] {
            whole = whole.set_identity_source(source);
            let told = read(&whole.clone().build()).unkeyable.unwrap();
            assert!(told.contains("its authorizer who can read all"), "{told}");
        }
        let token = whole.r#type(AuthorizerType::Token).build();
        assert_eq!(read(&token).inputs, [TOKEN]);
    }

    #[test]
    fn a_method_depends_on_what_its_mapping_templates_read() {
        let read = |template: &str, cache_key: &[&str]| {
            let mut integration =
                Integration::builder().request_templates("application/json", template);
            for parameter in cache_key {
                integration = integration.cache_key_parameters(*parameter);
            }
            let method = Method::builder()
                .method_integration(integration.build())
                .build();
            described("/orders/{id}", "GET", &method, &HashMap::new())
        };
        let id = "method.request.path.id";
        let page = "method.request.querystring.page";
        let header = "method.request.header.page";
        assert_eq!(read("$input.params('id')", &[]).inputs, [id]);
        assert_eq!(read("$input.params('page')", &[]).inputs, [id, page]);
        assert_eq!(read("$input.params('page')", &[header]).inputs, [id]);
        let placed = read("$input.params().header.page", &[page]);
        assert_eq!(placed.inputs, [header, id]);
        let told = read("$context.identity.sourceIp", &[]).unkeyable.unwrap();
        assert!(told.contains("$context.identity.sourceIp"), "{told}");
    }

    #[test]
    fn what_passes_the_whole_request_on_is_told() {
        let passes = |kind: Option<IntegrationType>| {
            let integration = Integration::builder().set_type(kind).build();
            let method = Method::builder().method_integration(integration).build();
            described("/a", "GET", &method, &HashMap::new()).passes_all
        };
        for kind in [IntegrationType::AwsProxy, IntegrationType::HttpProxy] {
            assert_eq!(passes(Some(kind.clone())), Some(kind.as_str().to_owned()));
        }
        assert_eq!(passes(Some(IntegrationType::Mock)), None);
        for (behaviour, template, kept_back) in [
            (None, None, false),
            (Some("WHEN_NO_MATCH"), Some("{}"), false),
            (Some("WHEN_NO_TEMPLATES"), None, false),
            (Some("WHEN_NO_TEMPLATES"), Some("{}"), true),
            (Some("NEVER"), None, true),
        ] {
            for kind in [IntegrationType::Aws, IntegrationType::Http] {
                let mut integration = Integration::builder()
                    .r#type(kind)
                    .set_passthrough_behavior(behaviour.map(str::to_owned));
                if let Some(template) = template {
                    integration = integration.request_templates("application/json", template);
                }
                let method = Method::builder()
                    .method_integration(integration.build())
                    .build();
                let told = described("/a", "GET", &method, &HashMap::new()).passes_all;
                assert_eq!(told.is_none(), kept_back, "{behaviour:?} {template:?}");
            }
        }
        assert!(passes(None).is_some());
        let none = described("/a", "GET", &Method::builder().build(), &HashMap::new());
        assert!(none.passes_all.is_some());
    }

    #[test]
    fn methods_of_other_resources_in_one_namespace_share_a_cache() {
        let resource = |path: &str, namespace: &str| {
            let integration = Integration::builder().cache_namespace(namespace).build();
            let method = Method::builder().method_integration(integration).build();
            Resource::builder()
                .path(path)
                .resource_methods("GET", method)
                .build()
        };
        let resources = [
            resource("/a", "one"),
            resource("/b", "one"),
            resource("/c", "two"),
        ];
        let shared = |path: &str| {
            let (_, _, method) = methods(&resources).find(|(at, ..)| *at == path).unwrap();
            sharing(&resources, path, method)
        };
        assert_eq!(shared("/a"), ["GET /b"]);
        assert_eq!(shared("/c"), Vec::<String>::new());
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
