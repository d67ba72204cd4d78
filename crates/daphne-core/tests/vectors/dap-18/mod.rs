//! The messages of DAP-18.

use daphne_core::wire::v18;

use super::{List, Message, Table};

// Parts that several messages hold.

// 16 bytes
macro_rules! interval {
    () => {
        concat!(
            "0000000000072f40", // start: 470,848 units of an hour
            "0000000000000002", // duration: 2
        )
    };
}
// 16 bytes
macro_rules! endless {
    () => {
        concat!(
            "ffffffffffffffff", // start: the last unit
            "ffffffffffffffff", // duration: beyond it
        )
    };
}
// 16 + 8 + 2 = 26 bytes
macro_rules! metadata {
    () => {
        concat!(
            report_id!(),       // report_id
            "0000000000072f40", // time: 470,848
            "[0000]",           // public_extensions: none
        )
    };
}
// 16 + 8 + 12 = 36 bytes
macro_rules! extended_metadata {
    () => {
        concat!(
            report_id!(),       // report_id
            "0000000000072f40", // time: 470,848
            "[000a]",           // public_extensions: 4 + 6 = 10
            "ff000000",         // extension_type, extension_data: empty
            "ff010002",
            "abcd", // extension_type, extension_data
        )
    };
}
// 16 + 8 + 5 = 29 bytes. A client may write this; it fails one report.
macro_rules! broken_metadata {
    () => {
        concat!(
            other_report_id!(), // report_id
            "ffffffffffffffff", // time: the last unit
            "[0003]ff00ff",     // public_extensions: cut in the middle of one
        )
    };
}
// 16 + 8 + 2 = 26 bytes
macro_rules! late_metadata {
    () => {
        concat!(
            other_report_id!(), // report_id
            "ffffffffffffffff", // time: the last unit
            "[0000]",           // public_extensions: none
        )
    };
}
// 26 + 6 + 14 = 46 bytes
macro_rules! report_share {
    () => {
        concat!(
            metadata!(),      // report_metadata
            "[00000002]5051", // public_share
            ciphertext!(),    // encrypted_input_share
        )
    };
}
// 26 + 4 + 7 = 37 bytes
macro_rules! empty_report_share {
    () => {
        concat!(
            late_metadata!(),    // report_metadata
            "[00000000]",        // public_share: empty
            empty_ciphertext!(), // encrypted_input_share
        )
    };
}
// 46 + 7 = 53 bytes
macro_rules! verify_init {
    () => {
        concat!(
            report_share!(),    // report_share
            "[00000003]909192", // payload
        )
    };
}
// 37 + 5 = 42 bytes
macro_rules! short_verify_init {
    () => {
        concat!(
            empty_report_share!(), // report_share
            "[00000001]90",        // payload
        )
    };
}
// 26 + 6 + 14 + 7 = 53 bytes
macro_rules! report {
    () => {
        concat!(
            metadata!(),         // report_metadata
            "[00000002]5051",    // public_share
            ciphertext!(),       // leader_encrypted_input_share
            empty_ciphertext!(), // helper_encrypted_input_share
        )
    };
}
// 26 + 4 + 7 + 7 = 44 bytes
macro_rules! empty_report {
    () => {
        concat!(
            late_metadata!(),    // report_metadata
            "[00000000]",        // public_share: empty
            empty_ciphertext!(), // leader_encrypted_input_share
            empty_ciphertext!(), // helper_encrypted_input_share
        )
    };
}
// 16 + 1 + 6 = 23 bytes
macro_rules! verify_resp_continue {
    () => {
        concat!(
            report_id!(),     // report_id
            "00",             // verify_resp_type: continue
            "[00000002]0102", // payload
        )
    };
}
// 16 + 1 = 17 bytes
macro_rules! verify_resp_finish {
    () => {
        concat!(
            other_report_id!(), // report_id
            "01",               // verify_resp_type: finish
        )
    };
}
// 16 + 1 + 1 = 18 bytes
macro_rules! verify_resp_reject {
    ($error:literal) => {
        concat!(
            report_id!(), // report_id
            "02",         // verify_resp_type: reject
            $error,       // report_error
        )
    };
}
// 16 + 6 = 22 bytes
macro_rules! verify_continue {
    () => {
        concat!(
            report_id!(),     // report_id
            "[00000002]0102", // payload
        )
    };
}
// 16 + 5 = 21 bytes
macro_rules! short_verify_continue {
    () => {
        concat!(
            other_report_id!(), // report_id
            "[00000001]01",     // payload
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
            "0001",   // extension_type
            "[0000]", // extension_data: empty
        )
    };
}
// 1 + 2 + 16 = 19 bytes
macro_rules! timed {
    () => {
        concat!(
            "01",        // batch_mode: time_interval
            "[0010]",    // config
            interval!(), // config.batch_interval
        )
    };
}
// 3 bytes
macro_rules! next_batch {
    () => {
        concat!(
            "02",     // batch_mode: leader_selected
            "[0000]", // config: empty
        )
    };
}
// 1 + 2 + 32 = 35 bytes
macro_rules! this_batch {
    () => {
        concat!(
            "02",        // batch_mode: leader_selected
            "[0020]",    // config
            batch_id!(), // config.batch_id
        )
    };
}
// 19 + 4 + 2 = 25 bytes
macro_rules! timed_collection {
    () => {
        concat!(
            timed!(),     // query
            "[00000000]", // agg_param: empty
            "[0000]",     // extensions: none
        )
    };
}
// 3 + 6 + 2 = 11 bytes
macro_rules! selected_collection {
    () => {
        concat!(
            next_batch!(),    // query
            "[00000002]a0a1", // agg_param
            "[0000]",         // extensions: none
        )
    };
}
// 2 + 3 + 3 + 8 + 8 = 24 bytes
macro_rules! task_start {
    () => {
        concat!(
            "[01]66",           // task_info
            "[0001]6c",         // leader_aggregator_endpoint
            "[0001]68",         // helper_aggregator_endpoint
            "0000000000000e10", // time_precision: an hour
            "000000000000000a", // min_batch_size: 10
        )
    };
}
// 24 + 3 = 27 bytes
macro_rules! timed_task {
    () => {
        concat!(
            task_start!(),
            "01",     // batch_mode: time_interval
            "[0000]", // batch_config: empty
        )
    };
}

/// The table. `every_decoder_is_in_its_table` keeps it complete.
pub const TABLE: Table = Table { draft: "v18", messages: MESSAGES };

const MESSAGES: &[Message] = &[
    message!(v18 HpkeCiphertext, ["full": ciphertext!(), "empty": empty_ciphertext!()]),
    message!(v18 Interval, ["two hours": interval!(), "past the last unit": endless!()]),
    message!(v18 Extension, ["full": extension!(), "empty": empty_extension!()]),
    message!(v18 ReportMetadata, [
        "usual": metadata!(),
        "with extensions": extended_metadata!(),
        "late": late_metadata!(),
        "broken extensions are for the report to fail for": broken_metadata!(),
    ]),
    message!(v18 Report, [
        "full": report!(),
        "empty": empty_report!(),
        "with extensions": concat!(
            extended_metadata!(), // report_metadata
            "[00000005]5051525354", // public_share
            ciphertext!(), // leader_encrypted_input_share
            ciphertext!(), // helper_encrypted_input_share
        ),
    ]),
    message!(v18 UploadRequest of [Report: "", 0, ""], [
        "two reports": concat!("|", report!(), "|", empty_report!()),
        "none": "",
    ]),
    message!(v18 ReportUploadStatus, [
        "report_replayed": concat!(
            report_id!(), // report_id
            "02", // error
        ),
        "outdated_config": concat!(
            other_report_id!(), // report_id
            "0b", // error
        ),
    ]),
    message!(v18 UploadErrors of [ReportUploadStatus: "", 0, ""], [
        "two reports": concat!("|", report_id!(), "02|", other_report_id!(), "0b"),
        "none": "",
    ]),
    message!(v18 PlaintextInputShare of [Extension: "", 2, "0000000101"], [
        "two extensions": concat!(
            "[000a]", empty_extension!(), extension!(), // private_extensions: 4 + 6 = 10
            "[00000003]010203", // payload
        ),
        "the same extension twice is for the report to fail for": concat!(
            "[000c]", extension!(), extension!(), // private_extensions: 6 + 6 = 12
            "[00000003]010203", // payload
        ),
        "no extension": concat!(
            "[0000]", // private_extensions: none
            "[00000001]01", // payload
        ),
    ]),
    message!(v18 ReportShare, ["full": report_share!(), "empty": empty_report_share!()]),
    message!(v18 VerifyInit, ["full": verify_init!(), "short": short_verify_init!()]),
    message!(v18 AggregationJobInitReq of [
        Extension: "0000000000", 2, "";
        VerifyInit: "00000000000000", 0, "";
    ], [
        "time interval, two reports": concat!(
            "00", // verification_key_id
            "[00000000]", // agg_param: empty
            "[0000]", // extensions: none
            "|", verify_init!(), "|", short_verify_init!(), // verify_inits
        ),
        "leader-selected, one report": concat!(
            "00", // verification_key_id
            "[00000002]a0a1", // agg_param
            "[0024]", // extensions: 2 + 2 + 32 = 36
            "0001", // extension_type: leader_selected_batch_id
            "[0020]", batch_id!(), // extension_data
            "|", verify_init!(), // verify_inits
        ),
        "unknown extensions are for the job to refuse": concat!(
            "ff", // verification_key_id
            "[00000000]", // agg_param: empty
            "[000a]", extension!(), empty_extension!(), // extensions: 6 + 4 = 10
            "|", short_verify_init!(), // verify_inits
        ),
    ]),
    message!(v18 VerifyResp, [
        "continue": verify_resp_continue!(),
        "finish": verify_resp_finish!(),
        "batch_collected": verify_resp_reject!("01"),
        "report_replayed": verify_resp_reject!("02"),
        "report_dropped": verify_resp_reject!("03"),
        "hpke_unknown_config_id": verify_resp_reject!("04"),
        "hpke_decrypt_error": verify_resp_reject!("05"),
        "vdaf_verify_error": verify_resp_reject!("06"),
        "task_expired": verify_resp_reject!("07"),
        "invalid_message": verify_resp_reject!("08"),
        "report_too_early": verify_resp_reject!("09"),
        "task_not_started": verify_resp_reject!("0a"),
        "outdated_config": verify_resp_reject!("0b"),
    ]),
    message!(v18 AggregationJobResp of [VerifyResp: "", 0, ""], [
        "all types": concat!(
            "|", verify_resp_continue!(),
            "|", verify_resp_finish!(),
            "|", verify_resp_reject!("08"),
        ),
        "none": "",
    ]),
    message!(v18 VerifyContinue, ["full": verify_continue!(), "short": short_verify_continue!()]),
    message!(v18 AggregationJobContinueReq of [VerifyContinue: "0001", 0, ""], [
        "two reports": concat!(
            "0001", // step: 1
            "|", verify_continue!(), "|", short_verify_continue!(), // verify_continues
        ),
        "step 0 is for the job to refuse": concat!(
            "0000", // step: 0
            "|", short_verify_continue!(), // verify_continues
        ),
    ]),
    message!(v18 Query, [
        "time interval": timed!(),
        "past the last unit": concat!("01[0010]", endless!()),
        "leader-selected": next_batch!(),
    ]),
    message!(v18 CollectionJobReq of [Extension: "02000000000000", 2, ""], [
        "time interval": timed_collection!(),
        "leader-selected": selected_collection!(),
        "extensions are for its receiver to refuse": concat!(
            next_batch!(), // query
            "[00000000]", // agg_param: empty
            "[000c]", extension!(), extension!(), // extensions: 6 + 6 = 12
        ),
    ]),
    message!(v18 CollectionJobResp, [
        "full": concat!(
            "0000000000000064", // report_count: 100
            interval!(), // interval
            ciphertext!(), // leader_encrypted_agg_share
            ciphertext!(), // helper_encrypted_agg_share
        ),
        "empty": concat!(
            "ffffffffffffffff", // report_count
            endless!(), // interval
            empty_ciphertext!(), // leader_encrypted_agg_share
            empty_ciphertext!(), // helper_encrypted_agg_share
        ),
    ]),
    message!(v18 BatchSelector, [
        "time interval": timed!(),
        "past the last unit": concat!("01[0010]", endless!()),
        "leader-selected": this_batch!(),
    ]),
    message!(v18 AggregateShareReq of [
        Extension: "02000000000000", 2, concat!(
            "020020", batch_id!(), "0000000000000064", checksum!(),
        );
    ], [
        "time interval": concat!(
            timed_collection!(), // collection_job_req
            timed!(), // batch_selector
            "0000000000000064", // report_count: 100
            checksum!(), // checksum
        ),
        "time interval, of which the leader leaves the second hour out": concat!(
            timed_collection!(), // collection_job_req
            "01", // batch_selector.batch_mode: time_interval
            "[0010]", // batch_selector.config
            "0000000000072f40", // batch_selector.config.start: 470,848
            "0000000000000001", // batch_selector.config.duration: 1
            "0000000000000064", // report_count: 100
            checksum!(), // checksum
        ),
        "leader-selected": concat!(
            selected_collection!(), // collection_job_req
            this_batch!(), // batch_selector
            "ffffffffffffffff", // report_count
            checksum!(), // checksum
        ),
    ]),
    message!(v18 AggregateShare, [
        "full": ciphertext!(), // encrypted_aggregate_share
        "empty": empty_ciphertext!(), // encrypted_aggregate_share
    ]),
    message!(v18 TaskConfiguration of [
        Extension: concat!("016600016c000168", "0000000000000e10000000000000000a", "010000", "000000010000"), 2, "";
    ], [
        "count": concat!(
            "[06]666f6f626172", // task_info: foobar
            "[0014]68747470733a2f2f6578616d706c652e636f6d2f", // leader: https://example.com/
            "[001c]68747470733a2f2f616e6f746865722e6578616d706c652e636f6d2f", // helper: https://another.example.com/
            "0000000000000e10", // time_precision: an hour
            "0000000000000064", // min_batch_size: 100
            "02", // batch_mode: leader_selected
            "[0000]", // batch_config: empty
            "00000001", // vdaf_type: Prio3Count
            "[0000]", // vdaf_configuration: empty
            "[0000]", // extensions: none
        ),
        "sum, for some hours": concat!(
            timed_task!(),
            "00000002", // vdaf_type: Prio3Sum
            "[0008]00000000000000ff", // vdaf_configuration: max_measurement
            "[0014]", // extensions: 2 + 2 + 16 = 20
            "0001", // extension_type: task_interval
            "[0010]", interval!(), // extension_data
        ),
        "vector": concat!(
            timed_task!(),
            "00000003", // vdaf_type: Prio3SumVec
            "[0010]", // vdaf_configuration
            "0000000c", // length
            "000000000000000f", // max_measurement
            "0000000e", // chunk_length
            "[0000]", // extensions: none
        ),
        "histogram": concat!(
            timed_task!(),
            "00000004", // vdaf_type: Prio3Histogram
            "[0008]", // vdaf_configuration
            "0000000a", // length
            "00000004", // chunk_length
            "[0000]", // extensions: none
        ),
        "multihot": concat!(
            timed_task!(),
            "00000005", // vdaf_type: Prio3MultihotCountVec
            "[0010]", // vdaf_configuration
            "0000000a", // length
            "00000004", // chunk_length
            "0000000000000003", // max_weight
            "[0000]", // extensions: none
        ),
        "strings": concat!(
            timed_task!(),
            "00000006", // vdaf_type: Poplar1
            "[0002]0100", // vdaf_configuration: bits
            "[0000]", // extensions: none
        ),
        "several proofs": concat!(
            timed_task!(),
            "ffff1003", // vdaf_type: Prio3SumVecField64MultiproofHmacSha256Aes128
            "[0011]", // vdaf_configuration
            "0000000c", // length
            "000000000000000f", // max_measurement
            "0000000e", // chunk_length
            "02", // proofs
            "[0000]", // extensions: none
        ),
        "all unknown": concat!(
            task_start!(),
            "01", // batch_mode: time_interval,
            "[0001]aa", // batch_config: which that mode does not have
            "00000002", // vdaf_type: Prio3Sum
            "[0009]00000000000000ff00", // vdaf_configuration: with a byte too much
            "[000c]", extension!(), extension!(), // extensions: 6 + 6 = 12
        ),
        "a weight beyond all lengths": concat!(
            task_start!(),
            "63", // batch_mode: unknown
            "[0000]", // batch_config: empty
            "00000005", // vdaf_type: Prio3MultihotCountVec
            "[0010]0000000a000000040000000100000000", // vdaf_configuration
            "[0000]", // extensions: none
        ),
    ]),
];
