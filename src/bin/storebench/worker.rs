//! `Worker`: the calls of one thread, by a workload that all contenders share.

use std::ops::Range;

use clap::Args;
use log::debug;
use thrifty_p2p::membership::Rng;

use crate::contender::{Answer, Connection, Contender};
use crate::keys::{KeyBytes, MAX_KEYS, key};
use crate::options::from_1_to;

/// What is called, the same for every contender.
#[derive(Args)]
pub struct Workload {
    /// Workers, each with a connection and a thread
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = from_1_to::<10_000>)]
    pub connections: usize,

    /// Number of keys that are read and written
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = from_1_to::<MAX_KEYS>)]
    pub keys: usize,

    /// Of these keys, use only those that the peer forwards: their primary is another node
    #[arg(long)]
    pub forwarded_only: bool,

    /// Size of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,

    /// Fraction of calls that read, from 0 (only writes) to 1 (only reads)
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0)]
    pub read_ratio: f64,

    /// Keys per call. Rates count keys, times are those of calls
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_1_to::<4096>)]
    pub batch: usize,

    /// The numbers of the forwarded keys, if only these are used.
    #[arg(skip)]
    pub forwarded: Option<Vec<usize>>,
}

impl Workload {
    /// How many keys are used.
    pub fn key_count(&self) -> usize {
        self.forwarded.as_ref().map_or(self.keys, Vec::len)
    }

    /// The key at this index.
    pub fn key(&self, index: usize) -> KeyBytes {
        key(self.forwarded.as_ref().map_or(index, |all| all[index]))
    }
}

/// Makes the calls of one thread, one after another.
pub struct Worker<'a> {
    contender: &'a Contender<'a>,
    workload: &'a Workload,
    connection: Box<dyn Connection>,
    random: Rng,
    value: Vec<u8>,
    keys: Vec<KeyBytes>,
    /// Indexes of keys that are yet to be written once; `None` for random calls.
    pub to_load: Option<Range<usize>>,
}

impl<'a> Worker<'a> {
    /// A worker that makes random calls without end.
    pub fn new(
        contender: &'a Contender<'a>,
        workload: &'a Workload,
        connection: Box<dyn Connection>,
        seed: usize,
    ) -> Worker<'a> {
        Worker {
            contender,
            workload,
            connection,
            random: Rng::new(seed as u64),
            value: vec![b'v'; workload.value_size],
            keys: Vec::with_capacity(workload.batch),
            to_load: None,
        }
    }

    /// Makes the next call and blocks until it is answered or has failed. `None` when no
    /// call is left. After a failure, the next call uses a new connection.
    pub fn call(&mut self) -> Option<Answer> {
        self.choose_keys();
        if self.keys.is_empty() {
            return None;
        }
        let answer = self.call_with_keys();
        if let Err(e) = &answer {
            debug!("{}: {e}", self.contender.name);
            if let Ok(connection) = (self.contender.connect)() {
                self.connection = connection;
            }
        }
        Some(answer)
    }

    fn choose_keys(&mut self) {
        let workload = self.workload;
        self.keys.clear();
        for _ in 0..workload.batch {
            let index = match &mut self.to_load {
                Some(indexes) => indexes.next(),
                None => Some(self.random.below(workload.key_count())),
            };
            self.keys.extend(index.map(|index| workload.key(index)));
        }
    }

    fn call_with_keys(&mut self) -> Answer {
        let workload = self.workload;
        if self.to_load.is_none() && self.random.fraction() < workload.read_ratio {
            return self.connection.read(&self.keys, workload.value_size);
        }
        let written = self.connection.write(&self.keys, &self.value)?;
        if self.to_load.as_ref().is_some_and(Range::is_empty) {
            self.connection.flush(&self.keys[0])?;
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_picked() {
        let mut random = Rng::new(0);
        let mut picked: Vec<_> = (0..100).map(|_| random.below(3)).collect();
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked, [0, 1, 2]);
    }
}
