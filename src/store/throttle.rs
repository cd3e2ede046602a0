//! `Throttle`: is this node busy with clients? Then keys are copied slowly, because a
//! rebalance that uses the whole machine would slow every client down.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Calls are counted over windows of this length.
const WINDOW: Duration = Duration::from_millis(100);

/// A node that serves more calls in a [`WINDOW`] is busy: far fewer than one connection makes
/// without a pause, and more than a few programs make by hand.
const BUSY_CALLS: u64 = 20;

/// Counts the calls of clients, made to this node or forwarded by another.
#[derive(Default)]
pub(super) struct Throttle {
    calls: AtomicU64,
    /// Held briefly. Not taken by requests.
    last: Mutex<Option<Window>>,
}

/// The state at the end of the last window.
struct Window {
    end: Instant,
    calls: u64,
    is_busy: bool,
}

impl Throttle {
    /// Counts a call.
    pub fn record_call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// Was the node busy in the last window?
    pub fn is_busy(&self, now: Instant) -> bool {
        let calls = self.calls.load(Relaxed);
        let mut last = self.last.lock();
        let last = last.get_or_insert(Window {
            end: now,
            calls,
            is_busy: false,
        });
        let elapsed = now.saturating_duration_since(last.end);
        if elapsed >= WINDOW {
            let limit = BUSY_CALLS as f64 * elapsed.as_secs_f64() / WINDOW.as_secs_f64();
            *last = Window {
                end: now,
                calls,
                is_busy: (calls - last.calls) as f64 > limit,
            };
        }
        last.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_busy_while_calls_follow_one_another() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        let check = |calls: u64, millis: u64| {
            (0..calls).for_each(|_| throttle.record_call());
            throttle.is_busy(began + Duration::from_millis(millis))
        };
        assert!(!check(1_000, 0), "the time that they took is unknown");
        assert!(!check(5, 100));
        assert!(check(100, 200));
        assert!(check(0, 250), "the window is not over");
        assert!(!check(0, 400));
        assert!(!check(200, 60_000), "they came in a minute");
    }
}
