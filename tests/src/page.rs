//! A service with something in front of it, a distribution or a custom domain, and its maintenance page ready to be
//! raised.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_sdk_apigateway::operation::create_domain_name::builders::CreateDomainNameFluentBuilder;
use aws_sdk_apigateway::types::{IntegrationType, Op, PatchOperation};
use aws_sdk_cloudfront::types::{
    AllowedMethods, CachedMethods, CustomOriginConfig, DefaultCacheBehavior, DistributionConfig,
    EventType, FunctionAssociation, FunctionAssociations, FunctionConfig, FunctionRuntime,
    FunctionStage, KeyValueStoreAssociation, KeyValueStoreAssociations, Method, Origin,
    OriginProtocolPolicy, Origins, ViewerProtocolPolicy,
};
use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use maintenance_page::policy::Mapping;
use serde_json::{Value, json};
use shared::clock::Clock;

use crate::failure::{During, Result};
use crate::proxy::Proxy;
use crate::replay::Run;
use crate::world::{Alarm, World, alarm_event};

/// The service's stage.
pub const STAGE: &str = "prod";
/// The managed cache policy that caches nothing.
const CACHING_DISABLED: &str = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad";
/// What the service answers.
pub const ANSWER: &str = r#"{"service":"up"}"#;
/// The header in which a responder gives the secret to a distribution.
pub const BYPASS: &str = "x-maintenance-bypass";
/// The secret, and its SHA-256.
pub const SECRET: &str = "open-sesame";
const SECRET_SHA256: &str = "d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7";

/// What is in front of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// A distribution with the function.
    Distribution,
    /// A custom domain.
    Domain,
}

/// A service, and what is in front of it.
#[derive(Debug)]
pub struct Fronted<'a> {
    /// Where it takes place.
    pub world: &'a World,
    /// What is in front of it.
    pub front: Front,
    /// The host that clients ask.
    pub host: String,
    /// The alarm.
    pub alarm: Alarm,
    /// The alarm's change to ALARM.
    pub event: Value,
    /// The policy that was put last.
    pub policy: Value,
    /// The ARN of what the page's flag or mapping is.
    pub resource: String,
    /// The service's API.
    pub service: String,
    binary: PathBuf,
}

/// What a client got.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether it is the maintenance page.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.body.contains("forgeguard-incident")
    }

    /// Whether it is the service's own.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.status == StatusCode::OK && self.body == ANSWER
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

impl<'a> Fronted<'a> {
    /// A service with `front` before it.
    pub async fn new(world: &'a World, front: Front, binary: &str) -> Result<Self> {
        let alarm = world.alarm("ApiOutage").await?;
        let event = alarm_event(&alarm, "OK", "ALARM", Clock::system().now());
        let service = service(world).await?;
        let mut fronted = Self {
            world,
            front,
            host: String::new(),
            alarm,
            event,
            policy: Value::Null,
            resource: String::new(),
            service,
            binary: binary.into(),
        };
        let action = match front {
            Front::Distribution => fronted.distribute().await?,
            Front::Domain => fronted.map().await?,
        };
        fronted.policy = json!({
            "version": 1,
            "targets": [{
                "name": "service",
                "alarms": [fronted.alarm.arn],
                "guard": {
                    "max_event_age_seconds": 86_400,
                    "cooldown_seconds": 0,
                    "budget": {"actions": 100},
                    "flap": {"transitions": 100},
                    "breaker": {"refires": 100},
                },
                "action": {
                    "front": action,
                    "url": fronted.url("/"),
                    "raise": "automatically",
                    "term": {"stabilisation_seconds": 0},
                },
            }],
        });
        world.put_policy(&fronted.policy).await?;
        Ok(fronted)
    }

    /// Puts a distribution with the deployed function's code and a key-value store of its own before the service.
    async fn distribute(&mut self) -> Result<Value> {
        let world = self.world;
        let cloudfront = &world.aws.cloudfront;
        let deployed = world.cloud.output("MaintenancePageEdgeFunctionArn")?;
        let deployed = deployed.rsplit('/').next().during("the function's name")?;
        let found = cloudfront
            .get_function()
            .name(deployed)
            .stage(FunctionStage::Live);
        let code = found.send().await?.function_code.during(deployed)?;
        let store = cloudfront
            .create_key_value_store()
            .name(&world.name)
            .send()
            .await?;
        let store = store
            .key_value_store()
            .during("the store")?
            .arn()
            .to_owned();
        let stores = KeyValueStoreAssociations::builder()
            .quantity(1)
            .items(
                KeyValueStoreAssociation::builder()
                    .key_value_store_arn(&store)
                    .build()?,
            )
            .build()?;
        let config = FunctionConfig::builder()
            .comment("maintenance")
            .runtime(FunctionRuntime::CloudfrontJs20)
            .key_value_store_associations(stores)
            .build()?;
        let function = cloudfront
            .create_function()
            .name(&world.name)
            .function_config(config)
            .function_code(code)
            .send()
            .await?;
        cloudfront
            .publish_function()
            .name(&world.name)
            .set_if_match(function.e_tag.clone())
            .send()
            .await?;
        let function = function.function_summary();
        let function = function.and_then(|function| function.function_metadata());
        let function = function.during("the function")?.function_arn().to_owned();
        world.will_remove_edge();
        self.host = distribution(world, &self.service, &function).await?;
        self.resource.clone_from(&store);
        Ok(json!({"cloudfront": {
            "key_value_store": store,
            "bypass_sha256": SECRET_SHA256,
            "health_check_paths": ["/healthz"],
        }}))
    }

    /// Puts a custom domain before the service, and a stage of its own on the deployed maintenance API beside it.
    async fn map(&mut self) -> Result<Value> {
        let world = self.world;
        let api = &world.aws.apigateway;
        self.host = format!("{}.localhost", world.name);
        map_domain(world, &self.host, &self.service).await?;
        world.will_remove_domain(&self.host);
        let maintenance = world.cloud.output("MaintenancePageApiId")?;
        let deployments = api
            .get_deployments()
            .rest_api_id(maintenance)
            .send()
            .await?;
        let deployment = deployments.items().first();
        let deployment = deployment.and_then(|deployment| deployment.id());
        api.create_stage()
            .rest_api_id(maintenance)
            .stage_name(&world.name)
            .deployment_id(deployment.during("the deployment")?)
            .send()
            .await?;
        world.will_remove_stage(maintenance, &world.name);
        self.resource = format!(
            "arn:aws:apigateway:{}::/domainnames/{}/basepathmappings/(none)",
            world.cloud.region, self.host
        );
        // The deployed machine may end the page of the stack's own domain alone.
        let end = world.cloud.output("MaintenancePageEndArn")?;
        Ok(json!({"api_gateway": {
            "mapping": self.resource,
            "maintenance_api": maintenance,
            "maintenance_stage": world.name,
            "end_machine": world.machine_like(end).await?,
        }}))
    }

    /// Makes the custom domain anew with these settings. The local cloud cannot change a domain that is there.
    pub async fn domain_is(
        &self,
        settings: impl FnOnce(CreateDomainNameFluentBuilder) -> CreateDomainNameFluentBuilder,
    ) -> Result {
        let api = &self.world.aws.apigateway;
        api.delete_domain_name()
            .domain_name(&self.host)
            .send()
            .await?;
        settings(api.create_domain_name().domain_name(&self.host))
            .send()
            .await?;
        map_root(self.world, &self.host, &self.service).await
    }

    /// A URL of the service.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        url(self.world, &self.host, path)
    }

    /// What a client gets.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        get(self.world, &self.host, path, headers).await
    }

    /// What a browser gets that asks whether a page of another origin may send a request with a header of its own.
    pub async fn preflight(&self, path: &str) -> Result<Answer> {
        let headers = [
            ("origin", "https://app.example.com"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization,x-app"),
        ];
        ask(self.world, "OPTIONS", &self.host, path, &headers).await
    }

    /// A run on the alarm's event.
    #[must_use]
    pub fn run(&self, proxy: &Proxy) -> Run {
        Run::new(&self.binary, self.world, proxy, &self.event).of(maintenance_page::NAME)
    }

    /// The alarm returns to OK, so much later than now; the run on its event.
    pub async fn recovers(&self, proxy: &Proxy, later_by: TimeDelta) -> Result<Run> {
        let world = self.world;
        world.set_alarm(&self.alarm.name, StateValue::Ok).await?;
        let now = Clock::system().now() + later_by;
        let ok = alarm_event(&self.alarm, "ALARM", "OK", now);
        Ok(self.run(proxy).on(&ok).later_by(later_by))
    }

    /// A responder takes the page over, or puts one up: it is theirs from now on.
    pub async fn taken_by(&self, name: &str) -> Result {
        match self.front {
            Front::Distribution => {
                let notice = json!({
                    "by": name,
                    "incident": "inc-by-hand",
                    "since": "2026-11-02T09:28:12Z",
                    "next_update_minutes": 30,
                });
                self.flag(Some(&notice.to_string())).await
            }
            Front::Domain => {
                let maintenance = self.world.cloud.output("MaintenancePageApiId")?;
                let stage = &self.world.name;
                let request = self.world.aws.apigateway.update_stage();
                let request = request.rest_api_id(maintenance).stage_name(stage);
                let by = format!("/variables/{}", holder(&self.resource)?);
                request.patch_operations(replace(&by, name)).send().await?;
                self.lead_to(maintenance, stage).await
            }
        }
    }

    /// A responder takes the page down.
    pub async fn taken_down(&self) -> Result {
        match self.front {
            Front::Distribution => self.flag(None).await,
            Front::Domain => self.lead_to(&self.service, STAGE).await,
        }
    }

    /// The variables of the stage that shows the page before a domain.
    pub async fn variables(&self) -> Result<BTreeMap<String, String>> {
        let maintenance = self.world.cloud.output("MaintenancePageApiId")?;
        let stage = self.world.aws.apigateway.get_stage();
        let stage = stage.rest_api_id(maintenance).stage_name(&self.world.name);
        let stage = stage.send().await?;
        let variables = stage.variables().into_iter().flatten();
        Ok(variables
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    /// The machine that ends the page, by the policy that was put last.
    pub fn end_machine(&self) -> Result<&str> {
        let front = &self.policy["targets"][0]["action"]["front"];
        front["api_gateway"]["end_machine"]
            .as_str()
            .during("the end's machine")
    }

    /// The inputs of the executions that end pages, and what became of each; `None` while it waits.
    pub async fn ends(&self) -> Result<Vec<(Value, Option<Value>)>> {
        let states = &self.world.aws.states;
        let found = states.list_executions();
        let found = found.state_machine_arn(self.end_machine()?).send().await?;
        let mut ends = Vec::new();
        for execution in found.executions() {
            let arn = execution.execution_arn();
            let told = states.describe_execution().execution_arn(arn);
            let told = told.send().await?;
            let became = told.output().or(told.cause()).map(|text| {
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
            });
            let input = told.input().during("its input")?;
            ends.push((serde_json::from_str(input)?, became));
        }
        Ok(ends)
    }

    /// Writes the flag, or removes it.
    pub async fn flag(&self, value: Option<&str>) -> Result {
        flag(self.world, &self.resource, value).await
    }

    async fn lead_to(&self, api: &str, stage: &str) -> Result {
        lead_to(self.world, &self.host, api, stage).await
    }
}

/// The stage's variable that says who holds the page of a mapping.
fn holder(mapping: &str) -> Result<String> {
    let mapping = json!({"mapping": mapping, "maintenance_api": "", "maintenance_stage": ""});
    Ok(serde_json::from_value::<Mapping>(mapping)?.holder())
}

/// Writes the flag in a key-value store, or removes it, as a responder would.
pub async fn flag(world: &World, arn: &str, value: Option<&str>) -> Result {
    let store = &world.aws.store;
    let version = store.describe_key_value_store().kvs_arn(arn).send().await?;
    let version = version.e_tag().to_owned();
    if let Some(value) = value {
        let put = store.put_key().kvs_arn(arn).key("maintenance");
        put.value(value).if_match(version).send().await?;
    } else {
        let delete = store.delete_key().kvs_arn(arn).key("maintenance");
        delete.if_match(version).send().await?;
    }
    Ok(())
}

/// Maps a custom domain to another API.
pub async fn lead_to(world: &World, host: &str, api: &str, stage: &str) -> Result {
    let request = world.aws.apigateway.update_base_path_mapping();
    request
        .domain_name(host)
        .base_path("(none)")
        .patch_operations(replace("/restapiId", api))
        .patch_operations(replace("/stage", stage))
        .send()
        .await?;
    Ok(())
}

/// The URL of a host of the local cloud.
#[must_use]
pub fn url(world: &World, host: &str, path: &str) -> String {
    format!("http://{host}:{}{path}", port(world))
}

fn port(world: &World) -> &str {
    let endpoint = &world.cloud.endpoint;
    endpoint.rsplit(':').next().unwrap_or_default()
}

/// What a client gets from a host of the local cloud.
pub async fn get(
    world: &World,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    ask(world, "GET", host, path, headers).await
}

async fn ask(
    world: &World,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", world.cloud.endpoint))
        .header(hyper::header::HOST, format!("{host}:{}", port(world)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Empty::<Bytes>::new())?).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn replace(path: &str, value: &str) -> PatchOperation {
    let operation = PatchOperation::builder().op(Op::Replace);
    operation.path(path).value(value).build()
}

/// An API that answers at the root, at `/healthz` and at `/health`, the template's path of health checks.
pub async fn service(world: &World) -> Result<String> {
    let api = &world.aws.apigateway;
    let name = format!("{}-service", world.name);
    let created = api.create_rest_api().name(&name).send().await?;
    let id = created.id().during(&name)?.to_owned();
    world.will_remove_api(&id);
    let resources = api.get_resources().rest_api_id(&id).send().await?;
    let root = resources.items().first().and_then(|root| root.id());
    let root = root.during("the root")?.to_owned();
    let mut resources = vec![root.clone()];
    for part in ["healthz", "health"] {
        let health = api.create_resource().rest_api_id(&id).parent_id(&root);
        let health = health.path_part(part).send().await?;
        resources.push(health.id().during("the health check")?.to_owned());
    }
    for resource in &resources {
        api.put_method()
            .rest_api_id(&id)
            .resource_id(resource)
            .http_method("GET")
            .authorization_type("NONE")
            .send()
            .await?;
        api.put_integration()
            .rest_api_id(&id)
            .resource_id(resource)
            .http_method("GET")
            .r#type(IntegrationType::Mock)
            .request_templates("application/json", r#"{"statusCode": 200}"#)
            .send()
            .await?;
        api.put_method_response()
            .rest_api_id(&id)
            .resource_id(resource)
            .http_method("GET")
            .status_code("200")
            .send()
            .await?;
        api.put_integration_response()
            .rest_api_id(&id)
            .resource_id(resource)
            .http_method("GET")
            .status_code("200")
            .response_templates("application/json", ANSWER)
            .send()
            .await?;
    }
    let deployment = api.create_deployment().rest_api_id(&id).send().await?;
    api.create_stage()
        .rest_api_id(&id)
        .stage_name(STAGE)
        .deployment_id(deployment.id().during("the deployment")?)
        .send()
        .await?;
    Ok(id)
}

/// An API whose stage `closed` wants a signature at the root.
pub async fn closed(world: &World) -> Result<String> {
    let api = &world.aws.apigateway;
    let id = service(world).await?;
    let resources = api.get_resources().rest_api_id(&id).send().await?;
    let root = resources.items().iter().find(|it| it.path() == Some("/"));
    let root = root.and_then(|root| root.id()).during("the root")?;
    api.put_method()
        .rest_api_id(&id)
        .resource_id(root)
        .http_method("GET")
        .authorization_type("AWS_IAM")
        .send()
        .await?;
    let deployment = api.create_deployment().rest_api_id(&id);
    deployment.stage_name("closed").send().await?;
    Ok(id)
}

/// The path at which the local cloud serves the service without a domain.
#[must_use]
pub fn origin_path(service: &str) -> String {
    path_without_domain(service, STAGE)
}

/// The path at which the local cloud serves an API without a domain.
#[must_use]
pub fn path_without_domain(api: &str, stage: &str) -> String {
    format!("/_aws/execute-api/{api}/{stage}")
}

/// Maps a custom domain to the service.
pub async fn map_domain(world: &World, host: &str, service: &str) -> Result {
    let api = &world.aws.apigateway;
    api.create_domain_name().domain_name(host).send().await?;
    map_root(world, host, service).await
}

async fn map_root(world: &World, host: &str, service: &str) -> Result {
    let api = &world.aws.apigateway;
    api.create_base_path_mapping()
        .domain_name(host)
        .rest_api_id(service)
        .stage(STAGE)
        .send()
        .await?;
    Ok(())
}

/// A distribution before the service, with a function on its viewer requests; its host below localhost.
pub async fn distribution(world: &World, service: &str, function: &str) -> Result<String> {
    let origin = CustomOriginConfig::builder()
        .http_port(port(world).parse()?)
        .https_port(443)
        .origin_protocol_policy(OriginProtocolPolicy::HttpOnly)
        .build()?;
    let origin = Origin::builder()
        .id("service")
        .domain_name("127.0.0.1")
        .origin_path(origin_path(service))
        .custom_origin_config(origin)
        .build()?;
    let association = FunctionAssociation::builder()
        .function_arn(function)
        .event_type(EventType::ViewerRequest)
        .build()?;
    let cached = CachedMethods::builder().quantity(2);
    let cached = cached.items(Method::Get).items(Method::Head);
    let allowed = AllowedMethods::builder()
        .quantity(3)
        .items(Method::Get)
        .items(Method::Head)
        .items(Method::Options)
        .cached_methods(cached.build()?)
        .build()?;
    let behavior = DefaultCacheBehavior::builder()
        .target_origin_id("service")
        .viewer_protocol_policy(ViewerProtocolPolicy::AllowAll)
        .allowed_methods(allowed)
        .cache_policy_id(CACHING_DISABLED)
        .function_associations(
            FunctionAssociations::builder()
                .quantity(1)
                .items(association)
                .build()?,
        )
        .build()?;
    let config = DistributionConfig::builder()
        .caller_reference(&world.name)
        .comment(&world.name)
        .enabled(true)
        .origins(Origins::builder().quantity(1).items(origin).build()?)
        .default_cache_behavior(behavior)
        .build()?;
    let created = world.aws.cloudfront.create_distribution();
    let created = created.distribution_config(config).send().await?;
    let created = created.distribution().during("the distribution")?;
    world.will_remove_distribution(created.id());
    let (label, _) = created.domain_name().split_once('.').during("the label")?;
    Ok(format!("{label}.cloudfront.localhost"))
}
