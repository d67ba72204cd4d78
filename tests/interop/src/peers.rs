//! Other implementations as parties of a task.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use daphne_core::{hpke::HpkeConfig, time::Time};
use e2e::{World, server::random};
use janus_collector::{AuthenticationToken, ExponentialBackoff};
use janus_core::hpke::{self, HpkeApplicationInfo, HpkeKeypair, HpkePrivateKey, Label};
use janus_messages::{self as theirs, query_type::QueryType};
use prio::{codec::Encode as _, vdaf};
use serde_json::{Value, json};
use url::Url;

use crate::{Leader, runtime};

/// A configuration of ours as one of theirs.
fn config(config: &HpkeConfig) -> theirs::HpkeConfig {
    theirs::HpkeConfig::new(
        config.id.0.into(),
        config.kem.code().into(),
        config.kdf.code().into(),
        config.aead.code().into(),
        config.public_key.clone().into(),
    )
}

/// Where the helper of a task is.
pub fn helper_url(world: &World) -> Url {
    Url::parse(&format!("{}/v09/", world.client.base())).expect("a URL")
}

/// Gives up early enough for a test to fail in good time.
fn backoff() -> ExponentialBackoff {
    ExponentialBackoff {
        initial_interval: Duration::from_millis(20),
        max_interval: Duration::from_millis(200),
        max_elapsed_time: Some(Duration::from_secs(60)),
        ..ExponentialBackoff::default()
    }
}

fn builder<V: vdaf::Client<16>>(leader: &Leader, vdaf: V) -> janus_client::ClientBuilder<V> {
    let world = leader.world();
    let precision = theirs::Duration::from_seconds(world.spec.time_precision.as_seconds());
    let task_id = (*world.task_id.as_bytes()).into();
    let (leader, helper) = (leader.url().clone(), helper_url(world));
    janus_client::Client::builder(task_id, leader, helper, precision, vdaf).with_backoff(backoff())
}

/// Janus' client of a leader's task, which fetches both aggregators' keys.
///
/// # Errors
/// A list of keys is not answered or of no use.
pub fn janus_client<V: vdaf::Client<16>>(
    leader: &Leader,
    vdaf: V,
) -> Result<janus_client::Client<V>, janus_client::Error> {
    runtime().block_on(builder(leader, vdaf).build())
}

/// Janus' client of a leader's task, which has a key of the helper built in.
///
/// # Errors
/// The leader's list of keys is not answered or of no use.
pub fn janus_client_with_key<V: vdaf::Client<16>>(
    leader: &Leader,
    vdaf: V,
    helper: &HpkeConfig,
) -> Result<janus_client::Client<V>, janus_client::Error> {
    runtime().block_on(builder(leader, vdaf).with_helper_hpke_config(config(helper)).build())
}

/// Has a client of Janus upload measurements, all of one time.
///
/// # Errors
/// The leader refuses one.
pub fn upload<V: vdaf::Client<16>>(
    client: &janus_client::Client<V>,
    measurements: &[V::Measurement],
    time: Time,
) -> Result<(), janus_client::Error> {
    let time = theirs::Time::from_seconds_since_epoch(time.as_seconds());
    runtime().block_on(async {
        for measurement in measurements {
            client.upload_with_time(measurement, time).await?;
        }
        Ok(())
    })
}

/// A report of one measurement with the extension that taskprov demands, made of Janus' parts: its client has no
/// extensions.
pub fn janus_report_for_taskprov<V: vdaf::Client<16>>(
    world: &World,
    vdaf: &V,
    measurement: &V::Measurement,
    time: Time,
) -> Vec<u8> {
    let id: [u8; 16] = random();
    let time = theirs::Time::from_seconds_since_epoch(time.as_seconds());
    let metadata = theirs::ReportMetadata::new(id.into(), time);
    let (public_share, input_shares) = vdaf.shard(measurement, &id).expect("a measurement");
    let public_share = public_share.get_encoded().expect("a small share");
    let task_id = (*world.task_id.as_bytes()).into();
    let aad = theirs::InputShareAad::new(task_id, metadata.clone(), public_share.clone());
    let aad = aad.get_encoded().expect("a small share");
    let seal = |role, keys: &HpkeConfig, share: &V::InputShare| {
        let taskprov = theirs::Extension::new(theirs::ExtensionType::Taskprov, Vec::new());
        let share = share.get_encoded().expect("a small share");
        let plaintext = theirs::PlaintextInputShare::new(vec![taskprov], share);
        let plaintext = plaintext.get_encoded().expect("a small share");
        let info = HpkeApplicationInfo::new(&Label::InputShare, &theirs::Role::Client, &role);
        hpke::seal(&config(keys), &info, &plaintext, &aad).expect("a key")
    };
    let [leader, helper] = input_shares.as_slice() else { panic!("two aggregators") };
    let leader = seal(theirs::Role::Leader, world.leader_keys.config(), leader);
    let helper = seal(theirs::Role::Helper, &world.reporter.helper_hpke_config, helper);
    let report = theirs::Report::new(metadata, public_share, leader, helper);
    report.get_encoded().expect("a small report")
}

/// Janus' collector of a leader's task.
pub fn janus_collector<V: vdaf::Collector>(
    leader: &Leader,
    vdaf: V,
) -> janus_collector::Collector<V> {
    let world = leader.world();
    let keys = &world.collector_keys;
    let token = AuthenticationToken::new_bearer_token_from_string(leader.collector_token())
        .expect("a token that is fit for a header");
    janus_collector::Collector::builder(
        (*world.task_id.as_bytes()).into(),
        leader.url().clone(),
        token,
        HpkeKeypair::new(config(keys.config()), HpkePrivateKey::new(keys.private_key().to_vec())),
        vdaf,
    )
    .with_http_request_backoff(backoff())
    .with_collect_poll_backoff(backoff())
    .build()
    .expect("a collector")
}

/// Has a collector of Janus collect a batch.
///
/// # Errors
/// The leader refuses, or its answer is not one.
pub fn collect<V: vdaf::Collector, Q: QueryType>(
    collector: &janus_collector::Collector<V>,
    query: theirs::Query<Q>,
    agg_param: &V::AggregationParam,
) -> Result<janus_collector::Collection<V::AggregateResult, Q>, janus_collector::Error> {
    runtime().block_on(collector.collect(query, agg_param))
}

/// Has `@divviup/dap` upload measurements of a VDAF in its spelling, such as `{"type": "sum", "bits": 8}`.
///
/// # Panics
/// If it fails; with what it says.
pub fn divviup_upload(leader: &Leader, vdaf: &Value, measurements: &[Value], time: Time) {
    let root: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect();
    let world = leader.world();
    let mut node = Command::new(root.join("node_modules/node/bin/node"))
        .arg(root.join("tests/interop/divviup.mjs"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/setup has installed Node");
    let order = json!({
        "task": {
            "id": world.task_id,
            "leader": leader.url(),
            "helper": helper_url(world),
            "timePrecisionSeconds": world.spec.time_precision,
        },
        "vdaf": vdaf,
        "time": time.as_seconds(),
        "measurements": measurements,
    });
    let mut stdin = node.stdin.take().expect("a pipe");
    stdin.write_all(order.to_string().as_bytes()).expect("Node reads");
    drop(stdin);
    let output = node.wait_with_output().expect("Node ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
