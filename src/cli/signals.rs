//! Signals: the first one ends a node gracefully, the second one at once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::shutdown::Shutdown;

/// The exit status of a node after a second signal, whichever it was: that of SIGINT.
const INTERRUPTED: i32 = 130;

/// A signal within this time after the first is the same one: `timeout` sends it to its child and to
/// the group of that, and a terminal that is closed sends it twice.
const REPEATED_AFTER: Duration = Duration::from_millis(500);

/// Requests the shutdown at the first SIGINT (ctrl-C), SIGTERM or SIGHUP, and exits at the
/// second, half a second later or more. `at_risk` returns what is then lost, for the log.
pub fn end_on_signals(shutdown: &Shutdown, at_risk: impl Fn() -> String + Send + 'static) {
    let shutdown = shutdown.clone();
    let first = OnceLock::new();
    let on_signal = move || {
        let age = first.get_or_init(Instant::now).elapsed();
        if age >= REPEATED_AFTER {
            error!("ended at once: {}", at_risk());
            super::log::flush();
            std::process::exit(INTERRUPTED);
        }
        if !shutdown.is_requested() {
            info!("leaving the network; repeat the signal to exit immediately");
        }
        shutdown.request();
    };
    set_handler(on_signal);
}

/// Ends the program with status 0 at SIGINT (ctrl-C), SIGTERM or SIGHUP: it has nothing to finish.
pub fn end_with_success() {
    set_handler(|| {
        super::log::flush();
        std::process::exit(0);
    });
}

fn set_handler(on_signal: impl FnMut() + Send + 'static) {
    if let Err(e) = ctrlc::set_handler(on_signal) {
        error!("signals end this process at once: {e}");
    }
}
