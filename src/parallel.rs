//! `parallel_map`: applies a function to several items at the same time.

use std::thread;

use parking_lot::Mutex;

/// The results of `apply` for all `items`, at most `parallel` of them at a time, in no
/// particular order.
///
/// Runs on the caller's thread and on new ones, on fewer if they cannot be started. Blocks until
/// all are done. A panic of `apply` on a new thread omits the results of that thread.
pub fn parallel_map<'a, T: Sync, R: Send>(
    items: &'a [T],
    parallel: usize,
    apply: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    let waiting = Mutex::new(items.iter());
    let next = || waiting.lock().next();
    let work = || std::iter::from_fn(next).map(&apply).collect::<Vec<R>>();
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..parallel.min(items.len())).filter_map(start).collect();
        let mut results = work();
        for worker in workers {
            results.extend(worker.join().unwrap_or_default());
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_one_result_for_any_number_of_items() {
        for count in [0, 1, 7, 100] {
            let items: Vec<usize> = (0..count).collect();
            let mut results = parallel_map(&items, 8, |item| item * 2);
            results.sort_unstable();
            let expected: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(results, expected);
        }
    }
}
