//! `Workload`: threads that write and read keys of a store, and check what they have read.
//!
//! Every key has several writers and several readers. A few hot keys get half of the calls, so
//! that calls of one key overlap; many others get the rest. Some calls have one key, others
//! several at once. Some writes delete the key. Some depend on what the key has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::membership::Rng;

use super::history::{History, Problem, Started, value_of};
use super::report::{Access, Recorder, Report};

/// The keys that get half of the calls.
const HOT_KEYS: usize = 6;

/// The other keys, for each writer.
const KEYS_PER_WRITER: usize = 25;

/// One call in so many is a batched one.
const BATCH_INTERVAL: usize = 4;

/// The most keys of a batched call.
const MAX_BATCH: usize = 8;

/// One write in so many is a deletion.
const DELETE_INTERVAL: usize = 7;

/// One write of a single key in so many depends on what the key has, as far as the store can.
const SWAP_INTERVAL: usize = 3;

/// The pause of each thread after a call, so that the nodes have CPU time on the same machine.
const PAUSE: Duration = Duration::from_millis(2);

/// A key, and its new value, or none to delete it.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// The value of a key, or none, with its version.
pub type Versioned = (Option<Vec<u8>>, i64);

/// A call that failed. A write may have taken effect.
#[derive(Debug)]
pub struct CallError {
    /// Where and why.
    pub text: String,
    /// The node was expected to exit: this is no fault of the store.
    pub is_expected: bool,
}

impl CallError {
    /// A failure that is a fault of the store.
    pub fn new(why: impl ToString) -> CallError {
        CallError {
            text: why.to_string(),
            is_expected: false,
        }
    }
}

/// A store that is checked.
pub trait KeyValueStore {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// The call failed.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError>;

    /// Writes `value` for `key`. Without a value, deletes `key`.
    ///
    /// # Errors
    /// The call failed. The write may have taken effect. The store must not be called again for
    /// the same write: it may then take effect twice.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError>;

    /// What `key` has. None if the store has no conditional writes.
    ///
    /// # Errors
    /// The call failed.
    fn read(&mut self, _key: &[u8]) -> Result<Option<Versioned>, CallError> {
        Ok(None)
    }

    /// [`put`](KeyValueStore::put) if `key` has that version; 0: if it has no value. Has it?
    ///
    /// # Errors
    /// As for [`put`](KeyValueStore::put).
    fn put_if(
        &mut self,
        _key: &[u8],
        _value: Option<&[u8]>,
        _version: i64,
    ) -> Result<bool, CallError> {
        Err(CallError::new("there are no conditional writes"))
    }

    /// The values of several keys.
    ///
    /// # Errors
    /// The call failed.
    fn get_many(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, CallError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Writes several keys.
    ///
    /// # Errors
    /// The call failed. Any of the writes may have taken effect.
    fn write_many(&mut self, writes: &[Write]) -> Result<(), CallError> {
        let mut writes = writes.iter();
        writes.try_for_each(|(key, value)| self.put(key, value.as_deref()))
    }
}

/// Threads that write and read until they are stopped.
pub struct Workload {
    shared: Shared,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What the threads share. A cheap handle.
#[derive(Clone)]
struct Shared {
    /// The start of every key. It keeps the keys of two workloads apart.
    name: Arc<str>,
    history: Arc<History>,
    recorder: Arc<Recorder>,
    is_stopped: Arc<AtomicBool>,
}

impl Workload {
    /// Starts this many writers and readers. `connect` creates the client of each thread.
    pub fn start<S: KeyValueStore + Send + 'static>(
        name: &str,
        writers: usize,
        readers: usize,
        connect: impl Fn() -> S,
    ) -> Workload {
        let shared = Shared {
            name: name.into(),
            history: Arc::new(History::new(HOT_KEYS + writers * KEYS_PER_WRITER)),
            recorder: Arc::default(),
            is_stopped: Arc::default(),
        };
        let mut threads = Vec::new();
        for _ in 0..writers {
            // After a failure, the same keys are written again, with new values.
            let mut failed = Vec::new();
            threads.push(
                shared.spawn(connect(), threads.len(), move |shared, random, store| {
                    let keys = match failed.is_empty() {
                        true => shared.choose(random),
                        false => std::mem::take(&mut failed),
                    };
                    if !shared.write(&keys, random, store) {
                        failed = keys;
                    }
                }),
            );
        }
        for _ in 0..readers {
            threads.push(
                shared.spawn(connect(), threads.len(), |shared, random, store| {
                    shared.read(&shared.choose(random), store);
                }),
            );
        }
        Workload { shared, threads }
    }

    /// The counts so far. Violations are counted some seconds after they happen.
    pub fn report(&self) -> Report {
        self.shared.recorder.report()
    }

    /// As [`Recorder::reset_stalls`].
    pub fn reset_stalls(&self) -> (Duration, Duration) {
        self.shared.recorder.reset_stalls()
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.shared.history.keys()
    }

    /// The key with this number.
    pub fn key(&self, number: usize) -> Vec<u8> {
        self.shared.key(number)
    }

    /// How many writes of the key with this number were acknowledged.
    pub fn acknowledged(&self, number: usize) -> u64 {
        self.shared.history.acknowledged(number)
    }

    /// Reads one key at `store`. A failure counts for nothing, nor does the time.
    ///
    /// # Errors
    /// The call failed.
    pub fn check_at(&self, number: usize, store: &mut impl KeyValueStore) -> Result<(), CallError> {
        let started = self.shared.history.start(number);
        let reply = store.get(&self.key(number));
        let value = reply.as_ref().ok().map(Option::as_deref);
        self.shared.end_read(number, &started, value);
        reply.map(|_| ())
    }

    /// Stops the threads. Waits for their calls in flight.
    pub fn stop(&mut self) {
        self.shared.is_stopped.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("a thread of the workload does not panic");
        }
    }

    /// Stops the threads, reads every key once more at each of `stores`, checks what was not
    /// checked yet, and returns all counts.
    pub fn finish<S: KeyValueStore>(mut self, stores: impl IntoIterator<Item = S>) -> Report {
        self.stop();
        for mut store in stores {
            for number in 0..self.keys() {
                self.shared.read(&[number], &mut store);
            }
        }
        for number in 0..self.keys() {
            let checked = self.shared.history.check(number);
            self.shared.record(number, checked);
        }
        self.report()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Relaxed);
    }
}

impl Shared {
    /// Starts a thread that calls `step` until the workload is stopped.
    fn spawn<S: Send + 'static>(
        &self,
        mut store: S,
        seed: usize,
        mut step: impl FnMut(&Shared, &mut Rng, &mut S) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let shared = self.clone();
        thread::spawn(move || {
            let mut random = Rng::new(seed as u64);
            while !shared.is_stopped.load(Relaxed) {
                step(&shared, &mut random, &mut store);
                thread::sleep(PAUSE);
            }
        })
    }

    fn key(&self, number: usize) -> Vec<u8> {
        format!("{} {number}", self.name).into_bytes()
    }

    /// The keys of the next call, sorted. None if too many of their operations are unchecked.
    fn choose(&self, random: &mut Rng) -> Vec<usize> {
        let count = match random.below(BATCH_INTERVAL) {
            0 => 2 + random.below(MAX_BATCH - 1),
            _ => 1,
        };
        let mut choose_one = || match random.below(2) {
            0 => random.below(HOT_KEYS),
            _ => HOT_KEYS + random.below(self.history.keys() - HOT_KEYS),
        };
        let mut keys: Vec<usize> = (0..count).map(|_| choose_one()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !self.history.is_full(*key));
        keys
    }

    fn start(&self, keys: &[usize]) -> Vec<Started> {
        keys.iter().map(|key| self.history.start(*key)).collect()
    }

    /// Writes or deletes keys, and counts the call. Returns whether it succeeded.
    fn write(&self, keys: &[usize], random: &mut Rng, store: &mut impl KeyValueStore) -> bool {
        if let [key] = keys
            && random.below(SWAP_INTERVAL) == 0
            && let Some(is_done) = self.swap(*key, random, store)
        {
            return is_done;
        }
        let numbers: Vec<Option<u64>> = keys
            .iter()
            .map(|_| (random.below(DELETE_INTERVAL) > 0).then(|| self.history.next_write()))
            .collect();
        let write = |(key, number): (&usize, &Option<u64>)| (self.key(*key), number.map(value_of));
        let writes: Vec<Write> = keys.iter().zip(&numbers).map(write).collect();
        let started = self.start(keys);
        let began = Instant::now();
        let result = match &writes[..] {
            [] => Ok(()),
            [(key, value)] => store.put(key, value.as_deref()),
            _ => store.write_many(&writes),
        };
        self.count(Access::Write, keys, began, result.as_ref().err());
        for ((key, started), number) in keys.iter().zip(&started).zip(numbers) {
            let ended = self.history.end_write(started, number, result.is_ok());
            self.record(*key, ended);
        }
        result.is_ok()
    }

    /// Reads a key, and writes or deletes it if it still has that, or if it has no value. Returns
    /// whether the calls succeeded. None if the store has no conditional writes.
    fn swap(&self, key: usize, random: &mut Rng, store: &mut impl KeyValueStore) -> Option<bool> {
        let name = self.key(key);
        let (started, began) = (self.history.start(key), Instant::now());
        let Some(held) = store.read(&name).transpose() else {
            self.end_read(key, &started, None);
            return None;
        };
        self.count(Access::Read, &[key], began, held.as_ref().err());
        let value = held.as_ref().ok().map(|(value, _)| value.as_deref());
        self.end_read(key, &started, value);
        let Ok((mut from, mut version)) = held else {
            return Some(false);
        };
        if random.below(2) == 0 {
            (from, version) = (None, 0);
        }
        let to = (random.below(DELETE_INTERVAL) > 0).then(|| self.history.next_write());
        let (started, began) = (self.history.start(key), Instant::now());
        let result = store.put_if(&name, to.map(value_of).as_deref(), version);
        self.count(Access::Write, &[key], began, result.as_ref().err());
        let ended = match result {
            // The value that is in the way has no number yet if its write is in progress.
            Ok(false) => self.history.end_read(&started, None),
            _ => self
                .history
                .end_swap(&started, from.as_deref(), to, result.is_ok()),
        };
        self.record(key, ended);
        Some(result.is_ok())
    }

    /// Reads keys, and counts the call.
    fn read(&self, keys: &[usize], store: &mut impl KeyValueStore) {
        let names: Vec<Vec<u8>> = keys.iter().map(|key| self.key(*key)).collect();
        let started = self.start(keys);
        let began = Instant::now();
        let result = match &names[..] {
            [] => Ok(Vec::new()),
            [key] => store.get(key).map(|value| vec![value]),
            _ => store.get_many(&names),
        };
        self.count(Access::Read, keys, began, result.as_ref().err());
        for (index, (key, started)) in keys.iter().zip(&started).enumerate() {
            let value = result.as_ref().ok().map(|values| values[index].as_deref());
            self.end_read(*key, started, value);
        }
    }

    fn end_read(&self, key: usize, started: &Started, reply: Option<Option<&[u8]>>) {
        let ended = self.history.end_read(started, reply);
        self.record(key, ended);
    }

    /// Counts a call for keys that has ended.
    fn count(&self, access: Access, keys: &[usize], began: Instant, error: Option<&CallError>) {
        for key in keys {
            match error {
                None => self.recorder.succeeded(access, *key, began),
                Some(_) => self.recorder.stalled(access, *key, began),
            }
        }
        if let Some(CallError { text, .. }) = error.filter(|error| !error.is_expected) {
            self.recorder.failed(format!(
                "{access:?} of keys {keys:?} failed after {:.3} s: {text}",
                began.elapsed().as_secs_f64()
            ));
        }
    }

    fn record(&self, key: usize, checked: Result<(), Problem>) {
        if let Err(problem) = checked {
            let name = self.key(key);
            self.recorder
                .found(&String::from_utf8_lossy(&name), problem);
        }
    }
}
