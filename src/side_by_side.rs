//! `side_by_side`: the same question to many at once, so that the few who do not
//! answer do not hold up the rest.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// What `ask` makes of each of `items`, `most` of them at a time, on threads of
/// their own and on the caller's, in no particular order. Blocks until all are done;
/// one whose thread panics is left out. With fewer threads to be had it takes longer.
pub fn side_by_side<'a, T: Sync, R: Send>(
    items: &'a [T],
    most: usize,
    ask: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    let waiting = Mutex::new(items.iter());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || std::iter::from_fn(next).map(&ask).collect::<Vec<R>>();
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..most.min(items.len())).filter_map(start).collect();
        let mut answers = work();
        answers.extend(
            workers
                .into_iter()
                .filter_map(|worker| worker.join().ok())
                .flatten(),
        );
        answers
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_asked_once_however_many_there_are() {
        for count in [0, 1, 7, 100] {
            let items: Vec<usize> = (0..count).collect();
            let mut answers = side_by_side(&items, 8, |item| item * 2);
            answers.sort_unstable();
            assert_eq!(
                answers,
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
    }
}
