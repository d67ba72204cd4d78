//! Inputs to begin with: every message and every operation once, right. What libFuzzer makes of them is kept in
//! `fuzz/corpus`.

use daphne_core::{
    aggregator_api::IssuedToken,
    batch::{BatchBucket, BucketRange, Checksum},
    codec::Writer,
    hpke::{HpkeConfigList, HpkeKem},
    ids::{BatchId, HpkeConfigId, TaskId},
    message::BatchSelector,
    metrics::{Failure, Refusal, Resource, Tally, Totals},
    seal::RootKeys,
    store::{
        config_store::{
            ConfigRequest,
            expiration::ExpirationRequest,
            keys::{KeyChange, KeyRequest, SealedKeypair},
            peers::PeerRequest,
            tokens::{TokenChange, TokenRequest},
        },
        message::{
            AggregateStoreRequest, AggregateStoreResponse, Asked, Begin, Commit, DeferredRequest,
            JobStoreRequest, JobStoreResponse, LedgerRequest, LedgerResponse, LedgerStatus, Slice,
            StoreAction, encode,
        },
        placement::{Group, StoreId},
    },
    time::{Duration, Time},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    fixture::{
        BUCKET, NOW, PRECISION, SETUPS, batch_id, brought, collector_key, helper_key, key, pool,
        report_id,
    },
    messages::{Table, dap_09, dap_18},
    request::{JobRequest, share_request},
    secrets::{KINDS, ROOTS, keypairs},
    vdaf::{RUNS, run},
    world::job_id,
};

/// The setup of the task that its leader brings.
const BROUGHT: usize = 6;

/// Every vector of every message.
pub fn wire_v09() -> Vec<Vec<u8>> {
    let mut seeds = vectors(&dap_09::TABLE);
    let mut w = Writer::new();
    HpkeConfigList((0..2).map(|n| helper_key(n).config().clone()).collect()).write(&mut w);
    let list = w.finish().expect("two configurations");
    let brought = brought::config(&SETUPS[BROUGHT].spec());
    let others = [
        list,
        TaskId::new([7; 32]).to_string().into_bytes(),
        b"0110".to_vec(),
        b"Application/dap-report; a=\"x, \\\"y\"".to_vec(),
        daphne_core::b64::encode(&brought).into_bytes(),
    ];
    seeds.extend(
        (dap_09::TABLE.messages.len()..)
            .zip(others)
            .map(|(n, rest)| [&[n as u8], &rest[..]].concat()),
    );
    seeds
}

/// The same, and the configuration of each task.
pub fn wire_v18() -> Vec<Vec<u8>> {
    let mut seeds = vectors(&dap_18::TABLE);
    let n = dap_18::TABLE.messages.len() as u8;
    seeds.extend((0..SETUPS.len() as u8).map(|setup| vec![n, setup]));
    // One bit of it.
    seeds.extend((0..SETUPS.len() as u8).map(|setup| vec![n, setup, 40 + setup, 0, 1]));
    seeds
}

fn vectors(table: &Table) -> Vec<Vec<u8>> {
    let vectors = table.messages.iter().enumerate().flat_map(|(n, message)| {
        message.parsed().into_iter().map(move |vector| [&[n as u8], &vector.bytes[..]].concat())
    });
    vectors.collect()
}

/// Every step of every VDAF with every aggregation parameter.
pub fn vdaf() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..RUNS {
        for (param, _) in run(n).steps.iter().enumerate() {
            seeds.extend((0..6).map(|kind| vec![n as u8, param as u8, kind]));
            // One bit of a field of an honest message.
            seeds.extend((1..4).map(|kind| vec![n as u8, param as u8, kind, 1, 7, 0, 3]));
        }
    }
    seeds
}

/// Honest requests, and one of each kind of change.
pub fn helper_job() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..SETUPS.len() {
        let pool = pool(n);
        for (p, param) in pool.params.iter().enumerate() {
            let (n, p) = (n as u8, p as u8);
            let body = JobRequest::new(pool, param, 0, 0..2).encode(pool).expect("two reports");
            seeds.push([&[n, p, 0], &body[..]].concat());
            seeds.push(vec![n, p, 1, 0, 0, 0]);
            seeds.push(vec![n, p, 1, 0xff, 0xe0, 1]);
        }
        for change in 0..5 {
            seeds.push(vec![n as u8, 0, 1, 0, 0, 0, change, 1, 2, 3, 4, 5]);
        }
        for change in 0..16 {
            seeds.push(vec![n as u8, 0, 1, 0, 0, 0, 5, 1, 0, change, 3, 1, 0, 2, 3]);
        }
    }
    seeds
}

/// A job, its continuation and its collection; the same with what goes wrong.
pub fn sequence() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..SETUPS.len() as u8 {
        let put = |id: u8, reports: u8| vec![0, id, 0, reports, 0, 0];
        let put_again = |id: u8| vec![0, id, 1];
        let post = |id: u8| vec![3, id, 0];
        // Both buckets, or the first batch.
        let all = match pool(n.into()).selector(2) {
            BatchSelector::LeaderSelected(_) => 0,
            BatchSelector::TimeInterval { .. } => 2,
        };
        let collect = vec![6, all, 0, 1];
        let runs: [Vec<Vec<u8>>; 6] = [
            vec![put(0, 0x1f), post(0), collect.clone(), collect.clone()],
            vec![put(0, 0x07), put(1, 0x1c), post(0), post(1), put_again(0), collect.clone()],
            vec![put(0, 0x1f), post(0), vec![5, 0], put(1, 0x1f), post(1), collect.clone()],
            vec![
                vec![11, 1, 2],
                put(0, 0x0f),
                put_again(0),
                post(0),
                vec![8],
                vec![9],
                collect.clone(),
                vec![11, 0, 1],
                collect.clone(),
            ],
            vec![put(0, 0x7f), vec![10, 1], put_again(0), vec![10, 3], vec![8], put(1, 0x1f)],
            vec![
                put(0, 0x1f),
                post(0),
                collect.clone(),
                vec![0, 1, 0, 0x1f, 1, 0],
                post(1),
                vec![6, all, 1, 1],
                vec![3, 1, 1, 1, 3, 2, 1, 0],
            ],
        ];
        // What the leader does not hear of: a deleted id that is used for another body, jobs that are given up or collected
        // without it and come again, and two bodies under one id.
        let (request_lost, answer_lost) = (vec![11, 0, 0], vec![11, 1, 0]);
        let (delete, in_other_batch) = (vec![5, 2], vec![0, 4, 0, 0x18, 0, 1]);
        let unheard: [Vec<Vec<u8>>; 5] = [
            vec![
                request_lost.clone(),
                put(2, 0x01),
                delete.clone(),
                put(2, 0x12),
                put(4, 0x1c),
                post(2),
                post(4),
                collect.clone(),
                delete.clone(),
                collect.clone(),
            ],
            vec![
                answer_lost.clone(),
                put(2, 0x10),
                answer_lost.clone(),
                delete.clone(),
                put(4, 0x10),
                put_again(2),
            ],
            vec![
                put(2, 0x10),
                vec![11, 1, 1],
                post(2),
                answer_lost.clone(),
                delete,
                put(4, 0x10),
                post(4),
                post(2),
            ],
            vec![
                answer_lost.clone(),
                put(2, 0x10),
                put(1, 0x03),
                collect.clone(),
                in_other_batch.clone(),
                put_again(2),
            ],
            vec![
                request_lost,
                put(2, 0x04),
                answer_lost,
                put(2, 0x10),
                put(1, 0x03),
                collect.clone(),
                in_other_batch,
                put(2, 0x10),
            ],
        ];
        let all_runs = runs.iter().chain(&unheard);
        seeds.extend(all_runs.map(|run| [vec![n, 0], run.concat()].concat()));
        // Stores that merge after a few jobs, and alarms that have them do so.
        let merging = [
            put(0, 0x01),
            put(1, 0x02),
            put(2, 0x04),
            put(3, 0x18),
            (0..4).flat_map(post).collect(),
            vec![8, 10, 0, 8],
            put_again(0),
            collect.clone(),
            vec![8],
            collect,
        ];
        seeds.push([vec![n, 3], merging.concat()].concat());
    }
    seeds
}

/// An honest request, and one of each kind of change.
pub fn aggregate_share() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..SETUPS.len() {
        let pool = pool(n);
        let selector = match pool.selector(2) {
            BatchSelector::LeaderSelected(_) => BatchSelector::LeaderSelected(batch_id(0)),
            interval => interval,
        };
        let mut checksum = Checksum::default();
        (0..5).for_each(|n| checksum.add(&report_id(n)));
        for (p, param) in pool.params.iter().enumerate() {
            let body = share_request(pool.wire(), selector, selector, &param.encoded, 5, &checksum);
            seeds.push([&[n as u8, p as u8, 0, 0], &body[..]].concat());
            seeds.push(vec![n as u8, p as u8, 0, 1]);
            seeds.push(vec![n as u8, p as u8, 1, 0, 1]);
        }
        seeds.extend((0..5).map(|change| vec![n as u8, 0, 0, 1, change, 2, 1, 1, 1, 1]));
    }
    seeds
}

/// Each kind, well-formed.
pub fn secrets() -> Vec<Vec<u8>> {
    let mut w = Writer::new();
    keypairs()[0].config().write(&mut w);
    let config = w.finish().expect("a configuration");
    let roots = RootKeys::parse(ROOTS).expect("they are well-formed");
    let mut seeds = Vec::new();
    let mut add = |kind: usize, rest: &[&[u8]]| {
        assert!(kind < KINDS.len());
        seeds.push([&[kind as u8], &rest.concat()[..]].concat());
    };
    for key in 0..keypairs().len() {
        add(0, &[&[key as u8], b"\x04info", b"\x03aad", b"\x05plain"]);
        add(0, &[&[key as u8], b"\x04info", b"\x03aad", b"\x05plain", &[0, 3, 0, 1]]);
    }
    add(1, &[b"\x05plain", &config]);
    add(2, &[ROOTS.as_bytes()]);
    add(3, &[b"\x06secret", &[9; 12]]);
    add(3, &[b"\x06secret", &[9; 12], &[3, 0, 1]]);
    for setup in SETUPS {
        let task = setup.task();
        let spec = serde_json::to_vec(&setup.spec()).expect("specifications have JSON");
        add(4, &[&spec]);
        let stored = serde_json::to_vec(&task.seal(&roots, [1; 12])).expect("tasks have JSON");
        add(5, &[&stored]);
        let vdaf = serde_json::to_vec(&setup.vdaf).expect("configurations have JSON");
        add(7, &[b"\x00\x0a[1,0,1,0]", &vdaf]);
        add(7, &[b"\x00\x061101.0", &vdaf]);
    }
    let peer = serde_json::to_vec(&brought::peer_spec()).expect("specifications have JSON");
    let change = json!({
        "endpoint": brought::LEADER_URL,
        "add_leader_token": "another-token-of-it",
        "policy": { "min_batch_size_min": 10 },
    });
    let change = change.to_string();
    let len = (change.len() as u16).to_be_bytes();
    add(8, &[&len, change.as_bytes(), &peer]);
    let stored = brought::peer().seal(&roots, [2; 12]);
    add(9, &[&serde_json::to_vec(&stored).expect("stored peers have JSON")]);
    add(10, &[&serde_json::to_vec(&stored_keys(&roots)).expect("stored keys have JSON")]);
    add(6, &[keypairs()[0].to_secret_json().as_bytes()]);
    add(6, &[keypairs()[17].to_secret_json().as_bytes()]);
    seeds
}

/// A key in each state.
fn stored_keys(roots: &RootKeys) -> Vec<Value> {
    let states = [
        json!({ "state": "pending" }),
        json!({ "state": "active", "activated": 3 }),
        json!({ "state": "active", "activated": 2, "pinned": 4 }),
        json!({ "state": "expired", "accepts_until": NOW, "destroyed_at": NOW + 5 }),
        json!({ "state": "destroyed" }),
    ];
    let key = |(n, state)| {
        let pair = key(n, HpkeKem::X25519HkdfSha256);
        let sealed = SealedKeypair::seal(&pair, roots, [4; 12]);
        let mut stored = serde_json::to_value(&sealed).expect("keys have JSON");
        stored["state"] = state;
        stored["since"] = json!(NOW);
        stored
    };
    (0..).zip(states).map(key).collect()
}

/// Every message.
pub fn store_messages() -> Vec<Vec<u8>> {
    let roots = RootKeys::parse(ROOTS).expect("they are well-formed");
    let mut seeds = Vec::new();
    for n in [0, 1, 2, 7, 8] {
        let pool = pool(n);
        let placement = pool.task.parameters.placement();
        let field = pool.task.vdaf.field();
        let param = pool.params[0].encoded.clone();
        let job = job_id(1);
        let range = pool.range(&pool.selector(2)).expect("it is one of the task's");
        let bucket = pool.bucket(0, Time::from_seconds(NOW));
        let mut add = |kind: u8, message: Vec<u8>| {
            let len = (message.len() as u16).to_be_bytes();
            // Twice: what is idempotent must be.
            let one = [&[kind, 1], &len[..], &message, &[0, 1]].concat();
            seeds.push([&[n as u8], &one[..]].concat());
            seeds.push([&[n as u8], &one[..], &one[..]].concat());
        };
        let share = pool.params[0].verified[0].helper.clone();
        for action in actions(&param, job, range, bucket, share) {
            let store = StoreId { group: Group::Whole, shard: 0 };
            add(0, bytes(&AggregateStoreRequest { placement, store, field, action }));
        }
        let store = StoreId { group: Group::Run(BUCKET / PRECISION), shard: 1 };
        for request in [
            LedgerRequest::Open { placement, field, store },
            LedgerRequest::Settle { placement, field, store, attempt: 1 },
            LedgerRequest::Release { placement, job },
            LedgerRequest::ReleasePieces { placement, pieces: vec![job, job_id(9)] },
            LedgerRequest::Released(vec![job, job_id(2)]),
            LedgerRequest::Expired {
                placement,
                store,
                epoch: 0,
                uncollected: 3,
                totals: Box::new(totals()),
            },
            LedgerRequest::Note {
                placement,
                job,
                digest: [4; 32],
                tally: Tally { accepted: 0, failures: vec![(Failure::UnknownKey(Some(3)), 2)] },
            },
            LedgerRequest::Refused(Box::new(refusal())),
            LedgerRequest::Status { placement, field, batches: true, after: Some(store) },
            LedgerRequest::Purge { placement, field, again: true },
            LedgerRequest::Collect(Box::new(collect(n))),
            LedgerRequest::Answer([15; 32]),
            LedgerRequest::ForgetAnswer([15; 32]),
        ] {
            add(2, bytes(&request));
        }
        let (digest, waiting) = ([4; 32], vec![report_id(0)]);
        for request in [
            JobStoreRequest::Claim {
                placement,
                job,
                digest,
                unasked: vec![(report_id(1), daphne_core::error::ReportError::ReportTooEarly)],
            },
            JobStoreRequest::Begin {
                placement,
                job: job_id(9),
                digest,
                waiting: waiting.clone(),
                state: vec![1, 2, 3],
                answer: vec![4, 5],
            },
            JobStoreRequest::BeginStep { job: job_id(9), step: 1, digest, reports: waiting },
            JobStoreRequest::EndStep { job: job_id(9), step: 1, digest, answer: vec![6] },
            JobStoreRequest::Forget(job),
            JobStoreRequest::Knows(job),
            JobStoreRequest::Begun { job: job_id(9), digest },
            JobStoreRequest::Deferred(DeferredRequest::Begin {
                placement,
                job: job_id(10),
                digest,
                has_rounds: true,
                piece_len: 2,
                pieces: 3,
                body: vec![7, 8],
            }),
            JobStoreRequest::Deferred(DeferredRequest::Poll {
                job: job_id(10),
                asked: Asked::Body(digest),
            }),
            JobStoreRequest::Deferred(DeferredRequest::Continue {
                job: job_id(10),
                step: 1,
                digest,
                reports: vec![report_id(0)],
                body: vec![9],
            }),
            JobStoreRequest::Purge,
        ] {
            add(4, bytes(&request));
        }
        let (id, objects) = (placement.task_id, pool.task.parameters.objects());
        for request in [
            ConfigRequest::GetTask(id),
            ConfigRequest::CreateTask {
                id,
                identity: [1; 32],
                record: b"record".to_vec(),
                objects,
                expiration: Some(Time::from_seconds(NOW)),
            },
            ConfigRequest::DeleteTask { objects, purge_after: Some(Duration::from_seconds(0)) },
            ConfigRequest::SetExpiration(ExpirationRequest {
                task: id,
                expiration: Some(Time::from_seconds(NOW)),
            }),
            ConfigRequest::Tokens(TokenRequest {
                task: id,
                change: TokenChange::Issue(IssuedToken::new(&id, &[5; 16], &roots, [6; 12])),
            }),
            ConfigRequest::ListTasks { after: Some(id), limit: 10 },
            ConfigRequest::ListHpkeKeys,
            ConfigRequest::ListUncopiedHpkeKeys,
            ConfigRequest::Keys(KeyRequest::Make {
                force: false,
                request: [1; 16],
                id: None,
                kem: HpkeKem::X25519HkdfSha256.code(),
                active: true,
            }),
            ConfigRequest::Keys(KeyRequest::Import {
                force: false,
                keypair: serde_json::to_vec(&SealedKeypair::seal(&helper_key(0), &roots, [4; 12]))
                    .expect("keys have JSON"),
                active: true,
                pinned: true,
            }),
            ConfigRequest::Keys(KeyRequest::Change {
                id: HpkeConfigId(3),
                to: KeyChange::Expire,
                force: true,
            }),
            ConfigRequest::Peers(PeerRequest::List),
            ConfigRequest::Peers(PeerRequest::Put {
                endpoint: brought::LEADER_URL.to_owned(),
                before: None,
                record: b"record".to_vec(),
            }),
            ConfigRequest::Peers(PeerRequest::Remove { endpoint: brought::LEADER_URL.to_owned() }),
        ] {
            add(5, bytes(&request));
        }
        add(6, bytes(&AggregateStoreResponse::Busy(1)));
        add(6, bytes(&AggregateStoreResponse::Begun(vec![report_id(1)])));
        add(6, bytes(&JobStoreResponse::Step { digest, state: vec![1] }));
        add(7, bytes(&LedgerResponse::Status(Box::new(LedgerStatus::default()))));
    }
    seeds.push(vec![0, 8, 0, 0, 0, 9, 0, 0, 0, 1, 60]);
    seeds
}

fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
    encode(message).expect("messages have encodings")
}

fn actions(
    param: &[u8],
    job: daphne_core::ids::AggregationJobId,
    range: BucketRange,
    bucket: BatchBucket,
    share: Vec<u8>,
) -> Vec<StoreAction> {
    let (param, exclude) = (param.to_vec(), vec![job]);
    let mut checksum = Checksum::default();
    checksum.add(&report_id(8));
    let slice = Slice {
        bucket,
        ids: report_id(8).as_bytes().to_vec(),
        checksum,
        min_time: Time::from_seconds(NOW),
        max_time: Time::from_seconds(NOW),
        share,
    };
    vec![
        StoreAction::Commit(Commit {
            job: job_id(3),
            digest: [3; 32],
            param: param.clone(),
            slices: vec![slice],
            refused: vec![(report_id(7), daphne_core::error::ReportError::ReportDropped)],
            unrecorded: vec![(Failure::Proof, 2), (Failure::UnknownExtension(Some(9)), 1)],
            open: Some(vec![(BucketRange::Batch(BatchId::new([1; 32])), param.clone())]),
            readmit: exclude.clone(),
            once: false,
        }),
        StoreAction::Gather { range, param: param.clone(), exclude: exclude.clone() },
        StoreAction::GatherJobs { range, param: param.clone() },
        StoreAction::KnowsJob(job),
        StoreAction::Totals { batches: true },
        StoreAction::Freeze {
            attempt: 1,
            range,
            counts: range,
            param: param.clone(),
            exclude: exclude.clone(),
            version: [0; 32],
        },
        StoreAction::Seal { attempt: 1, range, counts: range, param, exclude },
        StoreAction::Thaw { attempt: 1 },
        begin(Some(0), &[(1, 1), (2, 1)]),
        begin(Some(0), &[(1, 2), (3, 1)]),
        begin(None, &[(1, 1)]),
        StoreAction::Purge,
    ]
}

/// Reports that begin, each with what a number stands for.
fn begin(level: Option<u16>, reports: &[(usize, u8)]) -> StoreAction {
    let reports = reports.iter().map(|(n, as_it)| (report_id(*n), [*as_it; 32])).collect();
    StoreAction::Begin(Begin { level, reports, open: Some(Vec::new()) })
}

/// What a Worker sends the ledger.
fn collect(n: usize) -> daphne_core::store::message::Collect {
    let pool = pool(n);
    let mut checksum = Checksum::default();
    (0..5).for_each(|n| checksum.add(&report_id(n)));
    daphne_core::store::message::Collect {
        digest: [15; 32],
        placement: pool.task.parameters.placement(),
        field: pool.task.vdaf.field(),
        range: pool.everything(0),
        counts: pool.everything(0),
        once: pool.task.parameters.version.aggregates_once(),
        param: pool.params[0].encoded.clone(),
        report_count: 5,
        checksum,
        min_batch_size: 2,
        max_batch_size: None,
        max_batch_query_count: 1,
        collector_hpke_config: collector_key().config().clone(),
        hpke_info: b"info".to_vec(),
        hpke_aad: b"aad".to_vec(),
    }
}

fn refusal() -> Refusal {
    let (resource, kind) = (Resource::AggregationJobs, daphne_core::error::AbortKind::Conflict);
    Refusal { resource, kind, detail: "another body".to_owned() }
}

fn totals() -> Totals {
    let mut totals = Totals::default();
    totals.add(
        &Tally { accepted: 2, failures: vec![(Failure::Replayed, 1)] },
        Time::from_seconds(NOW),
    );
    totals.refuse(refusal(), Time::from_seconds(NOW));
    totals
}
