//! `ConnectionTable`: the open connections, and which to evict when there are too many.
//!
//! A full server that rejected new connections would also reject the network's gossip,
//! which opens a connection for each exchange: idle connections alone could make a node look
//! dead. So the server accepts every connection and evicts the longest-idle ones.
//!
//! Age is counted in connections, not in time: how many have come since this one was last
//! used. To evict a fresh connection, an attacker must first open thousands, all of which
//! are then older than later ones; a gossip call is over by then. A connection that never
//! made a call ages twice as fast, so that unused connections go before those that clients
//! keep open between calls.
//!
//! Finding the oldest looks at all entries. A full table therefore evicts a hundredth of
//! its limit at once, which makes the cost per new connection small.
//!
//! The same rule limits the connections of one address. An IPv6 host can use a whole /64
//! network, so the network counts as one address.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of an IPv6 address that name the host's network.
const NETWORK_BITS: u32 = 64;

/// When a connection was last used. Written by its own thread, read by evictions.
///
/// The number of the newest connection at that time, and in the lowest bit whether the
/// connection has made a call.
pub(crate) struct LastUse(AtomicU64);

impl LastUse {
    fn unused(number: u64) -> LastUse {
        LastUse(AtomicU64::new(number << 1))
    }

    /// Records a call, made when the newest connection had that number.
    pub(crate) fn record(&self, newest: u64) {
        self.0.store(newest << 1 | 1, Relaxed);
    }

    /// Connections since the last use, twice as many if there was none.
    fn age(&self, newest: u64) -> u64 {
        let last = self.0.load(Relaxed);
        let since = newest.saturating_sub(last >> 1);
        if last & 1 == 1 { since } else { since * 2 }
    }
}

/// The open connections, each a `T`, by their numbers. Guarded by its owner.
pub(crate) struct ConnectionTable<T> {
    entries: HashMap<u64, Entry<T>>,
    /// The number of connections by address group.
    by_address: HashMap<IpAddr, usize>,
}

struct Entry<T> {
    group: IpAddr,
    last_use: Arc<LastUse>,
    connection: T,
}

impl<T> Default for ConnectionTable<T> {
    fn default() -> ConnectionTable<T> {
        ConnectionTable {
            entries: HashMap::new(),
            by_address: HashMap::new(),
        }
    }
}

impl<T> ConnectionTable<T> {
    /// The number of connections.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Are there no connections?
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &T> {
        self.entries.values().map(|entry| &entry.connection)
    }

    /// Adds a connection. Its number is larger than those of all before it.
    pub(crate) fn insert(&mut self, number: u64, address: IpAddr, connection: T) -> Arc<LastUse> {
        let group = address_group(address);
        let last_use = Arc::new(LastUse::unused(number));
        *self.by_address.entry(group).or_default() += 1;
        let entry = Entry {
            group,
            last_use: last_use.clone(),
            connection,
        };
        self.entries.insert(number, entry);
        last_use
    }

    /// Removes a connection, if it is still there.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let entry = self.entries.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&entry.group) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&entry.group);
            }
        }
        Some(entry.connection)
    }

    /// Makes room for connection `number` if there are `max`, in all or from one address:
    /// removes the oldest hundredth of `max`.
    pub(crate) fn evict_if_full(
        &mut self,
        number: u64,
        max: usize,
        from: Option<IpAddr>,
    ) -> Vec<T> {
        let group = from.map(address_group);
        let open = match group {
            Some(group) => self.by_address.get(&group).copied().unwrap_or_default(),
            None => self.len(),
        };
        if open < max {
            return Vec::new();
        }
        let entries = self.entries.iter();
        let mut ages: Vec<(Reverse<u64>, u64)> = entries
            .filter(|(_, entry)| group.is_none_or(|group| group == entry.group))
            .map(|(of, entry)| (Reverse(entry.last_use.age(number)), *of))
            .collect();
        let count = (max / 100 + 1).min(ages.len());
        if count < ages.len() {
            ages.select_nth_unstable(count);
        }
        let oldest = ages.iter().take(count);
        oldest.filter_map(|(_, of)| self.remove(*of)).collect()
    }
}

/// The group under which connections from `address` are counted.
fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = v6.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Connections 1 to `count` from that address, each known by its number.
    fn table_of(count: u64, address: IpAddr) -> ConnectionTable<u64> {
        let mut table = ConnectionTable::default();
        for number in 1..=count {
            table.insert(number, address, number);
        }
        table
    }

    #[test]
    fn nothing_is_evicted_while_there_is_room() {
        let mut table = table_of(9, HERE);
        assert!(table.evict_if_full(10, 10, None).is_empty());
        assert!(table.evict_if_full(10, 10, Some(HERE)).is_empty());
        assert_eq!(table.len(), 9);
    }

    #[test]
    fn a_full_table_evicts_the_longest_idle() {
        let mut table = table_of(1000, HERE);
        let mut evicted = table.evict_if_full(1001, 1000, None);
        evicted.sort_unstable();
        assert_eq!(evicted, (1..=11).collect::<Vec<_>>());
        assert_eq!(table.len(), 989);
    }

    #[test]
    fn a_used_connection_stays_until_twice_as_many_have_come() {
        let mut table = ConnectionTable::default();
        table.insert(1, HERE, 1).record(1);
        for number in 2..=10 {
            table.insert(number, HERE, number);
        }
        assert_eq!(
            table.evict_if_full(11, 10, None),
            [2],
            "the oldest unused one"
        );
        for number in 11..=18 {
            table.insert(number, HERE, number);
        }
        assert_eq!(table.evict_if_full(19, 10, None), [3]);
        table.remove(4);
        for number in 5..=9 {
            table.remove(number);
        }
        assert_eq!(
            table.evict_if_full(20, 9, None),
            [10],
            "10 connections twice are 20"
        );
        assert_eq!(table.evict_if_full(40, 8, None), [11]);
        table.insert(19, HERE, 19).record(40);
        (12..=18).for_each(|number| assert!(table.remove(number).is_some()));
        assert_eq!(
            table.evict_if_full(41, 2, None),
            [1],
            "of two used ones, the longer idle"
        );
    }

    #[test]
    fn a_new_connection_outlives_a_whole_table_of_later_ones() {
        let max = 200;
        let mut table = table_of(max, HERE);
        let watched = max + 1;
        let mut survived = 0;
        for number in watched.. {
            let evicted = table.evict_if_full(number, max as usize, None);
            if evicted.contains(&watched) {
                break;
            }
            table.insert(number, HERE, number);
            survived += 1;
        }
        assert!(survived > 190, "evicted after {survived} others");
    }

    #[test]
    fn an_address_with_too_many_evicts_its_own() {
        let mut table = table_of(3, address("192.0.2.1"));
        for number in 4..=8 {
            table.insert(number, address("192.0.2.2"), number);
        }
        let another = address("192.0.2.2");
        assert_eq!(table.evict_if_full(9, 5, Some(another)), [4]);
        assert!(table.evict_if_full(9, 5, Some(another)).is_empty());
    }

    #[test]
    fn removed_connections_are_not_counted() {
        let mut table = table_of(5, HERE);
        (1..=5).for_each(|number| assert_eq!(table.remove(number), Some(number)));
        assert_eq!(table.remove(5), None);
        assert!(table.is_empty() && table.by_address.is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_group_and_a_mapped_ipv4_address_is_ipv4() {
        assert_eq!(
            address_group(address("2001:db8:1:2:3::4")),
            address("2001:db8:1:2::")
        );
        assert_eq!(
            address_group(address("::ffff:192.0.2.1")),
            address("192.0.2.1")
        );
        assert_eq!(address_group(HERE), HERE);
    }
}
