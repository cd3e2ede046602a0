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

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::socket::Backlog;
use thrift::server::TProcessor;

use crate::rpc::dispatch::{Methods, Service, linger};
use crate::rpc::limits::ServerLimits;
use crate::rpc::server_state::{Closing, ServerState};
use crate::rpc::stats::{CloseReason, ServerStats};
use crate::rpc::tls::identity::Identity;

/// Stack of a connection's thread, in bytes. Only used pages take memory.
const STACK: usize = 1024 * 1024;

/// How often the system is asked for a port that is free at several addresses.
const BIND_ATTEMPTS: usize = 16;

/// The pause after a failed accept, so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Errors of the system: the process, or the host, has no file descriptor left.
const PROCESS_LIMIT: i32 = nix::libc::EMFILE;
const HOST_LIMIT: i32 = nix::libc::ENFILE;

/// A claimed port at one or more addresses of this host.
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: ServerLimits,
    identity: Option<Identity>,
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
    /// Claims `port` at every one of `addresses`. Port 0 chooses one that is free at all.
    ///
    /// # Errors
    /// The port is in use at one of them, or an address is not this host's.
    pub fn bind(addresses: &[IpAddr], port: u16, limits: ServerLimits) -> io::Result<Server> {
        let mut listeners = listen(addresses, port);
        for _ in 1..BIND_ATTEMPTS {
            if port != 0 || listeners.is_ok() {
                break;
            }
            listeners = listen(addresses, port);
        }
        let listeners = listeners?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let state = Arc::new(ServerState::default());
        Ok(Server {
            listeners,
            limits,
            identity: None,
            handle: ServerHandle { state, addresses },
        })
    }

    /// Requires from every peer a certificate of the identity's CA, if one is given.
    pub fn with_tls(mut self, identity: Option<Identity>) -> Server {
        self.identity = identity;
        self
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
        let state = self.handle.state;
        let drain_timeout = self.limits.drain_timeout;
        let service = Arc::new(Service {
            processor: Box::new(processor),
            methods,
            limits: self.limits,
            identity: self.identity,
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
        state.drain(drain_timeout);
    }
}

impl ServerHandle {
    /// Makes the server stop accepting connections and end. Blocks for a second at most.
    pub fn stop(&self) {
        self.state.stopping.request();
        for address in &self.addresses {
            // A blocked accept returns only for a connection.
            let _ = TcpStream::connect_timeout(&reachable(*address), Duration::from_secs(1));
        }
        self.state.stop_reading();
    }

    /// The counters so far.
    pub fn stats(&self) -> ServerStats {
        let open = self.state.open_connections();
        self.state.counters.stats(open)
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
    let connection = service.state.insert(stream, peer.ip(), &service.limits);
    let thread_service = service.clone();
    let serve = move || match thread_service.serve_connection(&connection, peer) {
        Ok(()) => debug!("{peer} has closed its connection"),
        Err(closing) => {
            thread_service.state.report_closing(peer, &closing);
            linger(&connection.stream);
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
    state.counters.record_failed_accept();
    let line = || format!("cannot accept connections now: {error}");
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

/// The address at which this host reaches a listener of its own.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(match listener {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listener
}
