//! The schedule: when a node gossips, probes and reconnects, and with which members.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::action::Purpose;
use super::config;
use super::core::Membership;
use super::member::{Member, Status};
use super::rng::Rng;
use crate::location::Location;

/// Seeds that a node calls at once while it knows no other member. 3: one of them is likely to
/// run.
const JOIN_FANOUT: usize = 3;

/// DOWN legacy nodes that are called in one `RECONNECT_INTERVAL`.
const MAX_LEGACY_CALLS: usize = 8;

impl Membership {
    /// Starts gossip, or continues it: a record has changed.
    pub(super) fn become_hot(&mut self) {
        self.useless_exchanges = 0;
        if self.gossip_at.is_none() {
            let delay = config::MAX_GOSSIP_DELAY.mul_f64(self.rng.fraction());
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
        if self.useless_exchanges >= config::MAX_USELESS_EXCHANGES {
            self.gossip_at = None;
            self.rumors.clear();
        }
    }

    /// Runs a gossip round if one is due.
    pub(super) fn gossip(&mut self) {
        if self.gossip_at.is_none_or(|at| at > self.now.monotonic) {
            return;
        }
        self.gossip_at = Some(self.now.monotonic + config::GOSSIP_INTERVAL);
        for _ in 0..config::GOSSIP_FANOUT {
            // A quarter of the calls is kept for probes and what follows from them.
            let may_gossip = self.calls.len() < config::MAX_CALLS * 3 / 4;
            let peer = self.rng.choose(&self.ring).cloned();
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
        self.probe_at = self.now.monotonic + self.jitter(config::PROBE_INTERVAL / 2);
        self.probed_round_robin = !self.probed_round_robin;
        let peer = if self.probed_round_robin {
            next_of_round(&mut self.probe_round, &self.ring, &self.me, &mut self.rng)
        } else {
            successor(&self.ring, &self.me).cloned()
        };
        // The only other member is probed as the successor.
        let is_duplicate = self.probed_round_robin && self.ring.len() <= 2;
        if let Some(peer) = peer.filter(|_| !is_duplicate) {
            self.exchange_with(&peer, Purpose::Probe);
        }
        if !self.probed_round_robin && !self.table.legacy().is_empty() {
            self.probe_next_of_ours();
        }
    }

    /// Among many legacy nodes, those of ours would hear each other too rarely: a node that hears
    /// none of ours for two seconds takes itself for isolated.
    fn probe_next_of_ours(&mut self) {
        let legacy = self.table.legacy();
        let ours = self.ring.iter().filter(|peer| !legacy.contains(*peer));
        let ours: BTreeSet<Location> = ours.cloned().collect();
        if let Some(peer) = successor(&ours, &self.me).cloned() {
            self.exchange_with(&peer, Purpose::Probe);
        }
    }

    /// Calls missing seeds, and perhaps a DOWN member, if a reconnect is due.
    pub(super) fn reconnect(&mut self) {
        if self.reconnect_at > self.now.monotonic {
            return;
        }
        let (interval, fanout) = if self.is_alone() {
            (config::JOIN_RETRY_INTERVAL, JOIN_FANOUT)
        } else {
            (config::RECONNECT_INTERVAL, 1)
        };
        self.reconnect_at = self.now.monotonic + self.jitter(interval);
        for seed in self.sample_missing_seeds(fanout) {
            self.exchange_with(&seed, Purpose::Probe);
        }
        // All nodes of ours together call as many DOWN members as there are, in a network of any
        // size.
        let ours = self.table.live() - self.table.legacy().len();
        let ours = ours.max(1) as f64;
        self.reconnect_legacy(ours);
        let chance = self.table.down() as f64 / ours;
        if self.rng.fraction() < chance
            && let Some(down) = self.table.sample_down(&mut self.rng).cloned()
        {
            self.exchange_with(&down, Purpose::Probe);
        }
    }

    /// A legacy node that returns calls nobody, so each one that is DOWN is called by two nodes.
    fn reconnect_legacy(&mut self, ours: f64) {
        let is_down = |member: &&Member| member.status == Status::Down && member.is_legacy();
        let down = self.table.iter().filter(is_down);
        let mut down: Vec<Location> = down.map(|member| member.location.clone()).collect();
        self.rng.shuffle(&mut down);
        down.truncate(MAX_LEGACY_CALLS);
        for peer in &down {
            if self.rng.fraction() < 2.0 / ours {
                self.exchange_with(peer, Purpose::Probe);
            }
        }
    }

    /// Up to `limit` random seeds that are not on the ring.
    fn sample_missing_seeds(&mut self, limit: usize) -> Vec<Location> {
        let is_present = |location: &Location| *location == self.me || self.ring.contains(location);
        let missing = self.seeds.iter().filter(|(seed, advertised)| {
            !is_present(seed) && !advertised.as_ref().is_some_and(is_present)
        });
        let mut missing: Vec<Location> = missing.map(|(seed, _)| seed.clone()).collect();
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

    /// Queues a probe of `location` for the next tick. False if the queue is full: then only the
    /// schedule probes the location, if it is a member.
    pub(super) fn probe_soon(&mut self, location: &Location) -> bool {
        self.probe_later(location, Duration::ZERO)
    }

    /// Queues a probe of `location` for a tick after `delay`. False if the queue is full.
    pub(super) fn probe_later(&mut self, location: &Location, delay: Duration) -> bool {
        let limit = config::MAX_QUEUED_PROBES;
        let time = self.now.monotonic + delay;
        self.probe_queue.add(location, time, limit)
    }

    /// The interval, up to a twentieth longer or shorter, so that nodes do not act in step.
    fn jitter(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.95 + 0.1 * self.rng.fraction())
    }
}

/// The next member after `location`; after the last one, the first. Never `location` itself.
fn successor<'a>(ring: &'a BTreeSet<Location>, location: &Location) -> Option<&'a Location> {
    let mut later = ring.range((Excluded(location), Unbounded));
    let successor = later.next().or(ring.first());
    successor.filter(|&other| other != location)
}

/// The next member of `ring` other than `me` in this round. Starts a new round after the last one.
///
/// Each round has all members in a shuffled order (SWIM: Das, Gupta and Motivala, 2002), so every
/// member is probed within two rounds. Independent random choices would not guarantee that. A
/// member that joins during a round is probed from the next one on.
fn next_of_round(
    round: &mut Vec<Location>,
    ring: &BTreeSet<Location>,
    me: &Location,
    rng: &mut Rng,
) -> Option<Location> {
    let is_other = |location: &Location| location != me && ring.contains(location);
    round.retain(is_other);
    if round.is_empty() {
        round.extend(ring.iter().filter(|member| is_other(member)).cloned());
        rng.shuffle(round);
    }
    round.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(port: u16) -> Location {
        Location::new("h", port).unwrap()
    }

    #[test]
    fn the_successor_wraps_around_and_is_never_the_location_itself() {
        let [a, b, c] = [1, 2, 3].map(location);
        let mut ring = BTreeSet::new();
        assert_eq!(successor(&ring, &a), None);
        ring.insert(a.clone());
        assert_eq!(successor(&ring, &a), None);
        ring.insert(c.clone());
        assert_eq!(successor(&ring, &a), Some(&c));
        assert_eq!(
            successor(&ring, &b),
            Some(&c),
            "also of a location outside the ring"
        );
        assert_eq!(successor(&ring, &c), Some(&a));
    }

    #[test]
    fn each_round_has_every_other_member_once() {
        let ring: BTreeSet<Location> = (1..=20).map(location).collect();
        let me = location(7);
        let (mut round, mut rng) = (Vec::new(), Rng::new(1));
        let mut members_in_round = || {
            let next = |_| next_of_round(&mut round, &ring, &me, &mut rng);
            let members: BTreeSet<Location> = (1..20).filter_map(next).collect();
            members.len()
        };
        assert_eq!((members_in_round(), members_in_round()), (19, 19));
    }
}
