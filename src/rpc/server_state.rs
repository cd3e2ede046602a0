//! `ServerState`: what the threads of one server share.

use std::fmt;
use std::net::{IpAddr, Shutdown as Direction, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use log::{debug, warn};
use parking_lot::{Condvar, Mutex};

use crate::log_limit::LogLimiter;
use crate::plural::counted;
use crate::rpc::connections::{ConnectionTable, LastUse};
use crate::rpc::limits::ServerLimits;
use crate::rpc::method_times::MethodTimes;
use crate::rpc::stats::{CloseReason, Counters};
use crate::rpc::tls::identity::Identity;
use crate::rpc::tunnel::Tunnels;
use crate::shutdown::Shutdown;

/// The limits, the open connections, the counters and the stop switch of one server.
#[derive(Default)]
pub(crate) struct ServerState {
    pub limits: ServerLimits,
    pub identity: Option<Identity>,
    pub stopping: Shutdown,
    open: Mutex<ConnectionTable<Arc<TcpStream>>>,
    /// Notified when a connection has closed.
    closed: Condvar,
    pub counters: Counters,
    pub methods: MethodTimes,
    pub log_limiter: LogLimiter,
    pub tunnels: Tunnels,
}

/// Why the server closes a connection.
pub(crate) struct Closing {
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
pub(crate) struct Connection {
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
    pub fn new(limits: ServerLimits, identity: Option<Identity>) -> Arc<ServerState> {
        Arc::new(ServerState {
            limits,
            identity,
            ..ServerState::default()
        })
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.open.lock().len()
    }

    /// The number of the newest connection.
    pub fn newest(&self) -> u64 {
        self.counters.opened.load(Relaxed)
    }

    /// Adds a connection, and evicts idle ones if the limits require it.
    pub fn insert(self: &Arc<Self>, stream: TcpStream, address: IpAddr) -> Connection {
        let number = self.counters.opened.fetch_add(1, Relaxed) + 1;
        let stream = Arc::new(stream);
        let max_from = self.limits.max_from(address);
        let max = self.limits.max_connections;
        let (from_address, from_all, last_use) = {
            let mut open = self.open.lock();
            let from_address = max_from.map(|max| open.evict_if_full(number, max, Some(address)));
            let from_all = open.evict_if_full(number, max, None);
            let last_use = open.insert(number, address, stream.clone());
            (from_address.unwrap_or_default(), from_all, last_use)
        };
        let max_from = max_from.unwrap_or_default();
        let why = format_args!("{max_from} from that address are open");
        self.evict(CloseReason::EvictedByAddress, &from_address, why);
        self.evict(
            CloseReason::Evicted,
            &from_all,
            format_args!("{max} are open"),
        );
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
            open.evict_if_full(self.newest(), all, None)
        };
        let why = format_args!("no file descriptors are left");
        self.evict(CloseReason::Evicted, &evicted, why);
    }

    /// Closes connections that were removed from the table. Their threads then end.
    fn evict(&self, reason: CloseReason, evicted: &[Arc<TcpStream>], why: fmt::Arguments<'_>) {
        let Some(first) = evicted.first() else {
            return;
        };
        let count = evicted.len();
        self.counters.close(reason, count);
        let peer = first.peer_addr().map(|peer| peer.to_string());
        let peer = peer.unwrap_or_else(|_| "a closed one".into());
        self.log_limiter.warn(format_args!(
            "closed {count} idle connections, first that of {peer}: {why}"
        ));
        for stream in evicted {
            let _ = stream.shutdown(Direction::Both);
        }
    }

    /// Counts and logs why a connection is closed.
    pub fn report_closing(&self, peer: SocketAddr, closing: &Closing) {
        if let Some(reason) = closing.reason {
            self.counters.close(reason, 1);
        }
        let line = format!("closed the connection of {peer}: {}", closing.message);
        if closing.reason == Some(CloseReason::Idle) {
            debug!("{line}");
        } else {
            self.log_limiter.warn(format_args!("{line}"));
        }
    }

    /// Counts and logs a call that ended in an application exception. Its connection stays open.
    pub fn report_exception(&self, peer: SocketAddr, exception: &str) {
        self.counters.exceptions.fetch_add(1, Relaxed);
        let line = format_args!("a call of {peer}: {exception}");
        self.log_limiter.warn(line);
    }

    /// Ends every connection after its current call, as if its peer had closed it.
    pub fn stop_reading(&self) {
        for stream in self.open.lock().connections() {
            let _ = stream.shutdown(Direction::Read);
        }
    }

    /// Waits until all connections have ended, for the limits' time at most, then closes the rest.
    pub fn drain(&self) {
        self.stop_reading();
        let mut open = self.open.lock();
        let (closed, timeout) = (&self.closed, self.limits.drain_timeout);
        closed.wait_while_for(&mut open, |open| !open.is_empty(), timeout);
        for stream in open.connections() {
            let _ = stream.shutdown(Direction::Both);
        }
        let unfinished = open.len();
        drop(open);
        if unfinished > 0 {
            let unfinished = counted(unfinished, "unfinished call");
            warn!("the server stopped with {unfinished}");
        }
    }
}
