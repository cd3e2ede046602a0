//! `Roster`: a set of locations in sorted order, from which one can be drawn by number.
//!
//! A sorted vector: drawing is one index, the successor one binary search, and an
//! insertion moves some 100 kB at most (5,000 members), which is microseconds and rare.

use super::random::Random;
use crate::location::Location;

/// A sorted set of locations.
#[derive(Debug, Clone, Default)]
pub(super) struct Roster {
    sorted: Vec<Location>,
}

impl Roster {
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn contains(&self, location: &Location) -> bool {
        self.sorted.binary_search(location).is_ok()
    }

    /// Was it missing until now?
    pub fn insert(&mut self, location: &Location) -> bool {
        match self.sorted.binary_search(location) {
            Ok(_) => false,
            Err(place) => {
                self.sorted.insert(place, location.clone());
                true
            }
        }
    }

    /// Was it there until now?
    pub fn remove(&mut self, location: &Location) -> bool {
        let found = self.sorted.binary_search(location);
        if let Ok(place) = found {
            self.sorted.remove(place);
        }
        found.is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.sorted.iter()
    }

    /// One of them, each as likely as another.
    pub fn draw(&self, random: &mut Random) -> Option<&Location> {
        self.sorted.get(random.below(self.sorted.len()))
    }

    /// The next one after `location`, around the end, and not `location` itself.
    pub fn successor(&self, location: &Location) -> Option<&Location> {
        let next = self.sorted.partition_point(|other| other <= location);
        let found = self.sorted.get(next).or(self.sorted.first());
        found.filter(|&other| other != location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_goes_around_and_is_never_oneself() {
        let [a, b, c] = ["h:1", "h:2", "h:3"].map(|text| text.parse::<Location>().unwrap());
        let mut roster = Roster::default();
        assert_eq!(roster.successor(&a), None);
        roster.insert(&a);
        assert_eq!(roster.successor(&a), None);
        roster.insert(&c);
        assert_eq!(roster.successor(&a), Some(&c));
        assert_eq!(roster.successor(&b), Some(&c), "it need not be a member");
        assert_eq!(roster.successor(&c), Some(&a));
    }
}
