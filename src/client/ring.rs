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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use crate::diststore::{Found, Pair, StoreSyncClient, TStoreSyncClient, Written};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{Caller, Links, Patience};
use crate::rpc::lanes::Lanes;
use crate::side_by_side::side_by_side;
use crate::store::limits::Limits;
use crate::store::operations::Client;
use crate::store::table::Key;
use crate::store::view::{Peer, View};
use crate::store::wire::MOST_LISTED;
use crate::store::writing::NOT_PRIMARY;

/// The longest that a call is tried before it fails.
const DEADLINE: Duration = Duration::from_secs(15);

/// For a primary, which answers within 1.5 seconds, and for who tells the members.
const PRIMARY_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(3),
};

/// For a node that finds the owners itself: longer than it tries before it refuses.
const ANY_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(12),
};

/// How old the list of members may be before it is learned anew.
const FRESH: Duration = Duration::from_secs(1);

/// For how long a node that could not be reached is not called.
const AVOIDED: Duration = Duration::from_secs(1);

/// The pause before calls that came to nothing are made again.
const RETRY: Duration = Duration::from_millis(10);

/// The most bytes of keys and values in one message, unless one pair is longer.
const MESSAGE: usize = 1024 * 1024;

/// The most keys in one message.
const KEYS: usize = 4096;

/// Messages under way at the same time for one call.
const SIDE_BY_SIDE: usize = 8;

/// A client of a store of many nodes. Shared by threads; every method blocks, for a
/// few seconds at the most while nodes fail, and for fifteen when none can be reached.
pub struct RingClient {
    network: Arc<Network>,
    reads: Lanes<Vec<u8>, Option<Found>>,
    /// Writes, each for a process that is its key's primary.
    writes: Lanes<Waiting, Option<Written>>,
}

/// The nodes, what is known of them, and the connections to them.
struct Network {
    primaries: Links<Client>,
    any: Links<Client>,
    known: Mutex<Known>,
}

/// What is known of the network.
struct Known {
    members: Arc<Members>,
    /// When the members are learned anew, at the latest.
    stale_at: Instant,
    /// Nodes that could not be reached, and until when they are not called.
    avoided: HashMap<Location, Instant>,
}

struct Members {
    /// By which keys are written.
    view: View,
    /// By which keys are read, if that is another one: while keys move, the one before.
    readers: Option<View>,
    /// All that could be asked: the members, and the node that was named at the start.
    nodes: Vec<Location>,
    /// Leave it to a node to find the owners of keys.
    mixed: bool,
}

/// What keys are called for.
#[derive(Clone, Copy)]
enum Purpose {
    Read,
    Write,
}

/// Where the keys of one message go.
#[derive(Clone, PartialEq, Eq)]
enum Target {
    /// To the process that is their primary.
    Primary(Peer),
    /// To a node that finds their owners.
    Any(Location),
}

/// Where a key goes, as is soon found for each of many.
#[derive(Clone, Copy)]
enum Aim<'a> {
    Primary(&'a Location),
    Any(&'a Location),
}

/// Keys of one message, by their places among those of the call.
struct Batch {
    target: Target,
    places: Vec<usize>,
    bytes: usize,
}

/// What is to be written for a key: a value, or nothing to delete it.
pub type Assignment<'a> = (Key<'a>, Option<&'a [u8]>);

/// An assignment that waits in a lane: the process that is its key's primary, the key,
/// the value.
type Waiting = (i64, Vec<u8>, Option<Vec<u8>>);

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
        let nobody = Members {
            view: View::new([]),
            readers: None,
            nodes: vec![peer.clone()],
            mixed: true,
        };
        let network = Arc::new(Network {
            primaries: Links::new(caller.clone(), StoreSyncClient::new, PRIMARY_PATIENCE),
            any: Links::new(caller, StoreSyncClient::new, ANY_PATIENCE),
            known: Mutex::new(Known {
                members: Arc::new(nobody),
                stale_at: Instant::now(),
                avoided: HashMap::new(),
            }),
        });
        network.learn_from(peer)?;
        let (reader, writer) = (network.clone(), network.clone());
        let read = move |primary: &Location, keys| reader.read_at(primary, keys);
        let write = move |primary: &Location, pairs| writer.write_at(primary, pairs);
        Ok(RingClient {
            network,
            reads: Lanes::new(MESSAGE, Vec::len, read),
            writes: Lanes::new(MESSAGE, length_of_waiting, write),
        })
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// A node refuses, or none can be reached; the key is longer than any store takes.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        check_lengths(key, None)?;
        if let Some(primary) = self.network.target(Key::new(key), Purpose::Read).primary() {
            let found = self.reads.deliver(vec![(primary.location, key.to_vec())]);
            if let Some(Some(found)) = found.into_iter().flatten().next() {
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
            let item = (primary.started, key.bytes.to_vec(), value.map(Vec::from));
            let written = self.writes.deliver(vec![(primary.location, item)]);
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
        self.network.known().stale_at = Instant::now();
        self.network.members().view.clone()
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
        self.network.primaries.call(node, body)
    }

    /// The nodes that are known, sorted; at least one.
    pub fn nodes(&self) -> Vec<Location> {
        self.network.members().nodes.clone()
    }
}

impl Network {
    /// Reads keys at their primary; nothing for those that got no answer.
    fn read_at(&self, primary: &Location, keys: Vec<Vec<u8>>) -> Vec<Option<Found>> {
        let count = keys.len();
        let read = |node: &mut Client| node.fetch_many(keys.clone());
        let found = self.primaries.call(primary, read);
        let found = self.noted(primary, found).unwrap_or_default();
        let answers = found.into_iter().map(Some);
        answers.chain(std::iter::repeat(None)).take(count).collect()
    }

    /// Writes pairs at their primary, each for the process that is meant; nothing for those
    /// that were not written, or may not have been.
    fn write_at(&self, primary: &Location, pairs: Vec<Waiting>) -> Vec<Option<Written>> {
        let mut answers = Vec::new();
        for pairs in pairs.chunk_by(|(started, ..), (next, ..)| started == next) {
            let started = pairs.first().map_or(0, |(started, ..)| *started);
            let target = Target::Primary(Peer::new(primary.clone(), started));
            let pairs_of_it = pairs.iter();
            let pairs_of_it = pairs_of_it.map(|(_, key, value)| (&key[..], value.as_deref()));
            let written = self.write_to(&target, pairs_of_it);
            let written = self.noted(primary, written).unwrap_or_default().into_iter();
            answers.extend(written.chain(std::iter::repeat(None)).take(pairs.len()));
        }
        answers
    }

    /// The outcome of a call to a node, which is avoided from here on if it was not reached.
    fn noted<T>(&self, node: &Location, outcome: Result<T, Error>) -> Option<T> {
        let unreachable = |e: &Error| e.is_unreachable().then(|| self.avoid(node, e));
        outcome
            .inspect_err(|e| unreachable(e).unwrap_or_default())
            .ok()
    }

    fn fetch_at(&self, target: &Target, keys: Vec<Vec<u8>>) -> Result<Vec<Found>, Error> {
        let location = target.location();
        self.links(target)
            .call(location, |node| node.fetch_many(keys.clone()))
    }

    /// Writes pairs there, at most so many of the first as it answers for; nothing for
    /// those whose primary it is not.
    fn write_to<'a>(
        &self,
        target: &Target,
        pairs: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    ) -> Result<Vec<Option<Written>>, Error> {
        let location = target.location();
        let pair =
            |(key, value): (&[u8], Option<&[u8]>)| Pair::new(key.to_vec(), value.map(Vec::from), 0);
        let pairs = || pairs.clone().map(pair).collect();
        let links = self.links(target);
        let written = match target {
            Target::Primary(primary) => {
                links.call(location, |node| node.coordinate(pairs(), primary.started))
            }
            Target::Any(_) => links.call(location, |node| node.write_many(pairs())),
        };
        let is_done = |written: &Written| written.version != Some(NOT_PRIMARY);
        let answers = written?.into_iter();
        Ok(answers.map(|one| Some(one).filter(is_done)).collect())
    }

    /// Where the call for a key goes.
    fn target(&self, key: Key<'_>, purpose: Purpose) -> Target {
        let members = self.members();
        members.target(members.aim(key, purpose, &self.avoided()))
    }

    /// Calls with all keys, then with those that got no answer, until all have one.
    /// `call` answers for the first keys of a batch, as many as it likes.
    fn until_all_are_done<T: Send + Clone>(
        &self,
        keys: &[Key<'_>],
        purpose: Purpose,
        weigh: impl Fn(usize) -> usize,
        call: impl Fn(&Batch) -> Result<Vec<Option<T>>, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut done: Vec<Option<T>> = vec![None; keys.len()];
        loop {
            let open = (0..keys.len()).filter(|place| done[*place].is_none());
            let batches = self.batches(keys, purpose, open, &weigh);
            let calls = side_by_side(&batches, SIDE_BY_SIDE, |batch| (batch, call(batch)));
            let mut failure = None;
            let mut went_on = false;
            for (batch, outcome) in calls {
                match outcome {
                    Ok(answers) => {
                        for (place, answer) in batch.places.iter().zip(answers) {
                            went_on |= answer.is_some();
                            done[*place] = answer;
                        }
                    }
                    // A node of the original may look like a member until others have met it.
                    Err(e) if e.is_unreachable() || e.is_unknown_method() => {
                        self.avoid(batch.target.location(), &e);
                        failure = Some(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            if done.iter().all(Option::is_some) {
                return Ok(done.into_iter().flatten().collect());
            }
            if Instant::now() > deadline {
                return Err(failure.unwrap_or_else(|| self.declined()));
            }
            if !went_on {
                thread::sleep(RETRY);
                self.known().stale_at = Instant::now();
            }
        }
    }

    /// Every primary that was asked said that it is not the one.
    fn declined(&self) -> Error {
        let asked = self.members().nodes[0].clone();
        let why = format!("no node took the call as its keys' primary for {DEADLINE:?}");
        Error::Answered(asked, why.into())
    }

    /// The keys at these places in batches, by where they go.
    fn batches(
        &self,
        keys: &[Key<'_>],
        purpose: Purpose,
        places: impl Iterator<Item = usize>,
        weigh: impl Fn(usize) -> usize,
    ) -> Vec<Batch> {
        let members = self.members();
        let avoided = self.avoided();
        let mut batches: Vec<Batch> = Vec::new();
        for place in places {
            let aim = members.aim(keys[place], purpose, &avoided);
            let bytes = weigh(place);
            let has_room = |batch: &&mut Batch| {
                batch.target.is(aim) && batch.places.len() < KEYS && batch.bytes + bytes <= MESSAGE
            };
            match batches.iter_mut().rev().find(has_room) {
                Some(batch) => {
                    batch.places.push(place);
                    batch.bytes += bytes;
                }
                None => batches.push(Batch {
                    target: members.target(aim),
                    places: vec![place],
                    bytes,
                }),
            }
        }
        batches
    }

    fn links(&self, target: &Target) -> &Links<Client> {
        match target {
            Target::Primary(_) => &self.primaries,
            Target::Any(_) => &self.any,
        }
    }

    /// The members, learned anew when it is time.
    fn members(&self) -> Arc<Members> {
        let (members, is_stale) = {
            let mut known = self.known();
            let now = Instant::now();
            let is_stale = now >= known.stale_at;
            if is_stale {
                // One thread learns; the others go on meanwhile with what is known.
                known.stale_at = now + FRESH;
            }
            (known.members.clone(), is_stale)
        };
        if !is_stale {
            return members;
        }
        let avoided = self.avoided();
        let mut nodes = members.nodes.iter();
        let learned = nodes.find(|node| {
            !avoided.contains(node)
                && self
                    .learn_from(node)
                    .inspect_err(|e| self.avoid(node, e))
                    .is_ok()
        });
        if learned.is_none() {
            debug!("nobody told the members anew");
        }
        self.known().members.clone()
    }

    fn learn_from(&self, node: &Location) -> Result<(), Error> {
        let roll = self.primaries.call(node, TStoreSyncClient::roll)?;
        let members = listed(roll.members);
        let readers = Some(listed(roll.readers)).filter(|readers| !readers.is_empty());
        let mut known = self.known();
        let mut nodes: Vec<Location> = members.iter().map(|peer| peer.location.clone()).collect();
        if let Some(named) = known.members.nodes.first().filter(|_| nodes.is_empty()) {
            nodes.push(named.clone());
        }
        nodes.sort();
        known.members = Arc::new(Members {
            view: View::new(members),
            readers: readers.map(View::new),
            nodes,
            mixed: roll.mixed.unwrap_or(false),
        });
        known.stale_at = Instant::now() + FRESH;
        Ok(())
    }

    fn avoid(&self, node: &Location, error: &Error) {
        debug!("{node} is avoided for a moment: {error}");
        let now = Instant::now();
        let mut known = self.known();
        known.avoided.retain(|_, until| *until > now);
        known.avoided.insert(node.clone(), now + AVOIDED);
        known.stale_at = now;
    }

    fn avoided(&self) -> Vec<Location> {
        let now = Instant::now();
        let known = self.known();
        let avoided = known.avoided.iter().filter(|(_, until)| **until > now);
        avoided.map(|(node, _)| node.clone()).collect()
    }

    /// What is known of the network; held for a moment, never during a call.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    /// Where a key's call goes: to its primary, or, if that is not to be called, to the
    /// first node that is.
    fn aim<'a>(&'a self, key: Key<'_>, purpose: Purpose, avoided: &[Location]) -> Aim<'a> {
        let is_callable = |node: &&Location| !avoided.contains(node);
        let primary = match purpose {
            Purpose::Read => self.reader(key),
            Purpose::Write => self.view.primary_location(key),
        };
        let primary = primary.filter(|_| !self.mixed);
        match primary.filter(is_callable) {
            Some(primary) => Aim::Primary(primary),
            None => Aim::Any(
                self.nodes
                    .iter()
                    .find(is_callable)
                    .unwrap_or(&self.nodes[0]),
            ),
        }
    }

    /// Where a key is read: at its primary in the view that is read by, if that is still
    /// a member, so that one that is gone is not called as long as keys move because of it.
    fn reader(&self, key: Key<'_>) -> Option<&Location> {
        let reader = self.readers.as_ref().and_then(|readers| {
            let location = readers.primary_location(key)?;
            let is_member = readers.member_at(location) == self.view.member_at(location);
            is_member.then_some(location)
        });
        reader.or_else(|| self.view.primary_location(key))
    }

    fn target(&self, aim: Aim<'_>) -> Target {
        match aim {
            Aim::Primary(at) => match self.view.member_at(at) {
                Some(primary) => Target::Primary(primary),
                None => Target::Any(at.clone()),
            },
            Aim::Any(node) => Target::Any(node.clone()),
        }
    }
}

impl Target {
    /// The primary, if that is where it goes.
    fn primary(self) -> Option<Peer> {
        match self {
            Target::Primary(peer) => Some(peer),
            Target::Any(_) => None,
        }
    }

    fn is(&self, aim: Aim<'_>) -> bool {
        match (self, aim) {
            (Target::Primary(peer), Aim::Primary(at)) => peer.location == *at,
            (Target::Any(node), Aim::Any(at)) => node == at,
            _ => false,
        }
    }

    fn location(&self) -> &Location {
        match self {
            Target::Primary(peer) => &peer.location,
            Target::Any(node) => node,
        }
    }
}

/// A longer message would end its connection, as if its node were gone.
fn check_lengths(key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    let length = value.map_or(0, <[u8]>::len);
    let checked = Limits::default().check(key.len(), length, 0, 0);
    checked.map_err(Error::Usage)
}

/// The processes of a list that a node tells.
fn listed(peers: Option<Vec<crate::diststore::Peer>>) -> Vec<Peer> {
    let peers = peers.unwrap_or_default().into_iter().take(MOST_LISTED);
    peers.filter_map(|peer| peer.try_into().ok()).collect()
}

fn length((key, value): &Assignment<'_>) -> usize {
    key.bytes.len() + value.map_or(0, <[u8]>::len)
}

fn length_of_waiting((_, key, value): &Waiting) -> usize {
    key.len() + value.as_ref().map_or(0, Vec::len)
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
