//! `History`: the last events of a node, for those who follow its network.
//!
//! Events are numbered. Who names the last one that it knows gets those after it, or waits for the
//! next. Only the newest are kept, and it is told if some that it asks for are gone: then
//! [`Node::members`] says how things are now. The numbers of a process start at the time of its
//! start, so that those of the process before it are smaller than all that it keeps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Node;
use crate::locator::{Event, Events};

/// Events kept before the oldest is dropped.
const MAX_EVENTS: usize = 1_000;

/// Callers that wait at the same time. Each takes a thread of the server.
const MAX_WAITING: usize = 256;

/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The last events. Shared by threads.
pub(super) struct History {
    /// Locked to add an event and to copy some.
    kept: Mutex<Kept>,
    /// Notified when an event was added, and when the node stops.
    added: Condvar,
}

struct Kept {
    /// In order; their numbers follow each other.
    events: VecDeque<Event>,
    /// The number of the last event.
    last: i64,
    waiting: usize,
    is_stopped: bool,
}

impl History {
    /// No events yet. `started` is the time of the start, in milliseconds since 1970.
    pub fn new(started: i64) -> History {
        History {
            kept: Mutex::new(Kept {
                events: VecDeque::new(),
                last: started << 10,
                waiting: 0,
                is_stopped: false,
            }),
            added: Condvar::new(),
        }
    }

    /// Adds an event, gives it its number, and wakes those that wait.
    pub fn add(&self, event: Event) {
        let mut kept = self.kept.lock();
        kept.last += 1;
        let sequence = Some(kept.last);
        if kept.events.len() == MAX_EVENTS {
            kept.events.pop_front();
        }
        kept.events.push_back(Event { sequence, ..event });
        self.added.notify_all();
    }

    /// The last events, oldest first.
    pub fn recent(&self, count: usize) -> Vec<Event> {
        let kept = self.kept.lock();
        let skipped = kept.events.len().saturating_sub(count);
        kept.events.iter().skip(skipped).cloned().collect()
    }

    /// See [`Node::events`].
    pub fn after(&self, after: i64, timeout: Duration) -> Option<Events> {
        let deadline = Instant::now() + timeout.min(MAX_WAIT);
        let mut kept = self.kept.lock();
        if kept.last == after && !timeout.is_zero() {
            if kept.waiting == MAX_WAITING {
                return None;
            }
            kept.waiting += 1;
            let is_waiting = |kept: &mut Kept| kept.last == after && !kept.is_stopped;
            self.added.wait_while_until(&mut kept, is_waiting, deadline);
            kept.waiting -= 1;
        }
        let before_first = kept.last - kept.events.len() as i64;
        let is_known = (before_first..=kept.last).contains(&after);
        let known = if is_known { after - before_first } else { 0 };
        let events = kept.events.iter().skip(known as usize);
        Some(Events::new(
            if after < 0 {
                Vec::new()
            } else {
                events.cloned().collect()
            },
            kept.last,
            after > 0 && !is_known,
        ))
    }

    /// Ends every wait, now and later.
    pub fn stop(&self) {
        self.kept.lock().is_stopped = true;
        self.added.notify_all();
    }
}

impl Node {
    /// What this node has seen of its network after the event of that number, oldest first. 0: all
    /// that it keeps, which are the last 1,000 events. Negative: nothing, but the number of the last
    /// one. If there is nothing, waits for it, for `timeout` and 30 s at most, or until the node
    /// stops. None if 256 callers wait already.
    pub fn events(&self, after: i64, timeout: Duration) -> Option<Events> {
        self.shared.activity.history.after(after, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const STARTED: i64 = 1_700_000_000_000;
    const LONG: Duration = Duration::from_secs(20);

    fn history(events: usize) -> History {
        let history = History::new(STARTED);
        (0..events).for_each(|_| history.add(Event::default()));
        history
    }

    /// The numbers of the events, from 1 on, and whether some are gone.
    fn after(history: &History, after: i64, timeout: Duration) -> (Vec<i64>, bool) {
        let found = history.after(after, timeout).unwrap();
        let events = found.events.unwrap();
        let numbers = events
            .iter()
            .map(|event| event.sequence.unwrap() - (STARTED << 10));
        (numbers.collect(), found.is_gap.unwrap())
    }

    #[test]
    fn who_names_the_last_event_it_knows_gets_those_after_it_once() {
        let history = history(5);
        let number = |n: i64| (STARTED << 10) + n;
        let now = Duration::ZERO;
        assert_eq!(after(&history, 0, now), ((1..=5).collect(), false));
        assert_eq!(after(&history, number(0), now), ((1..=5).collect(), false));
        assert_eq!(after(&history, number(3), now), (vec![4, 5], false));
        assert_eq!(after(&history, number(5), now), (vec![], false));
        assert_eq!(after(&history, -1, LONG), (vec![], false));
        assert_eq!(history.after(-1, now).unwrap().last, Some(number(5)));
        assert_eq!(history.recent(2).len(), 2);
    }

    #[test]
    fn who_comes_late_or_from_another_process_is_told_of_the_gap() {
        let history = history(MAX_EVENTS + 10);
        let number = |n: i64| (STARTED << 10) + n;
        let all: Vec<i64> = (11..=MAX_EVENTS as i64 + 10).collect();
        let now = Duration::ZERO;
        assert_eq!(after(&history, number(10), now), (all.clone(), false));
        assert_eq!(after(&history, number(9), now), (all.clone(), true));
        assert_eq!(after(&history, number(-1), LONG), (all.clone(), true));
        assert_eq!(after(&history, number(5_000), LONG), (all, true));
    }

    #[test]
    fn waiting_callers_are_bounded_and_end_with_an_event_a_timeout_or_the_node() {
        let history = history(0);
        let last = STARTED << 10;
        let short = Duration::from_millis(10);
        assert_eq!(after(&history, last, short), (vec![], false));
        thread::scope(|scope| {
            let wait = || after(&history, last, LONG);
            let waiting: Vec<_> = (0..MAX_WAITING).map(|_| scope.spawn(wait)).collect();
            while history.kept.lock().waiting < MAX_WAITING {
                thread::yield_now();
            }
            assert!(history.after(last, LONG).is_none());
            assert!(
                history.after(0, LONG).is_some(),
                "there is nothing to wait for"
            );
            history.add(Event::default());
            for waiter in waiting {
                assert_eq!(waiter.join().unwrap(), (vec![1], false));
            }
            let waiter = scope.spawn(|| after(&history, last + 1, LONG));
            history.stop();
            assert_eq!(waiter.join().unwrap(), (vec![], false));
        });
        let began = Instant::now();
        assert_eq!(after(&history, last + 1, LONG), (vec![], false));
        assert!(
            began.elapsed() < LONG,
            "a node that has stopped keeps nobody waiting"
        );
    }
}
