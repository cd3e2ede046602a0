//! Calls to other nodes: one at a time (`call`), or over kept connections (`Links`).
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
use crate::rpc::connection::protocols;

pub use crate::rpc::connection::{Input, Output};

/// How long a call may wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For the request to be taken, and then for the answer to be complete.
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

/// Connects to `location`, makes the calls of `body` and closes.
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
    call_within(Patience::default(), client, location, body)
}

/// [`call`] with a patience of one's own.
///
/// # Errors
/// See [`Error`]; it names the location.
pub fn call_within<C, T>(
    patience: Patience,
    client: impl FnOnce(Input, Output) -> C,
    location: &Location,
    body: impl FnOnce(&mut C) -> thrift::Result<T>,
) -> Result<T, Error> {
    let stream = Arc::new(open(patience, location)?);
    let (input, output) = protocols(stream, patience.answer);
    body(&mut client(input, output)).map_err(|e| Error::of_call(location, e))
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
    client: fn(Input, Output) -> C,
    patience: Patience,
    /// The connections not in use, the one used last at each list's end.
    idle: Mutex<HashMap<Location, Vec<Kept<C>>>>,
    /// The streams of those in use.
    busy: Mutex<HashMap<Location, Vec<Arc<TcpStream>>>>,
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

    /// No connections yet; `client` makes a client of a new one.
    pub fn new(client: fn(Input, Output) -> C, patience: Patience) -> Links<C> {
        Links {
            client,
            patience,
            idle: Mutex::default(),
            busy: Mutex::default(),
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
        if let Some(mut kept) = self.take(location) {
            match self.use_once(location, &mut kept, &body) {
                (Err(Error::Broken(..)), false) => drop(self.idle().remove(location)),
                (outcome, _) => return self.settle(location, kept, outcome),
            }
        }
        let stream = Arc::new(open(self.patience, location)?);
        let (input, output) = protocols(stream.clone(), self.patience.answer);
        let mut kept = Kept {
            client: (self.client)(input, output),
            stream,
            since: Instant::now(),
        };
        let (outcome, _) = self.use_once(location, &mut kept, &body);
        self.settle(location, kept, outcome)
    }

    /// Closes the connections to `location`, idle or not: calls under way break off.
    pub fn forget(&self, location: &Location) {
        let closed = self.idle().remove(location);
        drop(closed);
        for stream in self.busy().remove(location).unwrap_or_default() {
            // One that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Makes the calls; what came of them, and whether they were broken off by
    /// [`forget`](Links::forget), after which nobody wants them repeated.
    fn use_once<T>(
        &self,
        location: &Location,
        kept: &mut Kept<C>,
        body: impl Fn(&mut C) -> thrift::Result<T>,
    ) -> (Result<T, Error>, bool) {
        let stream = kept.stream.clone();
        self.busy()
            .entry(location.clone())
            .or_default()
            .push(stream);
        let outcome = body(&mut kept.client).map_err(|e| Error::of_call(location, e));
        let mut busy = self.busy();
        let Some(streams) = busy.get_mut(location) else {
            return (outcome, true);
        };
        let before = streams.len();
        streams.retain(|stream| !Arc::ptr_eq(stream, &kept.stream));
        let forgotten = streams.len() == before;
        if streams.is_empty() {
            busy.remove(location);
        }
        (outcome, forgotten)
    }

    /// Keeps the connection of a call that was answered, by an exception of the
    /// interface too: others end the connection. Closes what has waited too long.
    fn settle<T>(
        &self,
        location: &Location,
        kept: Kept<C>,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if matches!(
            outcome,
            Ok(_) | Err(Error::Answered(_, thrift::Error::User(_)))
        ) {
            let mut idle = self.idle();
            let others = idle.entry(location.clone()).or_default();
            if others.len() < Self::KEPT {
                let since = Instant::now();
                others.push(Kept { since, ..kept });
            }
        }
        outcome
    }

    fn take(&self, location: &Location) -> Option<Kept<C>> {
        let mut idle = self.idle();
        let kept = idle.get_mut(location)?;
        let last = kept.pop()?;
        if last.since.elapsed() < Self::FRESH {
            return Some(last);
        }
        // The others have waited longer still.
        idle.remove(location);
        None
    }

    /// The streams in use; held for a moment, never during a call.
    fn busy(&self) -> MutexGuard<'_, HashMap<Location, Vec<Arc<TcpStream>>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The idle connections; held for a moment, never during a call.
    fn idle(&self) -> MutexGuard<'_, HashMap<Location, Vec<Kept<C>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
