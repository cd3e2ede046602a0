//! `Lanes`: what many threads have for one location goes there in few calls.
//!
//! Each location has a lane, in which items wait while a call is under way; the next
//! call takes all that wait. Nobody waits for a timer, and the busier a lane is, the
//! more goes with each call: databases know this as group commit. Where the last call
//! carried several items, whoever makes the next one gives way to others once, as long as
//! few items wait: with 8 connections a call carries nearly six then, which was three, and
//! that is a twelfth more reads passed on and a twentieth more writes.
//!
//! The senders make the calls themselves. One who finds lanes without a leader leads
//! them, all of them at once, for one call each, which take its own items and others';
//! when a lane's call is over, one of those who wait there is to lead the next.
//! So a lone sender never waits for another thread, and a lane has no threads of its
//! own that could end or be missing.
//!
//! How senders wait is told in `delivery`.
//!
//! Each item in a lane has a thread that waits for it, so lanes are as bounded as the
//! threads that use them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::location::Location;
use crate::rpc::courtesy::give_way;
use crate::rpc::delivery::{Delivery, Receipt, Woken};

/// While fewer items wait, more are worth to give way for before they go. Beyond it, fewer
/// and larger calls save less than giving way costs.
const ENOUGH: usize = 8;

/// What goes in lanes.
pub trait Item {
    /// How much of a call's room it takes.
    fn weight(&self) -> usize;

    /// May it go with one call with another item, which was sent before?
    fn goes_with(&self, _other: &Self) -> bool {
        true
    }
}

/// What goes to one location with one call.
pub struct Load<Q> {
    /// Where it goes.
    pub to: Location,
    /// One item at least; all go with the first.
    pub items: Vec<Q>,
}

/// Told by the place of a load, as soon as its call is over: answers for its items, in
/// order. Items without one are those that the call came to nothing for.
pub type Done<'a, A> = &'a mut dyn FnMut(usize, Vec<A>);

/// Makes the calls that carry loads, at the same time if it can. Called on a sender's
/// thread; it may block for as long as calls may take.
pub type Carry<Q, A> = dyn Fn(&[Load<Q>], Done<'_, A>) + Send + Sync;

/// Lanes for items `Q`, which are answered by `A`. Shared by threads.
pub struct Lanes<Q, A> {
    carry: Box<Carry<Q, A>>,
    most: usize,
    /// Few enough that to compare locations costs less than to hash one.
    lanes: Mutex<BTreeMap<Location, Arc<Lane<Q, A>>>>,
    /// How many senders give way before they sleep.
    giving_way: AtomicUsize,
}

/// Where items for one location wait.
struct Lane<Q, A> {
    location: Location,
    state: Mutex<State<Q, A>>,
}

struct State<Q, A> {
    waiting: VecDeque<(Q, Receipt<A>)>,
    /// Is a call under way, or about to be?
    is_led: bool,
    /// Did the last call carry several items, or has one come meanwhile? Then more are
    /// likely to come.
    is_shared: bool,
}

impl<Q: Item, A> Lanes<Q, A> {
    /// Lanes whose calls are made by `carry`. One call takes items up to the weight of
    /// `most`, and always one.
    pub fn new(
        most: usize,
        carry: impl Fn(&[Load<Q>], Done<'_, A>) + Send + Sync + 'static,
    ) -> Lanes<Q, A> {
        Lanes {
            carry: Box::new(carry),
            most,
            lanes: Mutex::default(),
            giving_way: AtomicUsize::new(0),
        }
    }

    /// Sends every item to its location, and returns their answers, in order: none for
    /// an item whose call gave none.
    ///
    /// Blocks until all calls are over: for each location the one under way, and those
    /// that it takes to carry what waits.
    pub fn deliver(&self, items: Vec<(Location, Q)>) -> Vec<Option<A>> {
        if let [(to, _)] = &items[..] {
            let lane = self.lane(to);
            if lane.try_to_lead_alone() {
                return self.lead_alone(&lane, items);
            }
        }
        let delivery = Arc::new(Delivery::of(items.len()));
        let lanes = self.enter(items, &delivery);
        loop {
            if let Some(answers) = delivery.park_or_take() {
                return answers;
            }
            let mut led = lead_free(&lanes);
            let handed = if led.is_empty() {
                match delivery.wait(&self.giving_way) {
                    Woken::Complete(answers) => return answers,
                    Woken::ToLead(location) => {
                        led = lead_free(&lanes);
                        Some(location)
                    }
                }
            } else {
                delivery.unpark()
            };
            let is_handed = |lane: &&Arc<Lane<Q, A>>| Some(&lane.location) == handed.as_ref();
            led.extend(lanes.iter().filter(is_handed).map(|lane| &**lane));
            self.lead(&led);
        }
    }

    /// Makes one call with the one item of a sender who found its lane quiet, and passes the
    /// lead on: it needs nothing to wait by, as nobody else can answer it.
    fn lead_alone(&self, lane: &Lane<Q, A>, items: Vec<(Location, Q)>) -> Vec<Option<A>> {
        let mut lead = Some(Lead(lane));
        let mut answer = None;
        let load = |(to, item)| Load {
            to,
            items: vec![item],
        };
        let loads: Vec<Load<Q>> = items.into_iter().map(load).collect();
        (self.carry)(&loads, &mut |_, answers| {
            drop(lead.take());
            answer = answers.into_iter().next();
        });
        vec![answer]
    }

    /// Puts items into their lanes.
    fn enter(
        &self,
        items: Vec<(Location, Q)>,
        delivery: &Arc<Delivery<A>>,
    ) -> Vec<Arc<Lane<Q, A>>> {
        let mut lanes: Vec<Arc<Lane<Q, A>>> = Vec::new();
        for (place, (location, item)) in items.into_iter().enumerate() {
            let known = lanes.iter().find(|lane| lane.location == location);
            let lane = known.cloned().unwrap_or_else(|| {
                lanes.push(self.lane(&location));
                lanes[lanes.len() - 1].clone()
            });
            lane.state()
                .waiting
                .push_back((item, delivery.receipt(place)));
        }
        lanes
    }

    /// Makes one call with what waits in each of these lanes, and passes their leads on.
    fn lead(&self, lanes: &[&Lane<Q, A>]) {
        if lanes.iter().any(|lane| lane.gathers()) {
            give_way();
        }
        let (mut loads, mut open) = (Vec::new(), Vec::new());
        for lane in lanes {
            let lead = Lead(lane);
            let (items, receipts): (Vec<Q>, Vec<Receipt<A>>) =
                lead.batch(self.most).into_iter().unzip();
            if !items.is_empty() {
                let to = lane.location.clone();
                loads.push(Load { to, items });
                open.push(Some((lead, receipts)));
            }
        }
        (self.carry)(&loads, &mut |place, answers| {
            let Some((lead, receipts)) = open.get_mut(place).and_then(Option::take) else {
                return;
            };
            drop(lead);
            for (receipt, answer) in receipts.into_iter().zip(answers) {
                receipt.sign(answer);
            }
        });
    }

    fn lane(&self, location: &Location) -> Arc<Lane<Q, A>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(location) {
            return lane.clone();
        }
        let lane = Arc::new(Lane {
            location: location.clone(),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                is_led: false,
                is_shared: false,
            }),
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

/// Takes the lead of those lanes that have none.
fn lead_free<Q, A>(lanes: &[Arc<Lane<Q, A>>]) -> Vec<&Lane<Q, A>> {
    let free = lanes.iter().filter(|lane| lane.try_to_lead());
    free.map(|lane| &**lane).collect()
}

impl<Q, A> Lane<Q, A> {
    /// What waits; held for a moment, never during a call.
    fn state(&self) -> MutexGuard<'_, State<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lead if nobody has it and something waits.
    fn try_to_lead(&self) -> bool {
        let mut state = self.state();
        let is_free = !state.is_led && !state.waiting.is_empty();
        state.is_led |= is_free;
        is_free
    }

    /// Takes the lead if nobody has it, nothing waits, and nothing else is likely to come.
    fn try_to_lead_alone(&self) -> bool {
        let mut state = self.state();
        let is_quiet = !state.is_led && !state.is_shared && state.waiting.is_empty();
        state.is_led |= is_quiet;
        is_quiet
    }

    /// Is more likely to come that is worth to give way for?
    fn gathers(&self) -> bool {
        let state = self.state();
        state.is_shared && state.waiting.len() < ENOUGH
    }

    /// Gives the lead, if nobody has it, to one of those who wait here, and wakes it if it
    /// sleeps: until it runs, more gathers for its call. Where nobody waits, all are about to
    /// look for lanes without a leader, as they do before they wait.
    fn pass_on(&self) {
        let mut state = self.state();
        if state.is_led {
            return;
        }
        state.is_shared |= !state.waiting.is_empty();
        let mut waiting = state.waiting.iter();
        let next = waiting.find_map(|(_, receipt)| receipt.hand(&self.location));
        state.is_led = next.is_some();
        drop(state);
        if let Some(next) = next {
            next.rouse();
        }
    }
}

/// The lead of a lane, passed on when it is dropped, however the call ends.
struct Lead<'a, Q, A>(&'a Lane<Q, A>);

impl<Q: Item, A> Lead<'_, Q, A> {
    /// What the next call takes.
    fn batch(&self, most: usize) -> Vec<(Q, Receipt<A>)> {
        let mut state = self.0.state();
        let waiting = &state.waiting;
        let mut weight = 0;
        let mut fits = |(item, _): &&(Q, Receipt<A>)| {
            weight += item.weight();
            weight <= most && item.goes_with(&waiting[0].0)
        };
        let count = waiting.iter().take_while(|item| fits(item)).count();
        let count = count.max(1).min(waiting.len());
        state.is_shared = count > 1;
        state.waiting.drain(..count).collect()
    }
}

impl<Q, A> Drop for Lead<'_, Q, A> {
    fn drop(&mut self) {
        self.0.state().is_led = false;
        self.0.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    impl Item for u32 {
        fn weight(&self) -> usize {
            1
        }

        fn goes_with(&self, other: &u32) -> bool {
            self / 1000 == other / 1000
        }
    }

    fn at(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    /// Lanes whose loads are carried one after another.
    fn lanes(
        most: usize,
        carry: impl Fn(&Location, &[u32]) -> Vec<u32> + Send + Sync + 'static,
    ) -> Lanes<u32, u32> {
        Lanes::new(most, move |loads, done| {
            for (place, load) in loads.iter().enumerate() {
                done(place, carry(&load.to, &load.items));
            }
        })
    }

    #[test]
    fn answers_come_back_in_the_order_of_the_items() {
        let lanes = lanes(3, |location, items| {
            assert!(items.len() <= 3, "a call takes no more than it may");
            let answer = |item| u32::from(location.port()) * 10_000 + item * 2;
            items.iter().map(answer).collect()
        });
        let port = |item| 1 + item as u16 % 3;
        let items = (0..100).map(|item| (at(port(item)), item));
        let answer = |item| Some(u32::from(port(item)) * 10_000 + item * 2);
        let expected: Vec<_> = (0..100).map(answer).collect();
        assert_eq!(lanes.deliver(items.collect()), expected);
        assert_eq!(lanes.deliver(Vec::new()), Vec::new());
    }

    #[test]
    fn one_call_takes_only_what_goes_together() {
        let lanes = lanes(100, |_, items| {
            let first = items[0] / 1000;
            assert!(items.iter().all(|item| item / 1000 == first), "{items:?}");
            vec![items.len() as u32; items.len()]
        });
        let items = [1, 2, 1001, 3, 4, 5].map(|item| (at(1), item));
        let calls = [2, 2, 1, 3, 3, 3].map(Some);
        assert_eq!(lanes.deliver(items.to_vec()), calls);
    }

    #[test]
    fn what_comes_during_a_call_goes_with_the_next() {
        let (begun, wait_for_begun) = mpsc::channel();
        let (go_on, wait_to_go_on) = mpsc::channel::<()>();
        let gates = Mutex::new((begun, wait_to_go_on));
        let lanes = lanes(1000, move |_, items| {
            let (begun, go_on) = &*gates.lock().unwrap();
            begun.send(items.len()).unwrap();
            go_on.recv().unwrap();
            items.to_vec()
        });
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
    fn what_goes_together_is_gathered_for_until_one_goes_alone() {
        let lanes = lanes(1000, |_, items| items.to_vec());
        let lane = lanes.lane(&at(1));
        let send = |items: &[u32]| {
            let items = items.iter().map(|item| (at(1), *item));
            lanes.deliver(items.collect());
            lane.state().is_shared
        };
        assert!(!send(&[1]));
        assert!(send(&[2, 3]) && lane.gathers() && !lane.try_to_lead_alone());
        assert!(!send(&[4]) && !lane.gathers() && lane.try_to_lead_alone());
    }

    #[test]
    fn nobody_waits_for_ever_however_many_send_to_however_many() {
        let lanes = lanes(8, |_, items| items.to_vec());
        thread::scope(|scope| {
            for sender in 0..16 {
                let lanes = &lanes;
                scope.spawn(move || {
                    for round in 0..500 {
                        let count = 1 + (sender + round) % 4;
                        let item = |i: u32| (at(1 + ((sender + round + i) % 5) as u16), i);
                        let expected: Vec<_> = (0..count).map(Some).collect();
                        assert_eq!(lanes.deliver((0..count).map(item).collect()), expected);
                    }
                });
            }
        });
    }

    #[test]
    fn a_slow_location_holds_up_only_what_goes_there() {
        let (go_on, wait_to_go_on) = mpsc::channel::<()>();
        let wait_to_go_on = Mutex::new(wait_to_go_on);
        // The first location's call is over last.
        let lanes = Lanes::new(8, move |loads: &[Load<u32>], done: Done<'_, u32>| {
            let is_slow = |load: &Load<u32>| load.to.port() == 1;
            for slow in [false, true] {
                let calls = loads.iter().enumerate();
                for (place, load) in calls.filter(|(_, load)| is_slow(load) == slow) {
                    if slow {
                        wait_to_go_on.lock().unwrap().recv().unwrap();
                    }
                    done(place, load.items.clone());
                }
            }
        });
        thread::scope(|scope| {
            scope.spawn(|| lanes.deliver(vec![(at(1), 1), (at(2), 2)]));
            while !lanes.lane(&at(1)).state().is_led {
                thread::yield_now();
            }
            assert_eq!(lanes.deliver(vec![(at(2), 3)]), [Some(3)]);
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn a_call_that_fails_leaves_nobody_waiting() {
        let lanes = lanes(1, |_, items| match items {
            [13] => panic!("as this test wants it"),
            _ => items.to_vec(),
        });
        thread::scope(|scope| {
            for items in [vec![13], vec![13, 7]] {
                let items = items.into_iter().map(|item| (at(1), item)).collect();
                let failed = scope.spawn(|| lanes.deliver(items)).join();
                assert!(failed.is_err());
                assert_eq!(lanes.deliver(vec![(at(1), 7)]), [Some(7)]);
            }
        });
    }
}
