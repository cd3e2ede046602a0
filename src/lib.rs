//! thrifty-p2p: a flat peer-to-peer location service over Thrift RPC.

pub mod location;
pub mod membership;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, dead_code)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, dead_code)]
pub mod locator;
