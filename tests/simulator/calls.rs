//! Calls between hosts: requests, replies, refusals and timeouts.

use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Action, Gossip, Outcome, Request, Token, config};

use super::event_queue::{ProcessId, SimEvent};
use super::{Id, Process, Simulator, wire_size};

impl Simulator {
    /// Sends the request of a call.
    pub(super) fn make_call(&mut self, from: Id, action: Action) {
        let host = &mut self.hosts[from];
        host.calls += 1;
        host.calls_in_flight += 1;
        host.bytes_sent += wire_size::request(&action.request);
        let caller = self.process_id(from);
        let delay = self.network.delay(&mut self.rng);
        let called_at = self.clock;
        match self.id_of(&action.peer) {
            Some(to) => self.schedule(
                delay,
                SimEvent::Request {
                    caller,
                    to,
                    called_at,
                    action,
                },
            ),
            None => self.send_reply(caller, action.token, Outcome::Refused, delay),
        }
    }

    /// Delivers the outcome of a call after `delay`.
    fn send_reply(&mut self, caller: ProcessId, token: Token, outcome: Outcome, delay: Duration) {
        let event = SimEvent::Reply {
            caller,
            token,
            outcome,
        };
        self.schedule(delay, event);
    }

    pub(super) fn on_request(
        &mut self,
        caller: ProcessId,
        to: Id,
        called_at: Duration,
        action: Action,
    ) {
        let token = action.token;
        let timeout = (called_at + config::CALL_TIMEOUT).saturating_sub(self.clock);
        let is_lost = self.network.loses(&mut self.rng);
        // Of a lost call, either the request or the reply is lost.
        let has_arrived = !is_lost || self.rng.below(2) == 0;
        let connects = has_arrived && self.network.connects(caller.host, to);
        let process = self.process_id(to);
        let host = &mut self.hosts[to];
        if connects && host.is_paused {
            host.backlog.push(SimEvent::LateRequest(process, action));
            return self.send_reply(caller, token, Outcome::NoReply, timeout);
        }
        let reply = if connects && self.is_running(to) {
            self.serve(to, &action)
        } else if self.network.connects(caller.host, to) && self.refuses(to) {
            Some((Outcome::Refused, Duration::ZERO))
        } else {
            None
        };
        let delay = self.network.delay(&mut self.rng);
        match reply {
            Some((outcome, work)) if !is_lost && work + delay < timeout => {
                self.send_reply(caller, token, outcome, work + delay);
            }
            _ => self.send_reply(caller, token, Outcome::NoReply, timeout),
        }
    }

    fn refuses(&self, id: Id) -> bool {
        !self.is_running(id) && self.hosts[id].refuses
    }

    /// Serves a request. Returns the outcome and how long it takes.
    pub(super) fn serve(&mut self, id: Id, action: &Action) -> Option<(Outcome, Duration)> {
        if self.is_legacy(id) {
            let outcome = self.serve_as_legacy(id, &action.request);
            return Some((outcome, Duration::ZERO));
        }
        let outcome = match &action.request {
            Request::Exchange(gossip) => Outcome::Gossip(self.serve_exchange(id, gossip)?),
            Request::PingReq(target) => return Some(self.serve_ping_req(id, target)),
            Request::GetAll => Outcome::All(self.get_all(id)),
            Request::Add(location, _) => {
                self.receive_add(id, location.clone());
                Outcome::Done
            }
            Request::Remove(location, _) => {
                self.receive_remove(id, location.clone());
                Outcome::Done
            }
        };
        Some((outcome, Duration::ZERO))
    }

    /// The locations that a host returns from `get_all`.
    pub(super) fn get_all(&self, id: Id) -> Vec<Location> {
        match &self.hosts[id].process {
            Process::Node(node) => node.live().map(|(location, _)| location.clone()).collect(),
            Process::Legacy(legacy) => legacy.ring.iter().cloned().collect(),
            Process::Absent => Vec::new(),
        }
    }

    fn serve_exchange(&mut self, id: Id, request: &Gossip) -> Option<Gossip> {
        let mut reply = None;
        self.step(id, |node, now| {
            reply = Some(node.on_exchange(now, request.clone()));
            Vec::new()
        });
        let mut reply = reply?;
        if let Some(tamper) = self.tamper {
            tamper(request, &mut reply);
        }
        self.hosts[id].bytes_sent += wire_size::exchange(&reply);
        Some(reply)
    }

    fn serve_ping_req(&mut self, id: Id, target: &Location) -> (Outcome, Duration) {
        self.hosts[id].bytes_sent += wire_size::ping_req_reply();
        let Some(target) = self.id_of(target) else {
            return (Outcome::PingReq(false), Duration::ZERO);
        };
        let is_lost = self.network.loses(&mut self.rng);
        let connects = self.network.connects(id, target) && !is_lost;
        let replies = self.is_running(target) && !self.hosts[target].is_paused;
        if connects && (replies || self.refuses(target)) {
            let round_trip = self.network.delay(&mut self.rng) * 2;
            (Outcome::PingReq(replies), round_trip)
        } else {
            (Outcome::PingReq(false), config::PING_REQ_TIMEOUT)
        }
    }

    pub(super) fn on_reply(&mut self, caller: ProcessId, token: Token, outcome: Outcome) {
        if !self.is_current(caller) {
            return;
        }
        let host = &mut self.hosts[caller.host];
        if host.is_paused {
            // After the pause the caller's timeout may be noticed before the reply.
            let outcome = if self.rng.below(2) == 0 {
                Outcome::NoReply
            } else {
                outcome
            };
            host.backlog.push(SimEvent::Reply {
                caller,
                token,
                outcome,
            });
            return;
        }
        host.calls_in_flight -= 1;
        self.step(caller.host, |node, now| node.reply(now, token, outcome));
    }
}
