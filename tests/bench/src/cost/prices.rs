//! What the platform asks for, from one dated file.

use serde::{Deserialize, Serialize};

/// The list prices that the figures of this repository are computed from.
const LIST: &str = include_str!("../../prices.json");

/// List prices of a month, in US$.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The day on which they were read, `YYYY-MM-DD`.
    pub as_of: String,
    /// What they are the prices of.
    pub what: String,
    /// Where they are published.
    pub sources: Vec<String>,
    /// Of the plan by itself.
    pub plan_per_month: f64,
    /// Requests that come in from outside; those to objects are not among them.
    pub worker_requests: Tariff,
    /// Milliseconds of CPU of the Worker. An object's CPU is not billed, its time is.
    pub worker_cpu_ms: Tariff,
    /// Requests to objects, runs of alarms among them.
    pub object_requests: Tariff,
    /// Seconds in which objects have something to do, times [`Prices::object_memory_gb`].
    pub object_gb_seconds: Tariff,
    /// Rows that statements read.
    pub rows_read: Tariff,
    /// Rows that statements write or delete; setting an alarm is one.
    pub rows_written: Tariff,
    /// GB of objects' databases, over a whole month.
    pub object_storage_gb: Tariff,
    /// Reads of KV.
    pub kv_reads: Tariff,
    /// Lines of the log that are kept.
    pub log_events: Tariff,
    /// The memory that an object is billed for, whatever it uses, in GB.
    pub object_memory_gb: f64,
}

/// What one thing costs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tariff {
    /// So much of it a month costs nothing more.
    pub included: f64,
    /// US$ for each [`Tariff::per`] beyond.
    pub price: f64,
    /// See [`Tariff::price`].
    pub per: f64,
}

impl Tariff {
    /// US$ for so much in a month.
    pub fn bill(&self, quantity: f64) -> f64 {
        (quantity - self.included).max(0.0) / self.per * self.price
    }
}

impl Prices {
    /// Those of the repository's file.
    ///
    /// # Errors
    /// What is wrong with that file.
    pub fn listed() -> Result<Self, String> {
        Self::parse(LIST)
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let prices: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let tariffs = [
            prices.worker_requests,
            prices.worker_cpu_ms,
            prices.object_requests,
            prices.object_gb_seconds,
            prices.rows_read,
            prices.rows_written,
            prices.object_storage_gb,
            prices.kv_reads,
            prices.log_events,
        ];
        let sound = |t: &Tariff| t.included >= 0.0 && t.price >= 0.0 && t.per > 0.0;
        if tariffs.iter().all(sound) && prices.plan_per_month >= 0.0 {
            Ok(prices)
        } else {
            Err("a price or an included quantity is negative, or a price is for none".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_included_costs_nothing_and_only_the_rest_does() {
        let tariff = Tariff { included: 10e6, price: 0.30, per: 1e6 };
        assert_eq!(tariff.bill(0.0), 0.0);
        assert_eq!(tariff.bill(10e6), 0.0);
        assert!((tariff.bill(12e6) - 0.60).abs() < 1e-9);
    }

    #[test]
    fn the_list_of_the_repository_is_read_and_a_price_for_nothing_is_not() {
        assert_eq!(Prices::listed().expect("a sound list").plan_per_month, 5.0);
        let broken = LIST.replacen("\"per\": 1e6", "\"per\": 0", 1);
        assert!(Prices::parse(&broken).is_err());
        assert!(Prices::parse("{}").is_err());
    }
}
