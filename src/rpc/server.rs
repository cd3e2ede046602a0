//! `Server`: blocking, threaded service of Thrift calls, one thread a connection.
//!
//! The Thrift crate's own `TServer` has a fixed pool of workers, one per
//! *connection*: two nodes that forward to each other exhaust it and stand still.
//! It cannot be stopped, and bounds neither connections nor waits. This one keeps
//! its promise of being prompt in both directions: a port is claimed before
//! anything is announced, and a stop lets calls that were begun end, then closes.
//!
//! What a stranger may do to it is bounded: the number of connections, the size of
//! messages, strings and lists, the time that a message may take to come and a reply to go.
//! Whatever is not Thrift costs its own connection and one line in the log.
//!
//! With an [`Identity`], nobody without a certificate of the same CA gets anything;
//! hands are shaken on the connection's own thread. Without one, everybody who can
//! connect can call every method but the *local* ones: these are for callers on the
//! same machine, which are those of loopback and of the address that they called.
//!
//! Oneway calls are never answered, not even by an exception, and not even when
//! they come as ordinary ones, as the original's stubs send them: that is why the
//! server is told the names of the oneway methods.
//!
//! An application exception ends its connection once it is sent: the generated code
//! does not read the arguments of a method that it does not know, or all of them when
//! one is bad, so what follows could not be told from them. One that the interface
//! declares is a reply like others.

use std::collections::HashMap;
use std::io;
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use thrift::protocol::{TInputProtocol, TMessageType, TStoredInputProtocol};
use thrift::server::TProcessor;

use crate::error::told;
use crate::rpc::channel::Channel;
use crate::rpc::connection::{Input, LONGEST_METHOD, Output, protocols};
use crate::rpc::identity::Identity;
use crate::shutdown::Shutdown;

/// Stack of a connection's thread; only what is used takes memory.
const STACK: usize = 1024 * 1024;

/// How often the system is asked for a port that is free at several addresses.
const CHOICES: usize = 16;

/// A pause after a failed accept (no file descriptors left, say), lest it spin.
const BREATH: Duration = Duration::from_millis(50);

/// What one server takes at the most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once; one more is closed at once.
    pub connections: usize,
    /// How long a connection may be open without a call.
    pub idle: Duration,
    /// How long a peer may take to show its certificate, where one is asked for.
    pub handshake: Duration,
    /// How long a message may take to come once begun, and a reply to be taken.
    pub message: Duration,
    /// How long a stop waits for the calls that were begun.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            idle: Duration::from_secs(600),
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(20),
            farewell: Duration::from_secs(5),
        }
    }
}

/// What a server knows of its methods, by their names.
#[derive(Debug, Clone, Default)]
pub struct Methods {
    /// Those that are never answered.
    pub oneway: Vec<String>,
    /// Those that are not for everybody: for callers on the same machine, and for
    /// those who have shown a certificate.
    pub local: Vec<String>,
}

/// A claimed port, on one or more addresses of this host.
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: Limits,
    identity: Option<Identity>,
    stopper: Stopper,
}

/// Stops a server from any thread.
#[derive(Clone)]
pub struct Stopper {
    state: Arc<State>,
}

struct State {
    stopped: Shutdown,
    /// Where the listeners are, to wake them for a stop.
    listening: Vec<SocketAddr>,
    /// The connections that are open, by a number each.
    open: Mutex<HashMap<u64, Arc<TcpStream>>>,
    /// Notified when a connection has closed.
    closed: Condvar,
    next: AtomicU64,
}

impl Server {
    /// Claims `port` at every one of `addresses`; with port 0, one that is free at all of them.
    ///
    /// # Errors
    /// The port is taken at one of them, or an address is not this host's.
    pub fn bind(addresses: &[IpAddr], port: u16, limits: Limits) -> io::Result<Server> {
        let mut listeners = listen(addresses, port);
        for _ in 1..CHOICES {
            if port != 0 || listeners.is_ok() {
                break;
            }
            listeners = listen(addresses, port);
        }
        let listeners = listeners?;
        let listening = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let state = State {
            stopped: Shutdown::new(),
            listening,
            open: Mutex::default(),
            closed: Condvar::new(),
            next: AtomicU64::new(0),
        };
        Ok(Server {
            listeners,
            limits,
            identity: None,
            stopper: Stopper {
                state: Arc::new(state),
            },
        })
    }

    /// The same server, but for those only who show a certificate of the identity's CA.
    pub fn secured_by(mut self, identity: Option<Identity>) -> Server {
        self.identity = identity;
        self
    }

    /// The port that was claimed.
    pub fn port(&self) -> u16 {
        self.stopper
            .state
            .listening
            .first()
            .map_or(0, SocketAddr::port)
    }

    /// A handle to stop this server with.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves calls until [`Stopper::stop`], then until the calls that were begun
    /// have ended, for [`Limits::farewell`] at most.
    ///
    /// Handlers are called on the thread of their connection and may block; each
    /// connection has one call at a time.
    pub fn run<P>(self, processor: P, methods: Methods)
    where
        P: TProcessor + Send + Sync + 'static,
    {
        let service = Arc::new(Service {
            processor,
            methods,
            limits: self.limits,
            identity: self.identity,
            state: self.stopper.state.clone(),
        });
        for listener in self.listeners {
            let accepting = service.clone();
            if spawn("accept", move || accepting.accept(&listener)).is_none() {
                warn!("no thread could be started to accept connections: the server ends");
                service.state.stopped.request();
            }
        }
        service.state.stopped.wait();
        service.state.close(service.limits.farewell);
    }
}

impl Stopper {
    /// Tells the server to accept no more and end; returns at once.
    pub fn stop(&self) {
        self.state.stopped.request();
        for address in &self.state.listening {
            // An accept wakes up for a connection only.
            let _ = TcpStream::connect_timeout(&reachable(*address), Duration::from_secs(1));
        }
        self.state.end_reading();
    }
}

impl State {
    /// The open connections; held for a moment, never during a read or a write.
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every connection end as if its peer had closed it: a call that was
    /// begun is still answered.
    fn end_reading(&self) {
        for stream in self.open().values() {
            let _ = stream.shutdown(net::Shutdown::Read);
        }
    }

    fn close(&self, farewell: Duration) {
        self.end_reading();
        let deadline = Instant::now() + farewell;
        let mut open = self.open();
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!("{} calls had not ended when the server stopped", open.len());
                break;
            }
            open = self
                .closed
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        for stream in open.values() {
            let _ = stream.shutdown(net::Shutdown::Both);
        }
    }
}

/// What every connection's thread shares.
struct Service<P> {
    processor: P,
    methods: Methods,
    limits: Limits,
    identity: Option<Identity>,
    state: Arc<State>,
}

impl<P: TProcessor + Send + Sync + 'static> Service<P> {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut complained = false;
        while !self.state.stopped.is_requested() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    complained = false;
                    self.admit(stream, peer);
                }
                Err(e) => {
                    if !complained {
                        warn!("cannot accept connections for now: {e}");
                    }
                    complained = true;
                    thread::sleep(BREATH);
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = Connection::new(self.state.clone(), stream, &self.limits) else {
            return warn!("closed the connection of {peer}: too many are open");
        };
        let service = self.clone();
        let talk = move || match service.converse(&connection, peer) {
            Ok(()) => debug!("{peer} has closed its connection"),
            Err(why) => warn!("closed the connection of {peer}: {why}"),
        };
        if spawn("connection", talk).is_none() {
            warn!("closed the connection of {peer}: no thread could be started");
        }
    }

    /// Answers calls until the peer closes, the server stops, a message cannot be
    /// understood, or a call ends in an exception; tells why, if there is a reason.
    fn converse(&self, connection: &Connection, peer: SocketAddr) -> Result<(), String> {
        let channel = connection
            .channel(&self.limits, self.identity.as_ref())
            .map_err(|e| e.to_string())?;
        let Some(channel) = channel else {
            return Ok(());
        };
        let is_trusted = self.identity.is_some() || is_of_this_machine(peer, channel.stream());
        let (mut input, mut output) = protocols(channel, self.limits.message);
        while !self.state.stopped.is_requested() {
            if !input
                .transport
                .begins(self.limits.idle)
                .map_err(|e| e.to_string())?
            {
                break;
            }
            self.answer(&mut input, &mut output, is_trusted)
                .map_err(|e| told(&e))?;
            if let Some(exception) = output.transport.exception() {
                return Err(exception.to_owned());
            }
        }
        Ok(())
    }

    /// Answers one call. One that is refused ends the connection: what follows its
    /// name is not read.
    fn answer(
        &self,
        input: &mut Input,
        output: &mut Output,
        is_trusted: bool,
    ) -> thrift::Result<()> {
        let message = input.read_message_begin()?;
        if message.name.len() > LONGEST_METHOD {
            // It would be repeated in the answer and in the log.
            let length = message.name.len();
            let alien = format!("a method whose name has {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, alien).into());
        }
        let Methods { oneway, local } = &self.methods;
        if !is_trusted && local.contains(&message.name) {
            let whom = "is taken from this machine only, or under TLS";
            return Err(format!("refused {}(): it {whom}", message.name).into());
        }
        let oneway = message.message_type == TMessageType::OneWay || oneway.contains(&message.name);
        output.transport.mute(oneway);
        self.processor
            .process(&mut TStoredInputProtocol::new(input, message), output)
    }
}

/// An open connection, counted as such until it is dropped.
struct Connection {
    state: Arc<State>,
    number: u64,
    stream: Arc<TcpStream>,
}

impl Connection {
    /// Registers the connection, unless there are too many.
    fn new(state: Arc<State>, stream: TcpStream, limits: &Limits) -> Option<Connection> {
        let number = state.next.fetch_add(1, Relaxed);
        let stream = Arc::new(stream);
        let mut open = state.open();
        if open.len() >= limits.connections {
            return None;
        }
        open.insert(number, stream.clone());
        drop(open);
        Some(Connection {
            state,
            number,
            stream,
        })
    }

    /// The connection, ready for calls; none if the peer went without having said anything.
    fn channel(&self, limits: &Limits, identity: Option<&Identity>) -> io::Result<Option<Channel>> {
        let stream = &self.stream;
        stream.set_nodelay(true)?;
        let channel = match identity {
            None => Some(Channel::Plain(stream.clone())),
            Some(identity) => {
                stream.set_read_timeout(Some(limits.handshake))?;
                stream.set_write_timeout(Some(limits.handshake))?;
                let session = identity.answer(stream.clone(), limits.handshake, limits.message)?;
                session.map(|session| Channel::Tls(Arc::new(session)))
            }
        };
        stream.set_read_timeout(Some(limits.message))?;
        stream.set_write_timeout(Some(limits.message))?;
        Ok(channel)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.open().remove(&self.number);
        self.state.closed.notify_all();
    }
}

/// Does the peer call from this very machine: over loopback, or from the address that
/// it called?
fn is_of_this_machine(peer: SocketAddr, stream: &TcpStream) -> bool {
    let peer = peer.ip().to_canonical();
    let called = stream.local_addr().map(|called| called.ip().to_canonical());
    peer.is_loopback() || called.is_ok_and(|called| called == peer)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Option<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(body)
        .ok()
}

/// Listens at every one of `addresses`, at one port.
fn listen(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let port = match listeners.first() {
            Some(first) => first.local_addr()?.port(),
            None => port,
        };
        listeners.push(TcpListener::bind((*address, port))?);
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
