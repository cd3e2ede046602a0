//! `Backoff`: nodes that could not be reached and are not called for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::location::Location;

/// How long a node that could not be reached is not called.
const PAUSE: Duration = Duration::from_secs(1);

/// The most nodes remembered. More fail within the pause only if nearly all do, and then one
/// more attempt costs little.
const MAX_NODES: usize = 1024;

/// Nodes that have failed, each with the time, the latest last.
#[derive(Default)]
pub struct Backoff {
    failures: VecDeque<(Location, Instant)>,
}

impl Backoff {
    /// Remembers that a node has failed at `now`. If there are too many, forgets the one that
    /// may be called again soonest.
    pub fn add(&mut self, node: Location, now: Instant) {
        self.failures
            .retain(|(failed, at)| *failed != node && now < *at + PAUSE);
        if self.failures.len() == MAX_NODES {
            self.failures.pop_front();
        }
        self.failures.push_back((node, now));
    }

    /// The nodes that are not to be called at `now`.
    pub fn failed(&self, now: Instant) -> Vec<Location> {
        let failed = self.failures.iter().filter(|(_, at)| now < *at + PAUSE);
        failed.map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> Location {
        Location::new(&format!("10.0.{}.{}", number / 256, number % 256), 1).unwrap()
    }

    #[test]
    fn a_failed_node_may_be_called_again_after_the_pause() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        backoff.add(node(1), now);
        backoff.add(node(2), now + PAUSE / 2);
        assert_eq!(backoff.failed(now).len(), 2);
        assert_eq!(backoff.failed(now + PAUSE), [node(2)]);
        assert_eq!(backoff.failed(now + PAUSE * 2), []);
    }

    #[test]
    fn only_the_latest_failures_are_remembered_when_there_are_too_many() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let count = 2 * MAX_NODES;
        for number in 0..count {
            backoff.add(node(number), now + Duration::from_micros(number as u64));
        }
        let failed = backoff.failed(now + Duration::from_millis(10));
        assert_eq!(failed.len(), MAX_NODES);
        assert!(failed.contains(&node(count - 1)) && !failed.contains(&node(0)));
    }
}
