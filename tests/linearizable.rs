//! Does the check for linearizability accept exactly the histories that have an order?

#[path = "../examples/consistency/linearizable.rs"]
mod linearizable;

use std::time::Instant;

use linearizable::{Checker, Kind, Operation, Verdict, check};
use thrifty_p2p::membership::Rng;

/// More states than any history here needs.
const LIMIT: usize = 500_000;

fn operation(start: u64, end: u64, kind: Kind) -> Operation {
    Operation {
        start,
        end: Some(end),
        kind,
    }
}

fn unknown(start: u64, kind: Kind) -> Operation {
    let end = None;
    Operation { start, end, kind }
}

/// Operations one after another.
fn sequence(kinds: impl IntoIterator<Item = Kind>) -> Vec<Operation> {
    let numbered = (0..).zip(kinds);
    numbered
        .map(|(turn, kind)| operation(turn * 10 + 1, turn * 10 + 9, kind))
        .collect()
}

fn is_accepted(history: &[Operation]) -> bool {
    match check(history, LIMIT) {
        Verdict::Linearizable => true,
        Verdict::Violation(_) => false,
        Verdict::Undecided => panic!("{} operations are undecided", history.len()),
    }
}

/// Tries all orders, the slow and obvious way.
fn has_order(rest: &[Operation], value: Option<u64>) -> bool {
    if rest.iter().all(|operation| operation.end.is_none()) {
        return true;
    }
    let first_end = rest.iter().filter_map(|operation| operation.end).min();
    let could_be_next = |operation: &Operation| first_end >= Some(operation.start);
    let mut indexes = (0..rest.len()).filter(|index| could_be_next(&rest[*index]));
    indexes.any(|index| {
        let mut others = rest.to_vec();
        let value = match others.remove(index).kind {
            Kind::Write(written) => Some(written),
            Kind::Delete => None,
            Kind::Read(read) if read == value => value,
            Kind::Swap { from, to } if from == value => to,
            Kind::Read(_) | Kind::Swap { .. } => return false,
        };
        has_order(&others, value)
    })
}

/// A history of random operations that return random values.
fn random_history(random: &mut Rng) -> Vec<Operation> {
    let length = 1 + random.below(7);
    let span = 4 + random.below(40);
    let mut history: Vec<Operation> = Vec::new();
    for number in 0..length as u64 {
        let some = |random: &mut Rng| {
            let value = random.below(length + 2) as u64;
            (value < length as u64).then_some(value)
        };
        let kind = match random.below(12) {
            0..3 => Kind::Write(number),
            8..11 => Kind::Swap {
                from: some(random),
                to: Some(number),
            },
            11 => Kind::Swap {
                from: some(random),
                to: None,
            },
            3 => Kind::Delete,
            4 => Kind::Read(None),
            _ => Kind::Read(Some(random.below(length) as u64)),
        };
        let start = random.below(span) as u64;
        let is_read = matches!(kind, Kind::Read(_));
        // Without a reply it counts as a deletion, which has more orders.
        let is_deletion = matches!(kind, Kind::Swap { to: None, .. });
        history.push(if !is_read && !is_deletion && random.below(4) == 0 {
            unknown(start, kind)
        } else {
            operation(start, start + random.below(12) as u64, kind)
        });
    }
    history
}

#[test]
fn the_check_agrees_with_trying_all_orders() {
    let mut random = Rng::new(1);
    let mut accepted = 0;
    for _ in 0..30_000 {
        let history = random_history(&mut random);
        let expected = has_order(&history, None);
        assert_eq!(is_accepted(&history), expected, "{history:#?}");
        accepted += usize::from(expected);
    }
    assert!((5_000..25_000).contains(&accepted), "{accepted} accepted");
}

/// The parts of a history between the times at which nothing is in progress. Operations without
/// a reply do not count as in progress.
fn parts(history: &[Operation]) -> Vec<Vec<Operation>> {
    let mut sorted = history.to_vec();
    sorted.sort_by_key(|operation| operation.start);
    let mut parts: Vec<Vec<Operation>> = Vec::new();
    let mut last_end = None;
    for operation in sorted {
        if last_end < Some(operation.start) {
            parts.push(Vec::new());
        }
        last_end = last_end.max(operation.end);
        parts.last_mut().unwrap().push(operation);
    }
    parts
}

#[test]
fn a_history_checked_in_parts_is_accepted_exactly_if_the_whole_one_is() {
    let mut random = Rng::new(2);
    let mut cut = 0;
    for _ in 0..30_000 {
        let history = random_history(&mut random);
        let parts = parts(&history);
        cut += usize::from(parts.len() > 1);
        let mut checker = Checker::new(LIMIT);
        let is_accepted = parts
            .iter()
            .all(|part| checker.check(part) == Verdict::Linearizable);
        assert_eq!(is_accepted, has_order(&history, None), "{history:#?}");
    }
    assert!(cut > 5_000, "{cut} histories have more than one part");
}

#[test]
fn a_counterexample_has_no_order_and_none_of_its_reads_is_superfluous() {
    let mut random = Rng::new(3);
    let mut found = 0;
    for _ in 0..20_000 {
        let history = random_history(&mut random);
        let Verdict::Violation(example) = check(&history, LIMIT) else {
            continue;
        };
        found += 1;
        let operations = example.operations;
        assert!(
            !has_order(&operations, None),
            "{history:#?} {operations:#?}"
        );
        for index in 0..operations.len() {
            if matches!(operations[index].kind, Kind::Read(_)) {
                let mut others = operations.clone();
                others.remove(index);
                assert!(has_order(&others, None), "{history:#?} {operations:#?}");
            }
        }
    }
    assert!(found > 2000, "{found} counterexamples");
}

/// A register whose operations take effect at one point in time. Clients call it at the same time.
struct Register {
    random: Rng,
    history: Vec<Operation>,
    /// Its changes: time and value.
    changes: Vec<(u64, Option<u64>)>,
}

impl Register {
    /// `clients` clients make `length` operations in all. One write in `unknown` has no reply.
    fn run(seed: u64, clients: usize, length: usize, unknown: usize) -> Register {
        Register::with_swaps(seed, clients, length, unknown, 2)
    }

    /// Of nine operations `swaps` are conditional.
    fn with_swaps(
        seed: u64,
        clients: usize,
        length: usize,
        unknown: usize,
        swaps: usize,
    ) -> Register {
        let mut random = Rng::new(seed);
        // Each operation: the time of its effect, its start, its end, whether it has a reply.
        let mut calls: Vec<(u64, Operation)> = Vec::new();
        for client in 0..clients {
            let mut now = random.below(100) as u64;
            for number in 0..length / clients {
                let start = now + random.below(30) as u64;
                let effect = start + random.below(100) as u64;
                let end = effect + random.below(100) as u64;
                let value = (number * clients + client) as u64;
                let kind = match random.below(9) {
                    0..3 => Kind::Write(value),
                    3 => Kind::Delete,
                    // Of the current value, or of an earlier one.
                    chosen if chosen > 3 && chosen < 4 + swaps => Kind::Swap {
                        from: value.checked_sub(1 + random.below(2 * clients) as u64),
                        to: (random.below(5) > 0).then_some(value),
                    },
                    _ => Kind::Read(None),
                };
                let is_read = matches!(kind, Kind::Read(_));
                let has_reply = is_read || random.below(unknown) > 0;
                // Without a reply it takes effect much later, or never.
                let effect = match random.below(2) {
                    _ if has_reply => effect,
                    0 => effect + random.below(2000) as u64,
                    _ => u64::MAX,
                };
                let end = has_reply.then_some(end);
                calls.push((effect, Operation { start, end, kind }));
                now = end.unwrap_or(start + 300);
            }
        }
        calls.sort_by_key(|(effect, _)| *effect);
        let mut register = Register {
            random,
            history: Vec::new(),
            changes: vec![(0, None)],
        };
        for (effect, mut call) in calls {
            let (_, current) = register.changes[register.changes.len() - 1];
            match &mut call.kind {
                Kind::Read(value) => *value = current,
                Kind::Write(value) => register.changes.push((effect, Some(*value))),
                Kind::Delete => register.changes.push((effect, None)),
                Kind::Swap { from, to } => {
                    if register.random.below(3) > 0 {
                        *from = current;
                    }
                    if from.is_none() {
                        *to = to.or(Some((1 << 40) + register.history.len() as u64));
                    }
                    if *from == current && effect < u64::MAX {
                        register.changes.push((effect, *to));
                    } else if call.end.is_some() {
                        // The reply tells what the key has.
                        call.kind = Kind::Read(current);
                    }
                }
            }
            register.history.push(call);
        }
        register
    }

    /// An index of an operation that `is_wanted` selects.
    fn choose(&mut self, is_wanted: impl Fn(&Operation) -> bool) -> usize {
        let all = 0..self.history.len();
        let wanted: Vec<usize> = all.filter(|i| is_wanted(&self.history[*i])).collect();
        wanted[self.random.below(wanted.len())]
    }

    /// The end of the history.
    fn end(&self) -> u64 {
        let ends = self.history.iter().filter_map(|operation| operation.end);
        ends.max().unwrap()
    }

    /// A read after all other operations.
    fn read_at_the_end(&mut self, value: Option<u64>) {
        let start = self.end() + 1;
        let read = operation(start, start + 1, Kind::Read(value));
        self.history.push(read);
    }
}

#[test]
fn every_history_of_an_atomic_register_is_accepted() {
    for seed in 0..3000 {
        let clients = 1 + seed as usize % 16;
        let register = Register::run(seed, clients, 100, 5);
        assert!(is_accepted(&register.history), "seed {seed}");
    }
}

/// Asserts that a history is rejected, and the counterexample is small.
fn assert_rejected(history: &[Operation], what: &str) {
    match check(history, LIMIT) {
        Verdict::Violation(example) => {
            let size = example.operations.len();
            assert!(size <= 12, "{what}: {size} operations: {example}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_stale_read_is_rejected_in_any_history() {
    for seed in 0..500 {
        let mut register = Register::run(seed, 1 + seed as usize % 8, 200, 20);
        let read = register.choose(|operation| {
            matches!(operation.kind, Kind::Read(Some(_))) && operation.start > 10_000 / 8
        });
        let Kind::Read(Some(value)) = register.history[read].kind else {
            panic!("it is a read of a value");
        };
        // Once more after two writes that were read.
        for number in [1_000_000, 1_000_001] {
            let start = register.end() + 1;
            let write = operation(start, start + 5, Kind::Write(number));
            register.history.push(write);
            register.read_at_the_end(Some(number));
        }
        register.read_at_the_end(Some(value));
        assert_rejected(&register.history, &format!("seed {seed}"));
    }
}

#[test]
fn a_read_that_returns_another_value_than_a_register_is_mostly_rejected() {
    let mut rejected = 0;
    for seed in 0..500 {
        let mut register = Register::run(seed, 4, 200, 20);
        let read = register.choose(|operation| matches!(operation.kind, Kind::Read(_)));
        let write = register.choose(|operation| matches!(operation.kind, Kind::Write(_)));
        let Kind::Write(value) = register.history[write].kind else {
            panic!("it is a write");
        };
        register.history[read].kind = Kind::Read(Some(value));
        rejected += usize::from(!is_accepted(&register.history));
    }
    assert!(rejected > 450, "{rejected} of 500 were rejected");
}

#[test]
fn a_value_that_nobody_wrote_is_rejected() {
    let mut register = Register::run(1, 4, 100, 10);
    register.read_at_the_end(Some(1_000_000));
    assert_rejected(&register.history, "a value that nobody wrote");
}

#[test]
fn a_read_that_starts_after_a_newer_value_was_read_must_not_go_back() {
    use Kind::{Read, Write};
    let during_a_write = |first, second| {
        let mut history = sequence([Write(1), Read(Some(first)), Read(Some(second))]);
        history.push(operation(10, 100, Write(2)));
        history
    };
    assert!(is_accepted(&during_a_write(1, 2)));
    assert_rejected(&during_a_write(2, 1), "new, old");
}

#[test]
fn a_value_that_returns_after_another_one_was_read_is_rejected() {
    use Kind::{Read, Write};
    let mut history = sequence([Read(None), Read(Some(1)), Read(Some(2)), Read(Some(1))]);
    history.push(operation(0, 100, Write(1)));
    history.push(operation(0, 100, Write(2)));
    assert_rejected(&history, "a write that was executed twice");
    history[0] = unknown(0, Write(1));
    assert_rejected(&history, "an unknown write that was executed twice");
}

#[test]
fn an_acknowledged_write_must_not_be_lost() {
    use Kind::{Delete, Read, Write};
    assert_rejected(&sequence([Write(1), Read(None)]), "a lost first write");
    let lost = sequence([Write(1), Write(2), Read(Some(1))]);
    assert_rejected(&lost, "a lost second write");
    let mut unknown_delete = sequence([Write(1), Read(None)]);
    unknown_delete.push(unknown(0, Delete));
    assert!(is_accepted(&unknown_delete));
}

#[test]
fn a_deletion_must_not_be_undone() {
    use Kind::{Delete, Read, Write};
    let undone = sequence([Write(1), Delete, Read(None), Read(Some(1))]);
    assert_rejected(&undone, "a deletion that is undone");
    let lost = sequence([Write(1), Delete, Read(Some(1))]);
    assert_rejected(&lost, "a lost deletion");
}

#[test]
fn an_unknown_write_takes_effect_once_at_any_time_or_never() {
    use Kind::{Delete, Read, Write};
    let mut history = sequence([Write(1), Read(Some(1)), Write(2), Read(Some(3)), Delete]);
    history.push(unknown(5, Write(3)));
    assert!(is_accepted(&history), "it takes effect late");
    history.remove(3);
    assert!(is_accepted(&history), "it never takes effect");
    let mut history = sequence([Write(1), Read(Some(3)), Read(Some(1))]);
    history.push(unknown(5, Write(3)));
    assert_rejected(&history, "a refused write that was visible for a while");
    let mut early = sequence([Read(Some(3)), Write(1)]);
    early.push(unknown(10, Write(3)));
    assert_rejected(&early, "it takes effect before its start");
}

#[test]
fn an_unknown_deletion_takes_effect_once() {
    use Kind::{Delete, Read, Write};
    let kinds = [Write(1), Read(None), Write(2), Read(None)];
    let mut history = sequence(kinds);
    history.push(unknown(0, Delete));
    assert_rejected(&history, "one deletion deletes two values");
    history.push(unknown(0, Delete));
    assert!(is_accepted(&history));
}

#[test]
fn a_swap_that_is_made_twice_or_without_its_value_is_rejected() {
    use Kind::{Delete, Read, Swap, Write};
    let swap = |from, to| Swap { from, to };
    let lock = swap(None, Some(1));
    assert!(is_accepted(&sequence([
        lock,
        Read(Some(1)),
        Delete,
        swap(None, Some(2))
    ])));
    assert_rejected(&sequence([lock, swap(None, Some(2))]), "two have the lock");
    let counter = [Write(1), swap(Some(1), Some(2)), swap(Some(1), Some(3))];
    assert_rejected(&sequence(counter), "one of two increments is lost");
    let ignored = [Write(1), Write(2), swap(Some(1), Some(3))];
    assert_rejected(&sequence(ignored), "the condition is not met");
    let deleted = [Write(1), Write(2), swap(Some(1), None), Read(None)];
    assert_rejected(&sequence(deleted), "the condition of a deletion is not met");

    // An attempt without a reply is made again later, when the key has no value again.
    let mut twice = sequence([Read(Some(1)), Delete, Read(None), Read(Some(1))]);
    twice.push(unknown(0, lock));
    assert_rejected(&twice, "a swap that was made twice");
    // Its caller was told that it was not made.
    let late = sequence([Write(2), Read(Some(2)), Delete, Read(Some(1))]);
    assert_rejected(
        &late,
        "a swap that was made after its condition was not met",
    );
}

#[test]
fn a_swap_without_a_reply_is_made_once_when_its_value_is_there_or_never() {
    use Kind::{Delete, Read, Swap, Write};
    let swap = |from, to| Swap { from, to };
    let mut history = sequence([Write(1), Read(Some(1)), Read(Some(3)), Read(Some(3))]);
    let [second, third] = [(1, 2), (2, 3)].map(|(from, to)| swap(Some(from), Some(to)));
    history.extend([unknown(5, third), unknown(6, second)]);
    assert!(is_accepted(&history), "one follows the other");
    history.pop();
    assert_rejected(&history, "the value that it needs was never there");
    history.pop();
    history.push(unknown(5, swap(Some(1), Some(2))));
    history.truncate(2);
    history.push(unknown(5, second));
    assert!(is_accepted(&history), "it is never made");

    // In parts: the swap is sent in the first, and read in the second.
    let mut checker = Checker::new(LIMIT);
    let mut first = sequence([Write(1), Write(2)]);
    first.extend([
        unknown(3, swap(Some(1), Some(7))),
        unknown(4, swap(None, Some(8))),
    ]);
    assert_eq!(checker.check(&first), Verdict::Linearizable);
    let later = |kinds: &[Kind], at: u64| -> Vec<Operation> {
        let kinds = sequence(kinds.iter().copied()).into_iter();
        kinds
            .map(|o| operation(o.start + at, o.end.unwrap() + at, o.kind))
            .collect()
    };
    let mut other = checker.clone();
    let second = later(&[Delete, Read(Some(8))], 100);
    assert_eq!(checker.check(&second), Verdict::Linearizable);
    let second = later(&[Read(Some(7))], 100);
    assert!(matches!(other.check(&second), Verdict::Violation(_)));
}

#[test]
fn a_counterexample_names_the_few_operations_that_have_no_order() {
    use Kind::{Read, Write};
    let kinds = (0..1000).flat_map(|value| [Write(value), Read(Some(value))]);
    let mut history = sequence(kinds);
    history[1001].kind = Read(Some(400));
    let Verdict::Violation(example) = check(&history, LIMIT) else {
        panic!("the history has no order");
    };
    let found = example.to_string();
    let ends = ["write 400", "write 500", "read: 500", "read: 400"];
    let lines: Vec<&str> = found.lines().skip(1).collect();
    assert!(lines.len() <= ends.len(), "{found}");
    assert!(
        found.contains(ends[0]) && found.contains(ends[3]),
        "{found}"
    );
}

#[test]
fn a_search_beyond_its_limit_is_undecided() {
    let register = Register::run(1, 8, 1000, 10);
    assert_eq!(check(&register.history, 10), Verdict::Undecided);
}

#[test]
fn a_hundred_thousand_operations_of_sixteen_clients_take_seconds() {
    let mut register = Register::with_swaps(1, 16, 100_000, 1000, 0);
    let began = Instant::now();
    assert!(is_accepted(&register.history));
    let with_swaps = Register::run(1, 16, 100_000, 1000);
    assert!(is_accepted(&with_swaps.history));
    eprintln!("accepted after {:.1?}", began.elapsed());
    let middle = register.history.len() / 2;
    let lost = unknown(register.history[middle].start, Kind::Write(1_000_000));
    register.history.push(lost);
    for start in [0, 2000] {
        let start = register.history[middle].start + start;
        let read = operation(start, start + 100, Kind::Read(Some(1_000_000)));
        register.history.push(read);
    }
    let began = Instant::now();
    assert_rejected(&register.history, "a value that was read twice");
    eprintln!("rejected after {:.1?}", began.elapsed());
}
