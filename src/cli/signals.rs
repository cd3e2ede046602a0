//! Signals: the first one ends a node gracefully, the second one at once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use log::{error, info};

use crate::shutdown::Shutdown;

/// The exit status of a node after a second signal, whichever it was: that of SIGINT.
const INTERRUPTED: i32 = 130;

/// Requests the shutdown at the first SIGINT (ctrl-C), SIGTERM or SIGHUP, and exits at the
/// second. `at_risk` returns what is then lost, for the log.
pub fn end_on_signals(shutdown: &Shutdown, at_risk: impl Fn() -> String + Send + 'static) {
    let shutdown = shutdown.clone();
    let is_repeated = AtomicBool::new(false);
    let on_signal = move || {
        if is_repeated.swap(true, Relaxed) {
            error!("ended at once: {}", at_risk());
            super::log::flush();
            std::process::exit(INTERRUPTED);
        }
        info!("leaving the network; repeat the signal to exit immediately");
        shutdown.request();
    };
    if let Err(e) = ctrlc::set_handler(on_signal) {
        error!("signals will end this process before it leaves the network: {e}");
    }
}
