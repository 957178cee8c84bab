//! The deployed maintenance page, IAM enforced: through the template's own rule before a distribution and a custom
//! domain, past it with the responders' keys, and no permission too few or too many.

use std::time::Duration;

use aws_sdk_apigateway::types::{Op, PatchOperation};
use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::failure::{During as _, ensure};
use end_to_end::page::{self, Answer};
use end_to_end::stack::{Stack, deployed, role_needs_each_permission};
use end_to_end::world::{Alarm, Queue, alarm_event, wait_until};
use serde_json::{Value, json};
use shared::clock::Clock;

/// The remediation's name in the template.
const PAGE: &str = "MaintenancePage";
/// How long it may take, from the alarm on.
const UP: Duration = Duration::from_mins(2);

fn outcomes() -> Value {
    json!({"source": ["forgeguard"], "detail": {"remediation": ["maintenance-page"]}})
}

/// A service behind both fronts, which the stack's page and policy are for.
struct Guarded<'a> {
    stack: &'a Stack<'a>,
    alarm: Alarm,
    /// The service's API.
    service: String,
    /// The hosts that clients ask: the distribution's and the custom domain's.
    hosts: [String; 2],
}

impl<'a> Guarded<'a> {
    async fn new(stack: &'a Stack<'a>) -> Result<Self> {
        let world = stack.world;
        let alarm = world.cloud.output("ApiOutageAlarmName")?;
        let alarm = world.existing_alarm(alarm).await?;
        // Whatever raised it before, the schedule would answer it by the policy that is put here.
        world.set_alarm(&alarm.name, StateValue::Ok).await?;
        let service = page::service(world).await?;
        let function = world.cloud.output("MaintenancePageEdgeFunctionArn")?;
        let distribution = page::distribution(world, &service, function).await?;
        let mut policy = stack.policy()?;
        let mapping = policy["targets"][1]["action"]["front"]["api_gateway"]["mapping"]
            .as_str()
            .during("the mapping of the policy")?;
        let domain = mapping.split('/').nth(2).during(mapping)?.to_owned();
        page::map_domain(world, &domain, &service).await?;
        world.will_remove_domain(&domain);
        let hosts = [distribution, domain];
        for (index, host) in hosts.iter().enumerate() {
            let target = &mut policy["targets"][index];
            target["guard"] = json!({"budget": {"actions": 100}, "cooldown_seconds": 0});
            target["action"]["url"] = json!(page::url(world, host, "/"));
            target["action"]["raise"] = json!("automatically");
            target["action"]["term"]["stabilisation_seconds"] = json!(0);
        }
        stack.put_policy(&policy).await?;
        let api = world.cloud.output("MaintenancePageApiId")?;
        let origin = world.cloud.endpoint.strip_prefix("http://");
        let origin = format!(
            "{}{}",
            origin.unwrap_or_default(),
            page::origin_path(&service)
        );
        let operation = PatchOperation::builder().op(Op::Replace);
        let operation = operation.path("/variables/origin").value(origin).build();
        let request = world.aws.apigateway.update_stage().rest_api_id(api);
        let request = request.stage_name("page").patch_operations(operation);
        request.send().await?;
        Ok(Self {
            stack,
            alarm,
            service,
            hosts,
        })
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<[Answer; 2]> {
        let [edge, domain] = &self.hosts;
        let world = self.stack.world;
        Ok([
            page::get(world, edge, path, headers).await?,
            page::get(world, domain, path, headers).await?,
        ])
    }

    async fn all(&self, what: &str, holds: fn(&Answer) -> bool) -> Result {
        let answers = self.get("/", &[]).await?;
        ensure(answers.iter().all(holds), || format!("{what}: {answers:?}"))
    }
}

/// Both pages come, and go, from a cold start.
async fn comes_and_goes(guarded: &Guarded<'_>, heard: &Queue) -> Result {
    let Guarded { stack, alarm, .. } = guarded;
    let world = stack.world;
    stack.clear().await?;
    world.drain(heard).await?;
    guarded.taken_down().await?;
    stack.restart(None).await?;
    // What is refused for good is noted while nobody holds the targets.
    let stale = Clock::system().now() - TimeDelta::hours(2);
    let answer = stack
        .invoke(&alarm_event(alarm, "OK", "ALARM", stale))
        .await?;
    ensure(answer.payload["overall"] == "Skipped", || {
        answer.payload.to_string()
    })?;
    world.set_alarm(&alarm.name, StateValue::Alarm).await?;
    let event = alarm_event(alarm, "OK", "ALARM", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    both(&answer.payload, "answers 503 with the page")?;
    guarded.all("up", Answer::is_page).await?;
    let run = &answer.payload["reports"][1]["causation_id"];
    world
        .heard(heard, Duration::from_secs(5), |event| {
            event["detail"]["causation_id"] == *run
        })
        .await?;
    // The alarm's metric is read to see whether the pages helped.
    let said = stack.looks_late_at_what_was_done().await?;
    let silent =
        |said: &String| said.contains("and its metric has no value since; requests are kept");
    ensure(said.len() == 2 && said.iter().all(silent), || {
        format!("{said:?}")
    })?;
    world.set_alarm(&alarm.name, StateValue::Ok).await?;
    let event = alarm_event(alarm, "ALARM", "OK", Clock::system().now());
    both(&stack.invoke(&event).await?.payload, "answers 200")?;
    guarded.all("down", Answer::is_service).await?;
    ensure(stack.told("reverted").await? == 2, || {
        "the timeline does not show it".to_owned()
    })
}

fn both(response: &Value, words: &str) -> Result {
    let reports = response["reports"].as_array();
    let applied = reports.is_some_and(|reports| {
        let applied = reports
            .iter()
            .filter(|report| report["outcome"] == "Applied" && report.to_string().contains(words));
        applied.count() == 2
    });
    ensure(applied, || response.to_string())
}

impl Guarded<'_> {
    /// Takes away what an attempt without a permission left.
    async fn taken_down(&self) -> Result {
        let world = self.stack.world;
        let [edge, domain] = self.get("/", &[]).await?;
        if edge.is_page() {
            let store = world.cloud.output("MaintenancePageStoreArn")?;
            page::flag(world, store, None).await?;
        }
        if domain.is_page() {
            page::lead_to(world, &self.hosts[1], &self.service, page::STAGE).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_puts_both_pages_up_through_the_templates_rule() -> Result {
    deployed(PAGE, "page-rule", async |stack| {
        let world = stack.world;
        let guarded = Guarded::new(stack).await?;
        guarded.taken_down().await?;
        guarded.all("before", Answer::is_service).await?;
        world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
        stack.restart(None).await?;
        stack.enable_rule().await?;
        world
            .set_alarm(&guarded.alarm.name, StateValue::Alarm)
            .await?;
        wait_until("both pages", UP, async || {
            let answers = guarded.get("/", &[]).await?;
            Ok(answers.iter().all(Answer::is_page).then_some(()))
        })
        .await?;
        // Whoever has the API's key, or asks for its health, gets the service behind the page. At every host the local
        // cloud answers /health itself, so that it is asked of the page's API, where the domain leads.
        let api = world.cloud.output("MaintenancePageApiId")?;
        let page = page::path_without_domain(api, "page");
        let [_, domain] = &guarded.hosts;
        let healthy = page::get(world, domain, &format!("{page}/health"), &[]).await?;
        ensure(healthy.is_service(), || format!("{healthy:?}"))?;
        let below = page::get(world, domain, &format!("{page}/health/below"), &[]).await?;
        ensure(below.is_page(), || format!("{below:?}"))?;
        let key = world.cloud.output("MaintenancePageBypassKeyId")?;
        let key = world.aws.apigateway.get_api_key().api_key(key);
        let key = key.include_value(true).send().await?;
        let key = key.value().during("the key's value")?.to_owned();
        let [_, passed] = guarded.get("/", &[("x-api-key", &key)]).await?;
        ensure(passed.is_service(), || format!("{passed:?}"))?;
        let [_, wrong] = guarded.get("/", &[("x-api-key", "wrong")]).await?;
        ensure(wrong.is_page(), || format!("{wrong:?}"))?;
        world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
        wait_until("the service at both", UP, async || {
            let answers = guarded.get("/", &[]).await?;
            Ok(answers.iter().all(Answer::is_service).then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn each_permission_of_the_page_is_needed_and_none_is_missing() -> Result {
    deployed(PAGE, "page-least", async |stack| {
        let guarded = Guarded::new(stack).await?;
        let heard = stack.world.listen("outcomes", &outcomes()).await?;
        let work = async || comes_and_goes(&guarded, &heard).await;
        stack
            .needs_each_permission(stack.role_policies(), 18, work)
            .await
    })
    .await
}

/// The machine of the template takes a page down whose time is over.
async fn ends(guarded: &Guarded<'_>) -> Result {
    let Guarded { stack, service, .. } = guarded;
    let world = stack.world;
    let domain = &guarded.hosts[1];
    let api = world.cloud.output("MaintenancePageApiId")?;
    let machine = world.cloud.output("MaintenancePageEndArn")?;
    let holder = format!("by_{:016x}", fastrand::u64(..));
    let set = PatchOperation::builder().op(Op::Replace);
    let set = set.path(format!("/variables/{holder}")).value("us");
    let stage = world.aws.apigateway.update_stage().rest_api_id(api);
    let stage = stage.stage_name("page").patch_operations(set.build());
    stage.send().await?;
    page::lead_to(world, domain, api, "page").await?;
    let input = json!({
        "domain_name": domain,
        "base_path": "(none)",
        "service": {"api": service, "stage": page::STAGE},
        "page": {"api": api, "stage": "page"},
        "holder": holder,
        "held": "us",
        "until": "2026-01-01T00:00:00Z",
    });
    let states = &world.aws.states;
    let begun = states.start_execution().state_machine_arn(machine);
    let begun = begun.input(input.to_string()).send().await?;
    let ended = wait_until("the end", Duration::from_secs(10), async || {
        let told = states.describe_execution();
        let told = told.execution_arn(begun.execution_arn()).send().await?;
        Ok(told.output().map(str::to_owned))
    });
    let ended = ended.await;
    // What lacks a permission would try again later.
    let stopped = states.stop_execution();
    let stopped = stopped.execution_arn(begun.execution_arn()).send().await;
    let ended = ended?;
    ensure(stopped.is_err(), || "it goes on".to_owned())?;
    ensure(
        ended.contains("leads to the service again") && !ended.contains("could not"),
        || ended.clone(),
    )?;
    let after = page::get(world, domain, "/", &[]).await?;
    ensure(after.is_service(), || format!("{after:?}"))
}

#[tokio::test]
async fn each_permission_of_the_pages_end_is_needed_and_none_is_missing() -> Result {
    deployed(PAGE, "page-end", async |stack| {
        let guarded = Guarded::new(stack).await?;
        let role = stack.world.cloud.output("MaintenancePageEndRoleName")?;
        role_needs_each_permission(stack.world, role, 4, async || ends(&guarded).await).await
    })
    .await
}
