//! `Progress`: how far a load or a dump is, shown as one line on a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line is updated.
const INTERVAL: Duration = Duration::from_millis(200);

/// Characters of the bar.
const WIDTH: u64 = 30;

/// Counts work that is done. Shared by threads.
#[derive(Debug, Default)]
pub struct Progress {
    keys: AtomicU64,
    done: AtomicU64,
    total: Option<u64>,
}

impl Progress {
    /// Progress towards `total`, in any unit. None if it is unknown.
    pub fn of(total: Option<u64>) -> Progress {
        Progress {
            total,
            ..Progress::default()
        }
    }

    /// Adds keys that are done, and the work for them in the unit of the total.
    pub fn add(&self, keys: usize, done: usize) {
        self.keys.fetch_add(keys as u64, Relaxed);
        self.done.fetch_add(done as u64, Relaxed);
    }

    /// The keys that are done.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Runs `body`. If stderr is a terminal, shows the progress there meanwhile.
    pub fn shown_while<T>(&self, body: impl FnOnce() -> T) -> T {
        if !io::stderr().is_terminal() {
            return body();
        }
        thread::scope(|scope| {
            // Dropped when `body` returns or panics, which ends the line.
            let (_running, finish) = mpsc::channel::<()>();
            scope.spawn(move || self.show_until(&finish));
            body()
        })
    }

    fn show_until(&self, finish: &mpsc::Receiver<()>) {
        let began = Instant::now();
        let mut end = "";
        while end.is_empty() {
            if finish.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                end = "\n";
            }
            // Without the line the work is the same, so errors are ignored.
            let line = self.line(began.elapsed());
            let _ = write!(io::stderr(), "\r{line}\x1b[K{end}");
        }
    }

    /// A bar and a percentage if the total is known, the keys, and the keys per second.
    fn line(&self, elapsed: Duration) -> String {
        let keys = self.keys();
        let rate = keys as f64 / elapsed.as_secs_f64().max(0.001);
        let keys = format!("{keys} keys, {rate:.0}/s");
        let Some(total) = self.total.filter(|total| *total > 0) else {
            return keys;
        };
        let done = self.done.load(Relaxed).min(total);
        let full = (done * WIDTH / total) as usize;
        let bar = "#".repeat(full) + &"-".repeat(WIDTH as usize - full);
        format!("[{bar}] {:3} %  {keys}", done * 100 / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_how_much_is_done_and_how_fast() {
        let progress = Progress::of(Some(200));
        progress.add(30, 50);
        assert_eq!(
            progress.line(Duration::from_secs(2)),
            "[#######-----------------------]  25 %  30 keys, 15/s"
        );
        progress.add(0, 1000);
        let line = progress.line(Duration::from_secs(2));
        assert!(line.contains("] 100 %"), "the file has grown: {line}");
        let unknown = Progress::of(None);
        assert_eq!(unknown.line(Duration::ZERO), "0 keys, 0/s");
    }
}
