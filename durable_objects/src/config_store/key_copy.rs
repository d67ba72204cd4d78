//! The copy of all HPKE keys in KV, which Workers read. Nobody else writes it.
//!
//! Changes come while an earlier one is being written, and KV may let the earlier write win. So whoever has written looks
//! whether there is something newer by then, and writes that, too: the write that ends last is of the newest keys.

use std::{cell::Cell, time::Duration};

use daphne_core::{
    store::StoreResult,
    time::{Duration as Lifetime, Time},
};
use storage_proxy::config;
use worker::{Delay, Env, console_error};

use crate::alarm::now;

/// KV takes one write of an entry a second.
const BETWEEN_WRITES: Duration = Duration::from_millis(1_100);
/// Tries after a change. A copy that stays old expires, or is replaced when a Worker says that it is.
const TRIES: u32 = 3;
/// Workers may read an older copy for so long after a write.
const SEEN_AFTER: Lifetime = Lifetime::from_seconds(60);

/// What this object wrote last in its life in memory: how new, and when.
#[derive(Default)]
pub struct KeyCopy(Cell<Option<(u64, Time)>>);

impl KeyCopy {
    /// Brings the copy up to `newest`, a look at what is stored; it is written again if a Worker says that it is lost.
    pub async fn write(
        &self,
        env: &Env,
        newest: impl Fn() -> StoreResult<Option<(u64, Vec<u8>)>>,
        is_lost: bool,
    ) {
        // Clients wait for the Worker that met no copy.
        let mut tries = if is_lost { 1 } else { TRIES };
        loop {
            let (revision, records) = match newest() {
                Ok(Some(newest)) => newest,
                // A deployment that is being set up makes its first key any moment now.
                Ok(None) => return,
                Err(why) => return console_error!("keys could not be copied: {why}"),
            };
            let is_there = self.0.get().is_some_and(|(written, at)| {
                written == revision && (!is_lost || now() < at.saturating_add(SEEN_AFTER))
            });
            if is_there {
                return;
            }
            match config::keys::copy(env, &records).await {
                Ok(()) => self.0.set(Some((revision, now()))),
                Err(why) => {
                    tries -= 1;
                    if tries == 0 {
                        return console_error!("keys could not be copied to KV: {why}");
                    }
                    Delay::from(BETWEEN_WRITES).await;
                }
            }
        }
    }
}
