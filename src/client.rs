//! A client of a store: the acknowledged methods where the peer has them, the
//! original's where it has not.

mod members;
mod network;
pub mod ring;

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::locator::TLocatorSyncClient;
use crate::rpc::client::{Caller, Patience};
use crate::rpc::links::Links;
use crate::store::limits::LONGEST_VALUE;
use crate::store::operations::Client;

/// Longer than a node tries before it refuses, so that its reason is heard.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(12),
};

/// How long a node of the original may take to have what was put.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// Calls one node of a store, which passes each call on to where its key belongs.
///
/// To be used by one thread. Every method blocks for some seconds at the most.
pub struct StoreClient {
    peer: Location,
    caller: Caller,
    links: Links<Client>,
    /// The peer has turned out not to know the acknowledged methods.
    is_original: Cell<bool>,
}

impl StoreClient {
    /// A client that calls `peer`, which lets everybody in. Nothing is called yet.
    pub fn new(peer: Location) -> StoreClient {
        StoreClient::of(Caller::default(), peer)
    }

    /// The client of a caller that may have an identity. Nothing is called yet.
    pub fn of(caller: Caller, peer: Location) -> StoreClient {
        StoreClient {
            peer,
            links: Links::new(caller.clone(), StoreSyncClient::new, PATIENCE),
            caller,
            is_original: Cell::new(false),
        }
    }

    /// The value of `key`, if there is one. To a node of the original, an empty value
    /// is as good as none.
    ///
    /// # Errors
    /// The peer cannot be called, or refuses.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.or_as_originally(
            |links| Ok(links.call(&self.peer, |c| c.fetch(key.to_vec()))?.value),
            || {
                let value = self.call(|client| client.get(key.to_vec()))?;
                Ok((!value.is_empty()).then_some(value))
            },
        )
    }

    /// Puts `value` for `key`, and returns when it is in place.
    ///
    /// # Errors
    /// The peer cannot be called, or refuses; a peer of the original does not have it in
    /// time; the value is longer than any store takes.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if value.len() > LONGEST_VALUE {
            let (long, most) = (value.len(), LONGEST_VALUE);
            return Err(Error::Usage(format!(
                "a value of {long} bytes; {most} are taken"
            )));
        }
        self.or_as_originally(
            |links| {
                links
                    .call(&self.peer, |c| c.write(key.to_vec(), value.to_vec()))
                    .map(|_| ())
            },
            || {
                self.call(|client| client.put(key.to_vec(), value.to_vec()))?;
                self.wait_for(key, value)
            },
        )
    }

    /// Deletes `key`; was there a value?
    ///
    /// # Errors
    /// The peer cannot be called, refuses, or is a node of the original, which deletes nothing.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.links
            .call(&self.peer, |client| client.unset(key.to_vec()))
    }

    /// The node that `key` belongs to on the ring.
    ///
    /// # Errors
    /// The peer cannot be called, or its ring is empty.
    pub fn owner(&self, key: &[u8]) -> Result<Location, Error> {
        let owner = self.call(|client| client.get_node(key.to_vec()))?;
        Ok(Location::try_from(&owner)?)
    }

    /// Puts are not acknowledged by the original: wait until the value is seen.
    fn wait_for(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let deadline = Instant::now() + UNACKNOWLEDGED;
        while self.call(|client| client.get(key.to_vec()))? != value {
            if Instant::now() > deadline {
                let late = format!("not in place after {UNACKNOWLEDGED:?}");
                return Err(Error::Answered(self.peer.clone(), late.into()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Connects, calls and closes, as nodes of the original need it.
    fn call<T>(&self, body: impl FnOnce(&mut Client) -> thrift::Result<T>) -> Result<T, Error> {
        self.caller
            .call_within(PATIENCE, StoreSyncClient::new, &self.peer, body)
    }

    fn or_as_originally<T>(
        &self,
        acknowledged: impl FnOnce(&Links<Client>) -> Result<T, Error>,
        originally: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.is_original.get() {
            match acknowledged(&self.links) {
                Err(e) if e.is_unknown_method() => self.is_original.set(true),
                outcome => return outcome,
            }
        }
        originally()
    }
}
