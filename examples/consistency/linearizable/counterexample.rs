//! `Counterexample`: a few operations of a history that have no order.
//!
//! It is found by removing operations as long as the rest has no order. What is removed never
//! causes the violation: a history with an order keeps it without
//!
//! * what starts after some time, if what is in progress at that time has no reply,
//! * a read,
//! * a write with all that needs its value, and what needs the value of a swap among those,
//! * a deletion that no read can have seen, because another write came between them,
//! * the condition of a swap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::search::Outcome;
use super::{Before, Kind, Operation};

/// Searches for one counterexample. It is not the smallest one if they do not suffice.
const MAX_SEARCHES: usize = 1000;

/// States that one of these searches visits.
const MAX_STATES: usize = 50_000;

/// The operations with which the reduction starts. More are added if they have an order.
const FIRST_OPERATIONS: usize = 16;

/// A few operations of a history that have no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// The values that the key may have had before.
    pub before: Vec<Option<u64>>,
    /// The operations by their start. Without one of them, the others may have an order.
    pub operations: Vec<Operation>,
}

/// Removes operations from a history that has no order.
struct Reduction<'a> {
    before: &'a Before,
    operations: Vec<Operation>,
    limit: usize,
    searches: usize,
    /// It is certain that `operations` have no order.
    has_no_order: bool,
}

impl Counterexample {
    /// Reduces `part`, which may have no order after `before`: the search did not get beyond
    /// `time`. `is_certain`: it has none. None if it may have one.
    pub(super) fn find(
        before: &Before,
        part: &[Operation],
        time: u64,
        limit: usize,
        is_certain: bool,
    ) -> Option<Counterexample> {
        let mut operations = part.to_vec();
        operations.retain(|operation| !is_read(operation) || operation.end.is_some());
        operations.sort_by_key(|operation| operation.start);
        let mut reduction = Reduction {
            before,
            operations,
            limit: limit.min(MAX_STATES),
            searches: 0,
            has_no_order: is_certain,
        };
        reduction.narrow(time);
        if !reduction.has_no_order {
            return None;
        }
        reduction.cut_at(time);
        let mut size = usize::MAX;
        while reduction.size() < size {
            size = reduction.size();
            reduction.remove_all(Reduction::groups);
            reduction.remove_all(Reduction::reads);
            reduction.drop_conditions();
        }
        reduction.add_earlier();
        Some(Counterexample {
            before: before.values.keys().copied().collect(),
            operations: reduction.operations,
        })
    }
}

impl Reduction<'_> {
    /// Keeps only the last operations that ended before `time`, and those that belong to them.
    fn narrow(&mut self, time: u64) {
        let all = 0..self.operations.len();
        let end = |index: &usize| self.operations[*index].end.filter(|end| *end <= time);
        let mut last: Vec<usize> = all.filter(|index| end(index).is_some()).collect();
        last.sort_by_key(|index| Reverse(end(index)));
        let groups = self.groups();
        let size = self.operations.len();
        let mut kept = FIRST_OPERATIONS;
        while kept < last.len() && self.operations.len() == size {
            let kept_ones: BTreeSet<usize> = last[..kept].iter().copied().collect();
            let is_kept = |group: &&Vec<usize>| group.iter().any(|i| kept_ones.contains(i));
            let removed = groups.iter().filter(|group| !is_kept(group));
            self.remove(&removed.cloned().collect::<Vec<_>>());
            kept *= 2;
        }
    }

    /// Removes what starts after `time`, and the replies after it.
    fn cut_at(&mut self, time: u64) {
        let mut operations = self.operations.clone();
        for operation in &mut operations {
            operation.end = operation.end.filter(|end| *end <= time);
        }
        operations.retain(|o| o.start <= time && (!is_read(o) || o.end.is_some()));
        self.replace(operations);
    }

    /// Removes as many of `groups` as possible: first many at once, at last each alone. A group
    /// is given by the indexes of its operations.
    fn remove_all(&mut self, groups: impl Fn(&Self) -> Vec<Vec<usize>>) {
        let mut size = groups(self).len().div_ceil(2);
        while size > 0 {
            let mut first = 0;
            loop {
                let all = groups(self);
                let Some(rest) = all.get(first..).filter(|rest| !rest.is_empty()) else {
                    break;
                };
                let removed = rest[..size.min(rest.len())].to_vec();
                if self.searches >= MAX_SEARCHES {
                    return;
                }
                let before = self.operations.len();
                self.remove(&removed);
                if self.operations.len() == before {
                    first += size;
                }
            }
            size /= 2;
        }
    }

    /// How many operations and conditions there are.
    fn size(&self) -> usize {
        let is_swap = |operation: &&Operation| matches!(operation.kind, Kind::Swap { .. });
        self.operations.len() + self.operations.iter().filter(is_swap).count()
    }

    /// Makes plain writes and deletions of as many swaps as possible.
    fn drop_conditions(&mut self) {
        for index in 0..self.operations.len() {
            let Kind::Swap { to, .. } = self.operations[index].kind else {
                continue;
            };
            let mut operations = self.operations.clone();
            operations[index].kind = to.map_or(Kind::Delete, Kind::Write);
            if self.searches < MAX_SEARCHES {
                self.replace(operations);
            }
        }
    }

    /// Each write with all that needs its value, each read of no value and each deletion.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut of_value: BTreeMap<u64, usize> = BTreeMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            let kind = operation.kind;
            let values = [kind.value(), kind.needs().flatten()];
            let mut known = values
                .iter()
                .flatten()
                .filter_map(|value| of_value.get(value));
            let group = known.next().copied().unwrap_or(groups.len());
            let other = known.next().copied().filter(|other| *other != group);
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(index);
            if let Some(other) = other {
                let moved = std::mem::take(&mut groups[other]);
                groups[group].extend(moved);
                let of_other = of_value.values_mut().filter(|of| **of == other);
                of_other.for_each(|of| *of = group);
            }
            of_value.extend(values.into_iter().flatten().map(|value| (value, group)));
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// Each read.
    fn reads(&self) -> Vec<Vec<usize>> {
        let all = 0..self.operations.len();
        let reads = all.filter(|index| is_read(&self.operations[*index]));
        reads.map(|index| vec![index]).collect()
    }

    /// Removes groups if the rest has no order. A group stays with a deletion that a read may have
    /// seen.
    fn remove(&mut self, groups: &[Vec<usize>]) {
        let all = || self.operations.iter().enumerate();
        let is_deletion = |index: &usize| {
            let operation = &self.operations[*index];
            operation.kind.value().is_none() && !is_read(operation)
        };
        let mut is_removed = vec![false; self.operations.len()];
        let (deletions, others): (Vec<_>, Vec<_>) = groups
            .iter()
            .partition(|group| group.iter().any(is_deletion));
        for index in others.into_iter().flatten() {
            is_removed[*index] = true;
        }
        let misses = all().filter(|(index, operation)| {
            operation.kind.needs() == Some(None) && !is_removed[*index]
        });
        let misses: Vec<(usize, Operation)> = misses.map(|(index, miss)| (index, *miss)).collect();
        for group in deletions {
            // A deletion that was removed hides no other one.
            let hides = |index: &usize| !is_deletion(index) || !is_removed[*index];
            let writes = all().filter(|(index, operation)| !is_read(operation) && hides(index));
            let writes: Vec<&Operation> = writes.map(|(_, operation)| operation).collect();
            let is_seen = |index: &usize| {
                let delete = &self.operations[*index];
                let is_between = |miss: &Operation| {
                    let hides =
                        |write: &&Operation| is_before(delete, write) && is_before(write, miss);
                    writes.iter().any(hides)
                };
                let sees = |(other, miss): &(usize, Operation)| {
                    other != index && !is_before(miss, delete) && !is_between(miss)
                };
                misses.iter().any(sees)
            };
            if !group
                .iter()
                .any(|index| is_deletion(index) && is_seen(index))
            {
                group.iter().for_each(|index| is_removed[*index] = true);
            }
        }
        let rest = all().filter(|(index, _)| !is_removed[*index]);
        let rest: Vec<Operation> = rest.map(|(_, operation)| *operation).collect();
        if rest.len() < self.operations.len() {
            self.replace(rest);
        }
    }

    /// Adds the operations of earlier parts that have no reply, as far as a read may have seen
    /// them.
    fn add_earlier(&mut self) {
        let unknown = |start: u64, kind| Operation {
            start,
            end: None,
            kind,
        };
        let certain = self.before.certain(&self.operations);
        let with_reply = self.operations.iter().filter(|o| o.end.is_some()).count();
        let swaps = certain[with_reply..].iter();
        self.operations
            .extend(swaps.map(|swap| unknown(swap.start, swap.kind)));
        let is_returned = |value| {
            let mut all = self.operations.iter();
            all.any(|operation| operation.kind.needs() == Some(value))
        };
        let writes = self.before.writes.iter();
        let writes = writes.filter(|(value, _)| is_returned(Some(**value)));
        let mut earlier: Vec<Operation> = writes
            .map(|(value, start)| unknown(*start, Kind::Write(*value)))
            .collect();
        if is_returned(None) {
            let deletes = self.before.deletes.iter();
            earlier.extend(deletes.map(|start| unknown(*start, Kind::Delete)));
        }
        self.operations.extend(earlier);
        self.operations.sort_by_key(|operation| operation.start);
    }

    /// Continues with `operations` if they have no order.
    fn replace(&mut self, operations: Vec<Operation>) {
        self.searches += 1;
        let outcome = self.before.search(&operations).run(self.limit);
        if matches!(outcome, Outcome::Stuck { .. }) {
            self.has_no_order = true;
            self.operations = operations;
        }
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let began = self.operations.first().map_or(0, |first| first.start);
        let before: Vec<String> = self.before.iter().map(|value| name(*value)).collect();
        write!(
            f,
            "no order of these operations explains what was read; before: {}; times in ns since \
             {began}",
            before.join(" or ")
        )?;
        for Operation { start, end, kind } in &self.operations {
            let end = end.map_or("no reply".into(), |end| (end - began).to_string());
            let kind = match kind {
                Kind::Write(value) => format!("write {value}"),
                Kind::Delete => "delete".into(),
                Kind::Read(value) => format!("read: {}", name(*value)),
                Kind::Swap { from, to } => format!("from {} to {}", name(*from), name(*to)),
            };
            write!(f, "\n  {} to {end}: {kind}", start - began)?;
        }
        Ok(())
    }
}

fn name(value: Option<u64>) -> String {
    value.map_or("no value".into(), |value| value.to_string())
}

fn is_read(operation: &Operation) -> bool {
    matches!(operation.kind, Kind::Read(_))
}

/// Did `one` end before `other` started?
fn is_before(one: &Operation, other: &Operation) -> bool {
    one.end.is_some_and(|end| end < other.start)
}
