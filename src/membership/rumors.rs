//! `RumorQueue`: the locations whose records have changed recently.
//!
//! An exchange carries the *current* record of each, so a member that changes twice is one rumor.
//! The queue is bounded: the oldest rumors are dropped, and so are those that others already
//! know.

use std::collections::BTreeMap;

use crate::location::Location;

/// The rumors of a hot node.
#[derive(Debug, Clone, Default)]
pub(super) struct RumorQueue {
    rumors: BTreeMap<Location, Rumor>,
    last: u64,
}

#[derive(Debug, Clone)]
struct Rumor {
    /// Grows from each rumor to the next newer one.
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
        self.rumors.insert(location.clone(), rumor);
        if self.rumors.len() > limit {
            let oldest = self.rumors.values().map(|rumor| rumor.sequence).min();
            self.rumors
                .retain(|_, rumor| Some(rumor.sequence) != oldest);
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
            self.rumors.remove(location);
        }
    }

    /// The locations, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.rumors.keys()
    }

    /// Drops all rumors.
    pub fn clear(&mut self) {
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
