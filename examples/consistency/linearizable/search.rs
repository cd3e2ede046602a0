//! `Search`: looks for an order of the operations of one part of a history.
//!
//! A [`State`] stands for all orders of the same operations that end in the same value. Those
//! operations are not listed: `pending` has the ones that could come next, and they determine
//! the rest. An operation could come next if it starts before all others that are not in the
//! order yet have ended.
//!
//! Which one comes next is tried out, except where one choice is as good as any other:
//!
//! * A read of the current value comes next at once: it changes nothing.
//! * A write whose value is read comes directly before its first read: when that read could come
//!   next too, or when the write is the first one to end. After the next write its value never
//!   returns, so the order continues only if all reads of the value are in it.
//! * A write that nobody reads comes directly before another write that hides it, as soon as
//!   there is one, or when it is the first one to end. Or it is the last write of the part, and
//!   later parts may read it.
//! * A swap hides no write, because it needs the value before it. If the current value is needed by a
//!   swap, that comes next: the value never returns. A swap of no value comes directly before its
//!   first reader too, and of several that nobody reads the one that ends first is used first.
//! * Of several deletions the one that ends first is used first, and one without a reply last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Before, Kind, Operation};

/// The states that are always visited after an order was found.
const MIN_LIMIT: usize = 5000;

/// What a search has found.
#[derive(Debug)]
pub enum Outcome {
    /// There is an order. The possible values at its end, as in [`Before`].
    Ordered {
        values: BTreeMap<Option<u64>, usize>,
    },
    /// There is none. In every order, an operation that ended at this time or earlier is missing.
    Stuck { time: u64 },
    /// The limit was reached. No order has all operations that ended at this time or earlier yet.
    Undecided { time: u64 },
}

/// The operations of a part, prepared for a search.
pub struct Search {
    before: Before,
    /// The operations with a reply, by their start.
    operations: Vec<Known>,
    /// The index of the write of each value.
    writes: HashMap<u64, usize>,
    /// The index of the last operation that needs each value.
    last_reads: HashMap<u64, usize>,
}

/// An operation with a reply.
struct Known {
    start: u64,
    end: u64,
    kind: Kind,
    readers: Readers,
}

/// Who may read what an operation writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Reads of the part.
    Here,
    /// Only reads of later parts: it may be the last write of this one.
    Later,
    /// Nobody.
    None,
}

/// All orders of the same operations that end in the same value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The operations that could come next: indexes, sorted.
    pending: Vec<usize>,
    /// The index of the first operation that starts later.
    next: usize,
    value: Option<u64>,
    /// How many of the deletions without a reply have taken effect.
    deletes: usize,
}

/// A write or deletion that comes next.
#[derive(Clone, Copy)]
struct Step {
    /// Its index. None if it has no reply.
    operation: Option<usize>,
    value: Option<u64>,
    /// As in [`State`], after it.
    deletes: usize,
    /// It must be the last write of the part.
    is_last: bool,
}

impl Search {
    /// The search for an order of `part`. `before` has the part's operations without a reply.
    pub fn new(before: Before, part: &[Operation]) -> Search {
        let certain = before.certain(part);
        let known = certain.iter().filter_map(|operation| {
            Some(Known {
                start: operation.start,
                end: operation.end?,
                kind: operation.kind,
                readers: Readers::Here,
            })
        });
        let mut operations: Vec<Known> = known.collect();
        operations.sort_by_key(|operation| operation.start);
        let (mut writes, mut last_reads) = (HashMap::new(), HashMap::new());
        for (index, operation) in operations.iter().enumerate() {
            match operation.kind {
                Kind::Write(value) => drop(writes.insert(value, index)),
                Kind::Read(Some(value)) => drop(last_reads.insert(value, index)),
                Kind::Delete | Kind::Read(None) => (),
                Kind::Swap { from, to } => {
                    writes.extend(to.map(|to| (to, index)));
                    last_reads.extend(from.map(|from| (from, index)));
                }
            }
        }
        mark_readers(&mut operations, &last_reads);
        Search {
            before,
            operations,
            writes,
            last_reads,
        }
    }

    /// Visits at most `limit` states until there is an order, and then about as many again, to
    /// find out with which values one can end. Values that it does not get to are possible ones.
    pub fn run(&self, limit: usize) -> Outcome {
        let mut values = BTreeMap::new();
        let last_values = self.last_values();
        let (mut time, mut limit) = (0, limit);
        let first = self.before.values.iter().map(|(value, deletes)| State {
            pending: Vec::new(),
            next: 0,
            value: *value,
            deletes: *deletes,
        });
        let mut open: Vec<State> = first.map(|state| self.with_reads(state)).collect();
        let mut found: HashSet<State> = open.iter().cloned().collect();
        while let Some(state) = open.pop() {
            if found.len() > limit {
                return match values.is_empty() {
                    true => Outcome::Undecided { time },
                    false => self.ordered(last_values),
                };
            }
            if let Some(end) = self.first_end(&state) {
                time = time.max(end);
                self.add_successors(&state, &mut found, &mut open);
                continue;
            }
            if values.is_empty() {
                limit = limit.min(2 * found.len() + MIN_LIMIT);
            }
            let deletes = values.entry(state.value).or_insert(state.deletes);
            *deletes = state.deletes.min(*deletes);
            if self.before.deletes.is_empty() && values.keys().eq(&last_values) {
                break;
            }
        }
        if values.is_empty() {
            return Outcome::Stuck { time };
        }
        Outcome::Ordered { values }
    }

    /// The part has an order, and all of `values` may be the last one.
    fn ordered(&self, values: BTreeSet<Option<u64>>) -> Outcome {
        let deletes = self.before.values.values().min().copied();
        let values = values.into_iter();
        let values = values.map(|value| (value, deletes.unwrap_or(0)));
        Outcome::Ordered {
            values: values.collect(),
        }
    }

    /// The values that may be the last one, by the times of the operations.
    fn last_values(&self) -> BTreeSet<Option<u64>> {
        let changes = self.operations.iter();
        let changes = changes.filter(|operation| !matches!(operation.kind, Kind::Read(_)));
        let last_start = changes.clone().map(|operation| operation.start).max();
        let last = changes.filter(|operation| last_start <= Some(operation.end));
        let mut values: BTreeSet<Option<u64>> =
            last.map(|operation| operation.kind.value()).collect();
        if values.is_empty() {
            values.extend(self.before.values.keys());
        }
        let read = self.last_reads.keys().map(|value| Some(*value));
        values.extend(
            read.filter(|value| value.is_some_and(|v| self.before.writes.contains_key(&v))),
        );
        let is_missed = |operation: &Known| operation.kind.needs() == Some(None);
        if !self.before.deletes.is_empty() && self.operations.iter().any(is_missed) {
            values.insert(None);
        }
        values
    }

    /// Adds the states after the next write or deletion to `open`, if they were not found before.
    fn add_successors(&self, state: &State, found: &mut HashSet<State>, open: &mut Vec<State>) {
        let mut steps = self.steps(state);
        // The one that must come first is visited first: it is added last.
        steps.sort_by_key(|step| Reverse(self.deadline(state, step)));
        for step in steps {
            let mut add = |hidden: State| {
                let state = self.with_reads(apply(hidden, step));
                let is_allowed = !step.is_last || state.pending.is_empty();
                if is_allowed && found.insert(state.clone()) {
                    open.push(state);
                }
            };
            let (hidden, may_be_last) = self.hide_unread(state.clone(), step, None);
            for last in may_be_last {
                add(self.hide_unread(state.clone(), step, Some(last)).0);
            }
            add(hidden);
        }
    }

    /// The writes and deletions that may come next and are not hidden by the one after them.
    fn steps(&self, state: &State) -> Vec<Step> {
        let is_read_later = |value: &u64| {
            let last = self.last_reads.get(value);
            last.is_some_and(|last| *last >= state.next)
        };
        let Some(first_end) = self
            .first_end(state)
            .filter(|_| !state.value.iter().any(is_read_later))
        else {
            return Vec::new();
        };
        let step = |operation: Option<usize>, value: Option<u64>| Step {
            operation,
            value,
            deletes: state.deletes,
            is_last: false,
        };
        let mut steps = Vec::new();
        let pending = || state.pending.iter().copied();
        let needs = |index: &usize| self.operations[*index].kind.needs();
        let swaps: Vec<usize> = pending()
            .filter(|index| needs(index) == Some(state.value))
            .collect();
        let swap = |index: usize| step(Some(index), self.operations[index].kind.value());
        match swaps[..] {
            [only] if state.value.is_some() => return vec![swap(only)],
            // After one of them, the value that the others need never returns.
            [_, _, ..] if state.value.is_some() => return Vec::new(),
            _ => (),
        }
        let unread = swaps
            .iter()
            .filter(|index| self.operations[**index].readers == Readers::None);
        let first_unread = unread.min_by_key(|index| self.operations[**index].end);
        let is_chosen = |index: &usize| {
            let operation = &self.operations[*index];
            match operation.readers {
                Readers::None => first_unread == Some(index),
                Readers::Later => true,
                Readers::Here => {
                    let is_read = |other| needs(&other) == Some(operation.kind.value());
                    operation.end == first_end || pending().any(is_read)
                }
            }
        };
        steps.extend(
            swaps
                .iter()
                .filter(|index| is_chosen(index))
                .map(|index| swap(*index)),
        );
        let mut misses = false;
        let mut delete: Option<usize> = None;
        for &index in &state.pending {
            let operation = &self.operations[index];
            match operation.kind {
                Kind::Read(None) | Kind::Swap { from: None, .. } => misses = true,
                Kind::Read(Some(value))
                | Kind::Swap {
                    from: Some(value), ..
                } => match self.writes.get(&value) {
                    Some(write) => {
                        let is_write = self.operations[*write].kind.needs().is_none();
                        if is_write && state.pending.contains(write) {
                            steps.push(step(Some(*write), Some(value)));
                        }
                    }
                    None => {
                        let start = self.before.writes.get(&value);
                        if start.is_some_and(|start| *start <= first_end) {
                            steps.push(step(None, Some(value)));
                        }
                    }
                },
                Kind::Write(value)
                    if operation.end == first_end || operation.readers == Readers::Later =>
                {
                    steps.push(Step {
                        is_last: operation.end > first_end,
                        ..step(Some(index), Some(value))
                    });
                }
                Kind::Write(_) => (),
                Kind::Delete => {
                    let is_earlier = |other: usize| operation.end < self.operations[other].end;
                    if delete.is_none_or(is_earlier) {
                        delete = Some(index);
                    }
                }
            }
        }
        let unknown = self.before.deletes.get(state.deletes);
        match delete {
            Some(index) => steps.push(step(Some(index), None)),
            None if misses && unknown.is_some_and(|start| *start <= first_end) => {
                steps.push(Step {
                    deletes: state.deletes + 1,
                    ..step(None, None)
                });
            }
            None => (),
        }
        steps
    }

    /// The first end of the operations that `step` lets come next.
    fn deadline(&self, state: &State, step: &Step) -> Option<u64> {
        let next = state.pending.iter().filter(|index| {
            let needs = self.operations[**index].kind.needs();
            step.operation == Some(**index) || needs == Some(step.value)
        });
        next.map(|index| self.operations[*index].end).min()
    }

    /// Lets all writes and deletions that nobody reads come next, before `step` hides them. But
    /// not `kept`. Returns those that may be the last of the part, too.
    fn hide_unread(
        &self,
        mut state: State,
        step: Step,
        kept: Option<usize>,
    ) -> (State, Vec<usize>) {
        let mut may_be_last = Vec::new();
        let needs = |index: usize| self.operations[index].kind.needs();
        if step.operation.and_then(needs).is_some() {
            return (state, may_be_last);
        }
        loop {
            let before = state.pending.len();
            state.pending.retain(|index| {
                let readers = self.operations[*index].readers;
                let stays = readers == Readers::Here
                    || needs(*index).is_some()
                    || [step.operation, kept].contains(&Some(*index));
                if !stays && readers == Readers::Later {
                    may_be_last.push(*index);
                }
                stays
            });
            if state.pending.len() == before {
                return (state, may_be_last);
            }
            self.add_pending(&mut state);
        }
    }

    /// Lets all reads of the current value come next.
    fn with_reads(&self, mut state: State) -> State {
        let current = Kind::Read(state.value);
        loop {
            self.add_pending(&mut state);
            let before = state.pending.len();
            state
                .pending
                .retain(|index| self.operations[*index].kind != current);
            if state.pending.len() == before {
                return state;
            }
        }
    }

    /// Adds the operations that could come next.
    fn add_pending(&self, state: &mut State) {
        let mut first_end = self.first_end(state);
        while let Some(operation) = self.operations.get(state.next) {
            if first_end.is_some_and(|end| operation.start > end) {
                break;
            }
            first_end = Some(first_end.map_or(operation.end, |end| end.min(operation.end)));
            state.pending.push(state.next);
            state.next += 1;
        }
    }

    /// The first end of an operation that is not in the order yet.
    fn first_end(&self, state: &State) -> Option<u64> {
        let ends = state
            .pending
            .iter()
            .map(|index| self.operations[*index].end);
        ends.min()
    }
}

/// The state after `step`.
fn apply(mut state: State, step: Step) -> State {
    state.pending.retain(|index| step.operation != Some(*index));
    State {
        value: step.value,
        deletes: step.deletes,
        ..state
    }
}

/// Finds out which writes and deletions nobody reads.
fn mark_readers(operations: &mut [Known], last_reads: &HashMap<u64, usize>) {
    let mut last_start = None;
    let mut last_miss = None;
    for operation in operations.iter() {
        if operation.kind.needs() == Some(None) {
            last_miss = last_miss.max(Some(operation.end));
        }
        if !matches!(operation.kind, Kind::Read(_)) {
            last_start = Some(operation.start);
        }
    }
    for operation in operations {
        let may_be_last = last_start <= Some(operation.end);
        operation.readers = match operation.kind {
            Kind::Read(_) => Readers::Here,
            Kind::Write(value)
            | Kind::Swap {
                to: Some(value), ..
            } if last_reads.contains_key(&value) => Readers::Here,
            Kind::Write(_) | Kind::Swap { to: Some(_), .. } if may_be_last => Readers::Later,
            Kind::Delete | Kind::Swap { to: None, .. }
                if may_be_last || last_miss >= Some(operation.start) =>
            {
                Readers::Here
            }
            Kind::Write(_) | Kind::Delete | Kind::Swap { .. } => Readers::None,
        };
    }
}
