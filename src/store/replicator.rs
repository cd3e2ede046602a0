//! `Replicator`: sends copies of writes to the owners of their keys.

use std::sync::Arc;

use super::key_writes::{KeyWrites, PendingWrite};
use super::owner_calls::{OwnerCalls, OwnerClient};
use super::types::{PEER_TIMEOUTS, Refusal};
use super::versions::Entry;
use super::wire::{from_read_result, to_copy};
use super::write_sequence::WriteSequence;
use crate::diststore::{self as wire, TStoreSyncClient};
use crate::error::Error;
use crate::node::Node;
use crate::rpc::batcher::{Batch, BatchCall, Item};

/// The most bytes of keys and values in one call, unless one pair is larger: enough that the
/// call itself costs little beside them, and little enough that it is quick.
const MAX_BATCH: usize = 256 * 1024;

/// Bytes that a pair takes in a message beyond its key and value.
const OVERHEAD: usize = 32;

/// Sends copies.
pub(super) type Replicator = OwnerCalls<ReplicaWrite, ReplicaResult>;

/// A replicator for this node, to which it reports unreachable owners.
pub(super) fn replicator(node: &Node) -> Replicator {
    OwnerCalls::new(
        node.dialer(),
        PEER_TIMEOUTS,
        MAX_BATCH,
        Replicate(node.clone()),
    )
}

/// A copy of a write for one owner.
pub(super) struct ReplicaWrite {
    key: Vec<u8>,
    write: PendingWrite,
    /// Numbers the writes of the process that coordinates this one.
    sequence: Arc<WriteSequence>,
    /// The current placement of that process.
    placement_id: u64,
}

/// What an owner made of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplicaResult {
    /// It has the copy. Its current placement.
    Kept(u64),
    /// It has this version, which is larger, in an entry that is told if a replay must know it.
    Newer(i64, Option<Entry>),
    /// It keeps no copies of this process, because it does not know it, or takes it for gone.
    Fenced,
    /// It does not keep the copy.
    Rejected(Refusal),
    /// It does not reply.
    Unreachable {
        /// No process listens there.
        has_ended: bool,
    },
}

impl ReplicaWrite {
    /// The copy of a write of `writes`, sent by a process with that current placement.
    pub fn new(writes: &KeyWrites, write: &PendingWrite, placement_id: u64) -> ReplicaWrite {
        ReplicaWrite {
            key: writes.key().bytes.to_vec(),
            write: write.clone(),
            sequence: writes.ticket().sequence().clone(),
            placement_id,
        }
    }
}

impl Item for ReplicaWrite {
    fn size(&self) -> usize {
        self.key.len() + self.write.entry.value_len() + OVERHEAD
    }

    fn can_join(&self, first: &ReplicaWrite) -> bool {
        self.placement_id == first.placement_id && Arc::ptr_eq(&self.sequence, &first.sequence)
    }
}

/// The batched call.
struct Replicate(Node);

impl BatchCall<OwnerClient, ReplicaWrite, ReplicaResult> for Replicate {
    fn send(&self, owner: &mut OwnerClient, batch: &Batch<ReplicaWrite>) -> thrift::Result<()> {
        let copies = batch.items.iter();
        let copies = copies.map(|copy| to_copy(copy.key.clone(), &copy.write));
        let first = &batch.items[0];
        let primary = first.sequence.coordinator().into();
        let (placement_id, finished) =
            (first.placement_id as i64, first.sequence.first_unfinished());
        let copies = copies.collect();
        owner.send(|sender| sender.replicate(primary, copies, placement_id, finished))
    }

    fn receive(
        &self,
        owner: &mut OwnerClient,
        batch: &Batch<ReplicaWrite>,
    ) -> thrift::Result<Vec<ReplicaResult>> {
        let nobody = wire::NodeId::default();
        let reply = owner.receive(|receiver| receiver.replicate(nobody, Vec::new(), 0, 0))?;
        let count = batch.items.len();
        if reply.is_fenced == Some(true) {
            return Ok(vec![ReplicaResult::Fenced; count]);
        }
        let placement_id = reply.placement_id.unwrap_or(0) as u64;
        let mut results = vec![ReplicaResult::Kept(placement_id); count];
        for rejection in reply.rejections.unwrap_or_default() {
            let index = usize::try_from(rejection.index.unwrap_or(-1)).ok();
            if let Some(result) = index.and_then(|index| results.get_mut(index)) {
                let finished = rejection.finished.map(from_read_result);
                *result = match rejection.newer {
                    Some(newer) => ReplicaResult::Newer(newer, finished.flatten()),
                    None => ReplicaResult::Rejected(rejection.reason.unwrap_or_default()),
                };
            }
        }
        Ok(results)
    }

    fn on_error(&self, batch: &Batch<ReplicaWrite>, error: &Error) -> Vec<ReplicaResult> {
        // A legacy node may have taken the place of the owner.
        if error.is_unreachable() || error.is_unknown_method() {
            self.0.report_unreachable(&batch.to, error);
            let has_ended = error.has_ended();
            return vec![ReplicaResult::Unreachable { has_ended }; batch.items.len()];
        }
        Vec::new()
    }
}
