//! The deployed stack, for one test at a time: a remediation's function, role and rule, the queues and the ledger, put
//! back as they were.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{Environment, InvocationType};
use chrono::TimeDelta;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use shared::clock::Clock;
use tokio::sync::Mutex;

use crate::failure::{During, Failure, Result, all, ensure};
use crate::world::{Alarm, Ingestion, Queue, SOON, World, scenario, wait_until};

/// Actions that Lambda itself does with a function's role, to write its log and to keep what failed for good.
const LOGS: [&str; 2] = ["logs:CreateLogStream", "logs:PutLogEvents"];
const KEEPS: &str = "sqs:SendMessage";

/// Only one test at a time may use the stack.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The deployed stack.
#[derive(Debug)]
pub struct Stack<'a> {
    /// A test's own world beside it, whose clients and helpers serve for the stack's resources too.
    pub world: &'a World,
    /// The function's name.
    pub function: String,
    /// The name of the role that it runs with.
    pub role: String,
    /// Its queues.
    pub ingestion: Ingestion,
    /// Where events go that the function failed on for good.
    pub failures: Queue,
    /// The alarm on the error rate.
    pub error_rate: Alarm,
    /// The alarm on the depth of the dead-letter queue.
    pub depth: Alarm,
    /// The ledger's table.
    pub ledger: String,
    log_group: String,
    parameter: String,
    rule: String,
    before: Before,
}

/// What is put back in the end.
#[derive(Debug)]
struct Before {
    policy: String,
    role_policies: Vec<RolePolicy>,
    timeout: i32,
    variables: HashMap<String, String>,
}

/// An inline policy of a role.
#[derive(Debug, Clone, PartialEq)]
pub struct RolePolicy {
    /// Its name.
    pub name: String,
    /// Its document.
    pub document: Value,
}

/// What an invocation answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The response, or the error's object.
    pub payload: Value,
    /// Whether it is an error.
    pub failed: bool,
}

/// Runs a test on the deployed stack, alone, its queues and ledger empty and the remediation's rule disabled, and puts
/// the stack back however the test ends. `remediation` is its name in the template.
pub async fn deployed(
    remediation: &str,
    label: &str,
    test: impl AsyncFnOnce(&Stack<'_>) -> Result,
) -> Result {
    let _alone = ALONE.lock().await;
    scenario(label, async |world| {
        let stack = Stack::find(world, remediation).await?;
        stack.clear().await?;
        let ended = AssertUnwindSafe(test(&stack)).catch_unwind().await;
        let restored = stack.restore().await;
        match ended {
            Ok(ended) => ended.and(restored),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
    .await
}

impl<'a> Stack<'a> {
    async fn find(world: &'a World, remediation: &str) -> Result<Self> {
        let output = |name: &str| world.cloud.output(name).map(str::to_owned);
        let own = |name: &str| output(&format!("{remediation}{name}"));
        let function = own("FunctionName")?;
        let role = own("FunctionRoleName")?;
        let parameter = own("PolicyParameterName")?;
        let configuration = world
            .aws
            .lambda
            .get_function_configuration()
            .function_name(&function)
            .send()
            .await?;
        let arn = configuration.function_arn().during(&function)?;
        let rules = world
            .aws
            .events
            .list_rule_names_by_target()
            .target_arn(arn)
            .send()
            .await?;
        let policy = world
            .aws
            .ssm
            .get_parameter()
            .name(&parameter)
            .send()
            .await?;
        let policy = policy
            .parameter()
            .and_then(|held| held.value())
            .during(&parameter)?
            .to_owned();
        let variables = configuration
            .environment()
            .and_then(|environment| environment.variables());
        Ok(Self {
            ingestion: Ingestion {
                source: world.existing_queue(&output("IngestionQueueUrl")?).await?,
                dlq: world.existing_queue(&output("IngestionDlqUrl")?).await?,
                quarantine: world.existing_queue(&output("QuarantineQueueUrl")?).await?,
            },
            failures: world.existing_queue(&own("FailureQueueUrl")?).await?,
            error_rate: world
                .existing_alarm(&output("IngestionErrorRateHighAlarmName")?)
                .await?,
            depth: world
                .existing_alarm(&output("IngestionDlqDepthHighAlarmName")?)
                .await?,
            ledger: output("LedgerTableName")?,
            log_group: own("LogGroupName")?,
            // Beside it there may be a rule on a schedule.
            rule: rules
                .rule_names()
                .iter()
                .find(|name| name.contains("Alarms"))
                .during("the rule of the function")?
                .clone(),
            before: Before {
                policy,
                role_policies: role_policies(world, &role).await?,
                timeout: configuration.timeout().during(&function)?,
                variables: variables.cloned().unwrap_or_default(),
            },
            world,
            function,
            role,
            parameter,
        })
    }

    /// Empties queues and ledger, sets the alarms to OK, and disables the rule.
    pub async fn clear(&self) -> Result {
        let Self {
            world, ingestion, ..
        } = self;
        world
            .aws
            .events
            .disable_rule()
            .name(&self.rule)
            .send()
            .await
            .during(&self.rule)?;
        for alarm in [&self.error_rate, &self.depth] {
            world.set_alarm(&alarm.name, StateValue::Ok).await?;
        }
        for queue in [
            &ingestion.source,
            &ingestion.dlq,
            &ingestion.quarantine,
            &self.failures,
        ] {
            world
                .aws
                .sqs
                .purge_queue()
                .queue_url(&queue.url)
                .send()
                .await
                .during(&queue.name)?;
        }
        for item in self.ledger().await? {
            let key = |name: &str| Some(AttributeValue::S(item[name].as_str()?.to_owned()));
            let request = world.aws.dynamodb.delete_item().table_name(&self.ledger);
            let request = request.set_key(Some(
                [("pk", key("pk")), ("sk", key("sk"))]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                    .collect(),
            ));
            request.send().await?;
        }
        Ok(())
    }

    async fn restore(&self) -> Result {
        self.put_role_policies(&self.before.role_policies).await?;
        self.put_policy_text(&self.before.policy).await?;
        self.configure(self.before.timeout, self.before.variables.clone())
            .await?;
        self.clear().await?;
        self.enable_rule().await
    }

    /// Lets the alarms' events through to the function.
    pub async fn enable_rule(&self) -> Result {
        self.world
            .aws
            .events
            .enable_rule()
            .name(&self.rule)
            .send()
            .await
            .during(&self.rule)?;
        Ok(())
    }

    /// The policy document as it was deployed.
    pub fn policy(&self) -> Result<Value> {
        serde_json::from_str(&self.before.policy).during(&self.parameter)
    }

    /// Puts another policy document.
    pub async fn put_policy(&self, document: &Value) -> Result {
        self.put_policy_text(&document.to_string()).await
    }

    async fn put_policy_text(&self, text: &str) -> Result {
        let request = self
            .world
            .aws
            .ssm
            .put_parameter()
            .name(&self.parameter)
            .value(text);
        request
            .overwrite(true)
            .send()
            .await
            .during(&self.parameter)?;
        Ok(())
    }

    /// Makes the next invocation a cold start, with this timeout.
    pub async fn restart(&self, timeout: Option<Duration>) -> Result {
        let timeout = timeout.map_or(Ok(self.before.timeout), |given| {
            i32::try_from(given.as_secs())
        })?;
        let mut variables = self.before.variables.clone();
        variables.insert(
            "FORGEGUARD_TEST_RESTART".to_owned(),
            format!("{:x}", fastrand::u64(..)),
        );
        self.configure(timeout, variables).await
    }

    async fn configure(&self, timeout: i32, variables: HashMap<String, String>) -> Result {
        let lambda = &self.world.aws.lambda;
        lambda
            .update_function_configuration()
            .function_name(&self.function)
            .timeout(timeout)
            .environment(
                Environment::builder()
                    .set_variables(Some(variables))
                    .build(),
            )
            .send()
            .await
            .during(&self.function)?;
        wait_until("the function is updated", SOON, async || {
            let request = lambda
                .get_function_configuration()
                .function_name(&self.function);
            let status = request.send().await?.last_update_status().cloned();
            Ok(status
                .is_none_or(|status| status.as_str() == "Successful")
                .then_some(()))
        })
        .await
    }

    /// Invokes the function and waits for its answer.
    pub async fn invoke(&self, event: &Value) -> Result<Answered> {
        let request = self.world.aws.lambda.invoke().function_name(&self.function);
        let answer = request
            .invocation_type(InvocationType::RequestResponse)
            .payload(Blob::new(event.to_string()))
            .send()
            .await
            .during(&self.function)?;
        let payload = answer
            .payload()
            .map(|payload| payload.as_ref().to_vec())
            .unwrap_or_default();
        Ok(Answered {
            payload: serde_json::from_slice(&payload).during(&String::from_utf8_lossy(&payload))?,
            failed: answer.function_error().is_some(),
        })
    }

    /// Invokes the function as `EventBridge` does, without waiting.
    pub async fn invoke_later(&self, event: &Value) -> Result {
        let request = self.world.aws.lambda.invoke().function_name(&self.function);
        request
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(event.to_string()))
            .send()
            .await
            .during(&self.function)?;
        Ok(())
    }

    /// All items of the stack's ledger.
    pub async fn ledger(&self) -> Result<Vec<Value>> {
        self.world.items(&self.ledger).await
    }

    /// How many lines of a kind the timelines hold.
    pub async fn told(&self, kind: &str) -> Result<usize> {
        let items = self.ledger().await?;
        Ok(items.iter().filter(|item| item["kind"] == kind).count())
    }

    /// Lets all that is watched have been done two hours ago, and has the schedule look at it; gives what the timeline then
    /// says of what is not known.
    pub async fn looks_late_at_what_was_done(&self) -> Result<Vec<String>> {
        let long_ago = Clock::system().now() - TimeDelta::hours(2);
        let watched = |item: &&Value| {
            let sk = item["sk"].as_str();
            sk.is_some_and(|sk| sk.starts_with("watch#"))
        };
        let items = self.ledger().await?;
        for item in items.iter().filter(watched) {
            let body = item["body"].as_str().during("a watch's body")?;
            let mut watch: Value = serde_json::from_str(body)?;
            for time in ["started_at", "done_at"] {
                watch[time] = json!(long_ago);
            }
            let text =
                |value: &Value| AttributeValue::S(value.as_str().unwrap_or_default().to_owned());
            let request = self.world.aws.dynamodb.put_item();
            let request = request
                .table_name(&self.ledger)
                .item("pk", text(&item["pk"]))
                .item("sk", text(&item["sk"]))
                .item("body", AttributeValue::S(watch.to_string()))
                .item(
                    "done_at",
                    AttributeValue::N(long_ago.timestamp_millis().to_string()),
                );
            request.send().await?;
        }
        let schedule = json!({"source": "aws.events", "detail-type": "Scheduled Event"});
        let answer = self.invoke(&schedule).await?;
        ensure(!answer.failed, || answer.payload.to_string())?;
        let items = self.ledger().await?;
        ensure(!items.iter().any(|item| watched(&item)), || {
            "it is still watched".to_owned()
        })?;
        let lines = items.iter().filter(|item| item["kind"] == "not-known");
        let said = lines.map(|line| line["summary"].as_str().unwrap_or_default().to_owned());
        Ok(said.collect())
    }

    /// The role's inline policies, as deployed.
    #[must_use]
    pub fn role_policies(&self) -> &[RolePolicy] {
        &self.before.role_policies
    }

    /// Puts inline policies of the role.
    pub async fn put_role_policies(&self, policies: &[RolePolicy]) -> Result {
        put_role_policies(self.world, &self.role, policies).await
    }

    /// Takes away one action of the role's policies at a time: fails unless `work`, or what Lambda does with the role,
    /// then fails. There have to be at least so many.
    pub async fn needs_each_permission(
        &self,
        policies: &[RolePolicy],
        at_least: usize,
        work: impl AsyncFn() -> Result,
    ) -> Result {
        work().await.during("with all permissions")?;
        ensure(self.serves_lambda().await?, || {
            "Lambda may not do its part".to_owned()
        })?;
        let mut results = Vec::new();
        for (lacking, policy) in one_action_fewer(policies) {
            self.put_role_policies(&[policy]).await?;
            let shown = !self.serves_lambda().await.during(&lacking)? || work().await.is_err();
            self.put_role_policies(policies).await?;
            results.push(ensure(shown, || {
                format!("nothing is different in {lacking}")
            }));
        }
        ensure(results.len() >= at_least, || {
            format!("only {} permissions found", results.len())
        })?;
        all(results)?;
        work().await.during("with all permissions again")
    }

    /// Whether Lambda may do with the role what it does with every function's.
    pub async fn serves_lambda(&self) -> Result<bool> {
        let cloud = &self.world.cloud;
        let stream = format!(
            "arn:aws:logs:{}:{}:log-group:{}:log-stream:2026/01/01/[$LATEST]0",
            cloud.region, cloud.account_id, self.log_group
        );
        for action in LOGS {
            if !self.role_may(action, &stream).await? {
                return Ok(false);
            }
        }
        self.role_may(KEEPS, &self.failures.arn).await
    }

    /// Whether the role may do `action` on `resource`, by IAM's own evaluation.
    pub async fn role_may(&self, action: &str, resource: &str) -> Result<bool> {
        let role = self
            .world
            .aws
            .iam
            .get_role()
            .role_name(&self.role)
            .send()
            .await?;
        let arn = role.role().during(&self.role)?.arn();
        let answer = self
            .world
            .aws
            .iam
            .simulate_principal_policy()
            .policy_source_arn(arn)
            .action_names(action)
            .resource_arns(resource)
            .send()
            .await?;
        let result = answer.evaluation_results().first().during(action)?;
        Ok(result.eval_decision().as_str() == "allowed")
    }
}

impl Answered {
    /// The only target's report.
    pub fn report(&self) -> Result<&Value> {
        ensure(!self.failed, || {
            format!("the function answered with {}", self.payload)
        })?;
        match self.payload["reports"].as_array().map(Vec::as_slice) {
            Some([report]) => Ok(report),
            _ => Err(Failure::new(format!("not one report: {}", self.payload))),
        }
    }
}

async fn put_role_policies(world: &World, role: &str, policies: &[RolePolicy]) -> Result {
    for RolePolicy { name, document } in policies {
        let request = world.aws.iam.put_role_policy().role_name(role);
        let request = request
            .policy_name(name)
            .policy_document(document.to_string());
        request.send().await.during(name)?;
    }
    Ok(())
}

/// Takes away one action of another role's policies at a time: fails unless `work` then fails. There have to be exactly
/// so many.
pub async fn role_needs_each_permission(
    world: &World,
    role: &str,
    count: usize,
    work: impl AsyncFn() -> Result,
) -> Result {
    let policies = role_policies(world, role).await?;
    work().await.during("with all permissions")?;
    let mut results = Vec::new();
    for (lacking, policy) in one_action_fewer(&policies) {
        put_role_policies(world, role, &[policy]).await?;
        let shown = work().await.is_err();
        put_role_policies(world, role, &policies).await?;
        results.push(ensure(shown, || {
            format!("nothing is different in {lacking}")
        }));
    }
    ensure(results.len() == count, || {
        format!("{} permissions found", results.len())
    })?;
    all(results)?;
    work().await.during("with all permissions again")
}

/// Every action of every statement of the role's policies, with the policy that lacks it.
fn one_action_fewer(policies: &[RolePolicy]) -> Vec<(String, RolePolicy)> {
    let mut fewer = Vec::new();
    for policy in policies {
        let statements = policy.document["Statement"]
            .as_array()
            .into_iter()
            .flatten();
        for (index, statement) in statements.enumerate() {
            let sid = statement["Sid"].as_str().unwrap_or_default();
            let actions: Vec<Value> = match &statement["Action"] {
                Value::Array(actions) => actions.clone(),
                one => vec![one.clone()],
            };
            for action in &actions {
                let rest: Vec<&Value> = actions.iter().filter(|other| *other != action).collect();
                let mut document = policy.document.clone();
                if rest.is_empty() {
                    document["Statement"]
                        .as_array_mut()
                        .map(|statements| statements.remove(index));
                } else {
                    document["Statement"][index]["Action"] = json!(rest);
                }
                // A policy without statements is none that IAM takes.
                if document["Statement"].as_array().is_some_and(Vec::is_empty) {
                    document["Statement"] =
                        json!([{"Effect": "Deny", "Action": "*", "Resource": "arn:aws:none:::"}]);
                }
                let name = format!(
                    "{}/{sid} without {}",
                    policy.name,
                    action.as_str().unwrap_or_default()
                );
                fewer.push((
                    name,
                    RolePolicy {
                        name: policy.name.clone(),
                        document,
                    },
                ));
            }
        }
    }
    fewer
}

async fn role_policies(world: &World, role: &str) -> Result<Vec<RolePolicy>> {
    let names = world
        .aws
        .iam
        .list_role_policies()
        .role_name(role)
        .send()
        .await?;
    let mut policies = Vec::new();
    for name in names.policy_names() {
        let request = world
            .aws
            .iam
            .get_role_policy()
            .role_name(role)
            .policy_name(name);
        let policy = request.send().await.during(name)?;
        let document = decoded(policy.policy_document());
        policies.push(RolePolicy {
            name: name.clone(),
            document: serde_json::from_str(&document).during(&document)?,
        });
    }
    Ok(policies)
}

/// IAM answers documents percent-encoded (RFC 3986).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn percent_encoding_is_read_and_other_text_is_left() {
        assert_eq!(
            decoded("%7B%22a%22%3A%20%22100%25%22%7D"),
            r#"{"a": "100%"}"#
        );
        assert_eq!(decoded(r#"{"a":"b+c"}"#), r#"{"a":"b+c"}"#);
    }
}
