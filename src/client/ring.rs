//! `RingClient`: calls the primary of each key directly, so that no node forwards the call.
//!
//! It fetches the members of the network from any node, places keys on them as the nodes do,
//! and refreshes the members every second. A call whose primary is unknown or unreachable goes
//! to another node, which forwards it. So the client depends on no node in particular.
//!
//! The keys of one call go to each primary in few messages. The keys of different threads are
//! batched too ([`Batcher`]): share one client between threads instead of connecting several.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use parking_lot::Mutex;

use super::batched::{self, ReadCall};
use super::router::Router;
use super::topology::{Access, MAX_BATCH_SIZE, Target};
use crate::diststore::{ReadResult, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::batcher::Batcher;
use crate::rpc::dialer::Dialer;
use crate::rpc::pool::Pool;
use crate::store::forwarder::{ANY_GENERATION, Forwarder};
use crate::store::key_writes::{WriteReply, WriteRequest};
use crate::store::limits::StoreLimits;
use crate::store::list::{KeyPage, count, list};
use crate::store::network_scan::{Network, SETTLE_TIMEOUT};
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::recent_writes::{WriteId, WriteIds};
use crate::store::types::{CLIENT_TIMEOUT, Client, PRIMARY_TIMEOUTS};
use crate::store::versions::Value;
use crate::store::wire::{from_request, refused};

/// The most bytes of keys in a page of a listing.
const MAX_LISTED_BYTES: usize = 256 * 1024 * 1024;

/// A client of a store of many nodes. Shared by threads.
///
/// Every method blocks: for a few seconds while nodes fail, for fifteen if no node can be
/// reached.
pub struct RingClient {
    router: Arc<Router>,
    reads: Batcher<batched::Read, ReadResult>,
    writes: Forwarder,
    ids: WriteIds,
}

/// What to write: a key with its value, or without a value to delete it.
pub type Mutation<'a> = (Key<'a>, Option<&'a [u8]>);

impl RingClient {
    /// A client of the network of `peer`, without TLS. Fetches the members.
    ///
    /// # Errors
    /// The peer cannot be called, or is a legacy node.
    pub fn connect(peer: &Location) -> Result<RingClient, Error> {
        RingClient::of(Dialer::default(), peer)
    }

    /// A client that connects by `dialer`, which may have an identity. Fetches the members.
    ///
    /// # Errors
    /// As for [`connect`](RingClient::connect).
    pub fn of(dialer: Dialer, peer: &Location) -> Result<RingClient, Error> {
        let router = Arc::new(Router::connect(dialer.clone(), peer)?);
        let forwarding = dialer.clone();
        let pool = Arc::new(Pool::new(dialer, batched::client, PRIMARY_TIMEOUTS));
        let (reader, on_failed) = (ReadCall(router.clone()), router.clone());
        let on_failed = move |node: &Location, error: &Error| on_failed.mark_failed(node, error);
        Ok(RingClient {
            router,
            reads: Batcher::over(pool, MAX_BATCH_SIZE, reader),
            writes: Forwarder::new(&forwarding, on_failed),
            ids: WriteIds::default(),
        })
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// A node refuses, or none can be reached; the key is larger than the maximum.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        check_size(key, None)?;
        if let Some(primary) = self.router.primary(Key::new(key), Access::Read) {
            let item = (primary.location, batched::Read(key.to_vec()));
            let result = self.reads.submit(vec![item]).pop().flatten();
            if let Some(result) = result {
                return Ok(result.value);
            }
        }
        let mut values = self.get_many(&[key])?;
        Ok(values.pop().flatten())
    }

    /// Writes `value` for `key`. Returns when all owners have it.
    ///
    /// # Errors
    /// A node refuses, or none can be reached: the write may have taken effect. The key or the
    /// value is larger than the maximum.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.write(key, Some(value)).map(|_| ())
    }

    /// Deletes `key`. Returns whether it had a value.
    ///
    /// # Errors
    /// As for [`put`](RingClient::put).
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.write(key, None)
    }

    /// Writes one key. Returns whether it had a value.
    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, Error> {
        Ok(self.write_many(&[(Key::new(key), value)])? == [true])
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As for [`get`](RingClient::get).
    pub fn get_many(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key.as_ref())).collect();
        keys.iter()
            .try_for_each(|key| check_size(key.bytes, None))?;
        let size = |index: usize| keys[index].bytes.len();
        let results = self
            .router
            .retry_until_done(&keys, Access::Read, size, |batch| {
                let keys = batch
                    .indexes
                    .iter()
                    .map(|index| keys[*index].bytes.to_vec());
                let keys: Vec<Vec<u8>> = keys.collect();
                let pool = self.router.pool(batch.target);
                let read = |node: &mut Client| node.fetch_many(keys.clone());
                let results = pool.call(batch.target.location(), read)?;
                Ok(results.into_iter().map(Some).collect())
            })?;
        Ok(results.into_iter().map(|result| result.value).collect())
    }

    /// Writes several keys. Each write takes effect on its own. If a key is given more than
    /// once, only its last value is sent. Returns for each write whether its key had a value
    /// before, as if they had been made one after another.
    ///
    /// # Errors
    /// As for [`put`](RingClient::put); any of the writes may have taken effect.
    pub fn write_many(&self, writes: &[Mutation<'_>]) -> Result<Vec<bool>, Error> {
        writes
            .iter()
            .try_for_each(|(key, value)| check_size(key.bytes, *value))?;
        let last = last_of_each_key(writes);
        let chosen: Vec<Mutation<'_>> = last.iter().map(|index| writes[*index]).collect();
        let existed = self.write_until_done(&chosen)?;
        if last.len() == writes.len() {
            return Ok(existed);
        }
        let keys = chosen.iter().map(|(key, _)| key.bytes);
        let mut has_value: HashMap<&[u8], bool> = keys.zip(existed).collect();
        let before = writes
            .iter()
            .map(|(key, value)| has_value.insert(key.bytes, value.is_some()));
        Ok(before.map(|before| before == Some(true)).collect())
    }

    /// Brings writes to their primaries until all are done.
    fn write_until_done(&self, writes: &[Mutation<'_>]) -> Result<Vec<bool>, Error> {
        let keys: Vec<Key<'_>> = writes.iter().map(|(key, _)| *key).collect();
        let size = |index: usize| size_of(&writes[index]);
        let open = writes.iter().map(|_| OpenWrite::new(self.ids.next()));
        let open = Mutex::new(open.collect::<Vec<_>>());
        let results = self
            .router
            .retry_until_done(&keys, Access::Write, size, |batch| {
                let chosen: Vec<_> = batch.indexes.iter().map(|index| writes[*index]).collect();
                let mut some: Vec<OpenWrite> = {
                    let open = open.lock();
                    let some = batch.indexes.iter().map(|index| open[*index].clone());
                    some.map(|write| write.at(batch.target)).collect()
                };
                let results = self.write_at(batch.target, &chosen, &some);
                for write in &mut some {
                    write.tried_at = Some(match batch.target {
                        Target::Primary(primary) => Some(primary.clone()),
                        Target::Proxy(_) => None,
                    });
                }
                let mut open = open.lock();
                for (index, write) in batch.indexes.iter().zip(some) {
                    open[*index] = write;
                }
                results
            })?;
        results.into_iter().collect()
    }

    /// Makes one attempt for each of these writes. No result for those that are not done.
    fn write_at(
        &self,
        target: Target<'_>,
        writes: &[Mutation<'_>],
        open: &[OpenWrite],
    ) -> Result<Vec<Option<Result<bool, Error>>>, Error> {
        let requests = writes
            .iter()
            .zip(open)
            .map(|((key, value), open)| WriteRequest {
                key: key.bytes.to_vec(),
                value: value.map(|value| Value::of(key.bytes, value)),
                id: open.id,
                is_retry: open.is_retry,
                started: open.started,
                deadline: open.deadline,
                condition: None,
            });
        let replies = match target {
            Target::Primary(primary) => {
                let writes = requests.map(|request| (primary.clone(), request));
                self.writes.send(writes.collect())
            }
            Target::Proxy(node) => {
                let callee = NodeId::new(node.clone(), ANY_GENERATION);
                let writes = requests.map(|request| {
                    let times = self.writes.times_at(&callee, &request)?;
                    Some(from_request(&request, times))
                });
                let Some(writes) = writes.collect::<Option<Vec<_>>>() else {
                    return Ok(Vec::new());
                };
                let write = |node: &mut Client| node.write_many(writes.clone());
                let replies = self.router.pool(target).call(node, write)?;
                replies
                    .into_iter()
                    .map(|reply| Some(reply.into()))
                    .collect()
            }
        };
        let result = |reply| match reply {
            Some(WriteReply::Done(outcome)) => Some(Ok(outcome.existed)),
            Some(WriteReply::Refused(why)) => {
                Some(Err(Error::Remote(target.location().clone(), refused(why))))
            }
            Some(WriteReply::NotPrimary | WriteReply::Unfinished) | None => None,
        };
        Ok(replies.into_iter().map(result).collect())
    }

    /// The keys with that prefix, in the order of their bytes, from `cursor` on: at most
    /// `max_keys`, or 256 MiB of them. The first page has an empty cursor, any other that of the
    /// page before. A key that has a value all the while is in exactly one page. Walks through all
    /// keys of the store: ask for large pages. Waits for two minutes at most while keys move.
    ///
    /// # Errors
    /// A member does not answer, or is not settled; keys may be on the other side of a split.
    pub fn list(&self, prefix: &[u8], cursor: &[u8], max_keys: usize) -> Result<KeyPage, Error> {
        let limits = (max_keys, MAX_LISTED_BYTES);
        list(self, (prefix, cursor), limits, || {
            Instant::now() + SETTLE_TIMEOUT
        })
    }

    /// The number of keys with that prefix. Waits as [`list`](RingClient::list).
    ///
    /// # Errors
    /// As for [`list`](RingClient::list).
    pub fn count(&self, prefix: &[u8]) -> Result<u64, Error> {
        count(self, prefix, || Instant::now() + SETTLE_TIMEOUT)
    }

    /// The primary of `key` as far as the client knows. None while nodes route every call.
    pub fn primary(&self, key: &[u8]) -> Option<Location> {
        let primary = self.router.primary(Key::new(key), Access::Write)?;
        Some(primary.location)
    }

    /// The nodes that the client knows, sorted; at least one.
    pub fn nodes(&self) -> Vec<Location> {
        self.router.topology().nodes().to_vec()
    }
}

impl Network for RingClient {
    fn placement(&self) -> Placement {
        self.router.refresh().placement().clone()
    }

    fn call<T>(
        &self,
        member: &Location,
        body: impl Fn(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.router.primaries.call(member, body)
    }

    fn on_wait(&self, why: &Error) {
        warn!("waiting until all keys can be read: {why}");
    }
}

/// Checks the sizes before a call: a node closes the connection of a message that is too large,
/// which looks as if the node had failed.
fn check_size(key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    let value_size = value.map_or(0, <[u8]>::len);
    let checked = StoreLimits::default().check(key.len(), value_size, 0, 0);
    checked.map_err(Error::Usage)
}

fn size_of((key, value): &Mutation<'_>) -> usize {
    key.bytes.len() + value.map_or(0, <[u8]>::len)
}

/// What is known of a write without a result.
#[derive(Clone)]
struct OpenWrite {
    id: WriteId,
    started: Instant,
    deadline: Instant,
    /// Another process may have executed an attempt.
    is_retry: bool,
    /// Where the last attempt was made: at a primary, or (None) at any node.
    tried_at: Option<Option<NodeId>>,
}

impl OpenWrite {
    fn new(id: WriteId) -> OpenWrite {
        let started = Instant::now();
        OpenWrite {
            id,
            started,
            deadline: started + CLIENT_TIMEOUT,
            is_retry: false,
            tried_at: None,
        }
    }

    /// The same for an attempt at `target`. Only the process that got the last attempt knows
    /// what became of it.
    fn at(mut self, target: Target<'_>) -> OpenWrite {
        self.is_retry |= match (&self.tried_at, target) {
            (None, _) => false,
            (Some(Some(before)), Target::Primary(primary)) => before != primary,
            (Some(_), _) => true,
        };
        self
    }
}

/// The index of the last write of each key, in order.
fn last_of_each_key(writes: &[Mutation<'_>]) -> Vec<usize> {
    let mut points: Vec<u32> = writes.iter().map(|(key, _)| key.point).collect();
    points.sort_unstable();
    let mut indexes: Vec<usize> = (0..writes.len()).collect();
    if points.windows(2).all(|pair| pair[0] != pair[1]) {
        return indexes;
    }
    let key = |index: &usize| writes[*index].0.bytes;
    indexes.sort_by(|one, other| key(one).cmp(key(other)).then(other.cmp(one)));
    indexes.dedup_by(|one, other| key(one) == key(other));
    indexes.sort_unstable();
    indexes
}
