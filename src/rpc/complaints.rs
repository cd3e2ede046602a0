//! `Complaints`: what strangers did, for the log, so many lines a second at the most:
//! else whoever connects often enough fills the disk that the log is on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::warn;

/// Lines a second that are told; the others are counted.
const LINES: u32 = 20;

/// Tells the log, but not everything.
#[derive(Default)]
pub(crate) struct Complaints {
    /// Held for a moment, and not while the log is written.
    measure: Mutex<Measure>,
}

/// How much was told in the second that has begun.
#[derive(Default)]
struct Measure {
    began: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Measure {
    /// May a line be told now, and how many were left out before it?
    fn take(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began| now.duration_since(began) >= Duration::from_secs(1);
        if self.began.is_none_or(is_over) {
            (self.began, self.told) = (Some(now), 0);
        }
        if self.told == LINES {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Complaints {
    /// Tells the log this line, unless there were too many.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        let taken = {
            let mut measure = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
            measure.take(now)
        };
        match taken {
            Some(0) => warn!("{}", line()),
            Some(left_out) => warn!("{} ({left_out} lines like it were left out)", line()),
            None => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_some_lines_a_second_and_the_next_one_counts_the_rest() {
        let (mut measure, now) = (Measure::default(), Instant::now());
        let told = (0..1000).filter_map(|_| measure.take(now)).count();
        assert_eq!(told, LINES as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(measure.take(later), Some(1000 - u64::from(LINES)));
        assert_eq!(measure.take(later), Some(0));
    }
}
