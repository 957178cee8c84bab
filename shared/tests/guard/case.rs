//! What the guard is asked in these tests, and what it answers.

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::alarm::{self, AlarmEvent, State};
use shared::guard::{self, Grounds, LiveAlarm, Occasion, Question, Refusal, Verdict};
use shared::ledger::items::{
    Action, Answer, Engaged, Facts, Heartbeat, History, Lease, Record, Status, Waiting,
};
use shared::outcome::{Outcome, Report, Rule};
use shared::policy::{Breaker, Budget, Flap, Limits, Predecessor};

pub(crate) const ALARM: &str =
    "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:IngestionDlqDepthHigh";
pub(crate) const LIVE: LiveAlarm = live(State::Alarm);

/// The alarm in a state.
pub(crate) const fn live(state: State) -> LiveAlarm {
    LiveAlarm::Found {
        state,
        actions_enabled: true,
        since: None,
    }
}

pub(crate) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

pub(crate) fn event(state: State, second: i64) -> AlarmEvent {
    let stamp = at(second).format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string();
    alarm::parse(&json!({
        "version": "0",
        "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": "123456789012",
        "time": "2027-01-15T08:00:00Z",
        "region": "eu-west-1",
        "resources": [ALARM],
        "detail": {
            "alarmName": "IngestionDlqDepthHigh",
            "state": {"value": state.as_str(), "timestamp": stamp},
        },
    }))
    .unwrap()
}

pub(crate) fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_event_age_seconds: number(900),
        approval_seconds: number(3_600),
        budget: Budget {
            actions: number(3),
            window_seconds: number(3_600),
        },
        cooldown_seconds: 60,
        flap: Flap {
            transitions: number(4),
            window_seconds: number(1_800),
        },
        breaker: Breaker {
            refires: number(2),
            window_seconds: number(300),
            open_seconds: number(3_600),
        },
        undo_if_worse: false,
    }
}

/// A question: an alarm's event that was delivered, with nothing against it, unless a test says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) event: AlarmEvent,
    pub(crate) live: LiveAlarm,
    pub(crate) facts: Facts,
    pub(crate) switch: Option<Engaged>,
    pub(crate) limits: Limits,
    pub(crate) predecessors: Vec<(Predecessor, History)>,
    pub(crate) round: Option<u32>,
    pub(crate) occasion: Occasion,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            event: event(State::Alarm, 0),
            live: LIVE,
            facts: Facts::default(),
            switch: None,
            limits: limits(),
            predecessors: Vec::new(),
            round: None,
            occasion: Occasion::Delivered,
        }
    }
}

impl Case {
    pub(crate) fn of(facts: Facts) -> Self {
        Self {
            facts,
            ..Self::default()
        }
    }

    pub(crate) fn switched(mut self, rule: Rule) -> Self {
        self.switch = Some(Engaged {
            rule,
            reason: Some("maintenance".into()),
        });
        self
    }

    pub(crate) fn asked_at(&self, now: i64) -> Verdict {
        let predecessors = self.predecessors.iter();
        let predecessors: Vec<_> = predecessors
            .map(|(it, history)| (it, history.clone()))
            .collect();
        guard::decide(&Question {
            event: &self.event,
            live: self.live,
            facts: &self.facts,
            switch: self.switch.as_ref(),
            limits: &self.limits,
            predecessors: &predecessors,
            target: "orders",
            request_id: "req-me",
            run_id: "run-me",
            round: self.round,
            occasion: self.occasion,
            listed: true,
            outlasts_alarm: false,
            half_done: false,
            now: at(now),
        })
    }

    pub(crate) fn refused_at(&self, now: i64) -> Refusal {
        match self.asked_at(now) {
            Verdict::Refuse(refusal) => *refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn proceeds_at(&self, now: i64) -> Grounds {
        match self.asked_at(now) {
            Verdict::Proceed(grounds) => *grounds,
            other => panic!("{other:?}"),
        }
    }
}

/// The rule by which a verdict refuses.
pub(crate) fn rule(verdict: &Verdict) -> Option<Rule> {
    match verdict {
        Verdict::Refuse(refusal) => refusal.outcome.rule(),
        Verdict::Proceed(_) | Verdict::Repeat(_) | Verdict::Leave => None,
    }
}

pub(crate) fn action(run: &str, started: i64, finished: i64, refires: u32) -> Action {
    Action {
        run_id: run.into(),
        alarm_arn: ALARM.into(),
        started_at: at(started),
        finished_at: at(finished),
        refires,
        reverts: false,
    }
}

/// An action that took back what was in place.
pub(crate) fn revert(run: &str, started: i64, finished: i64, refires: u32) -> Action {
    Action {
        reverts: true,
        ..action(run, started, finished, refires)
    }
}

pub(crate) fn acted(actions: Vec<Action>) -> Facts {
    Facts {
        history: History {
            version: 1,
            actions,
            ..History::default()
        },
        ..Facts::default()
    }
}

/// The history's answer to the alarm's change at that second.
pub(crate) fn answered(second: i64) -> Facts {
    let answer = Answer {
        rule: None,
        changed_at: at(second),
        outcome: "Skipped".into(),
        reason: "there is nothing to do".into(),
    };
    Facts {
        history: History {
            version: 1,
            answers: [(ALARM.to_owned(), answer)].into(),
            ..History::default()
        },
        ..Facts::default()
    }
}

/// The alarm's change at that second waits for a look.
/// The answer, dated otherwise by so many milliseconds.
pub(crate) fn answered_beside(millis: i64) -> Facts {
    let mut facts = answered(0);
    for answer in facts.history.answers.values_mut() {
        answer.changed_at += TimeDelta::milliseconds(millis);
    }
    facts
}

pub(crate) fn waiting(second: i64, look_at: i64) -> Facts {
    Facts {
        waiting: Some(Waiting {
            resource: "arn:aws:sqs:eu-west-1:123456789012:orders".into(),
            event: event(State::Alarm, second),
            rule: Rule::Cooldown,
            reason: "it rests".into(),
            since: at(second),
            look_at: at(look_at),
        }),
        ..Facts::default()
    }
}

pub(crate) fn lease(run: &str, held_until: i64) -> Lease {
    Lease {
        token: 7,
        run_id: run.into(),
        held_until: at(held_until),
    }
}

pub(crate) fn record(status: Status, request: &str, claimed_until: i64, round: u32) -> Record {
    Record {
        status,
        request_id: request.into(),
        token: 7,
        sequence: 3,
        run_id: "run-me".into(),
        round,
        attempt: 1,
        started_at: at(0),
        claimed_until: at(claimed_until),
        incident_id: "inc-1".into(),
        plan: None,
        progress: Some(json!({"done": 3})),
        report: None,
    }
}

/// The record, with its worker last heard of at a second.
pub(crate) fn heard(record: Record, second: i64) -> Facts {
    Facts {
        heartbeat: Some(Heartbeat {
            token: record.token,
            at: at(second),
        }),
        record: Some(record),
        ..Facts::default()
    }
}

pub(crate) fn report() -> Report {
    let outcome = Outcome::Applied {
        summary: "done".into(),
    };
    Report::new("dlq-replay", "orders", "r", outcome)
}
