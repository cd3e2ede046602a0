//! `Progress`: how far a load or a dump is, and a line on a terminal that shows it.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line is written anew.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Characters of the bar.
const WIDTH: u64 = 30;

/// How far it is. Counted by several threads.
#[derive(Debug, Default)]
pub struct Progress {
    keys: AtomicU64,
    done: AtomicU64,
    whole: Option<u64>,
}

impl Progress {
    /// Of something that is done at `whole`, in whatever unit; none if that is not known.
    pub fn of(whole: Option<u64>) -> Progress {
        Progress {
            whole,
            ..Progress::default()
        }
    }

    /// So many more keys are through.
    pub fn add_keys(&self, keys: u64) {
        self.keys.fetch_add(keys, Relaxed);
    }

    /// So much more of the whole is done.
    pub fn add_done(&self, done: u64) {
        self.done.fetch_add(done, Relaxed);
    }

    /// The keys that are through.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Does `body`, and shows on stderr how far it is, if that is a terminal.
    pub fn shown_while<T>(&self, body: impl FnOnce() -> T) -> T {
        if !io::stderr().is_terminal() {
            return body();
        }
        thread::scope(|scope| {
            let (ended, end) = mpsc::channel::<()>();
            scope.spawn(move || self.show_until(&end));
            let outcome = body();
            drop(ended);
            outcome
        })
    }

    fn show_until(&self, end: &mpsc::Receiver<()>) {
        let began = Instant::now();
        while end.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
            eprint!("\r{}\x1b[K", self.line(began.elapsed()));
        }
        eprintln!("\r{}\x1b[K", self.line(began.elapsed()));
        // A terminal that cannot be written to shows nothing, and nothing is lost.
        let _ = io::stderr().flush();
    }

    /// One line: a bar and a percentage where the whole is known, keys, and keys a second.
    fn line(&self, time: Duration) -> String {
        let keys = self.keys();
        let rate = keys as f64 / time.as_secs_f64().max(0.001);
        let keys = format!("{keys} keys, {rate:.0}/s");
        let Some(whole) = self.whole.filter(|whole| *whole > 0) else {
            return keys;
        };
        let done = self.done.load(Relaxed).min(whole);
        let full = (done * WIDTH / whole) as usize;
        let bar = "#".repeat(full) + &"-".repeat(WIDTH as usize - full);
        format!("[{bar}] {:3} %  {keys}", done * 100 / whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_is_done_and_how_fast() {
        let progress = Progress::of(Some(200));
        progress.add_keys(30);
        progress.add_done(50);
        assert_eq!(
            progress.line(Duration::from_secs(2)),
            "[#######-----------------------]  25 %  30 keys, 15/s"
        );
        progress.add_done(1000);
        let line = progress.line(Duration::from_secs(2));
        assert!(line.contains("] 100 %"), "a file that grew: {line}");
        let unknown = Progress::of(None);
        assert_eq!(unknown.line(Duration::ZERO), "0 keys, 0/s");
    }
}
