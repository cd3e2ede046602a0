//! `StoreStatus`: what the nodes of a store hold, and how far a rebalance is.

mod output;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::diststore::{NodeStats, Phase, StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::locator::{self, TLocatorSyncClient};
use crate::membership::{Gossip, Status, Tags};
use crate::parallel::parallel_map;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::store::placement::{zone_of, zones};
use crate::store::types::{Client, unix_millis};

/// Calls in flight at the same time.
const PARALLEL: usize = 32;

/// A node that does not reply in this time is shown as one that does not answer.
const TIMEOUTS: Timeouts = Timeouts::of_millis(1_000, 3_000);

/// The pause before nodes are asked again, to measure how fast a rebalance is.
const PAUSE: Duration = Duration::from_millis(500);

/// What the nodes of a store hold.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// The network's service type and id. None if the peer did not say, as a legacy node.
    pub network: Option<String>,
    /// All nodes on the ring, sorted by location.
    pub nodes: Vec<NodeStatus>,
    /// Members that are down and not forgotten yet.
    pub down: Vec<Location>,
    /// Keys copied per second, if the store is not settled.
    pub keys_per_second: Option<f64>,
    /// When the nodes were asked, in milliseconds since 1970.
    pub asked_at: i64,
}

/// What one node holds.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Where it is reached.
    pub location: Location,
    /// Its share of the ring, 0 to 1.
    pub share: f64,
    /// None if it did not reply, or is a legacy node.
    pub stats: Option<NodeStats>,
    /// Is it a legacy node, which has no stats?
    pub is_legacy: bool,
    /// What its operator says about it.
    pub tags: Tags,
}

impl StoreStatus {
    /// Asks `peer` for the nodes on the ring, and each node for its stats. If the store is not
    /// settled, asks again after half a second. Blocks for some seconds at most.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn ask(dialer: &Dialer, peer: &Location) -> Result<StoreStatus, Error> {
        let first = StoreStatus::ask_once(dialer, peer, None)?;
        if first.is_settled() {
            return Ok(first);
        }
        thread::sleep(PAUSE);
        StoreStatus::ask_once(dialer, peer, Some(&first))
    }

    /// The same without a second time. How fast a rebalance is follows from the status `before`.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn ask_once(
        dialer: &Dialer,
        peer: &Location,
        before: Option<&StoreStatus>,
    ) -> Result<StoreStatus, Error> {
        let mut status = ask(dialer, peer)?;
        if let Some(before) = before.filter(|_| !status.is_settled()) {
            let copied = status.copies().saturating_sub(before.copies());
            let millis = (status.asked_at - before.asked_at).max(1);
            status.keys_per_second = Some(copied as f64 * 1e3 / millis as f64);
        }
        Ok(status)
    }

    /// Tells all nodes that a member is gone which is down and may be running. Returns to how many
    /// it was that. Blocks for some seconds at most.
    ///
    /// # Errors
    /// The peer cannot be called.
    pub fn declare_gone(dialer: &Dialer, peer: &Location, gone: &Location) -> Result<usize, Error> {
        let nodes: Vec<Location> = ring(dialer, peer)?.nodes().cloned().collect();
        let declared = parallel_map(&nodes, PARALLEL, |node| {
            let call = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, node, |node| {
                node.declare_gone(gone.into())
            });
            call.unwrap_or(false)
        });
        Ok(declared.into_iter().filter(|declared| *declared).count())
    }

    /// Does every key have all its copies? Then all its owners but one may fail at once
    /// without loss.
    pub fn is_settled(&self) -> bool {
        self.store_nodes().all(NodeStatus::is_settled)
    }

    /// Is the store settled, with as many copies of each key as there are to be, and is no member
    /// out of reach?
    pub fn is_safe(&self) -> bool {
        self.is_settled() && self.copies_of_each() == self.replicas() && self.silent().is_empty()
    }

    /// Is nothing under way that ends by itself, and every key has fewer copies than there are to
    /// be, because there are fewer nodes?
    pub fn lacks_nodes(&self) -> bool {
        self.is_settled() && self.copies_of_each() < self.replicas() && self.silent().is_empty()
    }

    /// The members that are down and may be running on the other side of a split.
    pub fn silent(&self) -> BTreeSet<Location> {
        self.named(|stats| stats.silent.as_ref())
    }

    /// The members that nodes wait for to start the network again from its disks.
    pub fn missing(&self) -> BTreeSet<Location> {
        self.named(|stats| stats.missing.as_ref())
    }

    /// The keys in the store.
    pub fn keys(&self) -> u64 {
        self.sum(|stats| stats.primary_keys)
    }

    /// The copies of keys on all nodes.
    pub fn copies(&self) -> u64 {
        self.sum(|stats| stats.keys)
    }

    /// The calls that all nodes have served.
    pub fn calls(&self) -> u64 {
        self.sum(|stats| stats.server.as_ref()?.calls)
    }

    /// The copies of keys that there are when the store is settled.
    pub fn expected_copies(&self) -> u64 {
        self.keys() * self.copies_of_each()
    }

    /// How many copies of each key there are to be.
    pub fn replicas(&self) -> u64 {
        let replicas = self.stats().filter_map(|stats| stats.replicas).max();
        replicas.unwrap_or(1).max(1) as u64
    }

    /// How many copies of each key there are when the store is settled.
    pub fn copies_of_each(&self) -> u64 {
        self.replicas().min(self.store_nodes().count() as u64)
    }

    /// In how many zones each key has copies when the store is settled. None if no node has a zone,
    /// or some node has none: those may stand anywhere.
    pub fn zones_of_each(&self) -> Option<u64> {
        let zones = zones(self.store_nodes().map(|node| zone_of(&node.tags)))? as u64;
        (self.without_zone() == 0).then_some(zones.min(self.copies_of_each()))
    }

    /// The nodes that have no zone.
    fn without_zone(&self) -> usize {
        let nodes = self.store_nodes();
        nodes.filter(|node| node.tags.zone().is_none()).count()
    }

    /// The nodes that are not legacy nodes.
    fn store_nodes(&self) -> impl Iterator<Item = &NodeStatus> {
        self.nodes.iter().filter(|node| !node.is_legacy)
    }

    fn stats(&self) -> impl Iterator<Item = &NodeStats> {
        self.nodes.iter().filter_map(|node| node.stats.as_ref())
    }

    fn named<'a>(
        &'a self,
        field: impl Fn(&'a NodeStats) -> Option<&'a Vec<locator::Location>>,
    ) -> BTreeSet<Location> {
        let listed = self.stats().filter_map(field).flatten();
        listed
            .filter_map(|location| Location::try_from(location).ok())
            .collect()
    }

    fn sum(&self, count: impl Fn(&NodeStats) -> Option<i64>) -> u64 {
        self.stats().filter_map(count).sum::<i64>().max(0) as u64
    }
}

impl NodeStatus {
    /// Does the node serve clients, and has it ended its last rebalance?
    fn is_settled(&self) -> bool {
        let is_settled =
            |stats: &NodeStats| stats.serving == Some(true) && stats.phase == Some(Phase::SETTLED);
        self.stats.as_ref().is_some_and(is_settled)
    }
}

/// The nodes on the ring of `peer`.
fn ring(dialer: &Dialer, peer: &Location) -> Result<HashRing<Location>, Error> {
    let get_all = |peer: &mut Client| peer.get_all();
    let all = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, peer, get_all)?;
    Ok(all.iter().filter_map(|node| node.try_into().ok()).collect())
}

fn ask(dialer: &Dialer, peer: &Location) -> Result<StoreStatus, Error> {
    let ring = ring(dialer, peer)?;
    let shares: Vec<(&Location, f64)> = ring.shares();
    let mut nodes = parallel_map(&shares, PARALLEL, |(location, share)| {
        let stats = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, location, |node| {
            node.stats(true)
        });
        NodeStatus {
            location: (*location).clone(),
            share: *share,
            is_legacy: stats.as_ref().is_err_and(Error::is_unknown_method),
            stats: stats.ok(),
            tags: Tags::default(),
        }
    });
    nodes.sort_by(|one, other| one.location.cmp(&other.location));
    let members = |peer: &mut Client| peer.members();
    let gossip = dialer.call_with_timeouts(TIMEOUTS, StoreSyncClient::new, peer, members);
    let gossip = gossip.ok().and_then(|gossip| Gossip::try_from(gossip).ok());
    let members = gossip.iter().flat_map(|gossip| &gossip.members);
    for member in members.clone() {
        if let Some(node) = nodes
            .iter_mut()
            .find(|node| node.location == member.location)
        {
            node.tags = member.tags.clone();
        }
    }
    let down = members.filter(|member| member.status == Status::Down);
    Ok(StoreStatus {
        down: down.map(|member| member.location.clone()).collect(),
        network: gossip.as_ref().map(|gossip| gossip.network.to_string()),
        nodes,
        keys_per_second: None,
        asked_at: unix_millis(),
    })
}
