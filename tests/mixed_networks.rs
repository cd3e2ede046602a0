//! Do nodes of the original and ours make one network?
//!
//! The stand-in for a node of the original keeps to what limits it: one thread, one
//! connection at a time served to its end, no method that came later, oneway calls
//! sent as ordinary ones, changes passed on in a chain. An idle connection that is
//! kept to it shuts everybody else out, so these tests fail if ours ever keeps one.

mod common;

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use common::network::{ring_of, spawn_beside, start_alone, tell, told_by};
use common::{NodeProcess, SOON, eventually, run};
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier,
    TMessageIdentifier, TMessageType, TOutputProtocol, TSerializable, TStoredInputProtocol,
    TStructIdentifier, TType,
};
use thrift::server::TProcessor;
use thrift::{ApplicationError, ApplicationErrorKind};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, BaseSyncHandler, LocatorSyncHandler, LocatorSyncProcessor};

/// What the original serves.
const METHODS: [&str; 10] = [
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
];

/// A node of the original; dies when dropped.
struct Original {
    location: Location,
    handler: Handler,
    dead: Arc<AtomicBool>,
}

impl Original {
    /// Starts a node that joins the network of `peer`, or begins one.
    fn start(peer: Option<&Location>) -> Original {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = Location::from(listener.local_addr().unwrap());
        let mut ring = BTreeSet::from([location.clone()]);
        if let Some(peer) = peer {
            ring.extend(ring_of(peer).unwrap());
            say("join", peer, &location, None).unwrap();
        }
        let handler = Handler {
            here: location.clone(),
            ring: Arc::new(Mutex::new(ring)),
            hidden: Arc::default(),
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
    here: Location,
    ring: Arc<Mutex<BTreeSet<Location>>>,
    /// A member of which it says nothing, whatever it is told.
    hidden: Arc<Mutex<Option<Location>>>,
}

impl Handler {
    fn converse(&self, stream: &TcpStream) -> thrift::Result<()> {
        let processor = LocatorSyncProcessor::new(self.clone());
        let mut input = TBinaryInputProtocol::new(BufReader::new(stream), false);
        let mut output = TBinaryOutputProtocol::new(BufWriter::new(stream), true);
        loop {
            let head = input.read_message_begin()?;
            if METHODS.contains(&head.name.as_str()) {
                let mut stored = TStoredInputProtocol::new(&mut input, head);
                processor.process(&mut stored, &mut output)?;
            } else {
                input.skip(TType::Struct)?;
                refuse(head, &mut output)?;
            }
        }
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
        Ok("locator.Locator".to_owned())
    }

    fn handle_service_types(&self) -> thrift::Result<Vec<String>> {
        Ok(["locator.Base", "locator.Locator"]
            .map(str::to_owned)
            .into())
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

    fn handle_reach(&self, _location: locator::Location) -> thrift::Result<bool> {
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
