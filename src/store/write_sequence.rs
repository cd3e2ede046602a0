//! `WriteSequence`: numbers the writes that one process coordinates, and knows which are
//! finished.
//!
//! A write is finished when all owners have the same of it for good: its entry, or the one that
//! undoes it. Until then owners must not show their copies.

use std::collections::BTreeSet;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::placement::NodeId;

/// The numbers of the writes of one process, from 1 on. Shared by threads.
#[derive(Debug)]
pub struct WriteSequence {
    /// The process that coordinates the writes.
    coordinator: NodeId,
    /// Held for a look-up.
    numbers: Mutex<Numbers>,
    /// Notified when the smallest unfinished number grows while somebody waits.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    /// The largest number in use.
    last: i64,
    unfinished: BTreeSet<i64>,
    waiting: usize,
}

impl Numbers {
    fn first_unfinished(&self) -> i64 {
        let first = self.unfinished.first().copied();
        first.unwrap_or(self.last + 1)
    }
}

impl WriteSequence {
    /// The writes of that process, which has made none.
    pub fn new(coordinator: NodeId) -> WriteSequence {
        WriteSequence {
            coordinator,
            numbers: Mutex::default(),
            finished: Condvar::new(),
        }
    }

    /// The process that coordinates the writes.
    pub fn coordinator(&self) -> &NodeId {
        &self.coordinator
    }

    /// The number of a write that starts.
    pub fn begin(&self) -> i64 {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        let number = numbers.last;
        numbers.unfinished.insert(number);
        number
    }

    /// The write of that number is finished.
    pub fn finish(&self, number: i64) {
        let mut numbers = self.numbers.lock();
        numbers.unfinished.remove(&number);
        if numbers.waiting > 0 {
            self.finished.notify_all();
        }
    }

    /// All writes with smaller numbers are finished.
    pub fn first_unfinished(&self) -> i64 {
        self.numbers.lock().first_unfinished()
    }

    /// Blocks until the write of that number is finished, or until the deadline. Returns whether
    /// it is.
    pub fn wait_until_finished(&self, number: i64, deadline: Instant) -> bool {
        let mut numbers = self.numbers.lock();
        numbers.waiting += 1;
        let is_open = |numbers: &mut Numbers| numbers.unfinished.contains(&number);
        self.finished
            .wait_while_until(&mut numbers, is_open, deadline);
        numbers.waiting -= 1;
        !numbers.unfinished.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    use crate::location::Location;

    fn sequence() -> WriteSequence {
        let location = Location::new("10.0.0.1", 1).unwrap();
        WriteSequence::new(NodeId::new(location, 1))
    }

    #[test]
    fn the_smallest_unfinished_number_grows_when_its_write_is_finished() {
        let sequence = sequence();
        assert_eq!(sequence.first_unfinished(), 1);
        let numbers = [sequence.begin(), sequence.begin(), sequence.begin()];
        assert_eq!(numbers, [1, 2, 3]);
        sequence.finish(2);
        assert_eq!(sequence.first_unfinished(), 1);
        sequence.finish(1);
        assert_eq!(sequence.first_unfinished(), 3);
        sequence.finish(3);
        assert_eq!(sequence.first_unfinished(), 4);
    }

    #[test]
    fn a_reader_waits_until_the_write_is_finished_or_the_deadline() {
        let sequence = sequence();
        let number = sequence.begin();
        assert!(!sequence.wait_until_finished(number, Instant::now()));
        thread::scope(|scope| {
            let deadline = Instant::now() + Duration::from_secs(60);
            let sequence = &sequence;
            let waiting = scope.spawn(move || sequence.wait_until_finished(number, deadline));
            while sequence.numbers.lock().waiting == 0 {
                thread::yield_now();
            }
            sequence.finish(number);
            assert!(waiting.join().unwrap());
        });
    }
}
