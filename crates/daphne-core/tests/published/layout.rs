//! The structs of DAP-18 as the draft writes them, for naming the fields of bytes. It knows nothing of our codecs: what they
//! write is taken apart by another hand.

use serde_json::{Value, json};

/// What a field is made of.
enum Part {
    /// So many bytes.
    Bytes(usize),
    /// A length in so many bytes, and that many bytes.
    Opaque(usize),
    /// Another struct.
    One(&'static str),
    /// A length in so many bytes, and structs of that length together; without a length, to the message's end.
    List(usize, &'static str),
    /// What follows `verify_resp_type`.
    ByType,
}
use Part::{ByType, Bytes, List, One, Opaque};

type Struct = (&'static str, &'static str, &'static [(&'static str, Part)]);

/// Name, section, and fields.
const STRUCTS: &[Struct] = &[
    (
        "HpkeCiphertext",
        "4.1",
        &[("config_id", Bytes(1)), ("enc", Opaque(2)), ("payload", Opaque(4))],
    ),
    (
        "HpkeConfig",
        "4.4.1",
        &[
            ("id", Bytes(1)),
            ("kem_id", Bytes(2)),
            ("kdf_id", Bytes(2)),
            ("aead_id", Bytes(2)),
            ("public_key", Opaque(2)),
        ],
    ),
    ("Interval", "4.1.1", &[("start", Bytes(8)), ("duration", Bytes(8))]),
    ("Extension", "4.4.3", &[("extension_type", Bytes(2)), ("extension_data", Opaque(2))]),
    (
        "TaskConfiguration",
        "4.2",
        &[
            ("task_info", Opaque(1)),
            ("leader_aggregator_endpoint", Opaque(2)),
            ("helper_aggregator_endpoint", Opaque(2)),
            ("time_precision", Bytes(8)),
            ("min_batch_size", Bytes(8)),
            ("batch_mode", Bytes(1)),
            ("batch_config", Opaque(2)),
            ("vdaf_type", Bytes(4)),
            ("vdaf_configuration", Opaque(2)),
            ("extensions", List(2, "Extension")),
        ],
    ),
    (
        "ReportMetadata",
        "4.4.2",
        // A list that a client may break.
        &[("report_id", Bytes(16)), ("time", Bytes(8)), ("public_extensions", Opaque(2))],
    ),
    (
        "Report",
        "4.4.2",
        &[
            ("report_metadata", One("ReportMetadata")),
            ("public_share", Opaque(4)),
            ("leader_encrypted_input_share", One("HpkeCiphertext")),
            ("helper_encrypted_input_share", One("HpkeCiphertext")),
        ],
    ),
    ("UploadRequest", "4.4.2", &[("reports", List(0, "Report"))]),
    ("ReportUploadStatus", "4.4.2", &[("report_id", Bytes(16)), ("error", Bytes(1))]),
    ("UploadErrors", "4.4.2", &[("status", List(0, "ReportUploadStatus"))]),
    (
        "PlaintextInputShare",
        "4.4.2.1",
        &[("private_extensions", List(2, "Extension")), ("payload", Opaque(4))],
    ),
    (
        "InputShareAad",
        "4.4.2.1",
        &[
            ("task_id", Bytes(32)),
            ("task_configuration", One("TaskConfiguration")),
            ("report_metadata", One("ReportMetadata")),
            ("public_share", Opaque(4)),
        ],
    ),
    (
        "ReportShare",
        "4.5.3.1",
        &[
            ("report_metadata", One("ReportMetadata")),
            ("public_share", Opaque(4)),
            ("encrypted_input_share", One("HpkeCiphertext")),
        ],
    ),
    ("VerifyInit", "4.5.3.1", &[("report_share", One("ReportShare")), ("payload", Opaque(4))]),
    (
        "AggregationJobInitReq",
        "4.5.3.1",
        &[
            ("verification_key_id", Bytes(1)),
            ("agg_param", Opaque(4)),
            ("extensions", List(2, "Extension")),
            ("verify_inits", List(0, "VerifyInit")),
        ],
    ),
    (
        "VerifyResp",
        "4.5.3.2",
        &[("report_id", Bytes(16)), ("verify_resp_type", Bytes(1)), ("", ByType)],
    ),
    ("AggregationJobResp", "4.5.3.2", &[("verify_resps", List(0, "VerifyResp"))]),
    ("VerifyContinue", "4.5.4.1", &[("report_id", Bytes(16)), ("payload", Opaque(4))]),
    (
        "AggregationJobContinueReq",
        "4.5.4.1",
        &[("step", Bytes(2)), ("verify_continues", List(0, "VerifyContinue"))],
    ),
    ("Query", "4.6.1", &[("batch_mode", Bytes(1)), ("config", Opaque(2))]),
    (
        "CollectionJobReq",
        "4.6.1",
        &[("query", One("Query")), ("agg_param", Opaque(4)), ("extensions", List(2, "Extension"))],
    ),
    (
        "CollectionJobResp",
        "4.6.1",
        &[
            ("report_count", Bytes(8)),
            ("interval", One("Interval")),
            ("leader_encrypted_agg_share", One("HpkeCiphertext")),
            ("helper_encrypted_agg_share", One("HpkeCiphertext")),
        ],
    ),
    ("BatchSelector", "4.6.4", &[("batch_mode", Bytes(1)), ("config", Opaque(2))]),
    (
        "AggregateShareReq",
        "4.6.4",
        &[
            ("collection_job_req", One("CollectionJobReq")),
            ("batch_selector", One("BatchSelector")),
            ("report_count", Bytes(8)),
            ("checksum", Bytes(32)),
        ],
    ),
    ("AggregateShare", "4.6.4", &[("encrypted_aggregate_share", One("HpkeCiphertext"))]),
    (
        "AggregateShareAad",
        "4.6.7",
        &[
            ("task_id", Bytes(32)),
            ("task_configuration", One("TaskConfiguration")),
            ("collection_job_req", One("CollectionJobReq")),
        ],
    ),
];

/// Hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a hexadecimal text.
pub fn bytes(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hexadecimal");
    let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A message with the name of each field.
///
/// # Panics
/// If the bytes are not that message.
pub fn explain(name: &str, message: &[u8]) -> Value {
    let (mut rest, mut fields) = (message, Vec::new());
    walk(name, "", &mut rest, &mut fields);
    assert!(rest.is_empty(), "{name} has more than its fields");
    let (_, section, _) = find(name);
    let fields: Vec<Value> = fields.into_iter().map(|(path, b)| json!([path, hex(&b)])).collect();
    json!({ "message": name, "section": section, "fields": fields })
}

/// The bytes of what [`explain`] explains, or of what has none.
pub fn joined(explained: &Value) -> Vec<u8> {
    let fields = explained["fields"].as_array().expect("fields");
    fields.iter().flat_map(|field| bytes(&field[1])).collect()
}

fn find(name: &str) -> &'static Struct {
    STRUCTS.iter().find(|s| s.0 == name).unwrap_or_else(|| panic!("no struct {name}"))
}

fn walk(name: &str, path: &str, rest: &mut &[u8], out: &mut Vec<(String, Vec<u8>)>) {
    for (field, part) in find(name).2 {
        let path = match (path, *field) {
            (path, "") => path.to_owned(),
            ("", field) => field.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        match part {
            Bytes(n) => out.push((path, take(rest, *n))),
            Opaque(width) => opaque(*width, &path, rest, out),
            One(inner) => walk(inner, &path, rest, out),
            List(0, item) => list(item, &path, rest, out),
            List(width, item) => {
                let length = take(rest, *width);
                let mut items = &take(rest, number(&length))[..];
                out.push((format!("{path}.length"), length));
                list(item, &path, &mut items, out);
            }
            ByType => match out.last().map(|(_, kind)| kind[0]) {
                Some(0) => opaque(4, &format!("{path}.payload"), rest, out),
                Some(2) => out.push((format!("{path}.report_error"), take(rest, 1))),
                _ => {}
            },
        }
    }
}

fn opaque(width: usize, path: &str, rest: &mut &[u8], out: &mut Vec<(String, Vec<u8>)>) {
    let length = take(rest, width);
    let content = take(rest, number(&length));
    out.push((format!("{path}.length"), length));
    if !content.is_empty() {
        out.push((path.to_owned(), content));
    }
}

fn list(item: &str, path: &str, rest: &mut &[u8], out: &mut Vec<(String, Vec<u8>)>) {
    for n in 0.. {
        if rest.is_empty() {
            break;
        }
        walk(item, &format!("{path}[{n}]"), rest, out);
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
}

fn take(rest: &mut &[u8], n: usize) -> Vec<u8> {
    let (head, tail) = rest.split_at_checked(n).expect("the message has all its fields");
    *rest = tail;
    head.to_vec()
}
