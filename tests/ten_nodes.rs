//! Do ten nodes that one process runs with the library form one network?

mod common;

use std::thread::{self, JoinHandle};

use common::{SOON, eventually};
use thrifty_p2p::endpoint::BindOptions;
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{PlainLocator, serve};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    LocatorSyncClient, LocatorSyncProcessor, TBaseSyncClient, TLocatorSyncClient,
};
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::call;

type ServeThread = JoinHandle<Result<(), Error>>;

/// Starts a node that joins `peer` or, without a peer, starts a new network: it is its own peer.
fn start(peer: Option<&Location>) -> (Node, ServeThread) {
    let node = Node::bind(&BindOptions::at(0..=0), "ten.Nodes").unwrap();
    let peer = peer.unwrap_or(node.location()).clone();
    let handler = PlainLocator { node: node.clone() };
    (
        node,
        thread::spawn(move || serve(handler, LocatorSyncProcessor::new, &[peer])),
    )
}

/// The owner of `key`, as `node` replies.
fn owner_by(node: &Node, key: &str) -> Location {
    let owner = call(LocatorSyncClient::new, node.location(), |c| {
        c.get_node(key.into())
    })
    .unwrap();
    Location::try_from(&owner).unwrap()
}

#[test]
fn ten_nodes_agree_on_the_owner_of_every_key_as_nodes_come_and_go() {
    let first = start(None);
    let mut nodes = vec![first];
    for _ in 1..10 {
        // The peer of each is the node before it.
        nodes.push(start(Some(nodes.last().unwrap().0.location())));
    }
    eventually("all ten have all ten on their rings", SOON, || {
        nodes.iter().all(|(node, _)| node.ring().len() == 10)
    });
    let keys: Vec<String> = (0..50).map(|number| format!("key{number}")).collect();
    for key in &keys {
        let owner = owner_by(&nodes[0].0, key);
        assert!(
            nodes.iter().all(|(node, _)| owner_by(node, key) == owner),
            "{key}"
        );
        assert_eq!(
            nodes[3].0.ring().owner(key.as_bytes()),
            Some(&owner),
            "{key}"
        );
    }

    let before: Vec<Location> = keys.iter().map(|key| owner_by(&nodes[0].0, key)).collect();
    let (leaver, serving) = nodes.swap_remove(4);
    call(LocatorSyncClient::new, leaver.location(), |c| c.die()).unwrap();
    serving.join().unwrap().unwrap();
    eventually("all nine have removed it", SOON, || {
        nodes.iter().all(|(node, _)| node.ring().len() == 9)
    });
    for (key, before) in keys.iter().zip(before) {
        let after = owner_by(&nodes[0].0, key);
        assert!(
            after == before || before == *leaver.location(),
            "{key} moved without need"
        );
    }

    for (node, _) in &nodes {
        node.endpoint().shutdown().request();
    }
    for (_, serving) in nodes {
        serving.join().unwrap().unwrap();
    }
}
