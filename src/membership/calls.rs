//! Outgoing calls: how the core starts them, what an `exchange` contains, and how calls end that
//! the driver has lost.

use std::collections::BTreeSet;
use std::mem;

use super::action::{Action, Call, Purpose, Request, Token};
use super::config;
use super::core::Membership;
use super::gossip::Gossip;
use super::member::{Member, Status};
use crate::location::Location;

impl Membership {
    /// Calls `exchange` on `peer`, or `get_all` if it is a legacy node. False without a call: the
    /// peer is this node, a call to it is in flight, or too many calls are.
    pub(super) fn exchange_with(&mut self, peer: &Location, purpose: Purpose) -> bool {
        if *peer == self.me || !self.can_call() || self.is_calling(peer) {
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

    /// Exchanges all records with `peer`, at most once in each `PUSH_PULL_INTERVAL`.
    pub(super) fn push_pull(&mut self, peer: &Location) {
        let now = self.now.monotonic;
        let next = self
            .last_push_pull
            .map(|last| last + config::PUSH_PULL_INTERVAL);
        if next.is_none_or(|next| now >= next) && self.can_call() {
            self.last_push_pull = Some(now);
            let gossip = self.gossip_for(peer, true);
            self.call(peer, Purpose::Probe, Request::Exchange(gossip));
        }
    }

    /// Hands a call to the driver.
    pub(super) fn call(&mut self, peer: &Location, purpose: Purpose, request: Request) {
        self.last_token += 1;
        let token = Token(self.last_token);
        let call = Call {
            peer: peer.clone(),
            purpose,
            called_at: self.now.monotonic,
            digest: self.digest(),
            full: matches!(&request, Request::Exchange(gossip) if gossip.full),
        };
        self.calls.insert(token, call);
        self.outbox.push(Action {
            token,
            peer: peer.clone(),
            request,
        });
    }

    /// Is the number of calls in flight below its limit?
    pub(super) fn can_call(&self) -> bool {
        self.calls.len() < config::MAX_CALLS
    }

    fn is_calling(&self, peer: &Location) -> bool {
        self.calls.values().any(|call| call.peer == *peer)
    }

    /// The calls that the driver has to make now.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        mem::take(&mut self.outbox)
    }

    /// Drops the calls that the driver has not reported within `CALL_LIFETIME`. This is no evidence
    /// against the peers, but indirect probes and candidates must not wait forever.
    pub(super) fn expire_calls(&mut self) {
        while let Some(oldest) = self.calls.first_entry()
            && oldest.get().called_at + config::CALL_LIFETIME <= self.now.monotonic
        {
            let call = oldest.remove();
            if let Purpose::PingReq(target) = &call.purpose {
                self.on_ping_req_reply(target, &call.peer, None);
            } else if self.table.get(&call.peer).is_none() {
                self.on_candidate_failure(&call.peer);
            }
        }
    }

    /// Every record, as the request of a push-pull.
    pub fn full_state(&self) -> Gossip {
        Gossip {
            full: true,
            ..self.gossip_of(self.table.iter().cloned().collect())
        }
    }

    /// The request for `peer`: this node's rumors, or every record if `full`. Its own record is
    /// added if the peer may lack it, and the peer's record if the peer may refute it.
    pub(super) fn gossip_for(&self, peer: &Location, full: bool) -> Gossip {
        let mut included = self.rumors_or_all(full);
        let digest = self.contacts.get(peer).and_then(|contact| contact.digest);
        let has_other_digest = digest.is_some_and(|digest| digest != self.digest());
        if has_other_digest || self.status_of(peer) != Some(Status::Alive) {
            included.insert(&self.me);
        }
        if self.is_refutable(peer) {
            included.insert(peer);
        }
        Gossip {
            full,
            ..self.gossip_of(self.records(included))
        }
    }

    /// The records of a reply: this node's rumors, or every record if the request is full, without
    /// those that the request has; its own record if the digests differ; the sender's record if
    /// the sender may refute it; and the records that are `newer` here than in the request.
    pub(super) fn reply_records(&self, request: &Gossip, newer: Vec<Location>) -> Vec<Member> {
        let mut included = self.rumors_or_all(request.full);
        if request.digest != self.digest() {
            included.insert(&self.me);
        }
        if self.is_refutable(&request.sender) {
            included.insert(&request.sender);
        }
        if !included.is_empty() {
            for member in &request.members {
                included.remove(&member.location);
            }
        }
        included.extend(&newer);
        self.records(included)
    }

    /// A gossip of this node with these records.
    pub(super) fn gossip_of(&self, members: Vec<Member>) -> Gossip {
        Gossip {
            sender: self.me.clone(),
            network: self.network.clone(),
            digest: self.digest(),
            members,
            full: false,
            learned: false,
            joins: None,
            refused: 0,
        }
    }

    fn rumors_or_all(&self, all: bool) -> BTreeSet<&Location> {
        if all {
            self.table.iter().map(|member| &member.location).collect()
        } else {
            self.rumors.iter().collect()
        }
    }

    fn records(&self, locations: BTreeSet<&Location>) -> Vec<Member> {
        let records = locations.into_iter().filter_map(|l| self.table.get(l));
        records.cloned().collect()
    }

    /// Does this node know a record of `location` that a process there would refute?
    fn is_refutable(&self, location: &Location) -> bool {
        self.status_of(location).is_some_and(|s| s != Status::Alive)
    }
}
