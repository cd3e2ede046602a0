//! `Switch`: forwards the frames of hosts to each other, in a thread of the test, with the faults
//! of [`Links`].
//!
//! Each port is a packet socket on the switch's end of a veth pair. The other end is in the
//! namespace of a host. The switch reads a frame from the port of its sender, and writes it to the
//! port of its receiver, at once or after the delay of the link.
//!
//! Why not by the kernel: `tc … netem` and `nft` are not everywhere. Without them a host could be
//! given a wrong hardware address of another one, which cuts a link but cannot delay it, and takes
//! one command for each direction of each link. In the switch, a split takes effect for all links
//! at once. The sockets have large buffers, so nothing but a fault drops a frame.
//!
//! The kernel leaves the checksum of a frame to the network card, and may leave several segments of
//! a TCP stream in one frame. So each frame is read and written with the header in which it says
//! so ([`VnetHeader`]). A lossy link loses such a frame as a whole.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};
use nix::{libc, setsockopt_impl, sockopt_impl};

use super::links::Links;

sockopt_impl!(
    /// A packet socket reads and writes each frame after a header of [`VNET_HEADER`] bytes.
    VnetHeader,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool
);

/// The size of the header that says what the kernel still has to do with a frame.
const VNET_HEADER: usize = 10;

/// The largest frame, with both headers.
const MAX_FRAME: usize = 70_000;

/// The frames that are read from one port before the next port's turn.
const FRAMES_PER_TURN: usize = 64;

/// The frames that wait for the switch, in bytes for each port.
const BUFFER: usize = 16 << 20;

/// The start of all hardware addresses. The last byte is the number of the host.
const PREFIX: [u8; 5] = [0x02, 0, 0, 0, 0];

/// The hardware address of a host, as `ip` takes it.
pub fn hardware_address(host: usize) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

/// Opens the port with this name. Called in the namespace of the switch.
pub fn open_port(name: &str) -> nix::Result<OwnedFd> {
    let every = SockProtocol::EthAll;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let port = socket(AddressFamily::Packet, SockType::Raw, flags, every)?;
    let interface = getifaddrs()?.find_map(|interface| {
        let address = interface.address?;
        (interface.interface_name == name).then(|| address.as_link_addr().copied())?
    });
    bind(port.as_raw_fd(), &interface.ok_or(Errno::ENODEV)?)?;
    setsockopt(&port, VnetHeader, &true)?;
    setsockopt(&port, RcvBufForce, &BUFFER)?;
    Ok(port)
}

/// A running switch. It is stopped when dropped.
pub struct Switch {
    links: Arc<Mutex<Links>>,
    /// The thread ends when this is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch with these ports, one for each host.
    pub fn start(ports: Vec<OwnedFd>) -> Switch {
        let links = Arc::new(Mutex::new(Links::new(ports.len())));
        let (stop, stopped) = UnixStream::pair().unwrap();
        let forwarder = Forwarder {
            ports,
            links: links.clone(),
            delayed: BTreeMap::new(),
            sent: 0,
        };
        Switch {
            links,
            stop: Some(stop),
            thread: Some(thread::spawn(move || forwarder.run(&stopped))),
        }
    }

    /// The links. No frame is forwarded while they are locked.
    pub fn links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || ended.is_none_or(|ended| ended.is_ok()),
            "the switch has failed"
        );
    }
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A frame on its way.
struct Frame {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// What the thread of a switch owns.
struct Forwarder {
    ports: Vec<OwnedFd>,
    links: Arc<Mutex<Links>>,
    /// By the time at which they arrive. Their numbers keep frames of the same time in order.
    delayed: BTreeMap<(Instant, u64), Frame>,
    /// The number of the last frame that was delayed.
    sent: u64,
}

impl Forwarder {
    fn run(mut self, stopped: &UnixStream) {
        let mut buffer = vec![0; MAX_FRAME];
        while !self.wait(stopped) {
            let links = self.links.clone();
            let mut links = lock(&links);
            for from in 0..self.ports.len() {
                self.read(from, &mut buffer, &mut links);
            }
            self.deliver_delayed(&mut links);
        }
    }

    /// Waits for a frame, or until a delayed one arrives. Returns whether the switch is stopped.
    fn wait(&self, stopped: &UnixStream) -> bool {
        let ports = self.ports.iter().map(AsFd::as_fd);
        let all = ports.chain([stopped.as_fd()]);
        let mut all: Vec<PollFd> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let next = self.delayed.first_key_value();
        let timeout = next.map_or(PollTimeout::NONE, |((time, _), _)| {
            let left = time.saturating_duration_since(Instant::now());
            // The timeout has whole milliseconds: round it up.
            let left = left + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut all, timeout) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(e) => panic!("the switch cannot wait: {e}"),
        }
        all.last().and_then(PollFd::any) == Some(true)
    }

    /// Forwards the frames that wait at a port.
    fn read(&mut self, from: usize, buffer: &mut [u8], links: &mut Links) {
        for _ in 0..FRAMES_PER_TURN {
            let port = self.ports[from].as_raw_fd();
            let size = match recv(port, buffer, MsgFlags::empty()) {
                Ok(size) => size,
                Err(Errno::EAGAIN) => return,
                Err(e) => panic!("the switch cannot read from port {from}: {e}"),
            };
            let bytes = &buffer[..size];
            let Some(to) = receiver(bytes).filter(|to| *to < links.hosts()) else {
                continue;
            };
            match links.admit(from, to) {
                None => (),
                Some(Duration::ZERO) => self.write(to, bytes),
                Some(delay) => {
                    let bytes = bytes.to_vec();
                    self.sent += 1;
                    let key = (Instant::now() + delay, self.sent);
                    self.delayed.insert(key, Frame { from, to, bytes });
                }
            }
        }
    }

    fn deliver_delayed(&mut self, links: &mut Links) {
        let now = Instant::now();
        while let Some(next) = self
            .delayed
            .first_entry()
            .filter(|next| next.key().0 <= now)
        {
            let frame = next.remove();
            if links.arrives(frame.from, frame.to) {
                self.write(frame.to, &frame.bytes);
            }
        }
    }

    fn write(&self, to: usize, bytes: &[u8]) {
        let port = self.ports[to].as_raw_fd();
        match send(port, bytes, MsgFlags::empty()) {
            // As a switch does whose queue is full.
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => (),
            Err(e) => panic!("the switch cannot write to port {to}: {e}"),
        }
    }
}

/// The host to which a frame is sent. None if it is sent to several ones.
fn receiver(bytes: &[u8]) -> Option<usize> {
    let frame = bytes.get(VNET_HEADER..)?;
    let last = frame.strip_prefix(&PREFIX)?.first()?;
    Some(usize::from(*last))
}
