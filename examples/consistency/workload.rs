//! `Workload`: threads that write and read keys of a store, and check every reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::history::{History, value_of};
use super::report::{Recorder, Report};

/// The keys of each writer.
const KEYS_PER_WRITER: usize = 25;

/// Readers start at different keys, this far apart.
const READER_DISTANCE: usize = 37;

/// The pause of each thread after a call, so that the nodes have CPU time on the same machine.
const PAUSE: Duration = Duration::from_millis(2);

/// A store that is checked.
pub trait KeyValueStore {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// The call failed. The text says where and why.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Writes `value` for `key`. Without a value, deletes `key`.
    ///
    /// # Errors
    /// The call failed. The text says where and why. The write may have taken effect.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String>;
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
        let keys = writers * KEYS_PER_WRITER;
        let shared = Shared {
            name: name.into(),
            history: Arc::new(History::new(keys)),
            recorder: Arc::default(),
            is_stopped: Arc::default(),
        };
        let mut threads = Vec::new();
        for index in 0..writers {
            let first = index * KEYS_PER_WRITER;
            let mut turn = 0;
            threads.push(shared.spawn(connect(), move |shared, store| {
                shared.write(first + turn % KEYS_PER_WRITER, store);
                turn += 1;
            }));
        }
        for index in 0..readers {
            let mut turn = index * READER_DISTANCE;
            threads.push(shared.spawn(connect(), move |shared, store| {
                turn += 1;
                shared.read(turn % keys, store);
            }));
        }
        Workload { shared, threads }
    }

    /// The counts so far.
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

    /// The number of the last acknowledged write of the key with this number.
    pub fn acknowledged(&self, number: usize) -> u64 {
        self.shared.history.acknowledged(number)
    }

    /// Reads one key at `store`, and checks and counts the reply. Counts neither a failure nor
    /// the time.
    ///
    /// # Errors
    /// The call failed.
    pub fn check_at(&self, number: usize, store: &mut impl KeyValueStore) -> Result<(), String> {
        let floor = self.acknowledged(number);
        let value = store.get(&self.key(number))?;
        let checked = self.shared.history.check(number, floor, value.as_deref());
        self.shared.recorder.read(Duration::ZERO, checked);
        Ok(())
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

    /// Stops the threads, reads every key once more at each of `stores`, and returns all counts.
    pub fn finish<S: KeyValueStore>(mut self, stores: impl IntoIterator<Item = S>) -> Report {
        self.stop();
        for mut store in stores {
            for number in 0..self.keys() {
                self.shared.read(number, &mut store);
            }
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
        mut step: impl FnMut(&Shared, &mut S) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let shared = self.clone();
        thread::spawn(move || {
            while !shared.is_stopped.load(Relaxed) {
                step(&shared, &mut store);
                thread::sleep(PAUSE);
            }
        })
    }

    fn key(&self, number: usize) -> Vec<u8> {
        format!("{} {number}", self.name).into_bytes()
    }

    /// Makes the next write of a key and counts it.
    fn write(&self, number: usize, store: &mut impl KeyValueStore) {
        let write = self.history.start_write(number);
        let began = Instant::now();
        match store.put(&self.key(number), value_of(write).as_deref()) {
            Ok(()) => {
                self.history.acknowledge(number, write);
                self.recorder.written(began.elapsed());
            }
            Err(e) => self.recorder.failed(format!(
                "write {write} of key {number} failed after {:.3} s: {e}",
                began.elapsed().as_secs_f64()
            )),
        }
    }

    /// Reads a key, checks the reply and counts it.
    fn read(&self, number: usize, store: &mut impl KeyValueStore) {
        let floor = self.history.acknowledged(number);
        let began = Instant::now();
        match store.get(&self.key(number)) {
            Ok(value) => {
                let checked = self.history.check(number, floor, value.as_deref());
                self.recorder.read(began.elapsed(), checked);
            }
            Err(e) => self.recorder.failed(format!(
                "read of key {number} failed after {:.3} s: {e}",
                began.elapsed().as_secs_f64()
            )),
        }
    }
}
