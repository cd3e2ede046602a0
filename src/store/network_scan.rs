//! `NetworkScan`: reads all keys of a store, or something of each, while nodes join and leave.
//!
//! Each key is read at its primary. All members are asked for the same stripes of their tables,
//! and reply only while they are settled in the placement that is asked for. If one of them
//! refuses or fails, these stripes are discarded and read again when the network has settled.
//! So each key that exists during the whole scan is read exactly once.
//!
//! A key that is written during the scan may or may not be included. Keys that only legacy
//! nodes hold are not.
//!
//! Memory: a page of each node, or one stripe, which is a 256th of what is read.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use super::placement::{Key, NodeId, Placement};
use super::table::STRIPES;
use super::types::Client;
use super::wire::refused;
use crate::diststore::{self as wire, Phase, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::plural::counted;

/// How long a program waits until a chunk can be read.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause before the network is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// After this time [`Network::on_wait`] is called.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// Calls in flight at the same time.
const PARALLEL: usize = 8;

/// While clients keep a member busy, the scan sleeps this many times as long as a chunk took.
const SLEEP_PER_WORK: u32 = 15;

/// The most time that counts as the work of one chunk. A slower one was mostly waited for.
const MAX_WORK: Duration = Duration::from_millis(10);

/// Who scans: a client, or a node.
pub trait Network: Sync {
    /// The current placement, as far as it is known now.
    fn placement(&self) -> Placement;

    /// Calls a member. Blocks for some seconds at most.
    ///
    /// # Errors
    /// See [`Error`]; it names the member.
    fn call<T>(
        &self,
        member: &Location,
        body: impl Fn(&mut Client) -> thrift::Result<T>,
    ) -> Result<T, Error>;

    /// Called on the scanning thread when a chunk has been waited for longer than two seconds.
    fn on_wait(&self, why: &Error);
}

/// What one member has replied.
pub struct Part<T> {
    /// With the stripe of each item, ascending.
    pub items: Vec<(usize, T)>,
    /// Where the next page starts. None after the last one.
    pub next_page: Option<wire::Cursor>,
    /// Clients keep the member busy.
    pub is_busy: bool,
}

/// All items of some stripes, in no order.
pub struct Chunk<T> {
    /// What `read` has returned for them.
    pub items: Vec<T>,
    /// The number of stripes.
    pub stripes: usize,
}

/// A scan in progress.
pub struct NetworkScan<'a, N> {
    network: &'a N,
    /// In which the members were settled when they were asked last.
    placement: Option<Placement>,
    /// The first stripe that is not read yet.
    next: usize,
}

/// Why no chunk was read.
enum Failure {
    /// It may be read later.
    Retry(Error),
    /// Waiting does not help.
    Final(Error),
}

impl<'a, N: Network> NetworkScan<'a, N> {
    /// A scan of all stripes. Makes no call yet.
    pub fn new(network: &'a N) -> NetworkScan<'a, N> {
        let (placement, next) = (None, 0);
        NetworkScan {
            network,
            placement,
            next,
        }
    }

    /// Reads the next stripes at all members, or returns None after the last ones. `read` asks one
    /// member for a page in that placement. Waits until the network is settled.
    ///
    /// # Errors
    /// Not done at the deadline, and why; members do not know the method; keys may be on the
    /// other side of a split.
    pub fn next_chunk<T: Send>(
        &mut self,
        deadline: Instant,
        read: impl Fn(&mut Client, i64, &wire::Cursor) -> thrift::Result<Part<T>> + Sync,
    ) -> Result<Option<Chunk<T>>, Error> {
        let began = Instant::now();
        let mut has_told = false;
        while self.next < STRIPES {
            let why = match self.try_chunk(deadline, &read) {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Retry(e)) => e,
            };
            if Instant::now() >= deadline || why.is_unknown_method() {
                return Err(why);
            }
            debug!("reading the stripes from {} again: {why}", self.next);
            if began.elapsed() > TELL_AFTER && !has_told {
                self.network.on_wait(&why);
                has_told = true;
            }
            thread::sleep(RETRY);
        }
        Ok(None)
    }

    /// Reads the stripes from `next` on: at least one, and as many as each of the members has
    /// returned completely.
    fn try_chunk<T: Send>(
        &mut self,
        deadline: Instant,
        read: &(impl Fn(&mut Client, i64, &wire::Cursor) -> thrift::Result<Part<T>> + Sync),
    ) -> Result<Chunk<T>, Failure> {
        let placement = match self.placement.take() {
            Some(placement) => placement,
            None => settled_placement(self.network)?,
        };
        let began = Instant::now();
        if began >= deadline {
            let why = failure(&placement, "not all keys could be read in time");
            return Err(Failure::Final(why));
        }
        let (first, id) = (self.next, placement.id() as i64);
        let parts = at_all(&placement, |member| {
            let read = |node: &mut Client, cursor: &wire::Cursor| read(node, id, cursor);
            read_part(self.network, member, first, read)
        })?;
        let end = |part: &Part<T>| part.next_page.as_ref().map_or(STRIPES, stripe);
        let (end, is_busy) = (
            parts.iter().map(end).min().unwrap_or(first),
            parts.iter().any(|part| part.is_busy),
        );
        let items = parts.into_iter().flat_map(|part| part.items);
        let items = items.filter(|(stripe, _)| *stripe < end);
        let items = items.map(|(_, item)| item).collect();
        self.next = end;
        self.placement = Some(placement);
        if is_busy && end < STRIPES {
            thread::sleep(began.elapsed().min(MAX_WORK) * SLEEP_PER_WORK);
        }
        let stripes = end - first;
        Ok(Chunk { items, stripes })
    }
}

/// Pages of one member from the stripe `first` on, until that one is complete.
fn read_part<T>(
    network: &impl Network,
    member: &Location,
    first: usize,
    read: impl Fn(&mut Client, &wire::Cursor) -> thrift::Result<Part<T>>,
) -> Result<Part<T>, Error> {
    let mut items = Vec::new();
    let mut cursor = wire::Cursor::new(first as i32, None);
    loop {
        let mut part = network.call(member, |node| read(node, &cursor))?;
        items.append(&mut part.items);
        match &part.next_page {
            Some(next) if stripe(next) == first && last_key(next) > last_key(&cursor) => {
                cursor = next.clone();
            }
            Some(next) if !(first + 1..=STRIPES).contains(&stripe(next)) => {
                let reason = "the next page does not start after this one";
                return Err(Error::Remote(member.clone(), reason.into()));
            }
            _ => return Ok(Part { items, ..part }),
        }
    }
}

/// The stripe at which a page starts.
fn stripe(cursor: &wire::Cursor) -> usize {
    let stripe = cursor.stripe.and_then(|stripe| stripe.try_into().ok());
    stripe.unwrap_or(usize::MAX)
}

/// The key after which a page starts.
fn last_key(cursor: &wire::Cursor) -> Option<Key<'_>> {
    cursor.after.as_deref().map(Key::new)
}

/// The placement in which all members are settled.
fn settled_placement(network: &impl Network) -> Result<Placement, Failure> {
    let placement = network.placement();
    let silent = at_all(&placement, |member| {
        let stats = network.call(member, |node| node.stats(false))?;
        let is_settled = stats.placement_id == Some(placement.id() as i64)
            && stats.phase == Some(Phase::SETTLED)
            && stats.serving == Some(true);
        if !is_settled {
            let reason = "it is not settled: keys are moving, or it does not serve";
            return Err(Error::Remote(member.clone(), reason.into()));
        }
        let silent = stats.silent.map_or(0, |silent| silent.len());
        let hides_keys = stats
            .replicas
            .is_some_and(|copies| silent >= copies as usize);
        Ok(if hides_keys { silent } else { 0 })
    })?;
    match silent.into_iter().max() {
        None => Err(Failure::Retry(failure(
            &placement,
            "no member of the store is known",
        ))),
        Some(0) => Ok(placement),
        Some(silent) => {
            let reason = format!(
                "keys may be on the other side of a split, at {} out of reach (see storestatus)",
                counted(silent, "member")
            );
            Err(Failure::Final(failure(&placement, &reason)))
        }
    }
}

/// The results of all members, or the failure of one.
fn at_all<T: Send>(
    placement: &Placement,
    call: impl Fn(&Location) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Failure> {
    let members: Vec<&NodeId> = placement.members().collect();
    let results = parallel_map(&members, PARALLEL, |member| call(&member.location));
    let results: Result<Vec<T>, Error> = results.into_iter().collect();
    match results {
        // A thread has panicked.
        Ok(some) if some.len() < members.len() => Err(Failure::Retry(failure(
            placement,
            "not all members were asked",
        ))),
        results => results.map_err(Failure::Retry),
    }
}

/// A failure of the network, in the name of one of its members.
fn failure(placement: &Placement, reason: &str) -> Error {
    match placement.members().next() {
        Some(member) => Error::Remote(member.location.clone(), refused(reason)),
        None => Error::NoPeer(reason.into()),
    }
}
