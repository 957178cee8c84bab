//! What is planned for what was observed: by table, and what must hold always by property.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use maintenance_page::MaintenancePage;
use maintenance_page::error::PageError;
use maintenance_page::in_force::{Domain, InForce, Routing, Stage};
use maintenance_page::plan::{
    BY, Lowering, Notice, Observed, Plan, Route, Snapshot, holder_of, lowering, plan, reworded,
    says,
};
use maintenance_page::policy::{Front, Page};
use maintenance_page::probe::Seen;
use proptest::prelude::*;
use serde_json::json;
use shared::alarm::AlarmEvent;
use shared::policy::Action as _;
use shared::remediation::{InPlace, Moment, Planned, PlannedBy, Remediation as _};

const INCIDENT: &str = "inc-1";
const MACHINE: &str = "arn:aws:states:eu-west-1:123456789012:stateMachine:end";

fn now() -> DateTime<Utc> {
    "2026-11-02T09:28:20Z".parse().unwrap()
}

fn event() -> AlarmEvent {
    let text = include_str!("../../../events/maintenance-page/ApiOutage.alarm.json");
    shared::alarm::parse(&serde_json::from_str(text).unwrap()).unwrap()
}

fn policy(front: &str) -> Page {
    let front = match front {
        "cloudfront" => json!({"cloudfront": {
            "key_value_store": "arn:aws:cloudfront::123456789012:key-value-store/a1",
            "health_check_paths": ["/health"],
        }}),
        _ => json!({"api_gateway": {
            "mapping": "arn:aws:apigateway:eu-west-1::/domainnames/api.example.com/basepathmappings/(none)",
            "maintenance_api": "page",
            "maintenance_stage": "page",
            "end_machine": (front == "ending").then_some(MACHINE),
        }}),
    };
    serde_json::from_value(json!({"front": front, "url": "https://api.example.com/"})).unwrap()
}

fn route(api: &str) -> Route {
    Route {
        api: api.to_owned(),
        stage: if api == "page" { "page" } else { "prod" }.to_owned(),
    }
}

fn notice(by: &str) -> Notice {
    Notice {
        by: by.to_owned(),
        incident: INCIDENT.to_owned(),
        since: now(),
        until: None,
        next_update_minutes: 15,
        title: None,
        message: None,
        status_url: None,
        estimated_end: None,
        retry_after: None,
        bypass_sha256: None,
        health_check_paths: [].into(),
    }
}

fn observed(front: &str, by: Option<&str>) -> Observed {
    let domain = front != "cloudfront";
    Observed {
        notice: by.map(notice),
        route: domain.then(|| route(if by.is_some() { "page" } else { "service" })),
        version: (!domain).then(|| "v1".to_owned()),
        in_force: domain.then(InForce::default),
    }
}

fn held(snapshot: Snapshot) -> InPlace<Snapshot> {
    InPlace {
        run_id: "run-0".into(),
        incident_id: INCIDENT.into(),
        taken_at: now(),
        expires_at: None,
        snapshot,
    }
}

/// When a plan is made for the first time, and nothing is known besides.
fn moment(event: &AlarmEvent) -> Moment<'_, MaintenancePage> {
    Moment {
        progress: None,
        now: now(),
        resuming: false,
        event,
        incident_id: INCIDENT,
        memory: None,
        begun: None,
        overtaken: None,
        in_place: None,
        recovered: false,
    }
}

fn decide(
    observed: &Observed,
    front: &str,
    begun: Option<&Plan>,
    in_ledger: bool,
    at: DateTime<Utc>,
) -> PlannedBy<MaintenancePage> {
    let event = event();
    let in_place = in_ledger.then(|| {
        held(Snapshot {
            service: None,
            page: None,
            unseen: None,
        })
    });
    let moment = Moment {
        now: at,
        resuming: begun.is_some(),
        begun,
        in_place: in_place.as_ref(),
        ..moment(&event)
    };
    plan(observed, &policy(front), &moment)
}

fn acts(planned: PlannedBy<MaintenancePage>) -> (Plan, Option<Snapshot>) {
    match planned {
        Planned::Act { plan, snapshot } => (plan, snapshot),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_that_is_down_goes_up_with_all_it_says() {
    let (at_the_edge, snapshot) = acts(decide(
        &observed("cloudfront", None),
        "cloudfront",
        None,
        false,
        now(),
    ));
    assert_eq!(at_the_edge.version.as_deref(), Some("v1"));
    assert_eq!(at_the_edge.notice.by, BY);
    assert_eq!(at_the_edge.notice.incident, INCIDENT);
    assert_eq!(at_the_edge.notice.retry_after, Some(120));
    assert_eq!(at_the_edge.until, Some(now() + TimeDelta::hours(4)));
    assert_eq!(at_the_edge.announced().until, at_the_edge.until);
    assert_eq!(json!(snapshot), json!({"service": null}));
    let (mapped, snapshot) = acts(decide(
        &observed("domain", None),
        "domain",
        None,
        false,
        now(),
    ));
    let routes = mapped.routes.clone().unwrap();
    assert_eq!(
        (routes.service, routes.page),
        (route("service"), route("page"))
    );
    assert_eq!(mapped.announced().until, None);
    assert_eq!(
        json!(snapshot),
        json!({
            "service": {"api": "service", "stage": "prod"},
            "page": {"api": "page", "stage": "page"},
        })
    );
}

/// What clients would not see is not put up, and what this function cannot see is told as that.
#[test]
fn a_page_that_would_not_be_seen_is_not_put_up() {
    let decided = |in_force| {
        let seen = Observed {
            in_force: Some(in_force),
            ..observed("domain", None)
        };
        decide(&seen, "domain", None, false, now())
    };
    let by_rules = Domain {
        routing: Routing::RulesAlone,
        ..Domain::default()
    };
    let rules = InForce {
        domain: by_rules,
        ..InForce::default()
    };
    let missing = InForce {
        stage: Stage::Missing,
        ..InForce::default()
    };
    for (in_force, words) in [(rules, "ROUTING_RULE_ONLY"), (missing, "has no stage page")] {
        let Planned::Escalate { reason, .. } = decided(in_force) else {
            panic!("it goes up")
        };
        assert!(reason.contains(words), "{reason}");
    }
    let hidden = Domain {
        routing: Routing::RulesFirst,
        mutual_tls: true,
        ..Domain::default()
    };
    let (plan, snapshot) = acts(decided(InForce {
        domain: hidden,
        ..InForce::default()
    }));
    assert_eq!(snapshot.unwrap().unseen, plan.unseen);
    assert!(plan.notes[0].contains("routing rules first"), "{plan:?}");
    let seen = Seen {
        status: 403,
        incident: None,
        refused_by: None,
    };
    let error = PageError::Unreachable {
        url: plan.url.clone(),
        why: "TLS fails".to_owned(),
    };
    for told in [plan.instead(&seen), plan.out_of_sight(&error)] {
        assert!(told.contains("cannot be seen from here"), "{told}");
        assert!(told.contains("mutual TLS"), "{told}");
        assert!(!told.contains("does not show the page yet"), "{told}");
    }
    let visible = Plan {
        unseen: None,
        ..plan
    };
    let told = visible.instead(&seen);
    assert!(told.contains("does not show the page yet"), "{told}");
    assert!(told.contains("routing rules first"), "{told}");
}

/// What the page says is approved with the plan; when it is expected to end counts from when it goes up.
#[test]
fn the_page_says_what_the_policy_gives_and_nothing_of_what_it_says_anyway() {
    let event = event();
    for front in ["cloudfront", "ending"] {
        let mut policy = policy(front);
        policy.page = serde_json::from_value(json!({
            "title": "We will be back soon",
            "message": "Orders wait.",
            "status_url": "https://status.example.com/",
            "estimated_end_minutes": 30,
        }))
        .unwrap();
        policy.check().unwrap();
        let made = |now| {
            let moment = Moment {
                now,
                ..moment(&event)
            };
            acts(plan(&observed(front, None), &policy, &moment)).0
        };
        let first = made(now());
        let said = first.announced();
        assert_eq!(said.title, None);
        assert_eq!(said.message.as_deref(), Some("Orders wait."));
        assert_eq!(said.estimated_end, Some(now() + TimeDelta::minutes(30)));
        let later = made(now() + TimeDelta::minutes(5));
        assert_eq!(first.notice, later.notice);
        assert_eq!(
            later.announced().estimated_end,
            Some(now() + TimeDelta::minutes(35))
        );
        assert!(MaintenancePage::MOMENTARY.contains(&"estimated_end"));
    }
}

/// What somebody wrote on the page by hand is theirs, and an estimate moves by as much as the policy's.
#[test]
fn a_page_that_is_up_takes_over_what_an_edit_of_its_policy_changed() {
    for front in ["cloudfront", "api_gateway"] {
        let mut before = policy(front);
        before.page.title = Some("Closed".to_owned());
        before.page.estimated_end_minutes = NonZeroU32::new(30);
        let event = event();
        let moment = moment(&event);
        let (put, _) = acts(plan(&observed(front, None), &before, &moment));
        let up = put.announced();
        let reword = |said: &Notice, edited: &Page| reworded(said, (&before, edited), now());
        let mut other_term = before.clone();
        other_term.url = "https://elsewhere.example.com/".to_owned();
        assert_eq!(reword(&up, &other_term), None, "none of its words");

        let mut edited = before.clone();
        edited.page.title = None;
        edited.page.status_url = Some("https://status.example.com/".to_owned());
        edited.page.estimated_end_minutes = NonZeroU32::new(90);
        let next = reword(&up, &edited).unwrap();
        let moved = up.estimated_end.map(|end| end + TimeDelta::minutes(60));
        assert_eq!((&next.title, next.estimated_end), (&None, moved));
        assert_eq!(next.status_url, edited.page.status_url);
        let kept = |notice: &Notice| (notice.until, notice.since, notice.incident.clone());
        assert_eq!(kept(&next), kept(&up));
        assert!(says(&next, &edited) && !says(&up, &edited));
        // Once it says so, the same edit changes nothing.
        assert_eq!(reword(&next, &edited).as_ref(), Some(&next));

        let by_hand = Notice {
            title: Some("Lunch".to_owned()),
            estimated_end: Some(now() + TimeDelta::hours(9)),
            ..up.clone()
        };
        let next = reword(&by_hand, &edited).unwrap();
        assert_eq!(next.title.as_deref(), Some("Lunch"));
        assert_eq!(next.estimated_end, by_hand.estimated_end);
        assert_eq!(next.status_url, edited.page.status_url);
        assert!(!says(&next, &edited));

        let mut without = before.clone();
        without.page.estimated_end_minutes = None;
        assert_eq!(reword(&up, &without).unwrap().estimated_end, None);
        let back = reworded(&reword(&up, &without).unwrap(), (&without, &before), now());
        assert_eq!(back.unwrap().estimated_end, up.estimated_end);
    }
}

/// A value in a key-value store has at most 1,024 characters.
#[test]
fn the_longest_notice_of_a_policy_fits_into_the_key_value_store() {
    let paths = [format!("/{}", "x".repeat(635))].into();
    fits(&mut policy("cloudfront"), paths);
    let mut worded = policy("cloudfront");
    worded.page = serde_json::from_value(json!({
        "title": "\u{e9}".repeat(80),
        "status_url": format!("https://{}", "s".repeat(12)),
        "estimated_end_minutes": 10_080,
    }))
    .unwrap();
    let says = |worded: &mut Page, length| {
        worded.page.message = Some("\"".repeat(length));
        worded.check()
    };
    let longest = (1..=400).take_while(|length| says(&mut worded, *length).is_ok());
    let longest = longest.last().unwrap();
    says(&mut worded, longest).unwrap();
    fits(&mut worded, ["/health".to_owned()].into());
    let error = says(&mut worded, longest + 1).unwrap_err();
    assert!(error.contains("shorten page.message"), "{error}");
}

fn fits(policy: &mut Page, paths: std::collections::BTreeSet<String>) {
    policy.next_update_minutes = 1_440.try_into().unwrap();
    let Front::Cloudfront(store) = &mut policy.front else {
        panic!("another front")
    };
    store.retry_after_seconds = 3_600.try_into().unwrap();
    store.bypass_sha256 = Some("0".repeat(64));
    store.health_check_paths = paths;
    policy.check().unwrap();
    let event = event();
    let incident_id = shared::ids::incident_id(&event.alarm_arn, event.changed_at);
    let moment = Moment {
        incident_id: &incident_id,
        ..moment(&event)
    };
    let (raised, _) = acts(plan(&observed("cloudfront", None), policy, &moment));
    let value = serde_json::to_string(&raised.announced()).unwrap();
    assert!(value.len() <= 1_024, "{}: {value}", value.len());
}

#[test]
fn a_plan_is_the_same_whenever_it_is_made_so_that_it_can_be_approved() {
    for front in ["cloudfront", "domain", "ending"] {
        let seen = observed(front, None);
        let (first, _) = acts(decide(&seen, front, None, false, now()));
        let late = now() + TimeDelta::hours(5);
        let (later, _) = acts(decide(&seen, front, None, false, late));
        let approved = |plan: &Plan| {
            let mut plan = json!(plan);
            for momentary in MaintenancePage::MOMENTARY {
                plan.as_object_mut().unwrap().remove(*momentary);
            }
            plan
        };
        assert_eq!(approved(&first), approved(&later));
        // Approved late, the page still has its whole term.
        let whole = (front != "domain").then(|| late + TimeDelta::hours(4));
        assert_eq!(later.announced().until, whole);
    }
}

#[test]
fn a_mapped_page_ends_by_itself_where_the_policy_names_a_machine() {
    let raised = |front| acts(decide(&observed(front, None), front, None, false, now())).0;
    let Front::ApiGateway(mapping) = policy("ending").front else {
        panic!("another front")
    };
    let ending = raised("ending");
    let end = ending.end(&mapping).unwrap();
    assert_eq!(end.machine, MACHINE);
    assert_eq!(
        json!(end.input),
        json!({
            "domain_name": "api.example.com",
            "base_path": "(none)",
            "service": {"api": "service", "stage": "prod"},
            "page": {"api": "page", "stage": "page"},
            "holder": mapping.holder(),
            "held": "forgeguard,2026-11-02T13:28:20Z,inc-1",
            "until": "2026-11-02T13:28:20Z",
        })
    );
    // Step Functions API Reference, "StartExecution": 80 characters, and none of its special ones.
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-';
    assert!(
        end.name.len() <= 80 && end.name.chars().all(plain),
        "{end:?}"
    );
    assert!(
        ending
            .summary()
            .contains("ends by itself at 2026-11-02T13:28:20Z")
    );
    let endless = raised("domain");
    assert_eq!(endless.end(&mapping), None);
    assert!(endless.summary().contains("does not end by itself"));
    assert_eq!(raised("cloudfront").end(&mapping), None);
}

/// The end of one page must not take down the next, and a retry must not begin another.
#[test]
fn each_page_has_an_end_of_its_own() {
    let Front::ApiGateway(mapping) = policy("ending").front else {
        panic!("another front")
    };
    let of = |at, incident: &str| {
        let (mut plan, _) = acts(decide(&observed("ending", None), "ending", None, false, at));
        incident.clone_into(&mut plan.notice.incident);
        plan.end(&mapping).unwrap()
    };
    let first = of(now(), INCIDENT);
    assert_eq!(first, of(now(), INCIDENT));
    let later = now() + TimeDelta::seconds(1);
    for other in [of(later, INCIDENT), of(now(), "inc-2")] {
        assert_ne!(first.name, other.name);
        assert_ne!(first.input.held, other.input.held);
    }
}

#[test]
fn who_holds_a_page_is_read_from_what_its_variable_says() {
    let until: DateTime<Utc> = "2026-11-02T13:28:20Z".parse().unwrap();
    let cases = [
        ("forgeguard", BY, None),
        (
            "forgeguard,2026-11-02T13:28:20Z,inc-1",
            BY,
            Some((until, "inc-1")),
        ),
        ("forgeguard,soon,inc-1", "forgeguard,soon,inc-1", None),
        ("forgeguard-fan", "forgeguard-fan", None),
        ("anna", "anna", None),
        (
            "anna,2026-11-02T13:28:20Z,inc-1",
            "anna,2026-11-02T13:28:20Z,inc-1",
            None,
        ),
    ];
    for (held, by, page) in cases {
        assert_eq!(holder_of(held), (by, page));
    }
}

#[test]
fn a_page_that_is_up_is_told_whose_it_is() {
    for front in ["cloudfront", "domain"] {
        let cases = [
            (BY, true, "in place", "for inc-1"),
            ("anna", true, "in place", "put up by anna"),
            ("anna", false, "in place", "put up by anna"),
            (BY, false, "escalate", "does not hold what to go back to"),
        ];
        for (by, in_ledger, outcome, words) in cases {
            let seen = observed(front, Some(by));
            let (found, reason) = match decide(&seen, front, None, in_ledger, now()) {
                Planned::InPlace { reason } => ("in place", reason),
                Planned::Escalate { reason, .. } => ("escalate", reason),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, outcome, "{front} {by} {in_ledger}");
            assert!(reason.contains(words), "{reason}");
        }
    }
}

#[test]
fn what_an_attempt_that_died_wrote_is_concluded_under_the_version_it_left() {
    let (begun, _) = acts(decide(
        &observed("cloudfront", None),
        "cloudfront",
        None,
        false,
        now(),
    ));
    let seen = Observed {
        notice: Some(begun.announced()),
        route: None,
        version: Some("v2".to_owned()),
        in_force: None,
    };
    let (again, snapshot) = acts(decide(&seen, "cloudfront", Some(&begun), true, now()));
    assert_eq!(again.version.as_deref(), Some("v2"));
    assert_eq!((again.notice, snapshot), (begun.notice, None));
}

/// The policy names another maintenance API than the one that the page was put up with.
#[test]
fn the_page_is_where_it_was_put_whatever_the_policy_says_since() {
    let event = event();
    let earlier = route("earlier");
    let in_ledger = held(Snapshot {
        service: Some(route("service")),
        page: Some(earlier.clone()),
        unseen: None,
    });
    let moment = Moment {
        in_place: Some(&in_ledger),
        ..moment(&event)
    };
    let policy = policy("domain");
    let mut seen = observed("domain", None);
    // What an attempt that died did not get to goes where the ledger says.
    let (raised, _) = acts(plan(&seen, &policy, &moment));
    assert_eq!(raised.routes.unwrap().page, earlier);
    seen.route = Some(earlier.clone());
    let Planned::InPlace { reason } = plan(&seen, &policy, &moment) else {
        panic!("a second page")
    };
    assert!(reason.contains("an earlier policy"), "{reason}");
    let place = |snapshot: &Snapshot| {
        let Front::ApiGateway(mapping) = snapshot.put_under(&policy).front else {
            panic!("another front")
        };
        Route {
            api: mapping.maintenance_api,
            stage: mapping.maintenance_stage,
        }
    };
    assert_eq!(place(&in_ledger.snapshot), earlier);
    // An earlier release did not write it.
    let without = json!({"service": route("service")});
    let without: Snapshot = serde_json::from_value(without).unwrap();
    assert_eq!(place(&without), route("page"));
}

#[test]
fn a_page_past_its_time_counts_as_down() {
    let mut seen = observed("cloudfront", Some("anna"));
    let until = now() + TimeDelta::minutes(1);
    seen.notice.as_mut().unwrap().until = Some(until);
    assert!(seen.clone().at(now()).notice.is_some());
    assert!(seen.at(until).notice.is_none());
    // A mapping leads to its page until somebody changes it.
    let mut mapped = observed("ending", Some(BY));
    mapped.notice.as_mut().unwrap().until = Some(until);
    assert!(mapped.at(until).notice.is_some());
}

fn anything_observed() -> impl Strategy<Value = Observed> {
    let by = proptest::option::of(prop_oneof![Just(BY), Just("anna"), Just("another-hand")]);
    let to = prop_oneof![Just("service"), Just("other"), Just("page")];
    (by, proptest::option::of(to)).prop_map(|(by, to)| Observed {
        notice: by.map(notice),
        route: to.map(route),
        version: Some("v1".to_owned()),
        in_force: None,
    })
}

proptest! {
    /// Only our own page ever comes down, and a service that changed is left where it is.
    #[test]
    fn nobody_elses_page_is_taken_down(seen in anything_observed(), service in proptest::option::of(Just("service"))) {
        let snapshot = Snapshot { service: service.map(route), page: None, unseen: None };
        match lowering(&seen, &snapshot) {
            Lowering::TakeDown => prop_assert_eq!(seen.notice.unwrap().by, BY),
            Lowering::Down => {
                prop_assert!(seen.notice.is_none());
                prop_assert_eq!(seen.route, snapshot.service);
            }
            Lowering::LeftAlone(_) => prop_assert!(seen.notice.is_none_or(|notice| notice.by != BY)),
        }
    }

    /// A page is never raised over another, and the way back never leads to the page itself.
    #[test]
    fn the_way_back_is_the_service(seen in anything_observed(), in_ledger in any::<bool>()) {
        if let Planned::Act { plan, snapshot } = decide(&seen, "domain", None, in_ledger, now()) {
            prop_assert!(seen.notice.is_none());
            let routes = plan.routes.unwrap();
            prop_assert_ne!(&routes.service, &routes.page);
            let snapshot = snapshot.unwrap();
            prop_assert_eq!(snapshot.service, Some(routes.service));
            prop_assert_eq!(snapshot.page, Some(routes.page));
        }
    }
}
