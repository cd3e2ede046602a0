//! `drive`: threads that call, one call after another each, and the callers of a store.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::client::{self, Patience};
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
    /// Who calls it.
    pub caller: client::Caller,
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
    /// Calls each key's primary, instead of the one node.
    pub ring: Option<RingClient>,
}

impl Load {
    /// The key of this number.
    pub fn key(number: usize) -> Vec<u8> {
        format!("key{number:09}").into_bytes()
    }

    /// Callers that write every key once, together.
    pub fn fillers(&self) -> Result<Vec<StoreCaller<'_>>, Error> {
        let mut callers = self.loaders()?;
        for (number, caller) in callers.iter_mut().enumerate() {
            caller.left = Some((number..self.keys).step_by(self.connections));
        }
        Ok(callers)
    }

    /// Callers that read and write random keys for ever.
    pub fn loaders(&self) -> Result<Vec<StoreCaller<'_>>, Error> {
        (0..self.connections)
            .map(|number| self.caller(number))
            .collect()
    }

    fn caller(&self, number: usize) -> Result<StoreCaller<'_>, Error> {
        Ok(StoreCaller {
            load: self,
            client: self.connect()?,
            value: vec![b'v'; self.value_size],
            random: number as u64,
            left: None,
        })
    }

    fn connect(&self) -> Result<Client, Error> {
        self.caller
            .connect(Patience::default(), StoreSyncClient::new, &self.peer)
    }
}

/// One connection's calls to a store.
pub struct StoreCaller<'a> {
    load: &'a Load,
    client: Client,
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

    fn read(&mut self, key: Vec<u8>) -> thrift::Result<()> {
        if let Some(ring) = &self.load.ring {
            return ring.get(&key).map(|_| ()).map_err(|e| e.to_string().into());
        }
        if self.load.original {
            self.client.get(key).map(|_| ())
        } else {
            self.client.fetch(key).map(|_| ())
        }
    }

    fn write(&mut self, key: Vec<u8>) -> thrift::Result<()> {
        if let Some(ring) = &self.load.ring {
            return ring
                .put(&key, &self.value)
                .map_err(|e| e.to_string().into());
        }
        if self.load.original {
            self.client.put(key, self.value.clone())
        } else {
            self.client.write(key, self.value.clone()).map(|_| ())
        }
    }

    /// Was the call answered? If not, the next one goes over a new connection.
    fn answered(&mut self, outcome: thrift::Result<()>) -> bool {
        let Err(e) = outcome else { return true };
        debug!("{e}");
        if let Ok(client) = self.load.connect() {
            self.client = client;
        }
        false
    }
}

impl Caller for StoreCaller<'_> {
    fn call(&mut self) -> Option<bool> {
        let outcome = if let Some(left) = &mut self.left {
            let key = Load::key(left.next()?);
            self.client.write(key, self.value.clone()).map(|_| ())
        } else {
            let key = Load::key((self.random() % self.load.keys as u64) as usize);
            let is_read =
                (self.random() >> 11) as f64 / (1u64 << 53) as f64 <= self.load.read_share;
            if is_read {
                self.read(key)
            } else {
                self.write(key)
            }
        };
        Some(self.answered(outcome))
    }
}
