//! `Timers`: at most one deadline for each location, ordered by time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::location::Location;

/// Deadlines by location, and locations by deadline.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    deadlines: BTreeMap<Location, Duration>,
    order: BTreeSet<(Duration, Location)>,
}

impl Timers {
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Sets the location's deadline, and replaces the one it had.
    pub fn set(&mut self, location: &Location, time: Duration) {
        self.cancel(location);
        self.deadlines.insert(location.clone(), time);
        self.order.insert((time, location.clone()));
    }

    /// Moves the location's deadline forward to `time`. Does nothing if it has no later one.
    pub fn shorten(&mut self, location: &Location, time: Duration) {
        if self
            .deadlines
            .get(location)
            .is_some_and(|&deadline| deadline > time)
        {
            self.set(location, time);
        }
    }

    /// Sets the location's deadline to `time`, unless it has an earlier one. False if it has none
    /// and `limit` others have.
    pub fn add(&mut self, location: &Location, time: Duration, limit: usize) -> bool {
        if self.deadlines.contains_key(location) {
            self.shorten(location, time);
            return true;
        }
        let has_space = self.len() < limit;
        if has_space {
            self.set(location, time);
        }
        has_space
    }

    /// Removes the location's deadline. False if it had none.
    pub fn cancel(&mut self, location: &Location) -> bool {
        let Some(time) = self.deadlines.remove(location) else {
            return false;
        };
        self.order.remove(&(time, location.clone()))
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Duration> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Removes and returns the location with the earliest deadline, if it is due.
    pub fn pop_due(&mut self, now: Duration) -> Option<Location> {
        if self.earliest()? > now {
            return None;
        }
        self.pop_earliest()
    }

    /// Removes and returns the location with the earliest deadline, due or not.
    pub fn pop_earliest(&mut self) -> Option<Location> {
        let (_, location) = self.order.pop_first()?;
        self.deadlines.remove(&location);
        Some(location)
    }

    /// Makes all deadlines later by `by`.
    pub fn postpone(&mut self, by: Duration) {
        for deadline in self.deadlines.values_mut() {
            *deadline += by;
        }
        let order = self.deadlines.iter();
        self.order = order
            .map(|(location, time)| (*time, location.clone()))
            .collect();
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
