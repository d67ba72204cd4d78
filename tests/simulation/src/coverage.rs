//! What happened in the schedules: operations, events inside the protocol, and faults, counted.

use std::fmt;

macro_rules! events {
    ($($group:literal { $($name:ident => $label:literal),+ $(,)? })+) => {
        /// Something that a schedule can contain.
        #[allow(missing_docs, reason = "the labels say what they are")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($($name),+),+ }

        impl Event {
            /// All events.
            pub const ALL: &[Self] = &[$($(Self::$name),+),+];
        }

        const EVENTS: &[(&str, &str)] = &[$($(($group, $label)),+),+];
    };
}

events! {
    "operation" {
        Upload => "reports uploaded",
        Job => "jobs sent",
        JobRepeat => "jobs sent again, same bytes",
        TwoBodies => "jobs sent under an id with another body",
        SharedJob => "jobs sent by two who do not know of each other",
        RacingJob => "jobs sent while a collection runs",
        LateJob => "jobs sent after the collections",
        ReplayOtherJob => "reports replayed in another job",
        ReplayOtherBatch => "reports replayed in another batch",
        ReplayOtherTask => "reports replayed from another task",
        Tidying => "DELETE of a finished job",
        Abandonment => "DELETE of an abandoned job",
        Resubmission => "reports sent again under a new job id",
        Cheating => "collections by a leader that cheats",
        RightCollection => "collections by a careful leader",
        EagerCollection => "collections while jobs are under way",
        WrongCount => "collections with a wrong count",
        WrongChecksum => "collections with a wrong checksum",
        BadInterval => "collections of an unaligned interval",
        CollectionRepeat => "collections sent again, same bytes",
        ShareFetched => "shares fetched where they are kept",
        KeyRotation => "HPKE key rotations",
        StoreAlarm => "alarms of stores",
        Packing => "jobs packed",
        Expiry => "stores and epochs forgotten",
    }
    "protocol" {
        Collected => "collections decided",
        BatchMismatch => "refused: batchMismatch",
        BatchOverlap => "refused: batchOverlap",
        BatchSize => "refused: invalidBatchSize",
        BatchInvalid => "refused: batchInvalid",
        Conflict => "refused: job id has another body",
        Unavailable => "503",
        ReportCollected => "report refused: batch_collected",
        ReportReplayed => "report refused: report_replayed",
        ReportEarly => "report refused: report_too_early",
        ReportDropped => "report refused: report_dropped",
        ReportExpired => "report refused: task_expired",
        ReportUndecryptable => "report refused: hpke_decrypt_error",
        ReportMalformed => "report refused: invalid_message",
        StoreBirth => "store: not open",
        CommitMetFreeze => "store: busy",
        StoreReplayed => "store: replayed",
        StoreCollected => "store: collected",
        FreezeMoved => "store: moved",
        FreezeStale => "store: stale",
        Readmission => "store: a deleted job's report readmitted",
        Exclusion => "collections that left jobs out",
        Choice => "collections that looked at jobs one by one",
    }
    "fault" {
        Reorder => "message overtakes another",
        LoseRequest => "request lost",
        LoseAnswer => "answer lost",
        GiveUp => "caller gives up, message travels on",
        Duplicate => "message duplicated",
        Delay => "message travels very long",
        WorkerDeath => "Worker dies",
        LedgerReset => "ledger reset",
        LedgerCrashBefore => "ledger dies before its transaction",
        LedgerCrashAfter => "ledger dies after its transaction",
        StoreCrashBefore => "store dies before its transaction",
        StoreCrashAfter => "store dies after its transaction",
        JobStoreCrashBefore => "job store dies before its transaction",
        JobStoreCrashAfter => "job store dies after its transaction",
        Eviction => "store evicted",
        ClockStep => "clock steps",
        LockExpiry => "ledger's lock expires while it works",
        ClockBehind => "Worker with a clock that is behind",
        StaleKeys => "Worker with keys from before a rotation",
        EarlyAlarm => "alarm while messages travel",
        Alarm => "alarm when all is quiet",
    }
}

/// How often each event happened, and in how many schedules.
#[derive(Clone, Debug)]
pub struct Coverage {
    times: [u64; EVENTS.len()],
    schedules: [u64; EVENTS.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self { times: [0; EVENTS.len()], schedules: [0; EVENTS.len()] }
    }
}

impl Coverage {
    /// Counts an event of one schedule.
    pub fn count(&mut self, event: Event) {
        self.count_many(event, 1);
    }

    /// Counts several.
    pub fn count_many(&mut self, event: Event, n: u64) {
        let n = n + self.times[event as usize];
        self.times[event as usize] = n;
        self.schedules[event as usize] = u64::from(n > 0);
    }

    /// How often an event happened.
    pub fn times(&self, event: Event) -> u64 {
        self.times[event as usize]
    }

    /// Adds what happened in other schedules.
    pub fn merge(&mut self, other: &Self) {
        for n in 0..EVENTS.len() {
            self.times[n] += other.times[n];
            self.schedules[n] += other.schedules[n];
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        for (n, (of, label)) in EVENTS.iter().enumerate() {
            if *of != group {
                group = of;
                writeln!(f, "{group:<44} {:>14} {:>14}", "times", "schedules")?;
            }
            let (times, schedules) = (self.times[n], self.schedules[n]);
            writeln!(f, "  {label:<42} {times:>14} {schedules:>14}")?;
        }
        Ok(())
    }
}
