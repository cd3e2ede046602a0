//! `Crowd`: who is connected, and who must go to make room for another.
//!
//! A server that turns newcomers away when it is full lets whoever fills it shut
//! everybody else out: here that would be the network's own gossip, which connects
//! anew for each exchange, so that a crowd of silent strangers would make a node look
//! dead. So a newcomer is always let in, and those go that were idle the longest. Age
//! is counted in newcomers, not in time: how many have come since a connection was
//! last of use. It needs no clock, and it is what matters. A stranger who wants a
//! fresh connection closed must first bring thousands of newer ones, all of which are
//! older by then than those that come after; a call of gossip is over by that time.
//!
//! One that was never served counts as twice as old as one that was, so connections
//! that were opened and left go before those that clients keep for their next call. It
//! is no more than twice, lest those that are in their first call just now go before
//! everything that was served once.
//!
//! Finding the oldest looks at all of them. When there is no room, a hundredth of them
//! goes at once, which makes that a small cost for each newcomer.
//!
//! The same is done among the connections of one address when there are too many of
//! those, which leaves the rest of the house to others. An IPv6 host has a network of
//! addresses to choose from, so there the network is counted.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of an IPv6 address that name the host's network.
const NETWORK_BITS: u32 = 64;

/// When a connection was last of use, and whether it ever was. Written by its own
/// thread, read when room is needed; neither waits for the other.
pub(crate) struct LastUse(AtomicU64);

impl LastUse {
    /// Never served, and as old as the newcomer of that number.
    fn never(number: u64) -> LastUse {
        LastUse(AtomicU64::new(number << 1))
    }

    /// A call was served when the newest connection had that number.
    pub(crate) fn served(&self, newest: u64) {
        self.0.store(newest << 1 | 1, Relaxed);
    }

    /// How many newcomers have come since, twice as many if it was never served.
    fn age(&self, newest: u64) -> u64 {
        let last = self.0.load(Relaxed);
        let since = newest.saturating_sub(last >> 1);
        if last & 1 == 1 { since } else { since * 2 }
    }
}

/// The open connections, `T` each, by a number each.
pub(crate) struct Crowd<T> {
    members: HashMap<u64, Member<T>>,
    /// How many there are from each address.
    of_address: HashMap<IpAddr, usize>,
}

struct Member<T> {
    from: IpAddr,
    last_use: Arc<LastUse>,
    connection: T,
}

impl<T> Crowd<T> {
    /// Nobody yet.
    pub(crate) fn new() -> Crowd<T> {
        Crowd {
            members: HashMap::new(),
            of_address: HashMap::new(),
        }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Is nobody connected?
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The open connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &T> {
        self.members.values().map(|member| &member.connection)
    }

    /// Lets a newcomer in, whose number is larger than all before.
    pub(crate) fn enter(&mut self, number: u64, from: IpAddr, connection: T) -> Arc<LastUse> {
        let from = counted_as(from);
        let last_use = Arc::new(LastUse::never(number));
        *self.of_address.entry(from).or_default() += 1;
        let member = Member {
            from,
            last_use: last_use.clone(),
            connection,
        };
        self.members.insert(number, member);
        last_use
    }

    /// Takes one out, if it is still in.
    pub(crate) fn leave(&mut self, number: u64) -> Option<T> {
        let member = self.members.remove(&number)?;
        if let Some(count) = self.of_address.get_mut(&member.from) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&member.from);
            }
        }
        Some(member.connection)
    }

    /// If there is no room for the newcomer of that number among `most`, takes out
    /// those that were idle the longest.
    pub(crate) fn make_room(&mut self, number: u64, most: usize) -> Vec<T> {
        if self.len() < most {
            return Vec::new();
        }
        self.take_oldest(number, most, |_| true)
    }

    /// The same among those that come from the newcomer's address.
    pub(crate) fn make_room_beside(&mut self, number: u64, from: IpAddr, most: usize) -> Vec<T> {
        let from = counted_as(from);
        if self.of_address.get(&from).is_none_or(|count| *count < most) {
            return Vec::new();
        }
        self.take_oldest(number, most, |member| member.from == from)
    }

    /// Takes out a hundredth of `most`, the oldest, of those that are `meant`.
    fn take_oldest(
        &mut self,
        newest: u64,
        most: usize,
        meant: impl Fn(&Member<T>) -> bool,
    ) -> Vec<T> {
        let mut ages: Vec<(Reverse<u64>, u64)> = self
            .members
            .iter()
            .filter(|(_, member)| meant(member))
            .map(|(number, member)| (Reverse(member.last_use.age(newest)), *number))
            .collect();
        let many = (most / 100 + 1).min(ages.len());
        if many < ages.len() {
            ages.select_nth_unstable(many);
        }
        ages.iter()
            .take(many)
            .filter_map(|(_, number)| self.leave(*number))
            .collect()
    }
}

/// What connections from `address` are counted under.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(long) if !long.is_loopback() => {
            let network = long.to_bits() >> NETWORK_BITS << NETWORK_BITS;
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

    /// Connections 1 to `many` from that address, each known by its number.
    fn crowd_of(many: u64, from: IpAddr) -> Crowd<u64> {
        let mut crowd = Crowd::new();
        for number in 1..=many {
            crowd.enter(number, from, number);
        }
        crowd
    }

    #[test]
    fn nobody_goes_while_there_is_room() {
        let mut crowd = crowd_of(9, HERE);
        assert!(crowd.make_room(10, 10).is_empty());
        assert!(crowd.make_room_beside(10, HERE, 10).is_empty());
        assert_eq!(crowd.len(), 9);
    }

    #[test]
    fn a_full_house_makes_room_by_those_that_were_idle_the_longest() {
        let mut crowd = crowd_of(1000, HERE);
        let mut gone = crowd.make_room(1001, 1000);
        gone.sort_unstable();
        assert_eq!(gone, (1..=11).collect::<Vec<_>>());
        assert_eq!(crowd.len(), 989);
    }

    #[test]
    fn one_that_was_served_stays_until_twice_as_many_have_come() {
        let mut crowd = Crowd::new();
        crowd.enter(1, HERE, 1).served(1);
        for number in 2..=10 {
            crowd.enter(number, HERE, number);
        }
        assert_eq!(crowd.make_room(11, 10), [2], "the oldest never served");
        for number in 11..=18 {
            crowd.enter(number, HERE, number);
        }
        assert_eq!(crowd.make_room(19, 10), [3]);
        crowd.leave(4);
        for number in 5..=9 {
            crowd.leave(number);
        }
        assert_eq!(crowd.make_room(20, 9), [10], "10 newcomers twice are 20");
        assert_eq!(crowd.make_room(40, 8), [11]);
        crowd.enter(19, HERE, 19).served(40);
        (12..=18).for_each(|number| assert!(crowd.leave(number).is_some()));
        assert_eq!(
            crowd.make_room(41, 2),
            [1],
            "of two served, the longer idle"
        );
    }

    #[test]
    fn a_newcomer_outlives_a_whole_house_of_later_ones() {
        let most = 200;
        let mut crowd = crowd_of(most, HERE);
        let watched = most + 1;
        let mut survived = 0;
        for number in watched.. {
            let gone = crowd.make_room(number, most as usize);
            if gone.contains(&watched) {
                break;
            }
            crowd.enter(number, HERE, number);
            survived += 1;
        }
        assert!(survived > 190, "it went after {survived} others");
    }

    #[test]
    fn an_address_with_too_many_makes_room_among_its_own() {
        let mut crowd = crowd_of(3, address("192.0.2.1"));
        for number in 4..=8 {
            crowd.enter(number, address("192.0.2.2"), number);
        }
        let another = address("192.0.2.2");
        assert_eq!(crowd.make_room_beside(9, another, 5), [4]);
        assert!(crowd.make_room_beside(9, another, 5).is_empty());
    }

    #[test]
    fn who_has_left_is_counted_no_more() {
        let mut crowd = crowd_of(5, HERE);
        (1..=5).for_each(|number| assert_eq!(crowd.leave(number), Some(number)));
        assert_eq!(crowd.leave(5), None);
        assert!(crowd.is_empty() && crowd.of_address.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_ipv4_as_itself() {
        assert_eq!(
            counted_as(address("2001:db8:1:2:3::4")),
            address("2001:db8:1:2::")
        );
        assert_eq!(
            counted_as(address("::ffff:192.0.2.1")),
            address("192.0.2.1")
        );
        assert_eq!(counted_as(HERE), HERE);
    }
}
