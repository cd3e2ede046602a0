//! The driver: gives the core the time, makes the calls it asks for, and keeps the
//! ring in step with it.

use std::io;
use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use thrift::TransportErrorKind;

use super::{Shared, State, patience};
use crate::error::Error;
use crate::locator::{self, LocatorSyncClient, TLocatorSyncClient};
use crate::membership::{Action, Change, Event, Gossip, Membership, Outcome, Request};

/// A node that has heard no other for so long is out of touch: less than it takes
/// until the others give it up.
const OUT_OF_TOUCH: Duration = Duration::from_secs(2);

impl Shared {
    /// Lets the core decide, keeps the ring in step, and lets the driver look again.
    pub(super) fn decide<T>(&self, decision: impl FnOnce(&mut Membership) -> T) -> T {
        let mut state = self.state();
        let decided = decision(&mut state.membership);
        self.follow(&mut state);
        drop(state);
        self.changed.notify_all();
        decided
    }

    /// Brings the ring up to what the core has decided and passes its events on.
    pub(super) fn follow(&self, state: &mut State) {
        let events = state.membership.events();
        if !events.is_empty() {
            let membership = &state.membership;
            let is_original = |(location, _)| membership.is_original(location);
            self.has_originals
                .store(membership.live().any(is_original), Relaxed);
            self.generation.fetch_add(1, Release);
        }
        for event in events {
            match &event {
                Event::RingChanged(changes) => self.change_ring(changes),
                Event::ForeignNetwork(peer, network) => {
                    state.foreigner = Some((peer.clone(), network.clone()));
                }
                _ => (),
            }
            if let Some(announcer) = &state.announcer {
                // Its receiver goes only when the node stops.
                let _ = announcer.send(event);
            }
        }
    }

    pub(super) fn change_ring(&self, changes: &[Change]) {
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for change in changes {
            match change {
                Change::Added { location, .. } => added.push((location.clone(), 1)),
                Change::Removed { location, .. } => removed.push(location.clone()),
                Change::Restarted { .. } => (),
            }
        }
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        *ring = Arc::new(ring.changed(added, &removed));
        if self.is_alone.swap(ring.len() < 2, Relaxed) {
            // Nobody could be heard before there was anybody.
            self.heard_at.fetch_max(self.millis(), Release);
        }
    }

    /// The driver's thread: wakes when the core wants it, until the node stops.
    pub(super) fn drive(self: Arc<Self>) {
        let mut state = self.state();
        while !state.stopped {
            let now = self.now();
            let actions = state.membership.tick(now);
            self.follow(&mut state);
            if actions.is_empty() {
                let sleep = state.membership.wake_at().saturating_sub(now.monotonic);
                state = self.wait(state, sleep);
            } else {
                drop(state);
                self.dispatch(actions);
                state = self.state();
            }
        }
    }

    /// Makes each call on a thread of its own. The core bounds how many are under way.
    pub(super) fn dispatch(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let shared = self.clone();
            let caller = move || {
                let began = shared.millis();
                let Some(outcome) = shared.perform(&action) else {
                    return;
                };
                let now = shared.now();
                let token = action.token;
                let heard = matches!(outcome, Outcome::Gossip(_));
                let more = shared.decide(|membership| membership.reply(now, token, outcome));
                if heard {
                    shared.heard(began);
                }
                shared.dispatch(more);
            };
            if let Err(e) = thread::Builder::new().name("caller".into()).spawn(caller) {
                // The core gives such a call up in its own time, and blames no peer.
                warn!("a call to a peer was not made: {e}");
            }
        }
    }

    /// Makes one call. Nothing comes of it when this process lacks what it takes: that
    /// says nothing of the peer, and the core gives the call up in its own time.
    pub(super) fn perform(&self, action: &Action) -> Option<Outcome> {
        let peer = &action.peer;
        let caller = self.endpoint.caller();
        let patience = patience(self.settings.call_timeout);
        let outcome = match &action.request {
            Request::Exchange(gossip) => {
                let gossip = locator::Gossip::from(gossip);
                let reply = caller.call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.exchange(gossip)
                });
                reply.map(|reply| Gossip::try_from(reply).map_or(Outcome::Silent, Outcome::Gossip))
            }
            Request::Reach(location) => caller
                .call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.reach(location.into())
                })
                .map(Outcome::Reached),
            Request::GetAll => caller
                .call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.get_all()
                })
                .map(|all| Outcome::All(all.iter().filter_map(|l| l.try_into().ok()).collect())),
            Request::Add {
                location,
                authorities,
            } => caller
                .call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.add(
                        location.into(),
                        authorities.iter().map(Into::into).collect(),
                    )
                })
                .map(|()| Outcome::Done),
            Request::Remove {
                location,
                authorities,
            } => caller
                .call_within(patience, LocatorSyncClient::new, peer, |peer| {
                    peer.remove(
                        location.into(),
                        authorities.iter().map(Into::into).collect(),
                    )
                })
                .map(|()| Outcome::Done),
        };
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(Error::Local(e)) => {
                warn!("a call to {peer} was not made: {e}");
                None
            }
            Err(e) => {
                debug!("{e}");
                Some(outcome_of(&e))
            }
        }
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Another member has answered a call that began then. What it said is in the
    /// membership already: who sees this sees that too.
    pub(super) fn heard(&self, began: u64) {
        if self.is_out_of_touch_at(began) {
            self.absences.fetch_add(1, Release);
        }
        self.heard_at.fetch_max(began, Release);
    }

    pub(super) fn is_out_of_touch_at(&self, millis: u64) -> bool {
        let heard_at = self.heard_at.load(Acquire);
        millis.saturating_sub(heard_at) >= OUT_OF_TOUCH.as_millis() as u64
    }
}

/// What a failed call says of the peer. Only a host that answers for a process
/// that is not there makes for a quick verdict.
pub(super) fn outcome_of(error: &Error) -> Outcome {
    match error {
        e if e.is_unknown_method() => Outcome::UnknownMethod,
        Error::Refused(_, e) if e.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Error::Broken(_, thrift::Error::Transport(e))
            if matches!(
                e.kind,
                TransportErrorKind::EndOfFile | TransportErrorKind::NotOpen
            ) =>
        {
            Outcome::Refused
        }
        _ => Outcome::Silent,
    }
}
