//! Collection: the leader asks the helper for its aggregate share, the collector puts both together.
//! DAP-09 §4.6, DAP-18 §4.6.

pub mod collector;
pub mod heavy_hitters;
pub mod helper;
