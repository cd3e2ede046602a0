//! A flat peer-to-peer location service over Thrift, and a replicated key-value
//! store on it.
//!
//! Every node knows every node, and consistent hashing tells which of them a key
//! belongs to. The programs `location` and `storeserver` run nodes; this library is
//! all of them, for services of your own: see [`handler`] for how to extend it.
//!
//! # The life of one `get`
//!
//! 1. A client connects to any node of a store. [`rpc::server`] gives the connection
//!    a thread. What came whole it answers from bytes to bytes ([`rpc::shortcut`],
//!    [`store::by_hand`]); all other calls it hands to the generated processor, which
//!    calls [`store::handler`].
//! 2. The key becomes a point: the first four bytes of its md5 ([`hash_ring::point`]).
//! 3. The moves ([`store::moves`]) tell which ring is read by: the current one at
//!    rest; while keys are on their way, the one before, where they still are. Its
//!    first node past the point owns the key.
//! 4. If that is this node, its table ([`store::table`]) has the answer.
//! 5. If not, [`store::operations`] asks the owner over a kept connection
//!    ([`rpc::client`]), as an owner in that ring. One that is not entitled to answer
//!    refuses, and the next owner is asked: each has every acknowledged write.
//! 6. If an owner cannot be reached, membership hears of it at once
//!    ([`node::Node::unreachable`]) and finds out whether it is down.
//!
//! # Map
//!
//! Bottom-up; imports only go down.
//!
//! | modules | what they are |
//! |---|---|
//! | [`location`], [`hash_ring`], [`error`], `trust`, [`shutdown`], [`side_by_side`] | addresses, the ring, what can go wrong, with TLS in words of its own, small tools |
//! | [`membership`] | pure: who is in, decided without sockets, clocks and threads |
//! | [`rpc`] | the sockets: calls, kept connections, the server, TLS |
//! | [`endpoint`], [`discover`] | a claimed port and the address to announce; port knocking |
//! | [`node`] | the driver of membership, with one lock and a few threads |
//! | [`handler`] | what users extend, and `serve` |
//! | [`store`] | diststore: tables, views and moves that decide; operations and handler around them |
//! | [`client`], [`bulk`], [`status`], [`cli`] | for the programs: a store's clients, files of pairs, the network at a glance, options |
//! | [`load`] | threads that call a store, or anything else, and reports of what came of it |
//! | [`locator`], [`diststore`] | stubs generated from `thrift/`, never edited |
//!
//! # Limits
//!
//! Everything is bounded: connections and messages ([`rpc::server::Limits`]), keys,
//! values and memory ([`store::limits`]), members and calls under way
//! ([`membership::Settings`]), and every wait. Nothing is written to disk. Without
//! an [identity](rpc::identity), whoever can connect can call nearly everything; with
//! one, whoever has a certificate of the network's CA.

pub mod bulk;
pub mod cli;
pub mod client;
pub mod discover;
pub mod endpoint;
pub mod error;
pub mod handler;
pub mod hash_ring;
pub mod load;
pub mod location;
pub mod membership;
pub mod node;
pub mod rpc;
pub mod shutdown;
pub mod side_by_side;
pub mod status;
pub mod store;
mod trust;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, clippy::all)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, clippy::all)]
pub mod locator;
