//! `Few`: a handful of nodes that are moved by hand, for what hardly happens by chance.

use std::cell::{RefCell, RefMut};

use thrifty_p2p::location::Location;
use thrifty_p2p::store::rebalance::{Rebalance, Rules, MemberSnapshot};
use thrifty_p2p::store::table::{Key, Table};
use thrifty_p2p::store::versions::Entry;
use thrifty_p2p::store::placement::NodeId;

/// Rounds of talk in which all settles that can.
const ROUNDS: usize = 12;

/// Some nodes and their tables, with one key.
pub struct Few {
    nodes: Vec<(RefCell<Rebalance>, Table)>,
}

fn peer(node: usize) -> NodeId {
    let location = Location::new("10.0.0.1", 9000 + node as u16);
    NodeId::new(location.expect("an address and a port"), 1)
}

impl Few {
    pub fn new(count: usize, replicas: usize, rules: Rules) -> Few {
        let moves = |node| RefCell::new(Rebalance::new(peer(node), Some(replicas), rules));
        Few {
            nodes: (0..count).map(|node| (moves(node), Table::new())).collect(),
        }
    }

    pub fn key() -> Key<'static> {
        Key::new(b"apple")
    }

    pub fn at(&self, node: usize) -> RefMut<'_, Rebalance> {
        self.nodes[node].0.borrow_mut()
    }

    /// Applies the write of the key.
    pub fn write(&self, node: usize) {
        let value = Some(b"red".to_vec().into());
        self.nodes[node]
            .1
            .apply(Few::key(), Entry { version: 1, value });
    }

    pub fn holds(&self, node: usize) -> bool {
        self.nodes[node].1.read(Few::key()).is_some()
    }

    /// Membership at `node` is this now.
    pub fn stand(&self, node: usize, live: &[usize], leaving: &[usize]) {
        self.at(node).stand(MemberSnapshot {
            me: peer(node),
            live: live.iter().copied().map(peer).collect(),
            leaving: leaving.iter().copied().map(peer).collect(),
        });
    }

    /// All of `nodes` tell one another how far they are, and copy what `sources` give.
    pub fn talk(&self, nodes: &[usize], sources: &[usize]) {
        for _ in 0..ROUNDS {
            for &asker in nodes {
                for &asked in nodes.iter().filter(|asked| **asked != asker) {
                    self.tell(asker, asked);
                }
                for &source in sources {
                    self.copy(asker, source);
                }
            }
        }
    }

    fn tell(&self, asker: usize, asked: usize) {
        let asking = self.at(asker).asking();
        let word = self.at(asked).word(&peer(asker));
        let history = self.at(asked).history();
        self.at(asker).hear(Some(asking), word, history);
    }

    fn copy(&self, node: usize, source: usize) {
        let pulls = self.at(node).pulls();
        for (from, pull) in pulls.into_iter().filter(|(from, _)| *from == peer(source)) {
            let attempt = self.at(node).attempt();
            let Some(offer) = self.at(source).offer(&pull) else {
                continue;
            };
            let table = &self.nodes[source].1;
            let (may_be, wanted) = (
                |points| offer.gives_among(points),
                |key: Key<'_>| offer.gives(key),
            );
            let page = table.page(&pull.cursor, usize::MAX, usize::MAX, may_be, wanted);
            for (key, entry) in page.entries {
                self.nodes[node].1.apply(Key::new(&key), entry);
            }
            self.at(node).pulled(attempt, &from, page.next);
        }
    }
}
