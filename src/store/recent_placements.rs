//! `RecentPlacements`: is a write that this node does not know really new?
//!
//! A node remembers the writes of the keys that it owns. One that was not an owner for some of the
//! time since a write began may have missed an attempt, and asks the other nodes. With one copy of
//! each key, the only node that knew a write may have left meanwhile: an attempt that arrives so
//! late runs again.

use std::sync::Arc;

use parking_lot::Mutex;

use super::placement::{Key, NodeId, Placement};

/// The most placements remembered. With more changes in so short a time, no write is taken for
/// known.
const MAX: usize = 64;

/// The placements of the last seconds. Shared by threads. Times are milliseconds of a clock that
/// never goes back.
#[derive(Debug)]
pub struct RecentPlacements {
    /// How long a placement counts after its last use.
    retention_ms: u64,
    /// Held for a look-up.
    used: Mutex<Vec<Used>>,
}

#[derive(Debug)]
struct Used {
    placement: Arc<Placement>,
    /// When it was on the list of placements last.
    at: u64,
}

impl RecentPlacements {
    /// Placements that count for so long after their last use: as long as an attempt to write
    /// may be under way.
    pub fn new(retention_ms: u64) -> RecentPlacements {
        RecentPlacements {
            retention_ms,
            used: Mutex::default(),
        }
    }

    /// These placements are in use from now on, and those before no more.
    pub fn update(&self, placements: &[Arc<Placement>], now_ms: u64) {
        let mut used = self.used.lock();
        let is_listed = |used: &Used| placements.iter().any(|p| p.id() == used.placement.id());
        used.retain(|used| used.at + self.retention_ms >= now_ms || is_listed(used));
        for placement in placements {
            match used.iter_mut().find(|u| u.placement.id() == placement.id()) {
                Some(known) => known.at = u64::MAX - self.retention_ms,
                None => used.push(Used {
                    placement: placement.clone(),
                    at: u64::MAX - self.retention_ms,
                }),
            }
        }
        for used in used.iter_mut().filter(|used| !is_listed(used)) {
            used.at = used.at.min(now_ms);
        }
    }

    /// Has `node` been an owner of `key` all the time since then, which is no longer ago than
    /// placements are remembered?
    pub fn has_owned(&self, node: &NodeId, key: Key<'_>, replicas: usize, since_ms: u64) -> bool {
        let used = self.used.lock();
        let mut since = used.iter().filter(|used| used.at >= since_ms);
        used.len() <= MAX && since.all(|used| used.placement.owns(node, key, replicas))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn node(port: u16) -> NodeId {
        NodeId::new(Location::new("10.0.0.1", port).unwrap(), 1)
    }

    #[test]
    fn a_node_that_has_joined_does_not_know_all_writes_for_a_while() {
        let recent = RecentPlacements::new(100);
        let [one, both] = [1, 2].map(|count| Arc::new(Placement::new((1..=count).map(node))));
        let key = Key::new(b"key");
        let has_owned = |port, since| recent.has_owned(&node(port), key, 2, since);
        recent.update(std::slice::from_ref(&one), 0);
        recent.update(&[one.clone(), both.clone()], 10);
        assert!(has_owned(1, 5) && !has_owned(2, 5));
        assert!(!has_owned(2, 900), "the first one is still in use");
        recent.update(std::slice::from_ref(&both), 1_000);
        assert!(!has_owned(2, 1_000) && has_owned(2, 1_001));
        recent.update(&[one, both], 1_050);
        assert!(!has_owned(2, 1_060), "it is in use again");
    }
}
