//! `Pool`: connections that are kept open between calls.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Error;
use crate::location::Location;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::message::{Input, MAX_MESSAGE, Output, protocols};

/// Connections with clients `C`, several to each location. Shared by threads; a call has a
/// connection to itself.
///
/// Only for methods that reply and may be repeated: if a kept connection turns out to be
/// closed by its peer, the call is made once more on a new one. A oneway call on a dead
/// connection would be lost without notice.
pub struct Pool<C> {
    dialer: Dialer,
    client: fn(Input, Output) -> C,
    timeouts: Timeouts,
    connections: Mutex<BTreeMap<Location, Connections<C>>>,
}

/// The connections to one location.
struct Connections<C> {
    /// Idle ones, the most recently used last.
    idle: Vec<PooledConnection<C>>,
    /// The streams of those in use.
    busy: Vec<Arc<TcpStream>>,
}

struct PooledConnection<C> {
    client: C,
    stream: Arc<TcpStream>,
    idle_since: Instant,
}

/// A call that was sent and whose reply was not received yet.
pub(super) struct InFlight<C> {
    location: Location,
    connection: PooledConnection<C>,
    deadline: Instant,
    /// It uses a kept connection, which its peer may have closed.
    is_reused: bool,
}

impl<C> InFlight<C> {
    /// The stream on which the reply arrives.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.connection.stream
    }

    /// When the reply times out.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl<C> Pool<C> {
    /// Idle connections kept to one location.
    const MAX_IDLE: usize = 64;

    /// An idle connection is not used after this time: less than its server's idle timeout.
    const MAX_IDLE_AGE: Duration = Duration::from_secs(60);

    /// An empty pool. `client` makes the client of a new connection.
    pub fn new(dialer: Dialer, client: fn(Input, Output) -> C, timeouts: Timeouts) -> Pool<C> {
        Pool {
            dialer,
            client,
            timeouts,
            connections: Mutex::default(),
        }
    }

    /// Makes the calls of `body` on a kept connection to `location`, or a new one. Blocks for
    /// the pool's timeouts at most, for each call.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub fn call<T>(
        &self,
        location: &Location,
        body: impl Fn(&mut C) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let attempt = |mut connection: PooledConnection<C>| {
            let result = body(&mut connection.client).map_err(|e| Error::of_call(location, e));
            let checkin = self.checkin(location, connection, &result);
            (result, checkin)
        };
        if let Some(connection) = self.checkout(location) {
            match attempt(connection) {
                (Err(Error::ConnectionLost(..)), Checkin::Done) => self.close_idle(location),
                (result, _) => return result,
            }
        }
        let (result, _) = attempt(self.open(location)?);
        result
    }

    /// Is there an idle connection to `location`?
    pub(super) fn has_idle(&self, location: &Location) -> bool {
        let all = self.connections.lock();
        all.get(location)
            .is_some_and(|known| !known.idle.is_empty())
    }

    /// Sends a call on a kept connection, or a new one. Blocks until it is connected and the
    /// socket has taken the call.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub(super) fn send(
        &self,
        location: &Location,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> Result<InFlight<C>, Error> {
        if let Some(connection) = self.checkout(location) {
            match self.send_on(location, connection, true, &send) {
                (Err(Error::ConnectionLost(..)), Checkin::Done) => self.close_idle(location),
                (result, _) => return result,
            }
        }
        self.send_on_new(location, send)
    }

    /// Sends a call on a new connection.
    ///
    /// # Errors
    /// As for [`send`](Pool::send).
    pub(super) fn send_on_new(
        &self,
        location: &Location,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> Result<InFlight<C>, Error> {
        let (result, _) = self.send_on(location, self.open(location)?, false, send);
        result
    }

    fn send_on(
        &self,
        location: &Location,
        mut connection: PooledConnection<C>,
        is_reused: bool,
        send: impl Fn(&mut C) -> thrift::Result<()>,
    ) -> (Result<InFlight<C>, Error>, Checkin) {
        if let Err(e) = send(&mut connection.client) {
            let result = Err(Error::of_call(location, e));
            let checkin = self.checkin(location, connection, &result);
            return (result, checkin);
        }
        let in_flight = InFlight {
            location: location.clone(),
            connection,
            deadline: Instant::now() + self.timeouts.reply,
            is_reused,
        };
        (Ok(in_flight), Checkin::Done)
    }

    /// Receives the reply to a call. None if the peer had closed the kept connection: send the
    /// call again.
    pub(super) fn receive<T>(
        &self,
        mut call: InFlight<C>,
        receive: impl FnOnce(&mut C) -> thrift::Result<T>,
    ) -> Option<Result<T, Error>> {
        let location = &call.location;
        let result = receive(&mut call.connection.client).map_err(|e| Error::of_call(location, e));
        match (self.checkin(location, call.connection, &result), &result) {
            (Checkin::Done, Err(Error::ConnectionLost(..))) if call.is_reused => {
                self.close_idle(location);
                None
            }
            _ => Some(result),
        }
    }

    /// Abandons a call whose reply has timed out.
    pub(super) fn time_out<T>(&self, call: InFlight<C>) -> Result<T, Error> {
        let late = io::Error::new(io::ErrorKind::TimedOut, "timed out");
        let result = Err(Error::of_call(&call.location, late.into()));
        self.checkin(&call.location, call.connection, &result);
        result
    }

    /// Closes all connections to a location that is gone. Calls in progress fail.
    pub fn close_all(&self, location: &Location) {
        let closed = self.connections.lock().remove(location);
        for stream in closed.map(|closed| closed.busy).unwrap_or_default() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes an idle connection.
    fn checkout(&self, location: &Location) -> Option<PooledConnection<C>> {
        let mut all = self.connections.lock();
        let connections = all.get_mut(location)?;
        let newest = connections.idle.pop()?;
        if newest.idle_since.elapsed() >= Self::MAX_IDLE_AGE {
            // The others are older.
            connections.idle.clear();
            return None;
        }
        connections.busy.push(newest.stream.clone());
        Some(newest)
    }

    /// Opens a connection.
    fn open(&self, location: &Location) -> Result<PooledConnection<C>, Error> {
        let connection = self.dialer.open(self.timeouts, location)?;
        let stream = connection.tcp().clone();
        let (input, output) = protocols(connection, self.timeouts.reply, MAX_MESSAGE);
        let mut all = self.connections.lock();
        if !all.contains_key(location) {
            // Keeps the map from growing with every peer that was ever called.
            all.retain(|_, connections| connections.is_used());
        }
        let connections = all.entry(location.clone()).or_default();
        connections.busy.push(stream.clone());
        Ok(PooledConnection {
            client: (self.client)(input, output),
            stream,
            idle_since: Instant::now(),
        })
    }

    /// Ends the use of a connection. Keeps it if the peer replied, also by an exception of the
    /// interface; any other exception closes a connection.
    fn checkin<T>(
        &self,
        location: &Location,
        connection: PooledConnection<C>,
        result: &Result<T, Error>,
    ) -> Checkin {
        let mut all = self.connections.lock();
        let Some(connections) = all.get_mut(location) else {
            return Checkin::Closed;
        };
        let used = connections
            .busy
            .iter()
            .position(|stream| Arc::ptr_eq(stream, &connection.stream));
        let Some(used) = used else {
            return Checkin::Closed;
        };
        connections.busy.swap_remove(used);
        let is_reusable = matches!(
            result,
            Ok(_) | Err(Error::Remote(_, thrift::Error::User(_)))
        );
        if is_reusable && connections.idle.len() < Self::MAX_IDLE {
            connections.idle.push(PooledConnection {
                idle_since: Instant::now(),
                ..connection
            });
        }
        Checkin::Done
    }

    fn close_idle(&self, location: &Location) {
        if let Some(connections) = self.connections.lock().get_mut(location) {
            connections.idle.clear();
        }
    }
}

/// How the use of a connection ended.
enum Checkin {
    /// Normally.
    Done,
    /// By [`Pool::close_all`]: the call must not be repeated.
    Closed,
}

impl<C> Connections<C> {
    /// Is one of them in use, or recently used?
    fn is_used(&self) -> bool {
        let newest = self.idle.last();
        !self.busy.is_empty()
            || newest.is_some_and(|newest| newest.idle_since.elapsed() < Pool::<C>::MAX_IDLE_AGE)
    }
}

impl<C> Default for Connections<C> {
    fn default() -> Connections<C> {
        Connections {
            idle: Vec::new(),
            busy: Vec::new(),
        }
    }
}
