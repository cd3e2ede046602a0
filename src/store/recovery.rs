//! Recovery: what a store does with its data directory.
//!
//! At the start the entries on disk come into a table of their own, which answers nothing. If the
//! network runs, what it has counts: this node copies its keys as any new member does, but sends
//! digests of what it recovered, and what the source has too need not travel. Then the rest of what
//! was recovered is removed, also from disk. If no member runs, the recovered entries of those that
//! hold what was acknowledged become their tables (see [`rebalance`](super::rebalance)).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::durable::committer::{Disk, Newest, PATIENCE};
use super::durable::directory::{Directory, State};
use super::durable::row::{Change, MAX_KEY, Stored};
use super::key_writes::WriteRequest;
use super::placement::{Key, NodeId, Placement};
use super::rebalance::{DEFAULT_REPLICAS, Pull, Saved, SharedKeys};
use super::recovered::Recovered;
use super::store::Store;
use super::table::{BUCKETS, Page, STRIPES, Table, bucket_of};
use super::types::{ATTEMPT_LIFETIME_MS, Refusal, unix_millis};
use super::versions::{Entry, written_at};
use crate::error::Error;
use crate::location::Location;
use crate::plural::counted;

/// How often it is told which members are missing.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// How old a write may be so that its id is recovered, in milliseconds: attempts are not repeated for
/// so long.
const RECENT_MS: i64 = 60_000;

impl Store {
    /// Keeps the entries in this directory too, and recovers what is there. Called before the node
    /// joins. If it `is_forced`, a network is restored without the members that are missing. Blocks
    /// while the directory is read.
    ///
    /// # Errors
    /// [`Error::Data`]: a file is damaged or cannot be read. [`Error::Io`]: no thread can be started.
    pub fn use_directory(&mut self, directory: Directory, is_forced: bool) -> Result<(), Error> {
        let began = Instant::now();
        let path = directory.path().display().to_string();
        let damaged = |e| Error::Data(format!("the data directory {path}: {e}"));
        let (recovered, now) = (Table::default(), unix_millis());
        let on_stored = |stored: Stored<'_>| {
            let is_recent = written_at(stored.entry.version) + RECENT_MS > now;
            if let Some((id, outcome)) = stored.write.filter(|_| is_recent) {
                self.recent.record(id, outcome, 0);
            }
            recovered.apply(stored.key, stored.entry);
        };
        directory.engine().load(&on_stored).map_err(damaged)?;
        let (table, locks) = (self.table.clone(), self.write_locks.clone());
        let newest = move |key: Key<'_>| {
            let held = table.version(key).unwrap_or(0);
            held.max(locks.pending_version(key))
        };
        let newest: Box<Newest> = Box::new(newest);
        let engine = directory.engine().clone();
        let on_failure = self.failing();
        let disk = Disk::start(
            engine,
            directory.path(),
            directory.sync(),
            PATIENCE,
            newest,
            on_failure,
        );
        self.disk = disk.map_err(Error::Io)?;
        self.limits.key = self.limits.key.min(MAX_KEY);
        let saved = match directory.state() {
            Some(state) => {
                let keys = counted(recovered.keys(), "key");
                let took = began.elapsed().as_secs_f64();
                let network = &state.network;
                info!("{path} has {keys} of the network {network}, read in {took:.2} s");
                state.saved.clone()
            }
            None => Saved::default(),
        };
        if is_forced {
            warn!(
                "--force-bootstrap: this node does not wait for missing members; what only they have \
                 is missing, and what they acknowledged is lost if it is written meanwhile"
            );
        }
        self.rebalance().use_storage(saved, is_forced);
        self.recovery = Some(Recovered::new(directory, recovered));
        Ok(())
    }

    /// Was this node a member of a network before?
    pub(super) fn is_recovered(&self) -> bool {
        let state = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.directory.state());
        state.is_some_and(|state| state.saved.placement.is_some())
    }

    /// Looks for the members that this node knew, and for these peers. Called before it joins.
    ///
    /// # Errors
    /// [`Error::Data`]: a peer belongs to another network.
    pub fn find_members(&self, peers: &[Location]) -> Result<(), Error> {
        let Some(recovery) = &self.recovery else {
            return Ok(());
        };
        let state = recovery.directory.state();
        let others = peers.iter().filter(|peer| *peer != self.node.location());
        for peer in others.clone() {
            let found = self
                .node
                .network_of(peer)
                .filter(|found| found.contains('/'));
            if let (Some(found), Some(state)) = (found, state)
                && found != state.network
            {
                let (path, own) = (recovery.directory.path().display(), &state.network);
                return Err(Error::Data(format!(
                    "the data directory {path} belongs to the network {own}, and {peer} to {found}"
                )));
            }
        }
        let saved = state.and_then(|state| state.saved.placement.as_ref());
        if saved.is_some() {
            self.node.set_returning();
        }
        let known = saved.iter().flat_map(|placement| placement.members());
        let known = known.map(|node| &node.location);
        let known = known.filter(|peer| *peer != self.node.location());
        self.node.add_seeds(known.chain(others));
        Ok(())
    }

    /// Starts a network. Where there is a directory, that is on disk before this node serves.
    pub(super) fn bootstrap(&self) {
        let me = self.routing().me().clone();
        let saved = Saved {
            lives: vec![me.clone()],
            placement: Some(Arc::new(Placement::new([me]))),
            settlement: 0,
        };
        if self.write_state(&saved) {
            let mut rebalance = self.rebalance();
            rebalance.bootstrap(DEFAULT_REPLICAS);
            rebalance.on_saved(saved);
        }
    }

    /// Takes the steps of the rebalance that need the disk. Returns whether there was one. Called by
    /// the puller.
    pub(super) fn recover_step(&self) -> bool {
        let Some(recovery) = &self.recovery else {
            return false;
        };
        self.tell_missing(recovery);
        let (must_absorb, wanted) = {
            let rebalance = self.rebalance();
            (rebalance.must_absorb(), rebalance.wanted_save())
        };
        if must_absorb {
            if let Some(recovered) = recovery.table.lock().take() {
                self.table.absorb(&recovered);
            }
            self.restored.store(true, Relaxed);
            let keys = counted(self.table.keys(), "key");
            info!("the network is restored from its disks: {keys} here");
            self.rebalance().on_absorbed();
        } else if let Some(wanted) = wanted {
            self.remove_unconfirmed(recovery);
            if self.write_state(&wanted) {
                self.rebalance().on_saved(wanted);
            }
        } else {
            return false;
        }
        true
    }

    /// Removes the recovered entries that the network does not have, also from disk.
    fn remove_unconfirmed(&self, recovery: &Recovered) {
        let Some(recovered) = recovery.table.lock().take() else {
            return;
        };
        for stripe in 0..STRIPES {
            let rows = recovered.rows_of(stripe, |key| self.table.version(key).is_none());
            self.disk
                .append(rows.iter().map(|(key, _)| Change::remove(Key::new(key))));
        }
    }

    /// Writes durably what this node is, after the entries of which it tells. Does nothing without a
    /// directory. False if that fails: then the store ends.
    fn write_state(&self, saved: &Saved) -> bool {
        let Some(recovery) = &self.recovery else {
            return true;
        };
        let routing = self.routing().clone();
        let state = State {
            network: self.node.network(),
            replicas: routing.replicas().unwrap_or(DEFAULT_REPLICAS),
            stops_on_split: routing.stops_on_split(),
            saved: saved.clone(),
        };
        let is_synced = self.disk.sync();
        let written = recovery.directory.save(&state);
        if let Err(e) = &written {
            let path = recovery.directory.path().display();
            self.fail(Error::Data(format!("cannot write to {path}: {e}")));
        }
        is_synced && written.is_ok()
    }

    fn tell_missing(&self, recovery: &Recovered) {
        let missing = self.routing().missing().to_vec();
        let mut told = recovery.told.lock();
        let is_told = |(at, nodes): &(Instant, Vec<NodeId>)| {
            *nodes == missing && at.elapsed() < TELL_INTERVAL
        };
        if missing.is_empty() || told.as_ref().is_some_and(is_told) {
            return;
        }
        *told = Some((Instant::now(), missing.clone()));
        drop(told);
        warn!("{}", waiting_for(&missing));
    }

    /// May this node keep callers waiting, as far as members are missing? Never blocks.
    ///
    /// # Errors
    /// Too many are missing to restore the network from its disks.
    pub(super) fn check_restored(&self) -> Result<(), Refusal> {
        match self.routing().missing() {
            [] => Ok(()),
            missing => Err(waiting_for(missing)),
        }
    }

    /// May the write have run before the network ended and was restored?
    pub(super) fn may_have_run_before(&self, request: &WriteRequest) -> bool {
        let is_young = self.clock_ms() < ATTEMPT_LIFETIME_MS;
        request.started <= self.started && is_young && self.restored.load(Relaxed)
    }

    /// Adds the digests of what this node has, if it has anything, to a pull from `source`.
    pub(super) fn add_digests(&self, source: &NodeId, pull: &mut Pull) {
        if let Some((held, shared)) = self.comparable(source) {
            pull.digests = held.digests(pull.cursor.stripe, |key| shared.include(key));
        }
    }

    /// The source has the same as this node in these buckets: what was recovered in them counts.
    pub(super) fn take_same(&self, source: &NodeId, stripe: usize, same: &[usize]) {
        let recovered = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.table.lock().clone());
        let shared = self.rebalance().shared_keys(source);
        if let (Some(recovered), Some(shared), false) = (recovered, shared, same.is_empty()) {
            let is_same =
                |key: Key<'_>| same.contains(&bucket_of(key.point)) && shared.include(key);
            for (key, entry) in recovered.rows_of(stripe, is_same) {
                // It is on disk already.
                self.table.apply(Key::new(&key), entry);
            }
        }
    }

    /// What this node has, and the part of it that can be compared with what `source` has.
    fn comparable(&self, source: &NodeId) -> Option<(Arc<Table>, SharedKeys)> {
        let recovery = self.recovery.as_ref()?;
        let recovered = recovery.table.lock().clone();
        let rebalance = self.rebalance();
        let held = recovered.or_else(|| rebalance.offers_all().then(|| self.table.clone()))?;
        Some((held, rebalance.shared_keys(source)?))
    }

    /// Another entry of the key has come: what was recovered is older, if it is.
    pub(super) fn note_recovered(&self, key: Key<'_>, entry: &Entry) {
        let recovery = self.recovery.as_ref();
        if let Some(recovered) = recovery.and_then(|recovery| recovery.table.lock().clone()) {
            recovered.apply(key, entry.clone());
        }
    }
}

impl Table {
    /// The page for a puller that has these digests of the shared keys.
    pub(super) fn page_without_same(
        &self,
        pull: &Pull,
        max_bytes: usize,
        max_scanned: usize,
        shared: &SharedKeys,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Page {
        let stripe = pull.cursor.stripe;
        let own = self.digests(stripe, |key| shared.include(key));
        let is_same = |bucket: &usize| own[*bucket] == pull.digests[*bucket];
        let same: Vec<usize> = (0..BUCKETS).filter(is_same).collect();
        let is_wanted = |key: Key<'_>| {
            let bucket = bucket_of(key.point);
            wanted(key) && !(own[bucket] == pull.digests[bucket] && shared.include(key))
        };
        let limits = (max_bytes, max_scanned, stripe + 1);
        let page = self.page_until(&pull.cursor, limits, |_| true, is_wanted);
        Page { same, ..page }
    }
}

fn waiting_for(missing: &[NodeId]) -> String {
    let nodes: Vec<String> = missing
        .iter()
        .map(|node| node.location.to_string())
        .collect();
    format!(
        "the network starts again from its disks and waits for more of its members: start {} (or \
         see --force-bootstrap)",
        nodes.join(", ")
    )
}
