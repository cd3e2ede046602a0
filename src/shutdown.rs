//! `Shutdown`: a request to stop a service, and the wait for it.

use std::sync::Arc;
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
    is_requested: Mutex<bool>,
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
        *self.shared.is_requested.lock() = true;
        self.shared.requested.notify_all();
    }

    /// Was the stop requested? Does not block.
    pub fn is_requested(&self) -> bool {
        *self.shared.is_requested.lock()
    }

    /// Blocks until the stop is requested.
    pub fn wait(&self) {
        let mut flag = self.shared.is_requested.lock();
        self.shared.requested.wait_while(&mut flag, |set| !*set);
    }

    /// Blocks until the stop is requested, for `timeout` at most. Returns whether it was.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let mut flag = self.shared.is_requested.lock();
        let requested = &self.shared.requested;
        requested.wait_while_for(&mut flag, |set| !*set, timeout);
        *flag
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
