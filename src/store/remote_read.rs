//! `RemoteReader`: asks other nodes for what they hold as owners.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::Mutex;

use super::owner_calls::{OwnerCalls, OwnerClient};
use super::placement::NodeId;
use super::versions::Entry;
use super::wire::from_read_result;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::batcher::{Batch, BatchCall, Item};

/// The most bytes of keys, with [`OVERHEAD`] each, in one call.
const MAX_BATCH: usize = 64 * 1024;

/// Bytes that a key takes in a message beyond its own. They also limit the number of keys of
/// a call to far less than the longest list accepted.
const OVERHEAD: usize = 4;

/// How long an owner that could not be reached is asked last.
const BACKOFF: Duration = Duration::from_secs(1);

/// Reads from other owners. Shared by threads.
pub(super) struct RemoteReader {
    calls: OwnerCalls<ReadRequest, ReadReply>,
    health: Arc<Health>,
}

/// A read of one key from one owner.
pub(super) struct ReadRequest {
    /// It is asked as an owner in this placement.
    pub placement_id: u64,
    pub key: Vec<u8>,
    /// The reply had no room for it before. It starts a batch, where there is room.
    pub is_repeated: bool,
}

impl Item for ReadRequest {
    fn size(&self) -> usize {
        self.key.len() + OVERHEAD
    }

    fn can_join(&self, first: &ReadRequest) -> bool {
        self.placement_id == first.placement_id && !self.is_repeated
    }
}

/// The reply of an owner that did not refuse.
pub(super) enum ReadReply {
    /// What the owner holds.
    Held(Option<Entry>),
    /// The value had no room in the message with those before it: ask again.
    NoRoom,
}

impl RemoteReader {
    /// A reader for this node, to which it reports unreachable owners.
    pub fn new(node: &Node) -> RemoteReader {
        let health = Arc::new(Health {
            node: node.clone(),
            failed: Mutex::default(),
        });
        RemoteReader {
            calls: OwnerCalls::new(node, MAX_BATCH, FetchAsOwner(health.clone())),
            health,
        }
    }

    /// Asks owners, together with other threads' requests to them. No reply of an owner that
    /// refused or could not be reached. Blocks as [`OwnerCalls::send`] does.
    pub fn read(&self, requests: Vec<(Location, ReadRequest)>) -> Vec<Option<ReadReply>> {
        self.calls.send(requests)
    }

    /// Sorts the owners of a key: those that could be reached recently first.
    pub fn healthy_first(&self, mut owners: Vec<NodeId>) -> Vec<NodeId> {
        let mut failed = self.health.failed.lock();
        if failed.is_empty() {
            return owners;
        }
        let now = Instant::now();
        failed.retain(|_, until| *until > now);
        owners.sort_by_key(|owner| failed.contains_key(&owner.location));
        owners
    }

    /// Closes the connections to a node that is gone. Calls in progress fail.
    pub fn close(&self, location: &Location) {
        self.calls.close(location);
    }
}

/// Which owners could not be reached recently.
struct Health {
    node: Node,
    /// Until when each is asked last. Held briefly, never during a call.
    failed: Mutex<HashMap<Location, Instant>>,
}

impl Health {
    fn report(&self, owner: &Location, error: &Error) {
        debug!("{error}");
        if error.is_unreachable() {
            let until = Instant::now() + BACKOFF;
            self.failed.lock().insert(owner.clone(), until);
            self.node.report_unreachable(owner, error);
        }
    }
}

/// The batched call.
struct FetchAsOwner(Arc<Health>);

impl BatchCall<OwnerClient, ReadRequest, ReadReply> for FetchAsOwner {
    fn send(&self, owner: &mut OwnerClient, batch: &Batch<ReadRequest>) -> thrift::Result<()> {
        let keys = batch.items.iter().map(|request| request.key.clone());
        let (keys, placement_id) = (keys.collect(), batch.items[0].placement_id as i64);
        owner.send(|sender| sender.fetch_as_owner(keys, placement_id))
    }

    fn receive(
        &self,
        owner: &mut OwnerClient,
        batch: &Batch<ReadRequest>,
    ) -> thrift::Result<Vec<ReadReply>> {
        let results = owner.receive(|receiver| receiver.fetch_as_owner(Vec::new(), 0))?;
        let held = results.into_iter().map(from_read_result);
        let mut replies: Vec<ReadReply> = held.map(ReadReply::Held).collect();
        // An owner answers at least the first key, or refuses.
        if !replies.is_empty() {
            replies.resize_with(batch.items.len(), || ReadReply::NoRoom);
        }
        Ok(replies)
    }

    fn on_error(&self, batch: &Batch<ReadRequest>, error: &Error) -> Vec<ReadReply> {
        self.0.report(&batch.to, error);
        Vec::new()
    }
}
