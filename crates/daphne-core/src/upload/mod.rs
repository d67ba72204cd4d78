//! Upload: a client splits its measurement and seals one share for each aggregator. DAP-09 §4.4, DAP-18 §4.4.

pub mod client;
