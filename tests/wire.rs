//! Are the bytes on the wire equal to those of the original, in both directions?
//!
//! `data/wire.tsv` was recorded from the original's own stubs: what a client sends and what a
//! node replies, with strict and with old headers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use thrifty_p2p::diststore::{
    self, Copy, Cursor, NodeId, NodeStats, Page, PrimaryReply, Pull, ReadResult, RebalanceStatus,
    ReplicateResult, StatusReply, StoreSyncClient, StoreSyncHandler, StoreSyncProcessor,
    TStoreSyncClient, Topology, WriteId, WriteResult,
};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, BaseSyncHandler, Gossip, LocatorSyncHandler};
use thrifty_p2p::locator::{TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::{Input, Output, call};
use thrifty_p2p::rpc::dispatch::Methods;
use thrifty_p2p::rpc::limits::ServerLimits;
use thrifty_p2p::rpc::server::Server;

struct Row {
    header: String,
    method: String,
    arguments: String,
    request: Vec<u8>,
    /// None for a oneway call.
    reply: Option<Vec<u8>>,
}

fn rows() -> Vec<Row> {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    };
    let rows: Vec<Row> = include_str!("data/wire.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            Row {
                header: cells[0].into(),
                method: cells[1].into(),
                arguments: cells[2].into(),
                request: bytes(cells[3]),
                reply: (cells[4] != "-").then(|| bytes(cells[4])),
            }
        })
        .collect();
    assert!(rows.len() > 20, "too few rows");
    rows
}

fn location(port: i16) -> locator::Location {
    locator::Location::new("127.0.0.1".to_owned(), port)
}

/// A node whose replies are those of the recording.
#[derive(Clone, Default)]
struct Recorded {
    /// The oneway calls that have arrived, as text.
    oneway: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    fn record(&self, call: String) -> thrift::Result<()> {
        self.oneway.lock().unwrap().push(call);
        Ok(())
    }
}

impl BaseSyncHandler for Recorded {
    fn handle_ping(&self) -> thrift::Result<()> {
        Ok(())
    }
    fn handle_service_type(&self) -> thrift::Result<String> {
        Ok("diststore.Store".into())
    }
    fn handle_service_types(&self) -> thrift::Result<Vec<String>> {
        Ok(["locator.Base", "locator.Locator", "diststore.Store"]
            .map(String::from)
            .into())
    }
    fn handle_debug(&self) -> thrift::Result<()> {
        self.record("debug".into())
    }
    fn handle_die(&self) -> thrift::Result<()> {
        self.record("die".into())
    }
}

impl LocatorSyncHandler for Recorded {
    fn handle_join(&self, location: locator::Location) -> thrift::Result<()> {
        self.record(format!("join {:?}", Location::try_from(&location).unwrap()))
    }
    fn handle_remove(
        &self,
        l: locator::Location,
        all: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        self.record(format!(
            "remove {:?} {}",
            Location::try_from(&l).unwrap(),
            all.len()
        ))
    }
    fn handle_add(&self, l: locator::Location, all: Vec<locator::Location>) -> thrift::Result<()> {
        self.record(format!(
            "add {:?} {}",
            Location::try_from(&l).unwrap(),
            all.len()
        ))
    }
    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        Ok(vec![location(9900), location(9901)])
    }
    fn handle_get_node(&self, key: Vec<u8>) -> thrift::Result<locator::Location> {
        assert_eq!(key, b"c");
        Ok(location(9901))
    }
    fn handle_exchange(&self, _: Gossip) -> thrift::Result<Gossip> {
        Err("not recorded".into())
    }
    fn handle_members(&self) -> thrift::Result<Gossip> {
        Err("not recorded".into())
    }
    fn handle_ping_req(&self, _: locator::Location) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_tunnel(&self, _: locator::Location) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_declare_gone(&self, _: locator::Location) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_events(&self, _: i64, _: i32) -> thrift::Result<locator::Events> {
        Err("not recorded".into())
    }
}

impl StoreSyncHandler for Recorded {
    fn handle_get(&self, key: Vec<u8>) -> thrift::Result<Vec<u8>> {
        Ok(match key.as_slice() {
            b"c" => b"crayon".to_vec(),
            b"missing" => Vec::new(),
            key => {
                assert_eq!(key, "café".as_bytes());
                "crème".into()
            }
        })
    }
    fn handle_put(&self, key: Vec<u8>, value: Vec<u8>) -> thrift::Result<()> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        self.record(format!("put {} {}", text(key), text(value)))
    }
    fn handle_write(&self, _: Vec<u8>, _: Vec<u8>) -> thrift::Result<i64> {
        Err("not recorded".into())
    }
    fn handle_fetch(&self, _: Vec<u8>) -> thrift::Result<ReadResult> {
        Err("not recorded".into())
    }
    fn handle_unset(&self, _: Vec<u8>) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_write_if(&self, _: Vec<u8>, _: Vec<u8>, _: i64) -> thrift::Result<WriteResult> {
        Err("not recorded".into())
    }
    fn handle_unset_if(&self, _: Vec<u8>, _: i64) -> thrift::Result<WriteResult> {
        Err("not recorded".into())
    }
    fn handle_write_many(&self, _: Vec<diststore::Write>) -> thrift::Result<Vec<WriteResult>> {
        Err("not recorded".into())
    }
    fn handle_fetch_many(&self, _: Vec<Vec<u8>>) -> thrift::Result<Vec<ReadResult>> {
        Err("not recorded".into())
    }
    fn handle_topology(&self) -> thrift::Result<Topology> {
        Err("not recorded".into())
    }
    fn handle_list_keys(
        &self,
        _: Vec<u8>,
        _: Vec<u8>,
        _: i32,
    ) -> thrift::Result<diststore::KeyPage> {
        Err("not recorded".into())
    }
    fn handle_scan_keys(
        &self,
        _: i64,
        _: Cursor,
        _: diststore::KeyRange,
        _: bool,
    ) -> thrift::Result<diststore::ScannedKeys> {
        Err("not recorded".into())
    }
    fn handle_scan(&self, _: i64, _: Cursor) -> thrift::Result<Page> {
        Err("not recorded".into())
    }
    fn handle_write_as_primary(
        &self,
        _: Vec<diststore::Write>,
        _: i64,
    ) -> thrift::Result<PrimaryReply> {
        Err("not recorded".into())
    }
    fn handle_replicate(
        &self,
        _: NodeId,
        _: Vec<Copy>,
        _: i64,
        _: i64,
    ) -> thrift::Result<ReplicateResult> {
        Err("not recorded".into())
    }
    fn handle_wait_until_finished(&self, _: i64, _: i64) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_confirm(&self, _: NodeId, _: i64) -> thrift::Result<bool> {
        Err("not recorded".into())
    }
    fn handle_recall_writes(&self, _: Vec<WriteId>) -> thrift::Result<Vec<WriteResult>> {
        Err("not recorded".into())
    }
    fn handle_fetch_as_owner(&self, _: Vec<Vec<u8>>, _: i64) -> thrift::Result<Vec<ReadResult>> {
        Err("not recorded".into())
    }
    fn handle_rebalance_status(&self, _: RebalanceStatus, _: bool) -> thrift::Result<StatusReply> {
        Err("not recorded".into())
    }
    fn handle_pull(&self, _: Pull) -> thrift::Result<Page> {
        Err("not recorded".into())
    }
    fn handle_stats(&self, _: bool) -> thrift::Result<NodeStats> {
        Err("not recorded".into())
    }
    fn handle_held_copy(&self, _: Vec<u8>) -> thrift::Result<diststore::HeldCopy> {
        Err("not recorded".into())
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn read_exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn recorded_requests_get_the_recorded_replies() {
    let server = Server::bind(
        &[Ipv4Addr::LOCALHOST.into()],
        0,
        ServerLimits::default(),
        None,
    )
    .unwrap();
    let (port, handle) = (server.port(), server.handle());
    let node = Recorded::default();
    let processor = StoreSyncProcessor::new(node.clone());
    let oneway = ["debug", "die", "join", "remove", "add", "put"]
        .map(String::from)
        .into();
    let methods = Methods {
        oneway,
        ..Methods::default()
    };
    let serving = thread::spawn(move || server.run(processor, methods));

    let rows = rows();
    let ping = rows.iter().find(|row| row.method == "ping").unwrap();
    let pong = ping.reply.as_ref().unwrap();
    let mut stream = connect(port);
    for row in &rows {
        let case = format!("{} {}{}", row.header, row.method, row.arguments);
        stream.write_all(&row.request).unwrap();
        match &row.reply {
            Some(reply) => assert_eq!(&read_exactly(&mut stream, reply.len()), reply, "{case}"),
            None => {
                // A reply to the oneway call would arrive before the reply to this.
                stream.write_all(&ping.request).unwrap();
                assert_eq!(
                    &read_exactly(&mut stream, pong.len()),
                    pong,
                    "there is a reply to {case}"
                );
            }
        }
    }
    let once = [
        "debug",
        "die",
        "join 127.0.0.1:9902",
        "add 127.0.0.1:9902 1",
        "remove 127.0.0.1:9902 2",
        "put a apple",
        "put empty ",
    ];
    assert_eq!(
        *node.oneway.lock().unwrap(),
        [once, once].concat(),
        "the oneway calls have arrived"
    );
    drop(stream);
    handle.stop();
    serving.join().unwrap();
}

/// Makes a recorded call by our stub. Returns the result as text; None for an unknown method.
fn call_as_recorded(row: &Row, peer: &Location) -> Option<String> {
    let new = StoreSyncClient::<Input, Output>::new;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let all = vec![location(9900), location(9901)];
    let result = match (row.method.as_str(), row.arguments.as_str()) {
        ("ping", _) => call(new, peer, |c| c.ping()).map(|()| String::new()),
        ("service_type", _) => call(new, peer, |c| c.service_type()),
        ("service_types", _) => call(new, peer, |c| c.service_types()).map(|types| types.join(" ")),
        ("debug", _) => call(new, peer, |c| c.debug()).map(|()| String::new()),
        ("die", _) => call(new, peer, |c| c.die()).map(|()| String::new()),
        ("join", _) => call(new, peer, |c| c.join(location(9902))).map(|()| String::new()),
        ("add", _) => {
            call(new, peer, |c| c.add(location(9902), all[..1].to_vec())).map(|()| String::new())
        }
        ("remove", _) => call(new, peer, |c| c.remove(location(9902), all)).map(|()| String::new()),
        ("get_all", _) => call(new, peer, |c| c.get_all()).map(|all| format!("{}", all.len())),
        ("get_node", _) => call(new, peer, |c| c.get_node(b"c".to_vec()))
            .map(|node| Location::try_from(&node).unwrap().to_string()),
        ("get", "('c',)") => call(new, peer, |c| c.get(b"c".to_vec())).map(text),
        ("get", "('missing',)") => call(new, peer, |c| c.get(b"missing".to_vec())).map(text),
        ("get", _) => call(new, peer, |c| c.get("café".into())).map(text),
        ("put", "('a', 'apple')") => {
            call(new, peer, |c| c.put(b"a".to_vec(), b"apple".to_vec())).map(|()| String::new())
        }
        ("put", _) => {
            call(new, peer, |c| c.put(b"empty".to_vec(), Vec::new())).map(|()| String::new())
        }
        _ => return None,
    };
    Some(result.unwrap())
}

/// The position of the sequence number in a message with a strict header.
fn sequence(message: &[u8]) -> std::ops::Range<usize> {
    let name = u32::from_be_bytes(message[4..8].try_into().unwrap()) as usize;
    8 + name..12 + name
}

#[test]
fn our_stubs_send_the_recorded_requests_and_decode_the_recorded_replies() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = Location::from(listener.local_addr().unwrap());
    let results = [
        ("service_type", "diststore.Store"),
        (
            "service_types",
            "locator.Base locator.Locator diststore.Store",
        ),
        ("get_all", "2"),
        ("get_node", "127.0.0.1:9901"),
        ("get('c',)", "crayon"),
        ("get('missing',)", ""),
    ];
    for row in rows().iter().filter(|row| row.header == "strict") {
        let result = thread::scope(|scope| {
            let calling = scope.spawn(|| call_as_recorded(row, &peer));
            let mut stream = listener.accept().unwrap().0;
            let mut sent = read_exactly(&mut stream, row.request.len());
            // Our stubs number their calls, and send a oneway call as such.
            let number = sequence(&sent);
            let count = sent[number.clone()].to_vec();
            sent[number].fill(0);
            if row.reply.is_none() {
                assert!(
                    [1, 4].contains(&sent[3]),
                    "{} is a call or a oneway call",
                    row.method
                );
                sent[3] = 1;
            }
            assert_eq!(sent, row.request, "{}{}", row.method, row.arguments);
            if let Some(reply) = &row.reply {
                let mut reply = reply.clone();
                let number = sequence(&reply);
                reply[number].copy_from_slice(&count);
                stream.write_all(&reply).unwrap();
            }
            calling.join().unwrap()
        });
        let result = result.unwrap_or_else(|| panic!("{} was not called", row.method));
        let case = format!("{}{}", row.method, row.arguments);
        let expected = results
            .iter()
            .find(|(name, _)| *name == row.method || *name == case);
        if let Some((_, expected)) = expected {
            assert_eq!(result, *expected, "{case}");
        }
    }
}
