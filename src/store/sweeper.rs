//! `Sweeper`: drops what a node does not need any more: keys that it does not own, and old
//! tombstones.
//!
//! A stripe of the table is swept in short parts. Before each part, while the stripe is
//! locked, the sweeper checks that the node is still settled in the same placement and that
//! no primary with another placement has sent copies recently. A key that this node is about
//! to own is therefore never dropped: its copy is either applied after the part, or its
//! sender is seen by the check.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use log::{debug, info};

use super::durable::row::Change;
use super::placement::Key;
use super::rebalance::Routing;
use super::store::Store;
use super::table::{STRIPES, Tombstone};
use crate::plural::counted;

/// Nothing is dropped for this time after a copy came from a primary with another placement,
/// which may make this node an owner.
const QUIET_BEFORE_SWEEP: Duration = Duration::from_secs(10);

/// The time between two sweeps in one placement.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How many sweeps that are [`SWEEP_INTERVAL`] apart a tombstone is kept for: longer than any copy
/// of an older value is in flight, whatever the clocks say. One hour.
const TOMBSTONE_AGE: u8 = 60;

/// What the puller's thread remembers between sweeps.
#[derive(Default)]
pub(super) struct Sweeper {
    /// The placement of the last sweep, and when it was.
    swept: Option<(u64, Instant)>,
    /// When tombstones became older last.
    aged: Option<Instant>,
}

impl Sweeper {
    /// Sweeps the table if it is time. Returns whether it did.
    pub fn sweep_if_due(&mut self, store: &Store) -> bool {
        let placement_id = store.routing().current().id();
        let is_due = self
            .swept
            .is_none_or(|(at, when)| at != placement_id || when.elapsed() > SWEEP_INTERVAL);
        if !is_due || !store.is_quiet() {
            return false;
        }
        let now = Instant::now();
        self.swept = Some((placement_id, now));
        let counts_age = self.aged.is_none_or(|at| now - at >= SWEEP_INTERVAL);
        if counts_age {
            self.aged = Some(now);
        }
        store.sweep(counts_age);
        true
    }
}

impl Store {
    /// Drops keys that this node does not own, and old tombstones.
    fn sweep(&self, counts_age: bool) {
        let routing = self.routing().clone();
        let (current, me) = (routing.current(), routing.me());
        let Some(replicas) = routing.replicas().filter(|_| current.contains(me)) else {
            return;
        };
        self.finish_superfluous(|key| !current.owns(me, key, replicas));
        let oldest_missed = self.doubts.lock().oldest().unwrap_or(i64::MAX);
        // A silent member may hold an older value, and return with it.
        let may_return = self.node.silent_count() > 0;
        let removed = RefCell::new(Vec::new());
        let keep = |key: Key<'_>, tombstone: Option<Tombstone>| {
            let is_expired = tombstone.is_some_and(|tombstone| {
                !may_return
                    && tombstone.age >= TOMBSTONE_AGE
                    && tombstone.deleted_at < oldest_missed
            });
            let is_kept = !is_expired && current.owns(me, key, replicas);
            if !is_kept && self.disk.is_durable() {
                removed.borrow_mut().push(Change::remove(key));
            }
            is_kept
        };
        let may_drop = || {
            let is_same = self.is_settled_in(&routing);
            is_same && self.is_quiet()
        };
        let mut dropped = 0;
        for stripe in 0..STRIPES {
            let swept = self.table.sweep(stripe, counts_age, may_drop, keep);
            self.disk.append(removed.take());
            match swept {
                Some(count) => dropped += count,
                None => return debug!("the sweep was interrupted"),
            }
        }
        if dropped > 0 {
            info!("dropped {}", counted(dropped, "key"));
        }
    }

    /// Asks how the writes ended whose copies are here and superfluous. Their coordinators do not
    /// tell, because they send no more copies. Stops at the first that has not ended.
    fn finish_superfluous(&self, is_superfluous: impl Fn(Key<'_>) -> bool) {
        for coordinator in self.unfinished.coordinators() {
            let copies = self.unfinished.of(&coordinator).all();
            for (_, copy) in copies {
                let key = Key::new(&copy.key);
                if is_superfluous(key) && !self.wait_for_write(key, copy.version) {
                    return;
                }
            }
        }
    }

    /// Has no primary with another placement sent a copy recently?
    fn is_quiet(&self) -> bool {
        let last = *self.stale_write_at.lock();
        last.is_none_or(|at| at.elapsed() > QUIET_BEFORE_SWEEP)
    }

    /// Is this node still settled in the placement of that snapshot?
    fn is_settled_in(&self, routing: &Routing) -> bool {
        let now = self.routing();
        now.is_settled() && now.current().id() == routing.current().id()
    }
}
