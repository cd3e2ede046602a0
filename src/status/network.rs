//! `NetworkStatus`: a network as all of its members see it, and whether they agree.
//!
//! Members agree when their membership digests are equal. A digest covers all live records.

mod output;
mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::membership::{Gossip, Member, MemberTable};

/// A network as all of its members see it.
#[derive(Debug, Clone)]
pub struct NetworkStatus {
    /// The name of the network.
    pub network: Arc<str>,
    /// The membership digest of most members that replied.
    pub digest: Option<u64>,
    /// Every member that any other knows: live ones first, then sorted by location.
    pub members: Vec<MemberStatus>,
}

/// One member of a network.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Its newest record.
    pub member: Member,
    /// Its share of the ring, 0 to 1. None if it is not live.
    pub share: Option<f64>,
    /// Does it agree with the others?
    pub agreement: Agreement,
}

/// Whether a member agrees with most others on the live members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// It does.
    Agrees,
    /// It knows other members, or belongs to another network.
    Differs,
    /// It has not joined a network yet.
    Joining,
    /// It did not reply.
    NoAnswer,
    /// It is down or has left, and was not called.
    Gone,
}

/// What a member replied.
enum Reply {
    /// All records that it knows.
    State(Gossip),
    /// The nodes on the ring of a legacy node, which knows no more.
    Ring(BTreeSet<Location>),
    /// Nothing in time.
    None,
}

impl NetworkStatus {
    /// The live members: those on the ring.
    pub fn live(&self) -> impl Iterator<Item = &MemberStatus> {
        let members = self.members.iter();
        members.filter(|member| member.agreement != Agreement::Gone)
    }

    /// Did every live member reply and agree with the others?
    pub fn is_agreed(&self) -> bool {
        self.live()
            .all(|member| member.agreement == Agreement::Agrees)
    }

    /// Compares the replies of the members of `network`. `known` has the records of all
    /// replies.
    fn compare(
        network: Arc<str>,
        known: &MemberTable,
        replies: &BTreeMap<Location, Reply>,
    ) -> NetworkStatus {
        let digest = most_common_digest(&network, known, replies);
        let live: BTreeSet<Location> = live(known).cloned().collect();
        let ring: HashRing<Location> = live.iter().cloned().collect();
        let shares: BTreeMap<&Location, f64> = ring.shares().into_iter().collect();
        let agreement = |location: &Location| match replies.get(location) {
            _ if !live.contains(location) => Agreement::Gone,
            Some(Reply::State(gossip)) if gossip.joins.is_some() => Agreement::Joining,
            Some(Reply::State(gossip)) => {
                let is_same = gossip.network == network && gossip.sender == *location;
                agrees(is_same && Some(gossip.digest) == digest)
            }
            Some(Reply::Ring(nodes)) => agrees(*nodes == live),
            Some(Reply::None) | None => Agreement::NoAnswer,
        };
        let status = |member: &Member| MemberStatus {
            member: member.clone(),
            share: shares.get(&member.location).copied(),
            agreement: agreement(&member.location),
        };
        let mut members: Vec<MemberStatus> = known.iter().map(status).collect();
        members.sort_by_key(|member| member.agreement == Agreement::Gone);
        NetworkStatus {
            network,
            digest,
            members,
        }
    }
}

fn agrees(agrees: bool) -> Agreement {
    if agrees {
        Agreement::Agrees
    } else {
        Agreement::Differs
    }
}

fn live(known: &MemberTable) -> impl Iterator<Item = &Location> {
    let live = known.iter().filter(|member| member.status.is_live());
    live.map(|member| &member.location)
}

/// The digest that most members have. Of two that are equally common, the one that covers the
/// newest records.
fn most_common_digest(
    network: &str,
    known: &MemberTable,
    replies: &BTreeMap<Location, Reply>,
) -> Option<u64> {
    let digest = |reply: &Reply| match reply {
        Reply::State(gossip) if *gossip.network == *network => Some(gossip.digest),
        _ => None,
    };
    let digests: Vec<u64> = replies.values().filter_map(digest).collect();
    let count = |digest| digests.iter().filter(|other| **other == digest).count();
    let newest = known.digest();
    let rank = |digest: &u64| (count(*digest), *digest == newest, *digest);
    digests.iter().copied().max_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Status, Tags};

    fn location(port: u16) -> Location {
        Location::new("10.0.0.1", port).unwrap()
    }

    fn member(port: u16, status: Status) -> Member {
        Member {
            location: location(port),
            incarnation: 1_700_000_000_000,
            status,
            generation: 1_700_000_000_000,
            tags: Tags::default(),
        }
    }

    fn state(port: u16, digest: u64) -> (Location, Reply) {
        let gossip = Gossip {
            sender: location(port),
            network: "n".into(),
            digest,
            members: Vec::new(),
            full: true,
            learned: false,
            joins: None,
            refused: 0,
        };
        (location(port), Reply::State(gossip))
    }

    /// Four live members and one that is down. The second agrees or not, the third is a legacy
    /// node with this ring, and the fourth replies or not.
    pub(super) fn status(second_agrees: bool, ring: &[u16], fourth_replies: bool) -> NetworkStatus {
        let mut known = MemberTable::default();
        for port in [1, 2, 3, 4] {
            known.merge(member(port, Status::Alive));
        }
        known.merge(member(0x10, Status::Down));
        let digest = known.digest();
        let second = if second_agrees { digest } else { digest + 1 };
        let mut replies = BTreeMap::from([state(1, digest), state(2, second), state(4, digest)]);
        let nodes = ring.iter().map(|port| location(*port)).collect();
        replies.insert(location(3), Reply::Ring(nodes));
        if !fourth_replies {
            replies.insert(location(4), Reply::None);
        }
        NetworkStatus::compare("n".into(), &known, &replies)
    }

    #[test]
    fn members_agree_by_their_digests_and_legacy_nodes_by_their_rings() {
        use Agreement::{Agrees, Differs, Gone, NoAnswer};
        let agreements = |status: &NetworkStatus| -> Vec<Agreement> {
            status.members.iter().map(|row| row.agreement).collect()
        };
        assert!(status(true, &[1, 2, 3, 4], true).is_agreed());
        assert_eq!(
            agreements(&status(false, &[1, 2, 4], true)),
            [Agrees, Differs, Differs, Agrees, Gone]
        );
        let silent = status(true, &[1, 2, 3, 4], false);
        assert_eq!(
            agreements(&silent),
            [Agrees, Agrees, Agrees, NoAnswer, Gone]
        );
        assert!(!silent.is_agreed());
    }

    #[test]
    fn the_shares_of_the_live_members_add_up_to_one() {
        let status = status(true, &[], true);
        let shares: f64 = status.members.iter().filter_map(|row| row.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        assert_eq!(status.live().count(), 4);
    }
}
