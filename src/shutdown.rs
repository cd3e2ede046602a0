//! `Shutdown`: the switch that ends a service, and the wait for it.

use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A switch that is turned once, from any thread: by ctrl-C, by `die()`, by a test.
///
/// Clones are the same switch.
#[derive(Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    /// Held while the switch is turned and by those who begin to wait, so that none
    /// misses the turning.
    turning: Mutex<()>,
    turned: Condvar,
}

impl Shutdown {
    /// A switch that has not been turned.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks the service to end; returns at once.
    pub fn request(&self) {
        let turning = self.turning();
        self.shared.requested.store(true, Release);
        drop(turning);
        self.shared.turned.notify_all();
    }

    /// Was the service asked to end? Never waits.
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Acquire)
    }

    /// Blocks until the service is asked to end.
    pub fn wait(&self) {
        let mut turning = self.turning();
        while !self.is_requested() {
            turning = self
                .shared
                .turned
                .wait(turning)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the service is asked to end, for `time` at most; was it asked?
    pub fn wait_for(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut turning = self.turning();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.is_requested() || left.is_zero() {
                return self.is_requested();
            }
            let woken = self.shared.turned.wait_timeout(turning, left);
            turning = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn turning(&self) -> MutexGuard<'_, ()> {
        self.shared
            .turning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_another_thread_turns_the_switch() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.wait_for(Duration::from_millis(1)));
        let other = shutdown.clone();
        let turner = std::thread::spawn(move || other.request());
        shutdown.wait();
        assert!(shutdown.wait_for(Duration::ZERO));
        turner.join().unwrap();
    }
}
