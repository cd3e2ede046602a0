//! The rhythm: when a node gossips, probes, heals and runs errands.

use std::time::Duration;

use super::call::Purpose;
use super::core::Membership;
use crate::location::Location;

impl Membership {
    pub(super) fn become_hot(&mut self) {
        self.misses = 0;
        if self.gossip_at.is_none() {
            let delay = self.settings.gossip_delay.mul_f64(self.random.fraction());
            self.gossip_at = Some(self.now.monotonic + delay);
        }
    }

    /// Counts an exchange that taught something, or did not.
    pub(super) fn count(&mut self, useful: bool) {
        self.misses = if useful { 0 } else { self.misses + 1 };
        if self.misses >= self.settings.gossip_misses {
            self.gossip_at = None;
            self.news.clear();
        }
    }

    pub(super) fn gossip(&mut self) {
        if self.gossip_at.is_none_or(|at| at > self.now.monotonic) {
            return;
        }
        self.gossip_at = Some(self.now.monotonic + self.settings.gossip_interval);
        for _ in 0..self.settings.gossip_fanout {
            // Probes need room too, and so does what follows from them.
            let has_room = self.calls.len() < self.settings.most_calls * 3 / 4;
            let peer = self.ring.draw(&mut self.random).cloned();
            let called = peer.is_some_and(|peer| {
                has_room && !self.originals.contains(&peer) && self.contact(&peer, Purpose::Gossip)
            });
            if !called {
                self.count(false);
            }
        }
    }

    pub(super) fn probe(&mut self) {
        if self.probe_at > self.now.monotonic {
            return;
        }
        // Half an interval for each of the two kinds of turn, by turns.
        self.probe_at = self.now.monotonic + self.vary(self.settings.probe_interval / 2);
        self.successor_next = !self.successor_next;
        let peer = if self.successor_next {
            self.round.next(&self.ring, &self.me, &mut self.random)
        } else {
            self.ring.successor(&self.me).cloned()
        };
        let is_only_one = self.successor_next && self.ring.len() <= 2;
        if let Some(peer) = peer.filter(|_| !is_only_one) {
            self.contact(&peer, Purpose::Probe);
        }
    }

    pub(super) fn heal(&mut self) {
        if self.heal_at > self.now.monotonic {
            return;
        }
        let is_alone = self.is_alone();
        let interval = if is_alone {
            self.settings.alone_interval
        } else {
            self.settings.heal_interval
        };
        self.heal_at = self.now.monotonic + self.vary(interval);
        let tries = if is_alone { self.settings.helpers } else { 1 };
        for seed in self.missing_seeds(tries) {
            self.contact(&seed, Purpose::Probe);
        }
        // Together the nodes of a network make as many tries as there are DOWN
        // members, however many nodes they are.
        let chance = self.members.down() as f64 / (self.members.live() + 1) as f64;
        if self.random.fraction() < chance
            && let Some(down) = self.members.draw_down(&mut self.random).cloned()
        {
            self.contact(&down, Purpose::Probe);
        }
    }

    fn missing_seeds(&mut self, most: usize) -> Vec<Location> {
        let is_here = |location: &Location| *location == self.me || self.ring.contains(location);
        let missing = self.seeds.iter().filter(|seed| {
            !is_here(&seed.location) && !seed.calls_itself.as_ref().is_some_and(is_here)
        });
        let mut missing: Vec<Location> = missing.map(|seed| seed.location.clone()).collect();
        self.random.shuffle(&mut missing);
        missing.truncate(most);
        missing
    }

    pub(super) fn run_errands(&mut self) {
        while self.has_room()
            && let Some(location) = self.errands.due(self.now.monotonic)
        {
            self.contact(&location, Purpose::Probe);
        }
    }

    pub(super) fn give_up_lost_calls(&mut self) {
        let Some(limit) = self.now.monotonic.checked_sub(self.settings.call_lifetime) else {
            return;
        };
        // A lost call says nothing of the peer, only that no one else waits for it.
        for call in self.calls.forget_before(limit + Duration::from_nanos(1)) {
            if call.purpose == Purpose::Reach {
                self.helped(&call, None);
            } else if self.members.get(&call.peer).is_none() {
                self.tried_in_vain(&call.peer);
            }
        }
    }

    /// An interval made up to a twentieth longer or shorter, lest nodes keep in step.
    fn vary(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.95 + 0.1 * self.random.fraction())
    }
}
