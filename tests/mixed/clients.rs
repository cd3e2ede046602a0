//! Clients of a network of both kinds: single calls, as a client of the original makes them, and a
//! load of writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts};
use thrifty_p2p::store::types::Client;

use super::Expected;

/// What a client of the original does.
fn call<T>(
    location: &Location,
    body: impl FnOnce(&mut Client) -> thrift::Result<T>,
) -> Result<T, Error> {
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        reply: Duration::from_secs(2),
    };
    Dialer::default().call_with_timeouts(timeouts, StoreSyncClient::new, location, body)
}

pub fn put(location: &Location, key: &str, value: &str) -> Result<(), Error> {
    call(location, |node| node.put(key.into(), value.into()))
}

pub fn get(location: &Location, key: &str) -> Result<String, Error> {
    let value = call(location, |node| node.get(key.into()))?;
    Ok(String::from_utf8(value).unwrap())
}

/// Writes, deletes and puts until it is stopped. Each thread has keys of its own.
pub struct Load {
    is_stopped: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Expected>>,
    refused: Arc<AtomicUsize>,
}

impl Load {
    /// Through a node that stays, if there is one, so that no write may be refused.
    pub fn start(stays: Option<Location>) -> Load {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let threads = stays
            .into_iter()
            .flat_map(|node| [(0, node.clone()), (1, node)]);
        let threads = threads.map(|(number, node)| {
            let (is_stopped, refused) = (is_stopped.clone(), refused.clone());
            thread::spawn(move || write_until(&is_stopped, &refused, number, &node))
        });
        Load {
            threads: threads.collect(),
            is_stopped,
            refused,
        }
    }

    /// Returns what was acknowledged last for each key, and how many writes were refused.
    pub fn stop(self) -> (Expected, usize) {
        self.is_stopped.store(true, Relaxed);
        let mut expected = Expected::new();
        for thread in self.threads {
            expected.extend(thread.join().unwrap());
        }
        (expected, self.refused.load(Relaxed))
    }
}

fn write_until(
    is_stopped: &AtomicBool,
    refused: &AtomicUsize,
    number: usize,
    node: &Location,
) -> Expected {
    let client = StoreClient::new(node.clone());
    let mut expected = Expected::new();
    for round in 0.. {
        if is_stopped.load(Relaxed) {
            break;
        }
        let key = format!("load {number} {}", round % 20);
        let value = (round % 5 > 0).then(|| format!("round {round}"));
        let written = match &value {
            Some(value) => client.put(key.as_bytes(), value.as_bytes()).map(drop),
            None => client.delete(key.as_bytes()).map(drop),
        };
        match written {
            Ok(()) => drop(expected.insert(key, value)),
            Err(e) => {
                eprintln!("refused: {key}: {e}");
                refused.fetch_add(1, Relaxed);
                expected.remove(&key);
                thread::sleep(Duration::from_millis(50));
            }
        }
        // Noise: a put that is not left in peace.
        let _ = put(node, &format!("noise {number} {}", round % 20), "noise");
        thread::sleep(Duration::from_millis(3));
    }
    expected
}
