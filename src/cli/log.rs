//! Logs to stderr through a bounded queue, so that a stalled stderr does not stop the process.
//!
//! Writing to a pipe that nobody reads, or to a terminal that was paused, blocks. Threads that
//! log only put their line into the queue. One thread writes the lines. If the queue is full, a
//! line is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;
use serde_json::json;

use crate::plural::counted;

/// The most lines that wait to be written.
const MAX_LINES: usize = 1024;

/// How long the end of the process is delayed to write the lines that wait.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before the queue is looked at again.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

/// The queue of this process. Empty until logging starts.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// What a line of the log has.
pub(super) enum Format {
    /// Time, level and message.
    Full,
    /// The message.
    Message,
    /// An object with these three.
    Json,
}

/// Starts logging. `RUST_LOG` overrides `level`.
///
/// Colors are used if stderr is a terminal and `NO_COLOR` is unset. `RUST_LOG_STYLE` overrides.
pub(super) fn start(level: LevelFilter, format: Format) {
    let mut builder = Builder::new();
    builder
        .filter_level(level)
        // What the database does is of interest only when it fails.
        .filter_module("fjall", LevelFilter::Warn)
        .filter_module("lsm_tree", LevelFilter::Warn)
        .write_style(default_style())
        .parse_default_env()
        .format_target(false);
    match format {
        Format::Full => &mut builder,
        Format::Message => builder.format(|line, record| writeln!(line, "{}", record.args())),
        Format::Json => builder.format(|line, record| {
            let (time, level) = (line.timestamp_millis(), record.level());
            let message = record.args().to_string();
            let json =
                json!({ "time": time.to_string(), "level": level.as_str(), "message": message });
            writeln!(line, "{json}")
        }),
    };
    // Without a thread for the queue, threads that log write to stderr themselves.
    if let Ok(writer) = QueueWriter::start(io::stderr()) {
        QUEUE.get_or_init(|| writer.queue.clone());
        builder.target(Target::Pipe(Box::new(writer)));
    }
    builder.init();
}

/// Blocks until all lines are written, for a second at most. Call it before the process ends.
pub(super) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

fn default_style() -> WriteStyle {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stderr().is_terminal() && !no_color {
        WriteStyle::Always
    } else {
        WriteStyle::Never
    }
}

/// How many lines wait, and how many were dropped.
#[derive(Default)]
struct Queue {
    /// Lines in the queue, and the one that is being written.
    waiting: AtomicUsize,
    /// Lines dropped since this was last reported.
    dropped: AtomicUsize,
}

/// Puts lines into the queue. A write is one line, and never blocks or fails.
struct QueueWriter {
    queue: Arc<Queue>,
    lines: SyncSender<Vec<u8>>,
}

impl QueueWriter {
    /// Starts the thread that writes the lines of the queue to `output`.
    ///
    /// # Errors
    /// No thread can be started.
    fn start(output: impl Write + Send + 'static) -> io::Result<QueueWriter> {
        let queue = Arc::new(Queue::default());
        let (sender, lines) = sync_channel(MAX_LINES);
        let written = queue.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || written.write_lines(&lines, output))?;
        Ok(QueueWriter {
            queue,
            lines: sender,
        })
    }
}

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Counted first: the thread may write the line before this function returns.
        self.queue.waiting.fetch_add(1, SeqCst);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.queue.dropped.fetch_add(1, SeqCst);
            self.queue.waiting.fetch_sub(1, SeqCst);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    /// Writes lines as they come, and how many were dropped.
    fn write_lines(&self, lines: &Receiver<Vec<u8>>, mut output: impl Write) {
        for line in lines {
            // Errors are ignored: there is no other place to report them.
            let _ = output.write_all(&line);
            let dropped = self.dropped.swap(0, SeqCst);
            if dropped > 0 {
                let dropped = counted(dropped, "log line");
                let _ = writeln!(output, "[WARN ] dropped {dropped}");
            }
            let _ = output.flush();
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Blocks until no line waits, for `timeout` at most. Returns whether none does.
    fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.waiting.load(SeqCst) > 0 {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(FLUSH_PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::{Condvar, Mutex};

    /// Whether the output is released, and what was written to it.
    type StalledState = (Mutex<(bool, Vec<u8>)>, Condvar);

    /// An output that blocks until it is released.
    #[derive(Clone, Default)]
    struct Stalled {
        state: Arc<StalledState>,
    }

    impl Stalled {
        fn release(&self) {
            let (state, released) = &*self.state;
            state.lock().0 = true;
            released.notify_all();
        }

        fn lines(&self) -> Vec<String> {
            let written = self.state.0.lock().1.clone();
            let text = String::from_utf8(written).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, released) = &*self.state;
            let mut state = state.lock();
            released.wait_while(&mut state, |state| !state.0);
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write(writer: &mut QueueWriter, numbers: std::ops::Range<usize>) {
        for number in numbers {
            writer.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_stalled_output_blocks_no_writer_and_dropped_lines_are_counted() {
        const COUNT: usize = 5_000;
        let output = Stalled::default();
        let mut writer = QueueWriter::start(output.clone()).unwrap();
        write(&mut writer, 0..COUNT);
        let began = Instant::now();
        assert!(!writer.queue.flush(Duration::from_millis(50)));
        assert!(began.elapsed() >= Duration::from_millis(50));
        output.release();
        assert!(writer.queue.flush(Duration::from_secs(20)));
        write(&mut writer, COUNT..COUNT + 1);
        assert!(writer.queue.flush(Duration::from_secs(20)));

        let lines = output.lines();
        let numbers: Vec<usize> = lines.iter().filter_map(|line| line.parse().ok()).collect();
        // One more line has room when the thread takes the first one.
        let written = numbers.len() - 1;
        assert!((MAX_LINES..=MAX_LINES + 1).contains(&written), "{written}");
        assert!(numbers[..MAX_LINES].iter().copied().eq(0..MAX_LINES));
        assert_eq!(numbers[written], COUNT, "the queue works again");
        let dropped = format!("[WARN ] dropped {} log lines", COUNT - written);
        assert_eq!(lines.iter().filter(|line| **line == dropped).count(), 1);
    }

    #[test]
    fn an_output_that_fails_stops_nothing() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut writer = QueueWriter::start(Broken).unwrap();
        write(&mut writer, 0..10);
        assert!(writer.queue.flush(Duration::from_secs(20)));
    }
}
