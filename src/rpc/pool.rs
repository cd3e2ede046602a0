//! `Pool`: connections that are kept open between calls.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

use crate::error::Error;
use crate::location::Location;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::message::{Input, Output, client_protocols};

/// Connections with clients `C`, several to each location. Shared by threads; a call has a
/// connection to itself.
///
/// Only for methods that reply and may be repeated: if a kept connection turns out to be
/// closed by its peer, the call is made once more on a new one. A oneway call on a dead
/// connection would be lost without notice.
pub struct Pool<C> {
    dialer: Dialer,
    client: fn(Input, Output) -> C,
    pub(super) timeouts: Timeouts,
    connections: Mutex<BTreeMap<Location, Connections<C>>>,
}

/// The connections to one location.
struct Connections<C> {
    /// Idle ones, the most recently used last.
    idle: Vec<PooledConnection<C>>,
    /// The streams of those in use, and since when.
    busy: Vec<(Arc<TcpStream>, Instant)>,
}

/// A connection that is used by one call at a time.
pub(super) struct PooledConnection<C> {
    location: Location,
    pub client: C,
    /// The stream on which replies arrive.
    pub stream: Arc<TcpStream>,
    /// It was kept from an earlier call, so its peer may have closed it.
    is_reused: bool,
    idle_since: Instant,
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
        let mut connection = self.checkout(location)?;
        loop {
            match body(&mut connection.client) {
                Ok(reply) => {
                    self.checkin(connection, true);
                    return Ok(reply);
                }
                Err(e) => connection = self.replace(connection, e)?,
            }
        }
    }

    /// Is there an idle connection to `location`?
    pub(super) fn has_idle(&self, location: &Location) -> bool {
        let all = self.connections.lock();
        all.get(location)
            .is_some_and(|known| !known.idle.is_empty())
    }

    /// Takes an idle connection, or opens one.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub(super) fn checkout(&self, location: &Location) -> Result<PooledConnection<C>, Error> {
        let idle = self.take_idle(location);
        idle.map_or_else(|| self.open(location), Ok)
    }

    /// Ends the use of a connection, and keeps it if it is reusable. False if it was closed
    /// meanwhile by [`close_all`](Pool::close_all).
    pub(super) fn checkin(&self, connection: PooledConnection<C>, is_reusable: bool) -> bool {
        let mut all = self.connections.lock();
        let Some(Connections { idle, busy }) = all.get_mut(&connection.location) else {
            return false;
        };
        let mut streams = busy.iter().map(|(stream, _)| stream);
        let is_same = |stream: &Arc<TcpStream>| Arc::ptr_eq(stream, &connection.stream);
        let Some(used) = streams.position(is_same) else {
            return false;
        };
        busy.swap_remove(used);
        if !is_reusable {
            // It ends by a reset when it is closed, so that the kernel does not go on sending a
            // request whose caller has given up. It may be closed already.
            let reset = linger {
                l_onoff: 1,
                l_linger: 0,
            };
            let _ = setsockopt(&connection.stream, sockopt::Linger, &reset);
        } else if idle.len() < Self::MAX_IDLE {
            idle.push(PooledConnection {
                is_reused: true,
                idle_since: Instant::now(),
                ..connection
            });
        }
        true
    }

    /// Ends the use of a connection by a call that failed. Keeps it if the peer replied by an
    /// exception of the interface.
    ///
    /// Returns a new connection if the call is to be made once more, because its peer had closed
    /// the kept one.
    ///
    /// # Errors
    /// The call's; it names the location.
    pub(super) fn replace(
        &self,
        connection: PooledConnection<C>,
        error: thrift::Error,
    ) -> Result<PooledConnection<C>, Error> {
        let (location, is_reused) = (connection.location.clone(), connection.is_reused);
        let error = Error::of_call(&location, error);
        let was_open = self.checkin(connection, error.is_refused());
        if was_open && is_reused && matches!(error, Error::ConnectionLost(..)) {
            if let Some(connections) = self.connections.lock().get_mut(&location) {
                connections.idle.clear();
            }
            return self.open(&location);
        }
        Err(error)
    }

    /// The locations to which a call has been in progress for longer than `time`.
    pub fn slow(&self, time: Duration) -> Vec<Location> {
        let all = self.connections.lock();
        let is_slow = |connections: &Connections<C>| {
            let mut busy = connections.busy.iter();
            busy.any(|(_, since)| since.elapsed() > time)
        };
        let slow = all.iter().filter(|(_, connections)| is_slow(connections));
        slow.map(|(location, _)| location.clone()).collect()
    }

    /// Closes all connections to a location that is gone. Calls in progress fail.
    pub fn close_all(&self, location: &Location) {
        let closed = self.connections.lock().remove(location);
        for (stream, _) in closed.map(|closed| closed.busy).unwrap_or_default() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn take_idle(&self, location: &Location) -> Option<PooledConnection<C>> {
        let mut all = self.connections.lock();
        let connections = all.get_mut(location)?;
        let newest = connections.idle.pop()?;
        if newest.is_too_old() {
            // The others are older.
            connections.idle.clear();
            return None;
        }
        connections
            .busy
            .push((newest.stream.clone(), Instant::now()));
        Some(newest)
    }

    fn open(&self, location: &Location) -> Result<PooledConnection<C>, Error> {
        let connection = self.dialer.open_by_detour(self.timeouts, location)?;
        let stream = connection.tcp.clone();
        let (input, output) = client_protocols(connection, self.timeouts.reply);
        let mut all = self.connections.lock();
        if !all.contains_key(location) {
            // Keeps the map from growing with every peer that was ever called.
            let is_recent = |idle: &PooledConnection<C>| !idle.is_too_old();
            all.retain(|_, known| {
                !known.busy.is_empty() || known.idle.last().is_some_and(is_recent)
            });
        }
        let connections = all.entry(location.clone()).or_insert_with(|| Connections {
            idle: Vec::new(),
            busy: Vec::new(),
        });
        connections.busy.push((stream.clone(), Instant::now()));
        Ok(PooledConnection {
            location: location.clone(),
            client: (self.client)(input, output),
            stream,
            is_reused: false,
            idle_since: Instant::now(),
        })
    }
}

impl<C> PooledConnection<C> {
    /// Was it idle for so long that its server may close it?
    fn is_too_old(&self) -> bool {
        self.idle_since.elapsed() >= Pool::<C>::MAX_IDLE_AGE
    }
}
