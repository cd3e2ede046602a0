//! Does the network between the hosts of a test fail as it is told to?
//!
//! The hosts are network namespaces (see `common::hosts`). Where they cannot be created, the tests
//! are skipped with a message.

#![cfg(target_os = "linux")]

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::hosts::{Hosts, address};
use common::load::bytes;
use common::{SOON, eventually};

/// A UDP socket on a host.
fn socket_on(hosts: &Hosts, host: usize) -> UdpSocket {
    let socket = hosts.on(host, || UdpSocket::bind((address(host), 9000)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Sockets on the hosts, by which a test sees what arrives.
fn sockets_on(hosts: &Hosts) -> Vec<UdpSocket> {
    (0..hosts.client())
        .map(|host| socket_on(hosts, host))
        .collect()
}

fn send(sockets: &[UdpSocket], from: usize, to: usize, text: &str) {
    let receiver = sockets[to].local_addr().unwrap();
    sockets[from].send_to(text.as_bytes(), receiver).unwrap();
}

/// The next datagram that arrives at a host.
fn receive(sockets: &[UdpSocket], at: usize) -> String {
    let mut buffer = [0; 100];
    let (size, _) = sockets[at]
        .recv_from(&mut buffer)
        .expect("a datagram arrives");
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

/// Is the next datagram from one host to another one delivered at once?
fn is_delivered(sockets: &[UdpSocket], from: usize, to: usize) -> bool {
    let text = format!("from {from} to {to}");
    send(sockets, from, to, &text);
    receive(sockets, to) == text
}

/// Sends a datagram over a cut link, and waits until it is dropped.
fn send_in_vain(hosts: &Hosts, sockets: &[UdpSocket], from: usize, to: usize) {
    let before = hosts.dropped(from, to);
    send(sockets, from, to, "must not arrive");
    eventually("it is dropped", SOON, || {
        hosts.dropped(from, to) == before + 1
    });
}

/// Connects from one host to the port 8000 of another one.
fn connect(
    hosts: &Hosts,
    from: usize,
    to: usize,
    timeout: Duration,
) -> Result<TcpStream, ErrorKind> {
    let target = format!("{}:8000", address(to)).parse().unwrap();
    hosts
        .on(from, || TcpStream::connect_timeout(&target, timeout))
        .map_err(|e| e.kind())
}

#[test]
fn a_link_that_is_cut_one_way_drops_silently_in_that_direction_only() {
    let Some(hosts) = Hosts::create_or_skip(3) else {
        return;
    };
    let sockets = sockets_on(&hosts);
    hosts.cut_one_way(0, 1);
    send_in_vain(&hosts, &sockets, 0, 1);
    for (from, to) in [(1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        assert!(is_delivered(&sockets, from, to), "from {from} to {to}");
        assert_eq!(hosts.dropped(from, to), 0);
    }
    hosts.heal(0, 1);
    assert!(is_delivered(&sockets, 0, 1));
}

#[test]
fn a_connection_over_a_cut_link_is_not_refused_but_times_out() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let refused = connect(&hosts, 0, 1, SOON).err();
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    let _listener = hosts.on(1, || TcpListener::bind("0.0.0.0:8000").unwrap());
    connect(&hosts, 0, 1, SOON).unwrap();
    // Whichever direction is cut: a host needs both to connect.
    for (from, to) in [(0, 1), (1, 0)] {
        hosts.cut_one_way(from, to);
        // Longer than an ARP request would take to fail.
        let silent = connect(&hosts, 0, 1, Duration::from_secs(4)).err();
        assert_eq!(silent, Some(ErrorKind::TimedOut), "from {from} to {to} cut");
        hosts.heal(0, 1);
        connect(&hosts, 0, 1, SOON).unwrap();
    }
}

#[test]
fn a_split_network_works_within_each_side_and_for_the_client_and_heals() {
    let Some(hosts) = Hosts::create_or_skip(5) else {
        return;
    };
    let mut sockets = sockets_on(&hosts);
    sockets.push(socket_on(&hosts, hosts.client()));
    let sides: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
    hosts.split(sides[0], sides[1]);
    let side = |host| sides.iter().position(|side| side.contains(&host));
    for from in 0..=hosts.client() {
        for to in (0..=hosts.client()).filter(|to| *to != from) {
            let is_apart = from != hosts.client() && to != hosts.client() && side(from) != side(to);
            if is_apart {
                send_in_vain(&hosts, &sockets, from, to);
            } else {
                assert!(is_delivered(&sockets, from, to), "from {from} to {to}");
            }
        }
    }
    hosts.heal_all();
    for from in sides[0] {
        assert!(is_delivered(&sockets, *from, 4), "from {from}");
    }
}

#[test]
fn a_slow_link_delays_in_its_direction_only_and_keeps_the_order() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let sockets = sockets_on(&hosts);
    let delay = Duration::from_secs(1);
    hosts.delay_one_way(0, 1, delay);
    let began = Instant::now();
    for number in 0..20 {
        send(&sockets, 0, 1, &number.to_string());
    }
    send(&sockets, 1, 0, "fast");
    assert_eq!(receive(&sockets, 0), "fast");
    let fast = began.elapsed();
    for number in 0..20 {
        assert_eq!(receive(&sockets, 1), number.to_string());
    }
    let slow = began.elapsed();
    assert!(fast < delay && slow >= delay, "{fast:?} {slow:?}");
}

#[test]
fn a_cut_drops_what_a_slow_link_has_not_delivered_yet() {
    let Some(hosts) = Hosts::create_or_skip(3) else {
        return;
    };
    let sockets = sockets_on(&hosts);
    hosts.delay_one_way(0, 1, Duration::from_secs(2));
    send(&sockets, 0, 1, "must not arrive");
    // The switch has read the first datagram once the second one arrives.
    assert!(is_delivered(&sockets, 0, 2));
    hosts.cut(0, 1);
    assert_eq!(hosts.dropped(0, 1), 0);
    eventually("it is dropped", SOON, || hosts.dropped(0, 1) == 1);
    hosts.heal(0, 1);
    assert!(is_delivered(&sockets, 0, 1));
}

#[test]
fn a_lossy_link_drops_its_share_and_a_connection_survives_it() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let sockets = sockets_on(&hosts);
    sockets[1].set_nonblocking(true).unwrap();
    hosts.lose_one_way(0, 1, 0.3);
    for _ in 0..200 {
        send(&sockets, 0, 1, "maybe");
    }
    let mut received = 0;
    eventually("each is either received or dropped", SOON, || {
        while sockets[1].recv_from(&mut [0; 100]).is_ok() {
            received += 1;
        }
        received + hosts.dropped(0, 1) == 200
    });
    assert!((120..160).contains(&received), "{received} of 200 arrived");
    hosts.lose(0, 1, 0.05);
    assert_eq!(echoed(&hosts, 300_000), 300_000);
}

#[test]
fn a_large_transfer_arrives_whole() {
    let Some(hosts) = Hosts::create_or_skip(2) else {
        return;
    };
    let began = Instant::now();
    assert_eq!(echoed(&hosts, 50_000_000), 50_000_000);
    eprintln!("50 MB there and back in {:?}", began.elapsed());
}

/// Sends that many bytes from host 0 to host 1, which sends them back. Returns how many arrive
/// unchanged.
fn echoed(hosts: &Hosts, count: usize) -> usize {
    let listener = hosts.on(1, || TcpListener::bind("0.0.0.0:8000").unwrap());
    let stream = connect(hosts, 0, 1, SOON).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let sent = bytes(count, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            io::copy(&mut peer.try_clone().unwrap(), &mut peer).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).unwrap();
        let same = received
            .iter()
            .zip(&sent)
            .filter(|(one, other)| one == other);
        same.count()
    })
}
