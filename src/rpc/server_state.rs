//! `ServerState`: what the threads of one server share.

use std::net::{IpAddr, Shutdown as Direction, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};
use parking_lot::{Condvar, Mutex};

use crate::rpc::connections::{ConnectionTable, LastUse};
use crate::rpc::limits::ServerLimits;
use crate::rpc::log_limit::LogLimiter;
use crate::rpc::stats::{CloseReason, Counters};
use crate::rpc::tunnel::Tunnels;
use crate::shutdown::Shutdown;

/// The open connections, the counters and the stop switch of one server.
#[derive(Default)]
pub(super) struct ServerState {
    pub stopping: Shutdown,
    open: Mutex<ConnectionTable<Arc<TcpStream>>>,
    /// Notified when a connection has closed.
    closed: Condvar,
    pub counters: Counters,
    pub log_limiter: LogLimiter,
    pub tunnels: Tunnels,
}

/// Why the server closes a connection.
pub(super) struct Closing {
    /// None if the peer closed it in the middle of a message.
    pub reason: Option<CloseReason>,
    pub message: String,
}

impl Closing {
    pub fn new(reason: impl Into<Option<CloseReason>>, message: impl Into<String>) -> Closing {
        Closing {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// An accepted connection, in the server's table until it is dropped.
pub(super) struct Connection {
    pub stream: Arc<TcpStream>,
    pub last_use: Arc<LastUse>,
    number: u64,
    state: Arc<ServerState>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.open.lock().remove(self.number);
        self.state.closed.notify_all();
    }
}

impl ServerState {
    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.open.lock().len()
    }

    /// Adds a connection, and evicts idle ones if the limits require it.
    pub fn insert(
        self: &Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
        limits: &ServerLimits,
    ) -> Connection {
        let (number, stream) = (self.counters.record_open(), Arc::new(stream));
        let max_from = limits.max_from(address);
        let (from_address, from_all, last_use) = {
            let mut open = self.open.lock();
            let from_address = max_from
                .map(|max| open.evict_if_full(number, max, Some(address)))
                .unwrap_or_default();
            let from_all = open.evict_if_full(number, limits.max_connections, None);
            let last_use = open.insert(number, address, stream.clone());
            (from_address, from_all, last_use)
        };
        self.evict(CloseReason::EvictedByAddress, &from_address, || {
            let max = max_from.unwrap_or_default();
            format!("{max} from that address are open")
        });
        self.evict(CloseReason::Evicted, &from_all, || {
            format!("{} are open", limits.max_connections)
        });
        Connection {
            stream,
            last_use,
            number,
            state: self.clone(),
        }
    }

    /// Evicts idle connections because no file descriptors are left.
    pub fn evict_for_descriptors(&self) {
        let evicted = {
            let mut open = self.open.lock();
            let all = open.len();
            open.evict_if_full(self.counters.newest(), all, None)
        };
        let message = || "no file descriptors are left".into();
        self.evict(CloseReason::Evicted, &evicted, message);
    }

    /// Closes connections that were removed from the table. Their threads then end.
    fn evict(
        &self,
        reason: CloseReason,
        evicted: &[Arc<TcpStream>],
        message: impl FnOnce() -> String,
    ) {
        let Some(first) = evicted.first() else {
            return;
        };
        self.counters.close(reason, evicted.len());
        self.log_limiter.warn(|| {
            let peer = first.peer_addr().map(|peer| peer.to_string());
            let peer = peer.unwrap_or_else(|_| "a closed one".into());
            let count = evicted.len();
            let message = message();
            format!("closed {count} idle connections, first that of {peer}: {message}")
        });
        for stream in evicted {
            let _ = stream.shutdown(Direction::Both);
        }
    }

    /// Counts and logs why a connection is closed.
    pub fn report_closing(&self, peer: SocketAddr, closing: &Closing) {
        let message = &closing.message;
        if let Some(reason) = closing.reason {
            self.counters.close(reason, 1);
        }
        if closing.reason == Some(CloseReason::Idle) {
            debug!("closed the connection of {peer}: {message}");
        } else {
            let line = || format!("closed the connection of {peer}: {message}");
            self.log_limiter.warn(line);
        }
    }

    /// Counts and logs a call that ended in an application exception. Its connection stays open.
    pub fn report_exception(&self, peer: SocketAddr, exception: &str) {
        self.counters.record_exception();
        self.log_limiter
            .warn(|| format!("a call of {peer}: {exception}"));
    }

    /// Ends every connection after its current call, as if its peer had closed it.
    pub fn stop_reading(&self) {
        for stream in self.open.lock().connections() {
            let _ = stream.shutdown(Direction::Read);
        }
    }

    /// Waits until all connections have ended, for `timeout` at most, then closes the rest.
    pub fn drain(&self, timeout: Duration) {
        self.stop_reading();
        let deadline = Instant::now() + timeout;
        let mut open = self.open.lock();
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.closed.wait_for(&mut open, left);
        }
        for stream in open.connections() {
            let _ = stream.shutdown(Direction::Both);
        }
        let unfinished = open.len();
        drop(open);
        if unfinished > 0 {
            warn!("{unfinished} calls were not finished when the server stopped");
        }
    }
}
