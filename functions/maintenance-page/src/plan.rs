//! Whether the page goes up, what it says, and what is put back. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::outcome::Rule;
use shared::policy::Action as _;
use shared::remediation::{Moment, Planned, PlannedBy};

use crate::MaintenancePage;
use crate::error::PageError;
use crate::in_force::{InForce, Outlook};
use crate::policy::{Front, Mapping, Page};
use crate::probe::Seen;
use crate::wording::{MESSAGE, TITLE};

/// Who put up a page that this remediation takes down again. A responder who takes the page over writes another name.
pub const BY: &str = "forgeguard";
/// How a time is written, in characters that a stage variable may have.
pub(crate) const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";

/// What a page that is up says, and whose it is: the value in the key-value store, or the variables of the
/// maintenance API's stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who put it up.
    pub by: String,
    /// The incident.
    pub incident: String,
    /// Since when, to the second.
    pub since: DateTime<Utc>,
    /// When it comes down by itself, if nobody takes it down: by the function at the edge, or by the machine that ends a
    /// mapping's page. `None` where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// How often the page promises an update.
    pub next_update_minutes: u32,
    /// Its heading, where the policy gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its text, where the policy gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where readers are told more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_url: Option<String>,
    /// When the service is expected back, to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_end: Option<DateTime<Utc>>,
    /// What clients are told to wait, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// The SHA-256 of the secret with which responders pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass_sha256: Option<String>,
    /// Paths that pass.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub health_check_paths: BTreeSet<String>,
}

impl Notice {
    /// What a mapping's variable says of its page: who put it up, and of a page that ends by itself, when, and for which
    /// incident. It is another for each page, so that the end of one does not take down the next.
    #[must_use]
    pub fn held(&self) -> String {
        match self.until {
            Some(until) => format!("{},{},{}", self.by, until.format(TIME), self.incident),
            None => self.by.clone(),
        }
    }
}

/// Who holds a page, by what its mapping's variable says, and of our own the end and the incident that it was written
/// with.
#[must_use]
pub fn holder_of(held: &str) -> (&str, Option<(DateTime<Utc>, &str)>) {
    let ours = held
        .strip_prefix(BY)
        .and_then(|rest| rest.strip_prefix(','));
    let page = ours
        .and_then(|rest| rest.split_once(','))
        .and_then(|(until, incident)| Some((until.parse().ok()?, incident)));
    match page {
        Some(page) => (BY, Some(page)),
        None => (held, None),
    }
}

/// The API that a custom domain is mapped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The API's id.
    pub api: String,
    /// The stage's name.
    pub stage: String,
}

/// What is in front of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The page that is up, if one is.
    pub notice: Option<Notice>,
    /// Where a custom domain leads; `None` for a distribution.
    pub route: Option<Route>,
    /// The version to change, where there are versions.
    pub version: Option<String>,
    /// What is in force before the page of a domain; `None` for a distribution, and where only the page is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

impl Observed {
    /// As it counts now: the edge passes over a notice that is past its time, and so does the plan. A mapping leads to
    /// the page until somebody changes it.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        let mapped = self.route.is_some();
        self.notice = self
            .notice
            .filter(|notice| mapped || notice.until.is_none_or(|until| now < until));
        self
    }
}

/// A page to be put up, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What it says.
    pub notice: Notice,
    /// Where the domain leads before, and with the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Routes>,
    /// The version that was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The URL at which the page has to be seen.
    pub url: String,
    /// When the page comes down by itself: the longest term, from this plan on. It belongs to the moment, so that an
    /// approval holds whenever it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// When the service is expected back, from this plan on. It belongs to the moment as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_end: Option<DateTime<Utc>>,
    /// Why this function cannot see the page, where that is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// What may keep some clients from the page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Plan {
    /// The notice as it is put up. An earlier release had the end in the plan's notice.
    #[must_use]
    pub fn announced(&self) -> Notice {
        Notice {
            until: self.until.or(self.notice.until),
            estimated_end: self.estimated_end,
            ..self.notice.clone()
        }
    }

    /// Whether what a client sees is this page. Mappings that share a stage share its text, so that behind a domain the
    /// incident may be the one that was announced last.
    #[must_use]
    pub fn is_shown(&self, seen: &Seen) -> bool {
        if self.routes.is_some() {
            seen.is_page()
        } else {
            seen.is_page_of(&self.notice.incident)
        }
    }

    /// What is told where an answer came and was not this page. What may hide the page is told with it.
    #[must_use]
    pub fn instead(&self, seen: &Seen) -> String {
        let told = seen.instead_of_the_page(&self.url);
        match (&self.unseen, &seen.incident) {
            (Some(why), None) => format!(
                "the page cannot be seen from here: {why} ({} answers this function {}); look from where the clients are",
                self.url, seen.status
            ),
            _ if self.notes.is_empty() => told,
            _ => format!("{told}; {}", self.notes.join("; ")),
        }
    }

    /// What is told where no answer came.
    #[must_use]
    pub fn out_of_sight(&self, error: &PageError) -> String {
        match &self.unseen {
            Some(why) => format!(
                "the page cannot be seen from here: {why} ({error}); look from where the clients are"
            ),
            None => format!("the page cannot be seen from here: {error}"),
        }
    }

    /// What was done once it is carried out, and how a responder takes the page over where that is not plain.
    #[must_use]
    pub fn summary(&self) -> String {
        let up = format!("the page is up for {}", self.notice.incident);
        let Some(routes) = &self.routes else {
            return up;
        };
        let whose = routes.holder.as_ref().map(|holder| {
            format!(
                "; the variable {holder} of the maintenance API's stage says whose this mapping's page is"
            )
        });
        let end = match (self.until, &routes.end_machine) {
            (Some(until), Some(_)) => format!("it ends by itself at {}", until.format(TIME)),
            _ => "it does not end by itself, because the policy names no end_machine".to_owned(),
        };
        format!("{up}{}; {end}", whose.unwrap_or_default())
    }

    /// What the page's end is begun with; `None` where nothing ends it.
    #[must_use]
    pub fn end(&self, mapping: &Mapping) -> Option<End> {
        let routes = self.routes.as_ref()?;
        let machine = routes.end_machine.clone()?;
        let until = self.until?;
        let held = self.announced().held();
        Some(End {
            name: format!(
                "page-{}",
                shared::ids::digest(&[mapping.mapping.as_str(), &held], 16)
            ),
            machine,
            input: EndInput {
                domain_name: mapping.domain_name().to_owned(),
                base_path: mapping.base_path().to_owned(),
                service: routes.service.clone(),
                page: routes.page.clone(),
                holder: mapping.holder(),
                held,
                until: until.format(TIME).to_string(),
            },
        })
    }
}

/// An execution that ends one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The state machine's ARN.
    pub machine: String,
    /// The execution's name, the same for the same page.
    pub name: String,
    /// What it is given.
    pub input: EndInput,
}

/// What the machine `MaintenancePageEnd` of the template reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndInput {
    /// The custom domain's name.
    pub domain_name: String,
    /// The base path.
    pub base_path: String,
    /// Where the domain led.
    pub service: Route,
    /// Where it leads with the page.
    pub page: Route,
    /// The variable that says whose the page is.
    pub holder: String,
    /// What it says while the page is this one.
    pub held: String,
    /// When the page ends, in UTC.
    pub until: String,
}

/// Where a custom domain leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Without the page.
    pub service: Route,
    /// With the page.
    pub page: Route,
    /// The stage's variable that says who holds the page of this mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The state machine that ends the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_machine: Option<String>,
}

/// What goes into the ledger before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where the domain led; `None` for a distribution, which had no page.
    pub service: Option<Route>,
    /// Where it leads with the page; `None` for a distribution, and where an earlier release wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Route>,
    /// Why this function could not see the page when it went up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

impl Snapshot {
    /// The policy with the page where it was put: an edit since then must not hide the page that is up.
    #[must_use]
    pub fn put_under(&self, policy: &Page) -> Page {
        let mut policy = policy.clone();
        if let (Front::ApiGateway(mapping), Some(page)) = (&mut policy.front, &self.page) {
            mapping.maintenance_api.clone_from(&page.api);
            mapping.maintenance_stage.clone_from(&page.stage);
        }
        policy
    }
}

/// Decides.
#[must_use]
pub fn plan(
    observed: &Observed,
    policy: &Page,
    moment: &Moment<'_, MaintenancePage>,
) -> PlannedBy<MaintenancePage> {
    if let Some(notice) = &observed.notice {
        return match moment.begun {
            // What an attempt that died has written is written again, as it is.
            Some(plan) if plan.announced() == *notice => Planned::Act {
                plan: Plan {
                    version: observed.version.clone(),
                    ..plan.clone()
                },
                snapshot: None,
            },
            _ => in_place(notice, policy, moment),
        };
    }
    let held = moment.in_place.map(|held| &held.snapshot);
    let page = held.and_then(|held| held.page.as_ref());
    if page.is_some() && observed.route.as_ref() == page {
        return Planned::InPlace {
            reason: format!(
                "{} leads to the page, which went up under an earlier policy",
                policy.resource()
            ),
        };
    }
    let put = held.map(|held| held.put_under(policy));
    let put = put.as_ref().unwrap_or(policy);
    let planned = routes(observed, put).and_then(|routes| Ok((routes, outlook(observed, put)?)));
    let (routes, outlook) = match planned {
        Ok(planned) => planned,
        Err(reason) => {
            return Planned::Escalate {
                rule: Rule::Unsafe,
                reason,
            };
        }
    };
    let snapshot = Snapshot {
        service: routes.as_ref().map(|routes| routes.service.clone()),
        page: routes.as_ref().map(|routes| routes.page.clone()),
        unseen: outlook.unseen.clone(),
    };
    Planned::Act {
        plan: Plan {
            notice: notice(policy, moment),
            routes,
            version: observed.version.clone(),
            url: policy.url.clone(),
            until: until(policy, moment.now),
            estimated_end: estimated_end(policy, moment.now),
            unseen: outlook.unseen,
            notes: outlook.notes,
        },
        snapshot: Some(snapshot),
    }
}

fn in_place(
    notice: &Notice,
    policy: &Page,
    moment: &Moment<'_, MaintenancePage>,
) -> PlannedBy<MaintenancePage> {
    let since = notice.since.format("%Y-%m-%d %H:%M UTC");
    if notice.by != BY {
        return Planned::InPlace {
            reason: format!(
                "the page is up since {since}, put up by {}; it is theirs to take down",
                notice.by
            ),
        };
    }
    if moment.in_place.is_none() {
        return Planned::Escalate {
            rule: Rule::Unsafe,
            reason: format!(
                "the page is up since {since} for {}, and the ledger does not hold what to go back to; take it down by hand: {}",
                notice.incident,
                policy.resource()
            ),
        };
    }
    Planned::InPlace {
        reason: format!("the page is up since {since}, for {}", notice.incident),
    }
}

/// The end of the longest term of a page that goes up now, to the second; `None` where nothing at the front can end it.
fn until(policy: &Page, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let ends = match &policy.front {
        Front::Cloudfront(_) => true,
        Front::ApiGateway(mapping) => mapping.end_machine.is_some(),
    };
    ends.then(|| now.trunc_subsecs(0) + policy.term.temporary().at_most)
}

/// How far an estimate may be from the one that the policy came to as the page went up, which attempts have put off.
const SAME_ESTIMATE: TimeDelta = TimeDelta::minutes(10);

/// What a page of ours says after an edit of its policy: what the edit changed, where the page still said what the policy
/// had before. What another hand made of it stays. `None` where the edit changes nothing of it.
#[must_use]
pub fn reworded(
    notice: &Notice,
    (before, now): (&Page, &Page),
    put_up_at: DateTime<Utc>,
) -> Option<Notice> {
    let was = estimated_end(before, put_up_at);
    let old = Notice {
        estimated_end: said_end(notice, was),
        ..worded(before, notice.clone())
    };
    // The estimate moves by as much as the policy's.
    let put_off = old.estimated_end.zip(was).map(|(said, was)| said - was);
    let end = estimated_end(now, put_up_at);
    let new = Notice {
        estimated_end: end.map(|end| end + put_off.unwrap_or_default()),
        ..worded(now, notice.clone())
    };
    if old == new {
        return None;
    }
    let mut next = notice.clone();
    follow(
        &mut next.next_update_minutes,
        &old.next_update_minutes,
        new.next_update_minutes,
    );
    follow(&mut next.title, &old.title, new.title);
    follow(&mut next.message, &old.message, new.message);
    follow(&mut next.status_url, &old.status_url, new.status_url);
    follow(
        &mut next.estimated_end,
        &old.estimated_end,
        new.estimated_end,
    );
    follow(&mut next.retry_after, &old.retry_after, new.retry_after);
    follow(
        &mut next.bypass_sha256,
        &old.bypass_sha256,
        new.bypass_sha256,
    );
    follow(
        &mut next.health_check_paths,
        &old.health_check_paths,
        new.health_check_paths,
    );
    Some(next)
}

/// Whether a page says all that the policy has it say. Its estimate counts from when it went up.
#[must_use]
pub fn says(notice: &Notice, policy: &Page) -> bool {
    let estimates = policy.page.estimated_end_minutes.is_some();
    worded(policy, notice.clone()) == *notice && notice.estimated_end.is_some() == estimates
}

/// The estimate that a page shows, where it is the policy's.
fn said_end(notice: &Notice, of_policy: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (notice.estimated_end, of_policy) {
        (Some(said), Some(end)) if (said - end).abs() <= SAME_ESTIMATE => Some(said),
        (_, end) => end,
    }
}

fn follow<T: PartialEq>(said: &mut T, old: &T, new: T) {
    if said == old {
        *said = new;
    }
}

/// When the service is expected back from a page that goes up now, to the second.
fn estimated_end(policy: &Page, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let minutes = policy.page.estimated_end_minutes?;
    Some(now.trunc_subsecs(0) + TimeDelta::minutes(minutes.get().into()))
}

/// Everything in it is settled by the event and the policy, so that a plan that was approved is the plan made again.
fn notice(policy: &Page, moment: &Moment<'_, MaintenancePage>) -> Notice {
    let since = moment.event.changed_at.trunc_subsecs(0);
    let unworded = Notice {
        by: BY.to_owned(),
        incident: moment.incident_id.to_owned(),
        since,
        until: None,
        next_update_minutes: 0,
        title: None,
        message: None,
        status_url: None,
        estimated_end: None,
        retry_after: None,
        bypass_sha256: None,
        health_check_paths: BTreeSet::new(),
    };
    worded(policy, unworded)
}

/// A notice in the policy's words.
fn worded(policy: &Page, notice: Notice) -> Notice {
    let mut notice = Notice {
        next_update_minutes: policy.next_update_minutes.get(),
        title: policy.page.title.clone().filter(|it| it != TITLE),
        message: policy.page.message.clone().filter(|it| it != MESSAGE),
        status_url: policy.page.status_url.clone(),
        ..notice
    };
    if let Front::Cloudfront(store) = &policy.front {
        notice.retry_after = Some(store.retry_after_seconds.get());
        notice.bypass_sha256.clone_from(&store.bypass_sha256);
        notice
            .health_check_paths
            .clone_from(&store.health_check_paths);
    }
    notice
}

/// What can be said of the page before it goes up; an error where no client would see it.
fn outlook(observed: &Observed, policy: &Page) -> Result<Outlook, String> {
    match (&policy.front, &observed.in_force) {
        (Front::ApiGateway(mapping), Some(in_force)) => in_force.outlook(mapping, &policy.url),
        _ => Ok(Outlook::default()),
    }
}

fn routes(observed: &Observed, policy: &Page) -> Result<Option<Routes>, String> {
    let Front::ApiGateway(mapping) = &policy.front else {
        return Ok(None);
    };
    let page = Route {
        api: mapping.maintenance_api.clone(),
        stage: mapping.maintenance_stage.clone(),
    };
    match &observed.route {
        Some(service) if *service != page => Ok(Some(Routes {
            service: service.clone(),
            page,
            holder: Some(mapping.holder()),
            end_machine: mapping.end_machine.as_ref().map(ToString::to_string),
        })),
        _ => Err(format!(
            "{} leads to the maintenance API {}, whose stage does not say who put the page up; map it to the service by hand",
            mapping.mapping, page.api
        )),
    }
}

/// What taking the page down comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lowering {
    /// It is taken down.
    TakeDown,
    /// There is no page.
    Down,
    /// Someone else's page is up, or the domain leads elsewhere.
    LeftAlone(String),
}

/// Decides what is put back: the page that this remediation put up comes down, and nothing else.
#[must_use]
pub fn lowering(observed: &Observed, snapshot: &Snapshot) -> Lowering {
    match &observed.notice {
        Some(notice) if notice.by == BY => Lowering::TakeDown,
        Some(notice) => Lowering::LeftAlone(format!(
            "the page, which {} holds for {}",
            notice.by, notice.incident
        )),
        None if observed.route == snapshot.service => Lowering::Down,
        None => Lowering::LeftAlone("the mapping, which was changed".to_owned()),
    }
}
