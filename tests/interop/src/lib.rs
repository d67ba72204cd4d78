//! The Worker and the codecs of the core beside other implementations of DAP-09: what they share.
