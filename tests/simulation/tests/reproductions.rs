//! Schedules that once failed, made small by the simulation, each with the name of what it taught.
//!
//! `scripts/simulate` prints a failure as a test to be pasted here. The first ones come from rules that were broken on
//! purpose: they still fail with the rule broken, and hold with it.

use simulation::{sabotage::Sabotage, shrink::Reproduction};

/// The schedule holds.
fn holds(json: &str) {
    let report = Reproduction::from_json(json).unwrap().run(None, true);
    assert_eq!(report.violation, None, "{}", report.trace.join("\n"));
}

/// The schedule holds, and would not if that rule were broken.
fn holds_by(rule: Sabotage, json: &str) {
    holds(json);
    let broken = Reproduction::from_json(json).unwrap().run(Some(rule), false);
    assert!(broken.violation.is_some(), "nothing of {rule:?} is seen here any more");
}

/// A commit comes between gathering and freezing.
#[test]
fn a_freeze_is_of_what_was_gathered() {
    holds_by(
        Sabotage::FreezeUnversioned,
        r#"{"scenario":{"mode":"time-interval","shards":1,"buckets_per_group":2,"min_batch_size":1,"jobs":[{"id":1,"reports":4,"batch":0,"start":"Racing"},{"id":2,"reports":1,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":0,"generation_rows":2048,"pressed":false},"choices":[]}"#,
    );
}

/// A job meets a range that is frozen and not decided.
#[test]
fn what_is_only_frozen_is_not_called_collected() {
    holds_by(
        Sabotage::FrozenIsCollected,
        r#"{"scenario":{"mode":"leader-selected","shards":1,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":128,"batch":1,"start":"First"},{"id":1,"reports":128,"batch":0,"start":"Late"},{"id":0,"reports":32,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":1,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":1,"generation_rows":1,"pressed":false},"choices":[[8,7],[10,1],[12,1],[20,1],[35,1],[37,1],[40,1]]}"#,
    );
}

/// The freeze of an attempt that was rolled back arrives very late.
#[test]
fn an_attempt_that_ended_does_not_freeze_again() {
    holds_by(
        Sabotage::Unfenced,
        r#"{"scenario":{"mode":"leader-selected","shards":2,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":2048,"batch":0,"start":"First"},{"id":1,"reports":16,"batch":1,"start":"First"}],"collections":[{"kind":"Right","first":1,"count":1},{"kind":"Right","first":1,"count":1},{"kind":"Right","first":1,"count":1},{"kind":"Right","first":1,"count":1}],"tidies":true,"patience":null,"cheats":false,"faults":5,"generation_rows":2,"pressed":false},"choices":[[45,1],[46,7],[48,7],[50,7],[52,7],[106,2],[107,7],[108,17],[110,2],[112,2],[124,2],[126,4]]}"#,
    );
}

/// A shard takes its first report after its batch was collected.
#[test]
fn a_store_is_born_knowing_what_was_collected() {
    holds_by(
        Sabotage::BornIgnorant,
        r#"{"scenario":{"mode":"time-interval","shards":2,"buckets_per_group":1,"min_batch_size":1,"jobs":[{"id":1,"reports":1,"batch":0,"start":"Late"},{"id":2,"reports":2,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":0,"generation_rows":2048,"pressed":false},"choices":[]}"#,
    );
}

/// The ledger is reset between freezing and decision.
#[test]
fn an_attempt_outlives_the_ledgers_memory() {
    holds_by(
        Sabotage::IntentForgotten,
        r#"{"scenario":{"mode":"leader-selected","shards":3,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":128,"batch":2,"start":"First"}],"collections":[{"kind":"Right","first":2,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":3,"generation_rows":1,"pressed":false},"choices":[[11,7],[12,1],[55,2],[56,6]]}"#,
    );
}
