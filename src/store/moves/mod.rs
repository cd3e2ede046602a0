//! `Moves`: how a network of stores gets from one ring to the next without a key
//! being missing or a write being lost on the way.
//!
//! Each node keeps a short list of views, from the last settled one to the current
//! one, and knows which of them it *reads by*. A write goes to the key's owners in
//! every view of the list; a read asks the owners in the view that is read by. From
//! the old ring to the new one a node goes in steps, and tells the others of each:
//!
//! 1. **Installed**: the view is on the list; writes begun from now on go to its owners too.
//! 2. **Drained**: no write that was begun before is still under way. Only now is
//!    the node's table worth copying: what it lacks, its copiers get as owners.
//! 3. **Synced**: the node has copied all that it now owns and did not hold before,
//!    from the first owner in the view that it reads by.
//! 4. **Switched**: all members are synced; the node reads by the current view.
//!    Writes still go to the owners in all views, for some members read by an old one.
//! 5. **Settled**: all members have switched, and those that leave too, unless they
//!    have ended; older views are forgotten, and what the node does not own any
//!    more is dropped.
//!
//! Each step is necessary. Without writing to all views, a key is stale where it is
//! read; without waiting for the drain, a write that was under way misses the copy;
//! reading at once at the new owner finds what is not there yet; settling before
//! all have switched drops what somebody still reads. When a source of copies is
//! gone all is copied anew, since another one may now be the first owner.
//!
//! A node that comes in is not *enrolled*. It takes the list over from one that is and
//! has it in view, so that the list is not forgotten meanwhile; keeps to it as long as
//! anybody does; and begins to serve clients when every member has answered with it in
//! view: from then on no write can miss it. Where nobody is enrolled, nobody holds all
//! that others rely on: the first in sorted order founds the list anew, and nobody
//! answers for a key before what all others hold of it is there.
//!
//! Assumed: a member that is found down is down, or comes back as another
//! [`Peer`]. A split network breaks that: both halves go on, and when they meet,
//! those that were thought dead come in anew, offering all they hold; the larger
//! version of each key wins.
//!
//! Nothing here knows sockets, clocks or threads; whoever drives it holds a lock.

mod access;
mod copying;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::table::Cursor;
use super::view::{Peer, View};

pub use access::{Authority, Write};
pub use copying::{Attempt, Offer, Pull};
pub use words::{History, Phase, Word};

/// What is known of all members, as the moves need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// This node, as the network knows it now.
    pub me: Peer,
    /// The members on the ring; without this node when it leaves.
    pub live: BTreeSet<Peer>,
    /// Members that leave and still answer.
    pub leaving: BTreeSet<Peer>,
}

/// Rules of the protocol that a test may leave out, to see what they are for.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Write to the owners in all views of the list, not only in the current one.
    pub write_to_all: bool,
    /// Read by the old view until all are synced.
    pub read_by_old: bool,
    /// Switch and settle in two steps.
    pub settle_after_switch: bool,
    /// Wait for the writes under way before the table is copied.
    pub drain: bool,
    /// Copy anew when a source is gone.
    pub pull_again: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            write_to_all: true,
            read_by_old: true,
            settle_after_switch: true,
            drain: true,
            pull_again: true,
        }
    }
}

/// One node's part in the moves of its network.
#[derive(Debug)]
pub struct Moves {
    me: Peer,
    /// Names this node in the versions that it makes.
    writer: u16,
    rules: Rules,
    /// Copies of each key; none until it is known what the network keeps.
    replicas: Option<usize>,
    standing: Standing,
    /// Leaving members whose process has ended.
    ended: BTreeSet<Peer>,
    /// From the last settled view to the current one; never empty.
    views: Arc<Vec<Arc<View>>>,
    /// The view that is read by, one of `views`; none before the list was taken over.
    read: Option<Arc<View>>,
    /// Is what this node owns in that view here? Not yet where nobody was enrolled: to a view
    /// that was founded among others, each member has first to bring what it holds.
    holds_read: bool,
    phase: Phase,
    enrolled: bool,
    /// While this node has been out of touch: the members that have since said that
    /// they still have it in view. It serves again when all have.
    lease: Option<BTreeSet<Peer>>,
    /// Counts how often this node was out of touch.
    absences: u64,
    /// Has this node met another one since it began?
    met: bool,
    /// It came back from the dead, or founded anew among others: it offers all that it holds.
    offers_all: bool,
    /// Members that have answered with this node in view and its read view on their lists.
    confirmed: BTreeSet<Peer>,
    /// What each member told last.
    words: BTreeMap<Peer, Word>,
    /// Counts the views installed.
    epoch: u64,
    /// Counts whatever others are told, or may interest those who wait for the moves to go on.
    changes: u64,
    /// Writes under way by the epoch they began in.
    writes: BTreeMap<u64, usize>,
    /// The largest version of a write that reached some owners and then was given up.
    abandoned: i64,
    /// The current attempt to copy.
    attempt: Attempt,
    /// Where the copying from each source goes on; none when it is done.
    sources: BTreeMap<Peer, Option<Cursor>>,
}

impl Moves {
    /// A node that has met nobody and is not enrolled. `replicas` is how many copies
    /// it insists on; none to keep as many as its network does.
    pub fn new(me: Peer, replicas: Option<usize>, rules: Rules) -> Moves {
        let alone = Arc::new(View::new([me.clone()]));
        let live = BTreeSet::from([me.clone()]);
        Moves {
            standing: Standing {
                me: me.clone(),
                live,
                leaving: BTreeSet::new(),
            },
            writer: me.writer(),
            me,
            rules,
            replicas,
            ended: BTreeSet::new(),
            views: Arc::new(vec![alone]),
            read: None,
            holds_read: false,
            phase: Phase::Installed,
            enrolled: false,
            lease: None,
            absences: 0,
            met: false,
            offers_all: false,
            confirmed: BTreeSet::new(),
            words: BTreeMap::new(),
            epoch: 0,
            changes: 0,
            writes: BTreeMap::new(),
            abandoned: 0,
            attempt: 0,
            sources: BTreeMap::new(),
        }
    }

    /// Begins a network: this node holds all there is. `replicas` copies are kept
    /// unless it insists on another number.
    pub fn found(&mut self, replicas: usize) {
        self.replicas.get_or_insert(replicas);
        let current = self.current().clone();
        self.enrolled = true;
        self.read = Some(current.clone());
        self.holds_read = false;
        self.views = Arc::new(vec![current]);
        self.restart(Phase::Installed);
    }

    /// Takes in what membership knows now.
    pub fn stand(&mut self, standing: Standing) {
        if standing == self.standing {
            return;
        }
        if standing.me != self.me {
            self.come_back_as(standing.me.clone());
        }
        self.standing = standing;
        self.met |= self.standing.live.iter().any(|peer| *peer != self.me);
        let view = View::new(self.standing.live.iter().cloned());
        if view.id() != self.current().id() {
            self.install(Arc::new(view));
        } else if self.rules.pull_again {
            self.copy_anew();
        }
        let standing = &self.standing;
        self.words
            .retain(|peer, _| standing.live.contains(peer) || standing.leaving.contains(peer));
        self.ended.retain(|peer| standing.leaving.contains(peer));
        self.changes += 1;
        self.advance();
    }

    /// A member does not answer any more: if it is leaving, its process has ended. Is
    /// that so, and news?
    pub fn end(&mut self, peer: &Peer) -> bool {
        let has_ended = self.standing.leaving.contains(peer) && self.ended.insert(peer.clone());
        if has_ended {
            if self.rules.pull_again {
                self.copy_anew();
            }
            self.sources.remove(peer);
            self.changes += 1;
            self.advance();
        }
        has_ended
    }

    /// Has this node that view on its list? If not, its teller knows something new.
    pub fn knows(&self, view: u64) -> bool {
        self.views.iter().any(|known| known.id() == view)
    }

    /// Is this process gone for good?
    pub fn is_gone(&self, peer: &Peer) -> bool {
        *peer != self.me && (self.has_died(peer) || self.ended.contains(peer))
    }

    /// Is this process gone without having left?
    pub fn has_died(&self, peer: &Peer) -> bool {
        !self.standing.live.contains(peer) && !self.standing.leaving.contains(peer)
    }

    // State, for those who drive and those who look.

    /// This node.
    pub fn me(&self) -> &Peer {
        &self.me
    }

    /// The current view.
    pub fn current(&self) -> &Arc<View> {
        &self.views[self.views.len() - 1]
    }

    /// The view that this node reads by; none while it has no list.
    pub fn read_view(&self) -> Option<&Arc<View>> {
        self.read.as_ref()
    }

    /// Grows with whatever others are told, or may interest those who wait for the moves to go on.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How far this node is with its current view.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Is nothing on its way, as far as this node knows?
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Settled && self.enrolled
    }

    /// How many copies of a key are kept; none while it is not known.
    pub fn replicas(&self) -> Option<usize> {
        self.replicas
    }

    /// The others that take part: live members, and leaving ones that still answer.
    pub fn others(&self) -> Vec<Peer> {
        let leaving = self
            .standing
            .leaving
            .iter()
            .filter(|peer| !self.ended.contains(*peer));
        self.standing
            .live
            .iter()
            .chain(leaving)
            .filter(|peer| **peer != self.me)
            .cloned()
            .collect()
    }

    /// May a node that leaves end now? When all that stay read by a view without it. If
    /// nobody stays, it is for its driver to say how long somebody is waited for.
    pub fn may_end(&self) -> bool {
        let current = self.current();
        !current.is_empty()
            && !current.contains(&self.me)
            && self.phase >= Phase::Drained
            && self.all_are(Phase::Switched)
    }

    // Steps.

    fn install(&mut self, view: Arc<View>) {
        let views = Arc::make_mut(&mut self.views);
        views.retain(|known| known.id() != view.id());
        views.push(view);
        self.restart(Phase::Installed);
    }

    fn restart(&mut self, phase: Phase) {
        self.epoch += 1;
        self.changes += 1;
        self.phase = phase;
        self.copy_anew();
        self.advance();
    }

    /// Forgets what was copied. A node that has switched has no need to: it holds all.
    fn copy_anew(&mut self) {
        if self.phase > Phase::Drained {
            return;
        }
        self.attempt += 1;
        let owns = self.current().contains(&self.me);
        let others = if owns { self.others() } else { Vec::new() };
        self.sources = others
            .into_iter()
            .map(|peer| (peer, Some(Cursor::default())))
            .collect();
    }

    /// Others took this node for dead: they went on without it. It comes in anew.
    fn come_back_as(&mut self, me: Peer) {
        self.writer = me.writer();
        self.me = me;
        self.enrolled = false;
        self.lease = None;
        self.offers_all = true;
        self.confirmed.clear();
        self.read = None;
        self.views = Arc::new(vec![self.current().clone()]);
        self.restart(Phase::Installed);
    }

    fn adopt(&mut self, history: History) {
        let current = self.current().clone();
        self.replicas.get_or_insert(history.replicas);
        self.read = history
            .views
            .iter()
            .find(|view| view.id() == history.read)
            .cloned();
        self.holds_read = false;
        let mut views = history.views;
        views.retain(|view| view.id() != current.id());
        views.push(current);
        self.views = Arc::new(views);
        self.confirmed.clear();
        self.restart(Phase::Installed);
    }

    /// Takes every step that can be taken.
    fn advance(&mut self) {
        let before = (self.phase, self.is_serving());
        self.take_steps();
        if before != (self.phase, self.is_serving()) {
            self.changes += 1;
        }
    }

    fn take_steps(&mut self) {
        self.serve_again_if_all_see();
        self.enroll_if_confirmed();
        self.found_if_nobody_did();
        if self.phase == Phase::Installed && (self.is_drained() || !self.rules.drain) {
            self.phase = Phase::Drained;
        }
        let copied = self.sources.values().all(Option::is_none);
        if self.phase == Phase::Drained && copied && self.read.is_some() {
            self.phase = Phase::Synced;
            self.holds_read |= self.reads_by_current();
        }
        if self.phase == Phase::Synced && self.all_are(Phase::Synced) {
            self.read = Some(self.current().clone());
            self.holds_read = true;
            self.phase = Phase::Switched;
        }
        let switched = !self.rules.settle_after_switch || self.nobody_reads_by_another();
        if self.phase == Phase::Switched && switched {
            self.views = Arc::new(vec![self.current().clone()]);
            self.offers_all = false;
            self.phase = Phase::Settled;
        }
    }

    fn reads_by_current(&self) -> bool {
        let current = self.current().id();
        self.read.as_ref().is_some_and(|read| read.id() == current)
    }

    fn is_drained(&self) -> bool {
        self.writes.keys().all(|began| *began >= self.epoch)
    }

    fn all_are(&self, phase: Phase) -> bool {
        let current = self.current();
        let mut others = current.members().filter(|peer| *peer != self.me);
        others.all(|peer| {
            self.words
                .get(&peer)
                .is_some_and(|word| word.view == current.id() && word.phase >= phase)
        })
    }

    /// Have all switched, those that leave as well? They answer clients to the end.
    fn nobody_reads_by_another(&self) -> bool {
        let current = self.current().id();
        self.others().iter().all(|peer| {
            let word = self.words.get(peer);
            word.is_some_and(|word| word.view == current && word.phase >= Phase::Switched)
        })
    }

    /// Where nobody is enrolled, nor leaves as one that was, nobody could be waited
    /// for: the first one begins, with as many copies as any of them insists on.
    fn found_if_nobody_did(&mut self) {
        let current = self.current();
        let first = current.members().next().is_some_and(|peer| peer == self.me);
        if self.enrolled || self.read.is_some() || !self.met || !first {
            return;
        }
        let nobody_did = self.others().iter().all(|peer| {
            let word = self.words.get(peer);
            word.is_some_and(|word| word.view == current.id() && !word.enrolled)
        });
        if nobody_did {
            let insisted = self.words.values().find_map(|word| word.replicas);
            self.offers_all = true;
            self.found(insisted.unwrap_or(DEFAULT_REPLICAS));
        }
    }

    fn enroll_if_confirmed(&mut self) {
        let all = || {
            self.current()
                .members()
                .all(|peer| peer == self.me || self.confirmed.contains(&peer))
        };
        if !self.enrolled && self.read.is_some() && self.current().contains(&self.me) && all() {
            self.enrolled = true;
        }
    }
}

/// How many copies of a key are kept unless somebody insists on another number.
pub const DEFAULT_REPLICAS: usize = 3;
