//! The callers of a store: they read and write random keys, or write each key once.

use std::error;
use std::ops::Range;
use std::sync::Arc;

use clap::ValueEnum;
use log::debug;

use super::echo::Sizes;
use super::keys::{KEY, Keys, Random};
use super::{Caller, Outcome};
use crate::client::ring::RingClient;
use crate::diststore::{Pair, StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{self, Patience};
use crate::store::operations::Client;
use crate::store::table::Key;

/// A load on a store.
pub struct Load {
    /// Who calls.
    pub caller: client::Caller,
    /// The node that is called, or the one that tells of the others.
    pub peer: Location,
    /// How keys get to their owners.
    pub through: Through,
    /// How many callers there are.
    pub connections: usize,
    /// What is read and written.
    pub keys: Keys,
    /// Bytes of a value.
    pub value_size: usize,
    /// The share of reads among the calls.
    pub read_share: f64,
    /// Keys of a call.
    pub batch: usize,
    /// Call `get` and `put` instead of `fetch` and `write`, of one node with one key.
    pub original: bool,
}

/// How keys get to their owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Through {
    /// By the one node that is called
    Node,
    /// Each caller calls each key's primary itself, over connections of its own
    Ring,
    /// So does one client that all callers share: it sends what they ask at the same time
    /// in one message
    SharedRing,
}

impl Load {
    /// Callers that write every key once, together.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn fillers(&self) -> Result<Vec<StoreCaller<'_>>, Error> {
        let mut callers = self.callers()?;
        let count = self.keys.count();
        for (number, caller) in callers.iter_mut().enumerate() {
            let part = |number| count * number / self.connections;
            caller.left = Some(part(number)..part(number + 1));
        }
        Ok(callers)
    }

    /// Callers that read and write random keys for ever.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn callers(&self) -> Result<Vec<StoreCaller<'_>>, Error> {
        let shared = match self.through {
            Through::SharedRing => Some(Arc::new(self.ring()?)),
            Through::Node | Through::Ring => None,
        };
        let way = || match &shared {
            Some(shared) => Ok(Way::Ring(shared.clone())),
            None => self.connect(),
        };
        (0..self.connections)
            .map(|number| Ok(self.caller_by(way()?, number)))
            .collect()
    }

    /// So many callers that have made a call each, and make none from here on. One after
    /// the other: a server takes only some connections at one instant.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn idle(&self, count: usize) -> Result<Vec<StoreCaller<'_>>, Error> {
        let called = |number| {
            let mut caller = self.caller_by(self.connect()?, number);
            caller.call();
            Ok(caller)
        };
        (0..count).map(called).collect()
    }

    fn caller_by(&self, way: Way, number: usize) -> StoreCaller<'_> {
        StoreCaller {
            load: self,
            way,
            value: vec![b'v'; self.value_size],
            random: Random(number as u64),
            left: None,
        }
    }

    fn ring(&self) -> Result<RingClient, Error> {
        RingClient::of(self.caller.clone(), &self.peer)
    }

    fn connect(&self) -> Result<Way, Error> {
        match self.through {
            Through::Node => {
                let patience = Patience::default();
                let client = self
                    .caller
                    .connect(patience, StoreSyncClient::new, &self.peer)?;
                Ok(Way::Node(Box::new(client)))
            }
            Through::Ring | Through::SharedRing => Ok(Way::Ring(Arc::new(self.ring()?))),
        }
    }

    /// The names of the methods by which is read and written.
    pub fn methods(&self) -> [&'static str; 2] {
        match (self.original, self.batch) {
            (true, _) => ["get", "put"],
            (false, 1) => ["fetch", "write"],
            (false, _) => ["fetch_many", "write_many"],
        }
    }

    /// The bytes of a call that reads, in Thrift's binary protocol.
    pub fn sizes(&self) -> Sizes {
        const FIELD: usize = 3;
        const LENGTH: usize = 4;
        const LIST: usize = 1 + LENGTH;
        const STOP: usize = 1;
        let [method, _] = self.methods();
        let head = 4 + LENGTH + method.len() + 4;
        let key = LENGTH + KEY;
        let value = LENGTH + self.value_size;
        let found = FIELD + value + FIELD + 8 + STOP;
        let (request, reply) = match (self.original, self.batch) {
            (true, _) => (key, value),
            (false, 1) => (key, found),
            (false, count) => (LIST + count * key, LIST + count * found),
        };
        Sizes {
            request: head + FIELD + request + STOP,
            reply: head + FIELD + reply + STOP,
        }
    }
}

/// One connection's calls to a store.
pub struct StoreCaller<'a> {
    load: &'a Load,
    way: Way,
    value: Vec<u8>,
    random: Random,
    /// The places of the keys to be written, by one who fills.
    left: Option<Range<usize>>,
}

enum Way {
    Node(Box<Client>),
    Ring(Arc<RingClient>),
}

/// The operations of a call that was answered.
type Answer = Result<usize, Box<dyn error::Error>>;

impl StoreCaller<'_> {
    fn read(&mut self) -> Answer {
        if self.load.batch > 1 {
            return self.read_batch();
        }
        let key = self.any_key();
        let value = match &mut self.way {
            Way::Node(node) if self.load.original => Some(node.get(key)?),
            Way::Node(node) => node.fetch(key)?.value,
            Way::Ring(ring) => ring.get(&key)?,
        };
        self.check(value.as_ref())?;
        Ok(1)
    }

    /// A node answers for as many of the first keys as have values that fit a message.
    fn read_batch(&mut self) -> Answer {
        let keys: Vec<_> = (0..self.load.batch).map(|_| self.any_key()).collect();
        let values: Vec<_> = match &mut self.way {
            Way::Node(node) => {
                let found = node.fetch_many(keys)?;
                found.into_iter().map(|found| found.value).collect()
            }
            Way::Ring(ring) => ring.get_many(&keys)?,
        };
        values
            .iter()
            .try_for_each(|value| self.check(value.as_ref()))?;
        Ok(values.len())
    }

    fn write(&mut self, keys: Vec<Vec<u8>>) -> Answer {
        if self.load.batch > 1 {
            return self.write_batch(keys);
        }
        for key in keys {
            match &mut self.way {
                Way::Node(node) if self.load.original => node.put(key, self.value.clone())?,
                Way::Node(node) => drop(node.write(key, self.value.clone())?),
                Way::Ring(ring) => ring.put(&key, &self.value)?,
            }
        }
        Ok(1)
    }

    fn write_batch(&mut self, keys: Vec<Vec<u8>>) -> Answer {
        let value = &self.value;
        match &mut self.way {
            Way::Node(node) => {
                let pair = |key| Pair::new(Some(key), Some(value.clone()), 0);
                Ok(node.write_many(keys.into_iter().map(pair).collect())?.len())
            }
            Way::Ring(ring) => {
                let pair = |key| (Key::new(key), Some(&value[..]));
                let pairs: Vec<_> = keys.iter().map(|key| pair(key)).collect();
                Ok(ring.write_many(&pairs)?.len())
            }
        }
    }

    /// All keys were filled: what is found for one is a value of that size.
    fn check(&self, found: Option<&Vec<u8>>) -> Result<(), Box<dyn error::Error>> {
        match found.map(Vec::len) {
            Some(size) if size == self.load.value_size => Ok(()),
            Some(size) => Err(format!("a value of {size} bytes").into()),
            None => Err("no value".into()),
        }
    }

    fn any_key(&mut self) -> Vec<u8> {
        self.load.keys.any(&mut self.random).to_vec()
    }

    /// Writes the next keys of those that are left; nothing if none are.
    fn fill(&mut self) -> Option<Answer> {
        let keys = &self.load.keys;
        let left = self.left.as_mut()?.take(self.load.batch);
        let next: Vec<_> = left.map(|place| keys.at(place).to_vec()).collect();
        if !next.is_empty() {
            return Some(self.write(next));
        }
        if self.load.original {
            self.wait_until_taken();
        }
        None
    }

    /// `put` is not answered: a `get` over the same connection is when all puts were taken.
    fn wait_until_taken(&mut self) {
        let key = self.load.keys.at(0).to_vec();
        if let Way::Node(node) = &mut self.way
            && let Err(e) = node.get(key)
        {
            debug!("{e}");
        }
    }

    /// What came of a call. If it failed, the next one goes over a new connection.
    fn outcome(&mut self, answer: Answer) -> Outcome {
        match answer {
            Ok(operations) => Outcome::Answered(operations as u64),
            Err(e) => {
                debug!("{e}");
                if let (Way::Node(_), Ok(way)) = (&self.way, self.load.connect()) {
                    self.way = way;
                }
                Outcome::Failed
            }
        }
    }
}

impl Caller for StoreCaller<'_> {
    fn call(&mut self) -> Option<Outcome> {
        let answer = if self.left.is_some() {
            self.fill()?
        } else if self.random.share() < self.load.read_share {
            self.read()
        } else {
            let keys = (0..self.load.batch).map(|_| self.any_key()).collect();
            self.write(keys)
        };
        Some(self.outcome(answer))
    }
}
