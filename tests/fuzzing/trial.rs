//! `trial`: does a decoder panic at one input, or take too much time or memory?

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The panics of all threads, including those that no test joins.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// The most that one input may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub time: Duration,
    /// Bytes that the whole process has allocated at one time, beyond those before the input.
    pub memory: usize,
}

/// The bounds that every decoder must keep.
pub const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(1),
    memory: 64 * 1024 * 1024,
};

/// The cost of one input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub time: Duration,
    pub memory: usize,
}

/// How a decoder has failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Panicked,
    TooSlow(Duration),
    TooMuchMemory(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked => f.write_str("panicked"),
            Fault::TooSlow(time) => write!(f, "took {time:?}"),
            Fault::TooMuchMemory(bytes) => write!(f, "took {bytes} bytes of memory"),
        }
    }
}

/// Counts panics from now on, and formats every log line, because a line about a bad input
/// contains parts of it.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Relaxed);
            previous(panic);
        }));
        log::set_logger(&Formatter).expect("no other logger is set");
        log::set_max_level(LevelFilter::Trace);
    });
}

/// Runs `decode` and checks the bounds. Returns its result and cost.
///
/// A busy machine may pause a test for a second. So an input that seems slow is decoded up to
/// twice more, and the shortest time counts.
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
        Cost { time, .. } if time > bounds.time => Err(Fault::TooSlow(time)),
        Cost { memory, .. } if memory > bounds.memory => Err(Fault::TooMuchMemory(memory)),
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

/// A logger that formats each line and discards it.
struct Formatter;

impl Log for Formatter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // As one string, like a logger that writes whole lines.
        drop(record.args().to_string());
    }

    fn flush(&self) {}
}
