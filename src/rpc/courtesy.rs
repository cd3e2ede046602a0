//! Giving way to other threads of the process, while nobody else wants the processors.
//!
//! A thread that gives way is back in some microseconds if those that it lets go first are
//! threads like itself, which soon wait for something. If they are another process's that
//! compute, the kernel lets these go on for their whole slice, some milliseconds, and would do
//! so at each time: beside two busy loops on two processors, reads passed on fell to a fifth of
//! what they are without giving way. So how long it took is looked at, and when it was too
//! long, the whole process gives way no more for a while.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Who let only threads go first that soon wait for something is back sooner; who let one go
/// first that computes is back later, as its slice was measured to be four milliseconds.
const TOO_LONG: Duration = Duration::from_millis(2);

/// For how long nobody gives way then: what it cost is a small part of it.
const SUSPENDED: Duration = Duration::from_millis(100);

/// Gives way to other threads, and tells whether it did. Blocks for a slice of theirs at the
/// most, and for none while giving way costs too much.
pub(crate) fn give_way() -> bool {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static COURTESY: Courtesy = Courtesy::new();
    let begun = START.elapsed();
    if COURTESY.is_suspended(begun) {
        return false;
    }
    thread::yield_now();
    COURTESY.took(begun, START.elapsed());
    true
}

/// Whether threads give way. All times are since one start. Shared by threads.
struct Courtesy {
    /// Until when nobody does, in microseconds.
    suspended_until: AtomicU64,
}

impl Courtesy {
    const fn new() -> Courtesy {
        Courtesy {
            suspended_until: AtomicU64::new(0),
        }
    }

    fn is_suspended(&self, now: Duration) -> bool {
        micros(now) < self.suspended_until.load(Relaxed)
    }

    /// A thread gave way, and was back then.
    fn took(&self, begun: Duration, ended: Duration) {
        if ended.saturating_sub(begun) > TOO_LONG {
            let until = micros(ended + SUSPENDED);
            self.suspended_until.fetch_max(until, Relaxed);
        }
    }
}

/// Enough for half a million years.
fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_way_for_a_while_after_it_took_too_long() {
        let courtesy = Courtesy::new();
        let begun = Duration::from_secs(1);
        assert!(!courtesy.is_suspended(Duration::ZERO));
        courtesy.took(begun, begun + TOO_LONG);
        assert!(
            !courtesy.is_suspended(begun + TOO_LONG),
            "it was not too long"
        );
        let late = begun + TOO_LONG + Duration::from_micros(1);
        courtesy.took(begun, late);
        courtesy.took(Duration::ZERO, begun);
        let last = late + SUSPENDED - Duration::from_micros(1);
        assert!(courtesy.is_suspended(late) && courtesy.is_suspended(last));
        assert!(!courtesy.is_suspended(late + SUSPENDED));
    }
}
