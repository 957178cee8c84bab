//! The calls that a fallback to caching makes: to API Gateway and `CloudWatch`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_config::SdkConfig;
use aws_sdk_apigateway::types::{
    AuthorizerType, CacheClusterStatus, Integration as SdkIntegration, Method, MethodSetting,
    Op as SdkOp, PatchOperation, Resource, UnauthorizedCacheControlHeaderStrategy as Strategy,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use chrono::{DateTime, TimeDelta, Utc};
use shared::aws_error::AwsError;
use shared::metric_data;
use shared::remediation::Clearance;

use crate::error::CacheError;
use crate::method::{Access, Authorizer, Declared, Integration, TOKEN, described};
use crate::plan::{ApiMethod, Caching, Observed, Op, Others, Patch, Setting, Stage, key};
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
        let all = declared(&resources, &authorizers);
        Ok(described(&all, |path| named.contains(path)))
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

/// All methods, as the API declares them.
fn declared(resources: &[Resource], authorizers: &HashMap<String, Authorizer>) -> Vec<Declared> {
    let methods = resources.iter().flat_map(|resource| {
        let path = resource.path().unwrap_or_default();
        let methods = resource.resource_methods().into_iter().flatten();
        methods.map(move |(name, method)| (path, name, method))
    });
    let declared = methods.map(|(path, name, method)| {
        let parameters = method.request_parameters().into_iter().flatten();
        Declared {
            path: path.to_owned(),
            name: name.clone(),
            parameters: parameters.map(|(name, _)| name.clone()).collect(),
            api_key: method.api_key_required() == Some(true),
            access: access(method, authorizers),
            integration: method.method_integration().map(integration),
        }
    });
    declared.collect()
}

fn access(method: &Method, authorizers: &HashMap<String, Authorizer>) -> Access {
    match method.authorization_type() {
        None | Some("NONE") => Access::Open,
        Some("AWS_IAM") => Access::Signed,
        Some(_) => method
            .authorizer_id()
            .and_then(|id| authorizers.get(id))
            .map_or(Access::Unknown, |found| Access::By(found.clone())),
    }
}

fn integration(found: &SdkIntegration) -> Integration {
    let answers = found.integration_responses().into_iter().flatten();
    let (headers, templates): (Vec<_>, Vec<_>) = answers
        .map(|(_, answer)| (answer.response_parameters(), answer.response_templates()))
        .unzip();
    let sources = |map: Option<&HashMap<String, String>>| -> Vec<String> {
        map.into_iter()
            .flatten()
            .map(|(_, from)| from.clone())
            .collect()
    };
    let texts = |map: Option<&HashMap<String, String>>| -> BTreeMap<String, String> {
        let pairs = map.into_iter().flatten();
        pairs
            .map(|(kind, text)| (kind.clone(), text.clone()))
            .collect()
    };
    Integration {
        kind: found.r#type().map(|kind| kind.as_str().to_uppercase()),
        passthrough: found.passthrough_behavior().map(str::to_uppercase),
        mapped: sources(found.request_parameters()),
        templates: texts(found.request_templates()),
        answers_mapped: headers.into_iter().flat_map(sources).collect(),
        answer_templates: templates.into_iter().map(texts).collect(),
        as_caller: found.credentials().is_some_and(is_the_caller),
        namespace: found.cache_namespace().map(str::to_owned),
        key: found.cache_key_parameters().to_vec(),
    }
}

/// `arn:aws:iam::*:user/*` has an integration called as whoever called the method (API Gateway API Reference,
/// `Integration`, `credentials`).
fn is_the_caller(credentials: &str) -> bool {
    credentials.contains('*')
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
    use aws_sdk_apigateway::types::{IntegrationResponse, IntegrationType};

    use super::*;
    use crate::plan::ApiMethod;

    fn at(path: &str, method: Method) -> Resource {
        Resource::builder()
            .path(path)
            .resource_methods("GET", method)
            .build()
    }

    fn only(path: &str, method: &Method, authorizers: &HashMap<String, Authorizer>) -> ApiMethod {
        let all = declared(&[at(path, method.clone())], authorizers);
        described(&all, |_| true).pop().unwrap()
    }

    #[test]
    fn settings_have_one_key_however_they_are_shown() {
        for shown in ["~1orders~1{id}/GET", "orders/{id}/GET", "/orders/{id}/GET"] {
            assert_eq!(normal(shown), "~1orders~1{id}/GET", "{shown}");
        }
        assert_eq!(normal("*/*"), "*/*");
        assert_eq!(normal("~1/GET"), "~1/GET");
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
        let described = only("/orders/{id}/{rest+}", &method, &authorizers);
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
        let told = only("/a", &signed, &none).unkeyable.unwrap();
        assert!(told.contains("AWS_IAM"), "{told}");
        let integration = SdkIntegration::builder()
            .request_parameters("integration.request.header.user", "context.authorizer.sub")
            .build();
        let reads = Method::builder().method_integration(integration).build();
        let told = only("/a", &reads, &none).unkeyable.unwrap();
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
            only("/a", &method, &authorizers)
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
        let read = |template: &str| {
            let integration = SdkIntegration::builder()
                .request_templates("application/json", template)
                .passthrough_behavior("NEVER")
                .build();
            let method = Method::builder().method_integration(integration).build();
            only("/orders/{id}", &method, &HashMap::new())
        };
        let id = "method.request.path.id";
        let page = "method.request.querystring.page";
        let header = "method.request.header.page";
        assert_eq!(read("$input.params('id')").inputs, [id]);
        // The query is asked first, and then the headers.
        assert_eq!(read("$input.params('page')").inputs, [header, id, page]);
        let placed = read("$input.params().querystring.page");
        assert_eq!(placed.inputs, [id, page]);
        let told = read("$context.identity.sourceIp").unkeyable.unwrap();
        assert!(told.contains("$context.identity.sourceIp"), "{told}");
    }

    #[test]
    fn a_request_that_chooses_among_templates_depends_on_what_it_chooses_by() {
        let answer = IntegrationResponse::builder()
            .response_templates("application/json", "{}")
            .response_templates("application/xml", "<a/>")
            .build();
        let integration = SdkIntegration::builder()
            .request_templates("application/json", "{}")
            .request_templates("application/xml", "<a/>")
            .integration_responses("200", answer)
            .build();
        let method = Method::builder().method_integration(integration).build();
        let told = only("/a", &method, &HashMap::new());
        let by = [
            "method.request.header.Accept",
            "method.request.header.Content-Type",
        ];
        assert_eq!(told.inputs, by);
    }

    #[test]
    fn a_template_that_a_request_can_go_around_depends_on_its_content_type() {
        let read = |passthrough: &str| {
            let integration = SdkIntegration::builder()
                .r#type(IntegrationType::Mock)
                .request_templates("application/json", "{}")
                .passthrough_behavior(passthrough);
            let method = Method::builder().method_integration(integration.build());
            only("/a", &method.build(), &HashMap::new()).inputs
        };
        let by = ["method.request.header.Content-Type"];
        assert_eq!(read("WHEN_NO_MATCH"), by);
        assert_eq!(read("WHEN_NO_TEMPLATES"), Vec::<String>::new());
    }

    #[test]
    fn an_authorizer_that_is_not_the_apis_tells_nothing() {
        let method = Method::builder()
            .authorization_type("CUSTOM")
            .authorizer_id("gone")
            .build();
        let told = only("/a", &method, &HashMap::new()).unkeyable.unwrap();
        assert!(told.contains("not among those of the API"), "{told}");
    }

    #[test]
    fn an_answer_can_tell_of_the_request_too() {
        let read = |answer: IntegrationResponse| {
            let integration = SdkIntegration::builder()
                .integration_responses("200", answer)
                .build();
            let method = Method::builder().method_integration(integration).build();
            only("/a", &method, &HashMap::new()).unkeyable
        };
        let templated = |text: &str| {
            let answer = IntegrationResponse::builder();
            read(answer.response_templates("application/json", text).build())
        };
        let told = templated("$context.identity.sourceIp").unwrap();
        assert!(told.contains("$context.identity.sourceIp"), "{told}");
        let header = IntegrationResponse::builder()
            .response_parameters("method.response.header.who", "context.identity.caller");
        let told = read(header.build()).unwrap();
        assert!(told.contains("context.identity.caller"), "{told}");
        // The body is the backend's here, and the status is set.
        let own = "#set($context.responseOverride.status = 404)$input.json('$')";
        assert_eq!(templated(own), None);
    }

    #[test]
    fn a_key_holds_only_what_its_method_declares() {
        let page = "method.request.querystring.page";
        let read = |declared: bool| {
            let integration = SdkIntegration::builder().cache_key_parameters(page);
            let mut method = Method::builder().method_integration(integration.build());
            if declared {
                method = method.request_parameters(page, false);
            }
            only("/a", &method.build(), &HashMap::new()).cache_key
        };
        assert_eq!(read(true), [page]);
        assert_eq!(read(false), Vec::<String>::new());
    }

    #[test]
    fn a_caller_whose_credentials_are_passed_on_and_a_body_fit_in_no_key() {
        let caller = SdkIntegration::builder().credentials("arn:aws:iam::*:user/*");
        let body = SdkIntegration::builder()
            .request_parameters("integration.request.header.a", "method.request.body.a");
        for (integration, words) in [(caller, "its caller's"), (body, "method.request.body.a")] {
            let method = Method::builder().method_integration(integration.build());
            let told = only("/a", &method.build(), &HashMap::new()).unkeyable;
            assert!(told.unwrap().contains(words));
        }
    }

    #[test]
    fn what_passes_the_whole_request_on_is_told() {
        let passes = |kind: Option<IntegrationType>| {
            let integration = SdkIntegration::builder().set_type(kind).build();
            let method = Method::builder().method_integration(integration).build();
            only("/a", &method, &HashMap::new()).passes_all
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
                let mut integration = SdkIntegration::builder()
                    .r#type(kind)
                    .set_passthrough_behavior(behaviour.map(str::to_owned));
                if let Some(template) = template {
                    integration = integration.request_templates("application/json", template);
                }
                let method = Method::builder()
                    .method_integration(integration.build())
                    .build();
                let told = only("/a", &method, &HashMap::new()).passes_all;
                assert_eq!(told.is_none(), kept_back, "{behaviour:?} {template:?}");
            }
        }
        assert!(passes(None).is_some());
        let none = only("/a", &Method::builder().build(), &HashMap::new());
        assert!(none.passes_all.is_some());
    }

    #[test]
    fn methods_of_other_resources_in_one_namespace_share_a_cache() {
        let resource = |path: &str, namespace: &str| {
            let integration = SdkIntegration::builder().cache_namespace(namespace).build();
            at(
                path,
                Method::builder().method_integration(integration).build(),
            )
        };
        let resources = [
            resource("/a", "one"),
            resource("/b", "one"),
            resource("/c", "two"),
        ];
        let all = declared(&resources, &HashMap::new());
        let shared = |path: &str| {
            let mut found = described(&all, |at| at == path);
            found.pop().unwrap().shares_cache_with
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
