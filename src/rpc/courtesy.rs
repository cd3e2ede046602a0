//! Giving way to other threads of the process, while nobody else wants the processors.
//!
//! A thread that gives way is back in some microseconds for each that it lets go first, if
//! these are threads like itself, which soon wait for something. If they are another process's
//! that compute, the kernel lets these go on for their whole slice, some milliseconds, and
//! would do so at each time: beside two busy loops on two processors, reads passed on fell to
//! a fifth of what they are without giving way. So how long it took is looked at, and how many
//! of the process's own threads gave way meanwhile; when it was too long for so many, the
//! whole process gives way no more for a while.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Who let few threads go first that soon wait for something is back sooner; who let one go
/// first that computes is back later, as its slice was measured to be four milliseconds.
const TOO_LONG: Duration = Duration::from_millis(2);

/// Among many threads that take turns, one waits for longer. It is not too long if others
/// came back from giving way so often: with 50 to 200 connections, one does every 8
/// microseconds.
const TOO_LONG_FOR_EACH: Duration = Duration::from_micros(40);

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
    let before = COURTESY.back.load(Relaxed);
    thread::yield_now();
    COURTESY.is_back(before, begun, START.elapsed());
    true
}

/// Whether threads give way. All times are since one start. Shared by threads.
struct Courtesy {
    /// How often one is back from giving way.
    back: AtomicU64,
    /// Until when nobody does, in microseconds.
    suspended_until: AtomicU64,
}

impl Courtesy {
    const fn new() -> Courtesy {
        Courtesy {
            back: AtomicU64::new(0),
            suspended_until: AtomicU64::new(0),
        }
    }

    fn is_suspended(&self, now: Duration) -> bool {
        micros(now) < self.suspended_until.load(Relaxed)
    }

    /// A thread began to give way after so many were back, and is back itself.
    fn is_back(&self, before: u64, begun: Duration, ended: Duration) {
        let meanwhile = self.back.fetch_add(1, Relaxed).saturating_sub(before);
        let took = ended.saturating_sub(begun);
        if took > TOO_LONG && micros(took) > meanwhile * micros(TOO_LONG_FOR_EACH) {
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

    const LATE: Duration = TOO_LONG.saturating_add(Duration::from_micros(1));

    #[test]
    fn nobody_gives_way_for_a_while_after_it_took_too_long() {
        let courtesy = Courtesy::new();
        let begun = Duration::from_secs(1);
        courtesy.is_back(0, begun, begun + TOO_LONG);
        let ended = begun + LATE;
        assert!(!courtesy.is_suspended(ended), "it was not too long");
        courtesy.is_back(1, begun, ended);
        courtesy.is_back(2, Duration::ZERO, begun);
        let last = ended + SUSPENDED - Duration::from_micros(1);
        assert!(courtesy.is_suspended(ended) && courtesy.is_suspended(last));
        assert!(!courtesy.is_suspended(ended + SUSPENDED));
    }

    #[test]
    fn it_may_take_longer_while_many_of_the_process_take_turns() {
        let enough = LATE.as_micros().div_ceil(TOO_LONG_FOR_EACH.as_micros()) as u64;
        for (others, is_suspended) in [(enough, false), (enough - 1, true)] {
            let courtesy = Courtesy::new();
            (0..others).for_each(|n| courtesy.is_back(n, Duration::ZERO, Duration::ZERO));
            courtesy.is_back(0, Duration::ZERO, LATE);
            assert_eq!(courtesy.is_suspended(LATE), is_suspended, "{others} others");
        }
    }
}
