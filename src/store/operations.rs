//! `Store`: one node's store, and what its parts share: the table, the moves, the links.
//!
//! What it does for clients and for other nodes is in `reading`,
//! `writing` and `mover`.
//!
//! Locks, in the order in which they may be taken together: the *turns* of keys, held
//! by the primary of a write for as long as the write is under way (writes of one
//! key follow one another; that is what a primary is for) and taken in the order of
//! their numbers, then the *moves*, held to decide and never during a call, then
//! whatever the node and the table hold for a moment. A call that another node makes
//! here takes no turn but at a primary, and a primary calls only what takes none: so
//! nodes cannot wait for one another in a circle.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::asking::Asking;
use super::copies::Copies;
use super::limits::Limits;
use super::moves::{Moves, Rules, Standing};
use super::pace::Pace;
use super::table::{Key, Table, reckoned};
use super::versions::Entry;
use super::view::Peer;
use crate::diststore::{Refused, StoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::{Input, Output, Patience};
use crate::rpc::links::Links;

/// A client of another store.
pub type Client = StoreSyncClient<Input, Output>;

/// The longest that a call of a client is tried before it is refused: longer than
/// it takes to find out that a silent node is down.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// For what a peer answers from its own table.
pub(super) const PEER_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(1),
};

/// For what a primary answers when the other owners have answered it, whoever asks.
pub(crate) const PRIMARY_PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(3),
};

/// The pause before something is tried again, unless the moves go on before.
const RETRY: Duration = Duration::from_millis(10);

/// Turns that keys share: enough that writes of different keys rarely wait for one another.
pub(super) const TURNS: usize = 4096;

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
    pub(super) primaries: Links<Client>,
    pub(super) copies: Copies,
    pub(super) asking: Asking,
    pub(super) turns: Vec<Mutex<()>>,
    /// When a copy came last from a primary that has another view: what looks
    /// superfluous may soon be owned.
    pub(super) stray_at: Mutex<Option<Instant>>,
    /// How busy clients keep this node.
    pub(super) pace: Pace,
    /// Did who gave the last page say that clients keep it busy?
    pub(super) givers_are_busy: AtomicBool,
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
        let links = |patience| Links::new(node.caller().clone(), StoreSyncClient::new, patience);
        Store {
            peers: links(PEER_PATIENCE),
            primaries: links(PRIMARY_PATIENCE),
            copies: Copies::new(node.clone()),
            asking: Asking::new(node.clone()),
            node,
            table: Table::new(),
            limits,
            moves: Mutex::new(Standpoint {
                moves,
                generation,
                absences: 0,
            }),
            moved: Condvar::new(),
            turns: (0..TURNS).map(|_| Mutex::new(())).collect(),
            stray_at: Mutex::new(None),
            pace: Pace::default(),
            givers_are_busy: AtomicBool::new(false),
            received: AtomicU64::new(0),
            given: AtomicU64::new(0),
            page_pause: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            failed: Mutex::new(None),
        }
    }

    /// May all these entries be kept here together, as far as the limits go?
    ///
    /// # Errors
    /// The sentence that refuses one of them.
    pub(super) fn check_room<'a>(
        &self,
        entries: impl Iterator<Item = (Key<'a>, &'a Entry)> + Clone,
    ) -> Result<(), Refusal> {
        let used = self.table.bytes();
        let most: usize = entries
            .clone()
            .map(|(key, entry)| reckoned(key, entry))
            .sum();
        // What is held of a key already counts only where memory is short.
        let is_ample = used.saturating_add(most) <= self.limits.memory;
        let mut beside = 0;
        for (key, entry) in entries {
            let value = entry.value.as_ref().map_or(0, |value| value.len());
            let grows = if is_ample || entry.is_tombstone() {
                0
            } else {
                self.table.growth(key, entry)
            };
            self.limits
                .check(key.bytes.len(), value, grows, used + beside)?;
            beside += grows;
        }
        Ok(())
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
        self.copies.forget(down);
        self.asking.forget(down);
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

    pub(super) fn wait_until(&self, deadline: Instant) -> Result<(), ()> {
        if Instant::now() >= deadline || self.stopped.load(Relaxed) {
            return Err(());
        }
        self.wait(RETRY);
        Ok(())
    }
}

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
pub(super) fn reason(error: &Error) -> Refusal {
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
