//! `Lanes`: what many threads have for one location goes there in few calls.
//!
//! Each location has a lane, in which items wait while a call is under way; the next
//! call takes all that wait. Nobody waits for a timer, and the busier a lane is, the
//! more goes with each call: databases know this as group commit. A carrier, a thread
//! of the lane's own while there is something to carry, makes the calls, so that one
//! who has items for several locations has them on their way side by side.
//!
//! Who waits in a lane has a thread that waits with it, so lanes are as bounded as
//! the threads that use them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::location::Location;

/// A carrier without work ends after this.
const IDLE: Duration = Duration::from_secs(10);

/// Makes the call that carries items to a location: an answer for each of them, in
/// order. Called on a carrier's thread, or on that of a sender when the system gives
/// no thread; it may block for as long as a call may take.
pub type Carry<Q, A> = dyn Fn(&Location, &[Q]) -> Vec<A> + Send + Sync;

/// Lanes for items `Q`, which are answered by `A`. Shared by threads.
pub struct Lanes<Q, A> {
    carry: Arc<Carry<Q, A>>,
    weigh: fn(&Q) -> usize,
    most: usize,
    lanes: Mutex<HashMap<Location, Arc<Lane<Q, A>>>>,
}

/// Where items for one location wait.
struct Lane<Q, A> {
    state: Mutex<State<Q, A>>,
    filled: Condvar,
}

struct State<Q, A> {
    waiting: VecDeque<(Q, Receipt<A>)>,
    /// Is a carrier at work?
    is_carried: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Lanes<Q, A> {
    /// Lanes whose calls are made by `carry`. One call takes items up to `most` by what
    /// `weigh` says of each, and always one.
    pub fn new(
        most: usize,
        weigh: fn(&Q) -> usize,
        carry: impl Fn(&Location, &[Q]) -> Vec<A> + Send + Sync + 'static,
    ) -> Lanes<Q, A> {
        Lanes {
            carry: Arc::new(carry),
            weigh,
            most,
            lanes: Mutex::default(),
        }
    }

    /// Sends every item to its location, and returns their answers, in order: none for
    /// an item whose call has failed in a way that is a bug.
    ///
    /// Blocks until all calls are over: for each location that is the one under way and
    /// those that it takes to carry what waits.
    pub fn deliver(&self, items: Vec<(Location, Q)>) -> Vec<Option<A>> {
        let delivery = Arc::new(Delivery::of(items.len()));
        for (place, (location, item)) in items.into_iter().enumerate() {
            let receipt = Receipt {
                place,
                delivery: delivery.clone(),
                is_signed: false,
            };
            self.put(location, item, receipt);
        }
        delivery.wait()
    }

    fn put(&self, location: Location, item: Q, receipt: Receipt<A>) {
        let lane = self.lane(&location);
        let mut state = lane.state();
        state.waiting.push_back((item, receipt));
        if state.is_carried {
            lane.filled.notify_one();
            return;
        }
        state.is_carried = true;
        drop(state);
        let (carry, weigh, most) = (self.carry.clone(), self.weigh, self.most);
        let carried = lane.clone();
        let work = move |idle| {
            let shift = Shift(&carried);
            while let Some(batch) = shift.next(idle, weigh, most) {
                let (items, receipts): (Vec<Q>, Vec<Receipt<A>>) = batch.into_iter().unzip();
                let answers = carry(&location, &items);
                receipts
                    .into_iter()
                    .zip(answers)
                    .for_each(|(receipt, answer)| receipt.sign(answer));
            }
        };
        let work = Arc::new(work);
        let carrier = work.clone();
        let started = thread::Builder::new()
            .name("carrier".into())
            .spawn(move || carrier(IDLE));
        if started.is_err() {
            work(Duration::ZERO);
        }
    }

    fn lane(&self, location: &Location) -> Arc<Lane<Q, A>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(location) {
            return lane.clone();
        }
        let lane = Arc::new(Lane {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                is_carried: false,
            }),
            filled: Condvar::new(),
        });
        lanes.insert(location.clone(), lane.clone());
        lane
    }

    /// Forgets the lane of a location that is gone. What waits there is still carried.
    pub fn forget(&self, location: &Location) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.remove(location);
    }
}

impl<Q, A> Lane<Q, A> {
    /// What waits; held for a moment, never during a call.
    fn state(&self) -> MutexGuard<'_, State<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A carrier at work on a lane. However it ends, the next item finds or starts another.
struct Shift<'a, Q, A>(&'a Lane<Q, A>);

impl<Q, A> Shift<'_, Q, A> {
    /// What the next call takes; nothing when nothing came for `idle`, and then this
    /// shift has ended.
    fn next(
        &self,
        idle: Duration,
        weigh: fn(&Q) -> usize,
        most: usize,
    ) -> Option<Vec<(Q, Receipt<A>)>> {
        let state = self.0.state();
        let (mut state, _) = self
            .0
            .filled
            .wait_timeout_while(state, idle, |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let mut weight = 0;
        let mut fits = |(item, _): &(Q, Receipt<A>)| {
            weight += weigh(item);
            weight <= most
        };
        let count = state.waiting.iter().take_while(|item| fits(item)).count();
        let count = count.max(1).min(state.waiting.len());
        if count == 0 {
            state.is_carried = false;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

impl<Q, A> Drop for Shift<'_, Q, A> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.state();
            state.is_carried = false;
            state.waiting.clear();
        }
    }
}

/// The answers that one sender waits for.
struct Delivery<A> {
    answers: Mutex<Answers<A>>,
    complete: Condvar,
}

struct Answers<A> {
    given: Vec<Option<A>>,
    missing: usize,
}

impl<A> Delivery<A> {
    fn of(count: usize) -> Delivery<A> {
        let answers = Answers {
            given: (0..count).map(|_| None).collect(),
            missing: count,
        };
        Delivery {
            answers: Mutex::new(answers),
            complete: Condvar::new(),
        }
    }

    fn wait(&self) -> Vec<Option<A>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = self
            .complete
            .wait_while(answers, |answers| answers.missing > 0)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut answers.given)
    }
}

/// Says of one item that it was delivered, or, dropped unsigned, that it never will be.
struct Receipt<A> {
    place: usize,
    delivery: Arc<Delivery<A>>,
    is_signed: bool,
}

impl<A> Receipt<A> {
    fn sign(mut self, answer: A) {
        self.is_signed = true;
        self.hand_back(Some(answer));
    }

    fn hand_back(&self, answer: Option<A>) {
        let answers = &self.delivery.answers;
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.given[self.place] = answer;
        answers.missing -= 1;
        if answers.missing == 0 {
            self.delivery.complete.notify_one();
        }
    }
}

impl<A> Drop for Receipt<A> {
    fn drop(&mut self) {
        if !self.is_signed {
            self.hand_back(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn at(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    #[test]
    fn answers_come_back_in_the_order_of_the_items() {
        let lanes = Lanes::new(
            3,
            |_| 1,
            |location, items: &[u32]| {
                assert!(items.len() <= 3, "a call takes no more than it may");
                items
                    .iter()
                    .map(|item| (location.port(), item * 2))
                    .collect()
            },
        );
        let items = (0..100).map(|item| (at(1 + item as u16 % 3), item));
        let expected: Vec<_> = (0..100)
            .map(|item| Some((1 + item as u16 % 3, item * 2)))
            .collect();
        assert_eq!(lanes.deliver(items.collect()), expected);
        assert_eq!(lanes.deliver(Vec::new()), Vec::new());
    }

    #[test]
    fn what_comes_during_a_call_goes_with_the_next() {
        let (begun, wait_for_begun) = mpsc::channel();
        let (go_on, wait_to_go_on) = mpsc::channel::<()>();
        let gates = Mutex::new((begun, wait_to_go_on));
        let lanes = Lanes::new(
            1000,
            |_| 1,
            move |_, items: &[u32]| {
                let (begun, go_on) = &*gates.lock().unwrap();
                begun.send(items.len()).unwrap();
                go_on.recv().unwrap();
                items.to_vec()
            },
        );
        thread::scope(|scope| {
            scope.spawn(|| lanes.deliver(vec![(at(1), 0)]));
            assert_eq!(wait_for_begun.recv().unwrap(), 1);
            for item in 1..8 {
                let lanes = &lanes;
                scope.spawn(move || assert_eq!(lanes.deliver(vec![(at(1), item)]), [Some(item)]));
            }
            while lanes.lane(&at(1)).state().waiting.len() < 7 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            assert_eq!(wait_for_begun.recv().unwrap(), 7);
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn a_carrier_that_fails_leaves_nobody_waiting() {
        let lanes = Lanes::new(
            1,
            |_| 1,
            |_, items: &[u32]| match items {
                [13] => panic!("as this test wants it"),
                items => items.to_vec(),
            },
        );
        assert_eq!(lanes.deliver(vec![(at(1), 13)]), [None]);
        while lanes.lane(&at(1)).state().is_carried {
            thread::yield_now();
        }
        assert_eq!(lanes.deliver(vec![(at(1), 7)]), [Some(7)]);
    }
}
