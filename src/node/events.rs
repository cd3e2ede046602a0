//! `PendingEvents`: membership events on their way to the log and the handler.
//!
//! Events are added while the membership's lock is held, so they are bounded: of too many ring
//! changes only the last one of each location is kept, and of other events the newest; the log
//! counts the dropped ones.

use std::collections::{BTreeSet, VecDeque};

use super::Node;
use crate::membership::{Change, Event};

/// Ring changes kept before those that a later one replaces are dropped.
const MAX_CHANGES: usize = 20_000;

/// Other events kept before the oldest is dropped.
const MAX_EVENTS: usize = 256;

/// What has happened since the event thread last looked.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PendingEvents {
    /// Changes of the ring, in order, each with its number among all events.
    pub changes: Vec<(u64, Change)>,
    /// All other events, likewise.
    pub events: VecDeque<(u64, Event)>,
    /// Events that were dropped.
    pub dropped: u64,
}

impl PendingEvents {
    /// Adds an event other than a ring change. Never blocks.
    pub fn add(&mut self, number: u64, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back((number, event));
    }

    /// Adds ring changes. Of too many, keeps the last one of each location. Never blocks.
    pub fn add_changes(&mut self, changes: Vec<(u64, Change)>) {
        self.changes.extend(changes);
        if self.changes.len() > MAX_CHANGES {
            let mut seen = BTreeSet::new();
            self.changes.reverse();
            let is_last = |(_, change): &(u64, Change)| seen.insert(change.location.clone());
            self.changes.retain(is_last);
            self.changes.reverse();
        }
    }

    /// All events in the order in which they happened.
    pub fn in_order(&self) -> Vec<Event> {
        let changes = self.changes.iter().cloned();
        let changes = changes.map(|(number, change)| (number, Event::RingChanged(change)));
        let mut all: Vec<(u64, Event)> = changes.chain(self.events.iter().cloned()).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, event)| event).collect()
    }
}

impl Node {
    /// Blocks until something has happened. None when the node has stopped.
    pub(super) fn next_events(&self) -> Option<PendingEvents> {
        let mut state = self.shared.state.lock();
        while !state.stopped && state.events == PendingEvents::default() {
            self.shared.event_added.wait(&mut state);
        }
        (!state.stopped).then(|| std::mem::take(&mut state.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::BindOptions;
    use crate::location::Location;
    use crate::membership::{ChangeKind, Tags};
    use std::time::Duration;

    #[test]
    fn too_many_events_keep_the_last_change_of_each_location_and_count_the_dropped() {
        let mut pending = PendingEvents::default();
        for number in 0..=MAX_CHANGES {
            let change = Change {
                location: Location::new("127.0.0.1", 1 + (number % 3) as u16).unwrap(),
                kind: ChangeKind::Restarted,
                tags: Tags::default(),
                has_other_tags: false,
            };
            pending.add_changes(vec![(2 * number as u64, change)]);
            pending.add(2 * number as u64 + 1, Event::ProcessPaused(Duration::ZERO));
        }
        let last = pending.in_order();
        let is_change = |event: &Event| matches!(event, Event::RingChanged(_));
        let order: Vec<bool> = last[last.len() - 4..].iter().map(is_change).collect();
        assert_eq!(order, [true, false, true, false]);
        let ports = pending
            .changes
            .iter()
            .map(|(_, change)| change.location.port());
        let last_three = MAX_CHANGES - 2..=MAX_CHANGES;
        assert!(ports.eq(last_three.map(|number| 1 + (number % 3) as u16)));
        assert_eq!(pending.events.len(), MAX_EVENTS);
        assert_eq!(pending.dropped as usize, MAX_CHANGES + 1 - MAX_EVENTS);
    }

    #[test]
    fn a_node_that_stops_ends_the_consumer_of_its_events_and_discards_them() {
        let node = Node::bind(&BindOptions::at(0..=0), "test").unwrap();
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| node.next_events());
            let paused = Event::ProcessPaused(Duration::ZERO);
            node.stop();
            node.shared.state.lock().events.add(1, paused);
            assert_eq!(consumer.join().unwrap(), None);
        });
        assert_eq!(node.next_events(), None);
    }
}
