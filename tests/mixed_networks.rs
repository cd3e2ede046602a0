//! Do nodes of the original and ours make one network?
//!
//! The stand-in for a node of the original keeps to what limits it: one thread, one
//! connection at a time served to its end, no method that came later, oneway calls
//! sent as ordinary ones, changes passed on in a chain. As a store it has a dictionary
//! and nothing else. An idle connection that is
//! kept to it shuts everybody else out, so these tests fail if ours ever keeps one.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::network::{ring_of, spawn_beside, start_alone, tell, told_by};
use common::{NodeProcess, SOON, eventually, run};
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier,
    TMessageIdentifier, TMessageType, TOutputProtocol, TSerializable, TStoredInputProtocol,
    TStructIdentifier, TType,
};
use thrift::server::TProcessor;
use thrift::{ApplicationError, ApplicationErrorKind};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::diststore::{
    self, StoreSyncClient, StoreSyncHandler, StoreSyncProcessor, TStoreSyncClient,
};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, BaseSyncHandler, LocatorSyncHandler};
use thrifty_p2p::rpc::dialer::call;

/// How long a program may take over one key of a network at rest.
const PROMPT: Duration = Duration::from_secs(5);

/// The lines of descent of the original's two kinds of node.
const LOCATOR: &[&str] = &["locator.Base", "locator.Locator"];
const STORE: &[&str] = &["locator.Base", "locator.Locator", "diststore.Store"];

/// What the original serves; the last two as a store alone.
const METHODS: [&str; 12] = [
    "ping",
    "service_type",
    "service_types",
    "debug",
    "die",
    "join",
    "remove",
    "add",
    "get_all",
    "get_node",
    "get",
    "put",
];

/// A node of the original; dies when dropped.
struct Original {
    location: Location,
    handler: Handler,
    dead: Arc<AtomicBool>,
}

impl Original {
    /// Starts a locator that joins the network of `peer`, or begins one.
    fn start(peer: Option<&Location>) -> Original {
        Original::start_as(LOCATOR, peer)
    }

    /// Starts a store that joins the network of `peer`, or begins one.
    fn start_store(peer: Option<&Location>) -> Original {
        Original::start_as(STORE, peer)
    }

    fn start_as(service_chain: &'static [&'static str], peer: Option<&Location>) -> Original {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let mut ring = BTreeSet::from([location.clone()]);
        if let Some(peer) = peer {
            ring.extend(ring_of(peer).unwrap());
            say("join", peer, &location, None).unwrap();
        }
        let handler = Handler {
            service_chain,
            here: location.clone(),
            ring: Arc::new(Mutex::new(ring)),
            hidden: Arc::default(),
            values: Arc::default(),
        };
        let dead = Arc::new(AtomicBool::new(false));
        let (server, ended) = (handler.clone(), dead.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Relaxed) {
                    return;
                }
                // A connection that breaks off costs nothing but itself.
                let _ = server.converse(&stream.unwrap());
            }
        });
        Original {
            location,
            handler,
            dead,
        }
    }

    /// Ends as ctrl-C ends the original: it tells the others first.
    fn leave(self) {
        let here = self.location.clone();
        self.handler.forget(here, Vec::new());
    }

    /// What its own dictionary has for a key.
    fn value_of(&self, key: &str) -> Option<Vec<u8>> {
        let values = self.handler.values.lock().unwrap();
        values.get(key.as_bytes()).cloned()
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.dead.store(true, Relaxed);
        // An accept wakes up for a connection only.
        let _ = TcpStream::connect(self.location.name());
    }
}

#[derive(Clone)]
struct Handler {
    service_chain: &'static [&'static str],
    here: Location,
    ring: Arc<Mutex<BTreeSet<Location>>>,
    /// A member of which it says nothing, whatever it is told.
    hidden: Arc<Mutex<Option<Location>>>,
    /// What was put here: a store's dictionary.
    values: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl Handler {
    fn converse(&self, stream: &TcpStream) -> thrift::Result<()> {
        let processor = StoreSyncProcessor::new(self.clone());
        let mut input = TBinaryInputProtocol::new(BufReader::new(stream), false);
        let mut output = TBinaryOutputProtocol::new(BufWriter::new(stream), true);
        loop {
            let head = input.read_message_begin()?;
            if self.methods().contains(&head.name.as_str()) {
                let mut stored = TStoredInputProtocol::new(&mut input, head);
                processor.process(&mut stored, &mut output)?;
            } else {
                input.skip(TType::Struct)?;
                refuse(head, &mut output)?;
            }
        }
    }

    fn methods(&self) -> &[&str] {
        let of_a_store = if self.service_chain == STORE { 0 } else { 2 };
        &METHODS[..METHODS.len() - of_a_store]
    }

    fn learn(&self, location: Location, mut authorities: Vec<Location>) {
        self.ring.lock().unwrap().insert(location.clone());
        authorities.push(self.here.clone());
        self.pass_on("add", &location, authorities);
    }

    fn forget(&self, location: Location, mut authorities: Vec<Location>) {
        self.ring.lock().unwrap().remove(&location);
        authorities.push(self.here.clone());
        self.pass_on("remove", &location, authorities);
    }

    /// Tells the first who does not know; whoever cannot be told is dropped, here alone.
    fn pass_on(&self, method: &str, location: &Location, authorities: Vec<Location>) {
        loop {
            let ring = self.ring.lock().unwrap().clone();
            let Some(next) = ring.iter().find(|node| !authorities.contains(node)) else {
                return;
            };
            if say(method, next, location, Some(&authorities)).is_ok() {
                return;
            }
            self.ring.lock().unwrap().remove(next);
        }
    }
}

impl BaseSyncHandler for Handler {
    fn handle_ping(&self) -> thrift::Result<()> {
        Ok(())
    }

    fn handle_service_type(&self) -> thrift::Result<String> {
        Ok(self.service_chain[self.service_chain.len() - 1].to_owned())
    }

    fn handle_service_types(&self) -> thrift::Result<Vec<String>> {
        Ok(self.service_chain.iter().map(ToString::to_string).collect())
    }

    fn handle_debug(&self) -> thrift::Result<()> {
        Ok(())
    }

    fn handle_die(&self) -> thrift::Result<()> {
        Ok(())
    }
}

impl LocatorSyncHandler for Handler {
    fn handle_join(&self, location: locator::Location) -> thrift::Result<()> {
        let location = Location::try_from(&location).unwrap();
        self.learn(location.clone(), vec![location]);
        Ok(())
    }

    fn handle_remove(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        self.forget((&location).try_into().unwrap(), read(&authorities));
        Ok(())
    }

    fn handle_add(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        self.learn((&location).try_into().unwrap(), read(&authorities));
        Ok(())
    }

    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        let hidden = self.hidden.lock().unwrap().clone();
        let ring = self.ring.lock().unwrap();
        let told = ring.iter().filter(|node| Some(*node) != hidden.as_ref());
        Ok(told.map(Into::into).collect())
    }

    fn handle_get_node(&self, _key: Vec<u8>) -> thrift::Result<locator::Location> {
        Err("no test asks a stand-in for a key's node".into())
    }

    fn handle_exchange(&self, _gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        unreachable!("not one of the original's methods")
    }

    fn handle_members(&self) -> thrift::Result<locator::Gossip> {
        unreachable!("not one of the original's methods")
    }

    fn handle_ping_req(&self, _location: locator::Location) -> thrift::Result<bool> {
        unreachable!("not one of the original's methods")
    }
}

/// A store that looks no further than its own dictionary: no test asks it for more.
impl StoreSyncHandler for Handler {
    fn handle_get(&self, key: Vec<u8>) -> thrift::Result<Vec<u8>> {
        let values = self.values.lock().unwrap();
        Ok(values.get(&key).cloned().unwrap_or_default())
    }

    fn handle_put(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<()> {
        self.values.lock().unwrap().insert(key, value);
        Ok(())
    }

    fn handle_write(&self, _key: Vec<u8>, _value: Vec<u8>) -> thrift::Result<i64> {
        unreachable!("not one of the original's methods")
    }

    fn handle_fetch(&self, _key: Vec<u8>) -> thrift::Result<diststore::ReadResult> {
        unreachable!("not one of the original's methods")
    }

    fn handle_unset(&self, _key: Vec<u8>) -> thrift::Result<bool> {
        unreachable!("not one of the original's methods")
    }

    fn handle_write_many(
        &self,
        _pairs: Vec<diststore::KeyValue>,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not one of the original's methods")
    }

    fn handle_fetch_many(&self, _keys: Vec<Vec<u8>>) -> thrift::Result<Vec<diststore::ReadResult>> {
        unreachable!("not one of the original's methods")
    }

    fn handle_topology(&self) -> thrift::Result<diststore::Topology> {
        unreachable!("not one of the original's methods")
    }

    fn handle_scan(
        &self,
        _view: i64,
        _cursor: diststore::Cursor,
    ) -> thrift::Result<diststore::Page> {
        unreachable!("not one of the original's methods")
    }

    fn handle_write_as_primary(
        &self,
        _pairs: Vec<diststore::KeyValue>,
        _started: i64,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not one of the original's methods")
    }

    fn handle_replicate(
        &self,
        _pairs: Vec<diststore::KeyValue>,
        _view: i64,
    ) -> thrift::Result<diststore::Kept> {
        unreachable!("not one of the original's methods")
    }

    fn handle_fetch_as_owner(
        &self,
        _keys: Vec<Vec<u8>>,
        _view: i64,
    ) -> thrift::Result<Vec<diststore::ReadResult>> {
        unreachable!("not one of the original's methods")
    }

    fn handle_rebalance_status(
        &self,
        _word: diststore::Word,
        _wants_history: bool,
    ) -> thrift::Result<diststore::Told> {
        unreachable!("not one of the original's methods")
    }

    fn handle_pull(&self, _pull: diststore::Pull) -> thrift::Result<diststore::Page> {
        unreachable!("not one of the original's methods")
    }

    fn handle_stats(&self, _: bool) -> thrift::Result<diststore::NodeStats> {
        unreachable!("not one of the original's methods")
    }
}

fn read(authorities: &[locator::Location]) -> Vec<Location> {
    let read = authorities.iter().map(Location::try_from);
    read.map(Result::unwrap).collect()
}

/// Answers a method that came after the original.
fn refuse(head: TMessageIdentifier, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
    let error = ApplicationError::new(ApplicationErrorKind::UnknownMethod, "unknown method");
    output.write_message_begin(&TMessageIdentifier::new(
        head.name,
        TMessageType::Exception,
        head.sequence_number,
    ))?;
    thrift::Error::write_application_error_to_out_protocol(&error, output)?;
    output.write_message_end()?;
    output.flush()
}

/// Makes a oneway call as the original's stubs do: typed as one that is answered,
/// waiting for no answer, on a connection of its own.
fn say(
    method: &str,
    peer: &Location,
    location: &Location,
    authorities: Option<&[Location]>,
) -> thrift::Result<()> {
    let mut message = Vec::new();
    let mut output = TBinaryOutputProtocol::new(&mut message, true);
    let head = TMessageIdentifier::new(method, TMessageType::Call, 0);
    output.write_message_begin(&head)?;
    output.write_struct_begin(&TStructIdentifier::new("arguments"))?;
    output.write_field_begin(&TFieldIdentifier::new("location", TType::Struct, 1))?;
    locator::Location::from(location).write_to_out_protocol(&mut output)?;
    if let Some(authorities) = authorities {
        output.write_field_begin(&TFieldIdentifier::new("authorities", TType::List, 2))?;
        let size = authorities.len() as i32;
        output.write_list_begin(&TListIdentifier::new(TType::Struct, size))?;
        for authority in authorities {
            locator::Location::from(authority).write_to_out_protocol(&mut output)?;
        }
    }
    output.write_field_stop()?;
    let mut stream = TcpStream::connect(peer.name())?;
    Ok(stream.write_all(&message)?)
}

/// Waits until the rings of all are these, and no one else is on any.
fn all_see_each_other(ours: &[&NodeProcess], originals: &[&Original]) {
    let ours = ours.iter().map(|node| &node.location);
    let theirs = originals.iter().map(|original| &original.location);
    let all: BTreeSet<Location> = ours.chain(theirs).cloned().collect();
    let began = Instant::now();
    for location in &all {
        let left = SOON.saturating_sub(began.elapsed());
        let sees_all = || ring_of(location).is_ok_and(|ring| ring == all);
        eventually(&format!("{location} sees {all:?}"), left, sees_all);
    }
    tell(
        &format!("{} see each other", all.len()),
        began.elapsed(),
        SOON,
    );
}

fn have_one_view(ours: &[&NodeProcess]) {
    eventually("the views of all are one", SOON, || {
        let views: BTreeSet<_> = ours
            .iter()
            .map(|node| told_by(&node.location).unwrap().view)
            .collect();
        views.len() == 1
    });
}

fn start_beside(peer: &Location) -> NodeProcess {
    NodeProcess::start("location", &["--host", peer.name()])
}

#[test]
fn each_kind_joins_through_the_other_and_all_see_all() {
    let a = start_alone();
    let o = Original::start(Some(&a.location));
    all_see_each_other(&[&a], &[&o]);
    let b = start_beside(&o.location);
    let p = Original::start(Some(&o.location));
    let c = start_beside(&b.location);
    let q = Original::start(Some(&c.location));
    all_see_each_other(&[&a, &b, &c], &[&o, &p, &q]);
    have_one_view(&[&a, &b, &c]);
}

#[test]
fn ours_join_a_network_that_was_only_of_originals() {
    let o = Original::start(None);
    let p = Original::start(Some(&o.location));
    let q = Original::start(Some(&p.location));
    let a = start_beside(&q.location);
    let b = start_beside(&o.location);
    all_see_each_other(&[&a, &b], &[&o, &p, &q]);
    have_one_view(&[&a, &b]);
}

#[test]
fn the_dead_of_either_kind_are_dropped_by_both() {
    let a = start_alone();
    let o = Original::start(Some(&a.location));
    let mut b = start_beside(&o.location);
    let p = Original::start(Some(&b.location));
    let c = start_beside(&a.location);
    all_see_each_other(&[&a, &b, &c], &[&o, &p]);
    drop(p);
    all_see_each_other(&[&a, &b, &c], &[&o]);
    b.kill();
    all_see_each_other(&[&a, &c], &[&o]);
    have_one_view(&[&a, &c]);
}

#[test]
fn those_of_either_kind_that_leave_are_dropped_by_both() {
    let a = start_alone();
    let o = Original::start(Some(&a.location));
    let mut b = start_beside(&o.location);
    let p = Original::start(Some(&b.location));
    let c = start_beside(&p.location);
    all_see_each_other(&[&a, &b, &c], &[&o, &p]);
    p.leave();
    all_see_each_other(&[&a, &b, &c], &[&o]);
    assert!(b.interrupt().success());
    all_see_each_other(&[&a, &c], &[&o]);
    have_one_view(&[&a, &c]);
}

#[test]
fn two_of_ours_that_join_at_once_beside_an_original_end_in_one_view() {
    let a = start_alone();
    let o = Original::start(Some(&a.location));
    all_see_each_other(&[&a], &[&o]);
    let mut ours = vec![a];
    for round in 0..4 {
        let through_original = || {
            let peer = o.location.name();
            NodeProcess::spawn("location", &["--port", "0", "--host", peer])
        };
        let mut pair = if round % 2 == 0 {
            [through_original(), through_original()]
        } else {
            [through_original(), spawn_beside(&ours[0])]
        };
        pair.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        ours.extend(pair);
        let ours: Vec<&NodeProcess> = ours.iter().collect();
        all_see_each_other(&ours, &[&o]);
        have_one_view(&ours);
    }
}

#[test]
fn locationstatus_names_an_original_that_sees_other_members_than_ours() {
    let a = start_alone();
    let o = Original::start(Some(&a.location));
    let b = start_beside(&a.location);
    all_see_each_other(&[&a, &b], &[&o]);
    *o.handler.hidden.lock().unwrap() = Some(b.location.clone());
    let status = |peer: &str| {
        let output = run("locationstatus", &["-h", peer]);
        let table = String::from_utf8(output.stdout).unwrap();
        let last = table.lines().last().unwrap_or("nothing").to_owned();
        (output.status.code(), last)
    };
    let disagree = format!("3 members, 1 disagree: {}", o.location);
    assert_eq!(status(a.at()), (Some(1), disagree));
    *o.handler.hidden.lock().unwrap() = None;
    let agree = "3 members, all agree".to_owned();
    assert_eq!(status(o.location.name()), (Some(0), agree));
}

/// Starts a store of ours that joins through `peer`, and waits until all see all.
fn join_store(peer: &Location, ours: &[&NodeProcess], originals: &[&Original]) -> NodeProcess {
    let node = NodeProcess::start("storeserver", &["--host", peer.name()]);
    all_see_each_other(&[ours, &[&node]].concat(), originals);
    node
}

/// Keys with their values.
fn some_pairs() -> Vec<(String, String)> {
    let pair = |i| (format!("key {i}"), format!("value {i}"));
    (0..24).map(pair).collect()
}

/// Puts every pair by the program, through each of `ours` in turn.
fn put_through(ours: &[&NodeProcess], pairs: &[(String, String)]) {
    for ((key, value), node) in pairs.iter().zip(ours.iter().cycle()) {
        let began = Instant::now();
        let put = run("storeput", &["-h", node.at(), key, value]);
        let told = String::from_utf8_lossy(&put.stderr);
        assert!(put.status.success(), "{key} through {}: {told}", node.at());
        let time = began.elapsed();
        assert!(time < PROMPT, "{time:?} to put {key} through {}", node.at());
    }
}

/// Is every pair found by the program, through each of `ours`, without delay?
fn are_found_through(ours: &[&NodeProcess], pairs: &[(String, String)]) {
    let mut slowest = Duration::ZERO;
    for node in ours {
        for (key, value) in pairs {
            let began = Instant::now();
            let got = run("storeget", &["-h", node.at(), key]);
            let found = String::from_utf8_lossy(&got.stdout);
            assert_eq!(found.trim_end(), value, "{key} through {}", node.at());
            slowest = slowest.max(began.elapsed());
        }
    }
    tell("the slowest storeget", slowest, PROMPT);
    assert!(slowest < PROMPT, "{slowest:?} to get a key");
}

/// The pairs that belong to `original` by the ring of `node`.
fn of_original<'a>(
    original: &Original,
    node: &NodeProcess,
    pairs: &'a [(String, String)],
) -> Vec<&'a (String, String)> {
    let client = StoreClient::new(node.location.clone());
    let owner = |key: &str| client.owner(key.as_bytes()).unwrap();
    let its = pairs
        .iter()
        .filter(|(key, _)| owner(key) == original.location);
    let its: Vec<_> = its.collect();
    assert!(!its.is_empty(), "no key belongs to {}", original.location);
    its
}

/// Waits until the original has what belongs to it in its own dictionary.
fn are_put_to(original: &Original, node: &NodeProcess, pairs: &[(String, String)]) {
    for (key, value) in of_original(original, node, pairs) {
        eventually(&format!("the original has {key}"), SOON, || {
            original.value_of(key).as_deref() == Some(value.as_bytes())
        });
    }
}

#[test]
fn stores_that_join_an_original_store_share_its_keys_with_it() {
    let o = Original::start_store(None);
    let a = join_store(&o.location, &[], &[&o]);
    let b = join_store(&a.location, &[&a], &[&o]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    are_found_through(&[&a, &b], &pairs);
    are_put_to(&o, &a, &pairs);

    // What its own clients put there is read through ours.
    let (key, _) = of_original(&o, &b, &pairs)[0];
    call(StoreSyncClient::new, &o.location, |original| {
        original.put(key.clone().into_bytes(), b"from elsewhere".to_vec())
    })
    .unwrap();
    eventually("the original has its own client's value", SOON, || {
        o.value_of(key).as_deref() == Some(b"from elsewhere")
    });
    let theirs = [(key.clone(), "from elsewhere".to_owned())];
    are_found_through(&[&a, &b], &theirs);

    // What is deleted through ours is not found there either.
    assert!(run("storedel", &["-h", a.at(), key]).status.success());
    eventually("the original has nothing for the key", SOON, || {
        o.value_of(key).is_none_or(|value| value.is_empty())
    });
    assert_eq!(run("storeget", &["-h", b.at(), key]).status.code(), Some(1));
}

#[test]
fn an_original_store_that_joins_later_is_put_what_belongs_to_it() {
    let a = NodeProcess::start_alone("storeserver");
    let b = join_store(&a.location, &[&a], &[]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    let o = Original::start_store(Some(&b.location));
    all_see_each_other(&[&a, &b], &[&o]);
    are_put_to(&o, &a, &pairs);
    are_found_through(&[&a, &b], &pairs);
}

#[test]
fn what_was_put_through_ours_outlives_the_original_that_it_belongs_to() {
    let o = Original::start_store(None);
    let a = join_store(&o.location, &[], &[&o]);
    let b = join_store(&o.location, &[&a], &[&o]);
    let pairs = some_pairs();
    put_through(&[&a, &b], &pairs);
    are_put_to(&o, &a, &pairs);
    drop(o);
    are_found_through(&[&a, &b], &pairs);
    all_see_each_other(&[&a, &b], &[]);
    are_found_through(&[&a, &b], &pairs);
}

#[test]
fn a_client_that_knows_the_ring_leaves_a_mixed_network_to_its_nodes() {
    let o = Original::start_store(None);
    let a = join_store(&o.location, &[], &[&o]);
    let b = join_store(&a.location, &[&a], &[&o]);
    let client = RingClient::connect(&b.location).unwrap();
    eventually("it is left to a node to find owners", SOON, || {
        client.primary(b"any").is_none()
    });
    let pairs = some_pairs();
    for (key, value) in &pairs {
        client.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    are_put_to(&o, &a, &pairs);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    let found = client.get_many(&keys).unwrap().into_iter().flatten();
    assert!(found.eq(pairs.iter().map(|(_, value)| value.clone().into_bytes())));

    drop(o);
    all_see_each_other(&[&a, &b], &[]);
    eventually("the client calls primaries", SOON, || {
        client.primary(b"key 1").is_some()
    });
    assert_eq!(client.get(b"key 1").unwrap(), Some(b"value 1".to_vec()));
}
