//! Words: what nodes tell one another of their moves.
//!
//! A word also renews a node's leave to serve after it was out of touch, and lets a
//! newcomer in once all have it in view.
//!
//! A word may be late: it lies in the buffers of a process that hangs, which meanwhile
//! others give up and which comes back as another [`Peer`]. So each word says whom the
//! teller has in view, and of two words the one said later counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Moves;
use crate::store::view::{Peer, View};

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
    /// The start of the one spoken to, if it is in the speaker's current view.
    pub sees: Option<i64>,
    /// How many copies of a key the speaker keeps; none while it does not know.
    pub replicas: Option<usize>,
    /// How much the speaker had been through: more in a word that it said later.
    pub changes: u64,
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

/// The longest list of views believed: one of a move that never settles is shorter.
const MOST_VIEWS: usize = 1_000;

impl Moves {
    /// This node has heard nobody for so long that others may go on without it: it
    /// stops serving until every member has said that it did not.
    pub fn lose_touch(&mut self) {
        let has_company = self.current().members().any(|peer| peer != self.me);
        // What was said before this absence proves nothing after it.
        if has_company && self.lease.as_ref().is_none_or(|seen| !seen.is_empty()) {
            self.absences += 1;
            self.changes += 1;
            self.lease = Some(BTreeSet::new());
        }
    }

    /// To be given back to [`hear`](Moves::hear) with what is answered to a word sent now.
    pub fn asking(&self) -> u64 {
        self.absences
    }

    /// What this node tells `to`.
    pub fn word(&self, to: &Peer) -> Word {
        Word {
            from: self.me.clone(),
            view: self.current().id(),
            phase: self.phase,
            enrolled: self.enrolled,
            read: self.read.as_ref().map(|view| view.id()),
            views: self.views.iter().map(|view| view.id()).collect(),
            sees: self.current().contains(to).then_some(to.started),
            replicas: self.replicas,
            changes: self.changes,
        }
    }

    /// The list, for one that is not enrolled; none while this node is not either.
    pub fn history(&self) -> Option<History> {
        let read = self.read.as_ref().filter(|_| self.enrolled)?.id();
        Some(History {
            views: self.views.to_vec(),
            read,
            replicas: self.replicas?,
        })
    }

    /// Takes in what a member told, with its list if this node asked for that.
    /// `asked` is what [`asking`](Moves::asking) was when it was asked; none for what
    /// is told unasked, which may have lain about since before this node was out of touch.
    pub fn hear(&mut self, asked: Option<u64>, word: Word, history: Option<History>) {
        let from = &word.from;
        let takes_part = self.standing.live.contains(from) || self.standing.leaving.contains(from);
        if !takes_part || word.views.len() > MOST_VIEWS {
            // Who takes part and is not known as that yet says it again.
            return;
        }
        let known = self.words.get(from);
        if known.is_some_and(|known| known.changes > word.changes) {
            return;
        }
        if asked == Some(self.absences)
            && self.is_seen_by(&word)
            && let Some(seen) = &mut self.lease
        {
            seen.insert(word.from.clone());
        }
        if let Some(history) = history
            && self.needs_list_of(&word)
        {
            self.adopt(history);
        }
        if self.is_seen_by(&word) && self.shares_list_with(&word) {
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

    fn is_seen_by(&self, word: &Word) -> bool {
        word.sees == Some(self.me.started)
    }

    /// Is the list of this word's teller to be taken over? In the place of an older one of
    /// the same network, yes. Of two networks that meet, one: this node would begin anew
    /// with each word if it did not keep to its list as long as anybody enrolled does.
    fn needs_list_of(&self, word: &Word) -> bool {
        // One that leaves is in nobody's view, and needs a list only to give what it has.
        let is_lasting = self.is_seen_by(word) || !self.current().contains(&self.me);
        if self.enrolled || !word.enrolled || !is_lasting || self.shares_list_with(word) {
            return false;
        }
        let is_older = |read: &Arc<View>| word.views.contains(&read.id());
        let mut others = self.words.iter().filter(|(peer, _)| **peer != word.from);
        self.read.as_ref().is_some_and(is_older)
            || !others.any(|(_, known)| known.enrolled && self.shares_list_with(known))
    }

    /// Does each have on its list what the other one reads by?
    fn shares_list_with(&self, word: &Word) -> bool {
        let Some(read) = self.read.as_ref().map(|read| read.id()) else {
            return false;
        };
        let theirs = word.read.is_some_and(|theirs| self.knows(theirs));
        theirs && word.views.contains(&read)
    }

    /// Nobody has gone on without this node: all who are left have it in view.
    pub(super) fn serve_again_if_all_see(&mut self) {
        let all_see = self.lease.as_ref().is_some_and(|seen| {
            let mut others = self.current().members().filter(|peer| *peer != self.me);
            others.all(|peer| seen.contains(&peer))
        });
        if all_see {
            self.lease = None;
        }
    }
}
