//! `Progress`: a line on stderr that tells how far a run is, if a person looks at it.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// A line that is written over; nothing but on a terminal. It is gone when dropped.
pub struct Progress<'a> {
    name: &'a str,
    is_shown: bool,
    before: u64,
}

impl Progress<'_> {
    pub fn of(name: &str) -> Progress<'_> {
        Progress {
            name,
            is_shown: stderr().is_terminal(),
            before: 0,
        }
    }

    /// To be called each second, with the time since the measurement began and the
    /// operations done in it; nothing is shown before that.
    pub fn show(&mut self, time: Duration, done: u64) {
        if self.is_shown && !time.is_zero() {
            let (name, seconds) = (self.name, time.as_secs());
            let last = done - self.before;
            // Who cannot be shown anything misses nothing.
            let _ = write!(
                stderr(),
                "\r\x1b[K{name}: {seconds} s, {done} done, {last} in the last second"
            );
            self.before = done;
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
