//! A maintenance page before a distribution and before a custom domain: raised, kept, bypassed and taken down, whoever
//! interferes or dies.

use aws_sdk_apigateway::operation::create_domain_name::builders::CreateDomainNameFluentBuilder;
use aws_sdk_apigateway::types::{
    EndpointConfiguration, EndpointType, MutualTlsAuthenticationInput, RoutingMode,
};
use aws_sdk_cloudwatch::types::StateValue;
use std::time::Duration;

use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::failure::{During as _, Failure, each, ensure};
use end_to_end::page::{self, BYPASS, Front, Fronted, SECRET};
use end_to_end::proxy::{Death, Fault, Hold, Proxy, Reply, Rule};
use end_to_end::replay::is;
use end_to_end::world::{World, alarm_event, scenario, scheduled, wait_until};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 6;
const FRONTS: [Front; 2] = [Front::Distribution, Front::Domain];

/// Runs a test before each kind of front.
async fn before_both(
    label: &str,
    test: impl AsyncFn(&World, Fronted<'_>, Proxy) -> Result,
) -> Result {
    for front in FRONTS {
        let ended = scenario(label, async |world| {
            let fronted = Fronted::new(world, front, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            test(world, fronted, proxy).await
        });
        ended.await.during(&format!("{front:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_page_goes_up_with_the_alarm_and_down_with_it() -> Result {
    before_both("page", async |_, fronted, proxy| {
        let before = fronted.get("/", &[]).await?;
        ensure(before.is_service(), || format!("{before:?}"))?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        let incident = report["incident_id"].as_str().during("the incident")?;
        let during = fronted.get("/anything", &[]).await?;
        ensure(during.is_page(), || format!("{during:?}"))?;
        // Nothing hides it from anybody.
        assert!(report["notes"].is_null(), "{report}");
        assert!(during.body.contains(incident), "{during:?}");
        assert!(!during.body.contains("stageVariables"), "{during:?}");
        assert_eq!(during.header("retry-after"), "120");
        assert_eq!(during.header("cache-control"), "no-store");
        assert!(during.header("content-type").starts_with("text/html"));
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        let after = fronted.get("/", &[]).await?;
        ensure(after.is_service(), || format!("{after:?}"))
    })
    .await
}

/// The same words before both fronts, as text and nothing else, and none of the last page's in the next.
#[tokio::test]
async fn the_page_says_what_the_policy_has_it_say() -> Result {
    before_both("page-words", async |world, mut fronted, proxy| {
        let plain = fronted.policy.clone();
        fronted.policy["targets"][0]["action"]["page"] = json!({
            "title": "Orders are <closed>",
            "message": "It\u{2019}s our fault: 9 of 10 \"carts\" & `$stageVariables.since` wait.",
            "status_url": "https://status.example.com/?a=1&copy=2",
            "estimated_end_minutes": 30,
        });
        world.put_policy(&fronted.policy).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        let end = report["evidence"]["notice"]["estimated_end"].as_str();
        let end = end.during("the estimated end")?;
        let page = fronted.get("/", &[]).await?;
        ensure(page.is_page(), || format!("{page:?}"))?;
        let said = as_read(&page.body);
        for words in [
            "<h1>Orders are \u{ab}closed\u{bb}</h1>",
            "It\u{2019}s our fault: 9 of 10 'carts' + '$stageVariables.since' wait.",
            "href=\"https://status.example.com/?a=1+copy=2\"",
            &format!("<time datetime=\"{end}\">{end}</time>"),
        ] {
            ensure(said.contains(words), || format!("{words}: {said}"))?;
        }
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        world.put_policy(&plain).await?;
        world
            .set_alarm(&fronted.alarm.name, StateValue::Alarm)
            .await?;
        let again = alarm_event(&fronted.alarm, "OK", "ALARM", Clock::system().now());
        let again = fronted.run(&proxy).on(&again).request_id("again");
        is(&again.finish().await?.report()?, "Applied", "the page")?;
        let next = as_read(&fronted.get("/", &[]).await?.body);
        ensure(next.contains("<h1>We will be back soon</h1>"), || {
            next.clone()
        })?;
        ensure(next.contains("data-end=\"none\""), || next.clone())?;
        ensure(next.contains("data-link=\"none\""), || next)
    })
    .await
}

/// A page's text with its character references as a browser reads them; what would be markup is written otherwise, so
/// that it is told from the page's own.
fn as_read(body: &str) -> String {
    let mut parts = body.split("&#");
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len()
            - part
                .trim_start_matches(|it: char| it.is_ascii_digit())
                .len();
        let (number, rest) = part.split_at(digits);
        let character = number.parse().ok().and_then(char::from_u32);
        said.push(match character.unwrap_or('?') {
            '<' => '\u{ab}',
            '>' => '\u{bb}',
            '"' | '`' => '\'',
            '&' => '+',
            plain => plain,
        });
        said.push_str(rest.strip_prefix(';').unwrap_or(rest));
    }
    said
}

#[tokio::test]
async fn an_app_of_another_origin_may_ask_and_sees_the_page() -> Result {
    before_both("page-cors", async |_, fronted, proxy| {
        fronted.run(&proxy).finish().await?.report()?;
        for path in ["/", "/orders/1"] {
            let asked = fronted.preflight(path).await?;
            ensure(asked.status.as_u16() == 204, || format!("{asked:?}"))?;
            assert_eq!(asked.header("access-control-allow-methods"), "*");
            assert_eq!(
                asked.header("access-control-allow-headers"),
                "*,Authorization"
            );
            let page = fronted.get(path, &[("origin", "https://app.example.com")]);
            let page = page.await?;
            ensure(page.is_page(), || format!("{page:?}"))?;
            assert_eq!(page.header("access-control-expose-headers"), "Retry-After");
            for answer in [asked, page] {
                assert_eq!(answer.header("access-control-allow-origin"), "*");
                assert_eq!(answer.header("access-control-allow-credentials"), "");
            }
        }
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        let asked = fronted.preflight("/").await?;
        ensure(asked.header("access-control-allow-methods") != "*", || {
            format!("the page answers for the service: {asked:?}")
        })
    })
    .await
}

#[tokio::test]
async fn responders_and_health_checks_pass() -> Result {
    scenario("bypass", async |world| {
        let fronted = Fronted::new(world, Front::Distribution, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "the page")?;
        let cookie = format!("maintenance-bypass={SECRET}");
        let cases: [(&str, Headers<'_>, bool); 5] = [
            ("/", &[(BYPASS, SECRET)], true),
            ("/", &[(BYPASS, "wrong")], false),
            ("/", &[("cookie", &cookie)], true),
            ("/healthz", &[], true),
            ("/healthz/", &[], false),
        ];
        for (path, headers, passes) in cases {
            let answer = fronted.get(path, headers).await?;
            ensure(answer.is_service() == passes, || {
                format!("{path} {headers:?}: {answer:?}")
            })?;
            ensure(answer.is_page() != passes, || format!("{answer:?}"))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_page_that_is_up_is_kept_and_not_raised_again() -> Result {
    before_both("twice", async |world, fronted, proxy| {
        fronted.run(&proxy).finish().await?.report()?;
        let again = alarm_event(&fronted.alarm, "OK", "ALARM", Clock::system().now());
        let again = fronted.run(&proxy).on(&again).request_id("again");
        let report = again.finish().await?.report()?;
        is(&report, "AlreadyInPlace", "the page is up since")?;
        assert_eq!(world.told("in-place").await?, 1);
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")
    })
    .await
}

#[tokio::test]
async fn of_sixteen_deliveries_one_raises_the_page() -> Result {
    before_both("page-once", async |_, fronted, proxy| {
        for ended in join_all((0..16).map(|_| fronted.run(&proxy).finish())).await {
            ended?.report()?;
        }
        let raised = match fronted.front {
            Front::Distribution => proxy.calls("cloudfront-keyvaluestore:PutKey"),
            Front::Domain => proxy.calls("apigateway:UpdateBasePathMapping"),
        };
        assert_eq!(raised.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_page_stays_until_the_alarm_was_at_ok_for_a_while() -> Result {
    before_both("page-stable", async |world, mut fronted, proxy| {
        fronted.policy["targets"][0]["action"]["term"] = json!({"stabilisation_seconds": 60});
        world.put_policy(&fronted.policy).await?;
        fronted.run(&proxy).finish().await?.report()?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(
            &back.finish().await?.report()?,
            "Pending",
            "if that still holds at",
        )?;
        assert!(fronted.get("/", &[]).await?.is_page());
        let look = fronted.run(&proxy).on(&scheduled());
        let early = look.clone().later_by(TimeDelta::seconds(30));
        let early = early.finish().await?.answer.ok().during("the look")?;
        assert_eq!(early["reports"], json!([]), "{early}");
        assert!(fronted.get("/", &[]).await?.is_page());
        let due = look.later_by(TimeDelta::seconds(70)).request_id("due");
        is(&due.finish().await?.report()?, "Applied", "answers 200")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        world.holds_no_snapshot().await
    })
    .await
}

/// Nobody can look at the address of the policy: the page is taken down in time all the same.
#[tokio::test]
async fn a_page_that_cannot_be_seen_is_taken_down_in_time() -> Result {
    before_both("page-unseen", async |world, mut fronted, proxy| {
        let action = &mut fronted.policy["targets"][0]["action"];
        action["url"] = json!("http://unseen.localhost:1/");
        action["term"] = json!({"stabilisation_seconds": 60});
        world.put_policy(&fronted.policy).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "the page cannot be seen from here")?;
        is(&report, "Pending", "it refuses the connection")?;
        assert!(fronted.get("/", &[]).await?.is_page());
        let look = fronted.run(&proxy).on(&scheduled());
        let report = look.clone().finish().await?.report()?;
        is(&report, "Pending", "could not be read back")?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(
            &back.finish().await?.report()?,
            "Pending",
            "if that still holds at",
        )?;
        let due = look.later_by(TimeDelta::seconds(70)).request_id("due");
        let report = due.finish().await?.report()?;
        is(&report, "Applied", "unseen.localhost")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn the_page_expires_even_if_the_alarm_stays() -> Result {
    before_both("page-expires", async |world, mut fronted, proxy| {
        fronted.policy["targets"][0]["action"]["term"] =
            json!({"expires_after_seconds": 60, "at_most_seconds": 120});
        world.put_policy(&fronted.policy).await?;
        fronted.run(&proxy).finish().await?.report()?;
        // While the alarm stays, the page is kept beyond its first term.
        let look = fronted.run(&proxy).on(&scheduled());
        let kept = look.clone().later_by(TimeDelta::seconds(70));
        kept.finish().await?.answer.ok().during("the look")?;
        assert!(fronted.get("/", &[]).await?.is_page());
        let late = look.later_by(TimeDelta::minutes(3)).request_id("late");
        is(
            &late.finish().await?.report()?,
            "Escalated",
            "its term was over",
        )?;
        assert!(fronted.get("/", &[]).await?.is_service());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_edge_takes_an_expired_page_down_by_itself() -> Result {
    scenario("edge-expires", async |world| {
        let fronted = Fronted::new(world, Front::Distribution, RUN_ONCE).await?;
        let notice = |until: &str| {
            json!({"by": "forgeguard", "incident": "inc-1", "since": "2026-11-02T09:28:12Z",
                "until": until, "next_update_minutes": 15})
            .to_string()
        };
        fronted.flag(Some(&notice("2100-01-01T00:00:00Z"))).await?;
        assert!(fronted.get("/", &[]).await?.is_page());
        fronted.flag(Some(&notice("2026-11-02T10:28:12Z"))).await?;
        assert!(fronted.get("/", &[]).await?.is_service());
        // Nor does what cannot be read take a service down.
        fronted.flag(Some("{")).await?;
        assert!(fronted.get("/", &[]).await?.is_service());
        Ok(())
    })
    .await
}

/// How soon a page ends in these tests. The clock of the machine is the system's own.
const ENDS_AFTER: u64 = 8;
/// How long the end may take.
const ENDED: Duration = Duration::from_secs(ENDS_AFTER + 30);

/// Raises a page before a domain that ends soon, and gives what it is called.
async fn raised_for_a_while(fronted: &mut Fronted<'_>, proxy: &Proxy) -> Result<Value> {
    fronted.policy["targets"][0]["action"]["term"] =
        json!({"expires_after_seconds": ENDS_AFTER, "at_most_seconds": ENDS_AFTER});
    fronted.world.put_policy(&fronted.policy).await?;
    let report = fronted.run(proxy).finish().await?.report()?;
    is(&report, "Applied", "ends by itself at")?;
    assert!(fronted.get("/", &[]).await?.is_page());
    Ok(report)
}

/// What became of the only execution.
async fn the_end(fronted: &Fronted<'_>) -> Result<Value> {
    wait_until("the page's end", ENDED, async || {
        match fronted.ends().await?.as_slice() {
            [(_, ended)] => Ok(ended.clone()),
            others => Err(Failure::new(format!("{} ends", others.len()))),
        }
    })
    .await
}

/// The function never runs again after it put the page up.
#[tokio::test]
async fn the_page_before_a_domain_ends_by_itself() -> Result {
    scenario("page-ends", async |world| {
        let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        raised_for_a_while(&mut fronted, &proxy).await?;
        let ended = the_end(&fronted).await?;
        ensure(ended["ended"] == true, || ended.to_string())?;
        let after = fronted.get("/", &[]).await?;
        ensure(after.is_service(), || format!("{after:?}"))?;
        // Whoever maps the domain to the page by hand by now is not taken for the page that ended.
        assert!(
            !fronted
                .variables()
                .await?
                .keys()
                .any(|it| it.starts_with("by_"))
        );
        // Should the function come back after all, it finds the page down.
        let look = fronted.run(&proxy).on(&scheduled());
        let look = look.later_by(TimeDelta::minutes(1)).finish().await?;
        is(&look.report()?, "Escalated", "its term was over")?;
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn the_end_leaves_alone_what_is_not_as_the_page_left_it() -> Result {
    // Who takes the page over, if it is not taken down; the last is the page of a later run.
    let cases = [
        (Some("anna"), "another's"),
        (None, "does not lead to the page"),
        (
            Some("forgeguard,2100-01-01T00:00:00Z,inc-later"),
            "went up later",
        ),
    ];
    each(cases, AT_ONCE, async |(by, reason)| {
        scenario("end-left", async |world| {
            let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            raised_for_a_while(&mut fronted, &proxy).await?;
            match by {
                Some(name) => fronted.taken_by(name).await?,
                None => fronted.taken_down().await?,
            }
            let before = fronted.variables().await?;
            let ended = the_end(&fronted).await?;
            ensure(ended["ended"] == false, || ended.to_string())?;
            let told = ended["reason"].as_str().unwrap_or_default();
            ensure(told.contains(reason), || ended.to_string())?;
            assert_eq!(fronted.get("/", &[]).await?.is_page(), by.is_some());
            assert_eq!(fronted.variables().await?, before);
            Ok(())
        })
        .await
        .during(reason)
    })
    .await
}

#[tokio::test]
async fn a_page_whose_end_cannot_be_begun_stays_down() -> Result {
    scenario("end-denied", async |world| {
        let fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let denied = "User: u is not authorized to perform: states:StartExecution on resource: m";
        let reply = Reply::error(400, "AccessDeniedException", denied);
        proxy.inject(Rule::new("states:StartExecution", Fault::Reply(reply)));
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Failed", "grant states:StartExecution on it")?;
        ensure(report.to_string().contains(fronted.end_machine()?), || {
            report.to_string()
        })?;
        assert_eq!(proxy.calls("apigateway:UpdateBasePathMapping").len(), 0);
        let after = fronted.get("/", &[]).await?;
        ensure(after.is_service(), || format!("{after:?}"))
    })
    .await
}

/// The answer to the end's beginning is lost: the SDK's next try finds the same execution.
#[tokio::test]
async fn an_end_is_begun_once() -> Result {
    scenario("end-once", async |world| {
        let fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        proxy.inject(Rule::new("states:StartExecution", Fault::LoseAnswer).first(1));
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        assert_eq!(proxy.calls("states:StartExecution").len(), 2);
        let ends = fronted.ends().await?;
        assert_eq!(ends.len(), 1, "{ends:?}");
        let (input, ended) = &ends[0];
        assert_eq!(ended, &None, "{input}");
        let variables = fronted.variables().await?;
        let holder = input["holder"].as_str().during("the holder")?;
        assert_eq!(
            variables.get(holder).map(String::as_str),
            input["held"].as_str()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_page_that_someone_else_holds_stays() -> Result {
    before_both("held", async |world, fronted, proxy| {
        fronted.run(&proxy).finish().await?.report()?;
        fronted.taken_by("anna").await?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        let report = back.finish().await?.report()?;
        is(
            &report,
            "Escalated",
            "left alone: the page, which anna holds",
        )?;
        world.holds_no_snapshot().await?;
        assert!(fronted.get("/", &[]).await?.is_page());
        // Nor is it raised over.
        world
            .set_alarm(&fronted.alarm.name, StateValue::Alarm)
            .await?;
        let again = alarm_event(&fronted.alarm, "OK", "ALARM", Clock::system().now());
        let again = fronted.run(&proxy).on(&again).request_id("again");
        is(&again.finish().await?.report()?, "AlreadyInPlace", "anna")?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        back.finish().await?.report()?;
        assert!(fronted.get("/", &[]).await?.is_page());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_page_that_someone_took_down_is_left_down() -> Result {
    before_both("down", async |_, fronted, proxy| {
        fronted.run(&proxy).finish().await?.report()?;
        fronted.taken_down().await?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        let report = back.finish().await?.report()?;
        is(&report, "Applied", "the page was down already")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_approval_the_page_stays_down() -> Result {
    before_both("approval", async |world, mut fronted, proxy| {
        fronted.policy["targets"][0]["action"]["raise"] = json!("with_approval");
        world.put_policy(&fronted.policy).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Escalated", "approve plan ")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        let hash = report["plan_hash"].as_str().during("the plan's hash")?;
        let at = Clock::system().now();
        let execution = "arn:aws:states:us-east-1:123456789012:execution:Outage:e1";
        let step = |hash: &str| {
            json!({
                "playbook": {"execution": execution, "name": "Outage"},
                "alarm": fronted.event,
                "approvals": [{
                    "target": report["target"],
                    "plan_hash": hash,
                    "transition": report["transition"],
                    "by": "anna",
                    "at": at,
                    "expires_at": at + TimeDelta::hours(1),
                }],
            })
        };
        let wrong = fronted.run(&proxy).on(&step(&"0".repeat(32)));
        is(
            &wrong.finish().await?.report()?,
            "Escalated",
            "by now the plan is another",
        )?;
        let approved = fronted.run(&proxy).on(&step(hash)).request_id("approved");
        is(&approved.finish().await?.report()?, "Applied", "the page")?;
        assert!(fronted.get("/", &[]).await?.is_page());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_human_between_look_and_change_is_followed_by_a_new_plan() -> Result {
    scenario("between", async |world| {
        let fronted = Fronted::new(world, Front::Distribution, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let hold = Hold::default();
        let put = Rule::new("cloudfront-keyvaluestore:PutKey", Fault::Hold(hold.clone()));
        proxy.inject(put.first(1));
        let human = async {
            hold.arrived(1).await?;
            let taken = fronted.taken_by("anna").await;
            hold.release();
            taken
        };
        let (ended, taken) = tokio::join!(fronted.run(&proxy).finish(), human);
        taken?;
        is(&ended?.report()?, "Skipped", "put up by anna")?;
        assert!(fronted.get("/", &[]).await?.body.contains("inc-by-hand"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_answer_that_was_lost_is_looked_up() -> Result {
    scenario("page-lost", async |world| {
        let fronted = Fronted::new(world, Front::Distribution, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        for action in ["PutKey", "DeleteKey"] {
            let action = format!("cloudfront-keyvaluestore:{action}");
            proxy.inject(Rule::new(&action, Fault::LoseAnswer).first(1));
        }
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        assert_eq!(proxy.calls("cloudfront-keyvaluestore:PutKey").len(), 2);
        assert!(fronted.get("/", &[]).await?.is_page());
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        assert_eq!(proxy.calls("cloudfront-keyvaluestore:DeleteKey").len(), 2);
        assert!(fronted.get("/", &[]).await?.is_service());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_page_comes_down_though_the_policy_names_another_api_by_then() -> Result {
    scenario("page-edited", async |world| {
        let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "the page")?;
        let front = &mut fronted.policy["targets"][0]["action"]["front"];
        front["api_gateway"]["maintenance_stage"] = json!("page");
        world.put_policy(&fronted.policy).await?;
        let again = alarm_event(&fronted.alarm, "OK", "ALARM", Clock::system().now());
        let again = fronted.run(&proxy).on(&again).request_id("again");
        let report = again.finish().await?.report()?;
        is(&report, "AlreadyInPlace", "under an earlier policy")?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        world.holds_no_snapshot().await
    })
    .await
}

/// The first page comes down while the second is up; the second's target is not in the policy any more by then.
#[tokio::test]
async fn mappings_that_share_a_stage_come_down_each_by_itself() -> Result {
    scenario("page-shared", async |world| {
        let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let second = format!("{}-second.localhost", world.name);
        page::map_domain(world, &second, &fronted.service).await?;
        world.will_remove_domain(&second);
        let alone = fronted.policy.clone();
        let mut target = alone["targets"][0].clone();
        target["name"] = json!("second");
        target["action"]["url"] = json!(page::url(world, &second, "/"));
        target["action"]["front"]["api_gateway"]["mapping"] =
            json!(fronted.resource.replace(&fronted.host, &second));
        let targets = fronted.policy["targets"].as_array_mut();
        targets.during("the targets")?.push(target);
        world.put_policy(&fronted.policy).await?;
        let raised = fronted.run(&proxy).finish().await?.response()?;
        ensure(raised["overall"] == "Applied", || raised.to_string())?;
        assert!(fronted.get("/", &[]).await?.is_page());
        assert!(page::get(world, &second, "/", &[]).await?.is_page());
        world.put_policy(&alone).await?;
        let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        assert!(fronted.get("/", &[]).await?.is_service());
        let look = fronted.run(&proxy).on(&scheduled()).request_id("look");
        is(&look.finish().await?.report()?, "Applied", "answers 200")?;
        let after = page::get(world, &second, "/", &[]).await?;
        ensure(after.is_service(), || format!("{after:?}"))?;
        world.holds_no_snapshot().await
    })
    .await
}

/// Nothing is changed where clients would not see the page: the domain does not use its mappings, the page's stage is not
/// there, or its method wants a signature.
#[tokio::test]
async fn a_page_that_no_client_would_see_is_not_put_up() -> Result {
    let cases = [
        ("rules", "goes by routing rules alone"),
        ("stage", "has no stage nowhere; create it"),
        ("signature", "GET / of the maintenance API"),
    ];
    each(cases, AT_ONCE, async |(what, words)| {
        scenario("page-hidden", async |world| {
            let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let front = &mut fronted.policy["targets"][0]["action"]["front"]["api_gateway"];
            match what {
                "rules" => {
                    let rules = RoutingMode::RoutingRuleOnly;
                    fronted
                        .domain_is(|domain| domain.routing_mode(rules))
                        .await?;
                }
                "stage" => front["maintenance_stage"] = json!("nowhere"),
                _ => {
                    front["maintenance_api"] = json!(page::closed(world).await?);
                    front["maintenance_stage"] = json!("closed");
                }
            }
            world.put_policy(&fronted.policy).await?;
            let report = fronted.run(&proxy).finish().await?.report()?;
            is(&report, "Escalated", words)?;
            for change in [
                "apigateway:UpdateStage",
                "apigateway:UpdateBasePathMapping",
                "states:StartExecution",
            ] {
                assert_eq!(proxy.calls(change).len(), 0, "{change}");
            }
            let after = fronted.get("/", &[]).await?;
            ensure(after.is_service(), || format!("{after:?}"))?;
            world.holds_no_snapshot().await
        })
        .await
        .during(what)
    })
    .await
}

/// The page goes up for the clients that it is for, and comes down again; this function does not get through to either.
#[tokio::test]
async fn a_page_that_is_not_for_this_functions_eyes_is_told_as_that() -> Result {
    type Settings = fn(CreateDomainNameFluentBuilder) -> CreateDomainNameFluentBuilder;
    let cases: [(&str, Settings); 2] = [
        ("mutual TLS", |domain| {
            let truststore = MutualTlsAuthenticationInput::builder();
            let truststore = truststore.truststore_uri("s3://trusted/certificates.pem");
            domain.mutual_tls_authentication(truststore.build())
        }),
        ("is a private domain", |domain| {
            let kind = EndpointConfiguration::builder().types(EndpointType::Private);
            domain.endpoint_configuration(kind.build())
        }),
    ];
    each(cases, AT_ONCE, async |(why, settings)| {
        scenario("page-not-for-us", async |world| {
            let mut fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            fronted.domain_is(settings).await?;
            let action = &mut fronted.policy["targets"][0]["action"];
            action["url"] = json!("http://unseen.localhost:1/");
            world.put_policy(&fronted.policy).await?;
            let report = fronted.run(&proxy).finish().await?.report()?;
            is(&report, "Pending", "the page cannot be seen from here")?;
            is(&report, "Pending", why)?;
            ensure(!report.to_string().contains("does not show"), || {
                report.to_string()
            })?;
            assert!(fronted.get("/", &[]).await?.is_page());
            let look = fronted.run(&proxy).on(&scheduled());
            is(&look.finish().await?.report()?, "Pending", why)?;
            let back = fronted.recovers(&proxy, TimeDelta::zero()).await?;
            is(&back.finish().await?.report()?, "Applied", why)?;
            assert!(fronted.get("/", &[]).await?.is_service());
            world.holds_no_snapshot().await
        })
        .await
        .during(why)
    })
    .await
}

/// Where a rule may come first, whoever asks for the page has the last word.
#[tokio::test]
async fn what_may_hide_a_page_is_told_with_it() -> Result {
    scenario("page-rules", async |world| {
        let fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let first = RoutingMode::RoutingRuleThenBasePathMapping;
        fronted
            .domain_is(|domain| domain.routing_mode(first))
            .await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "by its routing rules first")?;
        assert!(fronted.get("/", &[]).await?.is_page());
        Ok(())
    })
    .await
}

/// What is only looked at before is no reason to leave an outage without its page.
#[tokio::test]
async fn a_look_that_fails_for_a_moment_keeps_no_page_down() -> Result {
    scenario("page-throttled", async |world| {
        let fronted = Fronted::new(world, Front::Domain, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        for call in ["apigateway:GetDomainName", "apigateway:GetExport"] {
            let throttled = Reply::error(429, "TooManyRequestsException", "Too Many Requests");
            proxy.inject(Rule::new(call, Fault::Reply(throttled)));
        }
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Applied",
            "goes by its mappings, and whom it answers, cannot be told",
        )?;
        is(&report, "Applied", "turns clients away cannot be told")?;
        assert!(fronted.get("/", &[]).await?.is_page());
        Ok(())
    })
    .await
}

/// Edits what the policy has the page say.
async fn says(fronted: &mut Fronted<'_>, title: &str) -> Result {
    let page = json!({"title": title, "status_url": "https://status.example.com/"});
    fronted.policy["targets"][0]["action"]["page"] = page;
    fronted.world.put_policy(&fronted.policy).await
}

/// Waits until clients see that.
async fn shows(fronted: &Fronted<'_>, title: &str) -> Result {
    let what = "the page to say it";
    wait_until(what, Duration::from_secs(10), async || {
        let page = fronted.get("/", &[]).await?;
        Ok(page.body.contains(title).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_page_that_is_up_follows_its_policy() -> Result {
    each(FRONTS, AT_ONCE, async |front| {
        scenario("page-edited", async |world| {
            let mut fronted = Fronted::new(world, front, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            says(&mut fronted, "Back-at-ten").await?;
            let report = fronted.run(&proxy).finish().await?.report()?;
            is(&report, "Applied", "the page is up")?;
            shows(&fronted, "Back-at-ten").await?;
            says(&mut fronted, "Back-at-noon").await?;
            let look = fronted.run(&proxy).on(&scheduled()).finish().await?;
            is(
                &look.report()?,
                "Applied",
                "the page says what the policy has it say",
            )?;
            shows(&fronted, "Back-at-noon").await?;
            assert_eq!(world.told("updated").await?, 1);
            let look = fronted.run(&proxy).on(&scheduled()).finish().await?;
            assert_eq!(look.response()?["reports"], json!([]));
            let back = fronted.recovers(&proxy, TimeDelta::minutes(2)).await?;
            is(&back.finish().await?.report()?, "Applied", "the page")?;
            assert!(fronted.get("/", &[]).await?.is_service());
            world.holds_no_snapshot().await
        })
        .await
        .during(&format!("{front:?}"))
    })
    .await
}

/// Whoever dies over it leaves it to a later look.
#[tokio::test]
async fn an_edit_of_the_policy_survives_death_at_every_request() -> Result {
    let mut cases = Vec::new();
    for front in FRONTS {
        scenario("page-edit-whole", async |world| {
            let mut fronted = Fronted::new(world, front, RUN_ONCE).await?;
            fronted
                .run(&Proxy::start(&world.cloud).await?)
                .finish()
                .await?
                .report()?;
            says(&mut fronted, "Back-at-noon").await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let look = fronted.run(&proxy).on(&scheduled()).finish().await?;
            is(&look.report()?, "Applied", "the page says")?;
            cases.extend(proxy.deaths().into_iter().map(|death| (front, death)));
            Ok(())
        })
        .await?;
    }
    assert!(cases.len() > 20, "{}", cases.len());
    each(cases, AT_ONCE, async |(front, death)| {
        scenario("page-edit-killed", async |world| {
            let mut fronted = Fronted::new(world, front, RUN_ONCE).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            fronted.run(&proxy).finish().await?.report()?;
            says(&mut fronted, "Back-at-noon").await?;
            fronted
                .run(&proxy)
                .on(&scheduled())
                .dies_at(&proxy, &death)
                .await?;
            for minutes in [3, 5, 7] {
                let look = fronted.run(&proxy).on(&scheduled());
                look.later_by(TimeDelta::minutes(minutes))
                    .finish()
                    .await?
                    .response()?;
            }
            shows(&fronted, "Back-at-noon").await?;
            let back = fronted.recovers(&proxy, TimeDelta::minutes(10)).await?;
            let back = back.later_by(TimeDelta::minutes(10)).finish();
            is(&back.await?.report()?, "Applied", "the page")?;
            assert!(fronted.get("/", &[]).await?.is_service());
            world.holds_no_snapshot().await
        })
        .await
        .during(&format!("{front:?} {death:?}"))
    })
    .await
}

/// Where an undisturbed raise and take-down can die.
async fn deaths(front: Front) -> Result<[Vec<Death>; 2]> {
    let mut deaths = [Vec::new(), Vec::new()];
    scenario("page-whole", async |world| {
        let fronted = Fronted::new(world, front, RUN_ONCE).await?;
        for (index, deaths) in deaths.iter_mut().enumerate() {
            let proxy = Proxy::start(&world.cloud).await?;
            let run = match index {
                0 => fronted.run(&proxy),
                _ => fronted.recovers(&proxy, TimeDelta::minutes(2)).await?,
            };
            is(&run.finish().await?.report()?, "Applied", "the page")?;
            *deaths = proxy.deaths();
        }
        Ok(())
    })
    .await?;
    Ok(deaths)
}

/// Kills a raise (`part` 0) or a take-down at a request, and delivers the event again.
async fn kill(front: Front, part: usize, death: &Death) -> Result {
    scenario("page-killed", async |world| {
        let fronted = Fronted::new(world, front, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let raise = fronted.run(&proxy);
        if part == 0 {
            raise.clone().dies_at(&proxy, death).await?;
            let again = raise.later_by(TimeDelta::minutes(1)).finish().await?;
            is(&again.report()?, "Applied", "the page")?;
        } else {
            raise.finish().await?.report()?;
        }
        let during = fronted.get("/", &[]).await?;
        ensure(during.is_page(), || format!("{during:?}"))?;
        let back = fronted.recovers(&proxy, TimeDelta::minutes(2)).await?;
        if part == 1 {
            back.clone().dies_at(&proxy, death).await?;
            // While the dead run may still hold the page, nobody else takes it down.
            let again = back.later_by(TimeDelta::minutes(3)).finish().await?;
            let told = again.report()?;
            let known = ["Applied", "AlreadyInPlace", "Pending"];
            let left = told["rule"] == "lease_held";
            ensure(
                left || known.iter().any(|known| told["outcome"] == *known),
                || told.to_string(),
            )?;
            let look = fronted.run(&proxy).on(&scheduled());
            let look = look.later_by(TimeDelta::minutes(6)).finish().await?;
            let told = look.response()?;
            ensure(
                told["overall"] == "Applied" || told["reports"] == json!([]),
                || told.to_string(),
            )?;
        } else {
            let back = back.later_by(TimeDelta::minutes(3)).finish();
            is(&back.await?.report()?, "Applied", "the page")?;
        }
        let after = fronted.get("/", &[]).await?;
        ensure(after.is_service(), || format!("{after:?}"))?;
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn a_page_survives_death_at_every_request() -> Result {
    let mut cases = Vec::new();
    for front in FRONTS {
        for (part, deaths) in deaths(front).await?.into_iter().enumerate() {
            cases.extend(deaths.into_iter().map(|death| (front, part, death)));
        }
    }
    assert!(cases.len() > 60, "{}", cases.len());
    each(cases, AT_ONCE, async |(front, part, death)| {
        let what = format!("{front:?}, part {part}, {death:?}");
        kill(front, part, &death).await.during(&what)
    })
    .await
}
