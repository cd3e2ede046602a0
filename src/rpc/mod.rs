//! Calls and the server of calls: the sockets of all nodes and clients. (Only the bare
//! echo that loads are compared with, [`crate::load::echo`], opens its own.)
//!
//! Messages are Thrift's binary protocol on an unframed, buffered stream, as the
//! original speaks it: strict headers are written, strict and old ones are read. The
//! stream is TCP as it is or, for those who were given an [`identity`], TLS.

mod acceptor;
pub mod by_hand;
pub(crate) mod bytes;
mod channel;
pub mod client;
mod complaints;
mod connection;
mod courtesy;
mod crowd;
mod delivery;
pub mod identity;
pub mod lanes;
pub mod links;
pub mod server;
mod session;
pub mod several;
pub mod shortcut;
pub mod traffic;
mod turn;
