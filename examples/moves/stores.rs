//! A network of store nodes, which grows and shrinks while it is called.

use thrifty_p2p::diststore::{NodeStats, Phase, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::call;

use crate::beside::Node;

/// A network of stores on this machine, killed when it is dropped.
pub struct Stores {
    nodes: Vec<Node>,
}

impl Stores {
    /// Starts so many nodes, one after another.
    pub fn start(count: usize) -> Result<Stores, Error> {
        let mut stores = Stores { nodes: Vec::new() };
        for _ in 0..count {
            stores.add()?;
        }
        Ok(stores)
    }

    /// Starts one more node; returns when it serves.
    pub fn add(&mut self) -> Result<(), Error> {
        let node = match self.nodes.first() {
            Some(first) => Node::start(&["-p", "0", "-h", first.location().name()]),
            None => Node::start(&["-p", "0", "--alone"]),
        };
        self.nodes.push(node.map_err(Error::Io)?);
        Ok(())
    }

    /// Ends the node that came last at once, as `kill -9` does.
    pub fn kill_last(&mut self) {
        self.nodes.pop();
    }

    /// The node that came first.
    pub fn first(&self) -> &Location {
        self.nodes[0].location()
    }

    /// The view of the first node.
    pub fn view(&self) -> Option<i64> {
        stats(self.first())?.view
    }

    /// Is nothing on its way, for all nodes in one view?
    pub fn are_settled(&self) -> bool {
        let view = self.view();
        let mut nodes = self.nodes.iter().map(Node::location);
        nodes.all(|node| {
            stats(node).is_some_and(|held| {
                held.phase == Some(Phase::SETTLED)
                    && held.serving == Some(true)
                    && held.view == view
            })
        })
    }

    /// The keys that the node which came last holds.
    pub fn keys_of_last(&self) -> i64 {
        let last = self.nodes.last().map(Node::location);
        let held = last.and_then(stats);
        held.and_then(|held| held.keys).unwrap_or(0)
    }
}

/// What a node holds; nothing if it does not answer.
fn stats(node: &Location) -> Option<NodeStats> {
    call(StoreSyncClient::new, node, |node| node.stats(false)).ok()
}
