//! `LogLimiter`: a limit on the log lines that peers can cause.
//!
//! Without it, a peer that connects often enough could fill the disk of the log.

use std::fmt;
use std::time::{Duration, Instant};

use log::warn;
use parking_lot::Mutex;

use crate::plural::counted;

/// Lines logged in a second. Further ones are counted.
const MAX_LINES: u32 = 20;

/// Logs warnings, a limited number a second. Shared by threads. The lock guards the current second,
/// and is not held while a line is written.
#[derive(Default)]
pub(crate) struct LogLimiter(Mutex<Window>);

/// The lines of one second.
#[derive(Default)]
struct Window {
    start: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl Window {
    /// If a line may be logged now: how many were suppressed before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |start| now.duration_since(start) >= Duration::from_secs(1);
        if self.start.is_none_or(is_over) {
            (self.start, self.logged) = (Some(now), 0);
        }
        if self.logged == MAX_LINES {
            self.suppressed += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl LogLimiter {
    /// Logs the line as a warning unless there were too many.
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        let admitted = self.0.lock().admit(Instant::now());
        match admitted {
            Some(0) => warn!("{line}"),
            Some(suppressed) => warn!(
                "{line} (suppressed {})",
                counted(suppressed, "similar line")
            ),
            None => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_logs_some_lines_a_second_and_the_next_line_counts_the_rest() {
        let (mut window, now) = (Window::default(), Instant::now());
        let logged = (0..1000).filter_map(|_| window.admit(now)).count();
        assert_eq!(logged, MAX_LINES as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(window.admit(later), Some(1000 - u64::from(MAX_LINES)));
        assert_eq!(window.admit(later), Some(0));
    }
}
