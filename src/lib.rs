//! thrifty-p2p: a flat peer-to-peer location service over Thrift RPC.

pub mod error;
pub mod hash_ring;
pub mod location;
pub mod rpc;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, clippy::all)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, clippy::all)]
pub mod locator;
