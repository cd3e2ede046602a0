//! `ProbeQueue`: locations to probe outside the schedule.

use std::collections::VecDeque;
use std::time::Duration;

use crate::location::Location;

/// A bounded queue with each location at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeQueue {
    queue: VecDeque<(Duration, Location)>,
}

impl ProbeQueue {
    /// Adds `location` at `time`, or moves it forward to that time. False if the queue has `limit`
    /// entries: then only the schedule probes the location, if it is a member.
    pub fn add(&mut self, location: &Location, time: Duration, limit: usize) -> bool {
        let has_space = self.queue.len() < limit;
        let known = self.queue.iter_mut().find(|(_, queued)| queued == location);
        if let Some((queued, _)) = known {
            *queued = (*queued).min(time);
            return true;
        }
        if has_space {
            self.queue.push_back((time, location.clone()));
        }
        has_space
    }

    pub fn earliest(&self) -> Option<Duration> {
        self.queue.iter().map(|(time, _)| *time).min()
    }

    /// Removes and returns the first location that is due.
    pub fn pop_due(&mut self, now: Duration) -> Option<Location> {
        let index = self.queue.iter().position(|(time, _)| *time <= now)?;
        self.queue.remove(index).map(|(_, location)| location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_has_each_location_once() {
        let mut queue = ProbeQueue::default();
        for port in [1, 2, 1, 3, 4] {
            let location = Location::new("h", port).unwrap();
            queue.add(&location, Duration::from_secs(5), 3);
        }
        assert_eq!(queue.pop_due(Duration::from_secs(4)), None);
        let due = std::iter::from_fn(|| queue.pop_due(Duration::from_secs(5)));
        assert_eq!(due.count(), 3);
    }
}
