//! `Progress`: how far a load or a dump is, shown as a bar on a terminal.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::plural::counted;

/// How often the bar is drawn, if nothing changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The bar and, if the total is unknown, what is shown instead.
const BAR: &str = "[{bar:30}] {percent:>3} %  {msg}, {elapsed}";
const NO_BAR: &str = "{spinner} {msg}, {elapsed}";

/// Counts work that is done. Shared by threads.
#[derive(Debug)]
pub struct Progress {
    keys: AtomicU64,
    bar: ProgressBar,
}

impl Progress {
    /// Progress towards `total`, in any unit. None if it is unknown.
    pub fn of(total: Option<u64>) -> Progress {
        // Drawn to stderr, if that is a terminal.
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let style = ProgressStyle::with_template(if total.is_some() { BAR } else { NO_BAR });
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("##-"));
        }
        let keys = AtomicU64::new(0);
        Progress { keys, bar }
    }

    /// Adds keys that are done, and the work for them in the unit of the total.
    pub fn add(&self, keys: usize, done: usize) {
        let keys = self.keys.fetch_add(keys as u64, Relaxed) + keys as u64;
        self.bar.set_message(counted(keys, "key"));
        self.bar.inc(done as u64);
    }

    /// The keys that are done.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Runs `body`. If stderr is a terminal, shows the progress there meanwhile.
    pub fn shown_while<T>(&self, body: impl FnOnce() -> T) -> T {
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(INTERVAL);
        }
        let done = body();
        self.bar.abandon();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_work_are_counted_with_and_without_a_total() {
        for total in [Some(200), Some(0), None] {
            let progress = Progress::of(total);
            progress.add(30, 50);
            progress.shown_while(|| progress.add(1, 1_000));
            assert_eq!((progress.keys(), progress.bar.position()), (31, 1_050));
            assert_eq!(progress.bar.message(), "31 keys");
            assert_eq!(progress.bar.length(), total);
        }
    }
}
