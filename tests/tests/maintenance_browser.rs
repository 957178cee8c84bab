//! The maintenance page as a person's browser shows it: legible in each scheme and width, passed by responders, and gone
//! with the outage.

use std::path::PathBuf;

use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::browser::{Browser, Scheme, browse};
use end_to_end::failure::{During as _, ensure};
use end_to_end::page::{self, ANSWER, BYPASS, Front, Fronted, SECRET};
use end_to_end::proxy::Proxy;
use end_to_end::replay::is;
use end_to_end::world::scenario;
use serde_json::{Value, json};
use xtask::workspace::target;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const HEADING: &str = "We will be back soon";
/// The narrowest that a page has to fit by WCAG 2.2, 1.4.10, and a desk's.
const SIZES: [(u32, u32); 2] = [(320, 640), (1280, 800)];

/// Raises the page before a service, and shows it to a browser.
async fn raised(
    front: Front,
    test: impl AsyncFnOnce(&Fronted<'_>, &Proxy, &str, &Browser) -> Result,
) -> Result {
    scenario("browser", async |world| {
        let fronted = Fronted::new(world, front, RUN_ONCE).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        let incident = report["incident_id"].as_str().during("the incident")?;
        browse(async |browser| {
            browser.open(&fronted.url("/")).await?;
            test(&fronted, &proxy, incident, browser).await
        })
        .await
    })
    .await
}

async fn shows_the_page(browser: &Browser) -> Result {
    let text = browser.text().await?;
    ensure(text.contains(HEADING), || format!("not the page: {text}"))
}

async fn shows_the_service(browser: &Browser) -> Result {
    let text = browser.text().await?;
    ensure(text == ANSWER, || format!("not the service: {text}"))
}

async fn equals(browser: &Browser, expression: &str, wanted: Value) -> Result {
    let value = browser.value(expression).await?;
    ensure(value == wanted, || {
        format!("{expression} is {value}, not {wanted}")
    })
}

/// What holds in each scheme and width; the colours of the page.
async fn look(browser: &Browser, front: Front, scheme: Scheme, size: (u32, u32)) -> Result<Value> {
    let (width, height) = size;
    browser.look(scheme, width, height).await?;
    let name = scheme.name();
    let picture = format!("{front:?}-{name}-{width}.png").to_lowercase();
    browser.keep_picture(&pictures().join(picture)).await?;
    equals(browser, "innerWidth", json!(width)).await?;
    let prefers = format!("matchMedia('(prefers-color-scheme: {name})').matches");
    equals(browser, &prefers, json!(true)).await?;
    let scrolled = browser
        .value("document.documentElement.scrollWidth")
        .await?;
    ensure(scrolled.as_u64() <= Some(u64::from(width)), || {
        format!("{scrolled} px have to be scrolled")
    })?;
    browser.is_accessible().await?;
    let colours =
        "['body', 'main', 'h1'].map(name => getComputedStyle(document.querySelector(name)))
        .map(style => [style.backgroundColor, style.color])";
    browser.value(colours).await
}

fn pictures() -> PathBuf {
    target().join("maintenance-page")
}

async fn is_legible_and_leaves_no_trace(front: Front) -> Result {
    raised(front, async |fronted, proxy, incident, browser| {
        shows_the_page(browser).await?;
        equals(browser, "document.title", json!("Down for maintenance")).await?;
        equals(browser, "document.documentElement.lang", json!("en")).await?;
        let headings = "[...document.querySelectorAll('h1')].map(heading => heading.innerText)";
        equals(browser, headings, json!([HEADING])).await?;
        let landmarks = "document.querySelectorAll('main, [role=main]').length";
        equals(browser, landmarks, json!(1)).await?;
        let text = browser.text().await?;
        ensure(text.contains(incident), || format!("{incident}: {text}"))?;
        for size in SIZES {
            let mut colours = Vec::new();
            for scheme in [Scheme::Light, Scheme::Dark] {
                let what = format!("{scheme:?} at {} px", size.0);
                let seen = look(browser, front, scheme, size).await;
                colours.push(seen.during(&what)?);
            }
            for (element, name) in ["body", "main", "h1"].iter().enumerate() {
                ensure(colours[0][element] != colours[1][element], || {
                    format!("{name} is alike in both schemes: {colours:?}")
                })?;
            }
        }
        // One more page in the tab's history, which the way back could show from a cache.
        browser.open(&fronted.url("/?again")).await?;
        shows_the_page(browser).await?;
        let back = fronted.recovers(proxy, TimeDelta::zero()).await?;
        is(&back.finish().await?.report()?, "Applied", "answers 200")?;
        browser.reload().await?;
        shows_the_service(browser).await.during("reloaded")?;
        browser.back().await?;
        shows_the_service(browser).await.during("gone back")?;
        browser.open(&fronted.url("/?again")).await?;
        shows_the_service(browser).await.during("opened again")
    })
    .await
}

#[tokio::test]
async fn the_page_at_the_edge_is_legible_and_leaves_no_trace() -> Result {
    is_legible_and_leaves_no_trace(Front::Distribution).await
}

#[tokio::test]
async fn the_page_behind_a_domain_is_legible_and_leaves_no_trace() -> Result {
    is_legible_and_leaves_no_trace(Front::Domain).await
}

/// The policy's words are the page's, with a link and an estimate that has passed, in each scheme and width.
async fn says_what_the_policy_has_it_say(front: Front) -> Result {
    const MESSAGE: &str = "It\u{2019}s our fault: 9 of 10 <b>carts</b> & all \u{1f6e0} wait.";
    scenario("browser-words", async |world| {
        let mut fronted = Fronted::new(world, front, RUN_ONCE).await?;
        fronted.policy["targets"][0]["action"]["page"] = json!({
            "title": "Orders are closed",
            "message": MESSAGE,
            "status_url": "https://status.example.com/?a=1&copy=2",
            "estimated_end_minutes": 1,
        });
        world.put_policy(&fronted.policy).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = fronted.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "answers 503 with the page")?;
        browse(async |browser| {
            browser.open(&fronted.url("/")).await?;
            let text = browser.text().await?;
            for words in ["Orders are closed", MESSAGE, "Estimated end"] {
                ensure(text.contains(words), || format!("{words}: {text}"))?;
            }
            ensure(!text.contains("takes longer"), || text.clone())?;
            let link = "document.querySelector('a').href";
            let wanted = json!("https://status.example.com/?a=1&copy=2");
            equals(browser, link, wanted).await?;
            for size in SIZES {
                for scheme in [Scheme::Light, Scheme::Dark] {
                    let (width, height) = size;
                    browser.look(scheme, width, height).await?;
                    let picture = format!("words-{front:?}-{}-{width}.png", scheme.name());
                    let picture = pictures().join(picture.to_lowercase());
                    browser.keep_picture(&picture).await?;
                    browser.is_accessible().await?;
                }
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn the_page_at_the_edge_says_what_the_policy_has_it_say() -> Result {
    says_what_the_policy_has_it_say(Front::Distribution).await
}

#[tokio::test]
async fn the_page_behind_a_domain_says_what_the_policy_has_it_say() -> Result {
    says_what_the_policy_has_it_say(Front::Domain).await
}

/// The page says by itself that an estimate has passed, and shows neither link nor estimate where it has none.
#[tokio::test]
async fn an_estimate_that_has_passed_is_told() -> Result {
    scenario("browser-late", async |world| {
        let fronted = Fronted::new(world, Front::Distribution, RUN_ONCE).await?;
        let mut notice = json!({"by": "anna", "incident": "inc-1", "since": "2026-11-02T09:28:12Z",
            "next_update_minutes": 15});
        for (end, late) in [(None, false), (Some("2026-11-02T10:00:00Z"), true)] {
            if let Some(end) = end {
                notice["estimated_end"] = json!(end);
            }
            fronted.flag(Some(&notice.to_string())).await?;
            browse(async |browser| {
                browser.open(&fronted.url("/")).await?;
                shows_the_page(browser).await?;
                let text = browser.text().await?;
                assert_eq!(text.contains("Estimated end"), late, "{text}");
                assert_eq!(
                    text.contains("and it takes longer than that"),
                    late,
                    "{text}"
                );
                ensure(!text.contains("Status and updates"), || text)?;
                browser.is_accessible().await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// What an app of another origin sees, with headers of its own, and with the cookies of the service.
async fn is_seen_from_another_origin(front: Front) -> Result {
    raised(front, async |fronted, _, incident, browser| {
        let elsewhere = page::url(fronted.world, "localhost", "/_ministack/health");
        browser.open(&elsewhere).await?;
        let url = fronted.url("/orders/1");
        let fetched = format!(
            "fetch('{url}', {{headers: {{Authorization: 'Bearer token', 'x-app': '1'}}}}).then(async answer =>
            [answer.status, answer.headers.get('retry-after'), (await answer.text()).includes('{incident}')])"
        );
        equals(browser, &fetched, json!([503, "120", true])).await?;
        let with_cookies = format!(
            "fetch('{url}', {{credentials: 'include'}}).then(() => 'seen', error => error.name)"
        );
        equals(browser, &with_cookies, json!("TypeError")).await
    })
    .await
}

#[tokio::test]
async fn an_app_of_another_origin_sees_the_page_at_the_edge() -> Result {
    is_seen_from_another_origin(Front::Distribution).await
}

#[tokio::test]
async fn an_app_of_another_origin_sees_the_page_behind_a_domain() -> Result {
    is_seen_from_another_origin(Front::Domain).await
}

#[tokio::test]
async fn a_responders_browser_passes_by_header_or_by_cookie() -> Result {
    const COOKIE: &str = "maintenance-bypass";
    raised(Front::Distribution, async |_, _, _, browser| {
        shows_the_page(browser).await?;
        browser.send_headers(&[(BYPASS, "wrong")]).await?;
        browser.reload().await?;
        shows_the_page(browser).await.during("the wrong header")?;
        browser.send_headers(&[(BYPASS, SECRET)]).await?;
        browser.reload().await?;
        shows_the_service(browser).await.during("the header")?;
        browser.send_headers(&[]).await?;
        browser.reload().await?;
        shows_the_page(browser).await.during("no header")?;
        browser.keep_cookie(COOKIE, "wrong").await?;
        browser.reload().await?;
        shows_the_page(browser).await.during("the wrong cookie")?;
        browser.keep_cookie(COOKIE, SECRET).await?;
        browser.reload().await?;
        shows_the_service(browser).await.during("the cookie")?;
        browser.forget_cookie(COOKIE).await?;
        browser.reload().await?;
        shows_the_page(browser).await.during("no cookie")
    })
    .await
}
