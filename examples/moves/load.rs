//! A load that lasts as long as something else does.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use thrifty_p2p::error::Error;
use thrifty_p2p::load::report::Report;
use thrifty_p2p::load::store::{Load, StoreCaller};
use thrifty_p2p::load::{Dialer, Outcome, Span, drive};

/// Puts the load on the store while `body` runs; the calls meanwhile.
///
/// # Errors
/// The store cannot be called, or `body` fails.
pub fn under<T>(
    load: &Load,
    name: &str,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<(T, Report), Error> {
    let is_over = AtomicBool::new(false);
    let callers = load.callers()?.into_iter().map(|dialer| While {
        dialer,
        is_over: &is_over,
    });
    let callers = callers.collect();
    thread::scope(|scope| {
        let calls = scope.spawn(|| drive(name, callers, Span::ALL));
        let outcome = body();
        is_over.store(true, Relaxed);
        let report = calls.join().expect("no dialer panics");
        Ok((outcome?, report))
    })
}

/// A dialer until it is told that all is over.
struct While<'a> {
    dialer: StoreCaller<'a>,
    is_over: &'a AtomicBool,
}

impl Dialer for While<'_> {
    fn call(&mut self) -> Option<Outcome> {
        (!self.is_over.load(Relaxed)).then(|| self.dialer.call())?
    }
}
