//! `News`: whom something was learned of lately, the newest last.
//!
//! What is told in an exchange is the *current* record of each, so a member that
//! changes twice is told of once. Only so many are kept; the oldest give way, and so
//! does what others know already.

use std::collections::BTreeMap;

use crate::location::Location;

/// The recent news of a hot node.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    order: BTreeMap<u64, Location>,
    items: BTreeMap<Location, Item>,
    last: u64,
}

#[derive(Debug, Clone)]
struct Item {
    place: u64,
    /// How often someone told it to us who we might have told.
    known: u32,
}

impl News {
    /// Something was learned of `location`. Keeps `most`.
    pub fn add(&mut self, location: &Location, most: usize) {
        self.last += 1;
        let item = Item {
            place: self.last,
            known: 0,
        };
        if let Some(before) = self.items.insert(location.clone(), item) {
            self.order.remove(&before.place);
        }
        self.order.insert(self.last, location.clone());
        if self.order.len() > most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.items.remove(&oldest);
        }
    }

    /// Another node told us just what we know of `location`. When it has happened
    /// `limit` times, that is news no more.
    pub fn is_known(&mut self, location: &Location, limit: u32) {
        let Some(item) = self.items.get_mut(location) else {
            return;
        };
        item.known += 1;
        if item.known >= limit {
            self.order.remove(&item.place);
            self.items.remove(location);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.order.values()
    }

    /// All of it is old.
    pub fn clear(&mut self) {
        self.order.clear();
        self.items.clear();
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

    #[test]
    fn what_others_know_is_no_news() {
        let a = "h:1".parse::<Location>().unwrap();
        let mut news = News::default();
        news.add(&a, 2);
        news.is_known(&a, 2);
        assert_eq!(news.iter().count(), 1);
        news.is_known(&a, 2);
        assert_eq!(news.iter().count(), 0);
    }
}
