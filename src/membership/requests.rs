//! Outgoing calls: how the core starts them, and drops those that the driver has lost.

use std::time::Duration;

use super::action::{Action, Request};
use super::calls::{Call, Purpose};
use super::core::Membership;
use crate::location::Location;

impl Membership {
    /// Calls `exchange` on `peer`, or `get_all` if it is a legacy node. False without a call: the
    /// peer is this node, a call to it is in flight, or too many calls are.
    pub(super) fn exchange_with(&mut self, peer: &Location, purpose: Purpose) -> bool {
        if *peer == self.me || !self.can_call() || self.calls.is_calling(peer) {
            return false;
        }
        // The record may be that of another process, which was there before.
        if self.is_legacy(peer) || self.legacy.contains(peer) {
            self.call(peer, purpose, Request::GetAll);
        } else {
            let gossip = self.gossip_for(peer, self.is_alone());
            self.call(peer, purpose, Request::Exchange(gossip));
        }
        true
    }

    /// Exchanges all records with `peer`, at most once in each `push_pull_interval`.
    pub(super) fn push_pull(&mut self, peer: &Location) {
        let now = self.now.monotonic;
        let next = self
            .last_push_pull
            .map(|last| last + self.config.push_pull_interval);
        if next.is_none_or(|next| now >= next) && self.can_call() {
            self.last_push_pull = Some(now);
            let gossip = self.gossip_for(peer, true);
            self.call(peer, Purpose::Probe, Request::Exchange(gossip));
        }
    }

    /// Hands a call to the driver.
    pub(super) fn call(&mut self, peer: &Location, purpose: Purpose, request: Request) {
        let token = self.calls.insert(Call {
            peer: peer.clone(),
            purpose,
            called_at: self.now.monotonic,
            digest: self.digest(),
            full: matches!(&request, Request::Exchange(gossip) if gossip.full),
            target: match &request {
                Request::PingReq(target) => Some(target.clone()),
                _ => None,
            },
        });
        self.outbox.push(Action {
            token,
            peer: peer.clone(),
            request,
        });
    }

    /// Is the number of calls in flight below its limit?
    pub(super) fn can_call(&self) -> bool {
        self.calls.len() < self.config.max_calls
    }

    /// The calls that the driver has to make now.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.outbox)
    }

    /// Drops the calls that the driver has not reported within `call_lifetime`. This is no evidence
    /// against the peers, but indirect probes and candidates must not wait forever.
    pub(super) fn expire_calls(&mut self) {
        let Some(limit) = self.now.monotonic.checked_sub(self.config.call_lifetime) else {
            return;
        };
        for call in self.calls.remove_before(limit + Duration::from_nanos(1)) {
            if call.purpose == Purpose::PingReq {
                self.on_ping_req_reply(&call, None);
            } else if self.table.get(&call.peer).is_none() {
                self.on_candidate_failure(&call.peer);
            }
        }
    }
}
