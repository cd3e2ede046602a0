//! The thread that keeps legacy nodes in step: it puts to them what they may not have, checks
//! that they have the rest, and executes puts that had to wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::doubts::Doubt;
use super::puts::WaitingPut;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{self, TLocatorSyncClient};
use crate::plural::counted;
use crate::store::key_writes::{Condition, WriteRequest};
use crate::store::placement::Key;
use crate::store::rebalance::{DEFAULT_REPLICAS, Phase};
use crate::store::store::Store;
use crate::store::table::{Cursor, SCAN_LIMIT};
use crate::store::types::{Client, Refusal, unix_millis};
use crate::store::versions::{Entry, Value, written_at};

/// The time between two looks at the legacy nodes.
const INTERVAL: Duration = Duration::from_millis(100);

/// The most keys of one connection: it keeps the legacy node from all others.
const KEYS: usize = 64;

/// The most bytes of the entries of one page of the table.
const PAGE: usize = 256 * 1024;

/// The most bytes of the entries that are checked at a time: some dozens, or a single larger one.
const CHECK_PAGE: usize = 8 * 1024;

/// The time between two checks of some keys that a legacy node should have.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last node of ours tries to hand its keys over without any success.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);

/// How long it may take to copy a value that was read at a legacy node.
const COPY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a put is tried, in milliseconds. One minute.
const PUT_TIMEOUT: i64 = 60_000;

/// The time between two log lines about the progress.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How long a key that is being written is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_millis(20);

/// What became of the keys of one connection.
#[derive(Default)]
struct Synced {
    /// Keys with values that the legacy node had or has now.
    in_place: usize,
    /// Keys that were put to it.
    put: usize,
    /// Keys that it does not have though they were put to it, or that were being written.
    open: usize,
}

/// Checks some keys at a time.
#[derive(Default)]
struct Checker {
    checked_at: Option<Instant>,
    /// Where to continue, for each legacy node.
    cursors: BTreeMap<Location, Cursor>,
}

impl Store {
    /// The thread that keeps legacy nodes in step, until the store stops.
    pub(in crate::store) fn legacy_loop(&self) {
        let mut checker = Checker::default();
        let mut executed = None;
        while !self.is_stopped() {
            let changes = self.changes();
            self.update_doubts();
            self.bootstrap_among_legacy_nodes();
            executed = self.execute_waiting_puts(executed);
            let open = self.doubts.lock().open(unix_millis());
            for doubt in open {
                if self.put_all_in_doubt(&doubt) {
                    self.doubts.lock().resolve(&doubt, unix_millis());
                }
            }
            checker.check_if_due(self);
            self.wait_for_change(changes, INTERVAL);
        }
    }

    /// Executes a one-way put, or keeps it until it can be executed.
    pub(in crate::store) fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        let put = WaitingPut {
            value,
            at: unix_millis(),
            seen: None,
        };
        let must_wait = !self.routing().is_serving() || self.waiting_puts.lock().contains(&key);
        let is_mixed = self.doubts.lock().has_peers();
        let execute = || match is_mixed {
            true => self.execute_put(&key, &put, false),
            false => self.write(&key, Some(put.value.clone())).map(drop),
        };
        if !must_wait && execute().is_ok() {
            return;
        }
        let lost = format!("the put of {} was lost", Key::new(&key));
        if let Err(why) = self.limits.check(key.len(), put.value.len(), 0, 0) {
            warn!("{lost}: {why}");
        } else if !self.waiting_puts.lock().add(key, put) {
            warn!("{lost}: too many puts wait until this node serves");
        }
    }

    /// Hands all keys to the legacy nodes that they belong to now, as the last node of ours.
    /// Blocks until they are in place, or until there is no progress for a while.
    ///
    /// # Errors
    /// How many keys could not be handed over.
    pub(in crate::store) fn hand_over_to_legacy(&self) -> Result<usize, Error> {
        let mut progress = (0, Instant::now());
        loop {
            self.update_doubts();
            self.apply_waiting_puts();
            let in_place = self.hand_over_once();
            let missing = self.table.keys().saturating_sub(in_place);
            if missing == 0 {
                return Ok(in_place);
            }
            if in_place > progress.0 {
                progress = (in_place, Instant::now());
            }
            if progress.1.elapsed() > GIVE_UP_AFTER || self.is_stopped() {
                return Err(Error::NotHandedOver(missing));
            }
            self.wait_for_change(self.changes(), INTERVAL);
        }
    }

    /// Takes over what is known of legacy nodes, and the ring.
    pub(in crate::store) fn update_doubts(&self) {
        let has_some = self.node.has_legacy() || self.doubts.lock().has_peers();
        let members = match has_some {
            true => self.node.legacy_nodes(),
            false => Vec::new(),
        };
        let (me, ring) = (self.node.location(), self.node.ring());
        let mut doubts = self.doubts.lock();
        doubts.update(me, &members, &ring, unix_millis());
    }

    /// A node that has joined legacy nodes only is the first of its kind.
    fn bootstrap_among_legacy_nodes(&self) {
        if self.rebalance().wants_history() && self.node.has_only_legacy_peers() {
            self.rebalance().bootstrap(DEFAULT_REPLICAS);
        }
    }

    /// Executes some of the puts after that of this key, until one fails. Returns where to
    /// continue.
    fn execute_waiting_puts(&self, mut after: Option<Vec<u8>>) -> Option<Vec<u8>> {
        for _ in 0..KEYS {
            if !self.routing().is_serving() || self.is_stopped() {
                return after;
            }
            let next = self.waiting_puts.lock().after(after.as_deref());
            let (key, put) = next?;
            let executed = self.execute_put(&key, &put, true);
            if let Err(why) = &executed {
                debug!("the put of {} waits: {why}", Key::new(&key));
            }
            let is_over = unix_millis() - put.at >= PUT_TIMEOUT;
            if executed.is_ok() || is_over || put.seen.is_some() {
                self.waiting_puts.lock().finish(&key, &put);
            }
            if let Err(why) = executed {
                if is_over {
                    warn!("the put of {} was lost: {why}", Key::new(&key));
                }
                return Some(key);
            }
            after = Some(key);
        }
        after
    }

    /// Writes what was put, unless that is known, or older than what our nodes have.
    fn execute_put(&self, key: &[u8], put: &WaitingPut, has_waited: bool) -> Result<(), Refusal> {
        if let Some(seen) = put.seen {
            // Not put to the owner again, which may have a newer value by now.
            let request = WriteRequest {
                key: key.to_vec(),
                value: Some(Value::of(key, &put.value)),
                id: self.ids.next(),
                is_retry: false,
                started: Instant::now(),
                deadline: Instant::now() + COPY_TIMEOUT,
                condition: Some(Condition::Unchanged(seen)),
            };
            let me = self.routing().me().clone();
            self.write_as_primary(&me, &[request]);
            return Ok(());
        }
        let latest = self.read_latest(&[Key::new(key)], Store::deadline(), false)?;
        let latest = latest.into_iter().next().flatten();
        if self.is_needed(Key::new(key), put, latest.as_ref(), has_waited) {
            self.write(key, Some(put.value.clone())).map(drop)
        } else {
            Ok(())
        }
    }

    /// Does a put change what our nodes have? A legacy node forwards what belongs to others by
    /// its ring, hands over empty values of keys that were only asked for, and hands over old ones.
    fn is_needed(
        &self,
        key: Key<'_>,
        put: &WaitingPut,
        latest: Option<&Entry>,
        has_waited: bool,
    ) -> bool {
        let Some(latest) = latest.filter(|latest| !latest.is_tombstone() || !put.value.is_empty())
        else {
            return !put.value.is_empty();
        };
        let doubts = self.doubts.lock();
        let has_one_ring = !doubts.has_ring_changed(put.at);
        let is_same = latest.value.as_deref() == Some(&put.value);
        let may_differ_there = has_one_ring && doubts.has_peers();
        let is_known = is_same && !may_differ_there;
        let is_older = has_waited && written_at(latest.version) > put.at;
        !is_known && !is_older && !doubts.is_late_handover(key, latest, put.at)
    }

    /// The last node of ours has nobody to ask where a put belongs.
    fn apply_waiting_puts(&self) {
        loop {
            let first = self.waiting_puts.lock().after(None);
            let Some((key, put)) = first else { return };
            let newest = self.table.version(Key::new(&key)).unwrap_or_default();
            if written_at(newest) <= put.at && put.seen.is_none() {
                let version = self.routing().next_version(put.at, newest);
                let value = Some(put.value.clone().into());
                self.keep(Key::new(&key), Entry { version, value });
            }
            self.waiting_puts.lock().finish(&key, &put);
        }
    }

    /// Puts to a legacy node what it may lack of the keys whose primary this node is. True if
    /// all is in place.
    fn put_all_in_doubt(&self, doubt: &Doubt) -> bool {
        // Until the rebalance has copied them, this node does not know all keys that it owns.
        let placement_id = self.routing().current().id();
        let has_all = || {
            let routing = self.routing();
            routing.phase() >= Phase::Synced && routing.current().id() == placement_id
        };
        let (mut cursor, mut put) = (Some(Cursor::default()).filter(|_| has_all()), 0);
        while let Some(at) = cursor {
            let written_since = if doubt.is_repeat { doubt.since } else { 0 };
            let (keys, next) = self.keys_for(&doubt.peer, &at, PAGE, written_since);
            match self.sync_keys(&doubt.peer, doubt.since, &keys) {
                Ok(synced) if synced.open == 0 => put += synced.put,
                Ok(_) => return false,
                Err(e) => {
                    debug!("a legacy node does not have all yet: {e}");
                    return false;
                }
            }
            cursor = next.filter(|_| !self.is_stopped());
        }
        if put > 0 {
            info!(
                "put {} to the legacy node {}",
                counted(put, "key"),
                doubt.peer
            );
        }
        has_all() && !self.is_stopped()
    }

    /// Returns how many keys are in place at legacy nodes.
    fn hand_over_once(&self) -> usize {
        let (mut in_place, mut logged_at) = (0, Instant::now());
        for peer in self.node.legacy_nodes() {
            let peer = peer.location;
            let mut cursor = Some(Cursor::default());
            while let Some(at) = cursor {
                let (keys, next) = self.keys_for(&peer, &at, PAGE, 0);
                let since = self.doubts.lock().since(&peer).unwrap_or(i64::MAX);
                let synced = self.sync_keys(&peer, since, &keys).unwrap_or_default();
                in_place += synced.in_place;
                cursor = next;
                if logged_at.elapsed() >= LOG_INTERVAL {
                    logged_at = Instant::now();
                    let all = counted(self.table.keys(), "key");
                    info!("handoff: {in_place} of {all}");
                }
            }
        }
        in_place
    }

    /// Some keys that were written since then, belong to a legacy node and are this node's to
    /// give: those whose primary it is or, when none of our nodes is left, all. And where the
    /// next ones start.
    fn keys_for(
        &self,
        peer: &Location,
        cursor: &Cursor,
        max_bytes: usize,
        written_since: i64,
    ) -> (Vec<Vec<u8>>, Option<Cursor>) {
        let (ring, routing) = (self.node.ring(), self.routing());
        let (current, me) = (routing.current(), routing.me());
        let is_for_peer = |key: Key<'_>| {
            let belongs = ring.owner_at(key.point) == Some(peer);
            belongs && current.primary(key).is_none_or(|primary| primary == me)
        };
        let page = self
            .table
            .page(cursor, max_bytes, SCAN_LIMIT, |_| true, is_for_peer);
        let entries = page.entries.into_iter();
        let recent = entries.filter(|(_, entry)| written_at(entry.version) >= written_since);
        (recent.map(|(key, _)| key).collect(), page.next)
    }

    /// Compares these keys with what a legacy node has, and puts to it what it lacks. What was
    /// written before `since` is only put where it has nothing.
    fn sync_keys(&self, peer: &Location, since: i64, keys: &[Vec<u8>]) -> Result<Synced, Error> {
        let mut synced = Synced::default();
        for keys in keys.chunks(KEYS) {
            self.call_legacy(peer, |client| {
                self.check_ring(peer, client)?;
                for key in keys {
                    self.sync_key(client, since, Key::new(key), &mut synced)?;
                }
                Ok(())
            })?;
        }
        Ok(synced)
    }

    /// A legacy node with another ring forwards calls, perhaps to this node, and would seem to
    /// have what it asks this node for. As a leaving node of the original does, this node tells
    /// it first that it leaves.
    pub(super) fn check_ring(&self, peer: &Location, client: &mut Client) -> thrift::Result<()> {
        let ring = self.node.ring();
        let me = self.node.location();
        let mut theirs = client.get_all()?;
        let mine = locator::Location::from(me);
        if !ring.contains(me) && theirs.contains(&mine) {
            let authorities = ring.nodes().map(Into::into).collect();
            client.remove(mine.clone(), authorities)?;
            theirs = client.get_all()?;
        }
        let is_same =
            theirs.len() == ring.len() && ring.nodes().all(|node| theirs.contains(&node.into()));
        if is_same {
            Ok(())
        } else {
            Err(format!("{peer} has another ring").into())
        }
    }

    fn sync_key(
        &self,
        client: &mut Client,
        since: i64,
        key: Key<'_>,
        synced: &mut Synced,
    ) -> thrift::Result<()> {
        let Some(_locked) = self.write_locks.lock(key, Instant::now() + LOCK_TIMEOUT) else {
            synced.open += 1;
            return Ok(());
        };
        let Some(entry) = self.table.read(key) else {
            return Ok(());
        };
        let has_value = usize::from(!entry.is_tombstone());
        let ours = entry.value.as_deref().unwrap_or_default();
        let theirs = client.get(key.bytes.to_vec())?;
        let must_have = written_at(entry.version) >= since || theirs.is_empty();
        if theirs == ours || !must_have {
            synced.in_place += has_value;
            return Ok(());
        }
        client.put(key.bytes.to_vec(), ours.to_vec())?;
        synced.put += 1;
        if client.get(key.bytes.to_vec())? == ours {
            synced.in_place += has_value;
        } else {
            synced.open += 1;
        }
        Ok(())
    }

    /// May a node that leaves last exit? Not while writes are in progress.
    pub(in crate::store) fn has_no_writes(&self) -> bool {
        self.rebalance().phase() >= Phase::Drained
    }
}

impl Checker {
    /// Checks some keys of each legacy node that should have all. If it lacks one, all are put
    /// to it.
    fn check_if_due(&mut self, store: &Store) {
        let is_due = |at: Instant| at.elapsed() >= CHECK_INTERVAL;
        if !self.checked_at.is_none_or(is_due) {
            return;
        }
        self.checked_at = Some(Instant::now());
        let peers = store.doubts.lock().resolved(unix_millis());
        self.cursors.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let cursor = self.cursors.entry(peer.clone()).or_default();
            let (keys, next) = store.keys_for(&peer, cursor, CHECK_PAGE, 0);
            *cursor = next.unwrap_or_default();
            let synced = store.sync_keys(&peer, i64::MAX, &keys);
            if synced.is_ok_and(|synced| synced.put > 0) {
                let now = unix_millis();
                store.doubts.lock().add(&peer, now, now);
            }
        }
    }
}
