//! `Store`: one node's store, and what its parts share.
//!
//! What it does for clients and other nodes is in `read` and `write`; what it does by itself
//! in `rebalancer`, `sweeper` and `handoff`.
//!
//! # Locks
//!
//! * Requests route by the [`Routing`] snapshot, which they load without a lock. They take
//!   the *write locks* of the keys they write as a primary, for as long as the write is in
//!   progress, and the lock of a stripe of the table for one look-up.
//! * The *rebalance* lock guards the state machine of the rebalance. The store's own threads
//!   take it, and calls between nodes about the rebalance. It is held to decide, never during
//!   a call, a scan or a log line. Every change publishes another snapshot.
//!
//! A call from another node takes no write lock except at a primary, and a primary calls only
//! methods that take none. So our nodes cannot wait for one another in a circle. A legacy node may
//! forward a call back to its caller, which then waits until its own call times out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use log::debug;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::durable::committer::{Disk, OnFailure, Ticket};
use super::durable::row::Change;
use super::execution::Execution;
use super::forwarder::Forwarder;
use super::legacy::{Doubts, WaitingPuts};
use super::limits::StoreLimits;
use super::placement::{Key, NodeId};
use super::quorum::Quorum;
use super::rebalance::{MemberSnapshot, Rebalance, Routing, Rules};
use super::recent_placements::RecentPlacements;
use super::recent_writes::{RecentWrites, WriteIds};
use super::recovered::Recovered;
use super::remote_read::RemoteReader;
use super::replicator::{Replicator, replicator};
use super::split_losses::SplitLosses;
use super::table::Table;
use super::throttle::Throttle;
use super::types::{
    ATTEMPT_LIFETIME_MS, CALL_TIMEOUT, Client, PEER_TIMEOUTS, QUORUM_TIMEOUTS, Refusal,
};
use super::unfinished_copies::UnfinishedCopies;
use super::versions::Entry;
use super::write_locks::WriteLocks;
use crate::diststore::StoreSyncClient;
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::retry::jittered;
use crate::rpc::pool::Pool;

/// The pause between two attempts of a call, unless the rebalance changes before.
const RETRY: Duration = Duration::from_millis(10);

/// One node's store: its table, its part in the rebalance, its connections to others.
pub struct Store {
    pub(super) node: Node,
    pub(super) table: Arc<Table>,
    /// Where the entries are kept too. Does nothing without a directory.
    pub(super) disk: Disk,
    /// The data directory, if there is one.
    pub(super) recovery: Option<Recovered>,
    /// The network was restored from its disks when this process started.
    pub(super) restored: AtomicBool,
    pub(super) limits: StoreLimits,
    rebalance: Mutex<Rebalance>,
    /// The epoch of the membership for which the rebalance accounts.
    rebalanced_epoch: AtomicU64,
    /// The snapshot by which requests are routed.
    routing: ArcSwap<Routing>,
    changes: ChangeSignal,
    pub(super) peers: Pool<Client>,
    pub(super) forwarder: Forwarder,
    pub(super) replicator: Replicator,
    pub(super) remote_reader: RemoteReader,
    pub(super) write_locks: WriteLocks,
    /// Names writes that clients have not named.
    pub(super) ids: WriteIds,
    pub(super) recent: RecentWrites,
    pub(super) recent_placements: RecentPlacements,
    pub(super) unfinished: UnfinishedCopies,
    /// Writes that the finisher is to take over. Held briefly.
    pub(super) left_open: Mutex<Vec<Execution>>,
    /// The zero of the store's clock.
    pub(super) started: Instant,
    /// When the last copy came from a primary with another placement: keys that look
    /// superfluous may soon be owned. Held briefly.
    pub(super) stale_write_at: Mutex<Option<Instant>>,
    pub(super) throttle: Throttle,
    /// What legacy nodes may lack. Held to look or to change, never during a call.
    pub(super) doubts: Mutex<Doubts>,
    /// Values of legacy nodes that are still to be written. Held likewise.
    pub(super) waiting_puts: Mutex<WaitingPuts>,
    /// The source of the last page reported that its clients keep it busy.
    pub(super) source_is_busy: AtomicBool,
    /// Keys received in the current rebalance.
    pub(super) received: AtomicU64,
    /// Keys sent to other nodes.
    pub(super) sent: AtomicU64,
    /// Attempts of calls after the first one.
    pub(super) retries: AtomicU64,
    /// Held while this node reads a page of keys from all members, so that it does so for one caller
    /// at a time. Guards nothing else, and no other request takes it.
    pub(super) listing: Mutex<()>,
    /// Tests wait this long before each page, in milliseconds, to see a rebalance in progress.
    #[cfg(feature = "testing")]
    pub(super) page_delay: AtomicU64,
    /// Confirmations of this node by others and of others by this node. Held briefly.
    pub(super) quorum: Mutex<Quorum>,
    /// Until when they let this node serve, by [`clock_ms`](Store::clock_ms). Not limited where
    /// splits do not stop it.
    pub(super) quorum_until: AtomicU64,
    /// They have been missing for long.
    pub(super) refuses_calls: AtomicBool,
    pub(super) quorum_calls: Pool<Client>,
    /// What splits have cost.
    pub(super) losses: SplitLosses,
    /// Processes that did not reply lately: since when, and when last.
    pub(super) silences: Mutex<BTreeMap<NodeId, (Instant, Instant)>>,
    stopped: Arc<AtomicBool>,
    /// Why the store had to end.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Store {
    /// An empty store on `node`. `replicas` is the number of copies that it requires.
    pub fn new(node: Node, replicas: Option<usize>, limits: StoreLimits) -> Store {
        let epoch = node.epoch();
        let me = NodeId::from(&node.snapshot().own);
        let state = Rebalance::new(me, replicas, Rules::default());
        Store {
            peers: Pool::new(node.dialer().clone(), StoreSyncClient::new, PEER_TIMEOUTS),
            quorum_calls: Pool::new(node.dialer().clone(), StoreSyncClient::new, QUORUM_TIMEOUTS),
            forwarder: Forwarder::new(node.dialer(), {
                let node = node.clone();
                move |primary, error| {
                    debug!("{error}");
                    // A legacy node may have taken the place of the primary.
                    if error.is_unreachable() || error.is_unknown_method() {
                        node.report_unreachable(primary, error);
                    }
                }
            }),
            replicator: replicator(&node),
            remote_reader: RemoteReader::new(&node),
            node,
            table: Arc::default(),
            disk: Disk::default(),
            recovery: None,
            restored: AtomicBool::new(false),
            limits,
            routing: ArcSwap::from_pointee(state.routing()),
            rebalance: Mutex::new(state),
            rebalanced_epoch: AtomicU64::new(epoch),
            changes: ChangeSignal::default(),
            write_locks: WriteLocks::default(),
            ids: WriteIds::default(),
            recent: RecentWrites::default(),
            recent_placements: RecentPlacements::new(ATTEMPT_LIFETIME_MS),
            unfinished: UnfinishedCopies::default(),
            left_open: Mutex::default(),
            started: Instant::now(),
            stale_write_at: Mutex::default(),
            throttle: Throttle::default(),
            doubts: Mutex::default(),
            waiting_puts: Mutex::default(),
            source_is_busy: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            listing: Mutex::default(),
            #[cfg(feature = "testing")]
            page_delay: AtomicU64::new(0),
            quorum: Mutex::default(),
            quorum_until: AtomicU64::new(u64::MAX),
            refuses_calls: AtomicBool::new(false),
            losses: SplitLosses::default(),
            silences: Mutex::default(),
            stopped: Arc::default(),
            failure: Arc::default(),
        }
    }

    /// The snapshot by which a request is routed. Never blocks.
    pub(super) fn routing(&self) -> Guard<Arc<Routing>> {
        self.routing.load()
    }

    /// May this node act by that snapshot? Not while it is isolated, or was isolated or declared
    /// down since the snapshot was taken. Never blocks.
    pub(super) fn is_current(&self, routing: &Routing) -> bool {
        // In this order: a node that has contact again has counted its isolation before.
        self.node.has_contact()
            && self.disk.is_working()
            && self.has_quorum()
            && self.node.isolations() == routing.isolations()
            && self.node.generation() == routing.me().generation
    }

    /// Is that the snapshot that was published last? Never blocks.
    pub(super) fn is_latest(&self, routing: &Routing) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.routing.load()), routing)
    }

    /// The rebalance. Publishes a snapshot and wakes waiting threads when it has changed.
    pub(super) fn rebalance(&self) -> RebalanceGuard<'_> {
        let guard = self.rebalance.lock();
        let before = guard.changes();
        RebalanceGuard {
            guard,
            before,
            store: self,
        }
    }

    /// Requires that choice for splits (see [`Routing::stops_on_split`]). Called before the node
    /// joins.
    pub fn require_stop_on_split(&self, stops: bool) {
        self.rebalance().require_stop_on_split(stops);
    }

    /// Takes over what membership knows now, and suspends the lease after an isolation.
    /// Called by the node's and the store's own threads: it may compute a ring.
    pub(super) fn update_rebalance(&self) {
        let epoch = self.node.epoch();
        self.update_quorum();
        let mut rebalance = self.rebalance();
        let has_contact = self.node.has_contact();
        let isolations = self.node.isolations();
        if !has_contact || isolations != rebalance.isolations() {
            rebalance.suspend_lease(isolations);
        }
        if self.rebalanced_epoch.load(Acquire) != epoch {
            rebalance.update_members(members(&self.node));
            drop(rebalance);
            self.rebalanced_epoch.store(epoch, Release);
            self.changes.notify();
        } else {
            drop(rebalance);
        }
        self.note_split();
    }

    /// Waits until the routing accounts for what membership has published, for `timeout` at
    /// most. Returns whether it does.
    pub(super) fn wait_for_members(&self, timeout: Duration) -> bool {
        let (epoch, deadline) = (self.node.epoch(), Instant::now() + timeout);
        loop {
            let changes = self.changes();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_updated = self.rebalanced_epoch.load(Acquire) >= epoch;
            if is_updated || left.is_zero() || self.is_stopped() {
                return is_updated;
            }
            self.wait_for_change(changes, left);
        }
    }

    /// The number of changes of the rebalance so far, to be passed to
    /// [`wait_for_change`](Store::wait_for_change).
    pub(super) fn changes(&self) -> u64 {
        *self.changes.count.lock()
    }

    /// Blocks until there are more than `changes` changes, for `timeout` at most.
    pub(super) fn wait_for_change(&self, changes: u64, timeout: Duration) {
        let mut count = self.changes.count.lock();
        let is_same = |count: &mut u64| *count == changes && !self.is_stopped();
        self.changes
            .changed
            .wait_while_for(&mut count, is_same, timeout);
    }

    /// Pauses for `time`, or until the store stops.
    pub(super) fn rest(&self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_stopped() {
                return;
            }
            self.wait_for_change(self.changes(), left);
        }
    }

    /// Pauses before another attempt of a call, until the rebalance changes at most. False
    /// when the deadline has passed.
    pub(super) fn pause_until(&self, deadline: Instant) -> bool {
        if Instant::now() >= deadline || self.is_stopped() {
            return false;
        }
        self.wait_for_change(self.changes(), jittered(RETRY));
        self.retries.fetch_add(1, Relaxed);
        true
    }

    /// The deadline of a client's call that starts now.
    pub(super) fn deadline() -> Instant {
        Instant::now() + CALL_TIMEOUT
    }

    /// Checks that all these entries together fit the limits.
    ///
    /// # Errors
    /// Why one of them does not.
    pub(super) fn check_room<'a>(
        &self,
        entries: impl IntoIterator<Item = (Key<'a>, &'a Entry)>,
    ) -> Result<(), Refusal> {
        self.check_room_beside(&mut self.table.bytes(), entries)
    }

    /// [`check_room`](Store::check_room) when so many bytes are used. Adds those of the entries.
    pub(super) fn check_room_beside<'a>(
        &self,
        used: &mut usize,
        entries: impl IntoIterator<Item = (Key<'a>, &'a Entry)>,
    ) -> Result<(), Refusal> {
        self.disk.check_room()?;
        for (key, entry) in entries {
            let growth = match entry.is_tombstone() {
                true => 0,
                false => self.table.growth(key, entry),
            };
            let (key, value) = (key.bytes.len(), entry.value_len());
            self.limits.check(key, value, growth, *used)?;
            *used += growth;
        }
        Ok(())
    }

    /// Keeps a finished entry, unless the table has a newer one. Returns its place in the order of
    /// what comes to disk.
    pub(super) fn keep(&self, key: Key<'_>, entry: Entry) -> Ticket {
        self.note_recovered(key, &entry);
        let is_durable = self.disk.is_durable();
        let change = is_durable.then(|| Change::write(key, &entry, None));
        let is_kept = self.table.apply(key, entry);
        self.disk.append(change.filter(|_| is_kept))
    }

    /// Milliseconds since the store started.
    pub(super) fn clock_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Wakes the threads that wait for a change.
    pub(super) fn notify(&self) {
        self.changes.notify();
    }

    /// Closes the connections to a node that is down or has exited. Calls in progress fail
    /// instead of waiting for their timeouts.
    pub(super) fn close_connections(&self, location: &Location) {
        self.forwarder.close(location);
        self.replicator.close(location);
        self.remote_reader.close(location);
        self.peers.close_all(location);
    }

    /// The nodes to which a call has been in progress for longer than `time`.
    pub(super) fn slow_peers(&self, time: Duration) -> BTreeSet<Location> {
        let all = [
            self.forwarder.slow(time),
            self.replicator.slow(time),
            self.remote_reader.slow(time),
            self.peers.slow(time),
        ];
        all.into_iter().flatten().collect()
    }

    /// Ends the store's own threads, and every wait.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.changes.notify();
    }

    /// Was the store stopped?
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Ends the service because the store cannot go on.
    pub(super) fn fail(&self, why: Error) {
        self.failure.lock().get_or_insert(why);
        self.stop();
        self.node.endpoint().shutdown().request();
    }

    /// Ends the service when the disk fails.
    pub(super) fn failing(&self) -> Box<OnFailure> {
        let (stopped, failure) = (self.stopped.clone(), self.failure.clone());
        let node = self.node.clone();
        Box::new(move |why| {
            failure.lock().get_or_insert(Error::Data(why));
            stopped.store(true, Relaxed);
            node.endpoint().shutdown().request();
        })
    }

    /// Takes the reason why the store had to end, if it had to.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }
}

/// The processes that take part, as membership knows them.
fn members(node: &Node) -> MemberSnapshot {
    let snapshot = node.snapshot();
    MemberSnapshot {
        me: NodeId::from(&snapshot.own),
        live: snapshot.live.iter().map(NodeId::from).collect(),
        leaving: snapshot.leaving.iter().map(NodeId::from).collect(),
    }
}

/// The locked rebalance. When it is dropped after a change, it publishes a snapshot.
pub(super) struct RebalanceGuard<'a> {
    guard: MutexGuard<'a, Rebalance>,
    before: u64,
    store: &'a Store,
}

impl Deref for RebalanceGuard<'_> {
    type Target = Rebalance;

    fn deref(&self) -> &Rebalance {
        &self.guard
    }
}

impl DerefMut for RebalanceGuard<'_> {
    fn deref_mut(&mut self) -> &mut Rebalance {
        &mut self.guard
    }
}

impl Drop for RebalanceGuard<'_> {
    fn drop(&mut self) {
        if self.guard.changes() == self.before {
            return;
        }
        while self.guard.changes() != self.before {
            self.before = self.guard.changes();
            let routing = Arc::new(self.guard.routing());
            let placements = routing.placements();
            self.store
                .recent_placements
                .update(placements, self.store.clock_ms());
            self.store.routing.store(routing);
            // May take further steps.
            self.guard.on_published();
        }
        self.store.changes.notify();
    }
}

/// Counts the changes of the rebalance and wakes those that wait for one.
#[derive(Default)]
struct ChangeSignal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl ChangeSignal {
    fn notify(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }
}
