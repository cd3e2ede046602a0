//! A stand-in for a legacy node: a list of locations, and messages that are forwarded from node to
//! node.

use std::collections::BTreeSet;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Outcome, Request};

use super::event_queue::SimEvent;
use super::{Id, Process, Simulator};

/// A message of the original that has no reply.
#[derive(Debug, Clone)]
pub enum Oneway {
    Join(Location),
    Add(Location, Vec<Location>),
    Remove(Location, Vec<Location>),
}

/// Knows `get_all`, `join`, `add` and `remove` only.
#[derive(Clone)]
pub struct LegacyNode {
    pub me: Location,
    pub ring: BTreeSet<Location>,
}

impl LegacyNode {
    pub fn new(me: Location, known: Vec<Location>) -> LegacyNode {
        let mut ring: BTreeSet<Location> = known.into_iter().collect();
        ring.insert(me.clone());
        LegacyNode { me, ring }
    }

    /// Takes a message. Returns the message to forward, and where to.
    fn on_message(&mut self, message: Oneway) -> Option<(Location, Oneway)> {
        match message {
            Oneway::Join(location) => {
                let authorities = vec![location.clone()];
                self.on_message(Oneway::Add(location, authorities))
            }
            Oneway::Add(location, mut authorities) => {
                self.ring.insert(location.clone());
                authorities.push(self.me.clone());
                let next = self.next(&authorities)?;
                Some((next, Oneway::Add(location, authorities)))
            }
            Oneway::Remove(location, mut authorities) => {
                if location != self.me {
                    self.ring.remove(&location);
                }
                authorities.push(self.me.clone());
                let next = self.next(&authorities)?;
                Some((next, Oneway::Remove(location, authorities)))
            }
        }
    }

    /// Removes a node that could not be reached, and forwards the message to the next one.
    fn on_undeliverable(&mut self, to: &Location, message: Oneway) -> Option<(Location, Oneway)> {
        self.ring.remove(to);
        let (Oneway::Add(_, authorities) | Oneway::Remove(_, authorities)) = &message else {
            return None;
        };
        let next = self.next(authorities)?;
        Some((next, message))
    }

    fn next(&self, authorities: &[Location]) -> Option<Location> {
        let mut others = self.ring.iter().filter(|l| !authorities.contains(l));
        others.next().cloned()
    }
}

impl Simulator {
    /// Starts a legacy node that joins through `peer`. False if the peer does not reply: then the
    /// node ends, as the original does.
    pub fn start_legacy(&mut self, id: Id, peer: Id) -> bool {
        if !self.is_reachable(id, peer) {
            return false;
        }
        let known = self.get_all(peer);
        self.boot_legacy(id, known);
        let me = self.hosts[id].location.clone();
        self.send_message(id, peer, Oneway::Join(me));
        true
    }

    /// Starts the first legacy node of a network.
    pub fn start_first_legacy(&mut self, id: Id) {
        self.boot_legacy(id, Vec::new());
    }

    fn boot_legacy(&mut self, id: Id, known: Vec<Location>) {
        let me = self.hosts[id].location.clone();
        if let Some(invariants) = &mut self.invariants {
            invariants.on_legacy_boot(&me);
        }
        self.boot(id, Process::Legacy(LegacyNode::new(me, known)));
    }

    pub(super) fn serve_as_legacy(&mut self, id: Id, request: &Request) -> Outcome {
        let message = match request {
            Request::GetAll => return Outcome::All(self.get_all(id)),
            Request::Exchange(_) | Request::PingReq(_) => return Outcome::UnknownMethod,
            Request::Add(location, authorities) => {
                Oneway::Add(location.clone(), authorities.clone())
            }
            Request::Remove(location, authorities) => {
                Oneway::Remove(location.clone(), authorities.clone())
            }
        };
        self.deliver_to_legacy(id, message);
        Outcome::Done
    }

    /// A message from a legacy node arrives at `to`, or turns out to be undeliverable.
    pub(super) fn on_message(&mut self, from: Id, to: Id, message: Oneway) {
        if !self.is_reachable(from, to) {
            let location = self.hosts[to].location.clone();
            if let Process::Legacy(legacy) = &mut self.hosts[from].process {
                let forwarded = legacy.on_undeliverable(&location, message);
                self.forward(from, forwarded);
            }
            return;
        }
        self.step(to, |node, now| {
            match &message {
                Oneway::Join(location) | Oneway::Add(location, _) => {
                    node.add(now, location.clone());
                }
                Oneway::Remove(location, _) => node.remove(now, location.clone()),
            }
            Vec::new()
        });
        self.deliver_to_legacy(to, message);
    }

    /// Lets a legacy node take a message and forward it. Does nothing on other hosts.
    fn deliver_to_legacy(&mut self, id: Id, message: Oneway) {
        if let Process::Legacy(legacy) = &mut self.hosts[id].process {
            let forwarded = legacy.on_message(message);
            self.forward(id, forwarded);
        }
    }

    fn forward(&mut self, from: Id, forwarded: Option<(Location, Oneway)>) {
        if let Some((next, message)) = forwarded
            && let Some(to) = self.id_of(&next)
        {
            self.send_message(from, to, message);
        }
    }

    fn send_message(&mut self, from: Id, to: Id, message: Oneway) {
        let delay = self.network.delay(&mut self.rng);
        self.schedule(delay, SimEvent::Message { from, to, message });
    }

    fn is_reachable(&self, from: Id, to: Id) -> bool {
        self.is_up(to) && self.network.connects(from, to)
    }
}
