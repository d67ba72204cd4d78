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

/// Two who ask for the same, the lock of the first has expired, and it decides while the second rolls it back.
#[test]
fn who_asks_for_the_same_a_moment_later_gets_the_same_where_a_batch_is_collected_once() {
    holds(
        r#"{"scenario":{"version":"dap-18","mode":"leader-selected","shards":1,"buckets_per_group":0,"min_batch_size":1,"jobs":[{"id":0,"reports":32,"batch":0,"start":"First"},{"id":1,"reports":16,"batch":1,"start":"First"}],"collections":[{"kind":"Right","first":1,"count":1},{"kind":"Right","first":1,"count":1},{"kind":"WrongCount","first":1,"count":1}],"tidies":true,"patience":null,"cheats":false,"faults":14,"generation_rows":2,"pressed":false},"choices":[[2,2],[71,7],[99,2],[100,6],[103,2],[122,2],[123,1],[130,2],[131,16],[132,2],[133,2],[138,2],[139,16],[140,2],[141,15],[144,1],[145,2],[147,2],[154,1],[155,7],[177,1],[179,11],[192,2],[193,7],[194,2],[198,1],[214,2],[215,16],[220,11],[223,1],[224,2],[225,1],[227,2],[229,1],[233,1],[239,1],[241,1],[243,1]]}"#,
    );
}
