//! The mover: the two threads of a store that bring it from one view to the next.
//!
//! The **teller** says at once to all others how far this node is, whenever that
//! changes, and asks now and then as long as not everything is settled. The
//! **puller** copies what this node owns, from all sources side by side, and when
//! all is settled drops what it does not own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::moves::{History, Phase, Word};
use super::operations::{Store, unix_millis};
use super::table::{Key, Page, STRIPES};
use super::view::{Peer, View};
use super::wire::read_page;
use crate::diststore::TStoreSyncClient;
use crate::error::Error;
use crate::side_by_side::side_by_side;

/// While something moves, others are asked so often how far they are, lest a word was lost.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// At rest there is nothing to ask; the moves wake whoever waits for them.
const REST: Duration = Duration::from_secs(2);

/// The pause before a source that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// Peers that are called at the same time.
const SIDE_BY_SIDE: usize = 8;

/// While clients keep nodes busy, a page is followed by a rest of so many times as long
/// as it took: one node that copies then takes a sixteenth of one core.
const REST_FOR_WORK: u32 = 15;

/// What a page takes at the most, for the rest that follows it: one that was long in
/// coming was not worked on all the time.
const LONGEST_WORK: Duration = Duration::from_millis(10);

/// Nothing is dropped for so long after a copy came from a primary that has
/// another view: the view may make this node its owner.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// How often the table is swept at rest, of late copies and old tombstones.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The longest that a leaving node waits for the others while nobody takes anything. Ten
/// minutes: a member that never goes on must not keep it for ever.
const RELIEF: Duration = Duration::from_secs(600);

/// How long a leaving node, when those that were to take over have died, waits for
/// somebody who comes: one may have joined whom only the dead had met.
const FORSAKEN: Duration = Duration::from_secs(3);

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
                self.end(peer);
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

    /// A node cannot be reached: if it is leaving, its process has ended.
    fn end(&self, peer: &Peer) {
        if self.moves().end(peer) {
            self.give_up(&peer.location);
        }
    }

    /// Takes in what another node says, asked or not. Only an answer may end this node:
    /// who tells unasked may be of another network.
    pub(super) fn hear(&self, asked: Option<u64>, word: Word, history: Option<History>) {
        if asked.is_some() && self.insists_on_other_copies(&word) {
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
                self.fail(Error::Usage(format!(
                    "the network of {} keeps {theirs} copies of each key, not {ours}: start with --replicas {theirs}, or without the option",
                    word.from.location
                )));
                true
            }
            _ => false,
        }
    }

    /// The puller's thread, until the store stops.
    pub(super) fn pull_and_sweep(&self) {
        let mut swept: Option<(u64, Instant)> = None;
        let mut known = Arc::default();
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
                self.greet_originals(&mut known);
                self.wait_since(changes, if settled { REST } else { ASK_EVERY });
            }
        }
    }

    /// Copies from each source until it has given all, or is not ready: from all of them
    /// at the same time, but page by page while clients keep nodes busy.
    fn pull_from(&self, sources: &[Peer]) {
        let slowly = self.moves_slowly();
        let most = if slowly { 1 } else { SIDE_BY_SIDE };
        side_by_side(sources, most, |source| {
            let mut began = Instant::now();
            while self.moves_slowly() == slowly && self.pull_page(source) {
                if slowly {
                    thread::sleep(began.elapsed().min(LONGEST_WORK) * REST_FOR_WORK);
                    began = Instant::now();
                }
            }
        });
    }

    /// Do clients keep this node busy, or those who give?
    fn moves_slowly(&self) -> bool {
        self.givers_are_busy.load(Relaxed) || self.pace.is_busy(Instant::now())
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
                self.end(source);
            }
            e.to_string()
        });
        if let Ok(page) = &page {
            let is_busy = page.busy.unwrap_or(false);
            self.givers_are_busy.store(is_busy, Relaxed);
        }
        match page.and_then(|page| read_page(page, unix_millis())) {
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
            debug!("received {}", Key::new(key));
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
            dropped += self.table.sweep(stripe, |key, deleted_at| {
                let forgotten = deleted_at.is_some_and(|at| at < old);
                let kept = !forgotten && current.owns(&me, key, replicas);
                if !kept {
                    debug!("dropped {key}");
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

    /// Waits until this node, which has left the ring, is not needed any more. Tells
    /// the log how it goes. Blocks as long as that takes.
    pub(super) fn wait_until_relieved(&self) {
        let keys = self.table.keys();
        let heirs = self.moves().current().clone();
        let mut alone_since: Option<Instant> = None;
        let mut told_at = Instant::now();
        let (mut given, mut given_at) = (0, Instant::now());
        while !self.moves().may_end() && !self.stopped.load(Relaxed) {
            if self.is_last(&heirs, &mut alone_since) {
                self.end_as_last(keys);
                return;
            }
            if self.given.load(Relaxed) > given {
                (given, given_at) = (self.given.load(Relaxed), Instant::now());
            }
            if given_at.elapsed() > RELIEF {
                warn!("ended before all others had what they need of {keys} keys here");
                return;
            }
            self.wait(ASK_EVERY);
            if told_at.elapsed() >= Duration::from_secs(1) {
                told_at = Instant::now();
                info!("handing over: {} of {keys} keys", self.given.load(Relaxed));
            }
        }
        info!("handed over {} keys", self.given.load(Relaxed));
    }

    /// Is nobody there to hand over to, and nobody waited for any more? `heirs` are those who
    /// were there when this node left.
    fn is_last(&self, heirs: &View, alone_since: &mut Option<Instant>) -> bool {
        let moves = self.moves();
        if !moves.current().is_empty() {
            *alone_since = None;
            return false;
        }
        let alone_for = alone_since.get_or_insert_with(Instant::now).elapsed();
        let is_forsaken = heirs.members().any(|heir| moves.has_died(&heir));
        !is_forsaken || alone_for >= FORSAKEN
    }

    fn end_as_last(&self, keys: usize) {
        if self.node.has_originals() {
            self.put_to_originals();
        } else if keys > 0 {
            warn!("this was the last node of its network: {keys} keys end with it");
        }
    }
}
