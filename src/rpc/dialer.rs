//! `Dialer`: calls to other nodes, one connection for each.
//!
//! A legacy node serves one connection to its end before it accepts the next: an idle
//! connection to it would lock out all others. So `call` connects, calls and closes. Only a
//! caller that knows its peer keeps connections open ([`Pool`](crate::rpc::pool::Pool)).

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Error;
use crate::location::Location;
use crate::locator::{LocatorSyncClient, TLocatorSyncClient};
use crate::rpc::message::client_protocols;
use crate::rpc::stream::Stream;
use crate::rpc::tls::identity::Identity;

pub use crate::rpc::message::{Input, Output, limits};

/// How long a call may block.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For connecting.
    pub connect: Duration,
    /// For sending the request, and again for receiving the complete reply. With TLS, also
    /// for the handshake.
    pub reply: Duration,
}

impl Timeouts {
    /// The timeouts to connect and for the reply, in milliseconds.
    pub const fn of_millis(connect: u64, reply: u64) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(connect),
            reply: Duration::from_millis(reply),
        }
    }
}

impl Default for Timeouts {
    /// 1 s to connect and 10 s for the reply: the peer may have to call others first.
    fn default() -> Timeouts {
        Timeouts::of_millis(1_000, 10_000)
    }
}

/// Connects to `location` without TLS, makes the calls of `body` and closes. With TLS use
/// [`Dialer::call`].
///
/// `client` is the constructor of a generated client, for example `StoreSyncClient::new`.
/// Blocks for [`Timeouts::default`] at most, for each call.
///
/// # Errors
/// See [`Error`]; it names the location.
///
/// ```no_run
/// use thrifty_p2p::locator::{LocatorSyncClient, TLocatorSyncClient};
/// use thrifty_p2p::rpc::dialer::call;
///
/// let peer = "127.0.0.1:9900".parse()?;
/// let owner = call(LocatorSyncClient::new, &peer, |client| client.get_node(b"a".to_vec()))?;
/// println!("a belongs to {owner:?}");
/// # Ok::<(), thrifty_p2p::error::Error>(())
/// ```
pub fn call<C, T>(
    client: impl FnOnce(Input, Output) -> C,
    location: &Location,
    body: impl FnOnce(&mut C) -> thrift::Result<T>,
) -> Result<T, Error> {
    Dialer::default().call(client, location, body)
}

/// Opens connections: plain by default, over TLS with an identity.
///
/// A cheap handle. A node has one for the calls of its handler,
/// [`Node::dialer`](crate::node::Node::dialer).
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    identity: Option<Identity>,
    /// Shared by the node, which adds and removes detours, and the pools, which take them.
    detours: Arc<Mutex<Detours>>,
}

/// The peers that do not reply to this node, because the link to them is cut, each with one to
/// which they do: new connections of pools reach them by way of that.
pub(crate) type Detours = BTreeMap<Location, Location>;

impl Dialer {
    /// A dialer that uses TLS if an identity is given.
    pub fn new(identity: Option<Identity>) -> Dialer {
        Dialer {
            identity,
            ..Dialer::default()
        }
    }

    /// Does it call over TLS, with an identity?
    pub fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Connects to `location`, makes the calls of `body` and closes.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call<C, T>(
        &self,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
        body: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.call_with_timeouts(Timeouts::default(), client, location, body)
    }

    /// [`Dialer::call`] with other timeouts.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call_with_timeouts<C, T>(
        &self,
        timeouts: Timeouts,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
        body: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let mut client = self.connect(timeouts, client, location)?;
        body(&mut client).map_err(|e| Error::of_call(location, e))
    }

    /// A client on a connection of its own, for several calls. Blocks for the timeouts at most.
    ///
    /// After any error but an exception of the interface the connection must be closed.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn connect<C>(
        &self,
        timeouts: Timeouts,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
    ) -> Result<C, Error> {
        let stream = self.open(timeouts, location)?;
        let (input, output) = client_protocols(stream, timeouts.reply);
        Ok(client(input, output))
    }

    /// The peers that are reached by way of others. Clones of a dialer share them. To be held
    /// briefly.
    pub(crate) fn detours(&self) -> MutexGuard<'_, Detours> {
        self.detours.lock()
    }

    /// [`open`](Dialer::open), by way of another node while the link to `location` is cut.
    pub(super) fn open_by_detour(
        &self,
        timeouts: Timeouts,
        location: &Location,
    ) -> Result<Stream, Error> {
        let via = self.detours().get(location).cloned();
        let Some(via) = via else {
            return self.open(timeouts, location);
        };
        let stream = self.open(timeouts, &via)?;
        let (input, output) = client_protocols(stream.clone(), timeouts.reply);
        let is_open = LocatorSyncClient::new(input, output).tunnel(location.into());
        if is_open.map_err(|e| Error::of_call(&via, e))? {
            return Ok(stream);
        }
        let failure = format!("not reached by way of {via}");
        let failure = io::Error::new(io::ErrorKind::HostUnreachable, failure);
        Err(Error::Unreachable(location.clone(), failure))
    }

    /// Opens a connection and makes the handshake, if there is an identity.
    pub(crate) fn open(&self, timeouts: Timeouts, location: &Location) -> Result<Stream, Error> {
        let tcp = Arc::new(connect(timeouts, location)?);
        let Some(identity) = &self.identity else {
            return Ok(Stream { tcp, tls: None });
        };
        let tls = identity.connect(tcp.clone(), timeouts.reply);
        let tls = Some(tls.map_err(|e| Error::of_handshake(location, e))?);
        Ok(Stream { tcp, tls })
    }
}

/// Tries the location's addresses in turn, all within the connect timeout.
fn connect(timeouts: Timeouts, location: &Location) -> Result<TcpStream, Error> {
    let deadline = Instant::now() + timeouts.connect;
    let unresolved = |e| Error::Unresolved(location.clone(), e);
    let mut failure = None;
    for address in location.resolve().map_err(unresolved)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let stream = TcpStream::connect_timeout(&address, left);
        match stream.and_then(|stream| configure(stream, timeouts)) {
            Ok(stream) => return Ok(stream),
            Err(e) => failure = Some(e),
        }
    }
    let failure = failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into());
    Err(Error::of_connect(location, failure))
}

fn configure(stream: TcpStream, timeouts: Timeouts) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeouts.reply))?;
    stream.set_write_timeout(Some(timeouts.reply))?;
    Ok(stream)
}
