//! `RemoteReader`: asks other nodes for what they hold as owners.

use std::time::Duration;

use log::debug;

use super::owner_calls::{OwnerCalls, OwnerClient};
use super::types::PEER_TIMEOUTS;
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

/// Reads from other owners. Shared by threads.
pub(super) struct RemoteReader {
    calls: OwnerCalls<ReadRequest, ReadReply>,
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

/// The reply of an owner that did not refuse, or none.
pub(super) enum ReadReply {
    /// What the owner holds.
    Held(Option<Entry>),
    /// The value had no room in the message with those before it: ask again.
    NoRoom,
    /// The owner does not reply.
    Unreachable {
        /// No process listens there.
        has_ended: bool,
    },
}

impl RemoteReader {
    /// A reader for this node, to which it reports unreachable owners.
    pub fn new(node: &Node) -> RemoteReader {
        let call = FetchAsOwner(node.clone());
        RemoteReader {
            calls: OwnerCalls::new(node.dialer(), PEER_TIMEOUTS, MAX_BATCH, call),
        }
    }

    /// Asks owners, together with other threads' requests to them. No reply of an owner that
    /// refused or could not be reached. Blocks as [`OwnerCalls::send`] does.
    pub fn read(&self, requests: Vec<(Location, ReadRequest)>) -> Vec<Option<ReadReply>> {
        self.calls.send(requests)
    }

    /// The nodes to which a call has been in progress for longer than `time`.
    pub fn slow(&self, time: Duration) -> Vec<Location> {
        self.calls.slow(time)
    }

    /// Closes the connections to a node that is gone. Calls in progress fail.
    pub fn close(&self, location: &Location) {
        self.calls.close(location);
    }
}

/// The batched call.
struct FetchAsOwner(Node);

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
        debug!("{error}");
        if !error.is_unreachable() {
            return Vec::new();
        }
        self.0.report_unreachable(&batch.to, error);
        let has_ended = error.has_ended();
        let reply = |_| ReadReply::Unreachable { has_ended };
        batch.items.iter().map(reply).collect()
    }
}
