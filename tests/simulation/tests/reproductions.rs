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
        r#"{"scenario":{"mode":"leader-selected","shards":1,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":4,"batch":0,"start":"First"},{"id":2,"reports":8,"batch":0,"start":"Racing"},{"id":0,"reports":512,"batch":0,"start":"First"}],"collections":[{"kind":"Eager","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":3},"choices":[[4,1],[5,7],[6,7],[13,2],[17,1],[19,1]]}"#,
    );
}

/// A job meets a range that is frozen and not decided.
#[test]
fn what_is_only_frozen_is_not_called_collected() {
    holds_by(
        Sabotage::FrozenIsCollected,
        r#"{"scenario":{"mode":"leader-selected","shards":1,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":1,"reports":6,"batch":0,"start":"Racing"},{"id":2,"reports":2,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":0,"count":1},{"kind":"WrongCount","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":1},"choices":[[6,1],[8,1],[12,1],[14,1],[16,2],[27,1],[33,1],[35,1],[37,1],[38,2],[39,1]]}"#,
    );
}

/// The freeze of an attempt that was rolled back arrives very late.
#[test]
fn an_attempt_that_ended_does_not_freeze_again() {
    holds_by(
        Sabotage::Unfenced,
        r#"{"scenario":{"mode":"leader-selected","shards":3,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":4,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":12},"choices":[[3,7],[7,7],[8,1],[9,7],[10,4],[42,1],[43,2],[44,1],[46,49],[48,2],[49,2],[50,17],[51,2],[52,13],[53,2],[54,1],[57,2],[59,2],[61,2]]}"#,
    );
}

/// A shard takes its first report after its batch was collected.
#[test]
fn a_store_is_born_knowing_what_was_collected() {
    holds_by(
        Sabotage::BornIgnorant,
        r#"{"scenario":{"mode":"time-interval","shards":2,"buckets_per_group":2,"min_batch_size":1,"jobs":[{"id":0,"reports":4,"batch":0,"start":"First"},{"id":1,"reports":1,"batch":0,"start":"Late"}],"collections":[{"kind":"Right","first":0,"count":1}],"tidies":false,"patience":null,"cheats":false,"faults":0},"choices":[]}"#,
    );
}

/// The ledger is reset between freezing and decision.
#[test]
fn an_attempt_outlives_the_ledgers_memory() {
    holds_by(
        Sabotage::IntentForgotten,
        r#"{"scenario":{"mode":"time-interval","shards":2,"buckets_per_group":1,"min_batch_size":1,"jobs":[{"id":0,"reports":1025,"batch":0,"start":"First"},{"id":1,"reports":3,"batch":0,"start":"Racing"},{"id":0,"reports":256,"batch":0,"start":"First"}],"collections":[{"kind":"Right","first":0,"count":1}],"tidies":true,"patience":null,"cheats":false,"faults":4},"choices":[[68,1],[71,2],[79,2],[80,4],[81,1],[88,2],[89,6]]}"#,
    );
}
