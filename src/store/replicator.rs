//! `Replicator`: sends copies of writes to the owners of their keys.
//!
//! Writes of many keys are in progress at the same time. Copies for one owner go there in one
//! call ([`Batcher`]).

use std::sync::Arc;

use super::placement::Key;
use super::types::{OwnerClient, PEER_TIMEOUTS, Refusal, owner_client};
use super::versions::Entry;
use super::wire::to_key_value;
use crate::diststore::{ReplicateResult, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::batcher::{Batch, BatchCall, Batcher, Item};
use crate::rpc::pool::Pool;

/// The most bytes of keys and values in one call, unless one pair is larger: enough that the
/// call itself costs little beside them, and little enough that it is quick.
const MAX_BATCH: usize = 256 * 1024;

/// Bytes that a pair takes in a message beyond its key and value.
const OVERHEAD: usize = 32;

/// A copy of an entry for one owner.
pub(super) struct ReplicaWrite {
    key: Arc<[u8]>,
    entry: Entry,
    /// The current placement of the primary.
    placement_id: u64,
}

/// What happened to a copy.
pub(super) enum ReplicaResult {
    /// The owner has it. Its own current placement is this.
    Kept(u64),
    /// The owner refused it.
    Rejected(Refusal),
    /// The owner did not reply.
    Unreachable,
}

impl ReplicaWrite {
    /// The copy of `entry` that a primary with that current placement sends.
    pub fn new(key: Key<'_>, entry: &Entry, placement_id: u64) -> ReplicaWrite {
        ReplicaWrite {
            key: key.bytes.into(),
            entry: entry.clone(),
            placement_id,
        }
    }
}

impl Item for ReplicaWrite {
    fn size(&self) -> usize {
        self.key.len() + self.entry.value_len() + OVERHEAD
    }

    fn can_join(&self, first: &ReplicaWrite) -> bool {
        self.placement_id == first.placement_id
    }
}

/// Sends copies. Shared by threads.
pub(super) struct Replicator {
    pool: Arc<Pool<OwnerClient>>,
    batcher: Batcher<ReplicaWrite, ReplicaResult>,
}

impl Replicator {
    /// A replicator for this node, to which it reports unreachable owners.
    pub fn new(node: Node) -> Replicator {
        let pool = Arc::new(Pool::new(
            node.dialer().clone(),
            owner_client,
            PEER_TIMEOUTS,
        ));
        Replicator {
            batcher: Batcher::over(pool.clone(), MAX_BATCH, Replicate(node)),
            pool,
        }
    }

    /// Sends copies to their owners, all at the same time, and returns the result of each.
    /// Blocks for the timeouts of a call to a peer, twice if a call is in flight.
    pub fn send(&self, copies: Vec<(Location, ReplicaWrite)>) -> Vec<ReplicaResult> {
        let results = self.batcher.submit(copies).into_iter();
        results
            .map(|result| result.unwrap_or(ReplicaResult::Unreachable))
            .collect()
    }

    /// Closes the connections to a node that is gone. Calls in progress fail.
    pub fn close(&self, location: &Location) {
        self.pool.close_all(location);
    }
}

/// The batched call.
struct Replicate(Node);

impl BatchCall<OwnerClient, ReplicaWrite, ReplicaResult> for Replicate {
    fn send(&self, owner: &mut OwnerClient, batch: &Batch<ReplicaWrite>) -> thrift::Result<()> {
        let pairs = batch.items.iter();
        let pairs = pairs.map(|copy| to_key_value(copy.key.to_vec(), &copy.entry));
        let (pairs, placement_id) = (pairs.collect(), batch.items[0].placement_id as i64);
        owner.send(|sender| sender.replicate(pairs, placement_id))
    }

    fn receive(
        &self,
        owner: &mut OwnerClient,
        batch: &Batch<ReplicaWrite>,
    ) -> thrift::Result<Vec<ReplicaResult>> {
        let result = owner.receive(|receiver| receiver.replicate(Vec::new(), 0))?;
        Ok(results(result, batch.items.len()))
    }

    fn on_error(&self, batch: &Batch<ReplicaWrite>, error: &Error) -> Vec<ReplicaResult> {
        // A legacy node may have taken the place of the owner.
        if error.is_unreachable() || error.is_unknown_method() {
            self.0.report_unreachable(&batch.to, error);
            return Vec::new();
        }
        let rejected = |_| ReplicaResult::Rejected(error.to_string());
        batch.items.iter().map(rejected).collect()
    }
}

/// The results of `count` copies.
fn results(result: ReplicateResult, count: usize) -> Vec<ReplicaResult> {
    let placement_id = result.placement_id.unwrap_or(0) as u64;
    let mut results: Vec<ReplicaResult> = Vec::new();
    results.resize_with(count, || ReplicaResult::Kept(placement_id));
    for rejection in result.rejections.unwrap_or_default() {
        let index = usize::try_from(rejection.index.unwrap_or(-1)).ok();
        if let Some(result) = index.and_then(|index| results.get_mut(index)) {
            *result = ReplicaResult::Rejected(rejection.reason.unwrap_or_default());
        }
    }
    results
}
