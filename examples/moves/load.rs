//! A load of reads and writes, measured while it goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thrifty_p2p::client::ring::RingClient;

/// Threads that read and write random keys until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    client: RingClient,
    is_over: AtomicBool,
    failed: AtomicUsize,
    /// Milliseconds of each call since they were last taken.
    times: Mutex<Vec<f64>>,
}

/// The calls of a while.
pub struct Calls {
    /// How long each took, in milliseconds, sorted.
    times: Vec<f64>,
    /// How long the while was.
    pub elapsed: Duration,
}

/// The key of this number.
pub fn key(number: usize) -> Vec<u8> {
    format!("key{number:09}").into_bytes()
}

impl Load {
    /// Starts `threads` callers on the first `keys` keys.
    pub fn start(client: RingClient, threads: usize, keys: usize, value_size: usize) -> Load {
        let shared = Arc::new(Shared {
            client,
            is_over: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
            times: Mutex::default(),
        });
        let threads = (0..threads)
            .map(|thread| {
                let shared = shared.clone();
                thread::spawn(move || shared.call_for_ever(thread, keys, value_size))
            })
            .collect();
        Load { shared, threads }
    }

    /// The calls from here on until `is_over`, for `most` at the most.
    pub fn measure(&self, most: Duration, is_over: impl Fn() -> bool) -> Calls {
        self.shared.take_times();
        let began = Instant::now();
        while began.elapsed() < most && !is_over() {
            thread::sleep(Duration::from_millis(10));
        }
        let elapsed = began.elapsed();
        let mut times = self.shared.take_times();
        times.sort_by(f64::total_cmp);
        Calls { times, elapsed }
    }

    /// Ends the load; how many calls failed.
    pub fn stop(self) -> usize {
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads {
            thread.join().expect("no caller panics");
        }
        self.shared.failed.load(Relaxed)
    }
}

impl Shared {
    fn call_for_ever(&self, thread: usize, keys: usize, value_size: usize) {
        let value = vec![b'w'; value_size];
        let mut number = thread;
        while !self.is_over.load(Relaxed) {
            // A step that has no factor in common with most counts visits all keys.
            number = (number + 7_919) % keys;
            let began = Instant::now();
            let outcome = if number.is_multiple_of(2) {
                self.client.get(&key(number)).map(|_| ())
            } else {
                self.client.put(&key(number), &value)
            };
            let millis = began.elapsed().as_secs_f64() * 1e3;
            match outcome {
                Ok(()) => self.times().push(millis),
                Err(_) => {
                    self.failed.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn take_times(&self) -> Vec<f64> {
        std::mem::take(&mut self.times())
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<f64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// What 99 of 100 calls took at the most, in milliseconds.
    pub fn p99(&self) -> f64 {
        let place = self.times.len() * 99 / 100;
        self.times.get(place).copied().unwrap_or(0.0)
    }
}
