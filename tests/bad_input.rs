//! Does bad input give its sender a clear error, and harm no one else?

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use common::raw::{connect, message, reply_to};
use common::{NodeProcess, SOON, eventually, resident_kilobytes, run};
use thrift::protocol::{TBinaryInputProtocol, TInputProtocol, TMessageType};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::call;

fn is_serving(node: &NodeProcess) -> bool {
    call(LocatorSyncClient::new, &node.location, |peer| peer.ping()).is_ok()
}

#[test]
fn another_protocol_closes_its_connection_and_logs_one_line() {
    let node = NodeProcess::start_bootstrap("location");
    let other: [(&[u8], &str); 4] = [
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "HTTP, where Thrift was expected",
        ),
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
        locator::Member::new(location, incarnation, locator::Status::ALIVE, incarnation)
    };
    let gossip = |network: &str, members| {
        let sender = locator::Location::new("127.0.0.1".to_owned(), 1);
        locator::Gossip::new(sender, network.to_owned(), 0, members, false, None)
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
    assert_eq!(foreign.network.as_deref(), Some("locator.Locator"));
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
        (&["--host", "nonsense"], "ADDRESS:PORT"),
        (&["--host", "host:"], "a port is a number from 1 to 65535"),
        (&["--advertise", "nonsense"], "nonsense"),
        (&["--what"], "--what"),
        (&["surplus"], "surplus"),
    ] {
        let output = run("location", arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("Usage") || stderr.contains("--help"),
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
