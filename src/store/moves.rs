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
//! A node that comes in is not *enrolled*. It takes the list over from one that is,
//! and begins to serve clients when every member has answered with it in view:
//! from then on no write can miss it. Where nobody is enrolled, nobody holds what
//! others rely on, and the first in sorted order founds the list anew.
//!
//! Assumed: a member that is found down is down, or comes back as another
//! [`Peer`]. A split network breaks that: both halves go on, and when they meet,
//! those that were thought dead come in anew, offering all they hold; the larger
//! version of each key wins.
//!
//! Nothing here knows sockets, clocks or threads; whoever drives it holds a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::table::{Cursor, Key};
use super::versions::next_version;
use super::view::{Peer, View};

/// How far a node is with its current view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Writes begun from now on go to its owners.
    Installed,
    /// All writes under way do.
    Drained,
    /// All that the node owns in it is here.
    Synced,
    /// The node reads by it.
    Switched,
    /// It is the only view.
    Settled,
}

/// What a node tells others of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Who speaks.
    pub from: Peer,
    /// The speaker's current view.
    pub view: u64,
    /// How far the speaker is with it.
    pub phase: Phase,
    /// Whether the speaker is enrolled.
    pub enrolled: bool,
    /// The view that the speaker reads by, if it has one.
    pub read: Option<u64>,
    /// All views on the speaker's list, oldest first.
    pub views: Vec<u64>,
    /// Is the one spoken to in the speaker's current view?
    pub sees: bool,
    /// How many copies of a key the speaker keeps; none while it does not know.
    pub replicas: Option<usize>,
}

/// The list of views of a node that is enrolled, for one that is not.
#[derive(Debug, Clone)]
pub struct History {
    /// The views, oldest first.
    pub views: Vec<Arc<View>>,
    /// The view that is read by.
    pub read: u64,
    /// How many copies of a key are kept.
    pub replicas: usize,
}

/// A request for a page of what the asker owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Who asks.
    pub puller: Peer,
    /// The asker's current view: a source that has another one refuses.
    pub view: u64,
    /// The view that the asker reads by: it holds what it owns there.
    pub read: u64,
    /// Processes that the asker takes to be gone, whose duty falls to the next owner.
    pub gone: Vec<Peer>,
    /// Where to go on.
    pub cursor: Cursor,
}

/// Names the attempt that a page belongs to: pages of an abandoned one do not count.
pub type Attempt = u64;

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

/// Where a key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Here.
    Me,
    /// At the first of these that answers; each is asked as an owner in that view.
    Others(u64, Vec<Peer>),
    /// Nowhere yet: this node does not serve clients, or no owner is left.
    Nobody,
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
    rules: Rules,
    /// Copies of each key; none until it is known what the network keeps.
    replicas: Option<usize>,
    standing: Standing,
    /// Leaving members whose process has ended.
    ended: BTreeSet<Peer>,
    /// From the last settled view to the current one; never empty.
    views: Vec<Arc<View>>,
    /// The view that is read by, one of `views`; none before the list was taken over.
    read: Option<Arc<View>>,
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
    /// Counts whatever may interest those who wait for the moves to go on.
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

/// A write under way at its primary.
#[derive(Debug)]
pub struct Write {
    me: Peer,
    epoch: u64,
    /// How often this node had been out of touch when it began.
    absences: u64,
    /// The views when it began.
    views: Vec<Arc<View>>,
    /// Owners that have the write, or are gone.
    done: BTreeSet<Peer>,
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
            me,
            rules,
            replicas,
            ended: BTreeSet::new(),
            views: vec![alone],
            read: None,
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
        self.views = vec![current];
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

    /// A leaving member does not answer any more: its process has ended.
    pub fn end(&mut self, peer: &Peer) {
        if self.standing.leaving.contains(peer) && self.ended.insert(peer.clone()) {
            if self.rules.pull_again {
                self.copy_anew();
            }
            self.sources.remove(peer);
            self.changes += 1;
            self.advance();
        }
    }

    /// This node has heard nobody for so long that others may go on without it: it
    /// stops serving until every member has said that it did not.
    pub fn lose_touch(&mut self) {
        let has_company = self.current().members().any(|peer| peer != self.me);
        // What was said before a second absence proves nothing after it.
        let has_leave = self.lease.as_ref().is_none_or(|seen| !seen.is_empty());
        if has_leave && has_company {
            self.absences += 1;
            self.changes += 1;
            self.lease = Some(BTreeSet::new());
        }
    }

    /// To be given back to [`hear`](Moves::hear) with what is answered to a word sent now.
    pub fn asking(&self) -> u64 {
        self.absences
    }

    // What others are told, and tell.

    /// What this node tells `to`.
    pub fn word(&self, to: &Peer) -> Word {
        Word {
            from: self.me.clone(),
            view: self.current().id(),
            phase: self.phase,
            enrolled: self.enrolled,
            read: self.read.as_ref().map(|view| view.id()),
            views: self.views.iter().map(|view| view.id()).collect(),
            sees: self.current().contains(to),
            replicas: self.replicas,
        }
    }

    /// The list, for one that is not enrolled; none while this node is not either.
    pub fn history(&self) -> Option<History> {
        let read = self.read.as_ref().filter(|_| self.enrolled)?.id();
        Some(History {
            views: self.views.clone(),
            read,
            replicas: self.replicas?,
        })
    }

    /// Takes in what a member told, with its list if this node asked for that.
    /// `asked` is what [`asking`](Moves::asking) was when it was asked; none for what
    /// is told unasked, which may have lain about since before this node was out of touch.
    pub fn hear(&mut self, asked: Option<u64>, word: Word, history: Option<History>) {
        if asked == Some(self.absences)
            && word.sees
            && let Some(seen) = &mut self.lease
        {
            seen.insert(word.from.clone());
        }
        if let Some(history) = history
            && !self.enrolled
            && word.enrolled
            && !self.shares_list_with(&word)
        {
            self.adopt(history);
        }
        if word.sees
            && self
                .read
                .as_ref()
                .is_some_and(|read| word.views.contains(&read.id()))
        {
            self.confirmed.insert(word.from.clone());
        }
        self.words.insert(word.from.clone(), word);
        self.changes += 1;
        self.advance();
    }

    /// Does this node need the list of one that is enrolled?
    pub fn wants_history(&self) -> bool {
        !self.enrolled
    }

    // Copying.

    /// The pages to ask for now, each with its source.
    pub fn pulls(&self) -> Vec<(Peer, Pull)> {
        let (Some(read), Phase::Drained) = (&self.read, self.phase) else {
            return Vec::new();
        };
        let gone: Vec<Peer> = self
            .views
            .iter()
            .flat_map(|view| view.members())
            .filter(|peer| self.is_gone(peer))
            .collect();
        let pull = |cursor: &Cursor| Pull {
            puller: self.me.clone(),
            view: self.current().id(),
            read: read.id(),
            gone: gone.clone(),
            cursor: cursor.clone(),
        };
        let open =
            |(peer, cursor): (&Peer, &Option<Cursor>)| Some((peer.clone(), pull(cursor.as_ref()?)));
        self.sources.iter().filter_map(open).collect()
    }

    /// The current attempt to copy, to come back with its pages.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// A page from `source` was applied; `next` is where the next one begins.
    pub fn pulled(&mut self, attempt: Attempt, source: &Peer, next: Option<Cursor>) {
        if attempt == self.attempt && self.phase == Phase::Drained {
            self.sources.insert(source.clone(), next);
            self.changes += 1;
            self.advance();
        }
    }

    /// What this node gives to whoever asks so; none while it cannot know.
    pub fn offer(&self, pull: &Pull) -> Option<Offer> {
        let drained = self.phase >= Phase::Drained && self.current().id() == pull.view;
        if !drained || (self.read.is_none() && !self.offers_all) {
            return None;
        }
        let shared = self.views.iter().find(|view| view.id() == pull.read);
        Some(Offer {
            me: self.me.clone(),
            puller: pull.puller.clone(),
            replicas: self.replicas?,
            current: self.current().clone(),
            basis: if self.offers_all {
                None
            } else {
                shared.cloned()
            },
            gone: pull
                .gone
                .iter()
                .filter(|peer| **peer != self.me)
                .cloned()
                .collect(),
        })
    }

    // Reading and writing.

    /// Does this node serve clients?
    pub fn is_serving(&self) -> bool {
        self.enrolled && self.read.is_some() && self.lease.is_none()
    }

    /// Who is asked for `key` now.
    pub fn authority(&self, key: Key<'_>) -> Authority {
        let (Some(read), Some(replicas), true) = (&self.read, self.replicas, self.is_serving())
        else {
            return Authority::Nobody;
        };
        let read = if self.rules.read_by_old {
            read
        } else {
            self.current()
        };
        if read.primary(key).as_ref() == Some(&self.me) && self.may_answer(read.id()) {
            return Authority::Me;
        }
        let owners: Vec<Peer> = read
            .owners(key, replicas)
            .filter(|peer| !self.is_gone(peer))
            .collect();
        match owners.first() {
            None => Authority::Nobody,
            Some(first) if *first == self.me && self.may_answer(read.id()) => Authority::Me,
            Some(_) => Authority::Others(read.id(), owners),
        }
    }

    /// May this node answer, from its own table, as an owner in that view?
    pub fn may_answer(&self, view: u64) -> bool {
        if !self.rules.read_by_old {
            return true;
        }
        if self.lease.is_some() {
            return false;
        }
        // In the place of one that died there, this process holds nothing of that view.
        let asked_as_owner = |known: &Arc<View>| known.id() == view && known.contains(&self.me);
        if !self.views.iter().any(asked_as_owner) {
            return false;
        }
        let place = |id: u64| self.views.iter().position(|view| view.id() == id);
        let (Some(asked), Some(read)) =
            (place(view), self.read.as_ref().and_then(|r| place(r.id())))
        else {
            return false;
        };
        let settled_before = asked <= read && !self.is_unsynced_founder();
        settled_before || (asked + 1 == self.views.len() && self.phase >= Phase::Synced)
    }

    /// The primary of `key`: where it is written.
    pub fn primary(&self, key: Key<'_>) -> Option<Peer> {
        self.current().primary(key)
    }

    /// Begins a write of `key` here; none unless this node is the key's primary and
    /// serves. To be ended by [`end_write`](Moves::end_write), whatever comes of it.
    pub fn begin_write(&mut self, key: Key<'_>) -> Option<Write> {
        if !self.is_serving() || self.primary(key).as_ref() != Some(&self.me) {
            return None;
        }
        *self.writes.entry(self.epoch).or_default() += 1;
        let done = BTreeSet::from([self.me.clone()]);
        Some(Write {
            me: self.me.clone(),
            epoch: self.epoch,
            absences: self.absences,
            views: self.views.clone(),
            done,
        })
    }

    /// The version of a write here at `unix_millis`, when `newest` is the newest that
    /// was seen of the key. It is not that of any other write of the key: not of
    /// another node's, and not of one that this node gave up, which some owner may have.
    pub fn version(&self, unix_millis: i64, newest: i64) -> i64 {
        next_version(unix_millis, newest.max(self.abandoned), self.me.writer())
    }

    /// A write of that version is given up, and some owners may have it.
    pub fn abandon(&mut self, version: i64) {
        self.abandoned = self.abandoned.max(version);
    }

    /// Whom the write of `key` must still reach: its owners in every view known when it
    /// began or now, but for those who are gone. When nobody is left it is applied here.
    pub fn targets(&self, write: &Write, key: Key<'_>) -> Vec<Peer> {
        let Some(replicas) = self.replicas else {
            return Vec::new();
        };
        let known = write.views.iter().chain(&self.views);
        let views: BTreeMap<u64, &Arc<View>> = if self.rules.write_to_all {
            known.map(|view| (view.id(), view)).collect()
        } else {
            BTreeMap::from([(self.current().id(), self.current())])
        };
        let mut targets = Vec::new();
        for owner in views.values().flat_map(|view| view.owners(key, replicas)) {
            if !write.done.contains(&owner) && !targets.contains(&owner) && !self.is_gone(&owner) {
                targets.push(owner);
            }
        }
        targets
    }

    /// Ends a write; may it be acknowledged? Not if this node was thought dead
    /// meanwhile, or out of touch, so that others may have gone on without it.
    pub fn end_write(&mut self, write: Write) -> bool {
        if let Some(count) = self.writes.get_mut(&write.epoch) {
            *count -= 1;
            if *count == 0 {
                self.writes.remove(&write.epoch);
            }
        }
        self.advance();
        write.me == self.me && write.absences == self.absences && self.enrolled
    }

    /// Has this node that view on its list? If not, its teller knows something new.
    pub fn knows(&self, view: u64) -> bool {
        self.views.iter().any(|known| known.id() == view)
    }

    /// Is this process gone for good?
    pub fn is_gone(&self, peer: &Peer) -> bool {
        let leaving = self.standing.leaving.contains(peer) && !self.ended.contains(peer);
        !(leaving || *peer == self.me || self.standing.live.contains(peer))
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

    /// Grows with whatever may interest those who wait for the moves to go on.
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

    /// May a node that leaves end now? When all that stay read by a view without it.
    pub fn may_end(&self) -> bool {
        !self.current().contains(&self.me)
            && self.phase >= Phase::Drained
            && self.all_are(Phase::Switched)
    }

    // Steps.

    fn install(&mut self, view: Arc<View>) {
        self.views.retain(|known| known.id() != view.id());
        self.views.push(view);
        self.restart(Phase::Installed);
    }

    fn restart(&mut self, phase: Phase) {
        self.epoch += 1;
        self.phase = phase;
        self.copy_anew();
        self.advance();
    }

    /// Nobody has gone on without this node: all who are left have it in view.
    fn serve_again_if_all_see(&mut self) {
        let all_see = self.lease.as_ref().is_some_and(|seen| {
            let mut others = self.current().members().filter(|peer| *peer != self.me);
            others.all(|peer| seen.contains(&peer))
        });
        if all_see {
            self.lease = None;
        }
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
        self.me = me;
        self.enrolled = false;
        self.lease = None;
        self.offers_all = true;
        self.confirmed.clear();
        self.read = None;
        self.views = vec![self.current().clone()];
        self.restart(Phase::Installed);
    }

    fn shares_list_with(&self, word: &Word) -> bool {
        let Some(read) = self.read.as_ref().map(|read| read.id()) else {
            return false;
        };
        let theirs = word.read.is_some_and(|theirs| self.knows(theirs));
        theirs && word.views.contains(&read)
    }

    fn adopt(&mut self, history: History) {
        let current = self.current().clone();
        self.replicas.get_or_insert(history.replicas);
        self.read = history
            .views
            .iter()
            .find(|view| view.id() == history.read)
            .cloned();
        self.views = history.views;
        self.views.retain(|view| view.id() != current.id());
        self.views.push(current);
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
        }
        if self.phase == Phase::Synced && self.all_are(Phase::Synced) {
            self.read = Some(self.current().clone());
            self.phase = Phase::Switched;
        }
        let switched = !self.rules.settle_after_switch || self.nobody_reads_by_another();
        if self.phase == Phase::Switched && switched {
            self.views = vec![self.current().clone()];
            self.offers_all = false;
            self.phase = Phase::Settled;
        }
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

    /// One that founded among others has first to get what they hold.
    fn is_unsynced_founder(&self) -> bool {
        self.views.len() == 1 && self.phase < Phase::Synced
    }
}

/// How many copies of a key are kept unless somebody insists on another number.
pub const DEFAULT_REPLICAS: usize = 3;

impl Write {
    /// `peer` has the write, or is found to be gone.
    pub fn reached(&mut self, peer: Peer) {
        self.done.insert(peer);
    }
}

/// What one node gives another that copies: which keys.
#[derive(Debug, Clone)]
pub struct Offer {
    me: Peer,
    puller: Peer,
    replicas: usize,
    current: Arc<View>,
    /// The view that the puller reads by; none to give all that it owns.
    basis: Option<Arc<View>>,
    gone: BTreeSet<Peer>,
}

impl Offer {
    /// Is this key given: does the puller own it now and did not before, and is this
    /// node the first of its owners before that is left?
    pub fn gives(&self, key: Key<'_>) -> bool {
        if !self.current.owns(&self.puller, key, self.replicas) {
            return false;
        }
        let Some(basis) = &self.basis else {
            return true;
        };
        let mut held = false;
        let mut first = None;
        for owner in basis.owners(key, self.replicas) {
            held |= owner == self.puller;
            if first.is_none() && !self.gone.contains(&owner) {
                first = Some(owner);
            }
        }
        !held && first.is_none_or(|first| first == self.me)
    }
}
