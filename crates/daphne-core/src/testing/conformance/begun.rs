//! VDAFs of several rounds: a report's verification begins in one way at each level, whether or not it goes on.

use super::*;
use crate::store::message::Begin;

/// Reports of which something is verified that a number stands for.
pub fn begin(level: Option<u16>, reports: &[(u8, u8)]) -> Begin {
    let reports = reports.iter().map(|(n, verified)| (report(*n), [*verified; 32])).collect();
    Begin { level, reports, open: Some(Vec::new()) }
}

/// All reports are bound but these.
pub fn begun_but(refused: &[u8]) -> Answer {
    Answer::Begun(refused.iter().map(|n| report(*n)).collect())
}

fn poplar<'a, O: Objects>(objects: &'a O, case: &str, buckets: u32) -> Subject<'a, O> {
    let s = Subject::new(objects, case, BatchMode::TimeInterval, 1, buckets);
    Subject { field: FieldKind::Poplar1 { bits: 64 }, ..s }
}

/// The same again is the same, in whatever company; anything else is refused, at that level, for ever.
pub async fn a_report_begins_in_one_way_at_each_level(objects: &impl Objects) {
    let s = poplar(objects, "begun", 0);
    let ask = |level, reports: &[(u8, u8)]| s.ask(ONLY, StoreAction::Begin(begin(level, reports)));
    for _ in 0..2 {
        assert_eq!(ask(Some(3), &[(1, 7), (2, 7), (3, 8)]).await, begun_but(&[]));
        assert_eq!(ask(Some(3), &[(2, 7)]).await, begun_but(&[]), "in another job");
        assert_eq!(ask(Some(3), &[(1, 8), (2, 7), (3, 7), (4, 7)]).await, begun_but(&[1, 3]));
        // The one that was new is bound, too.
        assert_eq!(ask(Some(3), &[(4, 8)]).await, begun_but(&[4]));
        // Other levels are others, above and below.
        assert_eq!(ask(Some(2), &[(1, 9), (4, 9)]).await, begun_but(&[]));
        assert_eq!(ask(Some(4), &[(1, 9), (4, 9)]).await, begun_but(&[]));
        assert_eq!(ask(Some(4), &[(1, 7), (4, 9)]).await, begun_but(&[1]));
        // One report twice in a request is what it was the first time.
        assert_eq!(ask(Some(5), &[(9, 1), (9, 2), (9, 1)]).await, begun_but(&[9]));
    }
    assert_eq!(ask(Some(5), &[(9, 1)]).await, begun_but(&[]));
}

/// Where a report is aggregated once, there is no other level for it.
pub async fn a_report_begins_in_one_way_where_it_is_aggregated_once(objects: &impl Objects) {
    let s = poplar(objects, "begun once", 0);
    let ask = |reports: &[(u8, u8)]| s.ask(ONLY, StoreAction::Begin(begin(None, reports)));
    for _ in 0..2 {
        assert_eq!(ask(&[(1, 7), (2, 7)]).await, begun_but(&[]));
        assert_eq!(ask(&[(1, 8), (2, 7), (3, 8)]).await, begun_but(&[1]));
        assert_eq!(ask(&[(3, 7)]).await, begun_but(&[3]));
    }
}

/// What begins counts nowhere, and does not stand in the way of what counts, nor that in its own.
pub async fn what_began_counts_nowhere(objects: &impl Objects) {
    let s = poplar(objects, "begun and counted", 0);
    let param = [0, 3, 1];
    let at = |n, reports: &[u8]| Commit {
        param: param.to_vec(),
        ..commit(n, vec![slice(window(0), reports)])
    };
    let begin = |reports: &[(u8, u8)]| s.ask(ONLY, StoreAction::Begin(begin(Some(3), reports)));
    assert_eq!(begin(&[(1, 7), (2, 7), (3, 7)]).await, begun_but(&[]));
    let gather =
        StoreAction::Gather { range: windows(0, 9), param: param.to_vec(), exclude: vec![] };
    let empty = Answer::Gathered { content: Content::default(), contested: false, others: false };
    assert_eq!(s.ask(ONLY, gather).await, empty);
    assert_eq!(s.commit(ONLY, at(1, &[1, 2])).await, Answer::Committed(vec![]));
    assert_eq!(s.commit(ONLY, at(1, &[1, 2])).await, Answer::Committed(vec![]));
    assert_eq!(begin(&[(1, 7), (3, 8)]).await, begun_but(&[3]));
    assert_eq!(s.commit(ONLY, at(2, &[2, 3])).await, soft(&[(2, 1)]));
    // A range that is held by a collection holds up nothing here: what begins is in no range.
    let range = windows(0, 1);
    let gather = StoreAction::Gather { range, param: param.to_vec(), exclude: vec![] };
    let Answer::Gathered { content, .. } = s.ask(ONLY, gather).await else { panic!("gathered") };
    assert_eq!(content.report_count, 2);
    let freeze = StoreAction::Freeze {
        attempt: 1,
        range,
        counts: range,
        param: param.to_vec(),
        exclude: vec![],
        version: content.version(),
    };
    assert_eq!(s.ask(ONLY, freeze.clone()).await, Answer::Frozen);
    assert_eq!(begin(&[(4, 7), (1, 8)]).await, begun_but(&[1]));
    assert_eq!(s.ask(ONLY, freeze).await, Answer::Frozen, "the range is as it was");
}

/// A store of a time group that nobody knows of begins nothing: what was collected without it is told to it first.
pub async fn a_store_is_registered_before_it_begins_a_report(objects: &impl Objects) {
    let s = poplar(objects, "begun unopened", 10);
    let store = StoreId { group: Group::Run(0), shard: 0 };
    let ask = |open| s.ask(store, StoreAction::Begin(Begin { open, ..begin(Some(0), &[(1, 7)]) }));
    assert_eq!(ask(None).await, Answer::NotOpen);
    assert_eq!(s.open_store(store).await, []);
    assert_eq!(ask(None).await, Answer::NotOpen, "it was not told");
    let param = vec![0, 0, 1];
    assert_eq!(ask(Some(vec![(windows(0, 1), param.clone())])).await, begun_but(&[]));
    assert_eq!(ask(None).await, begun_but(&[]), "it is open now");
    let open = None;
    let late = Commit { param, open, ..commit(1, vec![slice(window(0), &[1])]) };
    assert_eq!(s.commit(store, late).await, Answer::Collected(vec![report(1)]));
}
