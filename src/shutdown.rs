//! `Shutdown`: a request to stop a service, and the wait for it.

use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A flag that is set once, by any thread, for example on ctrl-C or by `die()`.
///
/// A cheap handle. Clones share the flag.
#[derive(Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_requested: AtomicBool,
    /// Held while the flag is set, and between a waiter's check of the flag and its wait, so
    /// that no waiter misses the notification.
    lock: Mutex<()>,
    /// Notified when the flag is set.
    requested: Condvar,
}

impl Shutdown {
    /// A flag that is not set.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Requests the stop. Does not wait for it.
    pub fn request(&self) {
        let lock = self.lock();
        self.shared.is_requested.store(true, Release);
        drop(lock);
        self.shared.requested.notify_all();
    }

    /// Was the stop requested? Takes no lock.
    pub fn is_requested(&self) -> bool {
        self.shared.is_requested.load(Acquire)
    }

    /// Blocks until the stop is requested.
    pub fn wait(&self) {
        let requested = &self.shared.requested;
        drop(requested.wait_while(self.lock(), |()| !self.is_requested()));
    }

    /// Blocks until the stop is requested, for `timeout` at most. Returns whether it was.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let requested = &self.shared.requested;
        drop(requested.wait_timeout_while(self.lock(), timeout, |()| !self.is_requested()));
        self.is_requested()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.shared
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_another_thread_requests_the_stop() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.wait_for(Duration::from_millis(1)));
        let other = shutdown.clone();
        let requester = std::thread::spawn(move || other.request());
        shutdown.wait();
        assert!(shutdown.wait_for(Duration::ZERO));
        requester.join().unwrap();
    }
}
