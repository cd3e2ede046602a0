//! Networks of stores as child processes.

use std::time::{Duration, Instant};

use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{NodeStats, Phase, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::{Dialer, call};
use thrifty_p2p::status::store::StoreStatus;

use super::checker::Nodes;
use super::network::free_port;
use super::{NodeProcess, eventually};

/// How long a store may take to settle on a loaded machine.
pub const SETTLED: Duration = Duration::from_secs(30);

/// A network of stores, and how its nodes are started.
pub struct Stores {
    pub nodes: Vec<NodeProcess>,
    /// What clients may call.
    pub open: Nodes,
    /// Options of every node.
    options: Vec<String>,
}

impl Stores {
    /// Starts `size` stores with these options and waits until they are settled.
    pub fn start(size: usize, options: &[&str]) -> Stores {
        let mut stores = Stores {
            nodes: Vec::new(),
            open: Nodes::default(),
            options: options.iter().map(ToString::to_string).collect(),
        };
        let port = free_port().to_string();
        // Told to join itself, it knocks at nobody else's port.
        let itself = format!("127.0.0.1:{port}");
        stores.nodes.push(stores.spawn(&port, &itself));
        stores.nodes[0].wait_until_it_serves();
        let first = stores.nodes[0].at().to_owned();
        for _ in 1..size {
            stores.nodes.push(stores.spawn("0", &first));
        }
        stores
            .nodes
            .iter_mut()
            .for_each(NodeProcess::wait_until_it_serves);
        for node in &stores.nodes {
            stores.open.add(node.location.clone());
        }
        stores.settle();
        stores
    }

    /// Starts a store without waiting until it serves.
    pub fn spawn(&self, port: &str, peer: &str) -> NodeProcess {
        let mut arguments = vec!["--port", port, "--host", peer];
        arguments.extend(self.options.iter().map(String::as_str));
        NodeProcess::spawn("storeserver", &arguments)
    }

    /// Starts one more store beside these, without waiting until it serves.
    pub fn spawn_joiner(&self) -> NodeProcess {
        self.spawn("0", self.nodes[0].at())
    }

    /// Takes in a node that was started, for clients to call.
    pub fn admit(&mut self, mut node: NodeProcess) {
        node.wait_until_it_serves();
        self.open.add(node.location.clone());
        self.nodes.push(node);
    }

    /// Starts a store at the location of one that is gone.
    pub fn restart(&mut self, gone: &NodeProcess) {
        let port = gone.location.port().to_string();
        let node = self.spawn(&port, self.nodes[0].at());
        self.admit(node);
    }

    /// Kills a node, having told the clients that it goes.
    pub fn kill(&mut self, index: usize) -> NodeProcess {
        let mut node = self.nodes.remove(index);
        self.open.goes(&node.location);
        node.kill();
        node
    }

    /// Takes a node out as ctrl-C does: clients may call it until its process ends.
    pub fn send_away(&mut self, index: usize) -> NodeProcess {
        let node = self.nodes.remove(index);
        self.open.goes(&node.location);
        node.signal("INT");
        node
    }

    /// Kills two nodes at once, having told the clients that they go; the time between.
    pub fn kill_two(&mut self, first: usize, second: usize) -> (Vec<NodeProcess>, Duration) {
        let mut gone = vec![self.nodes.remove(first)];
        gone.push(self.nodes.remove(second % self.nodes.len()));
        gone.iter().for_each(|node| self.open.goes(&node.location));
        let began = Instant::now();
        gone.iter_mut().for_each(NodeProcess::strike);
        let between = began.elapsed();
        gone.iter_mut().for_each(NodeProcess::kill);
        (gone, between)
    }

    /// Waits until all nodes have each other in view and nothing moves; how long that took.
    pub fn settle(&self) -> Duration {
        let began = Instant::now();
        let expected: Vec<&Location> = {
            let mut all: Vec<_> = self.nodes.iter().map(|node| &node.location).collect();
            all.sort();
            all
        };
        eventually("the store is settled", SETTLED, || {
            self.nodes.iter().all(|node| {
                StoreStatus::ask(&Dialer::default(), &node.location).is_ok_and(|status| {
                    status.is_settled()
                        && status
                            .nodes
                            .iter()
                            .map(|n| &n.location)
                            .eq(expected.iter().copied())
                })
            })
        });
        began.elapsed()
    }

    /// A client of each node.
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

/// What the node there holds, if it answers.
pub fn stats(location: &Location) -> Option<NodeStats> {
    call(StoreSyncClient::new, location, |peer| peer.stats(true)).ok()
}

/// Is the node there in the middle of copying?
pub fn is_copying(location: &Location) -> bool {
    stats(location).is_some_and(|held| {
        held.phase == Some(Phase::DRAINED) && held.keys_received.is_some_and(|moved| moved > 0)
    })
}
