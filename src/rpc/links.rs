//! `Links`: connections that are kept between calls.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{Caller, Patience};
use crate::rpc::connection::{Input, LONGEST_MESSAGE, Output, protocols};

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

/// A call whose answer was not received yet.
pub(super) struct Sent<C> {
    location: Location,
    kept: Kept<C>,
}

impl<C> Sent<C> {
    /// What the answer comes through.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.kept.stream
    }
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

    /// How long its calls may wait.
    pub(super) fn patience(&self) -> Patience {
        self.patience
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

    /// Sends a call over a kept connection; none if none is kept, or its peer has closed it.
    /// To be [received](Links::receive), whatever happens meanwhile.
    pub(super) fn send(
        &self,
        location: &Location,
        send: impl FnOnce(&mut C) -> thrift::Result<()>,
    ) -> Option<Sent<C>> {
        let mut kept = self.take(location)?;
        match send(&mut kept.client) {
            Ok(()) => Some(Sent {
                location: location.clone(),
                kept,
            }),
            Err(e) => {
                let failure = Error::of_call(location, e);
                drop(self.settle::<()>(location, kept, Err(failure)));
                self.close_idle(location);
                None
            }
        }
    }

    /// Receives the answer to a call that was sent: none if the peer had closed the
    /// connection, so that the call may be made once more.
    pub(super) fn receive<T>(
        &self,
        mut sent: Sent<C>,
        receive: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Option<Result<T, Error>> {
        let location = &sent.location;
        let outcome = receive(&mut sent.kept.client).map_err(|e| Error::of_call(location, e));
        match self.settle(location, sent.kept, outcome) {
            (Err(Error::Broken(..)), Use::Done) => {
                self.close_idle(location);
                None
            }
            (outcome, _) => Some(outcome),
        }
    }

    /// Gives up a call that was sent: its answer has not come in time, and will not be read.
    pub(super) fn give_up<T>(&self, sent: Sent<C>) -> Result<T, Error> {
        let late = io::Error::new(io::ErrorKind::TimedOut, "timed out");
        let failure = Error::of_call(&sent.location, late.into());
        self.settle(&sent.location, sent.kept, Err(failure)).0
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
