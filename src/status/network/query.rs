//! Asks all members of a network what they know.
//!
//! First a peer, then every live member that it knows, then those that only these know. What
//! they reply is merged as members merge it, so the newest record of each member counts.
//!
//! Members are not asked at the same instant, and a change takes a moment to spread. So the
//! network is asked again while members differ, for as long as a change takes to spread in a
//! large network.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use super::{Agreement, NetworkStatus, Reply, live};
use crate::error::Error;
use crate::location::Location;
use crate::locator::{LocatorSyncClient, TLocatorSyncClient};
use crate::membership::{Gossip, MemberTable};
use crate::parallel::parallel_map;
use crate::rpc::dialer::{Dialer, Timeouts};

/// Calls in flight at the same time.
const PARALLEL: usize = 32;

/// How many times members that were not known before are asked. In a network that is not
/// partitioned the first reply names all of them.
const ROUNDS: usize = 4;

/// A member that does not reply in this time is shown as one that does not answer.
const TIMEOUTS: Timeouts = Timeouts::of_millis(1_000, 2_000);

/// How many times the network is asked while members differ.
const ATTEMPTS: usize = 5;

/// The pause between two attempts. With it all attempts take 2 s, in which a change reaches
/// all of a thousand members.
const PAUSE: Duration = Duration::from_millis(500);

impl NetworkStatus {
    /// Asks `peer` and then every member; while members differ, again.
    ///
    /// Blocks for some seconds if members differ or do not reply.
    ///
    /// # Errors
    /// The peer cannot be called, or it and all nodes on its ring are legacy nodes.
    pub fn ask(dialer: &Dialer, peer: &Location) -> Result<NetworkStatus, Error> {
        let mut status = NetworkStatus::ask_once(dialer, peer)?;
        for _ in 1..ATTEMPTS {
            if !status.live().any(|row| row.agreement == Agreement::Differs) {
                break;
            }
            thread::sleep(PAUSE);
            status = NetworkStatus::ask_once(dialer, peer)?;
        }
        Ok(status)
    }

    /// The same without a second time.
    ///
    /// # Errors
    /// As for [`ask`](NetworkStatus::ask).
    pub fn ask_once(dialer: &Dialer, peer: &Location) -> Result<NetworkStatus, Error> {
        let first = first_state(dialer, peer)?;
        let network = first.network.clone();
        let mut known = MemberTable::default();
        let mut replies = BTreeMap::new();
        merge(&mut known, &first);
        for _ in 0..ROUNDS {
            let is_new = |location: &&Location| !replies.contains_key(*location);
            let new: Vec<Location> = live(&known).filter(is_new).cloned().collect();
            if new.is_empty() {
                break;
            }
            let new = parallel_map(&new, PARALLEL, |location| {
                (location.clone(), reply_of(dialer, location))
            });
            for (_, reply) in &new {
                if let Reply::State(gossip) = reply
                    && gossip.network == network
                {
                    merge(&mut known, gossip);
                }
            }
            replies.extend(new);
        }
        Ok(NetworkStatus::compare(network, &known, &replies))
    }
}

/// The state of the peer or, if that is a legacy node, of a node on its ring.
fn first_state(dialer: &Dialer, peer: &Location) -> Result<Gossip, Error> {
    match state_of(dialer, peer) {
        Err(e) if e.is_unknown_method() => {
            let ring = ring_of(dialer, peer)?;
            let mut states = ring.iter().map(|location| state_of(dialer, location));
            states.find_map(Result::ok).ok_or(e)
        }
        state => state,
    }
}

fn reply_of(dialer: &Dialer, location: &Location) -> Reply {
    match state_of(dialer, location) {
        Ok(gossip) => Reply::State(gossip),
        Err(e) if e.is_unknown_method() => {
            ring_of(dialer, location).map_or(Reply::None, Reply::Ring)
        }
        Err(_) => Reply::None,
    }
}

fn state_of(dialer: &Dialer, location: &Location) -> Result<Gossip, Error> {
    dialer.call_with_timeouts(TIMEOUTS, LocatorSyncClient::new, location, |peer| {
        let gossip = Gossip::try_from(peer.members()?);
        gossip.map_err(|e| e.to_string().into())
    })
}

fn ring_of(dialer: &Dialer, location: &Location) -> Result<BTreeSet<Location>, Error> {
    dialer.call_with_timeouts(TIMEOUTS, LocatorSyncClient::new, location, |peer| {
        let all = peer.get_all()?;
        Ok(all.iter().filter_map(|node| node.try_into().ok()).collect())
    })
}

fn merge(known: &mut MemberTable, gossip: &Gossip) {
    for member in &gossip.members {
        known.merge(member.clone());
    }
}
