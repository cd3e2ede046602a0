//! `Delivery`: what a sender in [`lanes`](super::lanes) waits for, and how it does.
//!
//! A sender who waits gives way to other threads some times before it sleeps: with several
//! connections that is a sixth more reads passed on and a tenth more writes, and shorter
//! waits, since to wake a thread costs more than to let it look again. The more of them there
//! are, the less often each does so: to give way to others who only look again is no use, and
//! those whom all wait for need the processors. For 50 connections that is a quarter more reads.
//! Nobody does while that costs too much, as `courtesy` tells.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::location::Location;
use crate::rpc::courtesy::give_way;

/// How often a sender who waits gives way to other threads before it sleeps, while no other
/// one does; the second gives way half as often, the third a third as often, and so on. Where
/// all processors are busy, it has mostly been answered by then, and nobody had to wake it;
/// where one is idle, these are some microseconds.
const YIELDS: usize = 32;

/// The answers that one sender waits for. Its lock is held for a moment, after that of a lane
/// or alone.
pub(super) struct Delivery<A> {
    progress: Mutex<Progress<A>>,
    changed: Condvar,
}

struct Progress<A> {
    given: Vec<Option<A>>,
    missing: usize,
    /// Does the sender wait, or give way before it does?
    is_parked: bool,
    /// Does it sleep, so that it must be notified?
    is_asleep: bool,
    /// Where the sender has been given the lead.
    to_lead: Option<Location>,
}

impl<A> Delivery<A> {
    /// So many answers, none of which is there.
    pub(super) fn of(count: usize) -> Delivery<A> {
        let progress = Progress {
            given: (0..count).map(|_| None).collect(),
            missing: count,
            is_parked: false,
            is_asleep: false,
            to_lead: None,
        };
        Delivery {
            progress: Mutex::new(progress),
            changed: Condvar::new(),
        }
    }

    /// What is to be signed with the answer in that place.
    pub(super) fn receipt(self: &Arc<Self>, place: usize) -> Receipt<A> {
        Receipt {
            place,
            delivery: self.clone(),
            is_signed: false,
        }
    }

    /// How far it is; held for a moment.
    fn progress(&self) -> MutexGuard<'_, Progress<A>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the answers if all are there; else the sender may be given the lead of a lane in
    /// which it waits, from here on.
    pub(super) fn park_or_take(&self) -> Option<Vec<Option<A>>> {
        let mut progress = self.progress();
        progress.is_parked = progress.missing > 0;
        (!progress.is_parked).then(|| std::mem::take(&mut progress.given))
    }

    /// The sender has something to do; where it was given the lead, if anywhere.
    pub(super) fn unpark(&self) -> Option<Location> {
        let mut progress = self.progress();
        progress.is_parked = false;
        progress.to_lead.take()
    }

    /// Waits until there is something to do: gives way to other threads some times, the less
    /// often the more others do so, and only then sleeps.
    pub(super) fn wait(&self, giving_way: &AtomicUsize) -> Woken<A> {
        let others = giving_way.fetch_add(1, Relaxed);
        let mut progress = self.progress();
        for _ in 0..(YIELDS / (others + 1)).max(1) {
            if progress.is_ready() {
                break;
            }
            drop(progress);
            let gave_way = give_way();
            progress = self.progress();
            if !gave_way {
                break;
            }
        }
        giving_way.fetch_sub(1, Relaxed);
        while !progress.is_ready() {
            progress.is_asleep = true;
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
            progress.is_asleep = false;
        }
        progress.is_parked = false;
        match progress.to_lead.take() {
            Some(location) => Woken::ToLead(location),
            None => Woken::Complete(std::mem::take(&mut progress.given)),
        }
    }

    /// Wakes the sender if it sleeps.
    pub(super) fn rouse(&self) {
        self.rouse_from(self.progress());
    }

    /// The same, where its progress is held. To notify costs a system call, whoever waits.
    fn rouse_from(&self, progress: MutexGuard<'_, Progress<A>>) {
        let is_asleep = progress.is_asleep;
        drop(progress);
        if is_asleep {
            self.changed.notify_one();
        }
    }
}

impl<A> Progress<A> {
    /// Is there something to do for a sender that waits?
    fn is_ready(&self) -> bool {
        self.missing == 0 || self.to_lead.is_some()
    }
}

/// Why a sender waits no longer.
pub(super) enum Woken<A> {
    /// All answers are there.
    Complete(Vec<Option<A>>),
    /// It has the lead of the lane to this location.
    ToLead(Location),
}

/// Says of one item that it was delivered, or, dropped unsigned, that it never will be.
pub(super) struct Receipt<A> {
    place: usize,
    delivery: Arc<Delivery<A>>,
    is_signed: bool,
}

impl<A> Receipt<A> {
    /// Gives the sender the lead of a lane, if it waits; it is to be [roused](Delivery::rouse)
    /// then.
    pub(super) fn hand(&self, location: &Location) -> Option<Arc<Delivery<A>>> {
        let mut progress = self.delivery.progress();
        let waits = progress.is_parked && !progress.is_ready();
        if waits {
            progress.to_lead = Some(location.clone());
        }
        waits.then(|| self.delivery.clone())
    }

    /// It was delivered, and this is its answer.
    pub(super) fn sign(mut self, answer: A) {
        self.is_signed = true;
        self.hand_back(Some(answer));
    }

    fn hand_back(&self, answer: Option<A>) {
        let mut progress = self.delivery.progress();
        progress.given[self.place] = answer;
        progress.missing -= 1;
        if progress.missing == 0 {
            self.delivery.rouse_from(progress);
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

    #[test]
    fn what_is_signed_has_an_answer_and_what_is_dropped_has_none() {
        let delivery = Arc::new(Delivery::of(3));
        let [first, second, third] = [0, 1, 2].map(|place| delivery.receipt(place));
        drop(second);
        third.sign(3);
        assert_eq!(delivery.park_or_take(), None, "one is missing");
        first.sign(1);
        let giving_way = AtomicUsize::new(0);
        let Woken::Complete(answers) = delivery.wait(&giving_way) else {
            panic!("nobody gave it a lead");
        };
        assert_eq!(answers, [Some(1), None, Some(3)]);
    }

    #[test]
    fn only_a_sender_that_waits_and_has_nothing_to_do_is_given_a_lead() {
        let delivery = Arc::new(Delivery::<u32>::of(1));
        let receipt = delivery.receipt(0);
        let [one, other] = [1, 2].map(|port| Location::new("127.0.0.1", port).unwrap());
        assert!(receipt.hand(&one).is_none(), "it does not wait yet");
        assert!(delivery.park_or_take().is_none());
        assert!(receipt.hand(&one).is_some());
        assert!(receipt.hand(&other).is_none(), "it has a lead to take");
        assert_eq!(delivery.unpark(), Some(one));
        assert!(receipt.hand(&other).is_none(), "it does not wait any more");
    }
}
