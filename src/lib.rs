//! thrifty-p2p: a flat peer-to-peer location service over Thrift RPC.

pub mod cli;
pub mod client;
pub mod discover;
pub mod endpoint;
pub mod error;
pub mod handler;
pub mod hash_ring;
pub mod location;
pub mod membership;
pub mod node;
pub mod rpc;
pub mod shutdown;
pub mod side_by_side;
pub mod status;
pub mod store;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, clippy::all)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, clippy::all)]
pub mod locator;
