//! An object's one alarm, armed for the earliest of what it is wanted for, and the end of an object.

use std::cell::Cell;

use daphne_core::{
    store::{StoreError, StoreResult},
    time::Time,
};
use worker::{Date, ScheduledTime, State, js_sys};

/// The beginning of 2189: the runtime refuses alarms after that year.
const LATEST_MS: u64 = 6_911_136_000_000;

/// The clock.
pub fn now() -> Time {
    Time::from_seconds(Date::now().as_millis() / 1_000)
}

/// The alarm of an object.
pub struct Alarm {
    state: State,
    armed_for: Cell<Option<Time>>,
}

impl Alarm {
    /// The alarm of the object whose state this is. Reads nothing yet.
    pub fn new(state: State) -> Self {
        Self { state, armed_for: Cell::new(None) }
    }

    /// The object's state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// It has gone off, so it is not armed any more.
    pub fn rang(&self) {
        #[cfg(feature = "test-routes")]
        crate::meter::alarm();
        self.armed_for.set(None);
    }

    /// Does what a state machine asks of its host: wakes it at `wake` or earlier, or erases all that is stored, and
    /// calls `erased`.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn follow(
        &self,
        wake: Option<Time>,
        erase: bool,
        erased: impl FnOnce(),
    ) -> StoreResult<()> {
        let failed = |e: worker::Error| StoreError(format!("the alarm: {e}"));
        let storage = self.state.storage();
        if erase {
            // Takes the alarm with it.
            self.armed_for.set(None);
            erased();
            return storage.delete_all().await.map_err(failed);
        }
        let Some(wake) = wake else { return Ok(()) };
        if self.armed_for.get().is_some_and(|armed| armed <= wake) {
            return Ok(());
        }
        let armed = storage.get_alarm().await.map_err(failed)?;
        let armed = armed.and_then(|ms| u64::try_from(ms / 1_000).ok()).map(Time::from_seconds);
        // Setting an alarm bills a row, and setting it again would put it off.
        if armed.is_none_or(|armed| armed > wake) {
            // What is due later than that is looked at then.
            let ms = wake.as_seconds().saturating_mul(1_000).min(LATEST_MS) as f64;
            let at = ScheduledTime::new(js_sys::Date::new(&ms.into()));
            storage.set_alarm(at).await.map_err(failed)?;
            #[cfg(feature = "test-routes")]
            crate::meter::alarm_set();
            self.armed_for.set(Some(wake));
        } else {
            self.armed_for.set(armed);
        }
        Ok(())
    }
}
