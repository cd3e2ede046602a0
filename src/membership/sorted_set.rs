//! `SortedSet`: a set of locations in sorted order, with random access.
//!
//! A sorted vector: a random sample is one index, the successor one binary search. An insertion
//! moves some 100 kB at most (5,000 members), which takes microseconds and is rare.

use super::rng::Rng;
use crate::location::Location;

/// A sorted set of locations.
#[derive(Debug, Clone, Default)]
pub(super) struct SortedSet {
    sorted: Vec<Location>,
}

impl SortedSet {
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn contains(&self, location: &Location) -> bool {
        self.sorted.binary_search(location).is_ok()
    }

    /// Adds `location`. False if it was in the set.
    pub fn insert(&mut self, location: &Location) -> bool {
        match self.sorted.binary_search(location) {
            Ok(_) => false,
            Err(index) => {
                self.sorted.insert(index, location.clone());
                true
            }
        }
    }

    /// Removes `location`. False if it was not in the set.
    pub fn remove(&mut self, location: &Location) -> bool {
        let index = self.sorted.binary_search(location);
        if let Ok(index) = index {
            self.sorted.remove(index);
        }
        index.is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.sorted.iter()
    }

    /// A random element.
    pub fn sample(&self, rng: &mut Rng) -> Option<&Location> {
        self.sorted.get(rng.below(self.sorted.len()))
    }

    /// The next element after `location`; after the last one, the first. Never `location` itself.
    pub fn successor(&self, location: &Location) -> Option<&Location> {
        let next = self.sorted.partition_point(|other| other <= location);
        let successor = self.sorted.get(next).or(self.sorted.first());
        successor.filter(|&other| other != location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_wraps_around_and_is_never_the_location_itself() {
        let [a, b, c] = ["h:1", "h:2", "h:3"].map(|text| text.parse::<Location>().unwrap());
        let mut set = SortedSet::default();
        assert_eq!(set.successor(&a), None);
        set.insert(&a);
        assert_eq!(set.successor(&a), None);
        set.insert(&c);
        assert_eq!(set.successor(&a), Some(&c));
        assert_eq!(
            set.successor(&b),
            Some(&c),
            "also of a location outside the set"
        );
        assert_eq!(set.successor(&c), Some(&a));
    }
}
