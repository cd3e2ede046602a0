//! Networks of stores as child processes.

use std::time::{Duration, Instant};

use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{
    NodeStats, Phase, StoreSyncClient, TStoreSyncClient, Write, WriteResult,
};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, call};
use thrifty_p2p::status::store::StoreStatus;

use super::checker::Nodes;
use super::network::free_port;
use super::{NodeProcess, eventually};

/// How long a store may take to settle on a busy machine.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A network of `storeserver` nodes.
pub struct Stores {
    pub nodes: Vec<NodeProcess>,
    /// The nodes that clients may call.
    pub callable: Nodes,
    /// The options of every node.
    options: Vec<String>,
}

impl Stores {
    /// Starts `size` nodes with these options, and waits until the store is settled.
    pub fn start(size: usize, options: &[&str]) -> Stores {
        Stores::start_in_zones(size, None, options)
    }

    /// The same, in so many zones in turn.
    pub fn start_in_zones(size: usize, zones: Option<usize>, options: &[&str]) -> Stores {
        let zone = |index: usize| zones.map(|zones| index % zones);
        let mut stores = Stores {
            nodes: Vec::new(),
            callable: Nodes::default(),
            options: options.iter().map(ToString::to_string).collect(),
        };
        let port = free_port().to_string();
        // Its peer is itself, so it starts a new network and probes no other port.
        let itself = format!("127.0.0.1:{port}");
        stores.nodes.push(stores.spawn_in(zone(0), &port, &itself));
        stores.nodes[0].wait_until_it_serves();
        let first = stores.nodes[0].at().to_owned();
        for index in 1..size {
            let node = stores.spawn_in(zone(index), "0", &first);
            stores.nodes.push(node);
        }
        stores
            .nodes
            .iter_mut()
            .for_each(NodeProcess::wait_until_it_serves);
        for node in &stores.nodes {
            stores.callable.add(node.location.clone());
        }
        stores.settle();
        stores
    }

    /// Starts a node at `port` that joins the network of `peer`. Does not wait until it serves.
    pub fn spawn(&self, port: &str, peer: &str) -> NodeProcess {
        self.spawn_in(None, port, peer)
    }

    /// The same in a zone.
    pub fn spawn_in(&self, zone: Option<usize>, port: &str, peer: &str) -> NodeProcess {
        let tag = zone.map(|zone| format!("--tag=zone=b{zone}"));
        let mut arguments = vec!["--port", port, "--host", peer];
        arguments.extend(tag.iter().chain(&self.options).map(String::as_str));
        NodeProcess::spawn("storeserver", &arguments)
    }

    /// Starts one more node of this network. Does not wait until it serves.
    pub fn spawn_joiner(&self) -> NodeProcess {
        self.spawn("0", self.nodes[0].at())
    }

    /// Waits until a started node serves, and lets clients call it.
    pub fn admit(&mut self, mut node: NodeProcess) {
        node.wait_until_it_serves();
        self.callable.add(node.location.clone());
        self.nodes.push(node);
    }

    /// Starts a node at the location of a node that has ended.
    pub fn restart(&mut self, ended: &NodeProcess) {
        let port = ended.location.port().to_string();
        let node = self.spawn(&port, self.nodes[0].at());
        self.admit(node);
    }

    /// Marks a node as exiting for the clients, and kills it.
    pub fn kill(&mut self, index: usize) -> NodeProcess {
        let mut node = self.nodes.remove(index);
        self.callable.expect_exit(&node.location);
        node.kill();
        node
    }

    /// Sends SIGINT to a node. Clients may call it until its process ends.
    pub fn interrupt(&mut self, index: usize) -> NodeProcess {
        let node = self.nodes.remove(index);
        self.callable.expect_exit(&node.location);
        node.signal("INT");
        node
    }

    /// Kills two nodes at once. Returns them, and the time between the two signals.
    pub fn kill_two(&mut self, first: usize, second: usize) -> (Vec<NodeProcess>, Duration) {
        let mut killed = vec![self.nodes.remove(first)];
        killed.push(self.nodes.remove(second % self.nodes.len()));
        self.kill_all(killed)
    }

    /// Kills these nodes at once, which were taken out of the others.
    pub fn kill_all(&self, mut killed: Vec<NodeProcess>) -> (Vec<NodeProcess>, Duration) {
        killed
            .iter()
            .for_each(|node| self.callable.expect_exit(&node.location));
        let began = Instant::now();
        killed.iter_mut().for_each(NodeProcess::send_kill);
        let between = began.elapsed();
        killed.iter_mut().for_each(NodeProcess::kill);
        (killed, between)
    }

    /// As [`settle`], of all nodes.
    pub fn settle(&self) -> Duration {
        settle(&self.nodes)
    }

    /// One client for each node.
    pub fn clients(&self) -> Vec<StoreClient> {
        let client = |node: &NodeProcess| StoreClient::new(node.location.clone());
        self.nodes.iter().map(client).collect()
    }

    /// The index of the node at that location.
    pub fn index_of(&self, location: &Location) -> usize {
        let found = self.nodes.iter().position(|n| n.location == *location);
        found.unwrap_or_else(|| panic!("there is no node at {location}"))
    }
}

/// Waits until every node reports that the store is settled and has exactly these nodes. Returns
/// how long that took.
pub fn settle<'a>(nodes: impl IntoIterator<Item = &'a NodeProcess>) -> Duration {
    let began = Instant::now();
    let mut expected: Vec<&Location> = nodes.into_iter().map(|node| &node.location).collect();
    expected.sort();
    eventually("the store is settled", SETTLE_TIMEOUT, || {
        expected.iter().all(|location| {
            StoreStatus::ask(&Dialer::default(), location).is_ok_and(|status| {
                let nodes = status.nodes.iter().map(|node| &node.location);
                status.is_settled() && nodes.eq(expected.iter().copied())
            })
        })
    });
    began.elapsed()
}

/// What the node at `location` reports. None if it does not reply.
pub fn stats(location: &Location) -> Option<NodeStats> {
    call(StoreSyncClient::new, location, |peer| peer.stats(true)).ok()
}

/// Has the node at `location` received some of its keys, but not all?
pub fn is_copying(location: &Location) -> bool {
    stats(location).is_some_and(|stats| {
        let has_received = stats.keys_received.is_some_and(|keys| keys > 0);
        stats.phase == Some(Phase::DRAINED) && has_received
    })
}

/// Writes these pairs in one call to the node at `location`, which forwards each to its primary. A
/// pair without a value is a deletion. Returns whether each key had a value before.
pub fn write_in_one_call(
    location: &Location,
    pairs: &[(&[u8], Option<&[u8]>)],
) -> Result<Vec<bool>, Error> {
    let write = |(key, value): &(&[u8], Option<&[u8]>)| {
        Write::new(
            key.to_vec(),
            value.map(<[u8]>::to_vec),
            None,
            false,
            None,
            None,
            None,
        )
    };
    let writes = || pairs.iter().map(write).collect();
    let results = call(StoreSyncClient::new, location, |node| {
        node.write_many(writes())
    })?;
    let existed = |result: &WriteResult| result.existed == Some(true);
    Ok(results.iter().map(existed).collect())
}
