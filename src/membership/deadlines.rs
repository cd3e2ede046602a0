//! `Deadlines`: at most one point in time for each location, the earliest at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::location::Location;

/// Times by location, and locations by time.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadlines {
    times: BTreeMap<Location, Duration>,
    order: BTreeSet<(Duration, Location)>,
}

impl Deadlines {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Sets the location's deadline, instead of any it had.
    pub fn set(&mut self, location: &Location, time: Duration) {
        self.cancel(location);
        self.times.insert(location.clone(), time);
        self.order.insert((time, location.clone()));
    }

    /// Brings the location's deadline forward to `time`, if it has a later one.
    pub fn hasten(&mut self, location: &Location, time: Duration) {
        if self.times.get(location).is_some_and(|&set| set > time) {
            self.set(location, time);
        }
    }

    /// Was there one to cancel?
    pub fn cancel(&mut self, location: &Location) -> bool {
        let Some(time) = self.times.remove(location) else {
            return false;
        };
        self.order.remove(&(time, location.clone()))
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Duration> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Takes out the earliest location whose time has come.
    pub fn due(&mut self, now: Duration) -> Option<Location> {
        if self.earliest()? > now {
            return None;
        }
        self.drop_earliest()
    }

    /// Takes out the earliest location, due or not.
    pub fn drop_earliest(&mut self) -> Option<Location> {
        let (_, location) = self.order.pop_first()?;
        self.times.remove(&location);
        Some(location)
    }

    /// Makes all of them later.
    pub fn postpone(&mut self, by: Duration) {
        self.times.values_mut().for_each(|time| *time += by);
        self.order = self.times.iter().map(|(l, t)| (*t, l.clone())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_location_has_one_deadline_and_the_earliest_comes_first() {
        let [a, b] = ["h:1", "h:2"].map(|text| text.parse::<Location>().unwrap());
        let second = Duration::from_secs;
        let mut deadlines = Deadlines::default();
        deadlines.set(&a, second(9));
        deadlines.set(&a, second(3));
        deadlines.set(&b, second(2));
        deadlines.hasten(&a, second(5));
        deadlines.postpone(second(1));
        assert_eq!(deadlines.due(second(2)), None);
        assert_eq!(deadlines.due(second(4)), Some(b));
        assert_eq!(deadlines.due(second(4)), Some(a));
        assert_eq!(deadlines.earliest(), None);
    }
}
