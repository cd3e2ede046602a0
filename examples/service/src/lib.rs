//! The interface of the service `visits`, for its node and its clients.
//!
//! `thrift -I THRIFTY_P2P/thrift -out src/gen --gen rs visits.thrift` generates the stubs.

// Generated code expects what its interface includes at the root of the crate.
pub use thrifty_p2p::locator;

#[path = "gen/visits.rs"]
#[allow(warnings, clippy::all)]
pub mod visits;
