//! `RumorQueue`: the locations whose records have changed recently.
//!
//! An exchange carries the *current* record of each, so a member that changes twice is one rumor.
//! The queue is bounded: the oldest rumors are dropped, and so are those that others already
//! know.

use std::collections::BTreeMap;

use crate::location::Location;

/// The rumors of a hot node, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct RumorQueue {
    order: BTreeMap<u64, Location>,
    rumors: BTreeMap<Location, Rumor>,
    last: u64,
}

#[derive(Debug, Clone)]
struct Rumor {
    /// Its key in `order`.
    sequence: u64,
    /// How many times another node has sent the same record.
    duplicates: u32,
}

impl RumorQueue {
    /// Adds `location` as the newest rumor. Drops the oldest one if there are more than `limit`.
    pub fn add(&mut self, location: &Location, limit: usize) {
        self.last += 1;
        let rumor = Rumor {
            sequence: self.last,
            duplicates: 0,
        };
        if let Some(before) = self.rumors.insert(location.clone(), rumor) {
            self.order.remove(&before.sequence);
        }
        self.order.insert(self.last, location.clone());
        if self.order.len() > limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.rumors.remove(&oldest);
        }
    }

    /// Records that another node sent the same record of `location`. Drops the rumor after `limit`
    /// duplicates.
    pub fn count_duplicate(&mut self, location: &Location, limit: u32) {
        let Some(rumor) = self.rumors.get_mut(location) else {
            return;
        };
        rumor.duplicates += 1;
        if rumor.duplicates >= limit {
            self.order.remove(&rumor.sequence);
            self.rumors.remove(location);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.order.values()
    }

    /// Drops all rumors.
    pub fn clear(&mut self) {
        self.order.clear();
        self.rumors.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_the_oldest_rumor_and_a_repeated_one_is_the_newest() {
        let [a, b, c] = ["h:1", "h:2", "h:3"].map(|text| text.parse::<Location>().unwrap());
        let mut rumors = RumorQueue::default();
        for location in [&a, &b, &a, &c] {
            rumors.add(location, 2);
        }
        assert_eq!(rumors.iter().collect::<Vec<_>>(), [&a, &c]);
    }

    #[test]
    fn a_rumor_is_dropped_after_its_limit_of_duplicates() {
        let a = "h:1".parse::<Location>().unwrap();
        let mut rumors = RumorQueue::default();
        rumors.add(&a, 2);
        rumors.count_duplicate(&a, 2);
        assert_eq!(rumors.iter().count(), 1);
        rumors.count_duplicate(&a, 2);
        assert_eq!(rumors.iter().count(), 0);
    }
}
