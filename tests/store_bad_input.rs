//! Does bad input cost a store's dialer a clear error, and the store nothing?

mod common;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Output};

use common::raw::{answer_to, connect, message};
use common::stores::{Stores, stats};
use common::{NodeProcess, peak_kilobytes, program, resident_kilobytes};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{
    Cursor, KeyValue, Peer, Phase, Pull, Refused, StoreSyncClient, StoreSyncHandler, TStoreSyncClient,
    Word,
};
use thrifty_p2p::endpoint::BindOptions;
use thrifty_p2p::error::Error;
use thrifty_p2p::locator::Location;
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::{Input, Output as MessageWriter, call};
use thrifty_p2p::store::handler::{SERVICE, StoreHandler};
use thrifty_p2p::store::limits::StoreLimits;

/// A store of one node, which is sent bad input.
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
        body: impl FnOnce(&mut StoreSyncClient<Input, MessageWriter>) -> thrift::Result<T>,
    ) -> Result<T, Error> {
        call(StoreSyncClient::new, &self.node().location, body)
    }

    /// The call is refused with a sentence that has this in it, and the node serves on.
    fn refuses<T>(
        &self,
        sentence: &str,
        body: impl FnOnce(&mut StoreSyncClient<Input, MessageWriter>) -> thrift::Result<T>,
    ) {
        let told = match self.call(body) {
            Ok(_) => panic!("taken, where expected: {sentence}"),
            Err(Error::Remote(_, thrift::Error::User(thrown))) => {
                let refused = thrown.downcast_ref::<Refused>().unwrap();
                refused.reason.clone().unwrap()
            }
            Err(other) => panic!("{other}, where expected: {sentence}"),
        };
        assert!(
            told.contains(sentence),
            "{told}, where expected: {sentence}"
        );
        self.serves();
    }

    /// Is a key put and got?
    fn serves(&self) {
        self.client().put(b"still", b"serves").unwrap();
        assert_eq!(self.client().get(b"still").unwrap().unwrap(), b"serves");
    }

    /// In the end, a second node joins and finds what the first one has.
    fn takes_a_second_node(mut self) {
        self.serves();
        let joiner = self.stores.spawn_joiner();
        self.stores.admit(joiner);
        self.stores.settle();
        for client in self.stores.clients() {
            assert_eq!(client.get(b"still").unwrap().unwrap(), b"serves");
        }
    }
}

/// The process at that port of this host.
fn peer(port: i16) -> Peer {
    Peer::new(Location::new("127.0.0.1".to_owned(), port), 7)
}

#[test]
fn a_pull_that_cannot_be_answered_is_refused() {
    let target = Target::start(&[]);
    let at = |stripe| Some(Cursor::new(stripe, None));
    let pull = |cursor| Pull::new(peer(1), 0, 0, vec![], cursor);
    for stripe in [256, -1, i32::MAX, i32::MIN] {
        target.refuses("no such stripe", |c| c.pull(pull(at(stripe))));
    }
    target.refuses("without a cursor", |c| c.pull(pull(None)));
    target.refuses("without its sender", |c| {
        c.pull(Pull::new(None, 0, 0, vec![], at(0)))
    });
    target.refuses("not ready to give", |c| c.pull(pull(at(0))));
    target.refuses("not ready to give", |c| {
        c.pull(Pull::new(
            peer(1),
            i64::MIN,
            i64::MAX,
            vec![peer(2)],
            at(255),
        ))
    });
    let nowhere = Peer::new(Location::new(String::new(), 0), 0);
    target.refuses("", |c| {
        c.pull(Pull::new(nowhere.clone(), 0, 0, vec![], at(0)))
    });
    target.refuses("", |c| {
        c.pull(Pull::new(peer(1), 0, 0, vec![nowhere.clone()], at(0)))
    });
    target.takes_a_second_node();
}

/// What a stranger tells: that it is in, and further than everybody else.
fn word_of(teller: impl Into<Option<Peer>>, views: Vec<i64>) -> Word {
    Word::new(teller, 5, Phase::SETTLED, true, 5, views, 1, 3, 9)
}

#[test]
fn a_word_without_its_teller_is_refused() {
    let target = Target::start(&[]);
    target.refuses("without its sender", |c| c.tell(Word::default(), true));
    target.refuses("without its sender", |c| {
        c.tell(word_of(None, vec![]), true)
    });
    let nowhere = Peer::new(Location::new(String::new(), 0), 0);
    target.refuses("", |c| c.tell(word_of(nowhere, vec![]), false));
    target.takes_a_second_node();
}

#[test]
fn ten_thousand_strangers_that_tell_of_themselves_leave_nothing_behind() {
    let target = Target::start(&[]);
    let flood = || {
        target
            .call(|client| {
                for stranger in 1..=10_000 {
                    client.tell(word_of(peer(stranger), vec![5; 100]), false)?;
                }
                // More views than any node goes through, and an impostor of the node.
                client.tell(word_of(peer(1), vec![5; 60_000]), false)?;
                let itself = Peer::new(Location::from(&target.node().location), 7);
                client.tell(word_of(itself, vec![5]), false)
            })
            .unwrap();
    };
    target.serves();
    let before = resident_kilobytes(target.node());
    flood();
    let grown = resident_kilobytes(target.node()).saturating_sub(before);
    eprintln!("{grown} kB more are resident");
    assert!(grown < 4096, "{grown} kB more are resident");
    target.takes_a_second_node();
}

#[test]
fn a_stranger_that_keeps_other_copies_does_not_end_a_node_that_is_not_in_yet() {
    let node = Node::bind(&BindOptions::at(0..=0), SERVICE).unwrap();
    let joiner = StoreHandler::new(node, Some(2), Limits::default());
    // Nobody has told the node yet who is in its network.
    joiner.handle_rebalance_status(word_of(peer(1), vec![5]), true).unwrap();
    assert!(joiner.store().failure().is_none());
}

#[test]
fn a_copy_that_cannot_be_true_is_refused_and_not_kept() {
    let target = Target::start(&["--max-value", "1000"]);
    let now = target.call(|c| c.write(b"now".to_vec(), vec![])).unwrap();
    let key = Some(b"forged".to_vec());
    let pair = |key: Option<Vec<u8>>, bytes, version| KeyValue::new(key, vec![0; bytes], version);
    let forgeries = [
        ("is not a version of this time", pair(key.clone(), 5, 0)),
        ("is not a version of this time", pair(key.clone(), 5, -1)),
        (
            "is not a version of this time",
            pair(key.clone(), 5, i64::MIN),
        ),
        (
            "is not a version of this time",
            pair(key.clone(), 5, i64::MAX),
        ),
        ("without a key", pair(None, 5, now)),
        ("a value of 1001 bytes", pair(key, 1001, now)),
        ("a key of 65537 bytes", pair(Some(vec![0; 65_537]), 5, now)),
    ];
    let true_one = pair(Some(b"kept".to_vec()), 5, now);
    for (reason, forgery) in forgeries {
        let pairs = vec![true_one.clone(), forgery];
        let kept = target.call(|c| c.replicate(pairs.clone(), 0)).unwrap();
        let declined = kept.declined.unwrap();
        assert_eq!(declined.len(), 1, "the other one is kept: {declined:?}");
        assert_eq!(declined[0].place, Some(1));
        let told = declined[0].reason.clone().unwrap();
        assert!(told.contains(reason), "{told}");
    }
    assert!(target.client().get(b"kept").unwrap().is_some());
    assert_eq!(target.client().get(b"forged").unwrap(), None);
    target.client().put(b"forged", b"true").unwrap();
    assert_eq!(target.client().get(b"forged").unwrap().unwrap(), b"true");
    target.takes_a_second_node();
}

#[test]
fn what_is_asked_of_another_view_or_another_primary_is_declined() {
    let target = Target::start(&[]);
    for view in [0, -1, i64::MIN, i64::MAX] {
        target.refuses("does not answer for that view", |c| {
            c.fetch_at(vec![b"still".to_vec()], view)
        });
    }
    target.refuses("without a key", |c| {
        c.write_as_primary(vec![KeyValue::new(None, b"value".to_vec(), 0)], 0)
    });
    let pair = KeyValue::new(b"stray".to_vec(), b"value".to_vec(), 0);
    let declined = target.call(|c| c.write_as_primary(vec![pair.clone()], 0));
    assert_eq!(
        declined.unwrap()[0].version,
        Some(-1),
        "it is not the process meant"
    );
    assert_eq!(target.client().get(b"stray").unwrap(), None);
    target.takes_a_second_node();
}

#[test]
fn a_write_beyond_a_limit_is_refused_and_an_empty_one_is_taken() {
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
    target.node().wait_for("lost the put of key");
    assert_eq!(target.client().get(b"key").unwrap(), None);
    assert_eq!(target.client().get(&long).unwrap(), None);

    let most = (&long[1..], vec![0; 1000]);
    target.client().put(most.0, &most.1).unwrap();
    assert_eq!(target.client().get(most.0).unwrap(), Some(most.1));
    target.client().put(b"", b"").unwrap();
    assert_eq!(target.client().get(b"").unwrap(), Some(vec![]));
    assert!(target.client().delete(b"").unwrap());
    assert_eq!(target.client().get(b"").unwrap(), None);
    target.takes_a_second_node();
}

#[test]
fn a_put_that_is_lost_costs_one_short_line_whatever_its_key() {
    let target = Target::start(&["--max-value", "10"]);
    let put = |key: Vec<u8>| target.call(|c| c.put(key, vec![0; 11])).unwrap();
    put(b"forged\n[2009-01-01T00:00:00Z ERROR] no such line".to_vec());
    put(vec![b'k'; 1024 * 1024]);
    target.node().wait_for("lost the put of");
    target.node().wait_for("a key of 1048576 bytes");
    for line in target.node().lines() {
        assert!(line.len() < 1000, "a line of {} bytes", line.len());
        assert!(!line.starts_with("[2009"), "a line that a dialer wrote");
    }
    target.takes_a_second_node();
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
fn a_write_that_ends_too_soon_writes_nothing() {
    let target = Target::start(&[]);
    let whole = message("write", &arguments_of_write(b"torn", b"value"));
    for length in 1..whole.len() {
        let answer = answer_to(target.node(), &whole[..length]);
        assert!(is_an_error(&answer, "write"), "after {length} bytes");
    }
    assert_eq!(target.client().get(b"torn").unwrap(), None);
    answer_to(target.node(), &whole);
    assert_eq!(target.client().get(b"torn").unwrap().unwrap(), b"value");
    target.takes_a_second_node();
}

/// Does this answer say that the call failed, by an exception of Thrift or a refusal?
/// A connection that was closed says so too.
fn is_an_error(answer: &[u8], method: &str) -> bool {
    let result = answer.get(12 + method.len()..);
    let is_refused = result.is_some_and(|result| result.starts_with(&[0x0c, 0, 1]));
    answer.is_empty() || answer[3] == 3 || answer[3] == 2 && is_refused
}

#[test]
fn a_call_without_its_arguments_costs_its_caller_alone() {
    let target = Target::start(&[]);
    let methods = [
        "get",
        "put",
        "write",
        "fetch",
        "unset",
        "write_many",
        "fetch_many",
        "scan",
        "coordinate",
        "replicate",
        "fetch_at",
        "tell",
        "pull",
    ];
    for method in methods {
        // Nothing at all, and a number where another type is due.
        for arguments in [&[0][..], &[0x08, 0, 1, 0, 0, 0, 7, 0]] {
            let answer = answer_to(target.node(), &message(method, arguments));
            assert!(
                is_an_error(&answer, method),
                "{method} with {arguments:?}: {answer:?}"
            );
            assert!(
                method != "put" || answer.is_empty(),
                "a oneway call answered"
            );
            target.serves();
        }
    }
    target.takes_a_second_node();
}

/// Sends `parts` until all are sent or the node has had enough; how many were sent.
fn flood(node: &NodeProcess, head: &[u8], part: &[u8], parts: usize) -> usize {
    let mut stream = connect(node);
    stream.write_all(head).unwrap();
    let sent = (0..parts).find(|_| stream.write_all(part).is_err());
    let mut answer = Vec::new();
    // The node closes with bytes unread, so the end may be a reset.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "such a message is not answered");
    sent.unwrap_or(parts)
}

#[test]
fn many_strings_that_add_up_to_too_much_cost_their_connection() {
    const STRINGS: u32 = 4_000;
    const LENGTH: u32 = 200_000;
    let target = Target::start(&[]);
    target.serves();
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
    assert!(sent < STRINGS as usize, "all of it was taken");
    target.node().wait_for("a message of more than");
    let grown = peak_kilobytes(target.node()) - before;
    eprintln!("{sent} strings sent, {grown} kB more were resident");
    assert!(grown < 40 * 1024, "{grown} kB more were resident");
    target.takes_a_second_node();
}

/// Keys that are no text, or look like something else.
fn strange_keys() -> Vec<Vec<u8>> {
    vec![
        (0..=255).collect(),
        (1..=255).collect(),
        // On the ring, these two are taken for one digest.
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
fn any_bytes_are_a_key_of_their_own_on_every_node() {
    let stores = Stores::start(2, &["--replicas", "1"]);
    let clients = stores.clients();
    for (number, key) in strange_keys().iter().enumerate() {
        clients[0].put(key, &[number as u8]).unwrap();
    }
    for (number, key) in strange_keys().iter().enumerate() {
        let owner = clients[0].owner(key).unwrap();
        assert_eq!(clients[1].owner(key).unwrap(), owner);
        for client in &clients {
            let value = client.get(key).unwrap();
            assert_eq!(value, Some(vec![number as u8]), "{key:?}");
        }
    }
    let held = |node: &NodeProcess| stats(&node.location).unwrap().keys.unwrap();
    let all: i64 = stores.nodes.iter().map(held).sum();
    assert_eq!(all, strange_keys().len() as i64, "each key has one copy");
}

#[test]
fn the_programs_take_any_bytes_without_a_nul() {
    let stores = Stores::start(2, &[]);
    let [one, other] = [0, 1].map(|index: usize| stores.nodes[index].at());
    let keys: Vec<_> = strange_keys()
        .into_iter()
        .filter(|key| !key.contains(&0))
        .collect();
    for key in &keys {
        let put = run_with_bytes("storeput", &["-h", one], &[key, key]);
        let told = String::from_utf8_lossy(&put.stderr);
        assert!(put.status.success(), "{key:?}: {told}");
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
fn calls_that_come_at_once_are_answered_alike_however_they_are_written() {
    let target = Target::start(&[]);
    target.client().put(b"key", b"value").unwrap();
    let key = [11, 0, 1, 0, 0, 0, 3, b'k', b'e', b'y'];
    let unknown_field = [2, 0, 9, 1];
    let plain = message("fetch", &[&key[..], &[0]].concat());
    let odd = message("fetch", &[&unknown_field[..], &key, &[0]].concat());
    let answer = answer_to(target.node(), &plain);
    assert!(answer.ends_with(&[0, 0]) && answer.windows(5).any(|part| part == b"value"));
    assert_eq!(answer_to(target.node(), &odd), answer);
    let calls = [&plain[..], &odd, &plain].concat();
    let answers = [&answer[..]; 3].concat();
    assert_eq!(answer_to(target.node(), &calls), answers);

    // So many that they are not read at once, and some are cut in two.
    let (many, at_number) = (400, 4 + 4 + "fetch".len());
    let numbered = |message: &[u8], number: u32| {
        let mut message = message.to_vec();
        message[at_number..at_number + 4].copy_from_slice(&number.to_be_bytes());
        message
    };
    let all =
        |message: &[u8]| -> Vec<u8> { (0..many).flat_map(|n| numbered(message, n)).collect() };
    assert!(all(&plain).len() > 10_000 && answer_to(target.node(), &all(&plain)) == all(&answer));
}
