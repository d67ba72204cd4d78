// Ways to break the storage protocol in the real code, for `scripts/mutants`. Each is a rule, broken by a change of the
// text of a file; `find` is in the file exactly once, which `scripts/test --only tidy` checks.
//
// `noticed_by` is "simulation", with the number of schedules it may take, or the test targets of daphne-core. A rule
// that two places hold needs both broken, and says so.

const STORE = "crates/daphne-core/src/store";
const COMMIT = `${STORE}/aggregate_store/commit.rs`;
const COLLECTION = `${STORE}/aggregate_store/collection.rs`;
const PACK = `${STORE}/aggregate_store/pack.rs`;
const ALARM = `${STORE}/aggregate_store/alarm.rs`;
const OBJECT = `${STORE}/aggregate_store/mod.rs`;
const LEDGER = `${STORE}/ledger/mod.rs`;
const COLLECT = `${STORE}/ledger/collect.rs`;
const BOOKS = `${STORE}/ledger/books.rs`;
const JOBS = `${STORE}/job_store.rs`;
const STEPS = `${STORE}/job_store/steps.rs`;
const DEFERRED = `${STORE}/job_store/deferred.rs`;
const WORKER = "crates/daphne-core/src/aggregate/commit.rs";
const BEGIN = `${STORE}/aggregate_store/begin.rs`;
const BEGUN = "crates/daphne-core/src/aggregate/begun.rs";
const HELPER = "crates/daphne-core/src/aggregate/helper.rs";

const SEEDS = 200_000;
const simulated = (name, says, edits, seeds = SEEDS) => ({ name, says, edits, noticed_by: "simulation", seeds });
const tested = (name, says, tests, edits) => ({ name, says, edits, noticed_by: { tests } });
const edit = (file, find, replace) => ({ file, find, replace });

export const MUTANTS = [
  // --- Commits and repeats ------------------------------------------------------------------
  simulated("repeat-counts-again", "A commit that is made again is added again.", [
    edit(
      COMMIT,
      "        return not_now(repeat(recorded, &commit.digest));",
      `        if recorded.digest == commit.digest {
            let number = meta.epochs.last().map_or(0, |e| e.number);
            for slice in &commit.slices {
                let mut sum =
                    tables.merged(number, &slice.bucket, &commit.param)?.unwrap_or_default();
                let again = crate::store::message::Content {
                    report_count: report_ids(&slice.ids).count() as u64,
                    checksum: slice.checksum,
                    times: Some((slice.min_time, slice.max_time)),
                    share: slice.share.clone(),
                };
                sum.merge(meta.field, &again)?;
                tables.put_merged(number, &slice.bucket, &commit.param, &sum)?;
            }
        }
        return not_now(repeat(recorded, &commit.digest));`,
    ),
  ]),
  simulated("digest-ignored-by-store", "A store takes two bodies under one job id for the same job.", [
    edit(COMMIT, "if recorded.digest == *digest {", "if recorded.digest == *digest || true {"),
  ]),
  simulated("digest-ignored-by-job-store", "A claim binds a job id to no body.", [
    edit(JOBS, "Some(bound) if bound.digest == digest => {", "Some(bound) if bound.digest == digest || true => {"),
  ]),
  simulated("home-is-not-first", "Other stores may count a job before its home has bound its id to a body.", [
    edit(
      WORKER,
      "if binding == Binding::HomeStore {",
      "if false && binding == Binding::HomeStore {",
    ),
  ]),
  tested("unasked-not-recorded", "What was refused unasked is asked about when the job comes again.", ["helper"], [
    edit(WORKER, "if unasked == far_off {", "if unasked == far_off || true {"),
  ]),
  simulated("clock-not-recorded", "What the clock refused is answered, and not recorded.", [
    edit(
      WORKER,
      "refused: work.refused.iter().map(|(id, e)| (*id, *e)).collect(),",
      `refused: work
                    .refused
                    .iter()
                    .filter(|(_, e)| {
                        !matches!(e, ReportError::ReportTooEarly | ReportError::ReportDropped)
                    })
                    .map(|(id, e)| (*id, *e))
                    .collect(),`,
    ),
    edit(
      WORKER,
      "let refused = refused.into_iter().collect();",
      "let refused = work.refused.into_iter().chain(refused).collect();",
    ),
  ]),
  simulated("refused-stay-in-the-sum", "The share of a report that a store refuses stays in the job's sum.", [
    edit(
      WORKER,
      "share::sub_assign(field, sum, &one.encode()).map_err(|e| broken(&e))?;",
      "let _ = (sum, one, share::sub_assign);",
    ),
  ]),
  simulated("replay-accepted-at-the-second-attempt", "Who asks for a replayed report and is refused has taken it over.", [
    edit(
      COMMIT,
      "    if !hard.is_empty() || !soft.is_empty() {\n",
      `    if !hard.is_empty() || !soft.is_empty() {
        for holder in holders {
            let mut head = holder.head;
            for (n, _) in &holder.hits {
                if let Some(s) = head.slices.get_mut(*n).filter(|s| !s.excluded) {
                    s.yields = true;
                }
            }
            tables.put_slices(holder.table, &head, None)?;
        }
`,
    ),
  ]),
  simulated("replay-into-another-batch", "A report of another batch is not a replay.", [
    edit(
      COMMIT,
      "                if slice.excluded {\n                    continue;",
      "                if slice.excluded || commit.slices.iter().all(|s| s.bucket != slice.bucket) {\n                    continue;",
    ),
  ]),
  simulated("equal-jobs-are-one", "A job all of whose reports are replayed is taken for a repeat.", [
    edit(
      COMMIT,
      "        return not_now(refusal);",
      `        if suspects.iter().map(|(_, ids)| ids.len()).sum::<usize>() == all_ids(&commit.slices).count() {
            return not_now(Response::Committed(commit.refused));
        }
        return not_now(refusal);`,
    ),
  ]),
  simulated("replays-are-blamed-on-all", "One replayed report makes replays of all in the job.", [
    edit(
      COMMIT,
      ".filter(|id| has(held, live.recent.fingerprint(&commit.param, id)))",
      ".filter(|id| !held.is_empty() && live.recent.fingerprint(&commit.param, id) > 0)",
    ),
  ]),
  simulated("late-report-joins-a-collected-batch", "A commit is not refused because its batch is collected.", [
    edit(COMMIT, "if !collected.is_empty() {", "if false && !collected.is_empty() {"),
  ]),
  simulated("frozen-is-collected", "A range that is only frozen is called collected.", [
    edit(
      COMMIT,
      "return not_now(Response::Busy(frozen.attempt));",
      `let held = commit.slices.iter().filter(|s| frozen.range.contains(&s.bucket));
        let ids = held.flat_map(|s| report_ids(&s.ids)).collect();
        return not_now(Response::Collected(ids));`,
    ),
  ]),
  simulated("packed-hit-is-free", "A report that is in no separate slice counts as one that is nowhere.", [
    edit(COMMIT, "let mut merged = ids.clone();", "let mut merged = BTreeSet::<ReportId>::new();"),
  ]),
  tested("struck-out-was-in-the-batch", "What was taken over from a left-out slice was in its batch all the same.", ["store"], [
    edit(COMMIT, "left_out.entry(batch).or_insert_with(BTreeSet::new).extend(struck);", "let _ = (batch, struck);"),
  ]),
  tested("upwards-is-free", "A report that was aggregated at a level is aggregated at one above.", ["store"], [
    edit(COMMIT, "filter(|l| commit.once || **l >= level)", "filter(|l| commit.once || **l == level)"),
  ]),
  tested("once-at-each-level", "By DAP-18 a report is aggregated once; here, once at each level upwards.", ["store"], [
    edit(COMMIT, "filter(|l| commit.once || **l >= level)", "filter(|l| **l >= level)"),
  ]),
  tested("nothing-is-bound", "A report begins for any number of parameters, as long as it counts with none.", ["rounds"], [
    edit(BEGUN, "if waiting.contains(&metadata.report_id) {", "if false && waiting.contains(&metadata.report_id) {"),
  ]),
  tested("begun-is-begun", "What began is bound to nothing: it may begin again for anything.", ["store"], [
    edit(BEGIN, "None if is_held(&begun) => is_held(&as_it),", "None if is_held(&begun) => is_held(&as_it) || true,"),
  ]),
  tested("the-leaders-message-is-not-bound", "A report may begin again with another message of the leader.", ["rounds"], [
    edit(BEGUN, "        *payload,\n", ""),
  ]),
  tested("what-began-is-in-memory-only", "A store that wakes up does not read what began in its newest generation.", ["rounds"], [
    edit(PACK, "                loaded.add_begun(fingerprints);\n", "                let _ = fingerprints;\n"),
  ]),
  tested("what-is-left-out-of-a-query-stays", "Buckets that a leader leaves out of a query count as collected.", ["store"], [
    edit(
      COLLECTION,
      "|head: &JobHead, s: &SliceHead| counts_in(s, range) && !is_kept(head, s);",
      "|head: &JobHead, s: &SliceHead| counts_in(s, counts) && !is_kept(head, s);",
    ),
  ]),
  tested("late-requests-keep-reports", "A DELETE releases only the pieces that were begun.", ["deferred"], [
    edit(DEFERRED, "Response::Forgotten { pieces: known.pieces }", "Response::Forgotten { pieces: known.begun }"),
  ]),
  tested("prefixes-make-it-another-report", "A report is aggregated at a level once for each parameter.", ["store"], [
    edit(COMMIT, "Self::Level(level) => meta.field.level(&head.param) == Some(level),", "Self::Level(_) => head.param == param,"),
    edit(COMMIT, "        hard.extend(merged);", "        if *scope == Scope::Param {\n            hard.extend(merged);\n        }"),
  ]),
  tested("left-out-stays-free", "What a collection left out at a level stays free when it was taken.", ["store"], [
    edit(COMMIT, "        if is_own {", "        if is_own && *scope == Scope::Param {"),
  ]),
  tested("a-step-is-anybodys", "Two continuations that differ take the same step.", ["store"], [
    edit(STEPS, "if is_taken && stepped.continuation != Some(digest) {", "if false && stepped.continuation != Some(digest) {"),
  ]),
  tested("a-job-begins-after-its-continuation", "A job that was continued is begun again.", ["store"], [
    edit(STEPS, "} else if stepped.continuation.is_some() {", "} else if false {"),
  ]),
  tested("memory-outlives-a-failure", "What a failed transaction did to the memory stays there.", ["store"], [
    edit(
      OBJECT,
      `        let result = self.db.transaction(|tables| f(tables, &mut live))?;
        self.live.replace(live);
        Ok(result)`,
      `        let result = self.db.transaction(|tables| f(tables, &mut live));
        self.live.replace(live);
        result`,
    ),
  ]),
  tested("any-placement", "A store serves requests that were meant for another placement.", ["store"], [
    edit(
      OBJECT,
      ".is_some_and(|m| (m.placement, m.store, m.field) != (placement, store, field))",
      ".is_some_and(|m| m.placement != m.placement)",
    ),
  ]),

  // --- Deleted jobs -------------------------------------------------------------------------
  simulated("delete-undoes", "A collection never counts a job that the leader deleted. Needs both: the short way, and the choice.", [
    edit(
      COLLECT,
      "if all.explains(request) && !all.contested {",
      `if all.explains(request)
            && !all.contested
            && self.db.transaction(|t| t.meta())?.released_epochs.is_empty()
        {`,
    ),
    edit(
      COLLECT,
      "                Choice::Exclude(exclude) => {\n",
      `                Choice::Exclude(mut exclude) => {
                    exclude.extend(jobs.jobs.iter().filter(|j| j.released).map(|j| j.job));
`,
    ),
  ]),
  simulated("deleted-counts-beside-its-successor", "A slice whose reports a later job took over does not yield to it.", [
    edit(COMMIT, "Some(slice) => slice.yields = true,", "Some(_) => {}"),
  ]),
  simulated("contested-is-not-told", "Neither the ledger nor a freeze learns that a slice yields.", [
    edit(COLLECTION, "contested |= slice.yields;", "contested |= false;"),
  ]),
  simulated("taking-over-kills", "A slice whose reports a later job takes over is excluded at once.", [
    edit(
      COMMIT,
      "Some(slice) => slice.yields = true,",
      `Some(slice) => {
                    slice.excluded = true;
                    ids = strike_out(meta.field, &mut head, &ids, n, suspects)?;
                }`,
    ),
  ]),
  tested("taken-over-is-not-struck-out", "An excluded slice still names reports that another job took over.", ["packing"], [
    edit(
      COMMIT,
      `                Some(slice) if slice.excluded => {
                    ids = strike_out(meta.field, &mut head, &ids, n, suspects)?;
                }`,
      `                Some(slice) if slice.excluded => {
                    let _ = (&mut ids, strike_out);
                }`,
    ),
  ]),
  simulated("no-exclusion", "A collection whose sums differ is refused, whatever jobs were given up.", [
    edit(
      COLLECT,
      "match exclusion::choose(jobs.packed, &jobs.jobs, &jobs.conflicts, wanted(request)) {",
      "match (Choice::NoneFits, wanted(request)).0 {",
    ),
  ]),
  simulated("whole-jobs-are-excluded", "A job that a collection leaves out is excluded in other batches, too.", [
    edit(
      COLLECTION,
      "|head: &JobHead, s: &SliceHead| counts_in(s, range) && !is_kept(head, s);",
      "|head: &JobHead, s: &SliceHead| !s.excluded && (exclude.contains(&head.job) || counts_in(s, range) && !is_kept(head, s));",
    ),
  ]),
  simulated("kept-elsewhere", "A report that a collection counts stays in a slice of another batch.", [
    edit(COLLECTION, "|| rivals.contains(&(before.job, n))", "|| rivals.is_empty() && false"),
  ]),

  // --- Collecting ---------------------------------------------------------------------------
  simulated("freeze-without-version", "A freeze takes what the store holds, not what was gathered.", [
    edit(COLLECTION, "if content.version() != version\n", "if version != version\n"),
  ]),
  simulated("seal-before-decision", "Stores seal where they should freeze.", [
    edit(
      COLLECT,
      `            .call_all(objects, stores, |n| StoreAction::Freeze {
                attempt,
                range: request.range,
                counts: request.counts,
                param: request.param.clone(),
                exclude: exclude.to_vec(),
                version: versions.get(n).copied().unwrap_or_default(),
            })`,
      `            .call_all(objects, stores, |_| StoreAction::Seal {
                attempt,
                range: request.range,
                counts: request.counts,
                param: request.param.clone(),
                exclude: exclude.to_vec(),
            })`,
    ),
    edit(
      COLLECT,
      "answers.iter().all(|a| *a == Some(AggregateStoreResponse::Frozen))",
      "answers.iter().all(|a| *a == Some(AggregateStoreResponse::Done)) && versions.len() < usize::MAX",
    ),
  ]),
  simulated("no-fence", "An attempt that ended may freeze again.", [
    edit(COLLECTION, "if frozen.attempt <= meta.fence\n        || meta.closing", "if meta.closing"),
  ]),
  simulated("birth-is-not-checked", "A store may be born between gathering and intent.", [
    edit(COLLECT, "                || stores_of(t, request)? != stores\n", ""),
  ]),
  simulated("born-ignorant", "A store that is born is not told what was collected without it.", [
    edit(LEDGER, "Some(range) => t.collections_meeting(&range)?,", "Some(_) => Vec::<CollectionRow>::new(),"),
  ]),
  simulated("born-during-an-attempt", "A store may be born between intent and decision. Needs both: before, and in the transaction.", [
    edit(
      LEDGER,
      "        if pending.is_some() {\n            match self.lock",
      "        if pending.is_some() && false {\n            match self.lock",
    ),
    edit(
      LEDGER,
      "            if t.pending()?.is_some() {\n                return Ok(LedgerResponse::Busy);",
      "            if t.pending()?.is_some() && false {\n                return Ok(LedgerResponse::Busy);",
    ),
  ]),
  simulated("encrypted-anew", "A repeated collection is answered by encrypting again.", [
    edit(
      COLLECT,
      `        if let Some(response) = known {
            return Ok(response);`,
      `        if known.is_some()
            && let stores = self.stores_of(request)?
            && let Some(all) = self.gather(objects, request, &stores, &[]).await?
        {
            let answer = seal_share(request, &all.total.share, &host.seed())?;
            return Ok(LedgerResponse::Share(answer));`,
    ),
  ]),
  simulated("no-second-answer", "A collection whose answer was lost is refused. Needs both: by request, and by range.", [
    edit(
      COLLECT,
      "        if let Some(response) = known {",
      "        if let (false, Some(response)) = (true, known) {",
    ),
    edit(
      COLLECT,
      "if same.report_count == request.report_count && same.checksum == request.checksum {",
      "if false && same.checksum == request.checksum {",
    ),
  ]),
  simulated("no-rollback", "An attempt that died stays pending.", [
    edit(LEDGER, "self.roll_back_attempt(objects, None).await", "Ok(objects as *const _ as usize > 0)"),
  ]),
  simulated("lost-seals-are-not-repeated", "A collection begins while stores have not heard of an earlier one's decision.", [
    edit(COLLECT, "        self.push_seals(objects, None).await?;\n        let held", "        let held"),
  ]),
  tested("settled-beyond-the-counter", "An attempt that the ledger never began is thawed, past all future ones.", ["store"], [
    edit(LEDGER, "if attempt <= known {", "if attempt <= known || true {"),
  ]),
  simulated("rollback-without-thaw", "An attempt is forgotten, and its stores are not thawed.", [
    edit(
      LEDGER,
      "self.call_all(objects, &pending.stores, |_| StoreAction::Thaw { attempt }).await?;",
      "vec![Some(AggregateStoreResponse::Done); pending.stores.len()];",
    ),
    edit(
      LEDGER,
      "let _ = self.call(objects, store, StoreAction::Thaw { attempt }).await;",
      "let _ = (store, self.call(objects, store, StoreAction::Purge));",
    ),
  ]),
  simulated("rolled-back-and-decided", "An attempt that is being rolled back may still decide.", [
    edit(COLLECT, "p.attempt != attempt || p.aborted)", "p.attempt != attempt)"),
  ]),
  simulated(
    "collections-run-side-by-side",
    "Overlapping collections do not see each other. Needs all three: the lock, the intent, and the store that is sealed.",
    [
      edit(LEDGER, "Some(since) if now < since.saturating_add(LOCK_MAX) => None,", "Some(since) if now < since => None,"),
      edit(COLLECT, "                || check_earlier(t, request)?.is_some()\n", ""),
      edit(COLLECTION, ".any(|s| s.param == frozen.param) {", ".any(|_| false) {"),
    ],
  ),
  tested("intent-overlaps", "An intent does not look at what was collected while its attempt was slow.", ["ledger"], [
    edit(COLLECT, "                || check_earlier(t, request)?.is_some()\n", ""),
  ]),
  simulated("empty-shards-are-missing", "A batch must have a report in every shard.", [
    edit(
      COLLECT,
      "            all.total.report_count += content.report_count;",
      `            if content.report_count == 0 {
                return Ok(None);
            }
            all.total.report_count += content.report_count;`,
    ),
  ]),
  simulated("small-batches", "What is left of a batch after exclusion may be smaller than the task allows.", [
    edit(
      COLLECT,
      "        if let Err(refusal) = checked {",
      "        if let (false, Err(refusal)) = (true, checked) {",
    ),
  ]),

  // --- Packing and forgetting ---------------------------------------------------------------
  tested("yielding-slices-are-packed", "Packing merges slices that may have to be told apart. Needs both: the slice, and its reports.", ["packing"], [
    edit(PACK, "is_frozen || slice.yields || names_free_ids", "is_frozen || names_free_ids"),
    edit(PACK, "|_, s| !s.excluded && s.yields", "|_, s| s.excluded && s.yields"),
  ]),
  tested("free-ids-are-packed", "Packing merges a job whose excluded reports are free.", ["packing"], [
    edit(PACK, "is_frozen || slice.yields || names_free_ids", "is_frozen || slice.yields"),
  ]),
  tested("frozen-slices-are-packed", "Packing merges slices about which a collection is deciding.", ["packing"], [
    edit(PACK, "is_frozen || slice.yields || names_free_ids", "is_frozen && false || slice.yields || names_free_ids"),
  ]),
  simulated("undecided-is-packed", "Slices about which no collection decided are merged without need.", [
    edit(ALARM, "if keep.len() * 4 > rows {", "keep.clear();\n                if keep.len() * 4 > rows {"),
  ]),
  tested("deleted-jobs-are-packed", "Pressure merges jobs that the leader deleted.", ["packing"], [
    edit(ALARM, "                keep.extend(released);\n", "                let _ = (&mut keep, released);\n"),
  ]),
  tested("forgotten-too-early", "A store forgets before its deadline.", ["retention"], [
    edit(ALARM, "if deadline(&meta).is_some_and(|d| d <= now) {", "if deadline(&meta).is_some() {"),
  ]),
  tested("frozen-is-forgotten", "A store forgets what is frozen. Needs both: before the ledger is told, and after.", ["retention"], [
    edit(
      ALARM,
      "            if meta.frozen.is_some() {\n                return Ok(None);",
      "            if meta.frozen.is_some() && false {\n                return Ok(None);",
    ),
    edit(
      ALARM,
      "            if meta.frozen.is_some() {\n                return Ok(Forgotten::NotYet);",
      "            if meta.frozen.is_some() && false {\n                return Ok(Forgotten::NotYet);",
    ),
  ]),
  tested("an-expired-key-opens-anything", "Reports may be sealed to a key for ever, and it is destroyed all the same.", ["helper"], [
    edit(HELPER, "|until| share.metadata.time > until", "|until| false && share.metadata.time > until"),
  ]),

  // --- Counters -----------------------------------------------------------------------------
  tested("full-generations-are-not-counted", "What a full generation counted is forgotten with the memory of it.", ["counting"], [
    edit(PACK, "    meta.totals.merge(&std::mem::take(&mut live.totals));\n", "    let _ = std::mem::take(&mut live.totals);\n"),
  ]),
  tested("the-last-epoch-takes-its-counts", "An epoch that ends takes what its newest generation counted.", ["counting"], [
    edit(PACK, "if at + 1 == meta.epochs.len() {", "if false && at + 1 == meta.epochs.len() {"),
  ]),
  tested("last-words-count-each-time", "A store that says its last word again is counted again.", ["store"], [
    edit(LEDGER, "&& t.registered(n, n)?.contains(&store)", "&& (t.registered(n, n)?.contains(&store) || n < u64::MAX)"),
  ]),
  tested("notes-count-each-time", "A note that comes again is counted again.", ["store"], [
    edit(BOOKS, "if tables.is_noted(epoch, job, digest)? {", "if tables.is_noted(epoch, job, digest)? && false {"),
  ]),
  simulated("unasked-are-not-counted", "Reports that no store is asked about are counted by none.", [
    edit(WORKER, "unrecorded: self.unrecorded(&work).failures,", "unrecorded: { let _ = self.unrecorded(&work); Vec::new() },"),
  ], 5_000),

  tested("claims-forgotten-too-early", "A job store forgets which bodies its jobs have before their reports are too old.", ["retention"], [
    edit(JOBS, "if forget_at > now {", "if forget_at > now && false {"),
  ]),
];
