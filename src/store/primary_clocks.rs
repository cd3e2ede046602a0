//! `PrimaryClocks`: deadlines by the clocks of other processes.
//!
//! A request may wait in the network or in a kernel for as long as TCP likes, also after its
//! caller has given up. So a write tells its primary until when it may start, by the clock of
//! the primary, which alone can judge that when it reads the request. No clocks have to agree:
//! each reply has the primary's time, and the caller adds the time that passes by its own
//! clock. It counts from when the reply arrived, which is later than when the primary looked at
//! its clock: so the deadline is too early by the time that the reply took, never too late.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::placement::NodeId;

/// After this time a clock is asked for again: two clocks drift apart by a few milliseconds in it.
const MAX_AGE: Duration = Duration::from_secs(60);

/// It is asked for already after this time, so that it does not become too old while a call waits.
const REFRESH_AGE: Duration = Duration::from_secs(30);

/// What is known of the clocks of other processes. Shared by threads.
#[derive(Debug, Default)]
pub struct PrimaryClocks {
    /// The time of each process in milliseconds, and when it was received. Held for a look-up.
    known: Mutex<HashMap<NodeId, (i64, Instant)>>,
}

impl PrimaryClocks {
    /// A reply with the time of `process` arrived at `now`.
    pub fn record(&self, process: NodeId, clock: i64, now: Instant) {
        let mut known = self.known.lock();
        if !known.contains_key(&process) {
            // Keeps the map from growing with every process that was ever called.
            known.retain(|_, (_, at)| now.saturating_duration_since(*at) < MAX_AGE);
        }
        known.insert(process, (clock, now));
    }

    /// Is it time to ask for the clock of `process`?
    pub fn is_needed(&self, process: &NodeId, now: Instant) -> bool {
        let known = self.known.lock();
        let is_recent = |(_, at): &(i64, Instant)| now.saturating_duration_since(*at) < REFRESH_AGE;
        !known.get(process).is_some_and(is_recent)
    }

    /// That time by the clock of `process`, or an earlier one. None if its clock is not known well
    /// enough at `now`.
    pub fn time(&self, process: &NodeId, time: Instant, now: Instant) -> Option<i64> {
        let known = self.known.lock();
        let (clock, at) = known.get(process)?;
        let millis = |time: Duration| time.as_millis() as i64;
        let offset = match time.checked_duration_since(*at) {
            Some(after) => millis(after),
            None => -1 - millis(at.saturating_duration_since(time)),
        };
        (now.saturating_duration_since(*at) < MAX_AGE).then_some(clock + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    #[test]
    fn a_time_is_the_last_known_one_and_what_passes_since_then() {
        let clocks = PrimaryClocks::default();
        let node = |port| NodeId::new(Location::new("10.0.0.1", port).unwrap(), 1);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(clocks.time(&node(1), later(10), now), None);
        assert!(clocks.is_needed(&node(1), now));
        clocks.record(node(1), 5_000, now);
        assert_eq!(clocks.time(&node(1), later(10), later(3)), Some(15_000));
        clocks.record(node(3), 5_000, later(1));
        assert_eq!(
            clocks.time(&node(3), now, later(5)),
            Some(3_999),
            "before that"
        );
        assert!(!clocks.is_needed(&node(1), later(29)) && clocks.is_needed(&node(1), later(30)));
        assert_eq!(clocks.time(&node(1), later(70), later(60)), None);
        clocks.record(node(2), 1, later(61));
        assert_eq!(clocks.known.lock().len(), 1, "the old one is forgotten");
    }
}
