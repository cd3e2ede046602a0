//! Does bad input give a store's client a clear error, and leave the store unharmed?

mod common;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Output};

use common::raw::{connect, message, reply_to};
use common::stores::{Stores, stats};
use common::{NodeProcess, peak_kilobytes, program, resident_kilobytes};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{
    self, Copy, Cursor, NodeId, Phase, Pull, RebalanceStatus, Refused, StoreSyncClient,
    StoreSyncHandler, TStoreSyncClient,
};
use thrifty_p2p::endpoint::BindOptions;
use thrifty_p2p::error::Error;
use thrifty_p2p::locator::Location;
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::{self, Input, call};
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::StoreLimits;

/// A store of one node, to which bad input is sent.
struct Target {
    stores: Stores,
}

impl Target {
    fn start(options: &[&str]) -> Target {
        Target {
            stores: Stores::start(1, options),
        }
    }

    fn node(&self) -> &NodeProcess {
        &self.stores.nodes[0]
    }

    fn client(&self) -> StoreClient {
        StoreClient::new(self.node().location.clone())
    }

    fn call<T>(
        &self,
        body: impl FnOnce(&mut StoreSyncClient<Input, dialer::Output>) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        call(StoreSyncClient::new, &self.node().location, body)
    }

    /// Checks that the call is refused with a reason that contains `expected`, and that the node
    /// still serves.
    fn refuses<T>(
        &self,
        expected: &str,
        body: impl FnOnce(&mut StoreSyncClient<Input, dialer::Output>) -> thrift::Result<T>,
    ) {
        let reason = match self.call(body) {
            Ok(_) => panic!("accepted, where expected: {expected}"),
            Err(Error::Remote(_, thrift::Error::User(thrown))) => {
                let refused = thrown.downcast_ref::<Refused>().unwrap();
                refused.reason.clone().unwrap()
            }
            Err(other) => panic!("{other}, where expected: {expected}"),
        };
        assert!(
            reason.contains(expected),
            "{reason}, where expected: {expected}"
        );
        self.check_serving();
    }

    /// Checks that a value can be written and read.
    fn check_serving(&self) {
        self.client().put(b"still", b"serves").unwrap();
        assert_eq!(self.client().get(b"still").unwrap().unwrap(), b"serves");
    }

    /// Checks, at the end of a test, that a second node can join and has what the first one has.
    fn check_join(mut self) {
        self.check_serving();
        let joiner = self.stores.spawn_joiner();
        self.stores.admit(joiner);
        self.stores.settle();
        for client in self.stores.clients() {
            assert_eq!(client.get(b"still").unwrap().unwrap(), b"serves");
        }
    }
}

/// The process at that port of this host.
fn process(port: i16) -> NodeId {
    NodeId::new(Location::new("127.0.0.1".to_owned(), port), 7, None)
}

#[test]
fn a_pull_that_cannot_be_answered_is_refused() {
    let target = Target::start(&[]);
    let at = |stripe| Some(Cursor::new(stripe, None));
    let pull = |cursor| Pull::new(process(1), 0, 0, vec![], cursor, None);
    for stripe in [256, -1, i32::MAX, i32::MIN] {
        target.refuses("a stripe that does not exist", |c| c.pull(pull(at(stripe))));
    }
    target.refuses("without a cursor", |c| c.pull(pull(None)));
    target.refuses("without its sender", |c| {
        c.pull(Pull::new(None, 0, 0, vec![], at(0), None))
    });
    target.refuses("not ready to send", |c| c.pull(pull(at(0))));
    target.refuses("not ready to send", |c| {
        c.pull(Pull::new(
            process(1),
            i64::MIN,
            i64::MAX,
            vec![process(2)],
            at(255),
            None,
        ))
    });
    let nowhere = NodeId::new(Location::new(String::new(), 0), 0, None);
    target.refuses("", |c| {
        c.pull(Pull::new(nowhere.clone(), 0, 0, vec![], at(0), None))
    });
    target.refuses("", |c| {
        c.pull(Pull::new(
            process(1),
            0,
            0,
            vec![nowhere.clone()],
            at(0),
            None,
        ))
    });
    target.check_join();
}

/// The status of a process that is not a member. It claims to be admitted, and to be ahead of all
/// members.
fn status_of(sender: impl Into<Option<NodeId>>, placement_ids: Vec<i64>) -> RebalanceStatus {
    RebalanceStatus::new(
        sender,
        5,
        Phase::SETTLED,
        true,
        5,
        placement_ids,
        1,
        3,
        9,
        false,
        false,
        None,
        None,
        None,
    )
}

#[test]
fn a_status_without_its_sender_is_refused() {
    let target = Target::start(&[]);
    target.refuses("without its sender", |c| {
        c.rebalance_status(RebalanceStatus::default(), true)
    });
    target.refuses("without its sender", |c| {
        c.rebalance_status(status_of(None, vec![]), true)
    });
    let nowhere = NodeId::new(Location::new(String::new(), 0), 0, None);
    target.refuses("", |c| {
        c.rebalance_status(status_of(nowhere, vec![]), false)
    });
    target.check_join();
}

#[test]
fn the_status_of_ten_thousand_unknown_processes_takes_no_memory() {
    let target = Target::start(&[]);
    let flood = || {
        target
            .call(|client| {
                for port in 1..=10_000 {
                    client.rebalance_status(status_of(process(port), vec![5; 100]), false)?;
                }
                // More placements than any node has, and another process at the location of the node.
                client.rebalance_status(status_of(process(1), vec![5; 60_000]), false)?;
                let itself = NodeId::new(Location::from(&target.node().location), 7, None);
                client.rebalance_status(status_of(itself, vec![5]), false)
            })
            .unwrap();
    };
    target.check_serving();
    let before = resident_kilobytes(target.node());
    flood();
    let grown = resident_kilobytes(target.node()).saturating_sub(before);
    eprintln!("{grown} kB more are resident");
    assert!(grown < 4096, "{grown} kB more are resident");
    target.check_join();
}

#[test]
fn a_status_with_another_number_of_copies_does_not_stop_a_node_that_has_not_joined() {
    let node = Node::bind(&BindOptions::at(0..=0), SERVICE).unwrap();
    let joiner = StoreHandler::new(node, Some(2), StoreLimits::default());
    // The node does not know any member of its network yet.
    joiner
        .handle_rebalance_status(status_of(process(1), vec![5]), true)
        .unwrap();
    assert!(joiner.store().failure().is_none());
}

#[test]
fn an_implausible_copy_is_rejected_and_not_kept() {
    let target = Target::start(&["--max-value", "1000"]);
    let now = target.call(|c| c.write(b"now".to_vec(), vec![])).unwrap();
    let key = Some(b"forged".to_vec());
    let copy = |key: Option<Vec<u8>>, bytes, version| Copy {
        key,
        value: Some(vec![0; bytes]),
        version: Some(version),
        sequence: Some(1),
        ..Copy::default()
    };
    let node = target.call(|c| c.topology()).unwrap().members.unwrap();
    let forgeries = [
        ("is not a plausible version", copy(key.clone(), 5, 0)),
        ("is not a plausible version", copy(key.clone(), 5, -1)),
        ("is not a plausible version", copy(key.clone(), 5, i64::MIN)),
        ("is not a plausible version", copy(key.clone(), 5, i64::MAX)),
        ("without a key", copy(None, 5, now)),
        ("a value of 1001 bytes", copy(key, 1001, now)),
        ("a key of 65537 bytes", copy(Some(vec![0; 65_537]), 5, now)),
    ];
    let valid = copy(Some(b"kept".to_vec()), 5, now);
    for (reason, forgery) in forgeries {
        let copies = vec![valid.clone(), forgery];
        let result = target.call(|c| c.replicate(node[0].clone(), copies.clone(), 0, 2));
        let result = result.unwrap();
        let rejections = result.rejections.unwrap();
        assert_eq!(rejections.len(), 1, "the other one is kept: {rejections:?}");
        assert_eq!(rejections[0].index, Some(1));
        let given = rejections[0].reason.clone().unwrap();
        assert!(given.contains(reason), "{given}");
    }
    let stranger = NodeId::new(node[0].location.clone(), 1, None);
    let result = target.call(|c| c.replicate(stranger.clone(), vec![valid.clone()], 0, 2));
    assert_eq!(result.unwrap().is_fenced, Some(true), "it takes no part");
    assert!(target.client().get(b"kept").unwrap().is_some());
    assert_eq!(target.client().get(b"forged").unwrap(), None);
    target.client().put(b"forged", b"true").unwrap();
    assert_eq!(target.client().get(b"forged").unwrap().unwrap(), b"true");
    target.check_join();
}

#[test]
fn a_call_for_another_placement_or_another_primary_is_refused() {
    let target = Target::start(&[]);
    for placement_id in [0, -1, i64::MIN, i64::MAX] {
        target.refuses("does not answer for that placement", |c| {
            c.fetch_as_owner(vec![b"still".to_vec()], placement_id)
        });
    }
    target.refuses("without a key", |c| {
        c.write_as_primary(
            vec![diststore::Write::new(
                None, None, None, false, None, None, None,
            )],
            0,
        )
    });
    let write = diststore::Write::new(
        b"stray".to_vec(),
        b"value".to_vec(),
        None,
        false,
        None,
        None,
        None,
    );
    let reply = target.call(|c| c.write_as_primary(vec![write.clone()], 0));
    assert_eq!(
        reply.unwrap().results.unwrap()[0].version,
        Some(-1),
        "the call is for a process of another generation"
    );
    assert_eq!(target.client().get(b"stray").unwrap(), None);
    target.check_join();
}

#[test]
fn a_write_beyond_a_limit_is_refused_and_an_empty_one_is_accepted() {
    let target = Target::start(&["--max-value", "1000"]);
    let long = vec![b'k'; 65_537];
    target.refuses("a key of 65537 bytes", |c| c.write(long.clone(), vec![]));
    target.refuses("a key of 65537 bytes", |c| c.unset(long.clone()));
    target.refuses("a value of 1001 bytes", |c| {
        c.write(b"key".to_vec(), vec![0; 1001])
    });
    target
        .call(|c| c.put(b"key".to_vec(), vec![0; 1001]))
        .unwrap();
    target.node().wait_for("the put of key was lost");
    assert_eq!(target.client().get(b"key").unwrap(), None);
    assert_eq!(target.client().get(&long).unwrap(), None);

    let (key, value) = (&long[1..], vec![0; 1000]);
    target.client().put(key, &value).unwrap();
    assert_eq!(target.client().get(key).unwrap(), Some(value));
    target.client().put(b"", b"").unwrap();
    assert_eq!(target.client().get(b"").unwrap(), Some(vec![]));
    assert!(target.client().delete(b"").unwrap());
    assert_eq!(target.client().get(b"").unwrap(), None);
    target.check_join();
}

#[test]
fn a_lost_put_logs_one_short_line_whatever_its_key() {
    let target = Target::start(&["--max-value", "10"]);
    let put = |key: Vec<u8>| target.call(|c| c.put(key, vec![0; 11])).unwrap();
    put(b"forged\n[2009-01-01T00:00:00Z ERROR] no such line".to_vec());
    put(vec![b'k'; 1024 * 1024]);
    target.node().wait_for("the put of");
    target.node().wait_for("a key of 1048576 bytes");
    for line in target.node().lines() {
        assert!(line.len() < 1000, "a line of {} bytes", line.len());
        assert!(!line.starts_with("[2009"), "a line that a client wrote");
    }
    target.check_join();
}

/// The arguments of a call of `write`.
fn arguments_of_write(key: &[u8], value: &[u8]) -> Vec<u8> {
    let field = |id, bytes: &[u8]| {
        let length = (bytes.len() as u32).to_be_bytes();
        [&[0x0b, 0, id], &length[..], bytes].concat()
    };
    [field(1, key), field(2, value), vec![0]].concat()
}

#[test]
fn an_incomplete_write_writes_nothing() {
    let target = Target::start(&[]);
    let whole = message("write", &arguments_of_write(b"torn", b"value"));
    for length in 1..whole.len() {
        let reply = reply_to(target.node(), &whole[..length]);
        assert!(is_an_error(&reply, "write"), "after {length} bytes");
    }
    assert_eq!(target.client().get(b"torn").unwrap(), None);
    reply_to(target.node(), &whole);
    assert_eq!(target.client().get(b"torn").unwrap().unwrap(), b"value");
    target.check_join();
}

/// Does this reply report an error: an exception of Thrift, a refusal, or a closed connection?
fn is_an_error(reply: &[u8], method: &str) -> bool {
    let result = reply.get(12 + method.len()..);
    let is_refused = result.is_some_and(|result| result.starts_with(&[0x0c, 0, 1]));
    reply.is_empty() || reply[3] == 3 || reply[3] == 2 && is_refused
}

#[test]
fn a_call_without_its_arguments_fails_and_harms_no_other_call() {
    let target = Target::start(&[]);
    let methods = [
        "get",
        "put",
        "write",
        "fetch",
        "unset",
        "write_many",
        "fetch_many",
        "list_keys",
        "scan",
        "scan_keys",
        "write_as_primary",
        "replicate",
        "wait_until_finished",
        "recall_writes",
        "fetch_as_owner",
        "rebalance_status",
        "pull",
    ];
    for method in methods {
        // No argument, and a number instead of another type.
        for arguments in [&[0][..], &[0x08, 0, 1, 0, 0, 0, 7, 0]] {
            let reply = reply_to(target.node(), &message(method, arguments));
            assert!(
                is_an_error(&reply, method),
                "{method} with {arguments:?}: {reply:?}"
            );
            assert!(
                method != "put" || reply.is_empty(),
                "a reply to a oneway call"
            );
            target.check_serving();
        }
    }
    target.check_join();
}

/// Sends `head`, then `part` until it is sent `parts` times or the node closes the connection.
/// Returns how many were sent.
fn flood(node: &NodeProcess, head: &[u8], part: &[u8], parts: usize) -> usize {
    let mut stream = connect(node);
    stream.write_all(head).unwrap();
    let sent = (0..parts).find(|_| stream.write_all(part).is_err());
    let mut reply = Vec::new();
    // The node closes before it has read everything, so the end may be a reset.
    let _ = stream.read_to_end(&mut reply);
    assert!(reply.is_empty(), "there is no reply to such a message");
    sent.unwrap_or(parts)
}

#[test]
fn strings_that_exceed_the_message_size_together_close_their_connection() {
    const STRINGS: u32 = 4_000;
    const LENGTH: u32 = 200_000;
    let target = Target::start(&[]);
    target.check_serving();
    let before = peak_kilobytes(target.node());
    let list = [&[0x0f, 0, 2, 0x0c][..], &STRINGS.to_be_bytes()].concat();
    let address = [
        &[0x0b, 0, 1][..],
        &LENGTH.to_be_bytes(),
        &[b'a'; LENGTH as usize],
        &[0],
    ]
    .concat();
    let sent = flood(
        target.node(),
        &message("add", &list),
        &address,
        STRINGS as usize,
    );
    assert!(sent < STRINGS as usize, "all of it was accepted");
    target.node().wait_for("a message of more than");
    let grown = peak_kilobytes(target.node()) - before;
    eprintln!("{sent} strings sent, {grown} kB more were resident");
    assert!(grown < 40 * 1024, "{grown} kB more were resident");
    target.check_join();
}

/// Keys that are not text, or that look like something else.
fn unusual_keys() -> Vec<Vec<u8>> {
    vec![
        (0..=255).collect(),
        (1..=255).collect(),
        // These two have the same point on the ring, because both are hexadecimal digests.
        b"0123456789abcdef0123456789abcdef".to_vec(),
        b"0123456789ABCDEF0123456789ABCDEF".to_vec(),
        b"".to_vec(),
        b"\0".to_vec(),
        b"\n".to_vec(),
        b"--host".to_vec(),
        vec![0xff; 32],
    ]
}

fn run_with_bytes(name: &str, options: &[&str], bytes: &[&[u8]]) -> Output {
    let bytes = bytes.iter().map(|b| OsString::from_vec(b.to_vec()));
    Command::new(program(name))
        .args(options)
        .args([OsStr::new("--")])
        .args(bytes)
        .output()
        .unwrap()
}

#[test]
fn keys_of_any_bytes_are_distinct_on_every_node() {
    let stores = Stores::start(2, &["--replicas", "1"]);
    let clients = stores.clients();
    for (number, key) in unusual_keys().iter().enumerate() {
        clients[0].put(key, &[number as u8]).unwrap();
    }
    for (number, key) in unusual_keys().iter().enumerate() {
        let owner = clients[0].owner(key).unwrap();
        assert_eq!(clients[1].owner(key).unwrap(), owner);
        for client in &clients {
            let value = client.get(key).unwrap();
            assert_eq!(value, Some(vec![number as u8]), "{key:?}");
        }
    }
    let keys = |node: &NodeProcess| stats(&node.location).unwrap().keys.unwrap();
    let all: i64 = stores.nodes.iter().map(keys).sum();
    assert_eq!(all, unusual_keys().len() as i64, "each key has one copy");
}

#[test]
fn the_programs_accept_keys_and_values_of_any_bytes_without_a_nul() {
    let stores = Stores::start(2, &[]);
    let [one, other] = [0, 1].map(|index: usize| stores.nodes[index].at());
    let keys: Vec<_> = unusual_keys()
        .into_iter()
        .filter(|key| !key.contains(&0))
        .collect();
    for key in &keys {
        let put = run_with_bytes("storeput", &["-h", one], &[key, key]);
        let stderr = String::from_utf8_lossy(&put.stderr);
        assert!(put.status.success(), "{key:?}: {stderr}");
    }
    for key in &keys {
        let got = run_with_bytes("storeget", &["-h", other, "--raw"], &[key]);
        assert!(got.status.success());
        assert_eq!(got.stdout, *key);
        let deleted = run_with_bytes("storedel", &["-h", other], &[key]);
        assert!(deleted.status.success());
        let missing = run_with_bytes("storeget", &["-h", one], &[key]);
        assert_eq!(missing.status.code(), Some(1), "{key:?} is deleted");
    }
}

#[test]
fn pipelined_calls_get_equal_replies_from_the_fast_path_and_the_generated_code() {
    let target = Target::start(&[]);
    target.client().put(b"key", b"value").unwrap();
    let key = [11, 0, 1, 0, 0, 0, 3, b'k', b'e', b'y'];
    let unknown_field = [2, 0, 9, 1];
    let plain = message("fetch", &[&key[..], &[0]].concat());
    let unusual = message("fetch", &[&unknown_field[..], &key, &[0]].concat());
    let reply = reply_to(target.node(), &plain);
    assert!(reply.ends_with(&[0, 0]) && reply.windows(5).any(|part| part == b"value"));
    assert_eq!(reply_to(target.node(), &unusual), reply);
    let calls = [&plain[..], &unusual, &plain].concat();
    let replies = [&reply[..]; 3].concat();
    assert_eq!(reply_to(target.node(), &calls), replies);

    // So many that the server reads them in several pieces, which cut some calls in two.
    let (count, at_number) = (400, 4 + 4 + "fetch".len());
    let numbered = |message: &[u8], number: u32| {
        let mut message = message.to_vec();
        message[at_number..at_number + 4].copy_from_slice(&number.to_be_bytes());
        message
    };
    let all =
        |message: &[u8]| -> Vec<u8> { (0..count).flat_map(|n| numbered(message, n)).collect() };
    assert!(all(&plain).len() > 10_000 && reply_to(target.node(), &all(&plain)) == all(&reply));
}
