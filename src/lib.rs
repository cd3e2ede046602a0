//! thrifty-p2p: a flat peer-to-peer location service over Thrift RPC.

pub mod hash_ring;
pub mod location;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, dead_code)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, dead_code)]
pub mod locator;
