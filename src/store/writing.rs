//! Writing keys: at their primaries, who bring each write to all its owners.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use super::copies::{Copy, Outcome};
use super::limits::LONGEST_VALUE;
use super::moves::Write;
use super::operations::{Client, PATIENCE, Refusal, Store, TURNS, reason, unix_millis};
use super::table::Key;
use super::versions::{Entry, Held, Value};
use super::view::Peer;
use super::wire::{pair, read_pair};
use crate::diststore::{Declined, Kept, Pair, TStoreSyncClient, Written};
use crate::location::Location;
use crate::side_by_side::side_by_side;

/// Primaries that are asked at the same time for pairs of one call.
const SIDE_BY_SIDE: usize = 8;

/// The version that says "I am not the primary of this key".
pub(crate) const NOT_PRIMARY: i64 = -1;

/// What is to be written for a key: a value, or, without one, the mark of a deletion.
pub type Assignment = (Vec<u8>, Option<Value>);

/// Copies that are still to be sent, and for each its write's place and its owner.
type Missing = (Vec<(Location, Copy)>, Vec<(usize, Peer)>);

/// A write that this node carries out as its primary.
struct Begun<'a> {
    /// Which of the pairs that are written it is.
    place: usize,
    key: Key<'a>,
    write: Write,
    /// What is to be applied; of version 0 until it has one.
    entry: Entry,
    existed: bool,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Some owners may not have it.
    UnderWay,
    /// All others have it, so that it may be applied here; or there is nothing to be written.
    Everywhere,
    /// An owner declined it.
    Declined,
}

impl Store {
    /// Writes `value`, or, without one, the mark of a deletion, and returns when it
    /// is in place on all owners of the key. May block for ten seconds.
    ///
    /// # Errors
    /// The key or the value is too long, an owner has no room, or no primary could
    /// be found in that time. The write may have taken effect on some owners.
    pub fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> Result<Written, Refusal> {
        let value = value.map(|value| Value::of(key, value));
        let written = self.write_many(&[(key.to_vec(), value)])?;
        Ok(written.into_iter().next().unwrap_or_default())
    }

    /// [`write`](Store::write) of several pairs, each key by itself: they do not take
    /// effect at one instant. Of one key's values the last one stays.
    ///
    /// # Errors
    /// As for one pair, or all of them are too long together. Any of the writes may have
    /// taken effect.
    pub fn write_many(&self, pairs: &[Assignment]) -> Result<Vec<Written>, Refusal> {
        self.check_lengths(pairs)?;
        if self.node.has_originals() {
            for (key, value) in pairs {
                self.put_through_to_original(key, value.as_deref().unwrap_or_default());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut written: Vec<Option<Written>> = vec![None; pairs.len()];
        loop {
            let groups = self.by_primary(pairs, &written);
            let outcomes = side_by_side(&groups, SIDE_BY_SIDE, |(primary, places)| {
                let pairs: Vec<&Assignment> = places.iter().map(|place| &pairs[*place]).collect();
                (places, self.write_at(primary, &pairs, deadline))
            });
            for (places, outcome) in outcomes {
                for (place, outcome) in places.iter().zip(outcome?) {
                    written[*place] = outcome;
                }
            }
            if written.iter().all(Option::is_some) {
                return Ok(written.into_iter().flatten().collect());
            }
            self.wait_until(deadline).map_err(
                |()| "the primary and all owners of the key could not be reached in time",
            )?;
        }
    }

    fn check_lengths(&self, pairs: &[Assignment]) -> Result<(), Refusal> {
        let mut all = 0;
        for (key, value) in pairs {
            let value = value.as_ref().map_or(0, |value| value.len());
            self.limits.check(key.len(), value, 0, 0)?;
            all += value;
        }
        if all > LONGEST_VALUE {
            return Err(format!(
                "values of {all} bytes in one call; {LONGEST_VALUE} are taken"
            ));
        }
        Ok(())
    }

    /// The places of the pairs that are not written yet, with their primaries.
    fn by_primary(
        &self,
        pairs: &[Assignment],
        written: &[Option<Written>],
    ) -> Vec<(Peer, Vec<usize>)> {
        let mut groups: Vec<(Peer, Vec<usize>)> = Vec::new();
        let moves = self.moves();
        for (place, (key, _)) in pairs.iter().enumerate() {
            let Some(primary) = moves
                .primary(Key::new(key))
                .filter(|_| written[place].is_none())
            else {
                continue;
            };
            match groups.iter_mut().find(|(peer, _)| *peer == primary) {
                Some((_, places)) => places.push(place),
                None => groups.push((primary, vec![place])),
            }
        }
        groups
    }

    fn write_at(
        &self,
        primary: &Peer,
        pairs: &[&Assignment],
        deadline: Instant,
    ) -> Result<Vec<Option<Written>>, Refusal> {
        if primary.location == *self.node.location() {
            self.coordinate(primary, pairs, deadline)
        } else {
            self.forward(primary, pairs)
        }
    }

    /// Asks another node to write as the primary; nothing for what it is not (yet, or any
    /// more) the primary of, or if it is not there.
    fn forward(
        &self,
        primary: &Peer,
        pairs: &[&Assignment],
    ) -> Result<Vec<Option<Written>>, Refusal> {
        let to_wire = |(key, value): &&Assignment| {
            let value = value.clone();
            pair(key.clone(), &Entry { version: 0, value })
        };
        let send = |client: &mut Client| {
            client.coordinate(pairs.iter().map(to_wire).collect(), primary.started)
        };
        match self.primaries.call(&primary.location, send) {
            Ok(written) => Ok(written
                .into_iter()
                .map(|written| Some(written).filter(|it| it.version != Some(NOT_PRIMARY)))
                .collect()),
            Err(e) if e.is_unreachable() => {
                self.node.unreachable(&primary.location, &e);
                Ok(Vec::new())
            }
            Err(e) => Err(reason(&e)),
        }
    }

    /// Writes as `primary`; nothing comes of what this node is not (yet, or any more)
    /// the primary of, or could not bring to all owners by the deadline. May block.
    ///
    /// A request may have waited while this process was stopped and taken for dead.
    /// Whoever sent it has long turned to another primary, and an old value must not
    /// come back with a new version: so the process that was meant is named.
    pub(super) fn coordinate(
        &self,
        primary: &Peer,
        pairs: &[&Assignment],
        deadline: Instant,
    ) -> Result<Vec<Option<Written>>, Refusal> {
        let mut written = vec![None; pairs.len()];
        let keys: Vec<Key<'_>> = pairs.iter().map(|(key, _)| Key::new(key)).collect();
        let _turns = self.turns(&keys);
        if Instant::now() >= deadline {
            // Whoever asked has given up, and may have written something newer since.
            return Ok(written);
        }
        // The time of the write is when this node was known to be the primary: one that
        // is stopped here, and given up, must not come back with a larger version.
        let now = unix_millis();
        let mut begun = self.begin(primary, pairs, &keys);
        let outcome = self.carry_out(&mut begun, now, deadline);
        let mut moves = self.moves();
        for begun in begun {
            let answer = Written::new(begun.entry.version, begun.existed);
            let is_acknowledged = moves.end_write(begun.write);
            if is_acknowledged && begun.progress == Progress::Everywhere {
                written[begun.place] = Some(answer);
            }
        }
        drop(moves);
        outcome.map(|()| written)
    }

    /// Begins the writes whose primary this node is, if it is the process that is meant.
    fn begin<'a>(&self, primary: &Peer, pairs: &[&Assignment], keys: &[Key<'a>]) -> Vec<Begun<'a>> {
        let mut moves = self.moves();
        if moves.me() != primary {
            return Vec::new();
        }
        let begin = |(place, key): (usize, &Key<'a>)| {
            let value = pairs[place].1.clone();
            Some(Begun {
                place,
                key: *key,
                write: moves.begin_write(*key)?,
                entry: Entry { version: 0, value },
                existed: false,
                progress: Progress::UnderWay,
            })
        };
        keys.iter().enumerate().filter_map(begin).collect()
    }

    /// Gives each write its version and brings it everywhere.
    fn carry_out(
        &self,
        begun: &mut [Begun<'_>],
        now: i64,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let keys: Vec<Key<'_>> = begun.iter().map(|begun| begun.key).collect();
        let newest = self.newest(&keys, deadline)?;
        self.give_versions(begun, newest, now);
        let mut outcome = self.check_room(begun.iter().map(|begun| (begun.key, &begun.entry)));
        if outcome.is_ok() {
            outcome = self.spread(begun, deadline);
        }
        for begun in begun {
            let entry = begun.entry.clone();
            if begun.progress != Progress::Everywhere {
                self.moves().abandon(entry.version);
            } else if entry.value.is_some() || begun.existed {
                self.table.apply(begun.key, entry);
            }
        }
        outcome
    }

    /// Gives versions that are larger than the newest of the key, which is, after its first
    /// write here, the one before. A deletion of what is not there has been done.
    fn give_versions(&self, begun: &mut [Begun<'_>], mut newest: Vec<Held>, now: i64) {
        let mut order: Vec<usize> = (0..begun.len()).collect();
        order.sort_by_key(|at| begun[*at].key);
        let moves = self.moves();
        for nth in 0..order.len() {
            let at = order[nth];
            let before = nth.checked_sub(1).map(|nth| order[nth]);
            let newest =
                match before.filter(|before| begun[*before].key.bytes == begun[at].key.bytes) {
                    Some(before) => Some(begun[before].entry.clone()),
                    None => newest[at].take(),
                };
            let begun = &mut begun[at];
            begun.existed = newest.as_ref().is_some_and(|entry| !entry.is_tombstone());
            let newest = newest.map_or(0, |entry| entry.version);
            if begun.entry.value.is_none() && !begun.existed {
                begun.entry.version = newest;
                begun.progress = Progress::Everywhere;
                continue;
            }
            let own = self.table.version(begun.key).unwrap_or_default();
            begun.entry.version = moves.version(now, newest.max(own));
        }
    }

    /// Brings every entry to all its owners in every view but this node, until the
    /// deadline at the most.
    ///
    /// # Errors
    /// Why an owner declined one of them; the others are brought everywhere all the same.
    fn spread(&self, begun: &mut [Begun<'_>], deadline: Instant) -> Result<(), Refusal> {
        let mut refusal = Ok(());
        loop {
            let (copies, owners) = self.missing_copies(begun);
            if copies.is_empty() {
                return refusal;
            }
            let mut all_reached = true;
            for (outcome, (at, owner)) in self.copies.send(copies).into_iter().zip(owners) {
                match self.reached(&owner, outcome) {
                    Ok(true) => begun[at].write.reached(owner),
                    Ok(false) => all_reached = false,
                    Err(why) => {
                        begun[at].progress = Progress::Declined;
                        refusal = Err(why);
                    }
                }
            }
            if !all_reached && self.wait_until(deadline).is_err() {
                return refusal;
            }
        }
    }

    /// The copies that are still to be sent, each with its write's place and its owner.
    fn missing_copies(&self, begun: &mut [Begun<'_>]) -> Missing {
        let (mut copies, mut owners) = (Vec::new(), Vec::new());
        let moves = self.moves();
        let view = moves.current().id();
        for (at, begun) in begun.iter_mut().enumerate() {
            if begun.progress != Progress::UnderWay {
                continue;
            }
            let targets = moves.targets(&begun.write, begun.key);
            if targets.is_empty() {
                begun.progress = Progress::Everywhere;
            }
            for owner in targets {
                let copy = Copy::new(begun.key, &begun.entry, view);
                copies.push((owner.location.clone(), copy));
                owners.push((at, owner));
            }
        }
        (copies, owners)
    }

    /// Has the owner the copy, and is what it knows known here too, or is it found down?
    fn reached(&self, owner: &Peer, outcome: Outcome) -> Result<bool, Refusal> {
        match outcome {
            Outcome::Kept(theirs) if self.moves().knows(theirs) => Ok(true),
            Outcome::Kept(_) => Ok(self.node.contact(&owner.location).is_ok()),
            Outcome::Unreached => Ok(self.node.is_down(&owner.location)),
            Outcome::Declined(why) => Err(why),
        }
    }

    /// Keeps copies that a primary with that current view sends, but for those that there
    /// is no room for or that make no sense.
    pub(super) fn keep(&self, pairs: Vec<Pair>, view: u64) -> Kept {
        let moves = self.moves();
        if moves.current().id() != view {
            // Marked while the moves are held, as they are while a stripe is swept:
            // either that is over before the copy is here, or it sees the mark.
            *self.stray_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        drop(moves);
        let now = unix_millis();
        let keep_one = |(place, pair)| {
            let kept = read_pair(pair, now).and_then(|(key, entry)| self.keep_one(&key, entry));
            let reason = kept.err()?;
            Some(Declined::new(place as i32, reason))
        };
        let declined: Vec<_> = pairs.into_iter().enumerate().filter_map(keep_one).collect();
        Kept::new(self.moves().current().id() as i64, declined)
    }

    fn keep_one(&self, key: &[u8], entry: Entry) -> Result<(), Refusal> {
        let key = Key::new(key);
        self.check_room(std::iter::once((key, &entry)))?;
        self.table.apply(key, entry);
        Ok(())
    }

    /// The turns of these keys to be written; keys share turns. Taken in the order of
    /// their numbers, so that no two writers wait for each other.
    fn turns(&self, keys: &[Key<'_>]) -> Vec<MutexGuard<'_, ()>> {
        let mut turns: Vec<usize> = keys.iter().map(|key| turn_of(*key)).collect();
        turns.sort_unstable();
        turns.dedup();
        let take = |turn: usize| {
            self.turns[turn]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        turns.into_iter().map(take).collect()
    }
}

fn turn_of(key: Key<'_>) -> usize {
    key.point as usize % TURNS
}
