//! What is taken out of the kernel, one by one, and what has to notice.
//!
//! What follows was wrong once, or would be if one line were gone; the list is checked against the code, so that a
//! line that is changed has to be changed here.

use Notice::{Seeds, Test};

/// A mutation.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What is gone, in a few words.
    pub name: &'static str,
    /// The lines that go.
    pub edits: &'static [Edit],
    /// What has to notice it.
    pub noticed_by: Notice,
}

/// What has to notice a mutation.
#[derive(Debug, Clone, Copy)]
pub enum Notice {
    /// A seed, by one of these invariants.
    Seeds(&'static [&'static str]),
    /// A test: what cargo is told to find it by, and its name. For orders that the simulated world does not play, or
    /// against which the kernel has a second guard.
    Test(&'static [&'static str], &'static str),
}

/// A line that goes.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// The file, below `shared/src`.
    pub file: &'static str,
    /// What stands there once.
    pub find: &'static str,
    /// What stands there instead.
    pub replace: &'static str,
}

const SHARED: &[&str] = &["--package", "shared", "--lib"];
const GUARD: &[&str] = &["--package", "shared", "--test", "guard"];
const STORIES: &[&str] = &["--package", "simulation-of-a-mutant", "--test", "stories"];
const STORM: &[&str] = &["--package", "simulation-of-a-mutant", "--lib"];

/// The mutations.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "incidents follow the order of delivery",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "if !known && alarm.latest.is_none_or(|latest| at > latest.at) {",
            replace: "if !known {",
        }],
        noticed_by: Seeds(&["incident-follows-alarm"]),
    },
    Mutation {
        name: "a lost OK is never noticed",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: "for arn in &open {",
            replace: "for arn in open.iter().take(0) {",
        }],
        noticed_by: Seeds(&["incident-follows-alarm"]),
    },
    Mutation {
        name: "the schedule writes under a running lease",
        edits: &[
            Edit {
                file: "runtime/sweep.rs",
                find: "if duty::is_held(&facts, now) {\n                return reports;",
                replace: "if false {\n                return reports;",
            },
            Edit {
                file: "runtime/sweep.rs",
                find: "let calm = in_alarm.is_empty() && facts.standing.is_none();",
                replace: "let calm = true;",
            },
            Edit {
                file: "guard/duty.rs",
                find: "if is_held(facts, now) {",
                replace: "if false {",
            },
        ],
        noticed_by: Seeds(&[
            "true-memory",
            "end-is-told",
            "honest-report",
            "acted-or-reason",
        ]),
    },
    Mutation {
        name: "one alarm at OK is taken for all of a target's",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "all.ok_since = ok_since.filter(|_| all_ok && all.in_alarm.is_empty());",
            replace: "all.ok_since = ok_since.filter(|_| all_ok);\n        all.in_alarm.retain(|_| ok_since.is_none());",
        }],
        noticed_by: Seeds(&["restore-in-time"]),
    },
    Mutation {
        name: "a passing refusal ends the transition",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "let lasting = refused.waits.is_none();",
            replace: "let lasting = true;",
        }],
        noticed_by: Seeds(&["acted-or-reason", "end-is-told"]),
    },
    Mutation {
        name: "the schedule does not take up what is due",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: "for (arn, live) in in_alarm.into_iter().filter(|_| acts) {",
            replace: "for (arn, live) in in_alarm.into_iter().take(0) {",
        }],
        noticed_by: Seeds(&["acted-or-reason"]),
    },
    Mutation {
        name: "a run that died is never taken up",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "open.map_or(Duty::Wait, |run| Duty::Resume(Box::new(run.clone())))",
            replace: "open.map_or(Duty::Wait, |run| if run.transition.is_empty() { Duty::Resume(Box::new(run.clone())) } else { Duty::Wait })",
        }],
        noticed_by: Seeds(&["end-is-told", "acted-or-reason"]),
    },
    Mutation {
        name: "a target that was removed from the policy is forgotten",
        edits: &[Edit {
            file: "runtime/look.rs",
            find: "all.insert(stands.resource.clone(), tended);",
            replace: "drop(tended);",
        }],
        noticed_by: Seeds(&["nothing-left", "end-is-told"]),
    },
    Mutation {
        name: "the table may delete what still stands",
        edits: &[Edit {
            file: "ledger/difference.rs",
            find: "json(\"what stands\", standing)?,\n                    None,",
            replace: "json(\"what stands\", standing)?,\n                    Some(now + KEPT),",
        }],
        noticed_by: Seeds(&[
            "nothing-left",
            "snapshot-first",
            "end-is-told",
            "acted-or-reason",
        ]),
    },
    Mutation {
        name: "nobody is told of what a kill switch keeps in place",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "told_at.is_none_or(|told_at| now - told_at >= TOLD_AGAIN)",
            replace: "told_at.is_some_and(|told_at| now - told_at >= TOLD_AGAIN)",
        }],
        noticed_by: Seeds(&["nothing-left"]),
    },
    Mutation {
        name: "a lost lease gives out its tokens again",
        edits: &[Edit {
            file: "ledger/items.rs",
            find: "let most = lease.into_iter().chain(heartbeat).chain(record).max();",
            replace: "let most = lease.into_iter().chain(heartbeat.filter(|_| false)).chain(record.filter(|_| false)).max();",
        }],
        noticed_by: Seeds(&["acted-or-reason", "end-is-told", "nothing-left"]),
    },
    Mutation {
        name: "an outcome is told once or never",
        edits: &[Edit {
            file: "runtime/conclude.rs",
            find: "told: Some(end.report),",
            replace: "told: Some(end.report).filter(|_| false),",
        }],
        noticed_by: Seeds(&["end-is-told"]),
    },
    Mutation {
        name: "another run's lease is no hindrance",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: "if lease.run_id == question.run_id || lease.held_until <= question.now {",
            replace: "if lease.run_id == question.run_id || lease.token > 0 {",
        }],
        noticed_by: Test(GUARD, "properties::nothing_passes_another_runs_lease"),
    },
    Mutation {
        name: "a kill switch thrown while the plan is made is overlooked",
        edits: &[Edit {
            file: "runtime/claim.rs",
            find: "match switches.map(|switches| switches.engaged(R::NAME, run.place.resource)) {",
            replace: "match switches.map(|switches| switches.engaged(R::NAME, \"\").filter(|_| false)) {",
        }],
        noticed_by: Seeds(&["kill-switch"]),
    },
    Mutation {
        name: "the snapshot is not in the claim",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "snapshot: intent.snapshot.or_else(|| facts.snapshot()).cloned(),",
            replace: "snapshot: facts.snapshot().cloned(),",
        }],
        noticed_by: Seeds(&["snapshot-first"]),
    },
    Mutation {
        name: "a run that has not ended gives way to the next",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "let mut runs: Vec<OpenRun> = others.collect();",
            replace: "let mut runs: Vec<OpenRun> = others.take(0).collect();",
        }],
        noticed_by: Seeds(&["end-is-told", "counted-duplicates", "acted-or-reason"]),
    },
    Mutation {
        name: "what a run had in hand that ends without a word is forgotten",
        edits: &[Edit {
            file: "runtime/refuse.rs",
            find: "let record = facts.record.as_ref()?;",
            replace: "let record = facts.record.as_ref().filter(|_| false)?;",
        }],
        noticed_by: Seeds(&["counted-duplicates"]),
    },
    Mutation {
        name: "what other runs have saved is not read",
        edits: &[Edit {
            file: "runtime/act.rs",
            find: "if R::Rounds::at_most(&run.target.action) < 2 {",
            replace: "if R::Rounds::at_most(&run.target.action) < 200 {",
        }],
        noticed_by: Seeds(&["counted-duplicates"]),
    },
    Mutation {
        name: "a plan that was approved is to be approved again after a death",
        edits: &[Edit {
            file: "runtime/plan.rs",
            find: "for path in R::MOMENTARY {",
            replace: "for path in &R::MOMENTARY[..0] {",
        }],
        noticed_by: Seeds(&["honest-report"]),
    },
    Mutation {
        name: "nobody waits for the remediation that has the first word",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: ".filter(|(until, _)| *until > now)",
            replace: ".filter(|(until, _)| *until > now && now < event.changed_at)",
        }],
        noticed_by: Test(
            STORIES,
            "who_comes_after_another_acts_once_that_one_had_its_time",
        ),
    },
    Mutation {
        name: "an approval lasts as long as its giver said",
        edits: &[Edit {
            file: "guard/approval.rs",
            find: "approval.expires_at.min(approval.at + valid_for)",
            replace: "approval.expires_at.max(approval.at + valid_for - valid_for)",
        }],
        noticed_by: Test(
            GUARD,
            "approvals::an_approval_ends_with_the_policys_time_however_long_its_giver_let_it_last",
        ),
    },
    Mutation {
        name: "what made things worse stays although the policy wants it undone",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "if let Some(at) = snapshot.cut_short {",
            replace: "if let Some(at) = snapshot.cut_short.filter(|_| false) {",
        }],
        noticed_by: Test(
            STORIES,
            "what_made_things_worse_is_told_once_and_taken_back_where_the_policy_wants_that",
        ),
    },
    Mutation {
        name: "what a watch saw is said at every look",
        edits: &[Edit {
            file: "runtime/effects.rs",
            find: "watch: Some(Watching::Ends(watch)),",
            replace: "watch: Some(Watching::Begins(watch)),",
        }],
        noticed_by: Test(
            STORIES,
            "what_did_not_make_things_worse_is_said_once_and_stays",
        ),
    },
    Mutation {
        name: "what failed before its claim is not taken up",
        edits: &[Edit {
            file: "runtime/target.rs",
            find: "Ok(facts) if facts.record.is_none() => facts,",
            replace: "Ok(facts) if facts.record.is_none() && run.listed && !run.listed => facts,",
        }],
        noticed_by: Test(
            STORIES,
            "what_failed_for_longer_than_its_news_is_new_is_acted_on_at_last",
        ),
    },
    Mutation {
        name: "actions that are enabled again change nothing",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: "        // Enabling them again changes no state of the alarm, so that nothing would say so.\n",
            replace: "        LiveAlarm::Found { actions_enabled: false, .. } => Some(skip(Rule::AlarmActionsDisabled, String::new())),\n",
        }],
        noticed_by: Test(GUARD, "rules::each_passing_rule_says_when_to_look_again"),
    },
    Mutation {
        name: "an end that was still to come is told after it",
        edits: &[Edit {
            file: "runtime/refuse.rs",
            find: "told: (!again && !goes_on && is_told(&report.outcome)).then_some(&report),",
            replace: "told: (!again && (goes_on || is_told(&report.outcome))).then_some(&report),",
        }],
        noticed_by: Test(STORIES, "a_recovery_that_is_due_is_told_once"),
    },
    Mutation {
        name: "a throttled look at the alarms takes all the time",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: "let until = now + (last_start - now) / 4;",
            replace: "let until = now + (last_start - now);",
        }],
        noticed_by: Test(
            STORIES,
            "what_has_a_term_ends_with_it_though_no_alarm_can_be_read",
        ),
    },
    Mutation {
        name: "a new change within a minute is taken for the answered one",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: ".filter(|latest| latest.at >= since || same(latest.at, since));",
            replace: ".filter(|latest| latest.at >= since - NOT_YET_TOLD || same(latest.at, since));",
        }],
        noticed_by: Test(
            STORIES,
            "a_change_whose_event_was_lost_is_not_taken_for_the_one_before",
        ),
    },
    Mutation {
        name: "what fell due is restored before its alarm is asked",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "    if !alarmed {\n        let stabilisation =",
            replace: "    if !alarmed || expired.is_some() {\n        let stabilisation =",
        }],
        noticed_by: Test(GUARD, "duty::each_duty_falls_due_in_its_time"),
    },
    Mutation {
        name: "what was renewed is taken back all the same",
        edits: &[Edit {
            file: "ledger/difference.rs",
            find: "condition: numbered(seen),",
            replace: "condition: if seen.is_some() { Condition::Always } else { numbered(seen) },",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::claims::what_was_renewed_since_it_was_read_is_not_claimed_for_its_restoration",
        ),
    },
    Mutation {
        name: "what takes back spends the cooldown",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: "actions.find(|action| !action.reverts)",
            replace: "actions.next()",
        }],
        noticed_by: Test(
            GUARD,
            "bounds::what_takes_back_spends_neither_cooldown_nor_budget",
        ),
    },
    Mutation {
        name: "what takes back spends the budget",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: ".filter(|action| !action.reverts && action.started_at > now - window)",
            replace: ".filter(|action| action.started_at > now - window)",
        }],
        noticed_by: Test(
            GUARD,
            "bounds::what_takes_back_spends_neither_cooldown_nor_budget",
        ),
    },
    Mutation {
        name: "an event that no target lists is judged on an old policy",
        edits: &[Edit {
            file: "runtime/policies.rs",
            find: "read_at > event_at + SKEW",
            replace: "read_at > event_at + SKEW || read_at <= event_at + SKEW",
        }],
        noticed_by: Test(
            STORIES,
            "a_warm_function_sees_an_alarm_that_is_new_in_the_policy",
        ),
    },
    Mutation {
        name: "one target's window cuts the history of all",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "saturating_sub(FLAPS_KEPT as usize)",
            replace: "saturating_sub(FLAPS_KEPT as usize / 40)",
        }],
        noticed_by: Test(
            SHARED,
            "guard::next::tests::alarm::no_window_cuts_the_history_that_targets_share",
        ),
    },
    Mutation {
        name: "a conflict of transactions reads as a lost lease",
        edits: &[Edit {
            file: "ledger/write.rs",
            find: "Ok(Transacted::Conflicted) => {}",
            replace: "Ok(Transacted::Conflicted) => return Ok(false),",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::tries::conflicts_at_every_try_are_contention_and_no_lost_lease",
        ),
    },
    Mutation {
        name: "a throttled transaction is given up",
        edits: &[Edit {
            file: "ledger/write.rs",
            find: "Err(error) if error.is_transient() && attempt + 1 < TRIES => {}",
            replace: "Err(error) if error.is_transient() && attempt > TRIES => {}",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::tries::a_claim_whose_answer_was_lost_is_granted_and_made_once",
        ),
    },
    Mutation {
        name: "each try of one write has a token of its own",
        edits: &[Edit {
            file: "ledger/write.rs",
            find: "self.store.transact(&writes, &token).await",
            replace: "self.store.transact(&writes, &format!(\"{token}{attempt}\")).await",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::tries::a_claim_whose_answer_was_lost_is_granted_and_made_once",
        ),
    },
    Mutation {
        name: "runs that met each other meet again",
        edits: &[Edit {
            file: "ledger/write.rs",
            find: "backoff::pause(attempt, &token)",
            replace: "backoff::pause(attempt, subject)",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::tries::two_that_met_do_not_come_back_at_the_same_moment",
        ),
    },
    Mutation {
        name: "all targets of an alarm are observed at once",
        edits: &[Edit {
            file: "runtime/job.rs",
            find: "SIDE_BY_SIDE: usize = 8;",
            replace: "SIDE_BY_SIDE: usize = 1000;",
        }],
        noticed_by: Test(
            STORM,
            "storm::tests::each_of_a_thousand_targets_of_one_alarm_is_acted_on_or_due",
        ),
    },
    Mutation {
        name: "a storm of alarms ends in the failure queue",
        edits: &[Edit {
            file: "runtime/alarms.rs",
            find: "Err(error) if error.kind == Kind::Throttled && suite.clock.now() < until => {",
            replace: "Err(error) if error.kind == Kind::Throttled && attempt > 99 && suite.clock.now() < until => {",
        }],
        noticed_by: Test(
            STORM,
            "storm::tests::a_hundred_alarms_in_half_a_second_wait_their_turn_and_none_fails",
        ),
    },
    Mutation {
        name: "what waits is dropped when its next attempt is refused",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "(refused.waits, refused.report) else {",
            replace: "(refused.waits.filter(|_| before.is_none()), refused.report) else {",
        }],
        noticed_by: Test(
            SHARED,
            "guard::next::tests::refusals::what_waits_keeps_since_when_and_says_what_it_waits_for_now",
        ),
    },
    Mutation {
        name: "of two alarms of a target one waits",
        edits: &[Edit {
            file: "ledger/items.rs",
            find: "format!(\"{WAITING}{resource}#{alarm_arn}\"),",
            replace: "format!(\"{WAITING}{resource}#{}\", alarm_arn.len().min(1)),",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::due::two_alarms_of_a_target_wait_side_by_side",
        ),
    },
    Mutation {
        name: "a dry run opens breakers and renews what is in place",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "if refused.dry_run {",
            replace: "if refused.dry_run && refused.report.is_none() {",
        }],
        noticed_by: Test(
            SHARED,
            "guard::next::tests::refusals::a_dry_run_leaves_no_trace_but_what_the_event_says_of_its_alarm",
        ),
    },
    Mutation {
        name: "lines of two targets overwrite each other",
        edits: &[Edit {
            file: "ledger/timeline.rs",
            find: "format!(\"at#{at}#{}#{order:012}\", author.name)",
            replace: "format!(\"at#{at}#{order:012}\")",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::claims::lines_of_two_targets_in_one_millisecond_both_stand",
        ),
    },
    Mutation {
        name: "a save that lands late reopens what has ended",
        edits: &[Edit {
            file: "ledger/write.rs",
            find: "let condition = held_record(permit, record.sequence);",
            replace: "let condition = Condition::Are(vec![(TOKEN, permit.token)]);",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::fences::a_save_in_flight_that_lands_after_the_end_does_not_reopen_the_record",
        ),
    },
    Mutation {
        name: "a remediation's notes are written without the lease",
        edits: &[Edit {
            file: "ledger/notes.rs",
            find: "            writes.push(permit.still_held());\n",
            replace: "",
        }],
        noticed_by: Test(
            SHARED,
            "ledger::tests::fences::nothing_is_written_under_a_lease_that_has_passed",
        ),
    },
    Mutation {
        name: "a retry takes over from a living worker",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: "let dead = ended_by_lambda || (same_request && silent);",
            replace: "let dead = ended_by_lambda || (same_request && (silent || !silent));",
        }],
        noticed_by: Test(
            GUARD,
            "attempts::a_second_delivery_of_one_request_is_told_to_come_again",
        ),
    },
    Mutation {
        name: "a late OK skips the stabilisation",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "let calm = alarms.ok_since.map(|since| since + stabilisation);",
            replace: "let calm = alarms.ok_since.map(|since| since.min(since + stabilisation));",
        }],
        noticed_by: Test(
            STORIES,
            "a_late_ok_waits_for_the_stabilisation_of_the_alarm_as_it_is_now",
        ),
    },
    Mutation {
        name: "one alarm that is listed by name and by ARN is two",
        edits: &[Edit {
            file: "policy.rs",
            find: "        arns.dedup();\n",
            replace: "",
        }],
        noticed_by: Test(
            SHARED,
            "policy::tests::a_bare_name_means_the_alarm_at_home_and_nowhere_else",
        ),
    },
    Mutation {
        name: "an alarm of another region is read at home",
        edits: &[Edit {
            file: "runtime/alarms.rs",
            find: "let place = (parts.region().to_owned(), parts.partition().to_owned());",
            replace: "let place = (home.region.clone(), parts.partition().to_owned());",
        }],
        noticed_by: Test(STORIES, "an_alarm_of_another_region_is_read_there"),
    },
    Mutation {
        name: "a namesake of another region answers for an alarm",
        edits: &[
            Edit {
                file: "runtime/alarms.rs",
                find: "let place = (parts.region().to_owned(), parts.partition().to_owned());",
                replace: "let place = (home.region.clone(), parts.partition().to_owned());",
            },
            Edit {
                file: "runtime/alarms.rs",
                find: "if let Some(slot) = live.get_mut(&described.arn) {",
                replace: "if let Some(slot) = live.values_mut().next() {",
            },
        ],
        noticed_by: Test(
            STORIES,
            "a_namesake_where_the_function_runs_is_another_alarm",
        ),
    },
    Mutation {
        name: "a conflict is a refusal for good",
        edits: &[Edit {
            file: "aws_error.rs",
            find: "        | \"ConflictException\"\n        | \"ResourceConflictException\"\n",
            replace: "",
        }],
        noticed_by: Test(
            SHARED,
            "aws_error::tests::a_code_is_read_as_the_service_means_it",
        ),
    },
    Mutation {
        name: "an end while the alarm stays is told as a success",
        edits: &[Edit {
            file: "runtime/restore.rs",
            find: "Outcome::Applied { summary } if !against.is_empty() => Self {",
            replace: "Outcome::Applied { summary } if against.len() > 99 => Self {",
        }],
        noticed_by: Test(
            STORIES,
            "an_end_while_the_alarm_stays_is_told_ahead_once_and_is_no_success",
        ),
    },
    Mutation {
        name: "an end that comes is told at every look",
        edits: &[Edit {
            file: "runtime/overdue.rs",
            find: "snapshot.forewarned = Some(end);",
            replace: "snapshot.forewarned = None;",
        }],
        noticed_by: Test(
            STORIES,
            "an_end_while_the_alarm_stays_is_told_ahead_once_and_is_no_success",
        ),
    },
];
