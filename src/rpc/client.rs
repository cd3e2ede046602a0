//! Calls to other nodes: one at a time (`call`), or over kept connections (`Links`),
//! by anybody, or by somebody with an identity ([`Caller`]).
//!
//! A node of the original serves one connection to its end before it accepts the
//! next: an idle connection to it would shut everybody else out. So `call`
//! connects, calls and closes; only who knows its peer keeps connections.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    fn open(&self, patience: Patience, location: &Location) -> Result<Channel, Error> {
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

/// Connections of clients `C` that wait here between calls, some to each location.
///
/// Who learns that a location is gone should say so by [`forget`](Links::forget).
///
/// Shared by threads; each call has a connection to itself while it lasts. Only
/// for methods that answer and may be repeated: a call that finds a kept
/// connection closed by its peer is made once more on a new one. A oneway call
/// over a dead connection would be lost unseen.
pub struct Links<C> {
    caller: Caller,
    client: fn(Input, Output) -> C,
    patience: Patience,
    connections: Mutex<HashMap<Location, Connections<C>>>,
}

/// The connections to one location.
struct Connections<C> {
    /// Those not in use, the one used last at the end.
    idle: Vec<Kept<C>>,
    /// The streams of those in use.
    busy: Vec<Arc<TcpStream>>,
}

struct Kept<C> {
    client: C,
    stream: Arc<TcpStream>,
    since: Instant,
}

impl<C> Links<C> {
    /// Connections kept to one location at the most.
    const KEPT: usize = 64;

    /// A connection that was idle for so long is not used again: its peer closes
    /// it in its own time, which is longer.
    const FRESH: Duration = Duration::from_secs(60);

    /// No connections of `caller` yet; `client` makes a client of a new one.
    pub fn new(caller: Caller, client: fn(Input, Output) -> C, patience: Patience) -> Links<C> {
        Links {
            caller,
            client,
            patience,
            connections: Mutex::default(),
        }
    }

    /// Makes the calls of `body` over a kept connection to `location`, or a new one.
    ///
    /// Blocks for the patience given, at the most, for each call.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call<T>(
        &self,
        location: &Location,
        body: impl Fn(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let attempt = |mut kept: Kept<C>| {
            let outcome = body(&mut kept.client).map_err(|e| Error::of_call(location, e));
            self.settle(location, kept, outcome)
        };
        if let Some(kept) = self.take(location) {
            match attempt(kept) {
                (Err(Error::Broken(..)), Use::Done) => self.close_idle(location),
                (outcome, _) => return outcome,
            }
        }
        let (outcome, _) = attempt(self.open(location)?);
        outcome
    }

    /// Closes the connections to `location`, idle or not: calls under way break off.
    pub fn forget(&self, location: &Location) {
        let closed = self.connections().remove(location);
        for stream in closed.map(|closed| closed.busy).unwrap_or_default() {
            // One that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// A kept connection, in use from here on.
    fn take(&self, location: &Location) -> Option<Kept<C>> {
        let mut all = self.connections();
        let connections = all.get_mut(location)?;
        let last = connections.idle.pop()?;
        if last.since.elapsed() >= Self::FRESH {
            // The others have waited longer still.
            connections.idle.clear();
            return None;
        }
        connections.busy.push(last.stream.clone());
        Some(last)
    }

    /// A new connection, in use from here on.
    fn open(&self, location: &Location) -> Result<Kept<C>, Error> {
        let channel = self.caller.open(self.patience, location)?;
        let stream = channel.stream().clone();
        let (input, output) = protocols(channel, self.patience.answer, LONGEST_MESSAGE);
        let mut all = self.connections();
        let connections = all.entry(location.clone()).or_default();
        connections.busy.push(stream.clone());
        let since = Instant::now();
        Ok(Kept {
            client: (self.client)(input, output),
            stream,
            since,
        })
    }

    /// Ends the use of a connection, and keeps it if it was answered, by an exception
    /// of the interface too: others end the connection.
    fn settle<T>(
        &self,
        location: &Location,
        kept: Kept<C>,
        outcome: Result<T, Error>,
    ) -> (Result<T, Error>, Use) {
        let mut all = self.connections();
        let Some(connections) = all.get_mut(location) else {
            return (outcome, Use::Forgotten);
        };
        let used = connections
            .busy
            .iter()
            .position(|stream| Arc::ptr_eq(stream, &kept.stream));
        let Some(used) = used else {
            return (outcome, Use::Forgotten);
        };
        connections.busy.swap_remove(used);
        let answered = matches!(
            outcome,
            Ok(_) | Err(Error::Answered(_, thrift::Error::User(_)))
        );
        if answered && connections.idle.len() < Self::KEPT {
            connections.idle.push(Kept {
                since: Instant::now(),
                ..kept
            });
        }
        (outcome, Use::Done)
    }

    fn close_idle(&self, location: &Location) {
        if let Some(connections) = self.connections().get_mut(location) {
            connections.idle.clear();
        }
    }

    /// All connections; held for a moment, never during a call.
    fn connections(&self) -> MutexGuard<'_, HashMap<Location, Connections<C>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the use of a connection ended.
enum Use {
    /// By itself.
    Done,
    /// By [`Links::forget`], after which nobody wants the call repeated.
    Forgotten,
}

impl<C> Default for Connections<C> {
    fn default() -> Connections<C> {
        Connections {
            idle: Vec::new(),
            busy: Vec::new(),
        }
    }
}
