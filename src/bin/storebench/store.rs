//! `Store`: connections to the store under test.

use std::sync::Arc;

use clap::ValueEnum;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient, Write};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts};
use thrifty_p2p::store::placement::Key;
use thrifty_p2p::store::types::Client;

use crate::contender::{Answer, Connection, Opened, check_size};
use crate::keys::KeyBytes;
use crate::options::Options;
use crate::raw_store::RawStore;

/// How a call gets to the primary of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// All calls go to one node, which forwards them
    Proxy,
    /// Each worker has a client that calls the primary of each key
    Direct,
    /// All workers share one such client, which batches what they call at the same time
    Shared,
}

/// A store, and how it is called.
pub struct Store<'a> {
    options: &'a Options,
    dialer: Dialer,
    /// The node that is called, or asked for the others.
    pub peer: Location,
    /// The client that all workers share.
    shared: Option<Arc<RingClient>>,
}

impl Store<'_> {
    /// The store that `peer` belongs to.
    ///
    /// # Errors
    /// The client that is to be shared cannot call the peer.
    pub fn new(options: &Options, dialer: Dialer, peer: Location) -> Result<Store<'_>, Error> {
        let is_shared = options.routing == Routing::Shared;
        let shared = is_shared.then(|| RingClient::of(dialer.clone(), &peer));
        Ok(Store {
            options,
            shared: shared.transpose()?.map(Arc::new),
            dialer,
            peer,
        })
    }

    /// Opens a connection to the peer, or a client of all nodes.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn connect(&self) -> Opened {
        let (options, dialer, peer) = (self.options, &self.dialer, &self.peer);
        let generated = || dialer.connect(Timeouts::default(), StoreSyncClient::new, peer);
        Ok(match (options.routing, &self.shared) {
            (_, Some(shared)) => Box::new(shared.clone()),
            (Routing::Direct, _) => Box::new(Arc::new(RingClient::of(dialer.clone(), peer)?)),
            _ if options.legacy => Box::new(Legacy(generated()?)),
            _ if options.workload.batch > 1 || dialer.has_identity() => Box::new(generated()?),
            _ => return RawStore::connect(peer),
        })
    }

    /// The methods that read and write.
    pub fn methods(&self) -> [&'static str; 2] {
        match (self.options.legacy, self.options.workload.batch) {
            (true, _) => ["get", "put"],
            (false, 1) => ["fetch", "write"],
            (false, _) => ["fetch_many", "write_many"],
        }
    }

    /// The bytes of a read's request and of its reply, in Thrift's binary protocol.
    pub fn read_sizes(&self) -> [usize; 2] {
        // Besides its name, a message has a header, the head of its one field, and an end.
        let message = self.methods()[0].len() + 12 + 3 + 1;
        // Strings and lists have a length, the elements of a list a type. What was found
        // is a struct: a value and a version, both behind their heads, and an end.
        let key = 4 + size_of::<KeyBytes>();
        let value = 4 + self.options.workload.value_size;
        let found = 3 + value + 3 + 8 + 1;
        let sizes = match (self.options.legacy, self.options.workload.batch) {
            (true, _) => [key, value],
            (false, 1) => [key, found],
            (false, count) => [5 + count * key, 5 + count * found],
        };
        sizes.map(|size| message + size)
    }
}

impl Connection for Client {
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer {
        let found = match keys {
            [key] => vec![self.fetch(key.to_vec())?],
            _ => self.fetch_many(keys.iter().map(|key| key.to_vec()).collect())?,
        };
        let sizes = found.into_iter().map(|found| found.value.map(|v| v.len()));
        sizes.map(|size| check_size(size, value_size)).sum()
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        if let [key] = keys {
            TStoreSyncClient::write(self, key.to_vec(), value.to_vec())?;
            return Ok(1);
        }
        let write = |key: &KeyBytes| {
            Write::new(key.to_vec(), value.to_vec(), None, false, None, None, None)
        };
        Ok(self.write_many(keys.iter().map(write).collect())?.len())
    }
}

/// The original's methods, by which a write is not acknowledged.
struct Legacy(Client);

impl Connection for Legacy {
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer {
        for key in keys {
            check_size(Some(self.0.get(key.to_vec())?.len()), value_size)?;
        }
        Ok(keys.len())
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        for key in keys {
            self.0.put(key.to_vec(), value.to_vec())?;
        }
        Ok(keys.len())
    }

    /// The reply to a `get` comes when all that was put before it has been processed.
    fn flush(&mut self, key: &KeyBytes) -> Answer {
        Ok(self.0.get(key.to_vec())?.len())
    }
}

impl Connection for Arc<RingClient> {
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer {
        let found = match keys {
            [key] => vec![self.get(key)?],
            _ => self.get_many(keys)?,
        };
        let sizes = found.into_iter().map(|value| value.map(|v| v.len()));
        sizes.map(|size| check_size(size, value_size)).sum()
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        if let [key] = keys {
            self.put(key, value)?;
            return Ok(1);
        }
        let pairs = keys.iter().map(|key| (Key::new(key), Some(value)));
        Ok(self.write_many(&pairs.collect::<Vec<_>>())?.len())
    }
}
