//! The messages of DAP-09.

use daphne_core::wire::v09;

use super::{List, Message, Table};

// Parts that several messages hold.

// 16 bytes
macro_rules! interval {
    () => {
        concat!(
            "000000006553f100", // start: 1,700,000,000
            "0000000000000e10", // duration: 3,600
        )
    };
}
// 16 bytes
macro_rules! endless {
    () => {
        concat!(
            "ffffffffffffffff", // start: the last second
            "ffffffffffffffff", // duration: beyond it
        )
    };
}
// 24 bytes
macro_rules! metadata {
    () => {
        concat!(
            report_id!(),       // report_id
            "000000006553f100", // time: 1,700,000,000
        )
    };
}
// 24 bytes
macro_rules! late_metadata {
    () => {
        concat!(
            other_report_id!(), // report_id
            "ffffffffffffffff", // time: the last second
        )
    };
}
// 2 + 3 + 3 + 17 + 8 = 33 bytes
macro_rules! task_config_start {
    () => {
        concat!(
            "[01]66",                       // task_info
            "[0001]6c",                     // leader_aggregator_endpoint
            "[0001]68",                     // helper_aggregator_endpoint
            "[000f]",                       // query_config
            "000000000000003c00010000000a", // time_precision, max_batch_query_count, min_batch_size
            "01",                           // query_type: time_interval
            "000000006553f100",             // task_expiration: 1,700,000,000
        )
    };
}
// 24 + 6 + 14 = 44 bytes
macro_rules! report_share {
    () => {
        concat!(
            metadata!(),      // report_metadata
            "[00000002]5051", // public_share
            ciphertext!(),    // encrypted_input_share
        )
    };
}
// 24 + 4 + 7 = 35 bytes
macro_rules! empty_report_share {
    () => {
        concat!(
            late_metadata!(),    // report_metadata
            "[00000000]",        // public_share: empty
            empty_ciphertext!(), // encrypted_input_share
        )
    };
}
// 44 + 7 = 51 bytes
macro_rules! prepare_init {
    () => {
        concat!(
            report_share!(),    // report_share
            "[00000003]909192", // payload
        )
    };
}
// 35 + 4 = 39 bytes
macro_rules! empty_prepare_init {
    () => {
        concat!(
            empty_report_share!(), // report_share
            "[00000000]",          // payload: empty
        )
    };
}
// 16 + 1 + 6 = 23 bytes
macro_rules! prepare_resp_continue {
    () => {
        concat!(
            report_id!(),     // report_id
            "00",             // prepare_resp_state: continue
            "[00000002]0102", // payload
        )
    };
}
// 16 + 1 = 17 bytes
macro_rules! prepare_resp_finished {
    () => {
        concat!(
            other_report_id!(), // report_id
            "01",               // prepare_resp_state: finished
        )
    };
}
// 16 + 1 + 1 = 18 bytes
macro_rules! prepare_resp_reject {
    ($error:literal) => {
        concat!(
            report_id!(), // report_id
            "02",         // prepare_resp_state: reject
            $error,       // prepare_error
        )
    };
}
// 16 + 6 = 22 bytes
macro_rules! prepare_continue {
    () => {
        concat!(
            report_id!(),     // report_id
            "[00000002]0102", // payload
        )
    };
}
// 16 + 4 = 20 bytes
macro_rules! empty_prepare_continue {
    () => {
        concat!(
            other_report_id!(), // report_id
            "[00000000]",       // payload: empty
        )
    };
}
// 6 bytes
macro_rules! extension {
    () => {
        concat!(
            "ff00",       // extension_type
            "[0002]abcd", // extension_data
        )
    };
}
// 4 bytes
macro_rules! empty_extension {
    () => {
        concat!(
            "0000",   // extension_type: TBD
            "[0000]", // extension_data: empty
        )
    };
}

/// The table. `every_decoder_is_in_its_table` keeps it complete.
pub const TABLE: Table = Table { draft: "v09", messages: MESSAGES };

const MESSAGES: &[Message] = &[
    message!(v09 HpkeCiphertext, ["full": ciphertext!(), "empty": empty_ciphertext!()]),
    message!(v09 Interval, ["an hour": interval!(), "past the last second": endless!()]),
    message!(v09 PartialBatchSelector, [
        "time interval": "01", // query_type: time_interval
        "fixed size": concat!(
            "02", // query_type: fixed_size
            batch_id!(), // batch_id
        ),
    ]),
    message!(v09 ReportMetadata, ["usual": metadata!(), "late": late_metadata!()]),
    message!(v09 Report, [
        "full": concat!(
            metadata!(), // report_metadata
            "[00000005]5051525354", // public_share
            ciphertext!(), // leader_encrypted_input_share
            ciphertext!(), // helper_encrypted_input_share
        ),
        "empty": concat!(
            late_metadata!(), // report_metadata
            "[00000000]", // public_share: empty
            empty_ciphertext!(), // leader_encrypted_input_share
            empty_ciphertext!(), // helper_encrypted_input_share
        ),
    ]),
    message!(v09 Extension, ["full": extension!(), "empty": empty_extension!()]),
    message!(v09 PlaintextInputShare of [Extension: "", 2, "00000000"], [
        "two extensions": concat!(
            "[000a]", extension!(), empty_extension!(), // extensions: 6 + 4 = 10
            "[00000003]010203", // payload
        ),
        "the same extension twice": concat!(
            "[000c]", extension!(), extension!(), // extensions: 6 + 6 = 12
            "[00000003]010203", // payload
        ),
        "empty": concat!(
            "[0000]", // extensions: none
            "[00000000]", // payload: empty
        ),
    ]),
    message!(v09 InputShareAad, [
        "full": concat!(
            task_id!(), // task_id
            metadata!(), // report_metadata
            "[00000002]5051", // public_share
        ),
        "empty": concat!(
            task_id!(), // task_id
            late_metadata!(), // report_metadata
            "[00000000]", // public_share: empty
        ),
    ]),
    message!(v09 ReportShare, ["full": report_share!(), "empty": empty_report_share!()]),
    message!(v09 PrepareInit, ["full": prepare_init!(), "empty": empty_prepare_init!()]),
    message!(v09 AggregationJobInitReq of [PrepareInit: "0000000001", 4, ""], [
        "time interval, two reports": concat!(
            "[00000000]", // agg_param: empty
            "01", // part_batch_selector.query_type: time_interval
            "[0000005a]", prepare_init!(), empty_prepare_init!(), // prepare_inits: 51 + 39 = 90
        ),
        "fixed size, one report": concat!(
            "[00000002]a0a1", // agg_param
            "02", // part_batch_selector.query_type: fixed_size
            batch_id!(), // part_batch_selector.batch_id
            "[00000033]", prepare_init!(), // prepare_inits: 51
        ),
    ]),
    message!(v09 PrepareResp, [
        "continue": prepare_resp_continue!(),
        "continue, empty": concat!(
            report_id!(), // report_id
            "00", // prepare_resp_state: continue
            "[00000000]", // payload: empty
        ),
        "finished": prepare_resp_finished!(),
        "batch_collected": prepare_resp_reject!("00"),
        "report_replayed": prepare_resp_reject!("01"),
        "report_dropped": prepare_resp_reject!("02"),
        "hpke_unknown_config_id": prepare_resp_reject!("03"),
        "hpke_decrypt_error": prepare_resp_reject!("04"),
        "vdaf_prep_error": prepare_resp_reject!("05"),
        "batch_saturated": prepare_resp_reject!("06"),
        "task_expired": prepare_resp_reject!("07"),
        "invalid_message": prepare_resp_reject!("08"),
        "report_too_early": prepare_resp_reject!("09"),
    ]),
    message!(v09 AggregationJobResp of [PrepareResp: "", 4, ""], [
        "all states": concat!(
            "[0000003a]", // prepare_resps: 23 + 17 + 18 = 58
            prepare_resp_continue!(),
            prepare_resp_finished!(),
            prepare_resp_reject!("08"),
        ),
        "one report": concat!("[00000011]", prepare_resp_finished!()), // prepare_resps: 17
    ]),
    message!(v09 PrepareContinue, ["full": prepare_continue!(), "empty": empty_prepare_continue!()]),
    message!(v09 AggregationJobContinueReq of [PrepareContinue: "0001", 4, ""], [
        "two reports": concat!(
            "0001", // step: 1
            "[0000002a]", prepare_continue!(), empty_prepare_continue!(), // prepare_continues: 22 + 20 = 42
        ),
        "step 0 is for the job to refuse": concat!(
            "0000", // step: 0
            "[00000014]", empty_prepare_continue!(), // prepare_continues: 20
        ),
    ]),
    message!(v09 FixedSizeQuery, [
        "by batch id": concat!(
            "00", // query_type: by_batch_id
            batch_id!(), // batch_id
        ),
        "current batch": "01", // query_type: current_batch
    ]),
    message!(v09 Query, [
        "time interval": concat!(
            "01", // query_type: time_interval
            interval!(), // batch_interval
        ),
        "past the last second": concat!(
            "01", // query_type: time_interval
            endless!(), // batch_interval
        ),
        "by batch id": concat!(
            "02", // query_type: fixed_size
            "00", // fixed_size_query.query_type: by_batch_id
            batch_id!(), // fixed_size_query.batch_id
        ),
        "current batch": concat!(
            "02", // query_type: fixed_size
            "01", // fixed_size_query.query_type: current_batch
        ),
    ]),
    message!(v09 CollectionReq, [
        "time interval": concat!(
            "01", // query.query_type: time_interval
            interval!(), // query.batch_interval
            "[00000000]", // agg_param: empty
        ),
        "current batch": concat!(
            "02", // query.query_type: fixed_size
            "01", // query.fixed_size_query.query_type: current_batch
            "[00000002]a0a1", // agg_param
        ),
    ]),
    message!(v09 Collection, [
        "time interval": concat!(
            "01", // part_batch_selector.query_type: time_interval
            "0000000000000064", // report_count: 100
            interval!(), // interval
            ciphertext!(), // leader_encrypted_agg_share
            empty_ciphertext!(), // helper_encrypted_agg_share
        ),
        "fixed size": concat!(
            "02", // part_batch_selector.query_type: fixed_size
            batch_id!(), // part_batch_selector.batch_id
            "ffffffffffffffff", // report_count
            interval!(), // interval
            ciphertext!(), // leader_encrypted_agg_share
            ciphertext!(), // helper_encrypted_agg_share
        ),
    ]),
    message!(v09 BatchSelector, [
        "time interval": concat!(
            "01", // query_type: time_interval
            interval!(), // batch_interval
        ),
        "past the last second": concat!(
            "01", // query_type: time_interval
            endless!(), // batch_interval
        ),
        "fixed size": concat!(
            "02", // query_type: fixed_size
            batch_id!(), // batch_id
        ),
    ]),
    message!(v09 AggregateShareReq, [
        "time interval": concat!(
            "01", // batch_selector.query_type: time_interval
            interval!(), // batch_selector.batch_interval
            "[00000000]", // agg_param: empty
            "0000000000000064", // report_count: 100
            checksum!(), // checksum
        ),
        "fixed size": concat!(
            "02", // batch_selector.query_type: fixed_size
            batch_id!(), // batch_selector.batch_id
            "[00000002]a0a1", // agg_param
            "ffffffffffffffff", // report_count
            checksum!(), // checksum
        ),
    ]),
    message!(v09 AggregateShare, [
        "full": ciphertext!(), // encrypted_aggregate_share
        "empty": empty_ciphertext!(), // encrypted_aggregate_share
    ]),
    message!(v09 AggregateShareAad, [
        "time interval": concat!(
            task_id!(), // task_id
            "[00000000]", // agg_param: empty
            "01", // batch_selector.query_type: time_interval
            interval!(), // batch_selector.batch_interval
        ),
        "fixed size": concat!(
            task_id!(), // task_id
            "[00000002]a0a1", // agg_param
            "02", // batch_selector.query_type: fixed_size
            batch_id!(), // batch_selector.batch_id
        ),
    ]),
    message!(v09 TaskConfig, [
        // SHA-256 of this one is the id of a published example.
        "leader-selected count": concat!(
            "[06]666f6f626172", // task_info: foobar
            "[0014]68747470733a2f2f6578616d706c652e636f6d2f", // leader: https://example.com/
            "[001c]68747470733a2f2f616e6f746865722e6578616d706c652e636f6d2f", // helper: https://another.example.com/
            "[0013]", // query_config
            "000000000000aaaa", // time_precision
            "bbbb", // max_batch_query_count
            "0000cccc", // min_batch_size
            "02", // query_type: fixed_size
            "0000dddd", // max_batch_size
            "000000000000eeee", // task_expiration
            "[0007]", // vdaf_config
            "[0001]", // dp_config
            "01", // dp_mechanism: none
            "00000000", // vdaf_type: Prio3Count
        ),
        "time interval, several proofs": concat!(
            "[01]66", // task_info
            "[0001]6c", // leader
            "[0001]68", // helper
            "[000f]", // query_config
            "ffffffffffffffff", // time_precision
            "ffff", // max_batch_query_count
            "ffffffff", // min_batch_size
            "01", // query_type: time_interval
            "ffffffffffffffff", // task_expiration
            "[0011]", // vdaf_config
            "[0001]", // dp_config
            "01", // dp_mechanism: none
            "ffff1003", // vdaf_type: Prio3SumVecField64MultiproofHmacSha256Aes128
            "0000000c", // length
            "08", // bits
            "0000000e", // chunk_length
            "02", // proofs
        ),
        "sum": concat!(
            task_config_start!(),
            "[0008]", // vdaf_config
            "[0001]01", // dp_config: none
            "0000000142", // vdaf_type: Prio3Sum, bits
        ),
        "vector": concat!(
            task_config_start!(),
            "[0010]", // vdaf_config
            "[0001]01", // dp_config: none
            "000000020000000c080000000e", // vdaf_type: Prio3SumVec, length, bits, chunk_length
        ),
        "histogram": concat!(
            task_config_start!(),
            "[000f]", // vdaf_config
            "[0001]01", // dp_config: none
            "000000030000000a00000004", // vdaf_type: Prio3Histogram, length, chunk_length
        ),
        "strings": concat!(
            task_config_start!(),
            "[0009]", // vdaf_config
            "[0001]01", // dp_config: none
            "00001000abab", // vdaf_type: Poplar1, bits
        ),
        "all unknown": concat!(
            "[01]66", // task_info
            "[0001]6c", // leader
            "[0001]68", // helper
            "[0012]", // query_config
            "000000000000003c00010000000a", // time_precision, max_batch_query_count, min_batch_size
            "63a1a2a3", // query_type, and what it alone knows
            "0000000000000000", // task_expiration
            "[000c]", // vdaf_config
            "[0005]ffdeadbeef", // dp_config: a mechanism with parameters
            "ffff000007", // vdaf_type, and a parameter
        ),
    ]),
];
