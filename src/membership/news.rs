//! `News`: whom something was learned of lately, the newest last.
//!
//! What is told in an exchange is the *current* record of each, so a member that
//! changes twice is told of once. Only so many are kept; the oldest give way.

use std::collections::BTreeMap;

use crate::location::Location;

/// The recent news of a hot node.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    order: BTreeMap<u64, Location>,
    places: BTreeMap<Location, u64>,
    last: u64,
}

impl News {
    /// Something was learned of `location`. Keeps `most`.
    pub fn add(&mut self, location: &Location, most: usize) {
        self.last += 1;
        if let Some(place) = self.places.insert(location.clone(), self.last) {
            self.order.remove(&place);
        }
        self.order.insert(self.last, location.clone());
        if self.order.len() > most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.places.remove(&oldest);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.order.values()
    }

    /// All of it is old.
    pub fn clear(&mut self) {
        self.order.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_news_gives_way_and_repeated_news_is_new_again() {
        let [a, b, c] = ["h:1", "h:2", "h:3"].map(|text| text.parse::<Location>().unwrap());
        let mut news = News::default();
        for location in [&a, &b, &a, &c] {
            news.add(location, 2);
        }
        assert_eq!(news.iter().collect::<Vec<_>>(), [&a, &c]);
    }
}
