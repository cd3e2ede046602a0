//! `Shutdown`: a request to stop a service, and the wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

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
        let lock = self.shared.lock.lock();
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
        let Shared {
            lock, requested, ..
        } = &*self.shared;
        requested.wait_while(&mut lock.lock(), |()| !self.is_requested());
    }

    /// Blocks until the stop is requested, for `timeout` at most. Returns whether it was.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let Shared {
            lock, requested, ..
        } = &*self.shared;
        requested.wait_while_for(&mut lock.lock(), |()| !self.is_requested(), timeout);
        self.is_requested()
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
