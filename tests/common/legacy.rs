//! `LegacyNode`: a stand-in for a node of the original, as awkward as the original.
//!
//! * One thread serves one connection to its end before it accepts the next. While it calls
//!   another node, it serves nobody, and no call has a timeout.
//! * It has only the original's methods. It answers any other with an application exception and
//!   keeps the connection open. If one of its own methods fails, it closes the connection.
//! * `join` adds the newcomer, then pings it until it replies. A change goes from node to node
//!   in a chain.
//! * A store waits 10 ms after an `add`, then sends each key that is now the newcomer's by a
//!   oneway `put` on a connection of its own, and deletes it at once. A `get` of a missing key
//!   creates an empty value. At SIGINT it puts each value to its new owner.
//!
//! A connection that is kept open to it locks out all other callers, so tests fail if our nodes
//! ever keep one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TInputProtocol, TStoredInputProtocol, TType,
};
use thrift::server::TProcessor;
use thrifty_p2p::diststore::{
    self, StoreSyncClient, StoreSyncHandler, StoreSyncProcessor, TStoreSyncClient,
};
use thrifty_p2p::hash_ring::HashRing;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, BaseSyncHandler, LocatorSyncHandler, TBaseSyncClient};

use super::legacy_messages::{send_oneway, send_unknown_method};
use super::network::{new_port, print_time, ring_of};
use super::{NodeProcess, SOON, eventually};

/// The service types of the original's two kinds of nodes.
const LOCATOR: &[&str] = &["locator.Base", "locator.Locator"];
const STORE: &[&str] = &["locator.Base", "locator.Locator", "diststore.Store"];

/// The methods of the original. Only a store has the last two.
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

/// The pause of the original after an `add`, and before it pings a joiner again.
const WAIT_PERIOD: Duration = Duration::from_millis(10);

/// How often the original pings a joiner.
const PINGS: u32 = 10;

/// A client on a connection of its own.
type Client =
    StoreSyncClient<TBinaryInputProtocol<BufReader<TcpStream>>, TBinaryOutputProtocol<TcpStream>>;

/// A legacy node: it behaves as a node of the original does. It is killed when dropped.
pub struct LegacyNode {
    pub location: Location,
    handler: Handler,
}

impl LegacyNode {
    /// Starts a locator that joins the network of `peer` or, without a peer, starts a new one.
    pub fn start(peer: Option<&Location>) -> LegacyNode {
        LegacyNode::start_as(LOCATOR, peer, new_port())
    }

    /// Starts a store that joins the network of `peer` or, without a peer, starts a new one.
    pub fn start_store(peer: Option<&Location>) -> LegacyNode {
        LegacyNode::start_as(STORE, peer, new_port())
    }

    /// Kills it, and starts another one at its location.
    pub fn restart(self, peer: Option<&Location>) -> LegacyNode {
        let (service_chain, port) = (self.handler.service_chain, self.location.port());
        drop(self);
        LegacyNode::start_as(service_chain, peer, port)
    }

    fn start_as(
        service_chain: &'static [&'static str],
        peer: Option<&Location>,
        port: u16,
    ) -> LegacyNode {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut listener = None;
        eventually("the port is free", SOON, || {
            listener = TcpListener::bind(address).ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let handler = Handler {
            service_chain,
            own: location.clone(),
            ring: Arc::new(Mutex::new(BTreeSet::from([location.clone()]))),
            hidden: Arc::default(),
            values: Arc::default(),
            state: Arc::default(),
        };
        if let Some(peer) = peer {
            let known = ring_of(peer).unwrap();
            handler.ring.lock().unwrap().extend(known);
            send_oneway("join", peer, &location, None).unwrap();
        }
        let server = handler.clone();
        thread::spawn(move || server.serve(&listener));
        LegacyNode { location, handler }
    }

    /// Stops as the original does at SIGINT: it answers nobody any more, but its port is open
    /// until it has put its keys to others.
    pub fn leave(self) {
        self.hang();
        self.handler.clean_up();
    }

    /// Stops it as SIGSTOP does: the system still accepts connections for it.
    pub fn hang(&self) {
        self.handler.state.is_hung.store(true, Relaxed);
    }

    /// Lets it continue, as SIGCONT does.
    pub fn resume(&self) {
        self.handler.state.is_hung.store(false, Relaxed);
    }

    /// Leaves one member out of its replies from now on, if one is given.
    pub fn hide(&self, member: Option<Location>) {
        *self.handler.hidden.lock().unwrap() = member;
    }

    /// The value of a key in its own dictionary.
    pub fn value_of(&self, key: &str) -> Option<Vec<u8>> {
        let values = self.handler.values.lock().unwrap();
        values.get(key.as_bytes()).cloned()
    }

    /// The nodes on its ring.
    pub fn ring(&self) -> BTreeSet<Location> {
        self.handler.ring.lock().unwrap().clone()
    }
}

impl Drop for LegacyNode {
    fn drop(&mut self) {
        self.handler.state.is_dead.store(true, Relaxed);
        // Its thread may wait for a connection, or for the rest of a call.
        if let Some(stream) = &*self.handler.state.connection.lock().unwrap() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = TcpStream::connect(self.location.name());
        eventually("the port of the legacy node is closed", SOON, || {
            TcpStream::connect(self.location.name()).is_err()
        });
    }
}

#[derive(Clone)]
struct Handler {
    service_chain: &'static [&'static str],
    own: Location,
    ring: Arc<Mutex<BTreeSet<Location>>>,
    /// A member that is left out of its replies.
    hidden: Arc<Mutex<Option<Location>>>,
    /// The dictionary of a store.
    values: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    state: Arc<State>,
}

/// What happens to the process.
#[derive(Default)]
struct State {
    is_dead: AtomicBool,
    is_hung: AtomicBool,
    /// The method that was called last has failed.
    has_failed: AtomicBool,
    /// The connection that is being served.
    connection: Mutex<Option<TcpStream>>,
}

/// The other node cannot be connected to: the original removes it.
struct NotFound;

impl Handler {
    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.must_end() {
                return;
            }
            let stream = stream.unwrap();
            *self.state.connection.lock().unwrap() = stream.try_clone().ok();
            // The next connection is served even if this one fails.
            let _ = self.serve_connection(&stream);
            self.state.connection.lock().unwrap().take();
            if self.must_end() {
                return;
            }
        }
    }

    fn serve_connection(&self, stream: &TcpStream) -> thrift::Result<()> {
        let processor = StoreSyncProcessor::new(self.clone());
        let mut input = TBinaryInputProtocol::new(BufReader::new(stream), false);
        loop {
            let head = input.read_message_begin()?;
            if self.must_end() {
                return Ok(());
            }
            let mut reply = Vec::new();
            let mut output = TBinaryOutputProtocol::new(&mut reply, true);
            if self.methods().contains(&head.name.as_str()) {
                let mut stored = TStoredInputProtocol::new(&mut input, head);
                processor.process(&mut stored, &mut output)?;
            } else {
                input.skip(TType::Struct)?;
                send_unknown_method(head, &mut output)?;
            }
            if self.must_end() || self.state.has_failed.swap(false, Relaxed) {
                return Ok(());
            }
            (&mut &*stream).write_all(&reply)?;
        }
    }

    /// Waits while the process is stopped. Then: has it ended meanwhile?
    fn must_end(&self) -> bool {
        let is = |state: &AtomicBool| state.load(Relaxed);
        while is(&self.state.is_hung) && !is(&self.state.is_dead) {
            thread::sleep(Duration::from_millis(1));
        }
        is(&self.state.is_dead)
    }

    fn methods(&self) -> &[&str] {
        let store_methods = if self.service_chain == STORE { 0 } else { 2 };
        &METHODS[..METHODS.len() - store_methods]
    }

    /// Calls another node on a connection of its own. There is no timeout.
    fn call<T>(
        &self,
        peer: &Location,
        body: impl FnOnce(&mut Client) -> thrift::Result<T>,
    ) -> Result<thrift::Result<T>, NotFound> {
        let stream = TcpStream::connect(peer.name()).map_err(|_| NotFound)?;
        let input = TBinaryInputProtocol::new(BufReader::new(stream.try_clone().unwrap()), false);
        let mut client = StoreSyncClient::new(input, TBinaryOutputProtocol::new(stream, true));
        Ok(body(&mut client))
    }

    fn owner(&self, key: &[u8]) -> Location {
        let ring = self.ring.lock().unwrap();
        let ring: HashRing<Location> = ring.iter().cloned().collect();
        ring.owner(key).unwrap_or(&self.own).clone()
    }

    fn learn(&self, location: &Location, mut authorities: Vec<Location>) {
        authorities.push(self.own.clone());
        self.forward("add", location, &authorities);
        self.ring.lock().unwrap().insert(location.clone());
        if self.service_chain == STORE {
            thread::sleep(WAIT_PERIOD);
            self.give(location);
        }
    }

    /// Gives a newcomer the keys that are its own now. Stops if it cannot be connected to.
    fn give(&self, newcomer: &Location) {
        let values = self.values.lock().unwrap().clone();
        for (key, value) in values {
            if self.owner(&key) != *newcomer || self.must_end() {
                continue;
            }
            let put = self.call(newcomer, |peer| peer.put(key.clone(), value));
            if put.is_err() {
                return;
            }
            self.values.lock().unwrap().remove(&key);
        }
    }

    fn forget(&self, location: &Location, mut authorities: Vec<Location>) {
        self.ring.lock().unwrap().remove(location);
        authorities.push(self.own.clone());
        self.forward("remove", location, &authorities);
    }

    /// Forwards a change to the first member that does not know it. A member that cannot be
    /// connected to is removed from the ring of this node only.
    fn forward(&self, method: &str, location: &Location, authorities: &[Location]) {
        let ring = self.ring();
        for next in ring.iter().filter(|node| !authorities.contains(node)) {
            if self.must_end() || send_oneway(method, next, location, Some(authorities)).is_ok() {
                return;
            }
            self.ring.lock().unwrap().remove(next);
        }
    }

    fn ring(&self) -> BTreeSet<Location> {
        self.ring.lock().unwrap().clone()
    }

    /// Tells each new owner of a key that this node leaves, and puts the key to it.
    fn clean_up(&self) {
        self.ring.lock().unwrap().remove(&self.own);
        let own = std::slice::from_ref(&self.own);
        let tell = |peer: &Location| send_oneway("remove", peer, &self.own, Some(own)).is_ok();
        let mut informed = BTreeSet::new();
        let mut values = self.values.lock().unwrap().clone();
        values.retain(|_, value| !value.is_empty() && !self.ring().is_empty());
        for (key, value) in values {
            let owner = self.owner(&key);
            if !informed.contains(&owner) && !tell(&owner) {
                continue;
            }
            if self.call(&owner, |peer| peer.ping()).is_ok() {
                let _ = self.call(&owner, |peer| peer.put(key, value));
                informed.insert(owner);
            }
        }
        if informed.is_empty() {
            self.ring().iter().any(tell);
        }
    }

    /// The result of a method. After a failure the original closes the connection.
    fn result<T>(&self, result: thrift::Result<T>) -> thrift::Result<T> {
        self.state.has_failed.store(result.is_err(), Relaxed);
        result
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
        self.clean_up();
        self.state.is_dead.store(true, Relaxed);
        Ok(())
    }
}

impl LocatorSyncHandler for Handler {
    fn handle_join(&self, location: locator::Location) -> thrift::Result<()> {
        let location = Location::try_from(&location).unwrap();
        self.learn(&location, vec![self.own.clone()]);
        let mut wait = WAIT_PERIOD;
        for _ in 0..PINGS {
            match self.call(&location, |peer| peer.ping()) {
                Ok(replied) => return self.result(replied),
                Err(NotFound) => thread::sleep(wait),
            }
            wait *= 2;
        }
        self.result(Err("the joiner cannot be reached".into()))
    }

    fn handle_remove(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        let location = Location::try_from(&location).unwrap();
        self.forget(&location, to_locations(&authorities));
        Ok(())
    }

    fn handle_add(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        let location = Location::try_from(&location).unwrap();
        self.learn(&location, to_locations(&authorities));
        Ok(())
    }

    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        let hidden = self.hidden.lock().unwrap().clone();
        let ring = self.ring.lock().unwrap();
        let shown = ring.iter().filter(|node| Some(*node) != hidden.as_ref());
        Ok(shown.map(Into::into).collect())
    }

    fn handle_get_node(&self, key: Vec<u8>) -> thrift::Result<locator::Location> {
        Ok((&self.owner(&key)).into())
    }

    fn handle_exchange(&self, _gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        unreachable!("not a method of the original")
    }

    fn handle_members(&self) -> thrift::Result<locator::Gossip> {
        unreachable!("not a method of the original")
    }

    fn handle_ping_req(&self, _location: locator::Location) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_tunnel(&self, _location: locator::Location) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_declare_gone(&self, _location: locator::Location) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_events(&self, _after: i64, _timeout_ms: i32) -> thrift::Result<locator::Events> {
        unreachable!("not a method of the original")
    }
}

impl StoreSyncHandler for Handler {
    fn handle_get(&self, key: Vec<u8>) -> thrift::Result<Vec<u8>> {
        let owner = self.owner(&key);
        if owner == self.own {
            return Ok(self.values.lock().unwrap().entry(key).or_default().clone());
        }
        match self.call(&owner, |peer| peer.get(key)) {
            Ok(replied) => self.result(replied),
            Err(NotFound) => {
                self.ring.lock().unwrap().remove(&owner);
                Ok(Vec::new())
            }
        }
    }

    fn handle_put(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<()> {
        let owner = self.owner(&key);
        if owner == self.own {
            self.values.lock().unwrap().insert(key, value);
            return Ok(());
        }
        match self.call(&owner, |peer| peer.put(key, value)) {
            Ok(sent) => self.result(sent),
            Err(NotFound) => {
                self.ring.lock().unwrap().remove(&owner);
                Ok(())
            }
        }
    }

    fn handle_write(&self, _key: Vec<u8>, _value: Vec<u8>) -> thrift::Result<i64> {
        unreachable!("not a method of the original")
    }

    fn handle_fetch(&self, _key: Vec<u8>) -> thrift::Result<diststore::ReadResult> {
        unreachable!("not a method of the original")
    }

    fn handle_unset(&self, _key: Vec<u8>) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_write_if(
        &self,
        _key: Vec<u8>,
        _value: Vec<u8>,
        _version: i64,
    ) -> thrift::Result<diststore::WriteResult> {
        unreachable!("not a method of the original")
    }

    fn handle_unset_if(
        &self,
        _key: Vec<u8>,
        _version: i64,
    ) -> thrift::Result<diststore::WriteResult> {
        unreachable!("not a method of the original")
    }

    fn handle_write_many(
        &self,
        _writes: Vec<diststore::Write>,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_fetch_many(&self, _keys: Vec<Vec<u8>>) -> thrift::Result<Vec<diststore::ReadResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_topology(&self) -> thrift::Result<diststore::Topology> {
        unreachable!("not a method of the original")
    }

    fn handle_list_keys(
        &self,
        _: Vec<u8>,
        _: Vec<u8>,
        _: i32,
    ) -> thrift::Result<diststore::KeyPage> {
        unreachable!("not a method of the original")
    }

    fn handle_scan_keys(
        &self,
        _: i64,
        _: diststore::Cursor,
        _: diststore::KeyRange,
        _: bool,
    ) -> thrift::Result<diststore::ScannedKeys> {
        unreachable!("not a method of the original")
    }

    fn handle_scan(
        &self,
        _placement_id: i64,
        _cursor: diststore::Cursor,
    ) -> thrift::Result<diststore::Page> {
        unreachable!("not a method of the original")
    }

    fn handle_write_as_primary(
        &self,
        _writes: Vec<diststore::Write>,
        _generation: i64,
    ) -> thrift::Result<diststore::PrimaryReply> {
        unreachable!("not a method of the original")
    }

    fn handle_replicate(
        &self,
        _primary: diststore::NodeId,
        _copies: Vec<diststore::Copy>,
        _placement_id: i64,
        _finished: i64,
    ) -> thrift::Result<diststore::ReplicateResult> {
        unreachable!("not a method of the original")
    }

    fn handle_wait_until_finished(&self, _generation: i64, _sequence: i64) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_confirm(&self, _: diststore::NodeId, _: i64) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_recall_writes(
        &self,
        _ids: Vec<diststore::WriteId>,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_fetch_as_owner(
        &self,
        _keys: Vec<Vec<u8>>,
        _placement_id: i64,
    ) -> thrift::Result<Vec<diststore::ReadResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_rebalance_status(
        &self,
        _status: diststore::RebalanceStatus,
        _wants_history: bool,
    ) -> thrift::Result<diststore::StatusReply> {
        unreachable!("not a method of the original")
    }

    fn handle_pull(&self, _pull: diststore::Pull) -> thrift::Result<diststore::Page> {
        unreachable!("not a method of the original")
    }

    fn handle_stats(&self, _: bool) -> thrift::Result<diststore::NodeStats> {
        unreachable!("not a method of the original")
    }

    fn handle_held_copy(&self, _: Vec<u8>) -> thrift::Result<diststore::HeldCopy> {
        unreachable!("not a method of the original")
    }
}

fn to_locations(authorities: &[locator::Location]) -> Vec<Location> {
    let locations = authorities.iter().map(Location::try_from);
    locations.map(Result::unwrap).collect()
}

/// Waits until the ring of every one of these nodes consists of exactly all of them.
pub fn wait_for_rings(nodes: &[&NodeProcess], legacy: &[&LegacyNode]) {
    let nodes = nodes.iter().map(|node| &node.location);
    let legacy = legacy.iter().map(|node| &node.location);
    let all: BTreeSet<Location> = nodes.chain(legacy).cloned().collect();
    let began = Instant::now();
    for location in &all {
        let left = SOON.saturating_sub(began.elapsed());
        let has_all = || ring_of(location).is_ok_and(|ring| ring == all);
        eventually(&format!("the ring of {location} is {all:?}"), left, has_all);
    }
    let what = format!("{} have each other on their rings", all.len());
    print_time(&what, began.elapsed(), SOON);
}
