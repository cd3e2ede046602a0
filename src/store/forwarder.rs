//! `Forwarder`: brings writes to their primaries. What many threads write goes to one primary in
//! one call. Used by nodes, and by clients that know the ring.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_writes::{WriteReply, WriteRequest};
use super::owner_calls::{OwnerCalls, OwnerClient};
use super::placement::NodeId;
use super::primary_clocks::PrimaryClocks;
use super::types::{Client, PRIMARY_TIMEOUTS};
use super::wire::from_request;
use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::batcher::{Batch, BatchCall, Item};
use crate::rpc::dialer::Dialer;
use crate::rpc::pool::Pool;

/// The most bytes of keys and values in one call, unless one pair is larger.
const MAX_BATCH: usize = 256 * 1024;

/// Bytes that a write takes in a message beyond its key and value.
const OVERHEAD: usize = 64;

/// Stands for the process that is at a location, whatever its generation. It tells its clock.
pub(crate) const ANY_GENERATION: i64 = 0;

/// Is told when a primary could not be called, on the thread that called.
pub(crate) type OnFailedCall = dyn Fn(&Location, &Error) + Send + Sync;

/// Forwards writes. Shared by threads.
pub(crate) struct Forwarder {
    calls: OwnerCalls<ForwardedWrite, WriteReply>,
    clocks: Arc<PrimaryClocks>,
    /// For questions about clocks.
    pool: Pool<Client>,
    on_failed: Arc<OnFailedCall>,
}

/// A write for its primary.
struct ForwardedWrite {
    primary: NodeId,
    request: WriteRequest,
}

impl Item for ForwardedWrite {
    fn size(&self) -> usize {
        let value = self.request.value.as_ref().map_or(0, |value| value.len());
        self.request.key.len() + value + OVERHEAD
    }

    /// All writes of a message are for the same process.
    fn can_join(&self, first: &ForwardedWrite) -> bool {
        self.primary == first.primary
    }
}

impl Forwarder {
    /// A forwarder that connects by `dialer`.
    pub fn new(
        dialer: &Dialer,
        on_failed: impl Fn(&Location, &Error) + Send + Sync + 'static,
    ) -> Forwarder {
        let on_failed: Arc<OnFailedCall> = Arc::new(on_failed);
        let clocks = Arc::new(PrimaryClocks::default());
        let call = ForwardWrites {
            on_failed: on_failed.clone(),
            clocks: clocks.clone(),
        };
        Forwarder {
            calls: OwnerCalls::new(dialer, PRIMARY_TIMEOUTS, MAX_BATCH, call),
            clocks,
            pool: Pool::new(dialer.clone(), StoreSyncClient::new, PRIMARY_TIMEOUTS),
            on_failed,
        }
    }

    /// Sends writes to their primaries, all at the same time. No reply to one that may or may not
    /// have been executed. Blocks for the timeouts of a call, three times if the clock of a
    /// primary is not known and a call is in flight.
    pub fn send(&self, writes: Vec<(NodeId, WriteRequest)>) -> Vec<Option<WriteReply>> {
        let primaries: BTreeSet<&NodeId> = writes.iter().map(|(primary, _)| primary).collect();
        let unknown = primaries.into_iter().filter(|node| !self.knows_clock(node));
        let unknown: BTreeSet<NodeId> = unknown.cloned().collect();
        let is_sent = |primary: &NodeId| !unknown.contains(primary);
        let is_sent: Vec<bool> = writes.iter().map(|(primary, _)| is_sent(primary)).collect();
        let sent = writes.into_iter().zip(&is_sent).filter(|(_, sent)| **sent);
        let items = sent.map(|((primary, request), _)| {
            let to = primary.location.clone();
            (to, ForwardedWrite { primary, request })
        });
        let mut replies = self.calls.send(items.collect()).into_iter();
        let reply = |sent: bool| if sent { replies.next().flatten() } else { None };
        is_sent.into_iter().map(reply).collect()
    }

    /// The start and the deadline of a write by the clock of another process. None if that does
    /// not tell its clock.
    pub fn times_at(&self, process: &NodeId, request: &WriteRequest) -> Option<(i64, i64)> {
        let is_known = self.knows_clock(process);
        is_known.then(|| times(&self.clocks, process, request))?
    }

    /// Is the clock of that primary known, by which it is told when a write is too late? Asks
    /// for it if necessary.
    fn knows_clock(&self, primary: &NodeId) -> bool {
        if !self.clocks.is_needed(primary, Instant::now()) {
            return true;
        }
        let generation = primary.generation;
        let ask = self.pool.call(&primary.location, |client| {
            client.write_as_primary(Vec::new(), generation)
        });
        match ask {
            Ok(reply) => {
                let clock = reply.clock.unwrap_or(0);
                self.clocks.record(primary.clone(), clock, Instant::now());
                true
            }
            Err(e) => {
                (self.on_failed)(&primary.location, &e);
                false
            }
        }
    }

    /// The nodes to which a call has been in progress for longer than `time`.
    pub fn slow(&self, time: Duration) -> Vec<Location> {
        self.calls.slow(time)
    }

    /// Closes the connections to a node that is gone. Calls in progress fail.
    pub fn close(&self, location: &Location) {
        self.calls.close(location);
        self.pool.close_all(location);
    }
}

/// The start and the deadline of a write by the clock of `process`, if that is known.
fn times(clocks: &PrimaryClocks, process: &NodeId, request: &WriteRequest) -> Option<(i64, i64)> {
    let now = Instant::now();
    let time = |time| clocks.time(process, time, now);
    Some((time(request.started)?, time(request.deadline)?))
}

/// The batched call.
struct ForwardWrites {
    on_failed: Arc<OnFailedCall>,
    clocks: Arc<PrimaryClocks>,
}

impl BatchCall<OwnerClient, ForwardedWrite, WriteReply> for ForwardWrites {
    fn send(&self, peer: &mut OwnerClient, batch: &Batch<ForwardedWrite>) -> thrift::Result<()> {
        let primary = &batch.items[0].primary;
        let write = |write: &ForwardedWrite| {
            // Without the primary's clock no deadline can be told: then it is over.
            let times = times(&self.clocks, primary, &write.request);
            from_request(&write.request, times.unwrap_or_default())
        };
        let writes = batch.items.iter().map(write).collect();
        peer.send(|sender| sender.write_as_primary(writes, primary.generation))
    }

    fn receive(
        &self,
        peer: &mut OwnerClient,
        batch: &Batch<ForwardedWrite>,
    ) -> thrift::Result<Vec<WriteReply>> {
        let reply = peer.receive(|receiver| receiver.write_as_primary(Vec::new(), 0))?;
        let primary = batch.items[0].primary.clone();
        let clock = reply.clock.unwrap_or(0);
        self.clocks.record(primary, clock, Instant::now());
        let results = reply.results.unwrap_or_default();
        Ok(results.into_iter().map(WriteReply::from).collect())
    }

    fn on_error(&self, batch: &Batch<ForwardedWrite>, error: &Error) -> Vec<WriteReply> {
        (self.on_failed)(&batch.to, error);
        Vec::new()
    }
}
