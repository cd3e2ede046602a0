//! `Network`: calls to nodes that come, go and fail, as one client makes them.
//!
//! The members are learned anew every second, and whenever a call shows that something has
//! changed, by one of the threads that call; the others go on with what is known. A
//! node that could not be reached is not called for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use crate::client::members::{Batch, Members, Purpose, Target};
use crate::diststore::{Found, Pair, StoreSyncClient, TStoreSyncClient, Written};
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::{Caller, Patience};
use crate::rpc::lanes::{Item, Load};
use crate::rpc::links::Links;
use crate::side_by_side::side_by_side;
use crate::store::operations::{Client, PRIMARY_PATIENCE};
use crate::store::table::Key;
use crate::store::view::Peer;
use crate::store::writing::NOT_PRIMARY;

/// The longest that a call is tried before it fails.
const DEADLINE: Duration = Duration::from_secs(15);

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

/// Messages under way at the same time for one call.
const SIDE_BY_SIDE: usize = 8;

/// An assignment that waits for others to the same process.
pub struct Waiting {
    /// When the process that is its key's primary became a member.
    pub started: i64,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

impl Item for Waiting {
    fn weight(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    fn goes_with(&self, other: &Waiting) -> bool {
        self.started == other.started
    }
}

/// A key that waits to be read with others at its primary.
pub struct Wanted(pub Vec<u8>);

impl Item for Wanted {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

/// The nodes, what is known of them, and the connections to them.
pub struct Network {
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

impl Network {
    /// The network of `peer`, whose members are learned from it.
    ///
    /// # Errors
    /// The peer cannot be called, or is no store of this kind.
    pub fn of(caller: Caller, peer: &Location) -> Result<Network, Error> {
        let network = Network {
            primaries: Links::new(caller.clone(), StoreSyncClient::new, PRIMARY_PATIENCE),
            any: Links::new(caller, StoreSyncClient::new, ANY_PATIENCE),
            known: Mutex::new(Known {
                members: Arc::new(Members::nobody_but(peer.clone())),
                stale_at: Instant::now(),
                avoided: HashMap::new(),
            }),
        };
        network.learn_from(peer)?;
        Ok(network)
    }

    /// Makes the calls of `body` to one node, over a kept connection.
    ///
    /// # Errors
    /// See [`Error`]; it names the node.
    pub fn call<T>(
        &self,
        node: &Location,
        body: impl Fn(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.primaries.call(node, body)
    }

    /// Reads keys at their primary, the first of them, as many as it answers for.
    pub fn read_at(&self, load: &Load<Wanted>) -> Vec<Found> {
        let keys = || load.items.iter().map(|Wanted(key)| key.clone()).collect();
        let read = |node: &mut Client| node.fetch_many(keys());
        let found = self.primaries.call(&load.to, read);
        self.noted(&load.to, found).unwrap_or_default()
    }

    /// Writes pairs at their primary; nothing for those that were not written, or may not
    /// have been.
    pub fn write_at(&self, load: &Load<Waiting>) -> Vec<Option<Written>> {
        let started = load.items.first().map_or(0, |pair| pair.started);
        let target = Target::Primary(Peer::new(load.to.clone(), started));
        let pairs = load.items.iter();
        let written = self.write_to(
            &target,
            pairs.map(|pair| (&pair.key[..], pair.value.as_deref())),
        );
        self.noted(&load.to, written).unwrap_or_default()
    }

    /// The outcome of a call to a node, which is avoided from here on if it was not reached.
    fn noted<T>(&self, node: &Location, outcome: Result<T, Error>) -> Option<T> {
        if let Err(e) = &outcome
            && e.is_unreachable()
        {
            self.avoid(node, e);
        }
        outcome.ok()
    }

    /// Reads keys where they are meant to be read.
    ///
    /// # Errors
    /// The node refuses, or cannot be reached.
    pub fn fetch_at(&self, target: &Target, keys: Vec<Vec<u8>>) -> Result<Vec<Found>, Error> {
        let location = target.location();
        self.links(target)
            .call(location, |node| node.fetch_many(keys.clone()))
    }

    /// Writes pairs there, at most so many of the first as it answers for; nothing for
    /// those whose primary it is not.
    ///
    /// # Errors
    /// The node refuses, or cannot be reached: any of the pairs may have been written.
    pub fn write_to<'a>(
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
    pub fn target(&self, key: Key<'_>, purpose: Purpose) -> Target {
        self.members().target(key, purpose, &self.avoided())
    }

    /// Calls with all keys, then with those that got no answer, until all have one.
    /// `call` answers for the first keys of a batch, as many as it likes.
    ///
    /// # Errors
    /// A node refuses, or for fifteen seconds none could be reached that takes the keys.
    pub fn until_all_are_done<T: Send + Clone>(
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
            let members = self.members();
            let batches = members.batches(keys, purpose, open, &weigh, &self.avoided());
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
        let asked = self.members().nodes()[0].clone();
        let why = format!("no node took the call as its keys' primary for {DEADLINE:?}");
        Error::Answered(asked, why.into())
    }

    fn links(&self, target: &Target) -> &Links<Client> {
        match target {
            Target::Primary(_) => &self.primaries,
            Target::Any(_) => &self.any,
        }
    }

    /// The members, learned anew if a node tells them.
    pub fn learn(&self) -> Arc<Members> {
        self.known().stale_at = Instant::now();
        self.members()
    }

    /// The members, learned anew when it is time.
    pub fn members(&self) -> Arc<Members> {
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
        let mut nodes = members.nodes().iter();
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
        let before = self.known().members.clone();
        let members = Arc::new(Members::told(roll, &before));
        let mut known = self.known();
        known.members = members;
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
