//! Exchanges recorded between two processes of another implementation, replayed: this helper, with the recorded keys
//! and clock, gives the same answers.
#![cfg(not(target_arch = "wasm32"))]

use daphne_core::{
    aggregate::{
        commit::{self, JobIdentity},
        helper::{HelperJob, HpkeKeyring},
    },
    batch::BatchMode,
    codec::Writer,
    collect::helper::collect_request,
    error::Error,
    hpke::HpkeConfigList,
    store::{
        Objects,
        message::{LedgerRequest, LedgerResponse},
        placement::ShardKey,
    },
    task::Task,
    testing::{
        memory::MemoryCluster,
        recorded::{Exchange, Recording, say},
    },
    time::Time,
};
use futures::executor::block_on;
use sha2::{Digest as _, Sha256};

/// The helper of one recorded task.
struct Helper {
    task: Task,
    keys: HpkeKeyring,
    cluster: MemoryCluster,
}

impl Helper {
    fn answer(&self, exchange: &Exchange) -> Vec<u8> {
        self.cluster.set_time(exchange.unix_time);
        match exchange.method.as_str() {
            "GET" => {
                let mut w = Writer::new();
                HpkeConfigList(self.keys.published().cloned().collect()).write(&mut w);
                w.finish().unwrap()
            }
            "PUT" => self.put_job(exchange).unwrap(),
            _ => self.post_share(exchange),
        }
    }

    fn put_job(&self, exchange: &Exchange) -> Result<Vec<u8>, Error> {
        let body = &exchange.request.body;
        let wire = self.task.parameters.wire();
        let init = wire.aggregation_job_init(body)?;
        let now = Time::from_seconds(exchange.unix_time);
        let job = HelperJob::new(&self.task, &self.keys, now, &init)?;
        let identity = JobIdentity {
            job: exchange.path.rsplit('/').next().unwrap().parse().unwrap(),
            digest: Sha256::digest(body).into(),
            shard_key: ShardKey::new([5; 16]),
        };
        let answers = block_on(commit::run(&self.cluster, &identity, &job))?;
        Ok(wire.encode_aggregation_job_resp(&answers).unwrap())
    }

    fn post_share(&self, exchange: &Exchange) -> Vec<u8> {
        let body = &exchange.request.body;
        let request = self.task.parameters.wire().aggregate_share_request(body).unwrap();
        let digest = Sha256::digest(body).into();
        let collect = collect_request(&self.task, &request, digest).unwrap();
        let collect = LedgerRequest::Collect(Box::new(collect));
        match block_on(self.cluster.ledger(self.task.id(), collect)).unwrap() {
            LedgerResponse::Share(share) => share,
            other => panic!("{}: {other:?}", exchange.path),
        }
    }
}

#[test]
fn recorded_exchanges_are_answered_alike() {
    let mut answered = 0;
    for recording in Recording::all() {
        for (shards, buckets_per_group) in [(1, None), (4, Some(1)), (3, Some(0))] {
            println!("{}: {shards} shards, {buckets_per_group:?}", recording.name);
            let mut spec = recording.spec.clone();
            spec.shards = shards;
            if spec.batch_mode == BatchMode::TimeInterval {
                spec.buckets_per_group = buckets_per_group;
            }
            let helper = Helper {
                task: spec.check(1).unwrap(),
                keys: HpkeKeyring::new(vec![recording.helper_keys.clone()]),
                cluster: MemoryCluster::new(),
            };
            answered += recording.replay(|exchange| helper.answer(exchange));
        }
    }
    if answered > 0 {
        say(&format!("VECTORS dap-09-wire: {answered} recorded exchanges answered alike"));
    }
}
