//! `Shutdown`: the switch that ends a service, and the wait for it.

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
    requested: Mutex<bool>,
    turned: Condvar,
}

impl Shutdown {
    /// A switch that has not been turned.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks the service to end; returns at once.
    pub fn request(&self) {
        *self.requested() = true;
        self.shared.turned.notify_all();
    }

    /// Was the service asked to end?
    pub fn is_requested(&self) -> bool {
        *self.requested()
    }

    /// Blocks until the service is asked to end.
    pub fn wait(&self) {
        let mut requested = self.requested();
        while !*requested {
            requested = self
                .shared
                .turned
                .wait(requested)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the service is asked to end, for `time` at most; was it asked?
    pub fn wait_for(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut requested = self.requested();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if *requested || left.is_zero() {
                return *requested;
            }
            let woken = self.shared.turned.wait_timeout(requested, left);
            requested = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the switch was turned; held for a moment.
    fn requested(&self) -> MutexGuard<'_, bool> {
        self.shared
            .requested
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
