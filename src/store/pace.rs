//! `Pace`: is this node busy with clients? Then keys move slowly, for a move that takes
//! all there is of the machine would be felt by every one of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls are counted over a while as long as this.
const WHILE: Duration = Duration::from_millis(100);

/// A node that serves so many calls in a [`WHILE`] is busy: far fewer than one
/// connection makes that calls without a pause, and more than a few curious programs do.
const BUSY: u64 = 20;

/// Counts the calls that are made for clients, at this node or another.
#[derive(Default)]
pub(super) struct Pace {
    calls: AtomicU64,
    last: Mutex<Option<Last>>,
}

/// What was known when it was last looked.
#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    calls: u64,
    is_busy: bool,
}

impl Pace {
    /// A call is served.
    pub fn count(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// Is the node busy, as far as the calls of the last while tell?
    pub fn is_busy(&self, now: Instant) -> bool {
        let calls = self.calls.load(Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.unwrap_or(Last {
            at: now,
            calls,
            is_busy: false,
        });
        let elapsed = now.saturating_duration_since(before.at);
        if last.is_some() && elapsed < WHILE {
            return before.is_busy;
        }
        let busy = BUSY as f64 * elapsed.as_secs_f64() / WHILE.as_secs_f64();
        let is_busy = last.is_some() && (calls - before.calls) as f64 > busy;
        *last = Some(Last {
            at: now,
            calls,
            is_busy,
        });
        is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_busy_while_calls_come_one_after_another() {
        let (pace, began) = (Pace::default(), Instant::now());
        let look = |calls: u64, millis: u64| {
            (0..calls).for_each(|_| pace.count());
            pace.is_busy(began + Duration::from_millis(millis))
        };
        assert!(!look(1_000, 0), "nobody knows how long they took");
        assert!(!look(5, 100));
        assert!(look(100, 200));
        assert!(look(0, 250), "the while is not over");
        assert!(!look(0, 400));
        assert!(!look(200, 60_000), "they came in a minute");
    }
}
