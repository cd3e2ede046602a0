//! The mover: the two threads of a store that bring it from one view to the next.
//!
//! The **teller** says at once to all others how far this node is, whenever that
//! changes, and asks now and then as long as not everything is settled. The
//! **puller** copies what this node owns, from all sources side by side, and when
//! all is settled drops what it does not own.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::moves::{History, Phase, Word};
use super::operations::{Store, put_to_original, unix_millis};
use super::table::{Key, Page, STRIPES};
use super::view::Peer;
use crate::diststore::TStoreSyncClient;
use crate::location::Location;
use crate::side_by_side::side_by_side;

/// While something moves, others are asked so often how far they are, lest a word was lost.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// At rest there is nothing to ask; the moves wake whoever waits for them.
const REST: Duration = Duration::from_secs(2);

/// The pause before a source that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// Peers that are called at the same time.
const SIDE_BY_SIDE: usize = 8;

/// Nothing is dropped for so long after a copy came from a primary that has
/// another view: the view may make this node its owner.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// How often the table is swept at rest, of late copies and old tombstones.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a tombstone is kept, in milliseconds: longer than a node is likely to
/// be thought dead and come back with what it held. One hour.
const TOMBSTONES_KEPT: i64 = 3_600_000;

/// What makes others worth telling: the view, how far this node is, whether it is enrolled.
type Told = (u64, Phase, bool);

impl Store {
    /// The teller's thread, until the store stops.
    pub(super) fn tell_others(&self) {
        let mut told: Option<Told> = None;
        let mut asked_at = Instant::now();
        while !self.stopped.load(Relaxed) {
            let (state, at_rest, changes) = {
                let moves = self.moves();
                let state = (moves.current().id(), moves.phase(), moves.is_serving());
                (
                    state,
                    moves.is_settled() && moves.is_serving(),
                    moves.changes(),
                )
            };
            let changed = told != Some(state);
            if changed || (!at_rest && asked_at.elapsed() >= ASK_EVERY) {
                told = Some(state);
                asked_at = Instant::now();
                self.tell_all();
            } else {
                self.wait_since(changes, if at_rest { REST } else { ASK_EVERY });
            }
        }
    }

    /// Tells every other node how far this one is, and hears how far they are.
    fn tell_all(&self) {
        let others = self.moves().others();
        side_by_side(&others, SIDE_BY_SIDE, |peer| self.tell(peer));
    }

    fn tell(&self, peer: &Peer) {
        let (word, wants, asked) = {
            let moves = self.moves();
            (moves.word(peer), moves.wants_history(), moves.asking())
        };
        let told = self
            .peers
            .call(&peer.location, |client| client.tell((&word).into(), wants));
        let heard = told.map_err(|e| {
            if e.is_unreachable() {
                self.node.unreachable(&peer.location, &e);
                self.moves().end(peer);
            }
            e.to_string()
        });
        let heard = heard.and_then(|told| {
            let word = Word::try_from(told.word.unwrap_or_default())?;
            Ok((word, told.history.map(History::try_from).transpose()?))
        });
        match heard {
            Ok((word, history)) => {
                if !self.moves().knows(word.view) {
                    // Its view is news of the membership: have that before the word.
                    let contact = self.node.contact(&peer.location);
                    debug!(
                        "{} has another view: contact {:?}",
                        peer.location,
                        contact.is_ok()
                    );
                }
                self.hear(Some(asked), word, history);
            }
            Err(e) => debug!("told {} in vain: {e}", peer.location),
        }
    }

    /// Takes in what another node says, asked or not.
    pub(super) fn hear(&self, asked: Option<u64>, word: Word, history: Option<History>) {
        if self.insists_on_other_copies(&word) {
            return;
        }
        self.moves().hear(asked, word, history);
    }

    /// Ends a node that insists on another number of copies than its network keeps.
    fn insists_on_other_copies(&self, word: &Word) -> bool {
        let moves = self.moves();
        match (moves.replicas(), word.replicas) {
            (Some(ours), Some(theirs))
                if word.enrolled && ours != theirs && moves.wants_history() =>
            {
                drop(moves);
                self.fail(format!(
                    "the network of {} keeps {theirs} copies of each key, not {ours}: start with --replicas {theirs}, or without the option",
                    word.from.location
                ));
                true
            }
            _ => false,
        }
    }

    /// The puller's thread, until the store stops.
    pub(super) fn pull_and_sweep(&self) {
        let mut swept: Option<(u64, Instant)> = None;
        let mut greeted = Vec::new();
        while !self.stopped.load(Relaxed) {
            let (pulls, settled, view, changes) = {
                let moves = self.moves();
                (
                    moves.pulls(),
                    moves.is_settled(),
                    moves.current().id(),
                    moves.changes(),
                )
            };
            let due = swept.is_none_or(|(at, when)| at != view || when.elapsed() > SWEEP_EVERY);
            if !pulls.is_empty() {
                let sources: Vec<Peer> = pulls.into_iter().map(|(peer, _)| peer).collect();
                self.pull_from(&sources);
            } else if settled && due && self.is_undisturbed(UNDISTURBED) {
                self.sweep();
                swept = Some((view, Instant::now()));
            } else {
                self.greet_originals(&mut greeted);
                self.wait_since(changes, if settled { REST } else { ASK_EVERY });
            }
        }
    }

    /// Copies from each source until it has given all, or is not ready.
    fn pull_from(&self, sources: &[Peer]) {
        side_by_side(
            sources,
            SIDE_BY_SIDE,
            |source| while self.pull_page(source) {},
        );
    }

    /// Copies one page; is there another to copy now?
    fn pull_page(&self, source: &Peer) -> bool {
        let (attempt, pull) = {
            let moves = self.moves();
            let pull = moves.pulls().into_iter().find(|(peer, _)| peer == source);
            (moves.attempt(), pull)
        };
        let Some((_, pull)) = pull.filter(|_| !self.stopped.load(Relaxed)) else {
            return false;
        };
        thread::sleep(Duration::from_millis(self.page_pause.load(Relaxed)));
        let page = self
            .peers
            .call(&source.location, |client| client.pull((&pull).into()));
        let page = page.map_err(|e| {
            if e.is_unreachable() {
                self.node.unreachable(&source.location, &e);
                self.moves().end(source);
            }
            e.to_string()
        });
        match page.and_then(Page::try_from) {
            Ok(page) => {
                self.take_in(&page);
                self.moves().pulled(attempt, source, page.next);
                true
            }
            Err(e) => {
                debug!("{} gives nothing yet: {e}", source.location);
                self.wait(RETRY);
                false
            }
        }
    }

    fn take_in(&self, page: &Page) {
        for (key, entry) in &page.entries {
            debug!("received {}", String::from_utf8_lossy(key));
            self.table.apply(Key::new(key), entry.clone());
        }
        self.received.fetch_add(page.entries.len() as u64, Relaxed);
    }

    /// Drops what this node does not own, and tombstones that nobody needs any more.
    fn sweep(&self) {
        let (current, me, replicas) = {
            let moves = self.moves();
            (
                moves.current().clone(),
                moves.me().clone(),
                moves.replicas(),
            )
        };
        let Some(replicas) = replicas.filter(|_| current.contains(&me)) else {
            return;
        };
        let old = unix_millis() - TOMBSTONES_KEPT;
        let mut dropped = 0;
        for stripe in 0..STRIPES {
            let moves = self.moves();
            let still = moves.is_settled() && moves.current().id() == current.id();
            if !still || !self.is_undisturbed(UNDISTURBED) {
                return;
            }
            // The moves stay as they are while a stripe is swept: nobody may come to
            // own what is being dropped.
            dropped += self.table.sweep(stripe, |key, entry| {
                let forgotten = entry.is_tombstone() && entry.written_at() < old;
                let kept = !forgotten && current.owns(&me, key, replicas);
                if !kept {
                    debug!("dropped {}", String::from_utf8_lossy(key.bytes));
                }
                kept
            });
        }
        let received = self.received.swap(0, Relaxed);
        if received > 0 {
            info!("received {received} keys");
        }
        if dropped > 0 {
            info!("dropped {dropped} keys");
        }
    }

    /// Puts to nodes of the original that came what belongs to them on the ring.
    fn greet_originals(&self, greeted: &mut Vec<Location>) {
        let originals = self.node.originals();
        greeted.retain(|known| originals.contains(known));
        for original in originals {
            if !greeted.contains(&original) {
                self.put_all_to_original(&original);
                greeted.push(original);
            }
        }
    }

    fn put_all_to_original(&self, original: &Location) {
        let ring = self.node.ring();
        let mut cursor = Some(Default::default());
        while let Some(at) = cursor {
            let page = self.table.page(&at, 1 << 20, usize::MAX, |key| {
                ring.owner_of(key.point)
                    .is_some_and(|owner| owner == original)
            });
            for (key, entry) in &page.entries {
                if let Some(value) = &entry.value {
                    put_to_original(original, key, value);
                }
            }
            cursor = page.next;
        }
    }

    /// Waits until this node, which has left the ring, is not needed any more. Tells
    /// the log how it goes. Blocks as long as that takes.
    pub(super) fn wait_until_relieved(&self) {
        let keys = self.table.keys();
        if self.moves().current().is_empty() {
            if keys > 0 {
                warn!("this was the last node of its network: {keys} keys end with it");
            }
            return;
        }
        let mut told_at = Instant::now();
        while !self.moves().may_end() && !self.stopped.load(Relaxed) {
            self.wait(ASK_EVERY);
            if told_at.elapsed() >= Duration::from_secs(1) {
                told_at = Instant::now();
                info!("handing over: {} of {keys} keys", self.given.load(Relaxed));
            }
        }
        info!("handed over {} keys", self.given.load(Relaxed));
    }
}
