//! `Links`: connections that are kept between calls.

use std::collections::BTreeMap;
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
    /// Few enough that to compare locations costs less than to hash one.
    connections: Mutex<BTreeMap<Location, Connections<C>>>,
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

/// A call whose answer was not received yet. To be received or given up.
pub(super) struct Sent<C> {
    location: Location,
    kept: Kept<C>,
    /// When its answer is not waited for any more.
    deadline: Instant,
    /// Does it go over a connection that was kept, which its peer may have closed?
    is_first: bool,
}

impl<C> Sent<C> {
    /// What the answer comes through.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.kept.stream
    }

    /// When it is not waited for any more.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
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
            let used = self.settle(location, kept, &outcome);
            (outcome, used)
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

    /// Is a connection to `location` kept, as far as is known?
    pub(super) fn is_kept(&self, location: &Location) -> bool {
        let all = self.connections();
        all.get(location).is_some_and(|kept| !kept.idle.is_empty())
    }

    /// Sends a call over a kept connection, or a new one. Blocks until it is connected and
    /// the call is taken.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub(super) fn send(
        &self,
        location: &Location,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> Result<Sent<C>, Error> {
        if let Some(kept) = self.take(location) {
            match self.send_over(location, kept, true, &send) {
                (Err(Error::Broken(..)), Use::Done) => self.close_idle(location),
                (outcome, _) => return outcome,
            }
        }
        self.send_anew(location, send)
    }

    /// Sends a call over a new connection.
    ///
    /// # Errors
    /// As for [`send`](Links::send).
    pub(super) fn send_anew(
        &self,
        location: &Location,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> Result<Sent<C>, Error> {
        let (outcome, _) = self.send_over(location, self.open(location)?, false, send);
        outcome
    }

    fn send_over(
        &self,
        location: &Location,
        mut kept: Kept<C>,
        is_first: bool,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> (Result<Sent<C>, Error>, Use) {
        if let Err(e) = send(&mut kept.client) {
            let outcome = Err(Error::of_call(location, e));
            let used = self.settle(location, kept, &outcome);
            return (outcome, used);
        }
        let sent = Sent {
            location: location.clone(),
            kept,
            deadline: Instant::now() + self.patience.answer,
            is_first,
        };
        (Ok(sent), Use::Done)
    }

    /// Receives the answer to a call that was sent: none if the peer had closed the
    /// connection that was kept, so that the call is to be sent anew.
    pub(super) fn receive<T>(
        &self,
        mut sent: Sent<C>,
        receive: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Option<Result<T, Error>> {
        let location = &sent.location;
        let outcome = receive(&mut sent.kept.client).map_err(|e| Error::of_call(location, e));
        match (self.settle(location, sent.kept, &outcome), &outcome) {
            (Use::Done, Err(Error::Broken(..))) if sent.is_first => {
                self.close_idle(location);
                None
            }
            _ => Some(outcome),
        }
    }

    /// Gives up a call that was sent: its answer has not come in time, and will not be read.
    pub(super) fn give_up<T>(&self, sent: Sent<C>) -> Result<T, Error> {
        let late = io::Error::new(io::ErrorKind::TimedOut, "timed out");
        let outcome = Err(Error::of_call(&sent.location, late.into()));
        self.settle(&sent.location, sent.kept, &outcome);
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
    fn settle<T>(&self, location: &Location, kept: Kept<C>, outcome: &Result<T, Error>) -> Use {
        let mut all = self.connections();
        let Some(connections) = all.get_mut(location) else {
            return Use::Forgotten;
        };
        let used = connections
            .busy
            .iter()
            .position(|stream| Arc::ptr_eq(stream, &kept.stream));
        let Some(used) = used else {
            return Use::Forgotten;
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
        Use::Done
    }

    fn close_idle(&self, location: &Location) {
        if let Some(connections) = self.connections().get_mut(location) {
            connections.idle.clear();
        }
    }

    /// All connections; held for a moment, never during a call.
    fn connections(&self) -> MutexGuard<'_, BTreeMap<Location, Connections<C>>> {
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
