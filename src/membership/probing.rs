//! Whom to probe next: a shuffled round, and errands out of turn.
//!
//! A shuffled round (SWIM, Das, Gupta and Motivala, 2002) reaches everyone within
//! two rounds, which independent draws do not. One who comes while a round runs
//! has its turn in the next.

use std::collections::VecDeque;
use std::time::Duration;

use super::random::Random;
use super::roster::Roster;
use crate::location::Location;

/// Who is still to be probed in this round.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    order: Vec<Location>,
}

impl Round {
    /// The next one of `ring` other than `me`; a finished round is followed by a new one.
    pub fn next(&mut self, ring: &Roster, me: &Location, random: &mut Random) -> Option<Location> {
        self.rest(ring, me).or_else(|| {
            self.order = ring.iter().cloned().collect();
            random.shuffle(&mut self.order);
            self.rest(ring, me)
        })
    }

    fn rest(&mut self, ring: &Roster, me: &Location) -> Option<Location> {
        while let Some(next) = self.order.pop() {
            if next != *me && ring.contains(&next) {
                return Some(next);
            }
        }
        None
    }
}

/// Locations to be tried out of turn, each once, and a bounded number of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Errands {
    queue: VecDeque<(Duration, Location)>,
}

impl Errands {
    /// Try `location` at `time`, or earlier if that was asked for. Is it noted? Not
    /// when there are `most` already: the round and the successor still probe members
    /// that were not probed out of turn.
    pub fn add(&mut self, location: &Location, time: Duration, most: usize) -> bool {
        let has_room = self.queue.len() < most;
        let known = self.queue.iter_mut().find(|(_, queued)| queued == location);
        if let Some((queued, _)) = known {
            *queued = (*queued).min(time);
            return true;
        }
        if has_room {
            self.queue.push_back((time, location.clone()));
        }
        has_room
    }

    pub fn earliest(&self) -> Option<Duration> {
        self.queue.iter().map(|(time, _)| *time).min()
    }

    /// Takes out the first location whose time has come.
    pub fn due(&mut self, now: Duration) -> Option<Location> {
        let place = self.queue.iter().position(|(time, _)| *time <= now)?;
        self.queue.remove(place).map(|(_, location)| location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_reaches_everyone_else_once() {
        let mut ring = Roster::default();
        for port in 1..=20 {
            ring.insert(&Location::new("h", port).unwrap());
        }
        let me = Location::new("h", 7).unwrap();
        let (mut round, mut random) = (Round::default(), Random::new(1));
        let mut turn = || {
            let mut met: Vec<Location> = (1..20)
                .filter_map(|_| round.next(&ring, &me, &mut random))
                .collect();
            met.sort();
            met.dedup();
            met.len()
        };
        assert_eq!((turn(), turn()), (19, 19));
    }

    #[test]
    fn errands_are_bounded_and_not_repeated() {
        let mut errands = Errands::default();
        for port in [1, 2, 1, 3, 4] {
            let location = Location::new("h", port).unwrap();
            errands.add(&location, Duration::from_secs(5), 3);
        }
        assert_eq!(errands.due(Duration::from_secs(4)), None);
        let due = std::iter::from_fn(|| errands.due(Duration::from_secs(5)));
        assert_eq!(due.count(), 3);
    }
}
