//! Attacks by untrusted clients: they open, fill, stall and corrupt connections until they are
//! stopped.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::raw::message;

/// File descriptors of this process that are not for the connections of an attack.
const RESERVED_DESCRIPTORS: usize = 500;

/// Raises this process's limit of file descriptors as far as possible. Returns how many
/// connections a test can open, at most `wanted`.
pub fn available_connections(wanted: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    wanted.min((hard as usize).saturating_sub(RESERVED_DESCRIPTORS))
}

/// The targets of an attack, and the request to stop it. Each method is one kind of attack,
/// which blocks until then.
pub struct Attack<'a> {
    /// The addresses of the nodes.
    pub nodes: &'a [String],
    /// The key of a large value.
    pub large: &'a str,
    pub is_stopped: AtomicBool,
}

impl Attack<'_> {
    fn is_running(&self) -> bool {
        !self.is_stopped.load(Relaxed)
    }

    fn node(&self, number: usize) -> &str {
        &self.nodes[number % self.nodes.len()]
    }

    /// A connection, if the node accepts one now.
    fn connect(&self, number: usize) -> Option<TcpStream> {
        let address = self.node(number).parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let short = Some(Duration::from_millis(20));
        stream.set_write_timeout(short).unwrap();
        stream.set_read_timeout(short).unwrap();
        Some(stream)
    }

    /// A connection flood: opens `count` connections to the first node and leaves them idle,
    /// then replaces the oldest ones. Returns how many it has opened in all.
    pub fn flood(&self, count: usize) -> usize {
        let mut idle = VecDeque::new();
        let mut opened = 0;
        while self.is_running() {
            if idle.len() == count {
                idle.pop_front();
                thread::sleep(Duration::from_millis(2));
            }
            idle.extend(self.connect(0));
            opened += 1;
        }
        opened
    }

    /// Sends a call on each of `count` connections, one byte a second.
    pub fn send_slowly(&self, count: usize) {
        let call = message("get", &[0x0b, 0, 1, 0, 0, 0, 1, b'a', 0]);
        let mut connections: Vec<_> = (0..count).map(|number| (self.connect(number), 0)).collect();
        while self.is_running() {
            for (number, (stream, sent)) in connections.iter_mut().enumerate() {
                let byte = &call[*sent..*sent + 1];
                let was_sent = stream.as_mut().is_some_and(|s| s.write_all(byte).is_ok());
                *sent = (*sent + 1) % call.len();
                if !was_sent {
                    (*stream, *sent) = (self.connect(number), 0);
                }
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Requests a large value on `count` connections, again and again, and reads no reply.
    pub fn never_read(&self, count: usize) {
        let key = self.large.as_bytes();
        let mut arguments = vec![0x0b, 0, 1];
        arguments.extend((key.len() as u32).to_be_bytes());
        arguments.extend(key);
        arguments.push(0);
        let calls = message("get", &arguments).repeat(100);
        let mut connections: Vec<_> = (0..count).map(|number| self.connect(number)).collect();
        while self.is_running() {
            for (number, stream) in connections.iter_mut().enumerate() {
                let has_failed = match stream {
                    // A connection that accepts no more calls stays open.
                    Some(stream) => stream.write_all(&calls).is_err_and(|e| !is_timeout(&e)),
                    None => true,
                };
                if has_failed {
                    *stream = self.connect(number);
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends the start of a call on each of `count` connections and never the rest, again and
    /// again.
    pub fn send_partial_calls(&self, count: usize) {
        let start = &message("get", &[])[..11];
        while self.is_running() {
            let mut streams = Vec::new();
            for number in 0..count {
                streams.extend(self.connect(number));
                if let Some(stream) = streams.last_mut() {
                    // The node may have closed the connection already.
                    let _ = stream.write_all(start);
                }
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Sends corrupted copies of `calls`, truncated calls and random bytes, each on a
    /// connection of its own.
    pub fn send_garbage(&self, calls: &[Vec<u8>], seed: u64) {
        let mut random = Random(seed);
        for number in 0.. {
            if !self.is_running() {
                return;
            }
            let mut bytes = calls[random.below(calls.len())].clone();
            match random.below(4) {
                0 => bytes = (0..random.below(300)).map(|_| random.byte()).collect(),
                1 => bytes.truncate(random.below(bytes.len())),
                _ => {
                    for _ in 0..1 + random.below(4) {
                        let at = random.below(bytes.len());
                        bytes[at] = random.byte();
                    }
                }
            }
            if let Some(mut stream) = self.connect(number) {
                // A reply, the end of the stream, a reset or a timeout are all allowed.
                let _ = stream.write_all(&bytes);
                let _ = stream.read(&mut [0; 1000]);
            }
        }
    }

    /// Opens connections and closes them at once.
    pub fn open_and_close(&self) {
        for number in 0.. {
            if !self.is_running() {
                return;
            }
            drop(self.connect(number));
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

/// A pseudo-random generator (xorshift). Equal seeds give equal numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
