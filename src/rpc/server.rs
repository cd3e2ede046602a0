//! `Server`: a blocking Thrift server with one thread for each connection.
//!
//! The Thrift crate's own `TServer` has a fixed pool of workers, one for each
//! *connection*, so two nodes that forward calls to each other can exhaust it and
//! deadlock. It cannot be stopped, and limits neither connections nor waits. This server
//! claims its port before anything is announced, and a stop lets calls in progress finish.
//!
//! What peers can use is limited ([`ServerLimits`]): connections, in all and from one
//! address; the size of messages, strings and lists; the time of a message, a reply and an
//! idle connection. Malformed input closes its connection; at most 20 such lines are logged
//! a second. Everything is counted ([`ServerStats`]).
//!
//! Connections are never rejected, because that would reject gossip too. When the table is
//! full, the server evicts the longest-idle ones. If a connection cannot be accepted, for
//! example because no file descriptor is left, it also evicts idle ones and tries again. If
//! no thread can be started, it closes the connection and waits a moment.
//!
//! With an [`Identity`], only peers with a certificate of the same CA can call anything; the
//! handshake is made on the connection's own thread. Without one, every peer can call all
//! methods except the local ones (`dispatch`).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::socket::Backlog;
use thrift::server::TProcessor;

use crate::diststore::ServerStats;
use crate::rpc::dispatch::{Methods, Protocol, Service, Thrift};
use crate::rpc::limits::ServerLimits;
use crate::rpc::linger::linger;
use crate::rpc::method_times::Times;
use crate::rpc::server_state::{Closing, ServerState};
use crate::rpc::stats::CloseReason;
use crate::rpc::tls::identity::Identity;

/// Stack of a connection's thread, in bytes. Only used pages take memory.
const STACK: usize = 1024 * 1024;

/// How often the system is asked for a port that is free at several addresses.
const BIND_ATTEMPTS: usize = 16;

/// The pause after a failed accept, so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long a connection that the server closes is read, at most.
const LINGER: Duration = Duration::from_secs(1);

/// Errors of the system: the process, or the host, has no file descriptor left.
const PROCESS_LIMIT: i32 = nix::libc::EMFILE;
const HOST_LIMIT: i32 = nix::libc::ENFILE;

/// A claimed port at one or more addresses of this host.
pub struct Server {
    listeners: Vec<TcpListener>,
    handle: ServerHandle,
}

/// Stops a server and reads its counters, from any thread, also after the server has ended.
#[derive(Clone)]
pub struct ServerHandle {
    state: Arc<ServerState>,
    /// The addresses of the listeners, which are woken by a connection.
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Claims `port` at every one of `addresses`. Port 0 chooses one that is free at all. With an
    /// identity, requires from every peer a certificate of its CA.
    ///
    /// # Errors
    /// The port is in use at one of them, or an address is not this host's.
    pub fn bind(
        addresses: &[IpAddr],
        port: u16,
        limits: ServerLimits,
        identity: Option<Identity>,
    ) -> io::Result<Server> {
        let retries = if port == 0 { BIND_ATTEMPTS - 1 } else { 0 };
        let mut tries = (0..retries).map(|_| listen(addresses, port));
        let bound = tries.find_map(Result::ok);
        let listeners = bound.map_or_else(|| listen(addresses, port), Ok)?;
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let state = ServerState::new(limits, identity);
        let handle = ServerHandle { state, addresses };
        Ok(Server { listeners, handle })
    }

    /// The claimed port.
    pub fn port(&self) -> u16 {
        self.handle.addresses.first().map_or(0, SocketAddr::port)
    }

    /// A handle on this server.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves calls until [`ServerHandle::stop`], then until calls in progress have finished, for
    /// [`ServerLimits::drain_timeout`] at most. Blocks.
    ///
    /// Handlers are called on the thread of their connection and may block. A connection has
    /// one call at a time.
    pub fn run(self, processor: impl TProcessor + Send + Sync + 'static, methods: Methods) {
        let processor = Box::new(processor);
        self.run_protocol(Thrift { processor, methods });
    }

    /// The same for another protocol.
    pub(crate) fn run_protocol(self, protocol: impl Protocol) {
        let state = self.handle.state;
        let service = Arc::new(Service {
            protocol: Box::new(protocol),
            state: state.clone(),
        });
        for listener in self.listeners {
            let service = service.clone();
            if !spawn("acceptor", move || accept_connections(&listener, &service)) {
                warn!("no thread could be started to accept connections: the server ends");
                state.stopping.request();
            }
        }
        state.stopping.wait();
        state.drain();
    }
}

impl ServerHandle {
    /// Makes the server stop accepting connections and end. Blocks for a second at most.
    pub fn stop(&self) {
        self.state.stopping.request();
        for address in &self.addresses {
            // A blocked accept returns only for a connection. The system takes an unspecified
            // address for loopback.
            let _ = TcpStream::connect_timeout(address, Duration::from_secs(1));
        }
        self.state.stop_reading();
    }

    /// The counters so far.
    pub fn stats(&self) -> ServerStats {
        let open = self.state.open_connections();
        self.state.counters.stats(open)
    }

    /// The times of each method so far.
    pub fn methods(&self) -> BTreeMap<String, Arc<Times>> {
        self.state.methods.all()
    }
}

/// Accepts connections of one listener until the server stops.
fn accept_connections(listener: &TcpListener, service: &Arc<Service>) {
    while !service.state.stopping.is_requested() {
        match listener.accept() {
            Ok((stream, peer)) => start_connection(stream, peer, service),
            Err(e) => recover(&e, &service.state),
        }
    }
}

/// Starts the thread of a connection.
fn start_connection(stream: TcpStream, peer: SocketAddr, service: &Arc<Service>) {
    let connection = service.state.insert(stream, peer.ip());
    let thread_service = service.clone();
    let serve = move || match thread_service.serve_connection(&connection, peer) {
        Ok(()) => debug!("{peer} has closed its connection"),
        Err(closing) => {
            thread_service.state.report_closing(peer, &closing);
            linger(&connection.stream, LINGER);
        }
    };
    if !spawn("connection", serve) {
        let closing = Closing::new(CloseReason::NoThread, "no thread could be started");
        service.state.report_closing(peer, &closing);
        thread::sleep(ACCEPT_BACKOFF);
    }
}

/// Handles a failed accept: makes room if descriptors are exhausted, and waits a moment.
fn recover(error: &io::Error, state: &ServerState) {
    state.counters.failed_accepts.fetch_add(1, Relaxed);
    let line = format_args!("cannot accept connections now: {error}");
    state.log_limiter.warn(line);
    if matches!(error.raw_os_error(), Some(PROCESS_LIMIT | HOST_LIMIT)) {
        state.evict_for_descriptors();
    }
    thread::sleep(ACCEPT_BACKOFF);
}

/// Starts a thread. False if the system has none to give.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::Builder::new().name(name.into()).stack_size(STACK);
    thread.spawn(body).is_ok()
}

/// Listens at every one of `addresses`, at one port.
fn listen(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let port = match listeners.first() {
            Some(first) => first.local_addr()?.port(),
            None => port,
        };
        let listener = TcpListener::bind((*address, port))?;
        // The standard library queues 128 connections. A host retries beyond that after a
        // second, which is longer than gossip waits.
        nix::sys::socket::listen(&listener, Backlog::MAXCONN)?;
        listeners.push(listener);
    }
    Ok(listeners)
}
