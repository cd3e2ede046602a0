//! `EventQueue`: membership events on their way to the log and the handler.
//!
//! Events are pushed while the membership's lock is held, so a push never blocks. The queue
//! is bounded: of too many ring changes only the last one of each location is kept, and of
//! other events the newest; the log counts the dropped ones.

use std::collections::{BTreeSet, VecDeque};

use crate::membership::{Change, Event};
use parking_lot::{Condvar, Mutex};

/// Ring changes queued before those that a later one replaces are dropped.
const MAX_CHANGES: usize = 20_000;

/// Other events queued before the oldest is dropped.
const MAX_EVENTS: usize = 256;

/// A queue with one consumer.
#[derive(Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
    /// Notified after each push and when the queue is closed.
    pushed: Condvar,
}

#[derive(Default)]
struct State {
    is_open: bool,
    pending: Pending,
}

/// What has happened since the consumer last looked.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pending {
    /// Changes of the ring, in order.
    pub changes: Vec<Change>,
    /// All other events, in order.
    pub events: VecDeque<Event>,
    /// Events that were dropped.
    pub dropped: u64,
}

impl EventQueue {
    /// Keeps events from now on. Before that, and after [`close`](EventQueue::close), they are
    /// discarded.
    pub fn open(&self) {
        self.state.lock().is_open = true;
    }

    /// Makes [`next`](EventQueue::next) return None.
    pub fn close(&self) {
        self.state.lock().is_open = false;
        self.pushed.notify_all();
    }

    /// Adds an event. Never blocks.
    pub fn push(&self, event: Event) {
        let mut state = self.state.lock();
        if state.is_open {
            state.pending.add(event);
            drop(state);
            self.pushed.notify_all();
        }
    }

    /// Blocks until something has happened. None when the queue is closed.
    pub fn next(&self) -> Option<Pending> {
        let mut state = self.state.lock();
        while state.is_open && state.pending == Pending::default() {
            self.pushed.wait(&mut state);
        }
        state.is_open.then(|| std::mem::take(&mut state.pending))
    }
}

impl Pending {
    fn add(&mut self, event: Event) {
        match event {
            Event::RingChanged(changes) => {
                self.changes.extend(changes);
                if self.changes.len() > MAX_CHANGES {
                    self.keep_last_changes();
                }
            }
            event => {
                if self.events.len() == MAX_EVENTS {
                    self.events.pop_front();
                    self.dropped += 1;
                }
                self.events.push_back(event);
            }
        }
    }

    /// Keeps only the last change of each location.
    fn keep_last_changes(&mut self) {
        let mut seen = BTreeSet::new();
        let mut kept = Vec::new();
        for change in self.changes.drain(..).rev() {
            if seen.insert(change.location().clone()) {
                kept.push(change);
            }
        }
        kept.reverse();
        self.changes = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;
    use std::time::Duration;

    fn location(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    #[test]
    fn a_full_queue_keeps_the_last_change_of_each_location_and_counts_dropped_events() {
        let queue = EventQueue::default();
        queue.open();
        for generation in 0..=MAX_CHANGES as i64 {
            let location = location(1 + (generation % 3) as u16);
            let change = Change::Restarted {
                location,
                generation,
            };
            queue.push(Event::RingChanged(vec![change]));
            queue.push(Event::ProcessPaused(Duration::ZERO));
        }
        let pending = queue.next().unwrap();
        assert_eq!(pending.changes.len(), 3);
        let last = pending.changes.last().map(Change::location);
        assert_eq!(last, Some(&location(1 + (MAX_CHANGES % 3) as u16)));
        assert_eq!(pending.events.len(), MAX_EVENTS);
        assert_eq!(pending.dropped as usize, MAX_CHANGES + 1 - MAX_EVENTS);
    }

    #[test]
    fn a_closed_queue_ends_its_consumer_and_discards_events() {
        let queue = EventQueue::default();
        queue.push(Event::ProcessPaused(Duration::ZERO));
        queue.open();
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| queue.next());
            queue.close();
            assert_eq!(consumer.join().unwrap(), None);
        });
    }
}
