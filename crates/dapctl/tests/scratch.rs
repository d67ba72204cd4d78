#![allow(missing_docs)]
use std::{collections::*, io::*, net::*, sync::*};
use daphne_core::{*, hpke::*, ids::*, message::*, batch::*, vdaf::share, wire::v09};
use dapctl::{drive, drive::Options, output::Progress, reports::*, task_file::*};

struct St { seen: HashSet<ReportId>, sums: BTreeMap<BatchBucket, (u64, Checksum, Vec<u8>)>, jobs: HashMap<String, Vec<u8>>, n: u64, fail_every: u64, tamper: bool, swap: bool }

fn respond(st: &mut St, t: &task::Task, hk: &HpkeKeypair, method: &str, path: &str, body: &[u8]) -> (u16, &'static str, Vec<u8>) {
    st.n += 1;
    if st.fail_every > 0 && st.n % st.fail_every == 0 { return (503, "text/plain", vec![]); }
    let early = st.fail_every > 0 && st.n % st.fail_every == 1;
    let out = respond2(st, t, hk, method, path, body);
    if early && method != "GET" { return (500, "text/plain", vec![]) }
    out
}
fn respond2(st: &mut St, t: &task::Task, hk: &HpkeKeypair, method: &str, path: &str, body: &[u8]) -> (u16, &'static str, Vec<u8>) {
    if path.contains("hpke_config") {
        let mut w = codec::Writer::new(); HpkeConfigList(vec![hk.config().clone()]).write(&mut w);
        return (200, "application/dap-hpke-config-list", w.finish().unwrap());
    }
    if method == "DELETE" { return (204, "", vec![]); }
    if path.contains("aggregation_jobs") {
        if let Some(a) = st.jobs.get(path) { return (201, "application/dap-aggregation-job-resp", a.clone()); }
        let req: AggregationJobInit = v09::AggregationJobInitReq::decode(body).unwrap().into();
        let mut resps = vec![];
        for vi in &req.verify_inits {
            let rs = &vi.report_share;
            let id = rs.metadata.report_id;
            if !st.seen.insert(id) { resps.push(VerifyResp{report_id:id,result:VerifyRespResult::Reject(error::ReportError::ReportReplayed)}); continue; }
            let aad = v09::input_share_aad(t.id(), rs.metadata.encoded, rs.public_share).unwrap();
            let r = open(hk, &input_share_info(version::DapVersion::V09, Role::Helper), &aad, rs.encrypted_input_share);
            let Ok(pt) = r else { resps.push(VerifyResp{report_id:id,result:VerifyRespResult::Reject(error::ReportError::HpkeDecryptError)}); continue; };
            let p = v09::PlaintextInputShare::decode(&pt).unwrap();
            let (o, msg) = t.vdaf.helper_init(&t.verify_key, &[], id.as_bytes(), rs.public_share, p.payload, vi.payload).unwrap();
            let b = match req.batch { PartialBatchSelector::TimeInterval => BatchBucket::Window(rs.metadata.time.round_down(t.parameters.time_precision)), PartialBatchSelector::LeaderSelected(i) => BatchBucket::Batch(i) };
            let e = st.sums.entry(b).or_insert_with(|| (0, Checksum::default(), share::zero(t.vdaf.agg_share_len())));
            e.0 += 1; e.1.add(&id);
            let mut a = t.vdaf.aggregate_init(); a.accumulate(&o).unwrap();
            share::add_assign(t.vdaf.field(), &mut e.2, &a.encode()).unwrap();
            let msg = if st.tamper { st.tamper = false; vec![9; 3] } else { msg };
            resps.push(VerifyResp{report_id:id,result:VerifyRespResult::Continue(msg)});
        }
        if st.swap { resps.reverse(); }
        let a = v09::AggregationJobResp::from(&resps[..]).encode().unwrap();
        st.jobs.insert(path.into(), a.clone());
        return (201, "application/dap-aggregation-job-resp", a);
    }
    let req: AggregateShareRequest = v09::AggregateShareReq::decode(body).unwrap().into();
    let range = BucketRange::from_selector(&req.batch_selector, t.parameters.batch_mode, t.parameters.time_precision).unwrap();
    let mut n = 0; let mut c = Checksum::default(); let mut s = share::zero(t.vdaf.agg_share_len());
    for (b, v) in &st.sums { if range.contains(b) { n += v.0; c.merge(&v.1); share::add_assign(t.vdaf.field(), &mut s, &v.2).unwrap(); } }
    if n != req.report_count || c.as_bytes() != &req.checksum { return (400, "application/problem+json", br#"{"type":"urn:ietf:params:ppm:dap:error:batchMismatch","title":"t","detail":"counts differ"}"#.to_vec()); }
    let aad = v09::aggregate_share_aad(t.id(), &[], req.batch_selector_encoded).unwrap();
    let sealed = seal(&t.parameters.collector_hpke_config, &aggregate_share_info(version::DapVersion::V09, Role::Helper), &aad, &s, &random().unwrap()).unwrap();
    (200, "application/dap-aggregate-share", v09::AggregateShare{encrypted_aggregate_share: sealed.as_ref()}.encode().unwrap())
}

fn setup(vdaf: serde_json::Value, mode: &str, len: usize, fail_every: u64, tamper: bool, swap: bool) -> TaskFile {
    let mut f = serde_json::json!({"version":"dap-09","role":"helper","batch_mode":mode,"vdaf":vdaf,"min_batch_size":2,"time_precision":3600});
    let g = generate_missing(f.as_object_mut().unwrap(), len).unwrap();
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = TaskFile { spec: spec_from_value(f).unwrap(), helper_url: format!("http://{}/v09/", l.local_addr().unwrap()), leader_hpke_keypair: new_keypair().unwrap(), collector_hpke_keypair: g.collector };
    let t = Arc::new(file.task().unwrap());
    let hk = Arc::new(new_keypair().unwrap());
    let st = Arc::new(Mutex::new(St { seen: HashSet::new(), sums: BTreeMap::new(), jobs: HashMap::new(), n: 0, fail_every, tamper, swap }));
    std::thread::spawn(move || for s in l.incoming() {
        let (t, hk, st) = (t.clone(), hk.clone(), st.clone());
        std::thread::spawn(move || {
            let mut s = s.unwrap(); let mut r = BufReader::new(s.try_clone().unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") { if r.read_line(&mut head).unwrap_or(0) == 0 { return } }
                let n = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
                let mut b = vec![0; n]; r.read_exact(&mut b).unwrap();
                let mut p = head.split(' '); let (m, path) = (p.next().unwrap().to_owned(), p.next().unwrap().to_owned());
                let (code, ct, out) = respond(&mut st.lock().unwrap(), &t, &hk, &m, &path, &b);
                let len = if code == 204 { String::new() } else { format!("content-length: {}\r\n", out.len()) };
                s.write_all(format!("HTTP/1.1 {code} X\r\ncontent-type: {ct}\r\n{len}\r\n").as_bytes()).unwrap();
                s.write_all(&out).unwrap();
            }
        });
    });
    file
}

fn go(file: &TaskFile, n: u64, o: &Options) -> drive::Summary {
    let h = drive::helper_client(file, Default::default(), Default::default()).unwrap();
    let g = Generator::new(file, &h.hpke_configs().unwrap(), Measurements::Random{seed:3}, now(), 7200).unwrap();
    let s = drive::run(file, g.reports(n), o, &Progress::silent()).unwrap();
    println!("{s}\n{}", serde_json::to_string(&s).unwrap());
    s
}

#[test]
fn all() {
    let base = Options { job_size: 7, replay: true, delete_jobs: true, ..Options::default() };
    let v = serde_json::json!({"Prio3SumVec":{"bits":1,"length":20,"chunk_length":5}});
    for (mode, o) in [("time-interval", base.clone()), ("time-interval", Options{per_bucket:true,..base.clone()}), ("leader-selected", base.clone()), ("leader-selected", Options{batch_size: Some(10), concurrency: 4, ..base.clone()})] {
        let s = go(&setup(v.clone(), mode, 16, 0, false, false), 50, &o);
        assert!(s.ok && s.matches == Some(true) && s.reports_accepted == 50);
        let s = go(&setup(v.clone(), mode, 16, 3, false, false), 50, &o);
        assert!(s.ok && s.matches == Some(true) && s.retries > 0);
    }
    let s = go(&setup(serde_json::json!({"Prio3SumVecField64MultiproofHmacSha256Aes128":{"bits":64,"length":3,"chunk_length":5,"proofs":2}}), "time-interval", 32, 0, false, false), 20, &base);
    assert!(s.ok && s.matches == Some(true));
    let s = go(&setup("Prio3Count".into(), "time-interval", 16, 0, true, false), 20, &base);
    assert!(!s.ok); println!("{:?}", s.verdict());
    let s = go(&setup("Prio3Count".into(), "time-interval", 16, 0, false, true), 20, &base);
    assert!(!s.ok && s.jobs_abandoned > 0); println!("{:?}", s.verdict());
}
