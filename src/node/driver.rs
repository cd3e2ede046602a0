//! The driver: gives the membership the time and makes the calls that it asks for.

use std::io;
use std::thread;
use std::time::Duration;

use log::{debug, warn};

use super::Node;
use super::events::PendingEvents;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{self, LocatorSyncClient, TLocatorSyncClient};
use crate::membership::{Action, Change, Gossip, Membership, Now, Outcome, Request, config};
use crate::rpc::dialer::{Input, Output, Timeouts};

/// A client of a peer.
pub(super) type Peer = LocatorSyncClient<Input, Output>;

impl Node {
    /// Starts the node's own threads. Events before that are not delivered.
    pub(super) fn start(&self, on_change: impl Fn(&[Change]) + Send + 'static) -> io::Result<()> {
        self.shared.state.lock().events = PendingEvents::default();
        let (driver, events) = (self.clone(), self.clone());
        let thread = |name: &str| thread::Builder::new().name(name.into());
        let driver = thread("driver").spawn(move || driver.drive())?;
        let events = thread("events").spawn(move || events.deliver_events(on_change))?;
        self.shared.threads.lock().extend([driver, events]);
        Ok(())
    }

    /// Ends the node's own threads and waits for them. The server can still reply from what
    /// is known.
    pub(crate) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
        self.shared.event_added.notify_all();
        self.shared.activity.history.stop();
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                warn!("a thread of the node at {} has panicked", self.location());
            }
        }
    }

    /// The driver's thread: wakes when the membership asks for it, until the node stops.
    fn drive(&self) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.membership.begin(shared.now());
        while !state.stopped {
            let now = shared.now();
            let actions = state.membership.tick(now);
            shared.collect(&mut state);
            state = shared.publish(state);
            if actions.is_empty() {
                let sleep = state.membership.wake_at().saturating_sub(now.monotonic);
                shared.changed.wait_for(&mut state, sleep);
            } else {
                drop(state);
                self.dispatch(actions);
                state = shared.state.lock();
            }
        }
    }

    /// Lets the membership decide at the current time, and wakes the driver, which publishes
    /// what changed.
    pub(super) fn decide<T>(&self, decision: impl FnOnce(&mut Membership, Now) -> T) -> T {
        let mut state = self.shared.state.lock();
        let decided = decision(&mut state.membership, self.shared.now());
        self.shared.collect(&mut state);
        drop(state);
        self.shared.changed.notify_all();
        decided
    }

    /// Makes each call on a thread of its own. The membership limits how many are in flight.
    pub(super) fn dispatch(&self, actions: Vec<Action>) {
        for action in actions {
            let node = self.clone();
            let call = move || node.call_and_report(&action);
            if let Err(e) = thread::Builder::new().name("caller".into()).spawn(call) {
                // The membership times the call out and blames no peer.
                warn!("a call to a peer was not made: {e}");
            }
        }
    }

    fn call_and_report(&self, action: &Action) {
        let began = self.shared.millis();
        let Some(outcome) = self.perform(action) else {
            return;
        };
        let has_contact = matches!(outcome, Outcome::Gossip(_));
        let more = self.decide(|membership, now| membership.reply(now, action.token, outcome));
        if has_contact {
            self.shared.record_contact(began);
        }
        self.dispatch(more);
    }

    /// Makes one call. None if this process lacks the resources, which says nothing about the
    /// peer: the membership times the call out.
    fn perform(&self, action: &Action) -> Option<Outcome> {
        let peer = &action.peer;
        let timeout = config::CALL_TIMEOUT;
        let to_wire = |all: &[Location]| all.iter().map(Into::into).collect();
        let outcome = self.call(timeout, peer, |client| match &action.request {
            Request::Exchange(gossip) => {
                let (gossip, activity) = (locator::Gossip::from(gossip), &self.shared.activity);
                activity.add_sent(&gossip);
                let reply = client.exchange(gossip)?;
                activity.add_received(&reply);
                Ok(Gossip::try_from(reply).map_or(Outcome::NoReply, Outcome::Gossip))
            }
            Request::PingReq(target) => client.ping_req(target.into()).map(Outcome::PingReq),
            Request::GetAll => {
                let all = client.get_all()?;
                let locations = all.iter().filter_map(|l| l.try_into().ok());
                Ok(Outcome::All(locations.collect()))
            }
            Request::Add(location, authorities) => {
                client.add(location.into(), to_wire(authorities))?;
                Ok(Outcome::Done)
            }
            Request::Remove(location, authorities) => {
                client.remove(location.into(), to_wire(authorities))?;
                Ok(Outcome::Done)
            }
        });
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(Error::Io(e)) => {
                warn!("a call to {peer} was not made: {e}");
                None
            }
            Err(e) => {
                debug!("{e}");
                Some(outcome_of(&e))
            }
        }
    }

    /// Makes one call, with the same timeout to connect and to receive the reply.
    pub(super) fn call<T>(
        &self,
        timeout: Duration,
        peer: &Location,
        body: impl FnOnce(&mut Peer) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        let timeouts = Timeouts {
            connect: timeout,
            reply: timeout,
        };
        self.dialer()
            .call_with_timeouts(timeouts, LocatorSyncClient::new, peer, body)
    }
}

/// What a failed call says about the peer. Only a host that answers that no process listens counts
/// as a refusal, which shortens the suspect timeout. A connection that was closed is none: a
/// server that is short of threads closes connections, and may still answer others.
pub(super) fn outcome_of(error: &Error) -> Outcome {
    match error {
        e if e.is_unknown_method() => Outcome::UnknownMethod,
        e if e.has_ended() => Outcome::Refused,
        _ => Outcome::NoReply,
    }
}
