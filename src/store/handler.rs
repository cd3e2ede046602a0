//! `StoreHandler`: the store as a service, extended from the locator as a user's would be.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use parking_lot::Mutex;

use super::durable::directory::Directory;
use super::key_writes::{WriteReply, WriteRequest};
use super::limits::StoreLimits;
use super::placement::{Key, NodeId, Placement};
use super::rebalance::{Pull, RebalanceStatus};
use super::store::Store;
use super::table::{BUCKETS, PAGE, SCAN_LIMIT, SMALL_PAGE};
use super::visible::VisibleStore;
use super::wire::{NOT_AN_OWNER, refused, to_read_result, to_requests};
use crate::diststore::{self as wire, StoreSyncClient, StoreSyncHandler, TStoreSyncClient};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::handler::{BaseHandler, LocatorHandler, service_chain};
use crate::http::Source;
use crate::location::Location;
use crate::membership::{Change, ChangeKind};
use crate::node::Node;
use crate::plural::counted;
use crate::rpc::fast_path::FastPath;

/// The service type of a store.
pub const SERVICE: &str = "diststore.Store";

/// How long a primary lets somebody wait for the end of a write.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a `get` may take while there are legacy nodes: one that has forwarded it serves
/// nobody else meanwhile, and must not be taken for dead.
const LEGACY_GET_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long a status waits until its sender, a new member, is known to the rebalance.
const MEMBERS_TIMEOUT: Duration = Duration::from_millis(500);

/// What a thread of a store does until the store stops.
type Run = fn(&Store);

/// The threads of a store.
const THREADS: [(&str, Run); 6] = [
    ("announcer", Store::announce_loop),
    ("puller", Store::pull_loop),
    ("finisher", Store::finish_loop),
    ("legacy", Store::legacy_loop),
    ("watchdog", Store::watch_loop),
    ("quorum", Store::quorum_loop),
];

/// A store node. A cheap handle; clones are the same store.
#[derive(Clone)]
pub struct StoreHandler {
    store: Arc<Store>,
    threads: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl StoreHandler {
    /// A store on `node` that requires `replicas` copies of each key. Without a number it
    /// keeps as many as its network does, or three in a new one.
    pub fn new(node: Node, replicas: Option<usize>, limits: StoreLimits) -> StoreHandler {
        StoreHandler {
            store: Arc::new(Store::new(node, replicas, limits)),
            threads: Arc::default(),
        }
    }

    /// A store that keeps its entries in this directory too. If it `is_forced`, a network is
    /// restored without the members that are missing. Blocks while the directory is read.
    ///
    /// # Errors
    /// As for [`Store::use_directory`].
    pub fn with_directory(
        node: Node,
        replicas: Option<usize>,
        limits: StoreLimits,
        directory: Directory,
        is_forced: bool,
    ) -> Result<StoreHandler, Error> {
        let replicas = replicas.or(directory.state().map(|state| state.replicas));
        let stops_on_split = directory.state().map(|state| state.stops_on_split);
        let mut store = Store::new(node, replicas, limits);
        store.use_directory(directory, is_forced)?;
        if let Some(stops) = stops_on_split {
            store.require_stop_on_split(stops);
        }
        Ok(StoreHandler {
            store: Arc::new(store),
            threads: Arc::default(),
        })
    }

    /// Waits this long before each page that is copied. For tests, which look at a rebalance
    /// in progress.
    #[cfg(feature = "testing")]
    pub fn delay_pages(&self, delay: Duration) {
        let millis = delay.as_millis() as u64;
        self.store.page_delay.store(millis, Relaxed);
    }

    /// What would be lost if the process ended now, as a sentence.
    pub fn at_risk(&self) -> String {
        let keys = counted(self.store.table.keys(), "key");
        match self.store.routing().replicas() {
            Some(1) | None => format!("no other node holds the {keys} here"),
            Some(copies) => {
                format!(
                    "until they are copied again, there is one copy less than {copies} of {keys}"
                )
            }
        }
    }

    /// The store itself, for programs that serve it and use it too.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl StoreHandler {
    /// Writes that have arrived, with their deadlines.
    fn requests(&self, writes: Vec<wire::Write>) -> thrift::Result<Vec<WriteRequest>> {
        let Store { started, ids, .. } = &*self.store;
        to_requests(writes, Store::deadline(), *started, ids).map_err(refused)
    }
}

impl BaseHandler for StoreHandler {
    fn endpoint(&self) -> &Endpoint {
        self.store.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "locator.Locator", SERVICE])
    }

    fn oneway_methods(&self) -> Vec<String> {
        service_chain(&["put"])
    }

    fn fast_path(&self) -> Option<Arc<dyn FastPath>> {
        Some(self.store.clone())
    }

    fn debug(&self) {
        self.store.node.debug();
        let (keys, bytes) = (
            counted(self.store.table.keys(), "key"),
            self.store.table.bytes(),
        );
        let routing = self.store.routing();
        let (placement_id, phase) = (routing.current().id(), routing.phase());
        info!("{keys} in {bytes} bytes, placement {placement_id:x} {phase:?}");
    }
}

impl LocatorHandler for StoreHandler {
    fn node(&self) -> &Node {
        &self.store.node
    }

    fn may_join(&self, peer: &Location) -> Result<(), Error> {
        let dialer = self.store.node.dialer();
        // A peer without a reply is found out later, and a legacy node has none.
        let stats = dialer.call(StoreSyncClient::new, peer, |peer| peer.stats(false));
        stats.map_or(Ok(()), |stats| {
            let replicas = stats.replicas.map(|replicas| replicas as usize);
            self.store
                .check_network(peer, replicas, stats.stops_on_split)
        })
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(VisibleStore::new(self.store.clone()))
    }

    fn joined(&self, bootstrapped: bool) {
        if bootstrapped && !self.store.is_recovered() {
            self.store.bootstrap();
        }
        self.store.rebalance().mark_joined();
        for (name, run) in THREADS {
            let store = self.store.clone();
            let thread = thread::Builder::new().name(name.into());
            match thread.spawn(move || run(&store)) {
                Ok(thread) => self.threads.lock().push(thread),
                Err(e) => self.store.fail(Error::Io(e)),
            }
        }
    }

    fn ring_changed(&self, changes: &[Change]) {
        self.store.update_rebalance();
        self.store.update_doubts();
        // Afterwards: a call that fails here must not call the same node again.
        for change in changes {
            if change.kind == ChangeKind::Down {
                self.store.close_connections(&change.location);
            }
        }
    }

    fn cleanup(&self) {
        self.store.node.leave();
        self.store.wait_for_handoff();
        self.store.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                warn!("a thread of the store has panicked");
            }
        }
        self.store.disk.close();
    }
}

impl StoreSyncHandler for StoreHandler {
    fn handle_get(&self, key: Vec<u8>) -> thrift::Result<Vec<u8>> {
        self.store.throttle.record_call();
        let held = if self.store.node.has_legacy() {
            let deadline = Instant::now() + LEGACY_GET_TIMEOUT;
            self.store.fetch_until(&key, deadline)
        } else {
            self.store.fetch(&key)
        };
        let value = held
            .map_err(thrift::Error::from)?
            .and_then(|entry| entry.value);
        Ok(value.map_or_else(Vec::new, |value| value.to_vec()))
    }

    fn handle_put(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<()> {
        self.store.throttle.record_call();
        debug!("received {}", Key::new(&key));
        self.store.put(key, value);
        Ok(())
    }

    fn handle_write(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<i64> {
        self.store.throttle.record_call();
        debug!("received {}", Key::new(&key));
        let outcome = self.store.write(&key, Some(value)).map_err(refused)?;
        Ok(outcome.version)
    }

    fn handle_fetch(&self, key: Vec<u8>) -> thrift::Result<wire::ReadResult> {
        self.store.throttle.record_call();
        Ok(to_read_result(self.store.fetch(&key).map_err(refused)?))
    }

    fn handle_unset(&self, key: Vec<u8>) -> thrift::Result<bool> {
        self.store.throttle.record_call();
        let outcome = self.store.write(&key, None).map_err(refused)?;
        Ok(outcome.existed)
    }

    fn handle_write_if(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        version: i64,
    ) -> thrift::Result<wire::WriteResult> {
        self.store.throttle.record_call();
        let outcome = self.store.write_if(&key, Some(value), version);
        Ok(WriteReply::Done(outcome.map_err(refused)?).into())
    }

    fn handle_unset_if(&self, key: Vec<u8>, version: i64) -> thrift::Result<wire::WriteResult> {
        self.store.throttle.record_call();
        let outcome = self.store.write_if(&key, None, version);
        Ok(WriteReply::Done(outcome.map_err(refused)?).into())
    }

    fn handle_write_many(
        &self,
        writes: Vec<wire::Write>,
    ) -> thrift::Result<Vec<wire::WriteResult>> {
        self.store.throttle.record_call();
        let requests = self.requests(writes)?;
        let results = self.store.write_requests(requests).map_err(refused)?;
        let reply = |result| match result {
            Ok(outcome) => WriteReply::Done(outcome),
            Err(why) => WriteReply::Refused(why),
        };
        let replies = results.into_iter().map(reply);
        Ok(replies.map(Into::into).collect())
    }

    fn handle_fetch_many(&self, keys: Vec<Vec<u8>>) -> thrift::Result<Vec<wire::ReadResult>> {
        self.store.throttle.record_call();
        let held = self.store.fetch_many(&keys).map_err(refused)?;
        Ok(held.into_iter().map(to_read_result).collect())
    }

    fn handle_list_keys(
        &self,
        prefix: Vec<u8>,
        cursor: Vec<u8>,
        limit: i32,
    ) -> thrift::Result<wire::KeyPage> {
        let page = self.store.list_keys(&prefix, &cursor, limit);
        Ok(page.map_err(refused)?.into())
    }

    fn handle_topology(&self) -> thrift::Result<wire::Topology> {
        let routing = self.store.routing();
        let current = routing.current();
        let nodes = |placement: &Arc<Placement>| placement.members().map(Into::into).collect();
        let members: Vec<wire::NodeId> = nodes(current);
        let read = routing.read_placement();
        let read = read.filter(|read| read.id() != current.id());
        let read_members: Vec<wire::NodeId> = read.map(nodes).unwrap_or_default();
        let has_legacy = self.store.node.has_legacy();
        Ok(wire::Topology::new(members, has_legacy, read_members))
    }

    fn handle_scan(&self, placement_id: i64, cursor: wire::Cursor) -> thrift::Result<wire::Page> {
        let cursor = cursor.try_into().map_err(refused)?;
        let page = self.store.scan(placement_id as u64, &cursor);
        Ok(page.map_err(refused)?.into())
    }

    fn handle_scan_keys(
        &self,
        placement_id: i64,
        cursor: wire::Cursor,
        range: wire::KeyRange,
        counts_only: bool,
    ) -> thrift::Result<wire::ScannedKeys> {
        let cursor = cursor.try_into().map_err(refused)?;
        let scanned = self
            .store
            .scan_keys(placement_id as u64, &cursor, &range, counts_only);
        scanned.map_err(refused)
    }

    fn handle_write_as_primary(
        &self,
        writes: Vec<wire::Write>,
        generation: i64,
    ) -> thrift::Result<wire::PrimaryReply> {
        let mut replies = Vec::new();
        if !writes.is_empty() {
            self.store.throttle.record_call();
            let requests = self.requests(writes)?;
            let primary = NodeId {
                generation,
                ..self.store.routing().me().clone()
            };
            replies = self.store.write_as_primary(&primary, &requests);
        }
        let results: Vec<wire::WriteResult> = replies.into_iter().map(Into::into).collect();
        let clock = self.store.clock_ms() as i64;
        Ok(wire::PrimaryReply::new(results, clock))
    }

    fn handle_replicate(
        &self,
        primary: wire::NodeId,
        copies: Vec<wire::Copy>,
        placement_id: i64,
        finished: i64,
    ) -> thrift::Result<wire::ReplicateResult> {
        self.store.throttle.record_call();
        let primary = NodeId::try_from(primary).map_err(thrift::Error::from)?;
        let placement_id = placement_id as u64;
        Ok(self
            .store
            .apply_replicated(&primary, copies, placement_id, finished))
    }

    fn handle_wait_until_finished(&self, generation: i64, sequence: i64) -> thrift::Result<bool> {
        let routing = self.store.routing().clone();
        if routing.me().generation != generation {
            return Err(refused(
                "the process of that generation is not here any more",
            ));
        }
        let deadline = Instant::now() + FINISH_TIMEOUT;
        Ok(routing.sequence().wait_until_finished(sequence, deadline))
    }

    fn handle_recall_writes(
        &self,
        ids: Vec<wire::WriteId>,
    ) -> thrift::Result<Vec<wire::WriteResult>> {
        let replies = self.store.recall_writes(ids.into_iter().map(Into::into));
        Ok(replies.into_iter().map(Into::into).collect())
    }

    fn handle_fetch_as_owner(
        &self,
        keys: Vec<Vec<u8>>,
        placement_id: i64,
    ) -> thrift::Result<Vec<wire::ReadResult>> {
        self.store.throttle.record_call();
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key)).collect();
        match self.store.read_as_owner(placement_id as u64, &keys) {
            Some(held) => Ok(held.into_iter().map(to_read_result).collect()),
            None => Err(refused(NOT_AN_OWNER)),
        }
    }

    fn handle_confirm(&self, member: wire::NodeId, placement_id: i64) -> thrift::Result<bool> {
        let member = NodeId::try_from(member).map_err(refused)?;
        Ok(self.store.confirm(&member, placement_id as u64))
    }

    fn handle_rebalance_status(
        &self,
        status: wire::RebalanceStatus,
        wants_history: bool,
    ) -> thrift::Result<wire::StatusReply> {
        let status = RebalanceStatus::try_from(status).map_err(refused)?;
        let sender = status.sender.clone();
        // A reply that does not account for what this node knows could confirm a process that
        // was declared down.
        let is_up_to_date = self.store.node.wait_until_published(MEMBERS_TIMEOUT)
            && self.store.wait_for_members(MEMBERS_TIMEOUT);
        if !is_up_to_date {
            return Err(refused("this node has not taken over its members yet"));
        }
        let is_down = self.store.node.is_down(&sender.location);
        let mut rebalance = self.store.rebalance();
        rebalance.on_status(None, status, None);
        let history = rebalance.history().filter(|_| wants_history);
        let mut reply = rebalance.status_for(&sender);
        if is_down {
            // It may still be on the ring for a while.
            reply.seen_generation = None;
        }
        Ok(wire::StatusReply::new(
            wire::RebalanceStatus::from(&reply),
            history.as_ref().map(Into::into),
        ))
    }

    fn handle_pull(&self, pull: wire::Pull) -> thrift::Result<wire::Page> {
        let pull = Pull::try_from(pull).map_err(refused)?;
        let not_ready = || refused("this node is not ready to send");
        let routing = self.store.routing();
        let filter = self.store.rebalance().transfer_filter(&pull);
        let is_current = || self.store.is_current(&routing);
        let filter = filter.filter(|_| is_current()).ok_or_else(not_ready)?;
        let is_busy = self.store.throttle.is_busy(Instant::now());
        let max_bytes = if is_busy { SMALL_PAGE } else { PAGE };
        let table = &self.store.table;
        let shared = self.store.rebalance().shared_keys(&pull.puller);
        let includes = |key: Key<'_>| filter.includes(key);
        let page = match shared.filter(|_| pull.digests.len() == BUCKETS) {
            Some(shared) => {
                table.page_without_same(&pull, max_bytes, SCAN_LIMIT, &shared, includes)
            }
            None => {
                let may_include = |points| filter.may_include_points(points);
                table.page(&pull.cursor, max_bytes, SCAN_LIMIT, may_include, includes)
            }
        };
        // Isolated meanwhile: the others may have gone on without this node.
        if !is_current() || !self.store.are_finished(&page.unfinished) {
            return Err(not_ready());
        }
        let count = page.entries.len() as u64;
        self.store.sent.fetch_add(count, Relaxed);
        Ok(wire::Page {
            busy: Some(is_busy),
            ..page.into()
        })
    }

    fn handle_stats(&self, count_primary: bool) -> thrift::Result<wire::NodeStats> {
        // Otherwise a node could seem settled that has not taken over a change of its ring.
        self.store.wait_for_members(MEMBERS_TIMEOUT);
        let routing = self.store.routing().clone();
        let (current, me) = (routing.current(), routing.me());
        let table = &self.store.table;
        let is_primary = |key: Key<'_>| current.is_primary(me, key);
        let silent = self.store.node.silent();
        let silent_for = silent.iter().map(|(_, age)| *age).max();
        let primary_keys = count_primary.then(|| table.count(is_primary) as i64);
        Ok(wire::NodeStats {
            keys: Some(table.keys() as i64),
            primary_keys,
            bytes: Some(table.bytes() as i64),
            replicas: routing.replicas().map(|replicas| replicas as i32),
            phase: Some(routing.phase().into()),
            serving: Some(routing.is_serving()),
            keys_received: Some(self.store.received.load(Relaxed) as i64),
            placement_id: Some(current.id() as i64),
            server: Some(self.store.node.endpoint().stats()),
            silent: Some(silent.iter().map(|(location, _)| location.into()).collect()),
            silent_for: Some(silent_for.map_or(0, |time| time.as_millis() as i64)),
            superseded: Some(self.store.losses.total() as i64),
            cut_links: Some(self.store.node.cut_links().iter().map(Into::into).collect()),
            is_stopped: Some(!self.store.has_quorum()),
            stops_on_split: routing.replicas().map(|_| routing.stops_on_split()),
            program: Some(env!("CARGO_PKG_VERSION").into()),
            missing: Some(
                routing
                    .missing()
                    .iter()
                    .map(|node| (&node.location).into())
                    .collect(),
            ),
        })
    }
    fn handle_held_copy(&self, key: Vec<u8>) -> thrift::Result<wire::HeldCopy> {
        let held = self.store.table.look_up(Key::new(&key));
        let value = held.as_ref().and_then(|held| held.entry.value.as_ref());
        Ok(wire::HeldCopy {
            version: Some(held.as_ref().map_or(0, |held| held.entry.version)),
            bytes: value.map(|value| value.len() as i64),
            is_finished: Some(held.as_ref().is_none_or(|held| held.is_finished)),
        })
    }
}
