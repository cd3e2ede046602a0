//! Is the history of one key linearizable? That is: is there an order of its operations in which
//! each read returns the value of the last write before it, and in which an operation that ended
//! before another one started comes before it?
//!
//! The search is the one of Wing and Gong ("Testing and verifying concurrent objects", 1993) with
//! the cache of Lowe ("Testing for linearizability", 2017). It extends orders operation by
//! operation, and visits each pair of (operations ordered so far, current value) only once. See
//! [`search`]. Three facts keep it small:
//!
//! * Each write has a value of its own, so a read names its write.
//! * An operation without a reply may have taken effect at any time after its start, or never. A
//!   read without a reply is dropped. A [`Swap`](Kind::Swap) without a reply has taken effect only
//!   if its value is read: otherwise the history has an order without it too.
//! * If no operation is in progress, the history can be cut: of the operations before the cut only
//!   the possible values and the writes without a reply matter for those after it. [`Checker`]
//!   checks one part after another in bounded memory.
//!
//! The module knows no socket and no clock. Times are nanoseconds of any one monotonic clock.
//! Operations whose times touch (one ends when the other starts) count as concurrent.

use std::collections::BTreeMap;

#[path = "linearizable/counterexample.rs"] // So that this file can be loaded by its path too.
mod counterexample;
#[path = "linearizable/search.rs"]
mod search;

pub use counterexample::Counterexample;
use search::{Outcome, Search};

/// An operation on the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// When the call began, before anything was sent.
    pub start: u64,
    /// When its reply was received. None if there was none, or if it was an error: the operation
    /// may take effect at any time after its start, or never.
    pub end: Option<u64>,
    /// What was called, and what a read returned.
    pub kind: Kind,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes this value. No other write of the history has it.
    Write(u64),
    /// Deletes the key.
    Delete,
    /// Returned this value, or none.
    Read(Option<u64>),
    /// Found the value `from` and replaced it by `to` in one step: a conditional write. No other
    /// write of the history has the value `to`. Without a reply, one to no value counts as a deletion.
    Swap { from: Option<u64>, to: Option<u64> },
}

impl Kind {
    /// The value that the key has after the operation.
    fn value(self) -> Option<u64> {
        match self {
            Kind::Write(value) => Some(value),
            Kind::Delete => None,
            Kind::Read(value) => value,
            Kind::Swap { to, .. } => to,
        }
    }

    /// The value that the key must have before the operation, if it must have a certain one.
    fn needs(self) -> Option<Option<u64>> {
        match self {
            Kind::Read(value) | Kind::Swap { from: value, .. } => Some(value),
            Kind::Write(_) | Kind::Delete => None,
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none. The operations that show it.
    Violation(Counterexample),
    /// The search was ended at its limit.
    Undecided,
}

/// Checks the whole history of a key that has no value before it. Visits at most `limit` pairs
/// of (ordered operations, value); a pair takes some hundred bytes while the check runs.
pub fn check(history: &[Operation], limit: usize) -> Verdict {
    Checker::new(limit).check(history)
}

/// Checks the history of a key part by part.
#[derive(Debug, Clone)]
pub struct Checker {
    limit: usize,
    before: Before,
}

/// What the operations before a part have left.
#[derive(Debug, Clone, Default)]
struct Before {
    /// The values that the key may have, each with the fewest of `deletes` that it takes.
    values: BTreeMap<Option<u64>, usize>,
    /// The writes without a reply whose value was not read yet: value and start.
    writes: BTreeMap<u64, u64>,
    /// The starts of the deletions without a reply, sorted.
    deletes: Vec<u64>,
    /// The swaps without a reply whose value was not read yet: start and `from`, by `to`.
    swaps: BTreeMap<u64, (u64, Option<u64>)>,
}

impl Checker {
    /// A checker of a key that has no value yet. `limit` as for [`check`].
    pub fn new(limit: usize) -> Checker {
        let mut before = Before::default();
        before.values.insert(None, 0);
        Checker { limit, before }
    }

    /// Checks the next part of the history. All its operations start after those of earlier
    /// parts that have an end have ended.
    ///
    /// After a violation, or if it is undecided, the next part may begin with any value of this
    /// part. So one fault is seldom found twice.
    pub fn check(&mut self, part: &[Operation]) -> Verdict {
        let outcome = self.before.search(part).run(self.limit);
        let find = |time, is_certain| {
            Counterexample::find(&self.before, part, time, self.limit, is_certain)
        };
        let found = match outcome {
            Outcome::Ordered { .. } => None,
            Outcome::Stuck { time } => find(time, true),
            Outcome::Undecided { time } => find(time, false),
        };
        let verdict = match (found, &outcome) {
            (Some(found), _) => Verdict::Violation(found),
            (None, Outcome::Ordered { .. }) => Verdict::Linearizable,
            (None, _) => Verdict::Undecided,
        };
        self.before.add(part);
        match outcome {
            Outcome::Ordered { values } => self.before.values = values,
            Outcome::Stuck { .. } | Outcome::Undecided { .. } => self.before.allow_any(part),
        }
        verdict
    }
}

impl Before {
    /// The search for an order of a part.
    fn search(&self, part: &[Operation]) -> Search {
        let mut all = self.clone();
        all.add_unknown(part);
        Search::new(all, part)
    }

    /// Adds the writes and deletions of a part that have no reply.
    fn add_unknown(&mut self, part: &[Operation]) {
        for operation in part.iter().filter(|operation| operation.end.is_none()) {
            match operation.kind {
                Kind::Write(value) => drop(self.writes.insert(value, operation.start)),
                Kind::Delete | Kind::Swap { to: None, .. } => self.deletes.push(operation.start),
                Kind::Swap { from, to: Some(to) } => {
                    self.swaps.insert(to, (operation.start, from));
                }
                Kind::Read(_) => (),
            }
        }
        self.deletes.sort_unstable();
    }

    /// Adds the operations of a part that was checked, except for the possible values.
    fn add(&mut self, part: &[Operation]) {
        self.add_unknown(part);
        for operation in self.certain(part) {
            if let Some(Some(value)) = operation.kind.needs() {
                self.writes.remove(&value);
                self.swaps.remove(&value);
            }
        }
    }

    /// The operations of a part that have taken effect: those with a reply, and the swaps of this
    /// part or an earlier one whose value another one of them needs. Such a swap ended at the latest
    /// with the first of those.
    fn certain(&self, part: &[Operation]) -> Vec<Operation> {
        let with_reply = part.iter().filter(|operation| operation.end.is_some());
        let mut certain: Vec<Operation> = with_reply.copied().collect();
        let needs = |operation: &Operation| Some((operation.kind.needs()??, operation.end?));
        let mut open: Vec<(u64, u64)> = certain.iter().filter_map(needs).collect();
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        while let Some((to, end)) = open.pop() {
            let Some((_, from)) = self.swaps.get(&to) else {
                continue;
            };
            if ends.get(&to).is_none_or(|known| end < *known) {
                ends.insert(to, end);
                open.extend(from.map(|from| (from, end)));
            }
        }
        certain.extend(ends.into_iter().map(|(to, end)| {
            let (start, from) = self.swaps[&to];
            let (end, to) = (Some(end), Some(to));
            let kind = Kind::Swap { from, to };
            Operation { start, end, kind }
        }));
        certain
    }

    /// Adds every value of a part, and none, to the possible values.
    fn allow_any(&mut self, part: &[Operation]) {
        self.values.insert(None, 0);
        for operation in part.iter().filter(|operation| operation.end.is_some()) {
            self.values.insert(operation.kind.value(), 0);
        }
    }
}
