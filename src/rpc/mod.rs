//! Thrift calls over sockets: the server, and the four ways to call other nodes.
//!
//! Messages use Thrift's binary protocol on an unframed, buffered stream, as the original
//! does: strict headers are written, strict and old ones are read. The stream is plain TCP
//! or, with an [identity](tls::identity), TLS.
//!
//! Calls between nodes have four forms: [`dialer`] (one connection for each call), [`pool`]
//! (kept connections), [`fanout`] (one call to each of several peers at once) and
//! [`batcher`] (calls of many threads to one peer, sent together).
//!
//! An incoming call passes `server` → `dispatch` → [`fast_path`] or the generated processor, which
//! reads it through `arguments`. `other_protocol` answers clients that speak something else.
//! Below, `message` limits the size and time of messages, and `stream` is TCP or TLS. While the
//! link to a peer is cut, pools reach it by way of another one (`tunnel`).

mod arguments;
pub mod batcher;
mod connections;
pub mod dialer;
pub mod dispatch;
pub mod fanout;
pub mod fast_path;
pub mod limits;
mod linger;
mod message;
pub mod method_times;
mod other_protocol;
pub mod pool;
pub mod server;
pub(crate) mod server_state;
pub(crate) mod stats;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod tunnel;
