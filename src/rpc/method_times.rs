//! `MethodTimes`: how often each method was called, how long that took, and how often it failed.
//!
//! A connection looks a method up once, under a lock, and then counts in atomics. Names come
//! from clients: only one that was called without an application exception gets counters of its
//! own, and at most 64 do. All others count as `other`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

/// The most methods that have counters of their own.
const MAX_METHODS: usize = 64;

/// The name of all other methods.
const OTHER: &str = "other";

/// The upper bounds of the buckets of times, in seconds. The last bucket has none.
pub const BOUNDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
];

/// A string at the start of these bytes, and what follows it.
pub(super) fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The counters of one method.
#[derive(Debug, Default)]
pub struct Times {
    /// The sum of the times from the first byte of a call to the last one of its reply.
    pub nanos: AtomicU64,
    /// Calls that ended in an exception.
    pub failed: AtomicU64,
    /// Calls by their times: not longer than each of [`BOUNDS`], and longer than the one before.
    pub buckets: [AtomicU64; BOUNDS.len() + 1],
}

/// The counters of all methods of a server.
#[derive(Default)]
pub(crate) struct MethodTimes {
    /// By name. Locked when a connection first calls a method, and to read.
    methods: Mutex<BTreeMap<String, Arc<Times>>>,
}

/// Counts the calls of one connection.
pub(crate) struct Recorder<'a> {
    all: &'a MethodTimes,
    /// The methods that were looked up.
    known: Vec<(Vec<u8>, Arc<Times>)>,
    /// The method of the current call, and when it began.
    method: Vec<u8>,
    began: Instant,
}

impl MethodTimes {
    /// Counts the calls of a connection.
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder {
            all: self,
            known: Vec::new(),
            method: Vec::new(),
            began: Instant::now(),
        }
    }

    /// All methods that were called, by name.
    pub fn all(&self) -> BTreeMap<String, Arc<Times>> {
        self.methods.lock().clone()
    }

    fn find(&self, method: &[u8], is_known: bool) -> Arc<Times> {
        let mut methods = self.methods.lock();
        let name = std::str::from_utf8(method).unwrap_or(OTHER);
        let may_add = is_known && !name.is_empty() && methods.len() < MAX_METHODS;
        let name = if may_add || methods.contains_key(name) {
            name
        } else {
            OTHER
        };
        methods.entry(name.to_owned()).or_default().clone()
    }
}

impl Recorder<'_> {
    /// A call starts with these bytes.
    pub fn start(&mut self, call: &[u8]) {
        self.method.clear();
        let name = call.get(4..).and_then(split_string);
        self.method.extend(name.map_or(&[][..], |(name, _)| name));
        self.began = Instant::now();
    }

    /// The call has ended in an application exception, or in one of the interface, or in neither.
    pub fn stop(&mut self, is_exception: bool, is_refusal: bool) {
        let time = self.began.elapsed();
        let mut known = self.known.iter();
        let found = known.position(|(name, _)| *name == self.method);
        let looked_up;
        let times = match found {
            Some(index) => &self.known[index].1,
            None => {
                looked_up = self.all.find(&self.method, !is_exception);
                if !is_exception && self.known.len() < MAX_METHODS {
                    self.known.push((self.method.clone(), looked_up.clone()));
                }
                &looked_up
            }
        };
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        times.buckets[bucket].fetch_add(1, Relaxed);
        times.nanos.fetch_add(time.as_nanos() as u64, Relaxed);
        if is_exception || is_refusal {
            times.failed.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(recorder: &mut Recorder<'_>, name: &str, is_exception: bool) {
        let length = (name.len() as u32).to_be_bytes();
        recorder.start(&[&[0x80, 1, 0, 1], &length[..], name.as_bytes(), &[0; 4]].concat());
        recorder.stop(is_exception, false);
    }

    #[test]
    fn only_methods_that_exist_get_counters_and_not_too_many() {
        let all = MethodTimes::default();
        let mut recorder = all.recorder();
        call(&mut recorder, "fetch", false);
        call(&mut recorder, "fetch", true);
        call(&mut recorder, "nonsense", true);
        for number in 0..1000 {
            call(&mut recorder, &format!("method{number}"), false);
        }
        let times = all.all();
        assert!(times.len() <= MAX_METHODS + 1 && recorder.known.len() <= MAX_METHODS);
        let of = |name: &str| {
            let times = times.get(name)?;
            let calls = times.buckets.iter().map(|count| count.load(Relaxed));
            Some((calls.sum::<u64>(), times.failed.load(Relaxed)))
        };
        assert_eq!((of("fetch"), of("nonsense")), (Some((2, 1)), None));
        assert!(of(OTHER).is_some_and(|(calls, failed)| calls > 900 && failed == 1));
    }
}
