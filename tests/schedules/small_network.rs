//! `SmallNetwork`: a few nodes that a test moves step by step, for what hardly happens by
//! chance.

use std::cell::{Ref, RefCell};

use thrifty_p2p::location::Location;
use thrifty_p2p::store::placement::{Key, NodeId};
use thrifty_p2p::store::rebalance::{MemberSnapshot, Rebalance, Rules};
use thrifty_p2p::store::table::Table;
use thrifty_p2p::store::versions::Entry;

/// Rounds of statuses in which all settles that can.
const ROUNDS: usize = 12;

/// Some nodes and their tables, with one key.
pub struct SmallNetwork {
    nodes: Vec<(RefCell<Rebalance>, Table)>,
}

fn node_id(node: usize) -> NodeId {
    let location = Location::new("10.0.0.1", 9000 + node as u16);
    NodeId::new(location.expect("an address and a port"), 1)
}

impl SmallNetwork {
    pub fn new(count: usize, replicas: usize, rules: Rules) -> SmallNetwork {
        let node = |node| {
            let mut rebalance = Rebalance::new(node_id(node), Some(replicas), rules);
            rebalance.mark_joined();
            (RefCell::new(rebalance), Table::default())
        };
        SmallNetwork {
            nodes: (0..count).map(node).collect(),
        }
    }

    pub fn key() -> Key<'static> {
        Key::new(b"apple")
    }

    pub fn at(&self, node: usize) -> Ref<'_, Rebalance> {
        self.nodes[node].0.borrow()
    }

    pub fn table(&self, node: usize) -> &Table {
        &self.nodes[node].1
    }

    /// Changes a node's rebalance, and publishes the change.
    pub fn change<T>(&self, node: usize, change: impl FnOnce(&mut Rebalance) -> T) -> T {
        let mut rebalance = self.nodes[node].0.borrow_mut();
        let mut before = rebalance.changes();
        let result = change(&mut rebalance);
        while rebalance.changes() != before {
            before = rebalance.changes();
            rebalance.on_published();
        }
        result
    }

    /// Applies the write of the key.
    pub fn apply(&self, node: usize) {
        let value = Some(b"red".to_vec().into());
        let entry = Entry { version: 1, value };
        self.nodes[node].1.apply(SmallNetwork::key(), entry);
    }

    pub fn holds_key(&self, node: usize) -> bool {
        self.nodes[node].1.read(SmallNetwork::key()).is_some()
    }

    /// The membership at `node` is this now.
    pub fn update_members(&self, node: usize, live: &[usize], leaving: &[usize]) {
        let id = |node: &usize| self.at(*node).me().clone();
        let members = MemberSnapshot {
            me: id(&node),
            live: live.iter().map(id).collect(),
            leaving: leaving.iter().map(id).collect(),
        };
        self.change(node, |rebalance| rebalance.update_members(members));
    }

    /// All of `nodes` exchange their statuses, and copy what `sources` send.
    pub fn exchange(&self, nodes: &[usize], sources: &[usize]) {
        for _ in 0..ROUNDS {
            for &asker in nodes {
                for &asked in nodes.iter().filter(|asked| **asked != asker) {
                    self.ask(asker, asked);
                }
                for &source in sources {
                    self.copy(asker, source);
                }
            }
        }
    }

    fn ask(&self, asker: usize, asked: usize) {
        let asked_at = self.at(asker).isolations();
        let status = self.at(asked).status_for(self.at(asker).me());
        let history = self.at(asked).history();
        self.change(asker, |rebalance| {
            rebalance.on_status(Some(asked_at), status, history);
        });
    }

    fn copy(&self, node: usize, source: usize) {
        let pulls = self.at(node).pulls();
        for (from, pull) in pulls
            .into_iter()
            .filter(|(from, _)| from == self.at(source).me())
        {
            let attempt_id = self.at(node).attempt_id();
            let Some(filter) = self.at(source).transfer_filter(&pull) else {
                continue;
            };
            let page = self.nodes[source].1.page(
                &pull.cursor,
                usize::MAX,
                usize::MAX,
                |points| filter.may_include_points(points),
                |key: Key<'_>| filter.includes(key),
            );
            for (key, entry) in page.entries {
                self.nodes[node].1.apply(Key::new(&key), entry);
            }
            self.change(node, |rebalance| {
                rebalance.pulled(attempt_id, &from, page.next);
            });
        }
    }
}
