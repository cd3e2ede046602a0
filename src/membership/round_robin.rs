//! `RoundRobin`: the order in which members are probed.
//!
//! Each round has all members in a shuffled order (SWIM: Das, Gupta and Motivala, 2002), so every
//! member is probed within two rounds. Independent random choices would not guarantee that. A
//! member that joins during a round is probed from the next one on.

use super::rng::Rng;
use super::sorted_set::SortedSet;
use crate::location::Location;

/// The members that are still to be probed in this round.
#[derive(Debug, Clone, Default)]
pub(super) struct RoundRobin {
    order: Vec<Location>,
}

impl RoundRobin {
    /// The next member of `ring` other than `me`. Starts a new round after the last one.
    pub fn next(&mut self, ring: &SortedSet, me: &Location, rng: &mut Rng) -> Option<Location> {
        self.next_in_round(ring, me).or_else(|| {
            self.order = ring.iter().cloned().collect();
            rng.shuffle(&mut self.order);
            self.next_in_round(ring, me)
        })
    }

    fn next_in_round(&mut self, ring: &SortedSet, me: &Location) -> Option<Location> {
        while let Some(next) = self.order.pop() {
            if next != *me && ring.contains(&next) {
                return Some(next);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_every_other_member_once() {
        let mut ring = SortedSet::default();
        for port in 1..=20 {
            ring.insert(&Location::new("h", port).unwrap());
        }
        let me = Location::new("h", 7).unwrap();
        let (mut round_robin, mut rng) = (RoundRobin::default(), Rng::new(1));
        let mut members_in_round = || {
            let mut members: Vec<Location> = (1..20)
                .filter_map(|_| round_robin.next(&ring, &me, &mut rng))
                .collect();
            members.sort();
            members.dedup();
            members.len()
        };
        assert_eq!((members_in_round(), members_in_round()), (19, 19));
    }
}
