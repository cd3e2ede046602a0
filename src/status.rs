//! `Status`: a network as all of its members see it, and whether they see the same.
//!
//! One peer is asked what it knows, then every live member it knows of, then those
//! that only these knew, until no new ones turn up. What they tell is merged as
//! the members themselves merge it, so the newest record of each is shown. Members
//! agree when their views are equal: a view is a sum over all live records.
//!
//! Members are asked side by side and not at one instant, and a change takes a
//! moment to spread. So those who are found to disagree are looked at again, for
//! as long as that takes in a large network; who disagrees then has a reason.

mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::locator::{LocatorSyncClient, TLocatorSyncClient};
use crate::membership::{Gossip, Member, Members};
use crate::rpc::client::{Caller, Patience};
use crate::side_by_side::side_by_side;

/// Calls made at the same time.
const SIDE_BY_SIDE: usize = 32;

/// Times that members are asked whom else they know. In a network that has not
/// fallen apart the first answer names everyone.
const ROUNDS: usize = 4;

/// A member that does not answer in this time is shown as one that does not.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(2),
};

/// Looks at members that disagree, and the time between two: 2 s in all, in which
/// a change reaches everyone in a network of a thousand.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// A network, as all of its members see it.
#[derive(Debug, Clone)]
pub struct Status {
    /// The network's name.
    pub network: Arc<str>,
    /// The view that most of those who answered have.
    pub view: Option<u64>,
    /// Every member that anyone knows of, the live ones first, sorted by location.
    pub members: Vec<MemberStatus>,
}

/// One member, as the network sees it.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// The newest of its records.
    pub member: Member,
    /// Its share of the ring, 0 to 1; nothing of a member that is gone.
    pub share: Option<f64>,
    /// How it sees the network.
    pub standing: Standing,
}

/// How a member sees the network, next to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As most others do.
    Agrees,
    /// It knows of more, fewer or other members than most, or belongs elsewhere.
    Differs,
    /// It did not answer.
    Silent,
    /// It is down or has left, and was not asked.
    Gone,
}

/// What one member told of the network.
enum Answer {
    /// All it knows.
    Told(Gossip),
    /// The nodes on its ring, which is all that a node of the original can tell.
    Listed(BTreeSet<Location>),
    /// Nothing in time.
    Silence,
}

impl Status {
    /// Asks `peer`, then every member; those who disagree, again.
    ///
    /// Blocks for some seconds when members disagree or do not answer.
    ///
    /// # Errors
    /// The peer cannot be asked, or nobody that it knows can tell more than a
    /// node of the original.
    pub fn ask(caller: &Caller, peer: &Location) -> Result<Status, Error> {
        let mut status = Status::look(caller, peer)?;
        for _ in 1..LOOKS {
            if !status.live().any(|row| row.standing == Standing::Differs) {
                break;
            }
            thread::sleep(BETWEEN_LOOKS);
            status = Status::look(caller, peer)?;
        }
        Ok(status)
    }

    fn look(caller: &Caller, peer: &Location) -> Result<Status, Error> {
        let first = first_answer(caller, peer)?;
        let network = first.network.clone();
        let mut known = Members::default();
        let mut answers = BTreeMap::new();
        merge(&mut known, &first);
        for _ in 0..ROUNDS {
            let unasked: Vec<Location> = live(&known)
                .filter(|location| !answers.contains_key(*location))
                .cloned()
                .collect();
            if unasked.is_empty() {
                break;
            }
            let told = ask_all(caller, &unasked);
            for (_, answer) in &told {
                if let Answer::Told(gossip) = answer
                    && gossip.network == network
                {
                    merge(&mut known, gossip);
                }
            }
            answers.extend(told);
        }
        Ok(Status::of(network, &known, &answers))
    }

    /// The live members: those on the ring.
    pub fn live(&self) -> impl Iterator<Item = &MemberStatus> {
        self.members
            .iter()
            .filter(|row| row.standing != Standing::Gone)
    }

    /// Did every live member answer, and see the same network?
    pub fn is_agreed(&self) -> bool {
        self.live().all(|row| row.standing == Standing::Agrees)
    }

    fn of(network: Arc<str>, known: &Members, answers: &BTreeMap<Location, Answer>) -> Status {
        let view = commonest_view(&network, known, answers);
        let live: BTreeSet<Location> = live(known).cloned().collect();
        let ring: HashRing<Location> = live.iter().cloned().collect();
        let shares: BTreeMap<&Location, f64> = ring.shares().into_iter().collect();
        let standing = |location: &Location| match answers.get(location) {
            _ if !live.contains(location) => Standing::Gone,
            Some(Answer::Told(gossip))
                if gossip.network == network
                    && gossip.sender == *location
                    && Some(gossip.view) == view =>
            {
                Standing::Agrees
            }
            Some(Answer::Listed(listed)) if *listed == live => Standing::Agrees,
            Some(Answer::Told(_) | Answer::Listed(_)) => Standing::Differs,
            Some(Answer::Silence) | None => Standing::Silent,
        };
        let mut members: Vec<MemberStatus> = known
            .iter()
            .map(|member| MemberStatus {
                member: member.clone(),
                share: shares.get(&member.location).copied(),
                standing: standing(&member.location),
            })
            .collect();
        members.sort_by_key(|row| row.standing == Standing::Gone);
        Status {
            network,
            view,
            members,
        }
    }
}

/// What the peer tells; if it is a node of the original, what one that it lists tells.
fn first_answer(caller: &Caller, peer: &Location) -> Result<Gossip, Error> {
    let unknown = match told_by(caller, peer) {
        Err(e) if e.is_unknown_method() => e,
        told => return told,
    };
    let listed = listed_by(caller, peer)?;
    let told = listed
        .iter()
        .find_map(|location| told_by(caller, location).ok());
    told.ok_or(unknown)
}

fn told_by(caller: &Caller, location: &Location) -> Result<Gossip, Error> {
    caller.call_within(PATIENCE, LocatorSyncClient::new, location, |peer| {
        let gossip = Gossip::try_from(peer.members()?);
        gossip.map_err(|e| e.to_string().into())
    })
}

fn listed_by(caller: &Caller, location: &Location) -> Result<BTreeSet<Location>, Error> {
    let all = caller.call_within(PATIENCE, LocatorSyncClient::new, location, |peer| {
        peer.get_all()
    })?;
    Ok(all.iter().filter_map(|l| l.try_into().ok()).collect())
}

fn answer_of(caller: &Caller, location: &Location) -> Answer {
    match told_by(caller, location) {
        Ok(gossip) => Answer::Told(gossip),
        Err(e) if e.is_unknown_method() => {
            listed_by(caller, location).map_or(Answer::Silence, Answer::Listed)
        }
        Err(_) => Answer::Silence,
    }
}

fn ask_all(caller: &Caller, locations: &[Location]) -> Vec<(Location, Answer)> {
    side_by_side(locations, SIDE_BY_SIDE, |location| {
        (location.clone(), answer_of(caller, location))
    })
}

fn merge(known: &mut Members, gossip: &Gossip) {
    for member in &gossip.members {
        known.merge(member.clone());
    }
}

fn live(known: &Members) -> impl Iterator<Item = &Location> {
    let live = known.iter().filter(|member| member.status.is_live());
    live.map(|member| &member.location)
}

/// Of two that are as common, the one that knows the newest of everything.
fn commonest_view(
    network: &str,
    known: &Members,
    answers: &BTreeMap<Location, Answer>,
) -> Option<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for answer in answers.values() {
        if let Answer::Told(gossip) = answer
            && *gossip.network == *network
        {
            *counts.entry(gossip.view).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .max_by_key(|(view, count)| (*count, *view == known.view()))
        .map(|(view, _)| view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership;

    fn location(port: u16) -> Location {
        Location::new("10.0.0.1", port).unwrap()
    }

    fn member(port: u16, status: membership::Status) -> Member {
        Member {
            location: location(port),
            incarnation: 1_700_000_000_000,
            status,
            started: 1_700_000_000_000,
        }
    }

    fn told(port: u16, view: u64) -> (Location, Answer) {
        let gossip = Gossip {
            sender: location(port),
            network: "n".into(),
            view,
            members: Vec::new(),
            full: true,
            refused: 0,
        };
        (location(port), Answer::Told(gossip))
    }

    /// Four live members and one that is down. Does the second agree, what does
    /// the third list, and is the fourth silent?
    pub(super) fn status(second: bool, third: &[u16], silent: bool) -> Status {
        let mut known = Members::default();
        for port in [1, 2, 3, 4] {
            known.merge(member(port, membership::Status::Alive));
        }
        known.merge(member(0x10, membership::Status::Down));
        let list = third.iter().map(|port| location(*port)).collect();
        let view = known.view();
        let second = if second { view } else { view + 1 };
        let mut answers = BTreeMap::from([told(1, view), told(2, second), told(4, view)]);
        answers.insert(location(3), Answer::Listed(list));
        if silent {
            answers.insert(location(4), Answer::Silence);
        }
        Status::of("n".into(), &known, &answers)
    }

    #[test]
    fn members_agree_by_their_views_and_those_of_the_original_by_their_lists() {
        assert!(status(true, &[1, 2, 3, 4], false).is_agreed());
        let standings = |status: &Status| -> Vec<Standing> {
            status.members.iter().map(|row| row.standing).collect()
        };
        use Standing::{Agrees, Differs, Gone, Silent};
        assert_eq!(
            standings(&status(false, &[1, 2, 4], false)),
            [Agrees, Differs, Differs, Agrees, Gone]
        );
        let quiet = status(true, &[1, 2, 3, 4], true);
        assert_eq!(standings(&quiet), [Agrees, Agrees, Agrees, Silent, Gone]);
        assert!(!quiet.is_agreed());
    }

    #[test]
    fn the_live_share_the_ring() {
        let status = status(true, &[], false);
        let shares: f64 = status.members.iter().filter_map(|row| row.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        assert_eq!(status.live().count(), 4);
    }
}
