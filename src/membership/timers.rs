//! `Timers`: at most one deadline for each location.
//!
//! There are as many as there are suspects or tombstones: some at most times, some thousands after
//! a large failure. So the earliest one is looked for, which takes microseconds then.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::location::Location;

/// Deadlines by location.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers(BTreeMap<Location, Duration>);

impl Timers {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sets the location's deadline, and replaces the one it had.
    pub fn set(&mut self, location: &Location, time: Duration) {
        self.0.insert(location.clone(), time);
    }

    /// Moves the location's deadline forward to `time`. Does nothing if it has no later one.
    pub fn shorten(&mut self, location: &Location, time: Duration) {
        if let Some(deadline) = self.0.get_mut(location) {
            *deadline = time.min(*deadline);
        }
    }

    /// Sets the location's deadline to `time`, unless it has an earlier one. False if it has none
    /// and `limit` others have.
    pub fn add(&mut self, location: &Location, time: Duration, limit: usize) -> bool {
        let has_space = self.len() < limit || self.0.contains_key(location);
        if has_space {
            let deadline = self.0.entry(location.clone()).or_insert(time);
            *deadline = time.min(*deadline);
        }
        has_space
    }

    /// Removes the location's deadline. False if it had none.
    pub fn cancel(&mut self, location: &Location) -> bool {
        self.0.remove(location).is_some()
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }

    /// Removes and returns the location with the earliest deadline, if it is due at `now`.
    pub fn pop_due(&mut self, now: Duration) -> Option<Location> {
        let earliest = self.0.iter().min_by_key(|(_, time)| **time);
        let (location, _) = earliest.filter(|(_, time)| **time <= now)?;
        let location = location.clone();
        self.cancel(&location).then_some(location)
    }

    /// Makes all deadlines later by `by`.
    pub fn postpone(&mut self, by: Duration) {
        for deadline in self.0.values_mut() {
            *deadline += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_location_has_one_deadline_and_the_earliest_is_first() {
        let [a, b] = ["h:1", "h:2"].map(|text| text.parse::<Location>().unwrap());
        let second = Duration::from_secs;
        let mut timers = Timers::default();
        timers.set(&a, second(9));
        timers.set(&a, second(3));
        timers.set(&b, second(2));
        timers.shorten(&a, second(5));
        timers.postpone(second(1));
        assert_eq!(timers.pop_due(second(2)), None);
        assert_eq!(timers.pop_due(second(4)), Some(b));
        assert_eq!(timers.pop_due(second(4)), Some(a));
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn the_queue_is_bounded_and_has_each_location_once() {
        let mut queue = Timers::default();
        for port in [1, 2, 1, 3, 4] {
            let location = Location::new("h", port).unwrap();
            queue.add(&location, Duration::from_secs(5), 3);
        }
        assert_eq!(queue.pop_due(Duration::from_secs(4)), None);
        let due = std::iter::from_fn(|| queue.pop_due(Duration::from_secs(5)));
        assert_eq!(due.count(), 3);
    }
}
