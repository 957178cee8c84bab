//! A REST API with a stage, what it served, and a fallback to caching ready to be run.

use std::collections::HashMap;
use std::path::PathBuf;

use aws_sdk_apigateway::types::{IntegrationType, MethodSetting, Op, PatchOperation};
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use chrono::TimeDelta;
use serde_json::{Value, json};
use shared::clock::Clock;

use crate::failure::{During, Result};
use crate::proxy::Proxy;
use crate::replay::Run;
use crate::world::{Alarm, World, alarm_event};

/// The stage's name.
pub const STAGE: &str = "prod";

/// An API whose stage can be cached: `GET /orders`, and `GET /orders/{id}` with the id in its cache key.
#[derive(Debug)]
pub struct Staged<'a> {
    /// Where it takes place.
    pub world: &'a World,
    /// The API's id.
    pub id: String,
    /// The alarm.
    pub alarm: Alarm,
    /// The alarm's change to ALARM.
    pub event: Value,
    /// The policy that was put last.
    pub policy: Value,
    binary: PathBuf,
    orders: String,
}

/// What of a stage a fallback to caching may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Whether the cache cluster is on.
    pub cluster: bool,
    /// The methods' settings.
    pub settings: HashMap<String, MethodSetting>,
}

impl<'a> Staged<'a> {
    /// An API that has a stage.
    pub async fn new(world: &'a World, binary: &str) -> Result<Self> {
        let alarm = world.alarm("ApiHigh5xxErrorRate").await?;
        let event = alarm_event(&alarm, "OK", "ALARM", Clock::system().now());
        let mut staged = Self {
            world,
            id: String::new(),
            policy: Value::Null,
            alarm,
            event,
            binary: binary.into(),
            orders: String::new(),
        };
        staged.create().await?;
        staged.policy = json!({
            "version": 1,
            "targets": [{
                "name": "api",
                "alarms": [staged.alarm.arn],
                "guard": {"max_event_age_seconds": 86_400, "cooldown_seconds": 0},
                "action": {
                    "stage": format!(
                        "arn:aws:apigateway:{}::/restapis/{}/stages/{STAGE}",
                        world.cloud.region, staged.id
                    ),
                    "resources": [{"path": "/orders"}, {"path": "/orders/{id}"}],
                    // What the window holds when the alarm is back at OK keeps no cache that a test wants taken away.
                    "recovered_below": 1,
                    "term": {"stabilisation_seconds": 0},
                },
            }],
        });
        world.put_policy(&staged.policy).await?;
        Ok(staged)
    }

    async fn create(&mut self) -> Result {
        let api = &self.world.aws.apigateway;
        let name = self.name();
        let created = api
            .create_rest_api()
            .name(&name)
            .send()
            .await
            .during(&name)?;
        created.id().during(&name)?.clone_into(&mut self.id);
        self.world.will_remove_api(&self.id);
        let resources = api.get_resources().rest_api_id(&self.id).send().await?;
        let root = resources
            .items()
            .first()
            .and_then(|root| root.id())
            .during("the root")?;
        self.orders = self.resource(root, "orders").await?;
        let order = self.resource(&self.orders, "{id}").await?;
        self.method(&self.orders, &[]).await?;
        self.method(&order, &["method.request.path.id"]).await?;
        self.deploy().await
    }

    /// Has the stage serve the API as it is edited by now.
    pub async fn deploy(&self) -> Result {
        let deployment = self.world.aws.apigateway.create_deployment();
        let deployment = deployment.rest_api_id(&self.id).stage_name(STAGE);
        deployment.send().await?;
        Ok(())
    }

    async fn resource(&self, parent: &str, part: &str) -> Result<String> {
        let request = self.world.aws.apigateway.create_resource();
        let request = request.rest_api_id(&self.id).parent_id(parent);
        let created = request.path_part(part).send().await.during(part)?;
        Ok(created.id().during(part)?.to_owned())
    }

    async fn method(&self, resource: &str, cache_key: &[&str]) -> Result {
        let api = &self.world.aws.apigateway;
        let mut method = api
            .put_method()
            .rest_api_id(&self.id)
            .resource_id(resource)
            .http_method("GET")
            .authorization_type("NONE");
        for parameter in cache_key {
            method = method.request_parameters(*parameter, true);
        }
        method.send().await?;
        let keys = cache_key.iter().map(|key| (*key).to_owned()).collect();
        api.put_integration()
            .rest_api_id(&self.id)
            .resource_id(resource)
            .http_method("GET")
            .r#type(IntegrationType::Mock)
            .set_cache_key_parameters(Some(keys))
            .send()
            .await?;
        Ok(())
    }

    /// Adds so many resources, `/p1` and on, deploys them, and caches them instead.
    pub async fn many(&mut self, resources: usize) -> Result {
        let api = &self.world.aws.apigateway;
        let found = api.get_resources().rest_api_id(&self.id).send().await?;
        let root = found.items().iter().find(|found| found.path() == Some("/"));
        let root = root.and_then(|root| root.id()).during("the root")?;
        let mut cached = Vec::new();
        for nth in 1..=resources {
            let resource = self.resource(root, &format!("p{nth}")).await?;
            self.method(&resource, &[]).await?;
            cached.push(json!({"path": format!("/p{nth}")}));
        }
        self.deploy().await?;
        self.policy["targets"][0]["action"]["resources"] = json!(cached);
        self.world.put_policy(&self.policy).await
    }

    /// Puts an authorizer before `GET /orders`, in the API as it is edited.
    pub async fn authorize(&self) -> Result {
        let api = &self.world.aws.apigateway;
        let authorizer = api
            .create_authorizer()
            .rest_api_id(&self.id)
            .name("who")
            .r#type(aws_sdk_apigateway::types::AuthorizerType::Token)
            .authorizer_uri("arn:aws:lambda:us-east-1:123456789012:function:who")
            .identity_source("method.request.header.X-Token")
            .send()
            .await?;
        let authorizer = authorizer.id().during("the authorizer")?;
        self.let_in(&[
            ("/authorizationType", "CUSTOM"),
            ("/authorizerId", authorizer),
        ])
        .await
    }

    /// Lets everyone in to `GET /orders` again, in the API as it is edited.
    pub async fn open(&self) -> Result {
        self.let_in(&[("/authorizationType", "NONE")]).await
    }

    async fn let_in(&self, changes: &[(&str, &str)]) -> Result {
        let operations = changes.iter().map(|(path, value)| {
            let operation = PatchOperation::builder().op(Op::Replace);
            operation.path(*path).value(*value).build()
        });
        let request = self.world.aws.apigateway.update_method();
        let request = request.rest_api_id(&self.id).resource_id(&self.orders);
        let request = request.http_method("GET");
        let request = request.set_patch_operations(Some(operations.collect()));
        request.send().await?;
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}-api", self.world.name)
    }

    /// Changes settings of the stage, as an engineer would.
    pub async fn set(&self, settings: &[(&str, &str)]) -> Result {
        let operations = settings.iter().map(|(path, value)| {
            PatchOperation::builder()
                .op(Op::Replace)
                .path(*path)
                .value(*value)
                .build()
        });
        let request = self.world.aws.apigateway.update_stage();
        let request = request.rest_api_id(&self.id).stage_name(STAGE);
        let request = request.set_patch_operations(Some(operations.collect()));
        request.send().await?;
        Ok(())
    }

    /// The stage as it is.
    pub async fn shown(&self) -> Result<Shown> {
        let request = self.world.aws.apigateway.get_stage();
        let request = request.rest_api_id(&self.id).stage_name(STAGE);
        let stage = request.send().await?;
        Ok(Shown {
            cluster: stage.cache_cluster_enabled(),
            settings: stage.method_settings().cloned().unwrap_or_default(),
        })
    }

    /// Puts on record what the stage served lately.
    pub async fn served(&self, requests: u32, server_errors: u32) -> Result {
        let lately = Clock::system().now() - TimeDelta::seconds(20);
        let name = self.name();
        let dimension =
            |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
        let data = [("Count", requests), ("5XXError", server_errors)].map(|(metric, value)| {
            MetricDatum::builder()
                .metric_name(metric)
                .unit(StandardUnit::Count)
                .value(f64::from(value))
                .timestamp(aws_smithy_types::DateTime::from_secs(lately.timestamp()))
                .dimensions(dimension("ApiName", &name))
                .dimensions(dimension("Stage", STAGE))
                .build()
        });
        let request = self.world.aws.cloudwatch.put_metric_data();
        let request = request.namespace("AWS/ApiGateway");
        request.set_metric_data(Some(data.into())).send().await?;
        Ok(())
    }

    /// A run on the alarm's event.
    #[must_use]
    pub fn run(&self, proxy: &Proxy) -> Run {
        Run::new(&self.binary, self.world, proxy, &self.event).of(cache_fallback::NAME)
    }
}
