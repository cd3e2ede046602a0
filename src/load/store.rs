//! The callers of a store: they read and write random keys, or write each key once.

use std::error;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use log::debug;

use super::by_hand::StoreByHand;
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

/// In that time a server ends the threads of thousands of connections.
const ENDED: Duration = Duration::from_secs(1);

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

    /// So many connections, each called once, and not again. One after the other: a server
    /// takes only some connections at one instant.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn idle(&self, count: usize) -> Result<Idle<'_>, Error> {
        let called = |number| {
            let mut caller = self.caller_by(self.connect()?, number);
            caller.call();
            Ok(caller)
        };
        let callers: Result<_, Error> = elsewhere(|| (0..count).map(called).collect());
        callers.map(Idle)
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
                let (caller, peer, patience) = (&self.caller, &self.peer, Patience::default());
                let client = || caller.connect(patience, StoreSyncClient::new, peer);
                Ok(if self.original {
                    Way::Original(Box::new(client()?))
                } else if self.batch > 1 {
                    Way::Batches(Box::new(client()?))
                } else {
                    Way::ByHand(Box::new(caller.connect(
                        patience,
                        StoreByHand::new,
                        peer,
                    )?))
                })
            }
            Through::Ring | Through::SharedRing => Ok(Way::Ring(Arc::new(self.ring()?))),
        }
    }

    /// Counts a key whose value is as it was written: all keys were filled.
    fn check(&self, found: Option<&[u8]>) -> Answer {
        match found.map(<[u8]>::len) {
            Some(size) if size == self.value_size => Ok(1),
            Some(size) => Err(format!("a value of {size} bytes").into()),
            None => Err("no value".into()),
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

/// Connections that are idle. They are closed when this is dropped, which blocks until the
/// server has had time to end them, lest whoever calls next find it busy with that.
pub struct Idle<'a>(Vec<StoreCaller<'a>>);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        elsewhere(|| self.0.clear());
        thread::sleep(ENDED);
    }
}

/// Does what wakes thousands of a server's threads on a thread of its own: the kernel would
/// keep those that this one starts later apart from them for some seconds (`rpc::acceptor`
/// tells why).
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().expect("no caller panics"))
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

/// How a caller's keys get to their owners, and how many with a call.
enum Way {
    /// By one node, one key a call.
    ByHand(Box<StoreByHand>),
    /// The same, by the original's methods.
    Original(Box<Client>),
    /// By one node, several keys a call.
    Batches(Box<Client>),
    /// By their owners.
    Ring(Arc<RingClient>),
}

/// The operations of a call that was answered.
type Answer = Result<usize, Box<dyn error::Error>>;

impl StoreCaller<'_> {
    /// Reads random keys. A node answers for as many of the first ones as have values that
    /// fit a message.
    fn read(&mut self) -> Answer {
        let load = self.load;
        let check = |value: Option<Vec<u8>>| load.check(value.as_deref());
        let mut any = || load.keys.any(&mut self.random);
        match &mut self.way {
            Way::ByHand(node) => load.check(node.fetch(&any())?),
            Way::Original(node) => check(Some(node.get(any().to_vec())?)),
            Way::Ring(ring) if load.batch == 1 => check(ring.get(&any())?),
            Way::Batches(node) => {
                let keys = (0..load.batch).map(|_| any().to_vec());
                let found = node.fetch_many(keys.collect())?.into_iter();
                found.map(|found| check(found.value)).sum()
            }
            Way::Ring(ring) => {
                let keys: Vec<_> = (0..load.batch).map(|_| any()).collect();
                ring.get_many(&keys)?.into_iter().map(check).sum()
            }
        }
    }

    /// Writes these keys, one at a time where a call has one.
    fn write(&mut self, keys: &[[u8; KEY]]) -> Answer {
        let (load, value) = (self.load, &self.value);
        match &mut self.way {
            Way::ByHand(node) => keys.iter().try_for_each(|key| node.write(key, value))?,
            Way::Original(node) => {
                let mut put = |key: &[u8; KEY]| node.put(key.to_vec(), value.clone());
                keys.iter().try_for_each(&mut put)?;
            }
            Way::Ring(ring) if load.batch == 1 => {
                keys.iter().try_for_each(|key| ring.put(key, value))?;
            }
            Way::Batches(node) => {
                let pair = |key: &[u8; KEY]| Pair::new(key.to_vec(), value.clone(), 0);
                return Ok(node.write_many(keys.iter().map(pair).collect())?.len());
            }
            Way::Ring(ring) => {
                let pair = |key| (Key::new(key), Some(&value[..]));
                let pairs: Vec<_> = keys.iter().map(|key| pair(key)).collect();
                return Ok(ring.write_many(&pairs)?.len());
            }
        }
        Ok(keys.len())
    }

    /// Writes the next keys of those that are left; nothing if none are.
    fn fill(&mut self) -> Option<Answer> {
        let keys = &self.load.keys;
        let left = self.left.as_mut()?.take(self.load.batch);
        let next: Vec<_> = left.map(|place| keys.at(place)).collect();
        if !next.is_empty() {
            return Some(self.write(&next));
        }
        self.wait_until_taken();
        None
    }

    /// `put` is not answered: a `get` over the same connection is when all puts were taken.
    fn wait_until_taken(&mut self) {
        let key = self.load.keys.at(0).to_vec();
        if let Way::Original(node) = &mut self.way
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
                if let (Through::Node, Ok(way)) = (self.load.through, self.load.connect()) {
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
            let mut any = || self.load.keys.any(&mut self.random);
            let keys: Vec<_> = (0..self.load.batch).map(|_| any()).collect();
            self.write(&keys)
        };
        Some(self.outcome(answer))
    }
}
