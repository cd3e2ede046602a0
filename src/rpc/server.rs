//! `Server`: blocking, threaded service of Thrift calls, one thread a connection.
//!
//! The Thrift crate's own `TServer` has a fixed pool of workers, one per
//! *connection*: two nodes that forward to each other exhaust it and stand still.
//! It cannot be stopped, and bounds neither connections nor waits. This one keeps
//! its promise of being prompt in both directions: a port is claimed before
//! anything is announced, and a stop lets calls that were begun end, then closes.
//!
//! What a stranger may do to it is bounded ([`Limits`]): the number of connections, in
//! all and from one address, the size of messages, strings and lists, the time that a
//! message may take to come, a reply to go, and a connection to say nothing. Whatever is
//! not Thrift costs its own connection and one line in the log, of which there are not
//! more than some a second. All of it is counted ([`Traffic`]).
//!
//! Nobody is turned away: when too many are connected, those that were idle the longest
//! make room, first those that never made a call, so that no crowd of strangers shuts
//! out the network's own gossip.
//!
//! When a connection cannot be accepted, because no file descriptor is left, say, idle
//! ones are closed too, and it is tried again after a moment. When no thread can be
//! started, the connection is closed, and the next is accepted after a moment.
//!
//! With an [`Identity`], nobody without a certificate of the same CA gets anything;
//! hands are shaken on the connection's own thread. Without one, everybody who can
//! connect can call every method but the *local* ones: these are for callers on the
//! same machine, which are those of loopback and of the address that they called.
//!
//! Calls that a [`Shortcut`] knows never get as far as the generated code: they are looked
//! for first, in what was read ahead, and none of them is oneway or local.
//!
//! Oneway calls are never answered, not even by an exception, and not even when
//! they come as ordinary ones, as the original's stubs send them: that is why the
//! server is told the names of the oneway methods.
//!
//! An application exception ends its connection once it is sent: the generated code
//! does not read the arguments of a method that it does not know, or all of them when
//! one is bad, so what follows could not be told from them. One that the interface
//! declares is a reply like others.

use std::io::{self, Write};
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::sys::socket::Backlog;
use thrift::protocol::{TInputProtocol, TMessageType, TStoredInputProtocol};
use thrift::server::TProcessor;
use thrift::{ProtocolError, ProtocolErrorKind};

use crate::error::told;
use crate::rpc::acceptor::{Door, keep_accepting};
use crate::rpc::channel::Channel;
use crate::rpc::complaints::Complaints;
use crate::rpc::connection::{Begun, Input, LONGEST_MESSAGE, LONGEST_METHOD, Output, protocols};
use crate::rpc::crowd::{Crowd, LastUse};
use crate::rpc::identity::Identity;
use crate::rpc::shortcut::Shortcut;
use crate::rpc::traffic::{Counters, Reason, Traffic};
use crate::rpc::turn::{Turn, Wait};
use crate::shutdown::Shutdown;

/// Stack of a connection's thread; only what is used takes memory.
const STACK: usize = 1024 * 1024;

/// How often the system is asked for a port that is free at several addresses.
const CHOICES: usize = 16;

/// A pause after a failed accept (no file descriptors left, say), lest it spin.
const BREATH: Duration = Duration::from_millis(50);

/// What the system says when the process, or the host, has no file descriptor left.
const TOO_MANY_HERE: i32 = nix::libc::EMFILE;
const TOO_MANY_ON_HOST: i32 = nix::libc::ENFILE;

/// What one server takes at the most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once, one at the least; for one more, idle ones are closed.
    pub connections: usize,
    /// The same from one address of another host.
    pub connections_of_address: usize,
    /// The same from one loopback address, which all programs of this host share, those
    /// of the network among them.
    pub connections_of_loopback: usize,
    /// How long a connection may be open without a call, but for the first one. A
    /// message that pauses for so long is given up too.
    pub idle: Duration,
    /// How long it may be open before its first call, if that is shorter: whoever
    /// connects has something to say.
    pub first: Duration,
    /// How long a peer may take to show its certificate, where one is asked for.
    pub handshake: Duration,
    /// How long a message may take to come once begun, and a reply to be taken. An idle
    /// connection is looked at so often.
    pub message: Duration,
    /// The most bytes of one message that comes.
    pub longest: usize,
    /// How long a stop waits for the calls that were begun.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            connections_of_address: 1_000,
            connections_of_loopback: 10_000,
            idle: Duration::from_secs(600),
            first: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(20),
            longest: LONGEST_MESSAGE,
            farewell: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// How many connections `address` may have, if that is fewer than all.
    fn of_address(&self, address: IpAddr) -> Option<usize> {
        let most = if address.to_canonical().is_loopback() {
            self.connections_of_loopback
        } else {
            self.connections_of_address
        };
        (most < self.connections).then_some(most)
    }

    /// How long a single read may wait.
    fn tick(&self) -> Duration {
        self.message.min(self.idle).min(self.first)
    }
}

/// What a server knows of its methods, by their names.
#[derive(Clone, Default)]
pub struct Methods {
    /// Those that are never answered.
    pub oneway: Vec<String>,
    /// Those that are not for everybody: for callers on the same machine, and for
    /// those who have shown a certificate.
    pub local: Vec<String>,
    /// What answers some of them past the processor; none of those above.
    pub shortcut: Option<Arc<dyn Shortcut>>,
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
    /// The connections that are open, and in order.
    open: Mutex<Crowd<Arc<TcpStream>>>,
    /// Notified when a connection has closed.
    closed: Condvar,
    counters: Counters,
    complaints: Complaints,
}

/// Tells what has come to a server, from any thread, also after it has ended.
#[derive(Clone)]
pub struct Meter {
    state: Arc<State>,
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
            open: Mutex::new(Crowd::new()),
            closed: Condvar::new(),
            counters: Counters::default(),
            complaints: Complaints::default(),
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

    /// What tells the traffic of this server.
    pub fn meter(&self) -> Meter {
        Meter {
            state: self.stopper.state.clone(),
        }
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
            let door = service.clone();
            let accept = move || keep_accepting(&listener, &door.state.stopped, &door);
            if spawn("acceptors", accept).is_none() {
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

impl Meter {
    /// What has come so far.
    pub fn traffic(&self) -> Traffic {
        let open = self.state.open().len();
        self.state.counters.traffic(open)
    }
}

impl State {
    /// The open connections; held for a moment, never during a read or a write.
    fn open(&self) -> MutexGuard<'_, Crowd<Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every connection end as if its peer had closed it: a call that was
    /// begun is still answered.
    fn end_reading(&self) {
        for stream in self.open().connections() {
            let _ = stream.shutdown(net::Shutdown::Read);
        }
    }

    /// Closes connections that were taken out; their threads then end.
    fn dismiss(&self, reason: Reason, gone: &[Arc<TcpStream>], why: impl FnOnce() -> String) {
        if gone.is_empty() {
            return;
        }
        self.counters.close(reason, gone.len());
        self.complaints.tell(|| {
            let peer = gone[0].peer_addr().map(|peer| peer.to_string());
            let peer = peer.unwrap_or_else(|_| "one that has gone itself".into());
            format!(
                "closed {} idle connections, that of {peer} first: {}",
                gone.len(),
                why()
            )
        });
        for stream in gone {
            let _ = stream.shutdown(net::Shutdown::Both);
        }
    }

    /// Tells why a connection ends, and counts it.
    fn tell_end(&self, peer: SocketAddr, end: End) {
        if let Some(reason) = end.reason {
            self.counters.close(reason, 1);
        }
        if end.reason == Some(Reason::Idle) {
            debug!("closed the connection of {peer}: {}", end.why);
        } else {
            let line = || format!("closed the connection of {peer}: {}", end.why);
            self.complaints.tell(line);
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
        for stream in open.connections() {
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

/// Why a conversation ends that the peer has not ended between two calls.
struct End {
    /// None if the peer broke it off.
    reason: Option<Reason>,
    why: String,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End {
            reason: match error.kind() {
                io::ErrorKind::InvalidData => Some(Reason::Garbage),
                io::ErrorKind::TimedOut => Some(Reason::Slow),
                _ => None,
            },
            why: error.to_string(),
        }
    }
}

impl<P: TProcessor + Send + Sync + 'static> Door for Arc<Service<P>> {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let connection = Connection::new(&self.state, stream, peer.ip(), &self.limits);
        let service = self.clone();
        let talk = move || match service.converse(&connection, peer) {
            Ok(()) => debug!("{peer} has closed its connection"),
            Err(end) => service.state.tell_end(peer, end),
        };
        if spawn("connection", talk).is_none() {
            let why = "no thread could be started".to_owned();
            let reason = Some(Reason::NoThread);
            self.state.tell_end(peer, End { reason, why });
            thread::sleep(BREATH);
        }
    }

    fn recover(&self, error: &io::Error) {
        let state = &self.state;
        state.counters.fail_accept();
        let line = || format!("cannot accept connections for now: {error}");
        state.complaints.tell(line);
        if matches!(error.raw_os_error(), Some(TOO_MANY_HERE | TOO_MANY_ON_HOST)) {
            let gone = {
                let mut open = state.open();
                let all = open.len();
                open.make_room(state.counters.newest(), all)
            };
            let why = || "no file descriptors are left".into();
            state.dismiss(Reason::CrowdedOut, &gone, why);
        }
        thread::sleep(BREATH);
    }
}

impl<P: TProcessor + Send + Sync + 'static> Service<P> {
    /// Answers calls until the peer closes, the server stops, nothing comes for too
    /// long, a message cannot be understood, or a call ends in an exception.
    fn converse(&self, connection: &Connection, peer: SocketAddr) -> Result<(), End> {
        let Some(channel) = connection.channel(&self.limits, self.identity.as_ref())? else {
            return Ok(());
        };
        let is_trusted = self.identity.is_some() || is_of_this_machine(peer, channel.stream());
        let (mut input, mut output) = protocols(channel, self.limits.message, self.limits.longest);
        let mut idle = self.limits.first.min(self.limits.idle);
        let mut turn = Turn::new(self.state.counters.calls());
        let mut wait = Wait::Asleep;
        while !self.state.stopped.is_requested() {
            match input.transport.begins(idle, wait)? {
                Begun::Message => (),
                Begun::End => break,
                Begun::Nothing => {
                    let (reason, why) = (Some(Reason::Idle), format!("no call for {idle:?}"));
                    return Err(End { reason, why });
                }
            }
            let answered = match self.answer_shortly(&mut input, &mut output) {
                Some(answered) => answered,
                None => self.answer(&mut input, &mut output, is_trusted),
            };
            let (reason, why) = match (&answered, output.transport.exception()) {
                (Err(e), _) => (Reason::of(e), told(e)),
                (Ok(()), Some(exception)) => (Some(Reason::Exception), exception.to_owned()),
                (Ok(()), None) => {
                    wait = turn.served(self.state.counters.call());
                    connection.last_use.served(self.state.counters.newest());
                    idle = self.limits.idle;
                    continue;
                }
            };
            return Err(match input.transport.failure() {
                Some(io::ErrorKind::UnexpectedEof) => End {
                    reason: None,
                    why: "its peer has ended it in the middle of a message".into(),
                },
                Some(failure) => End {
                    reason: Reason::of_reading(failure),
                    why,
                },
                None => End { reason, why },
            });
        }
        Ok(())
    }

    /// Answers one call past the processor, if it came whole and is known to be answered so.
    fn answer_shortly(&self, input: &mut Input, output: &mut Output) -> Option<thrift::Result<()>> {
        let (input, output) = (&mut input.transport, &mut output.transport);
        let shortcut = self.methods.shortcut.as_ref()?;
        let at_hand = input.at_hand();
        let Some(length) = shortcut.answer(at_hand, output.message()) else {
            output.message().clear();
            return None;
        };
        let is_there = (1..=at_hand.len()).contains(&length);
        assert!(is_there, "a shortcut has answered {length} bytes");
        input.pass_over(length);
        output.mute(false);
        Some(output.flush().map_err(thrift::Error::from))
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
            return Err(ProtocolError::new(ProtocolErrorKind::InvalidData, alien).into());
        }
        let Methods { oneway, local, .. } = &self.methods;
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
    last_use: Arc<LastUse>,
    stream: Arc<TcpStream>,
}

impl Connection {
    /// Lets the connection in, and closes idle ones where there is no room for it.
    fn new(state: &Arc<State>, stream: TcpStream, from: IpAddr, limits: &Limits) -> Connection {
        let number = state.counters.open();
        let stream = Arc::new(stream);
        let most_of_one = limits.of_address(from);
        let (beside, crowded, last_use) = {
            let mut open = state.open();
            let beside = most_of_one
                .map(|most| open.make_room_beside(number, from, most))
                .unwrap_or_default();
            let crowded = open.make_room(number, limits.connections);
            (beside, crowded, open.enter(number, from, stream.clone()))
        };
        state.dismiss(Reason::AddressFull, &beside, || {
            let most = most_of_one.unwrap_or_default();
            format!("{most} from that address are open")
        });
        state.dismiss(Reason::CrowdedOut, &crowded, || {
            format!("{} are open", limits.connections)
        });
        Connection {
            state: state.clone(),
            number,
            last_use,
            stream,
        }
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
        stream.set_read_timeout(Some(limits.tick()))?;
        stream.set_write_timeout(Some(limits.message))?;
        Ok(channel)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.open().leave(self.number);
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
        let listener = TcpListener::bind((*address, port))?;
        // The standard library lets 128 connections wait to be accepted. Beyond that they
        // are tried anew by their host after a second, when gossip has long given up.
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
