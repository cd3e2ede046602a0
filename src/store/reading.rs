//! Reading keys: here, or over the network where it must be.

use std::time::Instant;

use log::debug;

use super::asking::{self, Answer};
use super::moves::Authority;
use super::operations::{PATIENCE, Refusal, Store};
use super::table::{Cursor, Key, LOOKS, PAGE, Page};
use super::versions::Held;
use super::view::Peer;
use crate::location::Location;

/// The most bytes of values in one answer, beyond which the rest of its keys is for
/// another one: what fits a message, whatever the first value is.
const ANSWER: usize = 1024 * 1024;

/// A key that others have to be asked for.
struct Question<'a> {
    /// Which of the keys that are looked for it is.
    place: usize,
    key: Key<'a>,
    /// Each is asked as an owner in this view, in this order.
    view: u64,
    owners: std::vec::IntoIter<Peer>,
    /// Was there no room for the answer of the next of them?
    is_repeated: bool,
}

impl Question<'_> {
    /// Who is asked next.
    fn owner(&self) -> Option<&Location> {
        self.owners.as_slice().first().map(|owner| &owner.location)
    }
}

impl Store {
    /// What is held for `key` in the network: the newest entry that was
    /// acknowledged, or a newer one. May block for ten seconds.
    ///
    /// # Errors
    /// No owner could be asked in that time.
    pub fn fetch(&self, key: &[u8]) -> Result<Held, Refusal> {
        let found = match self.fetch_at_once(Key::new(key)) {
            Some(held) => held,
            None => self.fetch_many(&[key])?.pop().flatten(),
        };
        if found.as_ref().is_some_and(|entry| !entry.is_tombstone()) {
            debug!("found {}", Key::new(key));
        }
        Ok(found)
    }

    /// What is held for the key, here or at its first owner, if that answers: nearly all
    /// calls end with this.
    fn fetch_at_once(&self, key: Key<'_>) -> Option<Held> {
        if self.node.has_originals() {
            return None;
        }
        let authority = self.moves().authority(key);
        match authority {
            Authority::Me => self.own(key, || self.moves().authority(key) == Authority::Me),
            Authority::Others(view, owners) => {
                let owner = self.asking.in_order(owners).into_iter().next()?;
                if owner.location == *self.node.location() {
                    return None;
                }
                let question = asking::Question::new(view, key);
                match self.asking.ask(vec![(owner.location, question)]).pop()? {
                    Answer::Held(held) => Some(held),
                    Answer::NoRoom | Answer::Refused => None,
                }
            }
            Authority::Nobody => None,
        }
    }

    /// [`fetch`](Store::fetch) of several keys: of as many of the first ones, at least
    /// one, as have values that fit one message together.
    ///
    /// # Errors
    /// No owner of one of them could be asked in time.
    pub fn fetch_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Held>, Refusal> {
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::new(key.as_ref())).collect();
        let mut found = self.newest(&keys, Instant::now() + PATIENCE)?;
        if self.node.has_originals() {
            for (key, found) in keys.iter().zip(&mut found) {
                if let Some(entry) = self.fetch_from_original(key.bytes) {
                    *found = Some(entry);
                }
            }
        }
        found.truncate(fitting(&found));
        Ok(found)
    }

    /// The newest entries that were acknowledged, or newer ones, from whoever is read.
    pub(super) fn newest(&self, keys: &[Key<'_>], deadline: Instant) -> Result<Vec<Held>, Refusal> {
        let mut found: Vec<Option<Held>> = vec![None; keys.len()];
        loop {
            let questions = self.read_own(keys, &mut found);
            self.ask_others(questions, &mut found, deadline);
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().map(Option::unwrap_or_default).collect());
            }
            self.wait_until(deadline)
                .map_err(|()| "no owner of the key could be asked in time")?;
        }
    }

    /// Finds what is to be read here of what was not found yet; the rest as questions.
    fn read_own<'a>(&self, keys: &[Key<'a>], found: &mut [Option<Held>]) -> Vec<Question<'a>> {
        let mut questions = Vec::new();
        let mut here = Vec::new();
        let moves = self.moves();
        for (place, key) in keys.iter().enumerate() {
            if found[place].is_some() {
                continue;
            }
            match moves.authority(*key) {
                Authority::Me => here.push(place),
                Authority::Others(view, owners) => questions.push(Question {
                    place,
                    key: *key,
                    view,
                    owners: self.asking.in_order(owners).into_iter(),
                    is_repeated: false,
                }),
                Authority::Nobody => (),
            }
        }
        drop(moves);
        here.retain(|place| {
            found[*place] = self.table.read(keys[*place]).map(Some);
            found[*place].is_none()
        });
        if !here.is_empty() {
            // What is not there may have been dropped while it was looked for.
            let moves = self.moves();
            here.retain(|place| moves.authority(keys[*place]) == Authority::Me);
            here.into_iter().for_each(|place| found[place] = Some(None));
        }
        questions
    }

    /// Asks the owners of each key in turn, those of different keys together, until one
    /// answers or all have refused; no others after the deadline.
    fn ask_others(
        &self,
        mut open: Vec<Question<'_>>,
        found: &mut [Option<Held>],
        deadline: Instant,
    ) {
        while !open.is_empty() && Instant::now() < deadline {
            let answers = self.ask(&open);
            let asked = std::mem::take(&mut open).into_iter().zip(answers);
            for (mut question, answer) in asked {
                match answer {
                    Answer::Held(held) => {
                        found[question.place] = Some(held);
                        continue;
                    }
                    Answer::Refused => drop(question.owners.next()),
                    Answer::NoRoom => question.is_repeated = true,
                }
                open.extend(question.owner().is_some().then_some(question));
            }
        }
    }

    /// What the next owner of each key answers.
    fn ask(&self, open: &[Question<'_>]) -> Vec<Answer> {
        let is_other = |owner: &&Location| *owner != self.node.location();
        let others = open.iter().filter_map(|question| {
            let owner = question.owner().filter(is_other)?;
            let asked = asking::Question {
                is_repeated: question.is_repeated,
                ..asking::Question::new(question.view, question.key)
            };
            Some((owner.clone(), asked))
        });
        let mut answers = self.asking.ask(others.collect()).into_iter();
        let answer = |question: &Question<'_>| match question.owner().filter(is_other) {
            Some(_) => answers.next(),
            None => {
                let own = self.answer_at(question.view, &[question.key]);
                own.and_then(|mut held| held.pop()).map(Answer::Held)
            }
        };
        let answers = open.iter().map(answer);
        answers
            .map(|answer| answer.unwrap_or(Answer::Refused))
            .collect()
    }

    /// What this node holds as an owner in that view, for as many of the first of these
    /// keys as fit a message; nothing if it may not say.
    pub(super) fn answer_at(&self, view: u64, keys: &[Key<'_>]) -> Option<Vec<Held>> {
        let may = || self.moves().may_answer(view);
        if !may() {
            return None;
        }
        let mut held = keys
            .iter()
            .map(|key| self.own(*key, may))
            .collect::<Option<Vec<_>>>()?;
        held.truncate(fitting(&held));
        Some(held)
    }

    /// Some of the pairs whose primary this node is in that view, from `cursor` on.
    ///
    /// # Errors
    /// This node is not settled in that view.
    pub(super) fn scan(&self, view: u64, cursor: &Cursor) -> Result<Page, Refusal> {
        let settled = || {
            let moves = self.moves();
            let is_meant = moves.is_settled() && moves.is_serving() && moves.current().id() == view;
            is_meant.then(|| (moves.current().clone(), moves.me().clone()))
        };
        let refusal = || "this node is not settled in that view";
        let (current, me) = settled().ok_or_else(refusal)?;
        let is_its = |key: Key<'_>| current.owns(&me, key, 1);
        let mut page = self.table.page(cursor, PAGE, LOOKS, |_| true, is_its);
        page.entries.retain(|(_, entry)| !entry.is_tombstone());
        // Keys are dropped only after the view has changed.
        settled().ok_or_else(refusal)?;
        Ok(page)
    }

    /// What the table holds. A key that is not there may have been dropped while it was
    /// looked for: then `entitled` is not true any more.
    fn own(&self, key: Key<'_>, entitled: impl Fn() -> bool) -> Option<Held> {
        let entry = self.table.read(key);
        (entry.is_some() || entitled()).then_some(entry)
    }
}

/// How many of the first of these fit an answer together, at least one.
fn fitting(held: &[Held]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Held| {
        let value = entry.as_ref().and_then(|entry| entry.value.as_ref());
        bytes += value.map_or(0, |value| value.len());
        bytes <= ANSWER
    };
    held.iter().take_while(fits).count().max(1).min(held.len())
}
