//! The driver: gives the membership the time and makes the calls that it asks for.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use thrift::TransportErrorKind;

use super::shared::Shared;
use crate::error::Error;
use crate::locator::{self, LocatorSyncClient, TLocatorSyncClient};
use crate::membership::{Action, Gossip, Outcome, Request};
use crate::rpc::dialer::{Input, Output, Timeouts};

/// A client of a peer.
type Peer = LocatorSyncClient<Input, Output>;

impl Shared {
    /// The driver's thread: wakes when the membership asks for it, until the node stops.
    pub fn drive(self: Arc<Self>) {
        let mut state = self.state.lock();
        while !state.stopped {
            let now = self.now();
            let actions = state.membership.tick(now);
            self.collect(&mut state);
            state = self.publish(state);
            if actions.is_empty() {
                let sleep = state.membership.wake_at().saturating_sub(now.monotonic);
                self.wait(&mut state, sleep);
            } else {
                drop(state);
                self.dispatch(actions);
                state = self.state.lock();
            }
        }
    }

    /// Makes each call on a thread of its own. The membership limits how many are in flight.
    pub fn dispatch(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let shared = self.clone();
            let call = move || shared.call_and_report(&action);
            if let Err(e) = thread::Builder::new().name("caller".into()).spawn(call) {
                // The membership times the call out and blames no peer.
                warn!("a call to a peer was not made: {e}");
            }
        }
    }

    fn call_and_report(self: &Arc<Self>, action: &Action) {
        let began = self.millis();
        let Some(outcome) = self.perform(action) else {
            return;
        };
        let has_contact = matches!(outcome, Outcome::Gossip(_));
        let more = self.decide(|membership, now| membership.reply(now, action.token, outcome));
        if has_contact {
            self.record_contact(began);
        }
        self.dispatch(more);
    }

    /// Makes one call. None if this process lacks the resources, which says nothing about the
    /// peer: the membership times the call out.
    fn perform(&self, action: &Action) -> Option<Outcome> {
        let peer = &action.peer;
        let outcome = self.call_peer(action, |client, request| match request {
            Request::Exchange(gossip) => {
                let reply = client.exchange(locator::Gossip::from(gossip))?;
                Ok(Gossip::try_from(reply).map_or(Outcome::NoReply, Outcome::Gossip))
            }
            Request::PingReq(target) => client.ping_req(target.into()).map(Outcome::PingReq),
            Request::GetAll => {
                let all = client.get_all()?;
                let locations = all.iter().filter_map(|l| l.try_into().ok());
                Ok(Outcome::All(locations.collect()))
            }
            Request::Add {
                location,
                authorities,
            } => {
                let authorities = authorities.iter().map(Into::into).collect();
                client.add(location.into(), authorities)?;
                Ok(Outcome::Done)
            }
            Request::Remove {
                location,
                authorities,
            } => {
                let authorities = authorities.iter().map(Into::into).collect();
                client.remove(location.into(), authorities)?;
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

    fn call_peer<T>(
        &self,
        action: &Action,
        body: impl FnOnce(&mut Peer, &Request) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        self.endpoint.dialer().call_with_timeouts(
            same_timeouts(self.config.call_timeout),
            LocatorSyncClient::new,
            &action.peer,
            |client| body(client, &action.request),
        )
    }
}

/// The same time to connect and to receive the reply.
pub(super) fn same_timeouts(time: Duration) -> Timeouts {
    Timeouts {
        connect: time,
        reply: time,
    }
}

/// What a failed call says about the peer. Only a host that answers for a process that is
/// gone counts as a refusal, which shortens the suspect timeout.
pub(super) fn outcome_of(error: &Error) -> Outcome {
    match error {
        e if e.is_unknown_method() => Outcome::UnknownMethod,
        Error::Refused(_, e) if e.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Error::ConnectionLost(_, thrift::Error::Transport(e))
            if matches!(
                e.kind,
                TransportErrorKind::EndOfFile | TransportErrorKind::NotOpen
            ) =>
        {
            Outcome::Refused
        }
        _ => Outcome::NoReply,
    }
}
