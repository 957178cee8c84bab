//! The schedule's look at everything that is due.
//!
//! Events can be lost, and stabilisation and expiry come at times at which nothing else happens. A rule of
//! `EventBridge` on a schedule invokes the function with its `Scheduled Event`
//! (Amazon `EventBridge` User Guide, "Creating a rule that runs on a schedule"), and this is its answer. It goes by
//! the ledger's index of what stands, so that neither a policy edit nor a removed target strands anything, and by the
//! alarms as they are, so that neither a lost event nor a refusal that passed leaves a target unanswered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::guard::decide::same;
use crate::guard::duty::{self, Alarms, Duty, Terms};
use crate::guard::next;
use crate::guard::{self, LiveAlarm, Occasion, Question, Verdict};
use crate::ledger::difference::Commit;
use crate::ledger::items::{self, AlarmState, Facts, Place, Waiting};
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Response};
use crate::policy::{Action as _, Home, Loaded, PolicyError, Target};
use crate::remediation::{Failure as _, Learning as _, Remediation, Reversal as _, value};
use crate::runtime::alarms::{self, Live, Recent};
use crate::runtime::engine::Runtime;
use crate::runtime::error::RunError;
use crate::runtime::invocation::Invocation;
use crate::runtime::job::{LEAST, RESERVE, SIDE_BY_SIDE};
use crate::runtime::look::{Look, Tended, in_turn, seen, tended};
use crate::runtime::plan::memory;
use crate::telemetry;

/// How far the alarm's own word and its event's may be apart.
const NOT_YET_TOLD: TimeDelta = TimeDelta::seconds(60);
/// By then the event of a change to ALARM has come, which opens an incident with all that it says.
const TOLD_WITHIN: TimeDelta = TimeDelta::minutes(5);

/// Whether the payload is what a rule on a schedule sends.
pub(super) fn is_schedule(payload: &Value) -> bool {
    payload["source"] == "aws.events" && payload["detail-type"] == "Scheduled Event"
}

impl<R: Remediation> Runtime<R> {
    /// Looks at everything that is due. One target that fails is told and counted, and the others go on.
    pub(super) async fn sweep(
        &self,
        invocation: &Invocation,
        home: &Home,
    ) -> Result<Response, RunError> {
        let ledger = &self.suite.ledger;
        let now = self.suite.clock.now();
        let last_start = invocation.deadline - RESERVE - LEAST;
        let (due, open, policy) = tokio::join!(
            ledger.due(R::NAME),
            ledger.open_alarms(),
            self.current_policy(home, now),
        );
        let due = due?;
        let open = open?;
        let mut reports = Vec::new();
        let mut failures = due.unreadable.len();
        for error in &due.unreadable {
            tracing::error!(%error, "what is due cannot be read");
        }
        let policy = policy
            .inspect_err(|error| {
                failures += 1;
                tracing::error!(%error, "only what stands is looked after");
            })
            .ok();
        let known = policy.as_deref();
        let (tended, strangers, orphans) = tended(known, &due.standing, due.waiting, home);
        for waiting in orphans.iter().filter(|_| known.is_some()) {
            self.forgotten(waiting, &invocation.request_id).await;
        }
        for standing in strangers {
            failures += 1;
            reports.extend(self.unreadable_target(&standing, invocation).await);
        }
        let wanted: BTreeSet<String> = tended
            .iter()
            .flat_map(|tended| tended.alarms.iter().cloned())
            .chain(open.iter().cloned())
            .chain(
                due.watches
                    .iter()
                    .map(|watch| watch.event.alarm_arn.clone()),
            )
            .collect();
        // A throttled look at the alarms must leave time for what has a term.
        let until = now + (last_start - now) / 4;
        let limits = (until, invocation.request_id.as_str());
        let (live, unread) = alarms::read(&self.suite, home, &wanted, limits).await;
        if let Some(error) = unread {
            // What has a term ends with it, whether or not its alarms can be read.
            failures += 1;
            tracing::error!(%error, "not every alarm could be read");
        }
        let told = self.told(&live, &mut failures).await;
        let look = Look {
            invocation,
            home,
            policy,
            recent: Recent::of(&live, now),
            live,
            told,
        };
        for arn in &open {
            failures += usize::from(!self.reconciled(&look, arn).await);
        }
        // Where the schedule takes alarms up, the run on their behalf says so.
        let unnoted = look.live.iter().filter(|(arn, live)| {
            self.suite.settings.orchestrated
                && live.state() == Some(State::Alarm)
                && !open.contains(arn)
        });
        for (arn, _) in unnoted {
            failures += usize::from(!self.reconciled(&look, arn).await);
        }
        let tended = in_turn(tended, &invocation.request_id);
        let mut left = tended.iter();
        let mut running = FuturesUnordered::new();
        loop {
            // What is not begun in time is due at the next look.
            while running.len() < SIDE_BY_SIDE
                && self.suite.clock.now() < last_start
                && let Some(tended) = left.next()
            {
                running.push(Box::pin(self.tend(&look, tended)));
            }
            match running.next().await {
                None => break,
                Some(more) => reports.extend(more),
            }
        }
        if !self.suite.settings.dry_run {
            let seen = self.look_at_effects(&look, &due.watches, last_start).await;
            failures += seen.0;
            reports.extend(seen.1);
        }
        let seed = (invocation.request_id.as_str(), last_start);
        self.tell_the_untold(due.untold, seed).await;
        let failed = |report: &&Report| matches!(report.outcome, Outcome::Failed { .. });
        failures += reports.iter().filter(failed).count();
        telemetry::print(&telemetry::sweep(R::NAME, failures, self.suite.clock.now()));
        Ok(Response::new(String::new(), "SCHEDULE".to_owned(), reports))
    }

    /// What the ledger knows of the alarms that are in ALARM.
    async fn told(&self, live: &Live, failures: &mut usize) -> BTreeMap<String, AlarmState> {
        let mut left = live
            .iter()
            .filter(|(_, live)| live.state() == Some(State::Alarm));
        let mut running = FuturesUnordered::new();
        let mut told = BTreeMap::new();
        loop {
            while running.len() < SIDE_BY_SIDE
                && let Some((arn, _)) = left.next()
            {
                running.push(Box::pin(self.told_of(arn)));
            }
            match running.next().await {
                None => return told,
                Some(Some((arn, known))) => drop(told.insert(arn, known)),
                Some(None) => *failures += 1,
            }
        }
    }

    async fn told_of(&self, arn: &str) -> Option<(String, AlarmState)> {
        let known = self.suite.ledger.alarm(arn).await;
        let known = known.inspect_err(|error| {
            tracing::error!(%error, alarm = arn, "what is known of it cannot be read");
        });
        Some((arn.to_owned(), known.ok()?))
    }

    pub(super) async fn current_policy(
        &self,
        home: &Home,
        now: DateTime<Utc>,
    ) -> Result<Arc<Loaded<R::Action>>, Arc<PolicyError>> {
        let known = self.policies.known(&self.suite, home).await?;
        self.policies
            .refreshed((&self.suite, home), &known, now)
            .await
    }

    /// Does what is due for one target.
    async fn tend(&self, look: &Look<'_, R::Action>, tended: &Tended<R::Action>) -> Vec<Report> {
        let in_alarm: Vec<(&String, LiveAlarm)> = tended
            .alarms
            .iter()
            .filter_map(|arn| look.live.get_key_value(arn).map(|(arn, live)| (arn, *live)))
            .filter(|(_, live)| live.state() == Some(State::Alarm))
            .collect();
        // A playbook says what is done about an alarm, where there is one; and nothing is begun that no policy names.
        let acts = tended.listed && look.policy.is_some() && !self.suite.settings.orchestrated;
        let mut reports = Vec::new();
        if self.suite.settings.dry_run {
            // It neither acts nor learns; what stands for too long is told all the same.
            let facts = match self.facts_of(tended).await {
                Ok(facts) => facts,
                Err(failed) => return vec![*failed],
            };
            return self
                .stand_by(look, tended, &facts)
                .await
                .into_iter()
                .collect();
        }
        for waiting in &tended.waiting {
            self.waited(look, tended, waiting).await;
        }
        let learns = R::Learning::observes() && tended.listed;
        if tended.standing || learns {
            let facts = match self.facts_of(tended).await {
                Ok(facts) => facts,
                Err(failed) => return vec![*failed],
            };
            let now = self.suite.clock.now();
            if duty::is_held(&facts, now) {
                return reports;
            }
            let calm = in_alarm.is_empty() && facts.standing.is_none();
            if let Some(report) = Box::pin(self.stand_by(look, tended, &facts)).await {
                // What this left to do is seen at the next look.
                return vec![report];
            }
            if learns && calm {
                self.learn(&tended.target, &facts).await;
            }
        }
        for waiting in tended.waiting.iter().filter(|_| acts) {
            if R::OUTLASTS_ALARM && outlasts(waiting, &look.live, self.suite.clock.now()) {
                let transition = items::transition(&waiting.event);
                reports.extend(
                    self.on_behalf(look, tended, &waiting.event, transition)
                        .await,
                );
            }
        }
        for (arn, live) in in_alarm.into_iter().filter(|_| acts) {
            let Some(event) = change(arn, live, &tended.waiting, look.told.get(arn)) else {
                continue;
            };
            let transition = items::transition(&event);
            if tended.waiting.is_empty() && self.rests(look, tended, &event, live).await {
                continue;
            }
            reports.extend(self.on_behalf(look, tended, &event, transition).await);
        }
        reports
    }

    async fn facts_of(&self, tended: &Tended<R::Action>) -> Result<Facts, Box<Report>> {
        let resource = tended.target.action.resource();
        let facts = self.suite.ledger.look(R::NAME, resource).await;
        facts.map_err(|error| Box::new(Self::target_failed(tended, &error, error.is_transient())))
    }

    /// Does what is due for what stands on a target.
    async fn stand_by(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
    ) -> Option<Report> {
        let now = self.suite.clock.now();
        let terms = Terms {
            temporary: R::Reversal::term(&tended.target.action),
            listed: tended.listed,
        };
        let alarms = tended.alarms.iter();
        let fallback = facts.snapshot().map_or(now, |snapshot| snapshot.taken_at);
        let alarms = Alarms::of(
            alarms.map(|arn| (arn.as_str(), look.live.get(arn).copied())),
            fallback,
        );
        match duty::duty(facts, &alarms, terms, now) {
            Duty::Restore(due_at) => self.take_back_due(look, tended, facts, due_at).await,
            _ if self.suite.settings.dry_run => None,
            Duty::Wait => Box::pin(self.follow_policy(look, tended, facts)).await,
            Duty::Renew(until) => self.renew(look, tended, facts, until).await,
            Duty::Forewarn(end) => {
                self.forewarn(look, tended, facts, (end, &alarms.in_alarm))
                    .await
            }
            Duty::Settle(settling) => {
                self.on_behalf(look, tended, &settling.event, settling.transition.clone())
                    .await
            }
            // Whether it may go on, a policy that cannot be read does not say.
            Duty::Resume(_) if look.policy.is_none() => None,
            Duty::Resume(run) => {
                self.on_behalf(look, tended, &run.event, run.transition.clone())
                    .await
            }
        }
    }

    /// Keeps what is in place for longer, while the alarm is in ALARM.
    async fn renew(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
        until: DateTime<Utc>,
    ) -> Option<Report> {
        let snapshot = facts.snapshot()?;
        let run = self.behalf(look, tended, &snapshot.event, items::restoration(snapshot));
        let mut after = facts.clone();
        if let Some(standing) = &mut after.standing
            && let Some(snapshot) = &mut standing.snapshot
        {
            standing.version += 1;
            snapshot.expires_at = Some(until);
        }
        let commit = Commit {
            place: &run.place,
            before: facts,
            after: &after,
            incident_id: &snapshot.incident_id,
            entries: &[],
            told: None,
            watch: None,
        };
        let now = self.suite.clock.now();
        match self.suite.ledger.commit(&commit, now).await {
            // Whoever was first looks after it.
            Ok(_) => None,
            Err(error) => Some(Self::target_failed(tended, &error, error.is_transient())),
        }
    }

    /// Removes a transition that waits for nothing any more, because its alarm is not in ALARM.
    async fn waited(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        waiting: &Waiting,
    ) {
        let state = look
            .live
            .get(&waiting.event.alarm_arn)
            .map(|live| live.state());
        let over = match state {
            // Nothing is known of the alarm.
            None => false,
            Some(state) => {
                let stays = state.is_some() && R::OUTLASTS_ALARM;
                (state != Some(State::Alarm) && !stays) || !tended.listed
            }
        };
        if !over {
            return;
        }
        let run = self.behalf(
            look,
            tended,
            &waiting.event,
            items::transition(&waiting.event),
        );
        let now = self.suite.clock.now();
        if let Err(error) = self.suite.ledger.waits_no_more(&run.place, now).await {
            tracing::warn!(%error, "what waits for nothing was not removed");
        }
    }

    /// Removes what waits for a target that nothing names any more.
    async fn forgotten(&self, waiting: &Waiting, request_id: &str) {
        let place = Place {
            remediation: R::NAME,
            target: "",
            resource: &waiting.resource,
            event: &waiting.event,
            transition: items::transition(&waiting.event),
            request_id,
        };
        let now = self.suite.clock.now();
        if let Err(error) = self.suite.ledger.waits_no_more(&place, now).await {
            tracing::warn!(%error, "what waits for nothing was not removed");
        }
    }

    /// Notes a change of an alarm that nobody told; `false` where that failed.
    async fn reconciled(&self, look: &Look<'_, R::Action>, arn: &str) -> bool {
        let now = self.suite.clock.now();
        let Some((state, at)) = look.live.get(arn).and_then(|live| told_by(*live, now)) else {
            return true;
        };
        let before = match self.suite.ledger.alarm(arn).await {
            Ok(before) => before,
            Err(error) => {
                tracing::error!(%error, alarm = arn, "the incident cannot be read");
                return false;
            }
        };
        let after = next::noted(&before, arn, state, at);
        if after == before {
            return true;
        }
        let event = AlarmEvent {
            state,
            ..seen(arn, at)
        };
        let place = Place {
            remediation: R::NAME,
            target: "",
            resource: "",
            event: &event,
            transition: items::transition(&event),
            request_id: &look.invocation.request_id,
        };
        let entry = Entry {
            kind: Kind::Reconciled,
            summary: format!(
                "the alarm, read again, is in {state} or gone; its event did not come"
            ),
            detail: Value::Null,
        };
        let entries = std::slice::from_ref(&entry);
        let written = self
            .suite
            .ledger
            .reconcile(&place, (&before, &after), entries, now)
            .await;
        written
            .inspect_err(|error| tracing::error!(%error, alarm = arn, "its change is not noted"))
            .is_ok()
    }

    /// Whether the change was answered, so that nothing of the target need be looked at.
    async fn rests(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        event: &AlarmEvent,
        live: LiveAlarm,
    ) -> bool {
        let run = self.behalf(look, tended, event, items::transition(event));
        // What cannot be read is told by the run itself.
        let Ok(facts) = self.suite.ledger.facts(&run.place).await else {
            return false;
        };
        let verdict = guard::decide(&Question {
            event,
            live,
            facts: &facts,
            switch: None,
            limits: &tended.target.guard,
            // Only what was answered, or waits, rests.
            predecessors: &[],
            target: run.place.target,
            request_id: run.place.request_id,
            run_id: &run.place.run_id(),
            round: None,
            occasion: Occasion::Due,
            listed: run.may_act(),
            outlasts_alarm: R::OUTLASTS_ALARM,
            // A run that was begun never rests.
            half_done: false,
            now: self.suite.clock.now(),
        });
        matches!(verdict, Verdict::Leave)
    }

    async fn learn(&self, target: &Target<R::Action>, facts: &Facts) {
        let now = self.suite.clock.now();
        let observed = match self.remediation.observe(&target.action, None, now).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(target = %target.name, %error, retryable = error.is_transient(), "nothing was learned");
                return;
            }
        };
        let known = memory::<R>(facts);
        let Some(lesson) = R::Learning::learn(&observed, &target.action, known.as_ref(), now)
        else {
            return;
        };
        let memory = match value("memory", &lesson.memory) {
            Ok(memory) => memory,
            Err(error) => {
                tracing::error!(target = %target.name, %error, "what was learned was not kept");
                return;
            }
        };
        let resource = target.action.resource();
        let now = self.suite.clock.now();
        match self
            .suite
            .ledger
            .remember(R::NAME, resource, facts, memory, now)
            .await
        {
            Ok(true) => tracing::info!(target = %target.name, "{}", lesson.summary),
            Ok(false) => tracing::info!(target = %target.name, "a run was at work; learning later"),
            Err(error) => {
                tracing::warn!(target = %target.name, %error, "what was learned was not kept");
            }
        }
    }
}

/// Whether what waits is due although its alarm has left ALARM.
fn outlasts(waiting: &Waiting, live: &Live, now: DateTime<Utc>) -> bool {
    let state = live.get(&waiting.event.alarm_arn).map(|live| live.state());
    state.flatten().is_some_and(|state| state != State::Alarm) && waiting.look_at <= now
}

/// The change that brought an alarm into ALARM, as its event told it or, where that was lost, as the alarm does; `None`
/// where that is not known.
fn change(
    arn: &str,
    live: LiveAlarm,
    waiting: &[Waiting],
    known: Option<&AlarmState>,
) -> Option<AlarmEvent> {
    let mut waits = waiting
        .iter()
        .map(|waiting| &waiting.event)
        .filter(|event| event.alarm_arn == arn);
    let LiveAlarm::Found {
        since: Some(since), ..
    } = live
    else {
        return waits.next().cloned();
    };
    let latest = known?
        .latest
        .filter(|latest| latest.state == State::Alarm)
        .filter(|latest| latest.at >= since || same(latest.at, since));
    let at = latest.map_or(since, |latest| latest.at);
    let waits = waits.find(|event| event.changed_at >= at);
    Some(waits.cloned().unwrap_or_else(|| seen(arn, at)))
}

/// The change that an alarm itself tells, where its event is not on its way any more.
fn told_by(live: LiveAlarm, now: DateTime<Utc>) -> Option<(State, DateTime<Utc>)> {
    let (state, at) = match live {
        LiveAlarm::Gone => return Some((State::Ok, now)),
        LiveAlarm::Found { state, since, .. } => (state, since?),
        LiveAlarm::Foreign => return None,
    };
    let late = match state {
        State::Ok => NOT_YET_TOLD,
        State::Alarm => TOLD_WITHIN,
        State::InsufficientData => return None,
    };
    (now - at >= late).then_some((state, at))
}
