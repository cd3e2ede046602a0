//! The schedule: when a node gossips, probes and reconnects, and with which members.

use std::time::Duration;

use super::calls::Purpose;
use super::core::Membership;
use crate::location::Location;

/// Seeds that a node calls at once while it knows no other member. 3: one of them is likely to
/// run.
const JOIN_FANOUT: usize = 3;

impl Membership {
    /// Starts gossip, or continues it: a record has changed.
    pub(super) fn become_hot(&mut self) {
        self.useless_exchanges = 0;
        if self.gossip_at.is_none() {
            let delay = self.config.max_gossip_delay.mul_f64(self.rng.fraction());
            self.gossip_at = Some(self.now.monotonic + delay);
        }
    }

    /// Counts a gossip exchange, and ends gossip after too many useless ones in a row. An exchange
    /// `is_useful` if one of the two nodes has learned from it.
    pub(super) fn count_exchange(&mut self, is_useful: bool) {
        self.useless_exchanges = if is_useful {
            0
        } else {
            self.useless_exchanges + 1
        };
        if self.useless_exchanges >= self.config.max_useless_exchanges {
            self.gossip_at = None;
            self.rumors.clear();
        }
    }

    /// Runs a gossip round if one is due.
    pub(super) fn gossip(&mut self) {
        if self.gossip_at.is_none_or(|at| at > self.now.monotonic) {
            return;
        }
        self.gossip_at = Some(self.now.monotonic + self.config.gossip_interval);
        for _ in 0..self.config.gossip_fanout {
            // A quarter of the calls is kept for probes and what follows from them.
            let may_gossip = self.calls.len() < self.config.max_calls * 3 / 4;
            let peer = self.ring.sample(&mut self.rng).cloned();
            let is_called = peer.is_some_and(|peer| {
                may_gossip && !self.is_legacy(&peer) && self.exchange_with(&peer, Purpose::Gossip)
            });
            if !is_called {
                self.count_exchange(false);
            }
        }
    }

    /// Probes the successor or the next member of the round, by turns, if a probe is due.
    pub(super) fn probe(&mut self) {
        if self.probe_at > self.now.monotonic {
            return;
        }
        self.probe_at = self.now.monotonic + self.jitter(self.config.probe_interval / 2);
        self.probed_round_robin = !self.probed_round_robin;
        let peer = if self.probed_round_robin {
            self.round_robin.next(&self.ring, &self.me, &mut self.rng)
        } else {
            self.ring.successor(&self.me).cloned()
        };
        // The only other member is probed as the successor.
        let is_duplicate = self.probed_round_robin && self.ring.len() <= 2;
        if let Some(peer) = peer.filter(|_| !is_duplicate) {
            self.exchange_with(&peer, Purpose::Probe);
        }
    }

    /// Calls missing seeds, and perhaps a DOWN member, if a reconnect is due.
    pub(super) fn reconnect(&mut self) {
        if self.reconnect_at > self.now.monotonic {
            return;
        }
        let (interval, fanout) = if self.is_alone() {
            (self.config.join_retry_interval, JOIN_FANOUT)
        } else {
            (self.config.reconnect_interval, 1)
        };
        self.reconnect_at = self.now.monotonic + self.jitter(interval);
        for seed in self.sample_missing_seeds(fanout) {
            self.exchange_with(&seed, Purpose::Probe);
        }
        // All nodes together call as many DOWN members as there are, in a network of any size.
        let chance = self.table.down() as f64 / (self.table.live() + 1) as f64;
        if self.rng.fraction() < chance
            && let Some(down) = self.table.sample_down(&mut self.rng).cloned()
        {
            self.exchange_with(&down, Purpose::Probe);
        }
    }

    /// Up to `limit` random seeds that are not on the ring.
    fn sample_missing_seeds(&mut self, limit: usize) -> Vec<Location> {
        let is_present = |location: &Location| *location == self.me || self.ring.contains(location);
        let missing = self.seeds.iter().filter(|seed| {
            !is_present(&seed.location) && !seed.advertised.as_ref().is_some_and(is_present)
        });
        let mut missing: Vec<Location> = missing.map(|seed| seed.location.clone()).collect();
        self.rng.shuffle(&mut missing);
        missing.truncate(limit);
        missing
    }

    /// Probes the queued locations that are due.
    pub(super) fn probe_queued(&mut self) {
        while self.can_call()
            && let Some(location) = self.probe_queue.pop_due(self.now.monotonic)
        {
            self.exchange_with(&location, Purpose::Probe);
        }
    }

    /// Queues a probe of `location` for the next tick. False if the queue is full.
    pub(super) fn probe_soon(&mut self, location: &Location) -> bool {
        let limit = self.config.max_queued_probes;
        self.probe_queue.add(location, self.now.monotonic, limit)
    }

    /// The interval, up to a twentieth longer or shorter, so that nodes do not act in step.
    fn jitter(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.95 + 0.1 * self.rng.fraction())
    }
}
