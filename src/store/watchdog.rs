//! The watchdog: a thread of a store that looks for calls without a reply.
//!
//! A call waits for its reply for a second or more, because an owner may be busy. Long before,
//! the watchdog lets the membership probe the node that is called. If it turns out that only the
//! link to that node is cut, the connections to it are closed, so that calls in progress fail at
//! once and are repeated by way of another member.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::store::Store;
use crate::location::Location;

/// A call without a reply for so long is slow.
const SLOW_CALL: Duration = Duration::from_millis(200);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// The time between two reports of the same node.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Store {
    /// The watchdog's thread, until the store stops.
    pub(super) fn watch_loop(&self) {
        let mut reported: BTreeMap<Location, Instant> = BTreeMap::new();
        let mut cut_links: BTreeSet<Location> = BTreeSet::new();
        while !self.is_stopped() {
            let now_cut: BTreeSet<Location> = self.node.cut_links().into_iter().collect();
            // Also to those that reply again, to which the way by another member is longer.
            for peer in now_cut.symmetric_difference(&cut_links) {
                self.close_connections(peer);
            }
            cut_links = now_cut;
            reported.retain(|_, at| at.elapsed() < REPORT_INTERVAL);
            for peer in self.slow_peers(SLOW_CALL) {
                if let Entry::Vacant(new) = reported.entry(peer) {
                    self.node.report_slow(new.key());
                    new.insert(Instant::now());
                }
            }
            self.rest(INTERVAL);
        }
    }
}
