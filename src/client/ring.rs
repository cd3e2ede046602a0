//! `RingClient`: calls the primary of each key itself, without a stop on the way.
//!
//! It learns the members of the network from any node, and puts them on the same ring
//! as the nodes do; it learns them again every second, and whenever a call shows that
//! something has changed. What it does not know, or cannot reach, it leaves to another
//! node, which passes the call on: so it needs no node in particular, and survives the
//! one it has learned from.
//!
//! Keys of one call go to each primary in few messages, to several at the same time.
//! So do the keys of different threads: what many threads ask of one primary at once
//! goes there in one message ([`Lanes`]), so that a client shared by many threads costs
//! the network and the node far less than as many clients would.

use std::collections::HashMap;
use std::sync::Arc;

use crate::client::members::{MESSAGE, Purpose};
use crate::client::network::{Network, Waiting, Wanted};
use crate::diststore::{Found, Written};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::Caller;
use crate::rpc::lanes::{Done, Lanes, Load};
use crate::store::limits::Limits;
use crate::store::operations::Client;
use crate::store::table::Key;
use crate::store::view::View;

/// A client of a store of many nodes. Shared by threads; every method blocks, for a
/// few seconds at the most while nodes fail, and for fifteen when none can be reached.
pub struct RingClient {
    network: Arc<Network>,
    reads: Lanes<Wanted, Found>,
    writes: Lanes<Waiting, Option<Written>>,
}

/// What is to be written for a key: a value, or nothing to delete it.
pub type Assignment<'a> = (Key<'a>, Option<&'a [u8]>);

impl RingClient {
    /// A client of the network that `peer` is a node of, which lets everybody in. Learns
    /// its members.
    ///
    /// # Errors
    /// The peer cannot be called, or is no store of this kind.
    pub fn connect(peer: &Location) -> Result<RingClient, Error> {
        RingClient::of(Caller::default(), peer)
    }

    /// The client of a caller that may have an identity. Learns the members.
    ///
    /// # Errors
    /// As for [`connect`](RingClient::connect).
    pub fn of(caller: Caller, peer: &Location) -> Result<RingClient, Error> {
        let network = Arc::new(Network::of(caller, peer)?);
        let (reader, writer) = (network.clone(), network.clone());
        let read = move |loads: &[Load<Wanted>], done: Done<'_, Found>| {
            let loads = loads.iter().enumerate();
            loads.for_each(|(place, load)| done(place, reader.read_at(load)));
        };
        let write = move |loads: &[Load<Waiting>], done: Done<'_, Option<Written>>| {
            let loads = loads.iter().enumerate();
            loads.for_each(|(place, load)| done(place, writer.write_at(load)));
        };
        Ok(RingClient {
            network,
            reads: Lanes::new(MESSAGE, read),
            writes: Lanes::new(MESSAGE, write),
        })
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// A node refuses, or none can be reached; the key is longer than any store takes.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        check_lengths(key, None)?;
        if let Some(primary) = self.network.target(Key::new(key), Purpose::Read).primary() {
            let wanted = (primary.location, Wanted(key.to_vec()));
            let found = self.reads.deliver(vec![wanted]);
            if let Some(found) = found.into_iter().flatten().next() {
                return Ok(found.value);
            }
        }
        let mut values = self.get_many(&[key])?;
        Ok(values.pop().flatten())
    }

    /// Puts `value` for `key`, and returns when it is in place on all its owners.
    ///
    /// # Errors
    /// A node refuses, or none can be reached: the write may have taken effect. The key or
    /// the value is longer than any store takes.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.write(key, Some(value))?;
        Ok(())
    }

    /// Deletes `key`; was there a value?
    ///
    /// # Errors
    /// As for [`put`](RingClient::put).
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.write(key, None)
    }

    /// Writes one pair, with those of other threads; was there a value before?
    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, Error> {
        check_lengths(key, value)?;
        let key = Key::new(key);
        if let Some(primary) = self.network.target(key, Purpose::Write).primary() {
            let waiting = Waiting {
                started: primary.started,
                key: key.bytes.to_vec(),
                value: value.map(Vec::from),
            };
            let written = self.writes.deliver(vec![(primary.location, waiting)]);
            if let Some(Some(written)) = written.into_iter().flatten().next() {
                return Ok(existed(&written));
            }
        }
        // Its own refusal is heard by who calls alone.
        let existed = self.write_many(&[(key, value)])?;
        Ok(existed.first() == Some(&true))
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As for [`get`](RingClient::get).
    pub fn get_many(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key.as_ref())).collect();
        keys.iter()
            .try_for_each(|key| check_lengths(key.bytes, None))?;
        let weigh = |place: usize| keys[place].bytes.len();
        let found = self
            .network
            .until_all_are_done(&keys, Purpose::Read, weigh, |batch| {
                let keys = batch.places.iter().map(|at| keys[*at].bytes.to_vec());
                let keys = keys.collect();
                let found = self.network.fetch_at(&batch.target, keys)?;
                Ok(found.into_iter().map(Some).collect())
            })?;
        Ok(found.into_iter().map(|found: Found| found.value).collect())
    }

    /// Writes several keys, each by itself: they do not take effect at one instant. Of one
    /// key's values only the last is written. Was there a value before, for each of them?
    ///
    /// # Errors
    /// As for [`put`](RingClient::put); any of the writes may have taken effect.
    pub fn write_many(&self, pairs: &[Assignment<'_>]) -> Result<Vec<bool>, Error> {
        let mut all = pairs.iter();
        all.try_for_each(|(key, value)| check_lengths(key.bytes, *value))?;
        let last = last_of_each_key(pairs);
        let keys: Vec<Key<'_>> = last.iter().map(|at| pairs[*at].0).collect();
        let weigh = |place: usize| length(&pairs[last[place]]);
        let written = self
            .network
            .until_all_are_done(&keys, Purpose::Write, weigh, |batch| {
                let pairs = batch.places.iter().map(|at| pairs[last[*at]]);
                let pairs = pairs.map(|(key, value)| (key.bytes, value));
                self.network.write_to(&batch.target, pairs)
            })?;
        if last.len() == pairs.len() {
            return Ok(written.iter().map(existed).collect());
        }
        // As if each had been written after the one before it.
        let keys = keys.iter().map(|key| key.bytes);
        let mut is_there: HashMap<&[u8], bool> = keys.zip(written.iter().map(existed)).collect();
        let pairs = pairs.iter();
        let before = pairs.map(|(key, value)| is_there.insert(key.bytes, value.is_some()));
        Ok(before.map(|before| before == Some(true)).collect())
    }

    /// The member that `key` belongs to, as far as is known; none while all are left to
    /// a node to find.
    pub fn primary(&self, key: &[u8]) -> Option<Location> {
        let primary = self
            .network
            .target(Key::new(key), Purpose::Write)
            .primary()?;
        Some(primary.location)
    }

    /// The members, learned anew if a node tells them.
    pub(crate) fn learn(&self) -> View {
        self.network.learn().view().clone()
    }

    /// Makes the calls of `body` to one node, over a kept connection.
    ///
    /// # Errors
    /// See [`Error`]; it names the node.
    pub(crate) fn call<T>(
        &self,
        node: &Location,
        body: impl Fn(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.network.call(node, body)
    }

    /// The nodes that are known, sorted; at least one.
    pub fn nodes(&self) -> Vec<Location> {
        self.network.members().nodes().to_vec()
    }
}

/// A longer message would end its connection, as if its node were gone.
fn check_lengths(key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    let length = value.map_or(0, <[u8]>::len);
    let checked = Limits::default().check(key.len(), length, 0, 0);
    checked.map_err(Error::Usage)
}

fn length((key, value): &Assignment<'_>) -> usize {
    key.bytes.len() + value.map_or(0, <[u8]>::len)
}

/// The place of the last assignment of each key, in order.
fn last_of_each_key(pairs: &[Assignment<'_>]) -> Vec<usize> {
    let mut points: Vec<u32> = pairs.iter().map(|(key, _)| key.point).collect();
    points.sort_unstable();
    let mut places: Vec<usize> = (0..pairs.len()).collect();
    if points.windows(2).all(|two| two[0] != two[1]) {
        return places;
    }
    let key = |place: &usize| pairs[*place].0.bytes;
    places.sort_by(|one, other| key(one).cmp(key(other)).then(other.cmp(one)));
    places.dedup_by(|one, other| key(one) == key(other));
    places.sort_unstable();
    places
}

fn existed(written: &Written) -> bool {
    written.existed.unwrap_or(false)
}
