//! Does bad input give its sender a clear error, and harm no one else?

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use common::raw::{connect, message, reply_to};
use common::{NodeProcess, SOON, eventually, resident_kilobytes, run};
use thrift::protocol::{
    TBinaryInputProtocol, TCompactInputProtocol, TInputProtocol, TMessageType, TType,
};
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::{Input, Output, call};

type StoreClient = StoreSyncClient<Input, Output>;

fn is_serving(node: &NodeProcess) -> bool {
    call(LocatorSyncClient::new, &node.location, |peer| peer.ping()).is_ok()
}

#[test]
fn another_protocol_closes_its_connection_and_logs_one_line() {
    let node = NodeProcess::start_bootstrap("location");
    let other: [(&[u8], &str); 3] = [
        (
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            "TLS, where Thrift was expected",
        ),
        (&[0xff; 64], "not a message of Thrift's binary protocol"),
        (
            &[0x12, 0x34, 0x56, 0x78, 0x9a],
            "not a message of Thrift's binary protocol",
        ),
    ];
    for (bytes, reason) in other {
        let before = node.lines().len();
        assert_eq!(reply_to(&node, bytes), b"", "{reason}");
        // A line with the same reason may be there from before.
        eventually(reason, SOON, || node.lines().len() > before);
        assert!(is_serving(&node));
        let lines = node.lines();
        assert!(lines[before].contains(reason), "{lines:?}");
        assert_eq!(lines.len(), before + 1, "more than one line for {reason}");
    }
}

#[test]
fn clients_of_other_transports_and_protocols_are_answered_and_named_in_the_log() {
    let node = NodeProcess::start_bootstrap("location");
    let call = message("ping", &[0]);
    let framed = [&(call.len() as u32).to_be_bytes(), &call[..]].concat();
    let compact = [0x82, 0x21, 5, 4, b'p', b'i', b'n', b'g', 0];
    let framed_compact = [&[0, 0, 0, 9], &compact[..]].concat();
    let http = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n\x80";
    let framed_text = "framed, where buffered was expected";
    let compact_text = "the compact protocol, where the binary protocol was expected";
    let framed_compact_text =
        "the compact protocol, framed, where binary and buffered was expected";

    let answer = reply_to(&node, &framed);
    assert_eq!(answer[..4], (answer.len() as u32 - 4).to_be_bytes());
    let told = ("ping".to_owned(), Some(framed_text.to_owned()));
    assert_eq!(outcomes(&answer[4..]), [told]);

    let told = |answer: &[u8]| {
        let mut input = TCompactInputProtocol::new(answer);
        let head = input.read_message_begin().unwrap();
        assert_eq!(head.message_type, TMessageType::Exception);
        assert_eq!((head.name.as_str(), head.sequence_number), ("ping", 5));
        thrift::Error::read_application_error_from_in_protocol(&mut input)
            .unwrap()
            .message
    };
    assert_eq!(told(&reply_to(&node, &compact)), compact_text);
    let answer = reply_to(&node, &framed_compact);
    assert_eq!(told(&answer[4..]), framed_compact_text);

    let answer = String::from_utf8(reply_to(&node, http)).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\nHTTP, where Thrift was expected\n"),
        "{answer}"
    );
    for text in [
        framed_text,
        compact_text,
        framed_compact_text,
        "HTTP, where Thrift",
    ] {
        node.wait_for(text);
    }
    assert!(is_serving(&node));
}

/// The method of each message, and its text if it is an application exception.
fn outcomes(mut bytes: &[u8]) -> Vec<(String, Option<String>)> {
    let mut outcomes = Vec::new();
    while !bytes.is_empty() {
        let mut input = TBinaryInputProtocol::new(&mut bytes, true);
        let head = input.read_message_begin().unwrap();
        let text = if head.message_type == TMessageType::Exception {
            let error = thrift::Error::read_application_error_from_in_protocol(&mut input);
            Some(error.unwrap().message)
        } else {
            input.skip(TType::Struct).unwrap();
            None
        };
        outcomes.push((head.name, text));
    }
    outcomes
}

/// Sends `calls` and then a ping on one connection. Returns the texts of the exceptions that
/// answer the calls.
fn exceptions(node: &NodeProcess, calls: &[Vec<u8>]) -> Vec<String> {
    let all = [calls.concat(), message("ping", &[0])].concat();
    let mut outcomes = outcomes(&reply_to(node, &all));
    assert_eq!(
        outcomes.pop(),
        Some(("ping".to_owned(), None)),
        "after {outcomes:?}"
    );
    let texts = outcomes.into_iter().map(|(method, text)| {
        text.unwrap_or_else(|| panic!("{method} did not end in an exception"))
    });
    let texts: Vec<String> = texts.collect();
    assert_eq!(texts.len(), calls.len(), "a reply to each call: {texts:?}");
    texts
}

#[test]
fn pipelined_calls_after_an_exception_each_get_their_reply() {
    let node = NodeProcess::start_bootstrap("location");
    // A large string, and a map of numbers to lists of structs.
    let mut unknown = vec![0x0b, 0, 1];
    unknown.extend((4u32 << 20).to_be_bytes());
    unknown.extend(vec![b'x'; 4 << 20]);
    unknown.extend([0x0d, 0, 2, 0x08, 0x0f, 0, 0, 0, 1, 0, 0, 0, 7]);
    unknown.extend([0x0c, 0, 0, 0, 2, 0x02, 0, 1, 1, 0, 0, 0]);
    let texts = exceptions(
        &node,
        &[
            message("no_such_method", &unknown),
            message("get_node", &[0]),
            message("ping_req", &[0x0b, 0, 2, 0, 0, 0, 1, b'a', 0]),
        ],
    );
    assert!(texts[0].contains("unknown method"), "{texts:?}");
    assert!(texts[1].contains("missing required field"), "{texts:?}");
    assert!(texts[2].contains("missing required field"), "{texts:?}");
    node.wait_for("no_such_method ended in an exception");
    assert!(!node.says("closed the connection"), "{:?}", node.lines());
}

#[test]
fn an_argument_of_another_type_does_nothing_and_the_next_call_is_served() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let store = |body: fn(&mut StoreClient) -> thrift::Result<Option<Vec<u8>>>| {
        call(StoreSyncClient::new, &node.location, body).unwrap()
    };
    store(|store| store.write(Vec::new(), b"kept".to_vec()).map(|_| None));
    store(|store| store.write(b"a".to_vec(), b"kept".to_vec()).map(|_| None));
    let number = [0x08, 0, 1, 0, 0, 0, 7, 0];
    let numbers = [0x0f, 0, 1, 0x08, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0];
    // write_many: [Write { key: "a", value: 7 }, Write {}]
    let value = [
        &[0x0f, 0, 1, 0x0c, 0, 0, 0, 2, 0x0b, 0, 1, 0, 0, 0, 1, b'a'][..],
        &[0x08, 0, 2, 0, 0, 0, 7, 0, 0, 0],
    ];
    // A location whose port is a list, and an address that is not UTF-8.
    let port = [
        0x0c, 0, 1, 0x0f, 0, 2, 0x0b, 0, 0, 0, 1, 0, 0, 0, 1, b'p', 0, 0,
    ];
    let address = [0x0c, 0, 1, 0x0b, 0, 1, 0, 0, 0, 1, 0xff, 0, 0];
    let mut calls = vec![
        message("unset", &number),
        message("fetch", &number),
        message("fetch_many", &numbers),
        message("write_many", &value.concat()),
        message("ping_req", &port),
    ];
    // Deeper than the depth at which the next call would fail if depths were not taken back.
    calls.extend(vec![message("ping_req", &port); 100]);
    let texts = exceptions(&node, &calls);
    let expected = [
        "i32 where string",
        "i32 where string",
        "i32 where string",
        "i32 where string",
    ];
    for (text, expected) in texts
        .iter()
        .zip(expected)
        .chain([(&texts[4], "list where i16")])
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let texts = exceptions(&node, &[message("ping_req", &address)]);
    assert!(texts[0].contains("utf-8"), "{texts:?}");
    for key in [
        store(|store| Ok(store.fetch(Vec::new())?.value)),
        store(|store| Ok(store.fetch(b"a".to_vec())?.value)),
    ] {
        assert_eq!(key.as_deref(), Some(&b"kept"[..]));
    }
}

#[test]
fn a_list_of_65536_keys_is_served_and_a_longer_one_is_an_exception_with_the_limit() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let keys = |count: u32| {
        let mut arguments = vec![0x0f, 0, 1, 0x0b];
        arguments.extend(count.to_be_bytes());
        arguments.extend([0, 0, 0, 1, b'a'].repeat(count as usize));
        arguments.push(0);
        message("fetch_many", &arguments)
    };
    let texts = exceptions(&node, &[keys(65_537)]);
    let expected = "a list of 65537 elements, where at most 65536 are accepted";
    assert!(texts[0].contains(expected), "{texts:?}");
    let served = outcomes(&reply_to(&node, &keys(65_536)));
    assert_eq!(served, [("fetch_many".to_owned(), None)]);
}

#[test]
fn a_message_over_the_limit_is_answered_before_its_connection_is_closed() {
    let node = NodeProcess::start(
        "location",
        &["--bootstrap", "--max-message-size", "1048576"],
    );
    let mut arguments = vec![0x0b, 0, 1];
    arguments.extend((8u32 << 20).to_be_bytes());
    arguments.extend(vec![b'x'; 8 << 20]);
    arguments.push(0);
    let answered = outcomes(&reply_to(&node, &message("get_node", &arguments)));
    let text = answered[0].1.as_deref().unwrap();
    assert!(
        text.contains("a message of more than 1048576 bytes"),
        "{text}"
    );
    assert!(is_serving(&node));
}

#[test]
fn an_incomplete_message_is_discarded_when_its_sender_disconnects() {
    let node = NodeProcess::start_bootstrap("location");
    let whole = message("get_node", &[0x0b, 0, 1, 0, 0, 0, 1, b'a', 0]);
    for length in 1..whole.len() {
        let mut stream = connect(&node);
        stream.write_all(&whole[..length]).unwrap();
        drop(stream);
    }
    assert!(is_serving(&node));
    eventually("no thread is left of the incomplete calls", SOON, || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.id()))
            .unwrap()
            .count();
        tasks < 10
    });
}

#[test]
fn a_length_without_its_bytes_takes_no_memory() {
    let node = NodeProcess::start_bootstrap("location");
    assert!(is_serving(&node));
    let before = resident_kilobytes(&node);
    let huge_name = [&[0x80, 1, 0, 1][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let huge_key = message("get_node", &[0x0b, 0, 1, 0x7f, 0xff, 0xff, 0xff]);
    let negative_key = message("get_node", &[0x0b, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let huge_list = message("add", &[0x0f, 0, 2, 0x0c, 0x7f, 0xff, 0xff, 0xff]);
    for _ in 0..20 {
        for bytes in [&huge_name, &huge_key, &negative_key, &huge_list] {
            reply_to(&node, bytes);
        }
    }
    assert!(is_serving(&node));
    let grown = resident_kilobytes(&node).saturating_sub(before);
    assert!(grown < 4096, "{grown} kB more are resident");
}

#[test]
fn a_call_of_an_unknown_method_gets_an_unknown_method_exception() {
    let node = NodeProcess::start_bootstrap("location");
    let reply = reply_to(&node, &message("no_such_method", &[0]));
    let mut protocol = TBinaryInputProtocol::new(&reply[..], true);
    let head = protocol.read_message_begin().unwrap();
    assert_eq!(
        (head.name.as_str(), head.message_type),
        ("no_such_method", TMessageType::Exception)
    );
    let error = thrift::Error::read_application_error_from_in_protocol(&mut protocol).unwrap();
    assert_eq!(error.kind, thrift::ApplicationErrorKind::UnknownMethod);
    assert!(is_serving(&node));
}

#[test]
fn a_oneway_call_gets_no_reply_even_if_its_arguments_are_bad() {
    let node = NodeProcess::start_bootstrap("location");
    // A join whose location is a number, and one without a location.
    for arguments in [&[0x08, 0, 1, 0, 0, 0, 7, 0][..], &[0]] {
        assert_eq!(reply_to(&node, &message("join", arguments)), b"");
    }
    assert!(is_serving(&node));
}

#[test]
fn an_invalid_location_is_refused() {
    let node = NodeProcess::start_bootstrap("location");
    let invalid = [
        locator::Location::new(String::new(), 9900),
        locator::Location::new("127.0.0.1".to_owned(), 0),
        locator::Location::new(None, None),
    ];
    for location in invalid {
        call(LocatorSyncClient::new, &node.location, |peer| {
            peer.join(location.clone())
        })
        .unwrap();
        let probed = call(LocatorSyncClient::new, &node.location, |peer| {
            peer.ping_req(location.clone())
        });
        assert!(probed.is_err(), "{location:?} was accepted");
    }
    node.wait_for("ignored a join");
    let all = call(LocatorSyncClient::new, &node.location, |peer| {
        peer.get_all()
    })
    .unwrap();
    assert_eq!(all, [locator::Location::from(&node.location)]);
}

#[test]
fn implausible_gossip_adds_no_member() {
    let node = NodeProcess::start_bootstrap("location");
    let member = |port: i16, incarnation: i64| {
        let location = locator::Location::new("127.0.0.1".to_owned(), port);
        locator::Member::new(
            location,
            incarnation,
            locator::Status::ALIVE,
            incarnation,
            None,
        )
    };
    let gossip = |network: &str, members| {
        let sender = locator::Location::new("127.0.0.1".to_owned(), 1);
        locator::Gossip::new(sender, network.to_owned(), 0, members, false, None, None)
    };
    let exchange = |gossip: locator::Gossip| {
        call(LocatorSyncClient::new, &node.location, |peer| {
            peer.exchange(gossip.clone())
        })
    };
    let known = || {
        call(LocatorSyncClient::new, &node.location, |peer| {
            peer.members()
        })
        .unwrap()
        .members
        .unwrap()
        .len()
    };

    let foreign = exchange(gossip("another.Network", vec![member(2, 1)])).unwrap();
    let network = foreign.network.unwrap();
    assert!(network.starts_with("locator.Locator/"), "{network}");
    assert_eq!(
        foreign.members,
        Some(vec![]),
        "a node of another network gets no members"
    );
    exchange(gossip(
        "locator.Locator",
        vec![member(2, i64::MAX), member(3, -1)],
    ))
    .unwrap();
    exchange(locator::Gossip::default()).unwrap_err();
    let too_many = (1..=20_000).map(|port| member(port, 1)).collect();
    exchange(gossip("locator.Locator", too_many)).unwrap_err();
    assert_eq!(known(), 1, "only the node itself is known");
}

#[test]
fn wrong_usage_prints_a_reason_and_exits_with_2() {
    for (arguments, expected) in [
        (&["--port", "70000"][..], "70000"),
        (&["--host", "host:"], "a port is a number from 1 to 65535"),
        (&["--advertise", "nonsense"], "nonsense"),
        (&["--advertise", "0.0.0.0"], "did you mean --bind 0.0.0.0?"),
        (&["--advertise", "::"], "did you mean --bind ::?"),
        (&["--advertise", "255.255.255.255"], "did you mean --bind"),
        (&["--advertise", "224.0.0.1"], "did you mean --bind"),
        (&["--advertise", "ff02::1"], "did you mean --bind"),
        (&["--network", "a/b"], "letters, digits, dots"),
        (&["--what"], "--what"),
        (&["surplus"], "surplus"),
    ] {
        let output = run("location", arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        let is_checked_later = expected.starts_with("did you mean");
        assert!(
            is_checked_later || stderr.contains("Usage") || stderr.contains("--help"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn a_node_at_a_used_port_reports_that_it_is_in_use_and_exits_with_2() {
    let node = NodeProcess::start_bootstrap("location");
    let output = run("location", &["--port", &node.location.port().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"));
}

#[test]
fn a_node_whose_peer_cannot_be_called_exits_with_3() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (peer, expected) in [
        (unused.to_string(), "nothing listens at"),
        ("no.such.host.invalid:9900".into(), "does not resolve"),
    ] {
        let output = run("location", &["--port", "0", "--host", &peer]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{peer}: {stderr}");
        assert!(stderr.contains(expected), "{peer}: {stderr}");
    }
}

#[test]
fn silent_connections_delay_no_call_on_another() {
    let node = NodeProcess::start_bootstrap("location");
    let silent: Vec<TcpStream> = (0..100).map(|_| connect(&node)).collect();
    assert!(is_serving(&node));
    drop(silent);
}

#[test]
fn a_node_ends_without_waiting_for_idle_connections() {
    let mut node = NodeProcess::start_bootstrap("location");
    let idle: Vec<TcpStream> = (0..10).map(|_| connect(&node)).collect();
    let began = std::time::Instant::now();
    assert!(node.interrupt().success());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "took {:?}",
        began.elapsed()
    );
    drop(idle);
    assert!(matches!(
        call(
            LocatorSyncClient::new,
            &Location::clone(&node.location),
            |peer| peer.ping()
        ),
        Err(thrifty_p2p::error::Error::Refused(..))
    ));
}
