//! Claiming a target, and giving a claim back that may not be used.

use serde_json::{Value, json};

use crate::guard::Grounds;
use crate::guard::next::{self, Intent, Purpose};
use crate::ledger::LedgerError;
use crate::ledger::difference::Commit;
use crate::ledger::items::{Engaged, Facts, Snapshot};
use crate::ledger::permit::Permit;
use crate::ledger::timeline::{Entry, Kind};
use crate::ledger::write::Claim;
use crate::outcome::Outcome;
use crate::remediation::{Remediation, Reversal, value};
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Decided, Run, Told};
use crate::runtime::reads::Reads;
use crate::runtime::refuse::Refusing;

/// What a run asks of the ledger before it changes its target.
pub(super) struct Claiming<'a> {
    pub(super) facts: &'a Facts,
    pub(super) grounds: &'a Grounds,
    pub(super) plan: &'a Value,
    pub(super) observed: &'a Value,
    pub(super) snapshot: Option<&'a Snapshot>,
    pub(super) purpose: Purpose,
    pub(super) approved_by: Option<&'a str>,
}

impl<'a> Claiming<'a> {
    /// A claim for which nothing was observed anew, and which takes no snapshot.
    pub(super) fn of(facts: &'a Facts, grounds: &'a Grounds, plan: &'a Value) -> Self {
        Self {
            facts,
            grounds,
            plan,
            observed: &Value::Null,
            snapshot: None,
            purpose: Purpose::Acts,
            approved_by: None,
        }
    }
}

/// The end of a claim, as the run sees it.
pub(super) enum Claimed {
    Granted(Box<Permit>),
    /// Another run was first.
    Overtaken,
    Over(Box<Told>),
}

impl<R: Remediation> Runtime<R> {
    /// Writes the claim. The kill switches are read once more beside it, so that one that was thrown while the target
    /// was observed is obeyed; the claim is then given back.
    pub(super) async fn claim(
        &self,
        run: &Run<'_, R>,
        claiming: &Claiming<'_>,
        reads: &Reads<'_, R::Action>,
    ) -> Claimed {
        let ledger = &self.suite.ledger;
        let now = self.suite.clock.now();
        let Claiming { facts, grounds, .. } = *claiming;
        let known = facts.standing.as_ref().filter(|it| it.snapshot.is_some());
        // What is in place is as that policy has it, until it was brought up to date.
        let followed = known.filter(|_| <R::Reversal as Reversal<R>>::FOLLOWS_ITS_POLICY);
        let policy = match followed {
            Some(standing) => Ok(standing.policy.clone()),
            None => value("the policy", run.target),
        };
        let policy = match policy {
            Ok(policy) => policy,
            Err(error) => return Claimed::Over(run.failed(&error, false)),
        };
        let stands = claiming.purpose != Purpose::Acts;
        let incident_id = next::incident_of(facts, &run.place, stands);
        let after = next::claimed(
            facts,
            &Intent {
                place: &run.place,
                grounds,
                limits: &run.target.guard,
                policy: &policy,
                plan: claiming.plan,
                snapshot: claiming.snapshot,
                incident_id: &incident_id,
                purpose: claiming.purpose,
                held_until: run.held_until(),
            },
            now,
        );
        let entry = claim_entry(run, claiming, &after);
        let commit = Commit {
            place: &run.place,
            before: facts,
            after: &after,
            incident_id: &incident_id,
            entries: std::slice::from_ref(&entry),
            told: None,
            watch: None,
        };
        let (claim, switches) = tokio::join!(
            ledger.claim(&commit, grounds.follows_a_death, run.held_until(), now),
            reads.switches(),
        );
        let permit = match claim {
            Ok(Claim::Granted(permit)) => permit,
            Ok(Claim::Overtaken) => return Claimed::Overtaken,
            Err(error) => return Claimed::Over(run.failed(&error, error.is_transient())),
        };
        match switches.map(|switches| switches.engaged(R::NAME, run.place.resource)) {
            Ok(None) => {
                tracing::info!(incident_id = %permit.incident_id, token = permit.token, plan = %claiming.plan, "claimed");
                Claimed::Granted(permit)
            }
            Ok(Some(engaged)) => self.withdraw(run, &permit, facts, engaged).await,
            Err(error) => {
                let retryable = error.is_transient();
                let given_back = self.give_back(run, &permit, facts).await;
                if let Err(error) = given_back {
                    tracing::warn!(%error, "the claim was not given back; it runs out");
                }
                Claimed::Over(run.failed(&error, retryable))
            }
        }
    }

    async fn give_back(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        before: &Facts,
    ) -> Result<(), LedgerError> {
        let now = self.suite.clock.now();
        let claimed = permit.facts();
        let after = next::withdrawn(&claimed, before, now);
        let commit = Commit {
            place: &run.place,
            before: &claimed,
            after: &after,
            incident_id: &permit.incident_id,
            entries: &[],
            told: None,
            watch: None,
        };
        self.suite
            .ledger
            .finish(permit, &commit, now)
            .await
            .map(|_| ())
    }

    /// Gives a claim back that a kill switch forbids, and says so.
    async fn withdraw(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        before: &Facts,
        engaged: Engaged,
    ) -> Claimed {
        if let Err(error) = self.give_back(run, permit, before).await {
            return Claimed::Over(run.failed(&error, error.is_transient()));
        }
        let why = engaged
            .reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let outcome = Outcome::Skipped {
            rule: engaged.rule,
            reason: format!(
                "a kill switch was thrown while the plan was made{why}; nothing was changed"
            ),
        };
        let facts = match self.suite.ledger.facts(&run.place).await {
            Ok(facts) => facts,
            Err(error) => return Claimed::Over(run.failed(&error, error.is_transient())),
        };
        let refusing = Refusing {
            waits: Some((engaged.rule, self.suite.clock.now())),
            ..Refusing::new(outcome.clone())
        };
        match self.refuse(run, &facts, refusing).await {
            Decided::Over(told) => Claimed::Over(told),
            _ => Claimed::Over(Box::new(Told::new(run.report(outcome)))),
        }
    }
}

fn claim_entry<R: Remediation>(run: &Run<'_, R>, claiming: &Claiming<'_>, after: &Facts) -> Entry {
    let Grounds { round, attempt, .. } = claiming.grounds;
    let approved = claiming
        .approved_by
        .map(|by| format!(", approved by {by}"))
        .unwrap_or_default();
    Entry {
        kind: Kind::Claimed,
        summary: format!(
            "{} took {} in hand (round {round}, attempt {attempt}{approved})",
            R::NAME,
            run.place.target
        ),
        detail: json!({
            "run_id": run.place.run_id(),
            "token": after.lease.as_ref().map(|lease| lease.token),
            "plan": claiming.plan,
            "observed": claiming.observed,
            "event": run.place.event_detail(),
        }),
    }
}
