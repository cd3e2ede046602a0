//! Strangers who open, fill, dribble and garble connections, until they are told to stop.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::raw::message;

/// File descriptors that a test needs for other things than its connections.
const OTHERS: usize = 500;

/// Raises this process's limit of file descriptors as far as it goes; how many
/// connections a test may open, `wanted` at the most.
pub fn may_open(wanted: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    wanted.min((hard as usize).saturating_sub(OTHERS))
}

/// What strangers attack, and whether they still should.
pub struct Siege<'a> {
    /// Where the nodes are.
    pub nodes: &'a [String],
    /// The key of a large value.
    pub large: &'a str,
    pub is_over: AtomicBool,
}

impl Siege<'_> {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    fn node(&self, number: usize) -> &str {
        &self.nodes[number % self.nodes.len()]
    }

    /// A connection, if the node takes one now.
    fn connect(&self, number: usize) -> Option<TcpStream> {
        let address = self.node(number).parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let briefly = Some(Duration::from_millis(20));
        stream.set_write_timeout(briefly).unwrap();
        stream.set_read_timeout(briefly).unwrap();
        Some(stream)
    }

    /// Opens `many` connections to the first node and leaves them, and then one after
    /// another again, the oldest first; returns how often one was opened.
    pub fn opens_and_leaves(&self, many: usize) -> usize {
        let mut left = VecDeque::new();
        let mut opened = 0;
        while self.goes_on() {
            if left.len() == many {
                left.pop_front();
                thread::sleep(Duration::from_millis(2));
            }
            left.extend(self.connect(0));
            opened += 1;
        }
        opened
    }

    /// Sends a call on each of `many` connections, a byte a second.
    pub fn dribbles(&self, many: usize) {
        let call = message("get", &[0x0b, 0, 1, 0, 0, 0, 1, b'a', 0]);
        let mut connections: Vec<_> = (0..many).map(|number| (self.connect(number), 0)).collect();
        while self.goes_on() {
            for (number, (stream, sent)) in connections.iter_mut().enumerate() {
                let byte = &call[*sent..*sent + 1];
                let taken = stream.as_mut().is_some_and(|s| s.write_all(byte).is_ok());
                *sent = (*sent + 1) % call.len();
                if !taken {
                    (*stream, *sent) = (self.connect(number), 0);
                }
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Asks for a large value on `many` connections, time and again, and reads none.
    pub fn never_reads(&self, many: usize) {
        let key = self.large.as_bytes();
        let mut arguments = vec![0x0b, 0, 1];
        arguments.extend((key.len() as u32).to_be_bytes());
        arguments.extend(key);
        arguments.push(0);
        let calls = message("get", &arguments).repeat(100);
        let mut connections: Vec<_> = (0..many).map(|number| self.connect(number)).collect();
        while self.goes_on() {
            for (number, stream) in connections.iter_mut().enumerate() {
                let failed = match stream {
                    // One whose calls are not taken any more is left as it is.
                    Some(stream) => stream.write_all(&calls).is_err_and(|e| !is_timeout(&e)),
                    None => true,
                };
                if failed {
                    *stream = self.connect(number);
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Begins a call on each of `many` connections and goes no further; time and again.
    pub fn begins_and_stops(&self, many: usize) {
        let begun = &message("get", &[])[..11];
        while self.goes_on() {
            let mut left = Vec::new();
            for number in 0..many {
                left.extend(self.connect(number));
                if let Some(stream) = left.last_mut() {
                    // Whether it is taken or not is the node's affair.
                    let _ = stream.write_all(begun);
                }
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Sends one of `calls`, changed here and there, or what was never a call, on one
    /// connection after another.
    pub fn garbles(&self, calls: &[Vec<u8>], seed: u64) {
        let mut random = Random(seed);
        for number in 0.. {
            if !self.goes_on() {
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
                // An answer, the end, a reset or nothing: each is fine.
                let _ = stream.write_all(&bytes);
                let _ = stream.read(&mut [0; 1000]);
            }
        }
    }

    /// Opens connections and closes them at once.
    pub fn comes_and_goes(&self) {
        for number in 0.. {
            if !self.goes_on() {
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

/// Numbers that look random, the same for the same seed (xorshift).
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
