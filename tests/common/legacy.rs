//! `LegacyNode`: a stand-in for a node of the original.
//!
//! It has the limits of the original: one thread; one connection at a time, which is served to
//! its end; only the original's methods; oneway calls sent as ordinary ones; changes forwarded
//! from node to node in a chain. As a store it has a dictionary and nothing else.
//!
//! A connection that is kept open to it locks out all other callers, so tests fail if our nodes
//! ever keep one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier,
    TMessageIdentifier, TMessageType, TOutputProtocol, TSerializable, TStoredInputProtocol,
    TStructIdentifier, TType,
};
use thrift::server::TProcessor;
use thrift::{ApplicationError, ApplicationErrorKind};
use thrifty_p2p::diststore::{self, StoreSyncHandler, StoreSyncProcessor};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, BaseSyncHandler, LocatorSyncHandler};

use super::network::{print_time, ring_of};
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

/// A legacy node: it behaves as a node of the original does. It stops when dropped, without
/// notifying other nodes.
pub struct LegacyNode {
    pub location: Location,
    handler: Handler,
    is_stopped: Arc<AtomicBool>,
}

impl LegacyNode {
    /// Starts a locator that joins the network of `peer` or, without a peer, starts a new one.
    pub fn start(peer: Option<&Location>) -> LegacyNode {
        LegacyNode::start_as(LOCATOR, peer)
    }

    /// Starts a store that joins the network of `peer` or, without a peer, starts a new one.
    pub fn start_store(peer: Option<&Location>) -> LegacyNode {
        LegacyNode::start_as(STORE, peer)
    }

    fn start_as(service_chain: &'static [&'static str], peer: Option<&Location>) -> LegacyNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let mut ring = BTreeSet::from([location.clone()]);
        if let Some(peer) = peer {
            ring.extend(ring_of(peer).unwrap());
            send_oneway("join", peer, &location, None).unwrap();
        }
        let handler = Handler {
            service_chain,
            own: location.clone(),
            ring: Arc::new(Mutex::new(ring)),
            hidden: Arc::default(),
            values: Arc::default(),
        };
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (server, stopped) = (handler.clone(), is_stopped.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Relaxed) {
                    return;
                }
                // The next connection is served even if this one fails.
                let _ = server.serve_connection(&stream.unwrap());
            }
        });
        LegacyNode {
            location,
            handler,
            is_stopped,
        }
    }

    /// Stops as the original does at ctrl-C: it notifies the others first.
    pub fn leave(self) {
        let own = self.location.clone();
        self.handler.forget(own, Vec::new());
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
}

impl Drop for LegacyNode {
    fn drop(&mut self) {
        self.is_stopped.store(true, Relaxed);
        // The thread waits for a connection.
        let _ = TcpStream::connect(self.location.name());
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
}

impl Handler {
    fn serve_connection(&self, stream: &TcpStream) -> thrift::Result<()> {
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
                send_unknown_method(head, &mut output)?;
            }
        }
    }

    fn methods(&self) -> &[&str] {
        let store_methods = if self.service_chain == STORE { 0 } else { 2 };
        &METHODS[..METHODS.len() - store_methods]
    }

    fn learn(&self, location: Location, mut authorities: Vec<Location>) {
        self.ring.lock().unwrap().insert(location.clone());
        authorities.push(self.own.clone());
        self.forward("add", &location, authorities);
    }

    fn forget(&self, location: Location, mut authorities: Vec<Location>) {
        self.ring.lock().unwrap().remove(&location);
        authorities.push(self.own.clone());
        self.forward("remove", &location, authorities);
    }

    /// Forwards a change to the first member that does not know it. A member that cannot be
    /// called is removed from the ring of this node only.
    fn forward(&self, method: &str, location: &Location, authorities: Vec<Location>) {
        loop {
            let ring = self.ring.lock().unwrap().clone();
            let Some(next) = ring.iter().find(|node| !authorities.contains(node)) else {
                return;
            };
            if send_oneway(method, next, location, Some(&authorities)).is_ok() {
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
        self.forget((&location).try_into().unwrap(), to_locations(&authorities));
        Ok(())
    }

    fn handle_add(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        self.learn((&location).try_into().unwrap(), to_locations(&authorities));
        Ok(())
    }

    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        let hidden = self.hidden.lock().unwrap().clone();
        let ring = self.ring.lock().unwrap();
        let shown = ring.iter().filter(|node| Some(*node) != hidden.as_ref());
        Ok(shown.map(Into::into).collect())
    }

    fn handle_get_node(&self, _key: Vec<u8>) -> thrift::Result<locator::Location> {
        Err("no test calls get_node at a legacy node".into())
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
}

/// A store that has only its own dictionary and calls no other node.
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
        unreachable!("not a method of the original")
    }

    fn handle_fetch(&self, _key: Vec<u8>) -> thrift::Result<diststore::ReadResult> {
        unreachable!("not a method of the original")
    }

    fn handle_unset(&self, _key: Vec<u8>) -> thrift::Result<bool> {
        unreachable!("not a method of the original")
    }

    fn handle_write_many(
        &self,
        _pairs: Vec<diststore::KeyValue>,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_fetch_many(&self, _keys: Vec<Vec<u8>>) -> thrift::Result<Vec<diststore::ReadResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_topology(&self) -> thrift::Result<diststore::Topology> {
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
        _pairs: Vec<diststore::KeyValue>,
        _generation: i64,
    ) -> thrift::Result<Vec<diststore::WriteResult>> {
        unreachable!("not a method of the original")
    }

    fn handle_replicate(
        &self,
        _pairs: Vec<diststore::KeyValue>,
        _placement_id: i64,
    ) -> thrift::Result<diststore::ReplicateResult> {
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
}

fn to_locations(authorities: &[locator::Location]) -> Vec<Location> {
    let locations = authorities.iter().map(Location::try_from);
    locations.map(Result::unwrap).collect()
}

/// Replies to a method that the original does not have.
fn send_unknown_method(
    head: TMessageIdentifier,
    output: &mut dyn TOutputProtocol,
) -> thrift::Result<()> {
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

/// Makes a oneway call as the original's stubs do: with the message type of an ordinary call,
/// without waiting for a reply, on a connection of its own.
fn send_oneway(
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
