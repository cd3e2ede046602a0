//! A flat peer-to-peer location service over Thrift, and a replicated key-value store on it.
//!
//! Every node knows every node, and consistent hashing tells which of them a key belongs to.
//! The programs `location` and `storeserver` run nodes. This library contains all of them, for
//! services of your own: [`cli::run_service`] and [`handler`] for how to extend it, `examples/service`
//! for a whole one, and the [`guide`] for how to run it. A client of a store:
//!
//! ```no_run
//! fn main() -> Result<(), thrifty_p2p::error::Error> {
//!     let store = thrifty_p2p::client::ring::RingClient::connect(&"localhost:9900".parse()?)?;
//!     store.put(b"b", b"banana")?;
//!     assert_eq!(store.get(b"b")?, Some(b"banana".to_vec()));
//!     Ok(())
//! }
//! ```
//!
//! # The life of a `fetch`
//!
//! A client calls `fetch` at a node that does not hold the key. Each step names its file.
//!
//! 1. `rpc/dispatch.rs`: the connection's thread waits for the call. `rpc/message.rs` limits
//!    its size and time, over TCP or TLS (`rpc/stream.rs`).
//! 2. `store/fast_path.rs` recognizes a complete `fetch` in the buffer and decodes it. Any other
//!    call goes to the generated code and `store/handler.rs`.
//! 3. `store/read.rs` loads the current [routing](store::rebalance::Routing) snapshot
//!    (`store/rebalance/routing.rs`). It names the placement that reads use: the current one
//!    at rest; during a rebalance the one before, where all keys still are.
//! 4. `store/placement.rs` computes the key's point, the first four bytes of its md5, and its
//!    owners: the first nodes past the point on the ring (`hash_ring.rs`), of distinct zones if they
//!    have any. If this node were the first, its table (`store/table.rs`) would answer.
//! 5. `store/remote_read.rs` asks the first owner (`store/owner_calls.rs`). `rpc/batcher.rs`
//!    sends the request at once or, while a call is in flight, together with those of other
//!    threads. `rpc/fanout.rs` calls it over a kept connection (`rpc/pool.rs`).
//! 6. The owner takes the same steps 1 to 3, checks that it may answer for that placement, and
//!    answers from its table. If what it has is the copy of a write that is not finished, it
//!    waits for the end of that (`store/unfinished_copies.rs`). Another owner is asked only when
//!    the first one is known to be gone. Only beside nodes of the original is the one that the
//!    key belongs to asked too (`store/legacy/calls.rs`).
//!
//! # The life of a `write`
//!
//! 1. `rpc/dispatch.rs` hands the call to the generated code, which calls `store/handler.rs`.
//!    `store/wire.rs` converts the structs.
//! 2. `store/write.rs` gives the write an id (`store/recent_writes.rs`) and looks up the key's
//!    primary in the routing snapshot (`store/rebalance/routing.rs`, `store/placement.rs`,
//!    `hash_ring.rs`). `store/forwarder.rs` sends it there together with other writes.
//! 3. At the primary, `store/primary.rs` takes over: `store/write_locks.rs` locks the key, a write
//!    that is known by its id is answered, `store/read.rs` reads the latest version, and
//!    `store/key_writes.rs` makes a larger one. `store/limits.rs` checks the room.
//! 4. `store/replicator.rs` sends copies to all owners in all placements of the list, through
//!    `store/owner_calls.rs`, `rpc/batcher.rs` and `rpc/fanout.rs`. Each owner applies them to
//!    its table (`store/table.rs`) and does not show them yet.
//! 5. When all owners have it, the primary applies the write and acknowledges it. What an owner
//!    holds up goes on in `store/finisher.rs`.
//!
//! # Map
//!
//! Bottom-up. Imports only go down.
//!
//! | modules | contents |
//! |---|---|
//! | [`location`] | addresses, which are the names of nodes |
//! | [`hash_ring`] | the ring: who owns a key |
//! | [`error`] | errors by their meaning for the caller |
//! | [`shutdown`] | the request to stop, and the wait for it |
//! | [`parallel`] | several calls at the same time |
//! | [`plural`] | numbers with their nouns |
//! | [`membership`] | pure: who is a member, decided without sockets, clocks or threads |
//! | [`retry`] | pauses with jitter |
//! | [`rpc`] | sockets: the server, TLS, the four forms of calls to other nodes |
//! | [`endpoint`] | a claimed port and the advertised address |
//! | [`discover`] | finding a peer on this host |
//! | [`node`] | drives the membership, with one lock and a few threads |
//! | [`http`] | what a node shows by HTTP: the page, metrics, health |
//! | [`handler`] | what users extend, and `serve` |
//! | [`store`] | diststore: the table, the placement and the rebalance that decide; reads, writes and threads around them |
//! | [`client`] | clients of a store |
//! | [`bulk`] | files of pairs, into a store and out of it |
//! | [`status`] | a network and a store at a glance |
//! | [`cli`] | what programs share: options, log, signals, exit statuses |
//! | [`locator`], [`diststore`] | stubs generated from `thrift/`, never edited |
//! | [`guide`] | how to run it, how it behaves, how it is built |
//!
//! # Limits
//!
//! Everything is bounded: connections and messages ([`rpc::limits`]), keys, values and memory
//! ([`store::limits`]), members and calls in flight ([`membership::config`]), and every wait.
//! Nothing is written to disk unless a store has a data directory ([`store::durable`]). Without an
//! [identity](rpc::tls::identity), everyone who can
//! connect can call nearly everything; with one, everyone who has a certificate of the
//! network's CA.

pub mod bulk;
pub mod cli;
pub mod client;
pub mod discover;
pub mod endpoint;
pub mod error;
pub mod guide;
pub mod handler;
pub mod hash_ring;
pub mod http;
pub mod location;
mod log_limit;
pub mod membership;
pub mod node;
pub mod parallel;
pub mod plural;
pub mod retry;
pub mod rpc;
pub mod shutdown;
pub mod status;
pub mod store;

#[path = "gen/diststore.rs"]
#[allow(missing_docs, clippy::all)]
pub mod diststore;
#[path = "gen/locator.rs"]
#[allow(missing_docs, clippy::all)]
pub mod locator;
