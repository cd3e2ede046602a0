//! `Replicator`: sends copies of writes to the owners of their keys.

use super::owner_calls::{OwnerCalls, OwnerClient};
use super::placement::Key;
use super::types::Refusal;
use super::versions::Entry;
use super::wire::to_key_value;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::node::Node;
use crate::rpc::batcher::{Batch, BatchCall, Item};

/// The most bytes of keys and values in one call, unless one pair is larger: enough that the
/// call itself costs little beside them, and little enough that it is quick.
const MAX_BATCH: usize = 256 * 1024;

/// Bytes that a pair takes in a message beyond its key and value.
const OVERHEAD: usize = 32;

/// Sends copies. An owner that could not be reached gives no reply.
pub(super) type Replicator = OwnerCalls<ReplicaWrite, ReplicaResult>;

/// A replicator for this node, to which it reports unreachable owners.
pub(super) fn replicator(node: &Node) -> Replicator {
    OwnerCalls::new(node, MAX_BATCH, Replicate(node.clone()))
}

/// A copy of an entry for one owner.
pub(super) struct ReplicaWrite {
    key: Vec<u8>,
    entry: Entry,
    /// The current placement of the primary.
    placement_id: u64,
}

/// The current placement of an owner that has the copy, or why it rejected it.
pub(super) type ReplicaResult = Result<u64, Refusal>;

impl ReplicaWrite {
    /// The copy of `entry` that a primary with that current placement sends.
    pub fn new(key: Key<'_>, entry: &Entry, placement_id: u64) -> ReplicaWrite {
        ReplicaWrite {
            key: key.bytes.to_vec(),
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

/// The batched call.
struct Replicate(Node);

impl BatchCall<OwnerClient, ReplicaWrite, ReplicaResult> for Replicate {
    fn send(&self, owner: &mut OwnerClient, batch: &Batch<ReplicaWrite>) -> thrift::Result<()> {
        let pairs = batch.items.iter();
        let pairs = pairs.map(|copy| to_key_value(copy.key.clone(), &copy.entry));
        let (pairs, placement_id) = (pairs.collect(), batch.items[0].placement_id as i64);
        owner.send(|sender| sender.replicate(pairs, placement_id))
    }

    fn receive(
        &self,
        owner: &mut OwnerClient,
        batch: &Batch<ReplicaWrite>,
    ) -> thrift::Result<Vec<ReplicaResult>> {
        let reply = owner.receive(|receiver| receiver.replicate(Vec::new(), 0))?;
        let placement_id = reply.placement_id.unwrap_or(0) as u64;
        let mut results = vec![Ok(placement_id); batch.items.len()];
        for rejection in reply.rejections.unwrap_or_default() {
            let index = usize::try_from(rejection.index.unwrap_or(-1)).ok();
            if let Some(result) = index.and_then(|index| results.get_mut(index)) {
                *result = Err(rejection.reason.unwrap_or_default());
            }
        }
        Ok(results)
    }

    fn on_error(&self, batch: &Batch<ReplicaWrite>, error: &Error) -> Vec<ReplicaResult> {
        // A legacy node may have taken the place of the owner.
        if error.is_unreachable() || error.is_unknown_method() {
            self.0.report_unreachable(&batch.to, error);
            return Vec::new();
        }
        vec![Err(error.to_string()); batch.items.len()]
    }
}
