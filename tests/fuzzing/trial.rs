//! One input: does its decoder panic, take too long, or too much memory?

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Panics of any thread, also of those that no test waits for.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What an input may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub time: Duration,
    /// Bytes allocated at once beyond those before, by the whole process.
    pub memory: usize,
}

/// What is promised.
pub const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(1),
    memory: 64 * 1024 * 1024,
};

/// What an input did cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub time: Duration,
    pub memory: usize,
}

/// What is wrong with a decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Panicked,
    Slow(Duration),
    Greedy(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked => f.write_str("panicked"),
            Fault::Slow(time) => write!(f, "took {time:?}"),
            Fault::Greedy(bytes) => write!(f, "took {bytes} bytes of memory"),
        }
    }
}

/// Counts panics from here on, and formats every line of the log: what is told of bad
/// input is made of it, and may fail or be long as well.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            PANICS.fetch_add(1, Relaxed);
            told(what);
        }));
        log::set_logger(&Formatter).expect("no other logger is set");
        log::set_max_level(LevelFilter::Trace);
    });
}

/// Runs `decode` within the bounds; what it returned and cost.
///
/// The time is that of the clock, and a busy machine may stop a test for a second: one
/// that seems slow is run twice more, and its quickest run counts.
pub fn trial<T>(bounds: Bounds, mut decode: impl FnMut() -> T) -> Result<(T, Cost), Fault> {
    let (mut result, mut cost) = once(&mut decode)?;
    for _ in 0..2 {
        if cost.time <= bounds.time {
            break;
        }
        let again = once(&mut decode)?;
        result = again.0;
        cost.time = cost.time.min(again.1.time);
    }
    match cost {
        Cost { time, .. } if time > bounds.time => Err(Fault::Slow(time)),
        Cost { memory, .. } if memory > bounds.memory => Err(Fault::Greedy(memory)),
        cost => Ok((result, cost)),
    }
}

fn once<T>(decode: &mut impl FnMut() -> T) -> Result<(T, Cost), Fault> {
    let panics = PANICS.load(Relaxed);
    let began = Instant::now();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    let memory = MEMORY.peak_usage().saturating_sub(before);
    let time = began.elapsed();
    match result {
        Ok(result) if PANICS.load(Relaxed) == panics => Ok((result, Cost { time, memory })),
        _ => Err(Fault::Panicked),
    }
}

struct Formatter;

impl Log for Formatter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // In one piece, as a logger that writes whole lines does.
        drop(record.args().to_string());
    }

    fn flush(&self) {}
}
