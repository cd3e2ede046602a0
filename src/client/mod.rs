//! Clients of a store. [`StoreClient`] calls one node; [`RingClient`](ring::RingClient) calls
//! the primary of each key.

mod batched;
pub mod ring;
mod router;
pub(crate) mod topology;

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use crate::diststore::{StoreSyncClient, TStoreSyncClient, Write};
use crate::error::Error;
use crate::location::Location;
use crate::locator::TLocatorSyncClient;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::pool::Pool;
use crate::store::forwarder::ANY_GENERATION;
use crate::store::key_writes::WriteReply;
use crate::store::limits::MAX_VALUE;
use crate::store::list::KeyPage;
use crate::store::placement::NodeId;
use crate::store::primary_clocks::PrimaryClocks;
use crate::store::recent_writes::{WriteIds, WriteOutcome};
use crate::store::types::Client;
use crate::store::wire::refused;

/// Longer than a node retries before it refuses, so that the client receives the reason.
const TIMEOUTS: Timeouts = Timeouts::of_millis(1_000, 12_000);

/// How long a put to a legacy node may take until its value can be read.
const LEGACY_PUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two reads of a value that was put to a legacy node.
const LEGACY_PUT_PAUSE: Duration = Duration::from_millis(10);

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
    /// Names this value among all that the key ever has. 0 without a value, and at a legacy node.
    pub version: i64,
}

/// The result of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// It was made and has this version.
    Written(i64),
    /// Nothing was written: the key has this version. 0: it has no value.
    Differs(i64),
}

/// A client that calls one node of a store. The node forwards each call to the primary of its
/// key. If it cannot be reached, the client calls the next node of its list from then on.
///
/// For one thread. Every method blocks for some seconds at most at each node. A legacy node is
/// called by the original's methods.
pub struct StoreClient {
    /// At least one.
    nodes: Vec<Location>,
    /// The index of the one that is called.
    called: Cell<usize>,
    dialer: Dialer,
    pool: Pool<Client>,
    ids: WriteIds,
    /// By which a write tells when it is too late.
    clocks: PrimaryClocks,
    /// The nodes do not know the acknowledged methods.
    is_legacy: Cell<bool>,
}

impl StoreClient {
    /// A client that calls `node` and no other, without TLS. Makes no call yet.
    pub fn new(node: Location) -> StoreClient {
        StoreClient::of(Dialer::default(), vec![node])
    }

    /// A client that calls the first of `nodes`, of which there is at least one. Connects by
    /// `dialer`, which may have an identity. Makes no call yet.
    pub fn of(dialer: Dialer, nodes: Vec<Location>) -> StoreClient {
        StoreClient {
            nodes,
            called: Cell::new(0),
            pool: Pool::new(dialer.clone(), StoreSyncClient::new, TIMEOUTS),
            dialer,
            ids: WriteIds::default(),
            clocks: PrimaryClocks::default(),
            is_legacy: Cell::new(false),
        }
    }

    /// The value of `key`, if there is one. A legacy node does not distinguish an empty value
    /// from none.
    ///
    /// # Errors
    /// The peer cannot be called, or refuses.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read(key)?.value)
    }

    /// The value of `key` with its version, on which a write can depend.
    ///
    /// # Errors
    /// As for [`get`](StoreClient::get).
    pub fn read(&self, key: &[u8]) -> Result<Versioned, Error> {
        let of = |value: Option<Vec<u8>>, version| Versioned {
            version: value.as_ref().map_or(0, |_| version),
            value,
        };
        self.or_legacy(
            || {
                let read = |client: &mut Client| client.fetch(key.to_vec());
                let read = self.at_any(|node| self.pool.call(node, read))?;
                Ok(of(read.value, read.version.unwrap_or(0)))
            },
            || {
                let value = self.call(|client| client.get(key.to_vec()))?;
                Ok(of((!value.is_empty()).then_some(value), 0))
            },
        )
    }

    /// Writes `value` for `key`. Returns when all owners have it.
    ///
    /// # Errors
    /// The peer cannot be called, or refuses; a legacy peer does not return the value in time;
    /// the value is larger than the maximum.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        check_size(value)?;
        self.or_legacy(
            || self.write(key, Some(value), None).map(drop),
            || {
                self.call(|client| client.put(key.to_vec(), value.to_vec()))?;
                self.wait_for(key, value)
            },
        )
    }

    /// Deletes `key`. Returns whether it had a value.
    ///
    /// # Errors
    /// The peer cannot be called, refuses, or is a legacy node, which cannot delete.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.write(key, None, None)?.existed)
    }

    /// Writes `value` for `key` if that has this version; 0: if it has no value. An attempt after a
    /// broken connection is not made twice, and finds what became of the first one.
    ///
    /// # Errors
    /// As for [`put`](StoreClient::put): then it may have been written. There are legacy nodes.
    pub fn put_if(&self, key: &[u8], value: &[u8], version: i64) -> Result<Conditional, Error> {
        check_size(value)?;
        self.write(key, Some(value), Some(version)).map(Into::into)
    }

    /// Deletes `key` if it has this version.
    ///
    /// # Errors
    /// As for [`put_if`](StoreClient::put_if).
    pub fn delete_if(&self, key: &[u8], version: i64) -> Result<Conditional, Error> {
        self.write(key, None, Some(version)).map(Into::into)
    }

    /// The next keys of the store with that prefix, in the order of their bytes, from `cursor` on: at
    /// most `limit`, 65,536 or 4 MiB of them. The first page has an empty cursor, any other that of
    /// the page before. A key that has a value all the while is in exactly one page. The node walks
    /// through all keys of the store: ask for large pages.
    ///
    /// # Errors
    /// The peer cannot be called, or refuses: a member does not answer, or keys may be on the other
    /// side of a split.
    pub fn list(&self, prefix: &[u8], cursor: &[u8], limit: usize) -> Result<KeyPage, Error> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        self.at_any(|node| {
            self.pool.call(node, |client| {
                client
                    .list_keys(prefix.to_vec(), cursor.to_vec(), limit)?
                    .try_into()
            })
        })
    }

    /// Writes by a name, so that an attempt after a broken connection does not write twice.
    fn write(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        if_version: Option<i64>,
    ) -> Result<WriteOutcome, Error> {
        let (started, attempts) = (Instant::now(), Cell::new(0));
        let write = Write {
            key: Some(key.to_vec()),
            value: value.map(Vec::from),
            id: Some(self.ids.next().into()),
            if_version,
            ..Write::default()
        };
        self.at_any(|node| self.write_at(node, &write, started, &attempts))
    }

    fn write_at(
        &self,
        location: &Location,
        write: &Write,
        started: Instant,
        attempts: &Cell<usize>,
    ) -> Result<WriteOutcome, Error> {
        let node = NodeId::new(location.clone(), ANY_GENERATION);
        if self.clocks.is_needed(&node, Instant::now()) {
            let ask = |client: &mut Client| client.write_as_primary(Vec::new(), ANY_GENERATION);
            let clock = self.pool.call(location, ask)?.clock.unwrap_or(0);
            self.clocks.record(node.clone(), clock, Instant::now());
        }
        let time = |time| self.clocks.time(&node, time, Instant::now());
        let (started, deadline) = (time(started), time(started + TIMEOUTS.reply));
        let written = self.pool.call(location, |client| {
            let is_retry = Some(attempts.replace(attempts.get() + 1) > 0);
            client.write_many(vec![Write {
                is_retry,
                started,
                deadline,
                ..write.clone()
            }])
        })?;
        let reply = written.into_iter().next().map(WriteReply::from);
        let why = match reply {
            Some(WriteReply::Done(outcome)) => return Ok(outcome),
            Some(WriteReply::Refused(why)) => why,
            _ => "a write without its result".into(),
        };
        Err(Error::Remote(location.clone(), refused(why)))
    }

    /// The owner of `key` on the ring.
    ///
    /// # Errors
    /// The peer cannot be called, or its ring is empty.
    pub fn owner(&self, key: &[u8]) -> Result<Location, Error> {
        let owner = self.call(|client| client.get_node(key.to_vec()))?;
        Ok(Location::try_from(&owner)?)
    }

    /// Reads `key` until it has `value`. A put to a legacy node is not acknowledged.
    fn wait_for(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let deadline = Instant::now() + LEGACY_PUT_TIMEOUT;
        while self.call(|client| client.get(key.to_vec()))? != value {
            if Instant::now() > deadline {
                let late = format!("the value cannot be read after {LEGACY_PUT_TIMEOUT:?}");
                return Err(Error::Remote(self.node().clone(), late.into()));
            }
            thread::sleep(LEGACY_PUT_PAUSE);
        }
        Ok(())
    }

    /// The node that is called.
    fn node(&self) -> &Location {
        &self.nodes[self.called.get()]
    }

    /// Calls the node or, as long as none can be reached, each of the next ones.
    fn at_any<T>(&self, call: impl Fn(&Location) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 1..self.nodes.len() {
            match call(self.node()) {
                Err(e) if e.is_unreachable() => debug!("{e}: calling another node"),
                result => return result,
            }
            self.called.set((self.called.get() + 1) % self.nodes.len());
        }
        call(self.node())
    }

    /// Connects, calls and closes: a legacy node serves one connection at a time.
    fn call<T>(&self, body: impl Fn(&mut Client) -> thrift::Result<T>) -> Result<T, Error> {
        let (dialer, new) = (&self.dialer, StoreSyncClient::new);
        self.at_any(|node| dialer.call_with_timeouts(TIMEOUTS, new, node, &body))
    }

    /// Calls by `acknowledged`, or by `legacy` if the node does not know that method.
    fn or_legacy<T>(
        &self,
        acknowledged: impl FnOnce() -> Result<T, Error>,
        legacy: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.is_legacy.get() {
            match acknowledged() {
                Err(e) if e.is_unknown_method() => self.is_legacy.set(true),
                result => return result,
            }
        }
        legacy()
    }
}

impl From<WriteOutcome> for Conditional {
    fn from(outcome: WriteOutcome) -> Conditional {
        match outcome.is_unmet {
            true => Conditional::Differs(outcome.version),
            false => Conditional::Written(outcome.version),
        }
    }
}

fn check_size(value: &[u8]) -> Result<(), Error> {
    let size = value.len();
    match size <= MAX_VALUE {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "a value of {size} bytes; at most {MAX_VALUE} are accepted"
        ))),
    }
}
