//! `drive`: threads that call, one call after another each, and the callers of a store.

use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::client::{Links, Patience};
use thrifty_p2p::store::operations::Client;

use crate::report::Report;

/// Who makes the calls of one thread, over a connection of its own.
pub trait Caller: Send {
    /// Makes one call; was it answered? Nothing when there are no more to make.
    fn call(&mut self) -> Option<bool>;
}

/// Lets every caller call on a thread of its own, for `time` after a `warm_up` that
/// is not measured, or until it has no more calls to make.
pub fn drive(callers: Vec<impl Caller>, warm_up: Duration, time: Duration) -> Report {
    let begin = Instant::now() + warm_up;
    let end = begin + time;
    let mut times = Vec::new();
    let mut failed = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = callers
            .into_iter()
            .map(|caller| scope.spawn(move || calls(caller, begin, end)))
            .collect();
        for thread in threads {
            let (more, lost) = thread.join().expect("no caller panics");
            times.extend(more);
            failed += lost;
        }
    });
    Report::new(times, failed, begin.elapsed().min(time))
}

fn calls(mut caller: impl Caller, begin: Instant, end: Instant) -> (Vec<u64>, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut before = Instant::now();
    while let Some(answered) = caller.call() {
        let now = Instant::now();
        if now >= end {
            break;
        }
        if before >= begin && answered {
            times.push((now - before).as_nanos() as u64);
        }
        failed += usize::from(!answered);
        before = now;
    }
    (times, failed)
}

/// A load on one node of a store.
pub struct Load {
    /// The node.
    pub peer: Location,
    /// How many callers there are.
    pub connections: usize,
    /// How many keys are read and written.
    pub keys: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// The share of reads among the calls.
    pub read_share: f64,
    /// Call `get` and `put` instead of `fetch` and `write`.
    pub original: bool,
}

impl Load {
    /// The key of this number.
    pub fn key(number: usize) -> Vec<u8> {
        format!("key{number:09}").into_bytes()
    }

    /// Callers that write every key once, together.
    pub fn fillers(&self) -> Vec<StoreCaller<'_>> {
        self.callers(|number, caller| {
            caller.left = Some((number..self.keys).step_by(self.connections))
        })
    }

    /// Callers that read and write random keys for ever.
    pub fn loaders(&self) -> Vec<StoreCaller<'_>> {
        self.callers(|_, _| ())
    }

    fn callers(&self, set_up: impl Fn(usize, &mut StoreCaller<'_>)) -> Vec<StoreCaller<'_>> {
        (0..self.connections)
            .map(|number| {
                let mut caller = StoreCaller {
                    load: self,
                    links: Links::new(StoreSyncClient::new, Patience::default()),
                    value: vec![b'v'; self.value_size],
                    random: number as u64,
                    left: None,
                };
                set_up(number, &mut caller);
                caller
            })
            .collect()
    }
}

/// One connection's calls to a store.
pub struct StoreCaller<'a> {
    load: &'a Load,
    links: Links<Client>,
    value: Vec<u8>,
    /// The state of a generator of random numbers.
    random: u64,
    /// The keys to be written, by one who fills.
    left: Option<std::iter::StepBy<std::ops::Range<usize>>>,
}

impl StoreCaller<'_> {
    /// The next random number (splitmix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn read(&self, key: Vec<u8>) -> Result<(), Error> {
        let original = self.load.original;
        self.links.call(&self.load.peer, |client| {
            if original {
                client.get(key.clone()).map(|_| ())
            } else {
                client.fetch(key.clone()).map(|_| ())
            }
        })
    }

    fn write(&self, key: Vec<u8>) -> Result<(), Error> {
        let original = self.load.original;
        self.links.call(&self.load.peer, |client| {
            if original {
                client.put(key.clone(), self.value.clone())
            } else {
                client.write(key.clone(), self.value.clone()).map(|_| ())
            }
        })
    }
}

impl Caller for StoreCaller<'_> {
    fn call(&mut self) -> Option<bool> {
        if let Some(left) = &mut self.left {
            let key = Load::key(left.next()?);
            let fill = |client: &mut Client| client.write(key.clone(), self.value.clone());
            return Some(self.links.call(&self.load.peer, fill).is_ok());
        }
        let key = Load::key((self.random() % self.load.keys as u64) as usize);
        let is_read = (self.random() >> 11) as f64 / (1u64 << 53) as f64 <= self.load.read_share;
        Some(if is_read {
            self.read(key).is_ok()
        } else {
            self.write(key).is_ok()
        })
    }
}
