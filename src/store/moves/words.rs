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
        let sees_me = word.sees == Some(self.me.started);
        if asked == Some(self.absences)
            && sees_me
            && let Some(seen) = &mut self.lease
        {
            seen.insert(word.from.clone());
        }
        if let Some(history) = history
            && !self.enrolled
            && word.enrolled
            && !self.goes_by_a_list_with(&word)
        {
            self.adopt(history);
        }
        if sees_me
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

    /// Is the list that this node took over that of any enrolled member, going by this
    /// word and the last ones of all others? It keeps to that one: among two networks that
    /// meet, it would begin anew with each word.
    fn goes_by_a_list_with(&self, word: &Word) -> bool {
        let mut others = self.words.iter().filter(|(peer, _)| **peer != word.from);
        self.shares_list_with(word)
            || others.any(|(_, known)| known.enrolled && self.shares_list_with(known))
    }

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

#[cfg(test)]
mod tests {
    use super::super::{Rules, Standing};
    use super::*;
    use crate::location::Location;

    fn peer(port: u16, started: i64) -> Peer {
        Peer::new(Location::new("127.0.0.1", port).unwrap(), started)
    }

    fn moves(me: &Peer) -> Moves {
        Moves::new(me.clone(), Some(2), Rules::default())
    }

    fn stand(moves: &mut Moves, me: &Peer, live: &[&Peer], leaving: &[&Peer]) {
        moves.stand(Standing {
            me: me.clone(),
            live: live.iter().copied().cloned().collect(),
            leaving: leaving.iter().copied().cloned().collect(),
        });
    }

    /// Each asks the other how far it is, and copies the little there is, until all is settled.
    fn settle(one: &mut Moves, other: &mut Moves) {
        for _ in 0..5 {
            ask(one, other);
            ask(other, one);
        }
        assert!(one.is_settled() && other.is_settled());
        assert!(one.is_serving() && other.is_serving());
    }

    fn ask(asker: &mut Moves, asked: &Moves) {
        asker.hear(Some(asker.asking()), asked.word(&asker.me), asked.history());
        copy_nothing(asker);
    }

    /// All sources have nothing to give.
    fn copy_nothing(moves: &mut Moves) {
        for (source, _) in moves.pulls() {
            moves.pulled(moves.attempt(), &source, None);
        }
    }

    #[test]
    fn what_was_said_to_one_given_up_does_not_let_in_who_comes_back() {
        let (one, other, again) = (peer(1, 1), peer(2, 1), peer(2, 2));
        let (mut stays, mut hangs) = (moves(&one), moves(&other));
        stays.found(2);
        stand(&mut stays, &one, &[&one, &other], &[]);
        stand(&mut hangs, &other, &[&one, &other], &[]);
        settle(&mut stays, &mut hangs);

        let (asked, late) = (hangs.asking(), stays.word(&other));
        let history = stays.history();
        stand(&mut stays, &one, &[&one], &[]);
        assert!(stays.is_settled(), "it goes on without the other");
        stand(&mut hangs, &again, &[&one, &again], &[]);
        hangs.hear(Some(asked), late.clone(), history);
        hangs.hear(None, late, None);
        assert!(!hangs.is_serving(), "it lacks what was written meanwhile");

        stand(&mut stays, &one, &[&one, &again], &[]);
        settle(&mut stays, &mut hangs);
    }

    #[test]
    fn of_two_words_the_one_said_later_counts() {
        let (one, other, guest) = (peer(1, 1), peer(2, 1), peer(3, 1));
        let (mut mine, mut theirs) = (moves(&one), moves(&other));
        mine.found(2);
        stand(&mut mine, &one, &[&one, &other], &[]);
        stand(&mut theirs, &other, &[&one, &other], &[]);
        settle(&mut mine, &mut theirs);

        // The view is the same again after a guest has come and gone.
        let late = theirs.word(&one);
        for live in [&[&one, &other, &guest][..], &[&one, &other]] {
            stand(&mut mine, &one, live, &[]);
            stand(&mut theirs, &other, live, &[]);
            ask(&mut mine, &theirs);
        }
        assert_eq!(late.view, mine.current().id());
        mine.hear(None, late, None);
        assert_eq!(mine.phase(), Phase::Synced, "the other one copies still");
        settle(&mut mine, &mut theirs);
    }

    #[test]
    fn who_joins_two_networks_that_meet_keeps_to_the_list_of_one() {
        let [one, other, new] = [1, 2, 3].map(|port| peer(port, 1));
        let [mut first, mut second, mut joins] = [&one, &other, &new].map(moves);
        first.found(2);
        second.found(2);
        for (node, me) in [
            (&mut first, &one),
            (&mut second, &other),
            (&mut joins, &new),
        ] {
            stand(node, me, &[&one, &other, &new], &[]);
        }
        let mut attempts = BTreeSet::new();
        for told in [&first, &second, &first, &second] {
            joins.hear(Some(joins.asking()), told.word(&new), told.history());
            attempts.insert(joins.attempt());
        }
        assert_eq!(attempts.len(), 1, "it copies anew with each word");

        copy_nothing(&mut joins);
        assert_eq!(joins.phase(), Phase::Synced);
        for _ in 0..4 {
            ask(&mut first, &joins);
            ask(&mut first, &second);
            ask(&mut second, &joins);
            ask(&mut second, &first);
            ask(&mut joins, &first);
            ask(&mut joins, &second);
        }
        for node in [first, second, joins] {
            assert!(node.is_settled() && node.is_serving(), "{node:?}");
        }
    }
}
