//! `Store`: reading and writing keys, over the network where it must be.
//!
//! Locks, in the order in which they may be taken together: a key's *turn*, held
//! by the primary of a write for as long as the write is under way (writes of one
//! key follow one another; that is what a primary is for), then the *moves*, held
//! to decide and never during a call, then whatever the node and the table hold
//! for a moment. A call that another node makes here takes no turn but at a
//! primary, and a primary calls only what takes none: so nodes cannot wait for
//! one another in a circle.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::debug;

use super::limits::Limits;
use super::moves::{Authority, Moves, Rules, Standing, Write};
use super::table::{Key, Table};
use super::versions::Entry;
use super::view::Peer;
use super::wire::{pair, read_found};
use crate::diststore::{Refused, StoreSyncClient, TStoreSyncClient, Written};
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::{Input, Links, Output, Patience};

/// A client of another store.
pub type Client = StoreSyncClient<Input, Output>;

/// The longest that a call of a client is tried before it is refused: longer than
/// it takes to find out that a silent node is down.
const PATIENCE: Duration = Duration::from_secs(10);

/// For what a peer answers from its own table.
pub(super) const PEER_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(1),
};

/// For what a primary answers when the other owners have answered it.
const PRIMARY_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(3),
};

/// The pause before something is tried again, unless the moves go on before.
const RETRY: Duration = Duration::from_millis(10);

/// Turns that keys share: enough that writes of different keys rarely wait for one another.
const TURNS: usize = 4096;

/// Why a call was refused, for a person to read.
pub type Refusal = String;

/// One node's store: its table, its part in the moves, its links to others.
pub struct Store {
    pub(super) node: Node,
    pub(super) table: Table,
    pub(super) limits: Limits,
    /// The moves, and which state of the membership they stand on.
    moves: Mutex<Standpoint>,
    /// Notified whenever the moves may have gone on.
    moved: Condvar,
    pub(super) peers: Links<Client>,
    primaries: Links<Client>,
    turns: Vec<Mutex<()>>,
    /// When a copy came last from a primary that has another view: what looks
    /// superfluous may soon be owned.
    stray_at: Mutex<Option<Instant>>,
    /// Keys copied here in the last move, and from here.
    pub(super) received: AtomicU64,
    pub(super) given: AtomicU64,
    /// Milliseconds that this node waits before each page that it copies: for tests,
    /// which want to look at the middle of a move.
    pub(super) page_pause: AtomicU64,
    pub(super) stopped: AtomicBool,
    /// Why the store had to end, if it could not go on.
    pub(super) failed: Mutex<Option<Error>>,
}

struct Standpoint {
    moves: Moves,
    generation: u64,
    /// The absences of the node that the moves know of.
    absences: u64,
}

impl Store {
    /// A store without keys on `node`; `replicas` is how many copies it insists on.
    pub fn new(node: Node, replicas: Option<usize>, limits: Limits) -> Store {
        let generation = node.generation();
        let me = Peer::new(node.location().clone(), node.roll().started);
        let moves = Moves::new(me, replicas, Rules::default());
        Store {
            node,
            table: Table::new(),
            limits,
            moves: Mutex::new(Standpoint {
                moves,
                generation,
                absences: 0,
            }),
            moved: Condvar::new(),
            peers: Links::new(StoreSyncClient::new, PEER_PATIENCE),
            primaries: Links::new(StoreSyncClient::new, PRIMARY_PATIENCE),
            turns: (0..TURNS).map(|_| Mutex::new(())).collect(),
            stray_at: Mutex::new(None),
            received: AtomicU64::new(0),
            given: AtomicU64::new(0),
            page_pause: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            failed: Mutex::new(None),
        }
    }

    /// What is held for `key` in the network: the newest entry that was
    /// acknowledged, or a newer one. May block for ten seconds.
    ///
    /// # Errors
    /// No owner could be asked in that time.
    pub fn fetch(&self, key: &[u8]) -> Result<Option<Entry>, Refusal> {
        if let Some(entry) = self.fetch_from_original(key) {
            return Ok(Some(entry));
        }
        let found = self.newest(Key::new(key), Instant::now() + PATIENCE)?;
        if found.as_ref().is_some_and(|entry| !entry.is_tombstone()) {
            debug!("found {}", String::from_utf8_lossy(key));
        }
        Ok(found)
    }

    /// Writes `value`, or, without one, the mark of a deletion, and returns when it
    /// is in place on all owners of the key. May block for ten seconds.
    ///
    /// # Errors
    /// The key or the value is too long, an owner has no room, or no primary could
    /// be found in that time. The write may have taken effect on some owners.
    pub fn write(&self, key: &[u8], value: Option<Arc<[u8]>>) -> Result<Written, Refusal> {
        self.limits.check(
            key.len(),
            value.as_ref().map_or(0, |value| value.len()),
            0,
            0,
        )?;
        self.put_through_to_original(key, value.as_deref().unwrap_or_default());
        let deadline = Instant::now() + PATIENCE;
        let at = Key::new(key);
        loop {
            let primary = self.moves().primary(at);
            let written = match primary {
                Some(primary) if primary.location == *self.node.location() => {
                    self.coordinate(&primary, key, value.clone(), deadline)?
                }
                Some(primary) => self.forward(&primary, key, value.clone())?,
                None => None,
            };
            if let Some(written) = written {
                return Ok(written);
            }
            self.wait_until(deadline).map_err(
                |()| "the primary and all owners of the key could not be reached in time",
            )?;
        }
    }

    /// Writes as `primary`; nothing comes of it if this node is not (yet, or any more)
    /// that, or could not reach all owners by the deadline. May block.
    ///
    /// A request may have waited while this process was stopped and taken for dead.
    /// Whoever sent it has long turned to another primary, and an old value must not
    /// come back with a new version: so the process that was meant is named.
    pub(super) fn coordinate(
        &self,
        primary: &Peer,
        key: &[u8],
        value: Option<Arc<[u8]>>,
        deadline: Instant,
    ) -> Result<Option<Written>, Refusal> {
        let at = Key::new(key);
        let _turn = self.turn(at);
        if Instant::now() >= deadline {
            // Whoever asked has given up, and may have written something newer since.
            return Ok(None);
        }
        // The time of the write is when this node was known to be the primary: one that
        // is stopped here, and given up, must not come back with a larger version.
        let now = unix_millis();
        let begun = {
            let mut moves = self.moves();
            let is_meant = moves.me() == primary;
            is_meant.then(|| moves.begin_write(at)).flatten()
        };
        let Some(mut write) = begun else {
            return Ok(None);
        };
        let outcome = self.carry_out(&mut write, at, value, now, deadline);
        let acknowledged = self.moves().end_write(write);
        Ok(outcome?.filter(|_| acknowledged))
    }

    /// `write` as its primary, or not if it deletes what is not there.
    fn carry_out(
        &self,
        write: &mut Write,
        key: Key<'_>,
        value: Option<Arc<[u8]>>,
        now: i64,
        deadline: Instant,
    ) -> Result<Option<Written>, Refusal> {
        let newest = self.newest(key, deadline)?;
        let existed = newest.as_ref().is_some_and(|entry| !entry.is_tombstone());
        let newest = newest.map_or(0, |entry| entry.version);
        if value.is_none() && !existed {
            return Ok(Some(Written::new(newest, false)));
        }
        let own = self.table.read(key).map_or(0, |entry| entry.version);
        let version = self.moves().version(now, newest.max(own));
        let entry = Entry { version, value };
        let spread = self
            .check_room(key, &entry)
            .and_then(|()| self.spread(write, key, &entry, deadline));
        if spread != Ok(true) {
            self.moves().abandon(version);
            return spread.map(|_| None);
        }
        self.table.apply(key, entry);
        Ok(Some(Written::new(version, existed)))
    }

    /// Brings the entry to every owner in every view but this node; were all reached
    /// by the deadline?
    fn spread(
        &self,
        write: &mut Write,
        key: Key<'_>,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<bool, Refusal> {
        loop {
            let (targets, view) = {
                let moves = self.moves();
                (moves.targets(write, key), moves.current().id())
            };
            if targets.is_empty() {
                return Ok(true);
            }
            let mut all_reached = true;
            for peer in targets {
                if self.replicate_to(&peer, key, entry, view)? {
                    write.reached(peer);
                } else {
                    all_reached = false;
                }
            }
            if !all_reached && self.wait_until(deadline).is_err() {
                return Ok(false);
            }
        }
    }

    /// Sends a copy; true when the peer has it and what it knows is known here too,
    /// or when the peer is found down.
    fn replicate_to(
        &self,
        peer: &Peer,
        key: Key<'_>,
        entry: &Entry,
        view: u64,
    ) -> Result<bool, Refusal> {
        let send =
            |client: &mut Client| client.replicate(pair(key.bytes.to_vec(), entry), view as i64);
        match self.peers.call(&peer.location, send) {
            Ok(theirs) if self.moves().knows(theirs as u64) => Ok(true),
            Ok(_) => Ok(self.node.contact(&peer.location).is_ok()),
            Err(e) if e.is_unreachable() => {
                self.node.unreachable(&peer.location, &e);
                Ok(self.node.is_down(&peer.location))
            }
            Err(e) => Err(reason(&e)),
        }
    }

    /// Asks another node to write as the primary; nothing if it is not that, or is not there.
    fn forward(
        &self,
        primary: &Peer,
        key: &[u8],
        value: Option<Arc<[u8]>>,
    ) -> Result<Option<Written>, Refusal> {
        let entry = Entry { version: 0, value };
        let send =
            |client: &mut Client| client.coordinate(pair(key.to_vec(), &entry), primary.started);
        match self.primaries.call(&primary.location, send) {
            Ok(written) => Ok(Some(written).filter(|written| written.version != Some(NOT_PRIMARY))),
            Err(e) if e.is_unreachable() => {
                self.node.unreachable(&primary.location, &e);
                Ok(None)
            }
            Err(e) => Err(reason(&e)),
        }
    }

    /// The newest entry that was acknowledged, or a newer one, from whoever is read.
    fn newest(&self, key: Key<'_>, deadline: Instant) -> Result<Option<Entry>, Refusal> {
        loop {
            let authority = self.moves().authority(key);
            let found = match &authority {
                Authority::Me => self.own(key, || self.moves().authority(key) == Authority::Me),
                Authority::Others(view, owners) => self.ask(*view, owners, key),
                Authority::Nobody => None,
            };
            if let Some(found) = found {
                return Ok(found);
            }
            self.wait_until(deadline)
                .map_err(|()| "no owner of the key could be asked in time")?;
        }
    }

    /// Asks owners in turn; what the first that answers holds.
    fn ask(&self, view: u64, owners: &[Peer], key: Key<'_>) -> Option<Option<Entry>> {
        owners.iter().find_map(|owner| {
            if owner.location == *self.node.location() {
                return self.answer_at(view, key);
            }
            let read = |client: &mut Client| client.fetch_at(key.bytes.to_vec(), view as i64);
            match self.peers.call(&owner.location, read) {
                Ok(found) => Some(read_found(found)),
                Err(e) => {
                    debug!("{e}");
                    if e.is_unreachable() {
                        self.node.unreachable(&owner.location, &e);
                    }
                    None
                }
            }
        })
    }

    /// What this node holds as an owner in that view; nothing if it may not say.
    pub(super) fn answer_at(&self, view: u64, key: Key<'_>) -> Option<Option<Entry>> {
        let may = || self.moves().may_answer(view);
        if !may() {
            return None;
        }
        self.own(key, may)
    }

    /// What the table holds. A key that is not there may have been dropped while it was
    /// looked for: then `entitled` is not true any more.
    fn own(&self, key: Key<'_>, entitled: impl Fn() -> bool) -> Option<Option<Entry>> {
        let entry = self.table.read(key);
        (entry.is_some() || entitled()).then_some(entry)
    }

    /// Keeps a copy that a primary sends; the current view here.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn keep(&self, key: &[u8], entry: Entry, view: u64) -> Result<u64, Refusal> {
        self.check_room(Key::new(key), &entry)?;
        let moves = self.moves();
        if moves.current().id() != view {
            // Marked while the moves are held, as they are while a stripe is swept:
            // either that is over before the copy is here, or it sees the mark.
            *self.stray_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        drop(moves);
        self.table.apply(Key::new(key), entry);
        Ok(self.moves().current().id())
    }

    /// May this entry be kept here, as far as the limits go?
    fn check_room(&self, key: Key<'_>, entry: &Entry) -> Result<(), Refusal> {
        let value = entry.value.as_ref().map_or(0, |value| value.len());
        let grows = if entry.is_tombstone() {
            0
        } else {
            self.table.growth(key, entry)
        };
        self.limits
            .check(key.bytes.len(), value, grows, self.table.bytes())
    }

    /// Has no primary with another view sent anything for so long?
    pub(super) fn is_undisturbed(&self, time: Duration) -> bool {
        let stray_at = self.stray_at.lock().unwrap_or_else(PoisonError::into_inner);
        stray_at.is_none_or(|at| at.elapsed() > time)
    }

    /// The moves, brought up to what membership knows: guards all that decides
    /// where keys are read and written. Never held across a call.
    pub(super) fn moves(&self) -> MovesGuard<'_> {
        let mut guard = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let before = guard.moves.changes();
        // In this order: a node that is in touch again has counted its absence before.
        let in_touch = self.node.is_in_touch();
        let absences = self.node.absences();
        if guard.absences != absences || !in_touch {
            guard.absences = absences;
            guard.moves.lose_touch();
        }
        let generation = self.node.generation();
        if guard.generation != generation {
            guard.generation = generation;
            guard.moves.stand(standing(&self.node));
        }
        MovesGuard {
            guard,
            before,
            moved: &self.moved,
        }
    }

    /// Closes the connections to a node that is down, or has left and ended. Calls
    /// under way break off: they would only be waited for.
    pub(super) fn give_up(&self, down: &Location) {
        self.peers.forget(down);
        self.primaries.forget(down);
    }

    /// Waits until the moves have gone on from where they were at `changes`, for
    /// `time` at most.
    pub(super) fn wait_since(&self, changes: u64, time: Duration) {
        let mut guard = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + time;
        while guard.moves.changes() == changes && !self.stopped.load(Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self
                .moved
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Ends the store's own threads, and every wait.
    pub(super) fn stop(&self) {
        let guard = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Relaxed);
        self.moved.notify_all();
        drop(guard);
    }

    /// Waits until the moves go on, for `time` at most.
    pub(super) fn wait(&self, time: Duration) {
        let changes = self.moves().changes();
        self.wait_since(changes, time);
    }

    fn wait_until(&self, deadline: Instant) -> Result<(), ()> {
        if Instant::now() >= deadline || self.stopped.load(Relaxed) {
            return Err(());
        }
        self.wait(RETRY);
        Ok(())
    }

    /// A key's turn to be written; keys share turns.
    fn turn(&self, key: Key<'_>) -> MutexGuard<'_, ()> {
        let turn = &self.turns[key.point as usize % TURNS];
        turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that says "I am not the primary of this key".
pub(super) const NOT_PRIMARY: i64 = -1;

/// The moves while they are looked at; wakes who waits for them if they have gone on.
pub(super) struct MovesGuard<'a> {
    guard: MutexGuard<'a, Standpoint>,
    before: u64,
    moved: &'a Condvar,
}

impl Deref for MovesGuard<'_> {
    type Target = Moves;

    fn deref(&self) -> &Moves {
        &self.guard.moves
    }
}

impl DerefMut for MovesGuard<'_> {
    fn deref_mut(&mut self) -> &mut Moves {
        &mut self.guard.moves
    }
}

impl Drop for MovesGuard<'_> {
    fn drop(&mut self) {
        if self.guard.moves.changes() != self.before {
            self.moved.notify_all();
        }
    }
}

/// Who holds keys, by what membership knows.
fn standing(node: &Node) -> Standing {
    let roll = node.roll();
    let peer = |(location, started)| Peer::new(location, started);
    Standing {
        me: Peer::new(node.location().clone(), roll.started),
        live: roll.live.into_iter().map(peer).collect(),
        leaving: roll.leaving.into_iter().map(peer).collect(),
    }
}

/// Why a peer refused, in its own words.
fn reason(error: &Error) -> Refusal {
    match error {
        Error::Answered(_, thrift::Error::User(thrown)) => match thrown.downcast_ref::<Refused>() {
            Some(refused) => refused.reason.clone().unwrap_or_default(),
            None => thrown.to_string(),
        },
        other => other.to_string(),
    }
}

pub(super) fn unix_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as i64
}
