//! Calls to other nodes, one connection each, by anybody, or by somebody with an
//! identity ([`Caller`]).
//!
//! A node of the original serves one connection to its end before it accepts the
//! next: an idle connection to it would shut everybody else out. So `call`
//! connects, calls and closes; only who knows its peer keeps connections
//! ([`Links`](crate::rpc::links::Links)).

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::location::Location;
use crate::rpc::channel::Channel;
use crate::rpc::connection::{LONGEST_MESSAGE, protocols};
use crate::rpc::identity::Identity;

pub use crate::rpc::connection::{Input, Output, limits};

/// How long a call may wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For the request to be taken, and then for the answer to be complete; before
    /// these, with an identity, for the peers to shake hands.
    pub answer: Duration,
}

impl Default for Patience {
    /// A second for the connection, ten for the answer: a peer may itself have to
    /// ask others before it answers.
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(1),
            answer: Duration::from_secs(10),
        }
    }
}

/// Connects to `location`, makes the calls of `body` and closes. For nodes that let
/// everybody in; to others, [`Caller::call`] does the same with an identity.
///
/// `client` is the constructor of a generated client: `StoreSyncClient::new`.
/// Blocks as long as [`Patience::default`] says, at the most, for each call.
///
/// # Errors
/// See [`Error`]; it names the location.
///
/// ```no_run
/// use thrifty_p2p::locator::{LocatorSyncClient, TLocatorSyncClient};
/// use thrifty_p2p::rpc::client::call;
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
    Caller::default().call(client, location, body)
}

/// Who calls: by default anybody, in plain; with an identity somebody, over TLS.
///
/// A cheap handle. A node has one, [`Node::caller`](crate::node::Node::caller), for
/// the calls that its handler makes.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    identity: Option<Identity>,
}

impl Caller {
    /// Who has this identity, or none.
    pub fn new(identity: Option<Identity>) -> Caller {
        Caller { identity }
    }

    /// Connects to `location`, makes the calls of `body` and closes, as [`call`] does.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call<C, T>(
        &self,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
        body: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.call_within(Patience::default(), client, location, body)
    }

    /// [`Caller::call`] with a patience of one's own.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call_within<C, T>(
        &self,
        patience: Patience,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
        body: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let mut client = self.connect(patience, client, location)?;
        body(&mut client).map_err(|e| Error::of_call(location, e))
    }

    /// A client over a connection of its own, for who makes many calls one after another.
    ///
    /// Blocks for the patience given, at the most. After a call that failed, other than by
    /// an exception of the interface, the connection is of no more use.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn connect<C>(
        &self,
        patience: Patience,
        client: impl FnOnce(Input, Output) -> C,
        location: &Location,
    ) -> Result<C, Error> {
        let channel = self.open(patience, location)?;
        let (input, output) = protocols(channel, patience.answer, LONGEST_MESSAGE);
        Ok(client(input, output))
    }

    /// A connection, over which hands have been shaken if there is an identity.
    pub(super) fn open(&self, patience: Patience, location: &Location) -> Result<Channel, Error> {
        let stream = Arc::new(open(patience, location)?);
        let Some(identity) = &self.identity else {
            return Ok(Channel::Plain(stream));
        };
        let session = identity.call(stream, patience.answer);
        session
            .map(|session| Channel::Tls(Arc::new(session)))
            .map_err(|e| not_trusted(location.clone(), e))
    }
}

/// Tries the location's addresses in turn, all of them within the patience.
fn open(patience: Patience, location: &Location) -> Result<TcpStream, Error> {
    let deadline = Instant::now() + patience.connect;
    let unresolved = |e| Error::Unresolved(location.clone(), e);
    let mut failure = None;
    for address in location.resolve().map_err(unresolved)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left).and_then(|s| set_up(s, patience)) {
            Ok(stream) => return Ok(stream),
            Err(e) => failure = Some(e),
        }
    }
    let failure = failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into());
    Err(not_connected(location.clone(), failure))
}

/// Tells whose fault it is that there is no connection.
fn not_connected(location: Location, failure: io::Error) -> Error {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable};
    use io::ErrorKind::{NetworkDown, NetworkUnreachable, TimedOut, WouldBlock};
    match failure.kind() {
        TimedOut | WouldBlock => Error::Unreached(location, TimedOut.into()),
        HostUnreachable | NetworkUnreachable | NetworkDown => Error::Unreached(location, failure),
        ConnectionRefused | ConnectionReset | ConnectionAborted => {
            Error::Refused(location, failure)
        }
        _ => Error::Local(failure),
    }
}

/// Tells what became of a handshake.
fn not_trusted(location: Location, failure: io::Error) -> Error {
    match failure.kind() {
        io::ErrorKind::InvalidData => Error::Untrusted(location, failure.into()),
        io::ErrorKind::UnexpectedEof => {
            let closed = "TLS: the peer ended the connection instead of shaking hands: \
                it speaks no TLS, or has just ended";
            Error::Untrusted(location, io::Error::new(failure.kind(), closed).into())
        }
        _ => not_connected(location, failure),
    }
}

fn set_up(stream: TcpStream, patience: Patience) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience.answer))?;
    stream.set_write_timeout(Some(patience.answer))?;
    Ok(stream)
}
