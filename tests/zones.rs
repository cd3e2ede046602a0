//! Tags of nodes: are they seen everywhere, are bad ones refused, and does a store spread the copies of
//! a key over zones so that it outlasts the end of a whole one?

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::http::{HTTP, get_json, http_of};
use common::load::{
    READ_STALL, WRITE_STALL, check_stalls, finish, machine, rounds, run_for_a_while, start_load,
};
use common::network::free_port;
use common::stores::{Stores, settle};
use common::{NodeProcess, SOON, ended, eventually, run};
use serde_json::{Value, json};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::HeldCopy;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, serve};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::LocatorSyncProcessor;
use thrifty_p2p::membership::{Change, Tags};
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::status::key::KeyStatus;

/// Would run a script if it were taken for HTML.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

fn json_of(program: &str, node: &NodeProcess) -> Value {
    let printed = run(program, &["-h", node.at(), "--json"]).stdout;
    serde_json::from_slice(&printed).unwrap()
}

/// The tags of each node in the list of that name.
fn tags_in(status: &Value, list: &str) -> BTreeMap<String, Value> {
    let nodes = status[list].as_array().unwrap().iter();
    let name = |node: &Value| node["location"].as_str().unwrap().to_owned();
    nodes
        .map(|node| (name(node), node["tags"].clone()))
        .collect()
}

#[test]
fn every_status_shows_the_tags_of_all_nodes() {
    let hostile = format!("note={HOSTILE}");
    let tags = ["--tag", "zone=b1", "--tag", &hostile];
    let first = NodeProcess::start(
        "storeserver",
        &[&["--bootstrap"], &tags[..], &HTTP].concat(),
    );
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    let expected = BTreeMap::from([
        (
            first.at().to_owned(),
            json!({ "zone": "b1", "note": HOSTILE }),
        ),
        (second.at().to_owned(), json!({})),
    ]);
    eventually("both know both", SOON, || {
        tags_in(&json_of("locationstatus", &second), "members") == expected
            && tags_in(&json_of("storestatus", &second), "nodes") == expected
    });
    for program in ["locationstatus", "storestatus"] {
        let table = String::from_utf8(run(program, &["-h", second.at()]).stdout).unwrap();
        let mut lines = table.lines();
        assert!(lines.next().unwrap().ends_with("TAGS"), "{table}");
        let line = lines.find(|line| line.starts_with(first.at())).unwrap();
        assert!(
            line.ends_with(&format!("  note={HOSTILE}, zone=b1")),
            "{table}"
        );
    }
    let shown: Value = get_json(&http_of(&first), "/status.json");
    assert_eq!(tags_in(&shown, "nodes"), expected);
    assert_eq!(tags_in(&shown["here"], "members"), expected);
}

#[test]
fn bad_tags_are_refused_at_the_start_with_a_sentence() {
    let long = format!("a={}", "x".repeat(4096));
    for program in ["location", "storeserver"] {
        for (tags, part) in [
            (["zone"].as_slice(), "write NAME=VALUE"),
            (&["=b1"], "no name of a tag"),
            (&["zone=b\u{7}1"], "control characters"),
            (&["zone=b1", "zone=b2"], "given twice"),
            (&[&long], "at most 4096"),
        ] {
            let mut arguments = vec!["--port", "0", "--bootstrap"];
            tags.iter().for_each(|tag| arguments.extend(["--tag", tag]));
            let (status, stderr) = ended(&run(program, &arguments));
            assert_eq!(status, Some(2), "{stderr}");
            assert!(stderr.contains(part), "{stderr}");
        }
    }
}

/// A service of one's own that keeps the changes of its ring.
#[derive(Clone)]
struct Watcher {
    node: Node,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl BaseHandler for Watcher {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        vec!["locator.Base".into(), "locator.Locator".into()]
    }
}

impl LocatorHandler for Watcher {
    fn node(&self) -> &Node {
        &self.node
    }

    fn ring_changed(&self, changes: &[Change]) {
        self.changes.lock().unwrap().extend_from_slice(changes);
    }
}

/// Starts a service with this tag. Without a peer it is the first of its network.
fn start(tag: &str, peer: Option<&Location>) -> (Watcher, thread::JoinHandle<()>) {
    let options = BindOptions {
        advertise: Some([127, 0, 0, 1].into()),
        tags: Tags::parse(&[tag.to_owned()]).unwrap(),
        ..BindOptions::at(0..=0)
    };
    let node = Node::bind(&options, "locator.Locator").unwrap();
    let watcher = Watcher {
        changes: Arc::default(),
        node,
    };
    let peer = peer.unwrap_or(watcher.node.location()).clone();
    let served = watcher.clone();
    let thread = thread::spawn(move || serve(served, LocatorSyncProcessor::new, &[peer]).unwrap());
    eventually("it has joined", SOON, || watcher.node.has_joined());
    (watcher, thread)
}

#[test]
fn a_service_of_ones_own_has_tags_and_learns_those_of_others_with_the_ring() {
    let (first, first_thread) = start("rack=7", None);
    let (second, second_thread) = start("rack=8", Some(first.node.location()));
    let rack = |rack: &str| Tags::parse(&[format!("rack={rack}")]).unwrap();
    let changes_of = |watcher: &Watcher, other: &Watcher| -> Vec<Tags> {
        let changes = watcher.changes.lock().unwrap().clone();
        let of = changes
            .into_iter()
            .filter(|change| change.location == *other.node.location());
        of.map(|change| change.tags).collect()
    };
    eventually("the first one is told", SOON, || {
        changes_of(&first, &second) == [rack("8")]
    });
    let members = second.node.members();
    let tags: Vec<Tags> = members.into_iter().map(|member| member.tags).collect();
    assert!(tags.contains(&rack("7")) && tags.contains(&rack("8")));
    second.node.endpoint().shutdown().request();
    second_thread.join().unwrap();
    eventually("the first one sees the end", SOON, || {
        changes_of(&first, &second) == [rack("8"), rack("8")]
    });
    first.node.endpoint().shutdown().request();
    first_thread.join().unwrap();
}

fn verdict(node: &NodeProcess) -> (Option<i32>, String) {
    let output = run("storestatus", &["-h", node.at()]);
    let printed = String::from_utf8(output.stdout).unwrap();
    (
        output.status.code(),
        printed.lines().last().unwrap().to_owned(),
    )
}

#[test]
fn the_verdict_says_over_how_many_zones_the_copies_are_spread() {
    let mut stores = Stores::start_in_zones(2, Some(1), &["--replicas", "3"]);
    let last = |stores: &Stores| verdict(&stores.nodes[0]);
    assert_eq!(
        last(&stores),
        (Some(1), "settled, but 2 of 3 copies in 1 zone".into())
    );
    for (zone, expected) in [
        (Some(1), "settled, 3 copies in 2 zones"),
        (Some(2), "settled, 3 copies in 3 zones"),
        (None, "settled, 3 copies; 1 of the nodes without a zone"),
    ] {
        let node = stores.spawn_in(zone, "0", stores.nodes[0].at());
        stores.admit(node);
        stores.settle();
        assert_eq!(last(&stores), (Some(0), expected.into()));
    }
    assert_eq!(
        json_of("storestatus", &stores.nodes[0])["zones"],
        json!(null)
    );
}

/// The zones of the nodes that hold a key.
fn zones_of(stores: &Stores, zones: &BTreeMap<Location, usize>, key: &str) -> Vec<usize> {
    let peer = &stores.nodes[0].location;
    let status = KeyStatus::ask(&Dialer::default(), peer, key.as_bytes()).unwrap();
    let has_value = |held: &HeldCopy| held.bytes.is_some();
    let holders = status.copies.iter();
    let holders = holders.filter(|copy| copy.held.as_ref().is_some_and(has_value));
    holders.map(|copy| zones[&copy.location]).collect()
}

#[test]
fn a_whole_zone_that_is_killed_at_once_loses_no_acknowledged_write() {
    const ZONES: usize = 3;
    let _machine = machine();
    let mut stores = Stores::start_in_zones(2 * ZONES, Some(ZONES), &["--replicas", "3"]);
    let mut zones: BTreeMap<Location, usize> = BTreeMap::new();
    for (index, node) in stores.nodes.iter().enumerate() {
        zones.insert(node.location.clone(), index % ZONES);
    }
    let client = &stores.clients()[0];
    let keys: Vec<String> = (0..100).map(|number| format!("spread {number}")).collect();
    for key in &keys {
        client.put(key.as_bytes(), b"value").unwrap();
    }
    let load = start_load(&stores, 4);
    for round in 0..rounds(3, 50) {
        eventually("each key has a copy in each zone", SOON, || {
            keys.iter().all(|key| {
                let mut found = zones_of(&stores, &zones, key);
                found.sort_unstable();
                found == [0, 1, 2]
            })
        });
        run_for_a_while(&load);
        load.reset_stalls();
        let zone = round % ZONES;
        let nodes = std::mem::take(&mut stores.nodes);
        let (killed, left): (Vec<_>, Vec<_>) = nodes
            .into_iter()
            .partition(|node| zones[&node.location] == zone);
        stores.nodes = left;
        assert_eq!(killed.len(), 2);
        let (killed, between) = stores.kill_all(killed);
        assert!(
            between < Duration::from_millis(10),
            "{between:?} between two kills"
        );
        stores.settle();
        run_for_a_while(&load);
        let what = format!("zone {zone} killed");
        check_stalls(&what, &load, READ_STALL, 2 * WRITE_STALL);
        let said = verdict(&stores.nodes[0]);
        assert_eq!(said, (Some(0), "settled, 3 copies in 2 zones".into()));
        for node in &killed {
            let port = node.location.port().to_string();
            let again = stores.spawn_in(Some(zone), &port, stores.nodes[0].at());
            stores.admit(again);
        }
        stores.settle();
    }
    finish("zones killed", load, &stores);
}

#[test]
fn nodes_that_are_all_started_again_in_other_zones_have_all_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..6).map(|_| free_port().to_string()).collect();
    let start = |index: usize, zone: usize, options: &[&str]| {
        let data = directory.path().join(index.to_string());
        let (data, tag) = (data.to_str().unwrap(), format!("zone=b{zone}"));
        let own = ["--port", &ports[index], "--data", data, "--tag", &tag];
        NodeProcess::spawn(
            "storeserver",
            &[&["--advertise=127.0.0.1"], &own[..], options].concat(),
        )
    };
    let wait = |nodes: &mut Vec<NodeProcess>| {
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        settle(&*nodes);
    };
    let first = format!("127.0.0.1:{}", ports[0]);
    let mut nodes = vec![start(0, 0, &["--bootstrap"])];
    nodes[0].wait_until_it_serves();
    nodes.extend((1..6).map(|index| start(index, index % 3, &["--host", &first])));
    wait(&mut nodes);
    let client = StoreClient::new(nodes[0].location.clone());
    for key in 0..200 {
        client
            .put(format!("key {key}").as_bytes(), b"value")
            .unwrap();
    }
    let state = std::fs::read_to_string(directory.path().join("4/node.json")).unwrap();
    assert!(
        state.contains("\"format\": 2") && state.contains("@edbab455\""),
        "{state}"
    );
    nodes.iter_mut().for_each(NodeProcess::send_kill);
    drop(nodes);
    let mut nodes: Vec<_> = (0..6)
        .map(|index| start(index, 7 + index % 2, &[]))
        .collect();
    wait(&mut nodes);
    assert_eq!(
        verdict(&nodes[5]),
        (Some(0), "settled, 3 copies in 2 zones".into())
    );
    for node in &nodes {
        let client = StoreClient::new(node.location.clone());
        for key in 0..200 {
            let found = client.get(format!("key {key}").as_bytes()).unwrap();
            assert_eq!(
                found.as_deref(),
                Some(&b"value"[..]),
                "key {key} at {}",
                node.at()
            );
        }
    }
}
