//! `cargo xtask demo outage`: a sample API is broken in three ways, and each remediation shown as a client sees it.
//!
//! The emulator counts no requests for `CloudWatch`, so that the demo publishes what its own client got; it serves
//! nothing from a stage's cache, so that the stage's settings are shown besides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::time::{Duration, SystemTime};

use aws_sdk_apigateway::types::{Op, PatchOperation};
use aws_sdk_cloudformation::types::Parameter;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StateValue};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::AliasRoutingConfiguration;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::cloud::{self, Cloud};
use crate::functions::Profile;
use crate::progress::Progress;
use crate::{Error, Result};

/// The story's own cloud.
const CLOUD: &str = "outage";
const SAMPLE: &str = include_str!("../../cloud/outage-sample.yaml");
/// The custom domain that a local cloud's template is deployed with.
const DOMAIN: &str = "api.dataforge.localhost";
const PATH: &str = "/dashboard";
const API: &str = "dataforge-api";
const STAGE: &str = "prod";
const FUNCTION: &str = "dataforge-api";
const ALIAS: &str = "live";
/// Requests of the client in each look.
const REQUESTS: u32 = 100;
/// How long a remediation may take before the demo gives up.
const PATIENCE: Duration = Duration::from_mins(4);
/// The secret of the demo's responders, and its SHA-256.
const SECRET: &str = "open sesame";
const SECRET_SHA256: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";
/// A version that fails whatever it is asked.
const BROKEN: &str = "def handle(event, context):\n    raise RuntimeError('deployed too early')\n";
/// The remediations, as the template names them.
const REMEDIATIONS: [&str; 3] = ["AliasRollback", "CacheFallback", "MaintenancePage"];

/// Shows the API's outage from the first bad answer to the last.
pub(super) async fn run(progress: Progress, keep: bool) -> Result<()> {
    cloud::down(CLOUD).await?;
    let deployed = cloud::up(CLOUD, Profile::Release).await?;
    let story = tell(progress, deployed).await;
    if keep {
        progress.say(format_args!(
            "the cloud stays up: eval \"$(cargo xtask cloud env --name {CLOUD})\", and `cargo xtask cloud down --name {CLOUD}` in the end"
        ));
    } else {
        cloud::down(CLOUD).await?;
    }
    story?;
    println!("outage: rollback ok, cache ok, maintenance ok, all reverted");
    Ok(())
}

async fn tell(progress: Progress, deployed: Cloud) -> Result<()> {
    let sample = progress
        .step(
            "create the sample API, its domain and its distribution",
            sample(&deployed),
        )
        .await?;
    let origin = format!(
        "127.0.0.1:{}/_aws/execute-api/{}/{STAGE}",
        deployed.port, sample["ApiId"]
    );
    let parameters = [
        ("CachedApiId", sample["ApiId"].clone()),
        ("CachedApiPath", PATH.to_owned()),
        ("CachedApiAnswersAllClientsAlike", "true".to_owned()),
        ("RollbackFirstInSeconds", "1".to_owned()),
        ("ServiceOrigin", origin),
        ("MaintenanceRaise", "automatically".to_owned()),
        ("MaintenanceBypassSha256", SECRET_SHA256.to_owned()),
    ];
    let cloud = cloud::up_with(CLOUD, Profile::Release, &parameters).await?;
    let outage = Outage::new(cloud, &sample).await?;
    progress
        .step(
            "name the sample's addresses in the policies, and end what is temporary with the alarm",
            outage.prepare(),
        )
        .await?;
    outage.roll_back().await?;
    outage.fall_back_to_caching().await?;
    outage.put_up_the_page().await
}

/// Creates the service, and gives its addresses.
async fn sample(cloud: &Cloud) -> Result<BTreeMap<String, String>> {
    const DOING: &str = "create the sample API";
    let client = aws_sdk_cloudformation::Client::new(&cloud.sdk_config().await);
    let parameter = |key: &str, value: &str| {
        let parameter = Parameter::builder().parameter_key(key);
        parameter.parameter_value(value).build()
    };
    let edge = cloud.output("MaintenancePageEdgeFunctionArn")?;
    client
        .create_stack()
        .stack_name("sample")
        .template_body(SAMPLE)
        .capabilities(aws_sdk_cloudformation::types::Capability::CapabilityIam)
        .parameters(parameter("EdgeFunctionArn", edge))
        .parameters(parameter("DomainName", DOMAIN))
        .parameters(parameter("Port", &cloud.port.to_string()))
        .send()
        .await
        .map_err(Error::aws(DOING))?;
    let created = wait_until("the sample API", async || {
        let stacks = client.describe_stacks().stack_name("sample").send().await;
        let stacks = stacks.map_err(Error::aws(DOING))?;
        let stack = stacks.stacks().first().cloned();
        let status = stack.as_ref().and_then(|stack| stack.stack_status());
        match status.map_or("", |status| status.as_str()) {
            "CREATE_COMPLETE" => Ok(stack),
            "CREATE_IN_PROGRESS" => Ok(None),
            other => Err(Error::aws(DOING)(other.to_owned())),
        }
    })
    .await?;
    let outputs = created.outputs().iter().filter_map(|output| {
        Some((
            output.output_key()?.to_owned(),
            output.output_value()?.to_owned(),
        ))
    });
    Ok(outputs.collect())
}

/// Asks again and again until there is an answer.
async fn wait_until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        look.tick().await;
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Error::aws("wait in vain")(what.to_owned()));
        }
    }
}

/// Whom a client asks, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anyone,
    Responder,
}

struct Outage {
    cloud: Cloud,
    api: String,
    distribution: String,
    ledger: Ledger,
    http: Client<HttpConnector, Empty<Bytes>>,
    apigateway: aws_sdk_apigateway::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
    eventbridge: aws_sdk_eventbridge::Client,
    lambda: aws_sdk_lambda::Client,
    ssm: aws_sdk_ssm::Client,
}

impl Outage {
    async fn new(cloud: Cloud, sample: &BTreeMap<String, String>) -> Result<Self> {
        let config = cloud.sdk_config().await;
        let name = &sample["DistributionDomainName"];
        let label = name.split('.').next().unwrap_or_default();
        Ok(Self {
            api: sample["ApiId"].clone(),
            distribution: format!("{label}.cloudfront.localhost"),
            ledger: Ledger::new(&cloud, &config)?,
            http: Client::builder(TokioExecutor::new()).build_http(),
            apigateway: aws_sdk_apigateway::Client::new(&config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            eventbridge: aws_sdk_eventbridge::Client::new(&config),
            lambda: aws_sdk_lambda::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            cloud,
        })
    }

    /// Ends stabilisation at once, names what the template's defaults cannot, and lets one rule work at a time: the
    /// emulator's alarms overlook dimensions, so that one act's metrics would raise another's alarm.
    async fn prepare(&self) -> Result<()> {
        for remediation in REMEDIATIONS {
            self.enable_rule(remediation, false).await?;
            let parameter = format!("{remediation}PolicyParameterName");
            let parameter = self.cloud.output(&parameter)?;
            let held = self.ssm.get_parameter().name(parameter).send().await;
            let held = held.map_err(Error::aws("read a policy"))?;
            let text = held.parameter().and_then(|held| held.value());
            let mut policy: Value = serde_json::from_str(text.unwrap_or_default())
                .map_err(Error::aws("read a policy"))?;
            for target in policy["targets"].as_array_mut().into_iter().flatten() {
                let name = target["name"].as_str().unwrap_or_default().to_owned();
                let action = &mut target["action"];
                if action["term"].is_object() {
                    action["term"]["stabilisation_seconds"] = json!(0);
                }
                // So long is what failed before held against the backend.
                if action["recovered_below"].is_number() {
                    action["window_seconds"] = json!(120);
                }
                match name.as_str() {
                    "dashboard" => action["url"] = json!(self.url(&self.distribution)),
                    "api" if action["url"].is_string() => action["url"] = json!(self.url(DOMAIN)),
                    _ => {}
                }
            }
            self.ssm
                .put_parameter()
                .name(parameter)
                .value(policy.to_string())
                .overwrite(true)
                .send()
                .await
                .map_err(Error::aws("write a policy"))?;
            // A new process reads the policy.
            let function = self.cloud.output(&format!("{remediation}FunctionName"))?;
            self.lambda
                .update_function_configuration()
                .function_name(function)
                .description("Takes part in the demo")
                .send()
                .await
                .map_err(Error::aws("restart a function"))?;
        }
        Ok(())
    }

    async fn enable_rule(&self, remediation: &str, enabled: bool) -> Result<()> {
        const DOING: &str = "find a remediation's rule";
        let function = self.cloud.output(&format!("{remediation}FunctionName"))?;
        let arn = format!(
            "arn:aws:lambda:{}:{}:function:{function}",
            self.cloud.region, self.cloud.account_id
        );
        let rules = self.eventbridge.list_rule_names_by_target();
        let rules = rules.target_arn(arn).send().await;
        let rules = rules.map_err(Error::aws(DOING))?;
        let rule = rules
            .rule_names()
            .iter()
            .find(|rule| rule.contains("Alarms"));
        let rule = rule.ok_or_else(|| Error::aws(DOING)("it has none"))?;
        let changed = if enabled {
            let request = self.eventbridge.enable_rule().name(rule);
            request.send().await.err().map(Error::aws(DOING))
        } else {
            let request = self.eventbridge.disable_rule().name(rule);
            request.send().await.err().map(Error::aws(DOING))
        };
        changed.map_or(Ok(()), Err)
    }

    /// A version that fails takes half of the traffic, and loses it.
    async fn roll_back(&self) -> Result<()> {
        println!("\nalias-rollback: a version that fails takes half of the traffic");
        self.clients("before", &[DOMAIN]).await?;
        self.deploy_broken().await?;
        let seen = self.clients("during", &[DOMAIN]).await?;
        let failed = seen.server_errors();
        let (good, bad) = (Some("1"), Some("2"));
        self.count_function(good, REQUESTS - failed, 0).await?;
        self.count_function(bad, failed, failed).await?;
        let alarm = self.cloud.output("ApiFunctionErrorsHighAlarmName")?;
        self.watch("AliasRollback", alarm).await?;
        self.count_function(None, REQUESTS, failed).await?;
        wait_until("the rollback", async || {
            Ok((self.weights().await? == 0).then_some(()))
        })
        .await?;
        self.evidence(alarm, "applied").await?;
        let after = self.clients("after", &[DOMAIN]).await?;
        self.end("AliasRollback", alarm).await?;
        after.only(200)
    }

    /// A part of the requests fails, whatever the version.
    async fn fall_back_to_caching(&self) -> Result<()> {
        println!("\ncache-fallback: two requests in five fail, whatever the version");
        let before = self.clients("before", &[DOMAIN]).await?;
        let original = self.stage().await?;
        println!("           the stage: {original}");
        self.fail("0.4").await?;
        let seen = self.clients("during", &[DOMAIN]).await?;
        self.count_requests(&seen, true).await?;
        let alarm = self.cloud.output("ApiHigh5xxErrorRateAlarmName")?;
        self.watch("CacheFallback", alarm).await?;
        self.count_requests(&seen, false).await?;
        wait_until("the cache", async || {
            // The rollback has the first word, and the schedule comes back when its time is over.
            self.look("CacheFallback").await?;
            Ok(self
                .stage()
                .await?
                .starts_with("cache cluster on")
                .then_some(()))
        })
        .await?;
        self.look("CacheFallback").await?;
        wait_until("the cache's verification", async || {
            self.look("CacheFallback").await?;
            self.told(alarm, "applied").await
        })
        .await?;
        println!("           the stage: {}", self.stage().await?);
        self.evidence(alarm, "applied").await?;
        self.fail("0").await?;
        self.set_alarm(alarm, StateValue::Ok).await?;
        // The cache stays for as long as what it does not answer is counted as failing.
        wait_until("the stage as it was", async || {
            self.look("CacheFallback").await?;
            Ok((self.stage().await? == original).then_some(()))
        })
        .await?;
        self.evidence(alarm, "reverted").await?;
        let after = self.clients("after", &[DOMAIN]).await?;
        println!("           the stage: {}", self.stage().await?);
        self.end("CacheFallback", alarm).await?;
        before.only(200)?;
        after.only(200)
    }

    /// Nothing is answered any more.
    async fn put_up_the_page(&self) -> Result<()> {
        println!("\nmaintenance-page: every request fails");
        let hosts: [&str; 2] = [DOMAIN, &self.distribution];
        self.clients("before", &hosts).await?;
        self.fail("1").await?;
        self.clients("during", &hosts).await?.only(500)?;
        let alarm = self.cloud.output("ApiOutageAlarmName")?;
        self.watch("MaintenancePage", alarm).await?;
        self.set_alarm(alarm, StateValue::Alarm).await?;
        wait_until("the page at both", async || {
            let pages = self.pages(&hosts).await?;
            Ok((pages == hosts.len()).then_some(()))
        })
        .await?;
        self.evidence(alarm, "applied").await?;
        self.clients("page up", &hosts).await?.only(503)?;
        self.responders(&hosts).await?;
        self.fail("0").await?;
        self.set_alarm(alarm, StateValue::Ok).await?;
        wait_until("the page's end", async || {
            Ok((self.pages(&hosts).await? == 0).then_some(()))
        })
        .await?;
        self.evidence(alarm, "reverted").await?;
        let after = self.clients("after", &hosts).await?;
        self.end("MaintenancePage", alarm).await?;
        after.only(200)
    }

    /// Deploys a version that fails, as a canary.
    async fn deploy_broken(&self) -> Result<()> {
        const DOING: &str = "deploy the broken version";
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default();
        let stored = stored.compression_method(zip::CompressionMethod::Stored);
        archive
            .start_file("index.py", stored)
            .map_err(Error::aws(DOING))?;
        archive
            .write_all(BROKEN.as_bytes())
            .map_err(Error::aws(DOING))?;
        let archive = archive.finish().map_err(Error::aws(DOING))?.into_inner();
        let update = self.lambda.update_function_code().function_name(FUNCTION);
        let update = update.zip_file(Blob::new(archive)).publish(true);
        let update = update.send().await.map_err(Error::aws(DOING))?;
        let version = update.version().unwrap_or_default();
        let weights = AliasRoutingConfiguration::builder();
        let weights = weights.additional_version_weights(version, 0.5).build();
        self.lambda
            .update_alias()
            .function_name(FUNCTION)
            .name(ALIAS)
            .routing_config(weights)
            .send()
            .await
            .map_err(Error::aws(DOING))?;
        Ok(())
    }

    /// How many versions share the alias with its own.
    async fn weights(&self) -> Result<usize> {
        let alias = self.lambda.get_alias().function_name(FUNCTION).name(ALIAS);
        let alias = alias.send().await.map_err(Error::aws("read the alias"))?;
        let weights = alias
            .routing_config()
            .and_then(AliasRoutingConfiguration::additional_version_weights);
        Ok(weights.map_or(0, std::collections::HashMap::len))
    }

    /// The stage's cache, in one line.
    async fn stage(&self) -> Result<String> {
        let stage = self.apigateway.get_stage();
        let stage = stage.rest_api_id(&self.api).stage_name(STAGE).send().await;
        let stage = stage.map_err(Error::aws("read the stage"))?;
        let settings = stage.method_settings().into_iter().flatten();
        let settings: BTreeMap<_, _> = settings
            .map(|(key, setting)| (key, setting.cache_ttl_in_seconds()))
            .collect();
        Ok(if stage.cache_cluster_enabled() {
            format!("cache cluster on, seconds by method {settings:?}")
        } else {
            format!("cache cluster off, seconds by method {settings:?}")
        })
    }

    /// Has the backend fail a share of the requests.
    async fn fail(&self, share: &str) -> Result<()> {
        let operation = PatchOperation::builder().op(Op::Replace);
        let operation = operation.path("/variables/failing").value(share).build();
        let stage = self.apigateway.update_stage();
        let stage = stage.rest_api_id(&self.api).stage_name(STAGE);
        let stage = stage.patch_operations(operation).send().await;
        stage.map_err(Error::aws("break the backend"))?;
        Ok(())
    }

    /// Lets a rule work from an alarm that is at OK.
    async fn watch(&self, remediation: &str, alarm: &str) -> Result<()> {
        self.set_alarm(alarm, StateValue::Ok).await?;
        self.enable_rule(remediation, true).await
    }

    async fn end(&self, remediation: &str, alarm: &str) -> Result<()> {
        self.enable_rule(remediation, false).await?;
        self.set_alarm(alarm, StateValue::Ok).await
    }

    async fn set_alarm(&self, alarm: &str, state: StateValue) -> Result<()> {
        self.cloudwatch
            .set_alarm_state()
            .alarm_name(alarm)
            .state_value(state)
            .state_reason("the demo's client says so")
            .send()
            .await
            .map_err(Error::aws("set an alarm"))?;
        Ok(())
    }

    async fn count_function(
        &self,
        version: Option<&str>,
        invocations: u32,
        errors: u32,
    ) -> Result<()> {
        let resource = format!("{FUNCTION}:{ALIAS}");
        let mut dimensions = vec![("FunctionName", FUNCTION), ("Resource", &resource)];
        dimensions.extend(version.map(|version| ("ExecutedVersion", version)));
        let data = [("Invocations", invocations), ("Errors", errors)];
        let data = data.map(|(metric, value)| datum(metric, f64::from(value), &dimensions));
        self.publish("AWS/Lambda", data.into()).await
    }

    /// Publishes what the client got, as counts of the stage or as a share of the API.
    async fn count_requests(&self, seen: &Seen, of_the_stage: bool) -> Result<()> {
        let errors = f64::from(seen.server_errors());
        let data = if of_the_stage {
            let stage = [("ApiName", API), ("Stage", STAGE)];
            vec![
                datum("Count", f64::from(REQUESTS), &stage),
                datum("5XXError", errors, &stage),
            ]
        } else {
            vec![datum(
                "5XXError",
                errors / f64::from(REQUESTS),
                &[("ApiName", API)],
            )]
        };
        self.publish("AWS/ApiGateway", data).await
    }

    async fn publish(&self, namespace: &str, data: Vec<MetricDatum>) -> Result<()> {
        let request = self.cloudwatch.put_metric_data().namespace(namespace);
        let request = request.set_metric_data(Some(data)).send().await;
        request.map_err(Error::aws("publish metrics"))?;
        Ok(())
    }

    /// Has the remediation's schedule look now.
    async fn look(&self, remediation: &str) -> Result<()> {
        let function = self.cloud.output(&format!("{remediation}FunctionName"))?;
        let schedule = json!({"source": "aws.events", "detail-type": "Scheduled Event"});
        let invoke = self.lambda.invoke().function_name(function);
        let invoke = invoke.payload(Blob::new(schedule.to_string())).send().await;
        invoke.map_err(Error::aws("have the schedule look"))?;
        Ok(())
    }

    fn alarm_arn(&self, alarm: &str) -> String {
        let Cloud {
            region, account_id, ..
        } = &self.cloud;
        format!("arn:aws:cloudwatch:{region}:{account_id}:alarm:{alarm}")
    }

    /// Whether the timeline tells such a thing.
    async fn told(&self, alarm: &str, kind: &str) -> Result<Option<()>> {
        let Some(incident) = self.ledger.incident(&self.alarm_arn(alarm)).await? else {
            return Ok(None);
        };
        let timeline = self.ledger.timeline(&incident).await?;
        Ok(timeline.iter().any(|line| line.kind == kind).then_some(()))
    }

    /// Prints what the timeline tells of it, once it does.
    async fn evidence(&self, alarm: &str, kind: &str) -> Result<()> {
        wait_until("the timeline", async || self.told(alarm, kind).await).await?;
        let incident = self.ledger.incident(&self.alarm_arn(alarm)).await?;
        let timeline = self.ledger.timeline(&incident.unwrap_or_default()).await?;
        for line in timeline.iter().filter(|line| line.kind == kind) {
            println!("           {}  {:<9} {}", line.at, line.kind, line.summary);
        }
        Ok(())
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}{PATH}", self.cloud.port)
    }

    /// What clients get from each host, printed.
    async fn clients(&self, when: &str, hosts: &[&str]) -> Result<Seen> {
        let mut all = Seen::default();
        for host in hosts {
            let mut seen = Seen::default();
            for _ in 0..REQUESTS {
                let (status, body) = self.get(host, Caller::Anyone).await?;
                seen.note(status, &body);
                all.note(status, &body);
            }
            println!("  {when:<8} {host}{PATH}: {seen}");
        }
        Ok(all)
    }

    /// How many of the hosts show the page.
    async fn pages(&self, hosts: &[&str]) -> Result<usize> {
        let mut pages = 0;
        for host in hosts {
            let (status, body) = self.get(host, Caller::Anyone).await?;
            pages += usize::from(status == 503 && body.contains("forgeguard-incident"));
        }
        Ok(pages)
    }

    /// Shows that responders get the service's own answer, which is still a failure.
    async fn responders(&self, hosts: &[&str]) -> Result<()> {
        for host in hosts {
            let (status, body) = self.get(host, Caller::Responder).await?;
            println!("  bypass   {host}{PATH}: {status} {body}");
            if status != 500 {
                return Err(Error::aws("pass the page as a responder")(format!(
                    "{status} {body}"
                )));
            }
        }
        Ok(())
    }

    async fn get(&self, host: &str, caller: Caller) -> Result<(u16, String)> {
        const DOING: &str = "ask as a client";
        let mut request = Request::get(format!("{}{PATH}", self.cloud.endpoint))
            .header("host", format!("{host}:{}", self.cloud.port));
        if caller == Caller::Responder {
            request = request
                .header("x-maintenance-bypass", SECRET)
                .header("x-api-key", self.bypass_key().await?);
        }
        let request = request.body(Empty::new()).map_err(Error::aws(DOING))?;
        let answer = self
            .http
            .request(request)
            .await
            .map_err(Error::aws(DOING))?;
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(Error::aws(DOING))?;
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        ))
    }

    async fn bypass_key(&self) -> Result<String> {
        let key = self.cloud.output("MaintenancePageBypassKeyId")?;
        let key = self
            .apigateway
            .get_api_key()
            .api_key(key)
            .include_value(true);
        let key = key
            .send()
            .await
            .map_err(Error::aws("read the bypass key"))?;
        Ok(key.value().unwrap_or_default().to_owned())
    }
}

fn datum(metric: &str, value: f64, dimensions: &[(&str, &str)]) -> MetricDatum {
    let dimensions = dimensions.iter().map(|(name, value)| {
        let dimension = Dimension::builder().name(*name);
        dimension.value(*value).build()
    });
    // What is counted now is not yet in a window that ends now.
    #[allow(clippy::disallowed_methods)] // The emulator's clock is the machine's.
    let lately = SystemTime::from(chrono::Utc::now() - chrono::TimeDelta::seconds(20));
    MetricDatum::builder()
        .metric_name(metric)
        .value(value)
        .timestamp(lately.into())
        .set_dimensions(Some(dimensions.collect()))
        .build()
}

/// What clients got, by status, with one body of each.
#[derive(Debug, Default)]
struct Seen {
    statuses: BTreeMap<u16, (u32, String)>,
}

impl Seen {
    fn note(&mut self, status: u16, body: &str) {
        let (count, kept) = self.statuses.entry(status).or_default();
        *count += 1;
        body.clone_into(kept);
    }

    fn server_errors(&self) -> u32 {
        let errors = self.statuses.range(500..);
        errors.map(|(_, (count, _))| count).sum()
    }

    /// Fails unless every answer had this status.
    fn only(&self, status: u16) -> Result<()> {
        if self.statuses.keys().all(|seen| *seen == status) {
            return Ok(());
        }
        Err(Error::aws("see every client served as it should be")(
            self.to_string(),
        ))
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = String::new();
        for (status, (count, body)) in &self.statuses {
            let separator = if told.is_empty() { "" } else { "; " };
            let shown = match body
                .split_once("<h1>")
                .and_then(|(_, rest)| rest.split_once("</h1>"))
            {
                Some((heading, _)) => format!("the page: {heading}"),
                None => body.clone(),
            };
            let _ = write!(told, "{separator}{count} x {status} {shown}");
        }
        f.write_str(&told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_what_they_got() {
        let mut seen = Seen::default();
        seen.note(200, "up");
        seen.note(200, "up");
        seen.note(503, "<html><h1>Soon</h1></html>");
        assert_eq!(seen.to_string(), "2 x 200 up; 1 x 503 the page: Soon");
        assert_eq!(seen.server_errors(), 1);
        assert!(seen.only(200).is_err());
    }
}
