//! Do untrusted clients that open, fill, stall and corrupt connections harm other clients?
//!
//! With `ATTACK_LONG=1` the attack takes a minute, against nodes with the default limits and
//! with more than ten thousand connections, where the host allows a process as many file
//! descriptors. Its figures are meaningful on an otherwise idle machine only.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{connect, message};
use common::stores::{Stores, stats};
use common::untrusted::{Attack, available_connections};
use common::{NodeProcess, SOON, eventually, resident_kilobytes};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{ServerStats, StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::locator::TBaseSyncClient;
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts};
use thrifty_p2p::status::store::StoreStatus;

const NODES: usize = 3;

/// The size of the attack, and the bound for its effect.
struct Plan {
    /// The options of the nodes.
    options: Vec<String>,
    /// Idle connections to the first node, more than it accepts.
    idle: usize,
    /// How long the calls of a well-behaved client are measured before the attack.
    before: Duration,
    attack: Duration,
    /// The bound for the slowest of a hundred calls of a well-behaved client.
    bound: Duration,
}

impl Plan {
    fn chosen() -> Plan {
        if std::env::var_os("ATTACK_LONG").is_some() {
            return Plan {
                options: Vec::new(),
                idle: available_connections(11_000),
                before: Duration::from_secs(10),
                attack: Duration::from_secs(60),
                bound: Duration::from_secs(1),
            };
        }
        let idle = available_connections(3_000);
        let max = (idle / 2).to_string();
        let options = ["--max-connections", &max, "--message-timeout", "1"];
        Plan {
            options: options.map(str::to_owned).to_vec(),
            idle,
            before: Duration::from_secs(1),
            attack: Duration::from_secs(7),
            bound: Duration::from_secs(2),
        }
    }
}

/// Calls that are sent corrupted. None of them ends a node or names another node, because such
/// a node might exist.
fn calls() -> Vec<Vec<u8>> {
    let harmful = ["die", "join", "add", "remove"];
    let bytes = |hex: &str| {
        let digits = (0..hex.len()).step_by(2);
        digits
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let rows = include_str!("data/wire.tsv").lines();
    rows.filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|cells| !harmful.contains(&cells[1]))
        .map(|cells| bytes(cells[3]))
        .collect()
}

/// Writes and reads for that time, and checks every result. Returns the sorted times of the
/// reads.
fn well_behaved(stores: &Stores, name: &str, time: Duration) -> Vec<Duration> {
    let clients = stores.clients();
    let deadline = Instant::now() + time;
    let mut times = Vec::new();
    for number in 0.. {
        let client = &clients[number % clients.len()];
        let key = format!("{name} {number}").into_bytes();
        client.put(&key, &key).unwrap();
        let began = Instant::now();
        assert_eq!(client.get(&key).unwrap().as_deref(), Some(&key[..]));
        times.push(began.elapsed());
        if Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    times
}

fn slowest_of_a_hundred(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

fn server_stats(node: &NodeProcess) -> ServerStats {
    stats(&node.location).unwrap().server.unwrap()
}

/// The sum of one counter over all nodes.
fn sum(stores: &Stores, counter: impl Fn(&ServerStats) -> Option<i64>) -> i64 {
    let counts = stores.nodes.iter();
    counts
        .map(|node| counter(&server_stats(node)).unwrap())
        .sum()
}

#[test]
fn an_attack_of_every_kind_shuts_no_client_out() {
    let plan = Plan::chosen();
    let options: Vec<&str> = plan.options.iter().map(String::as_str).collect();
    let stores = Stores::start(NODES, &options);
    let large = vec![7; 1024 * 1024];
    stores.clients()[0].put(b"large", &large).unwrap();
    let before = slowest_of_a_hundred(&well_behaved(&stores, "before", plan.before));
    let nodes: Vec<String> = stores.nodes.iter().map(|n| n.at().to_owned()).collect();
    let attack = Attack {
        nodes: &nodes,
        large: "large",
        is_stopped: AtomicBool::new(false),
    };
    let calls = calls();
    assert!(calls.len() > 10, "too few calls to corrupt");
    let (times, opened) = thread::scope(|scope| {
        let flood = scope.spawn(|| attack.flood(plan.idle));
        scope.spawn(|| attack.send_slowly(50));
        scope.spawn(|| attack.never_read(9));
        scope.spawn(|| attack.send_partial_calls(100));
        scope.spawn(|| attack.send_garbage(&calls, 1));
        scope.spawn(|| attack.open_and_close());
        let times = well_behaved(&stores, "during", plan.attack);
        attack.is_stopped.store(true, Relaxed);
        (times, flood.join().unwrap())
    });
    let during = slowest_of_a_hundred(&times);
    let says = |text: &str| stores.nodes.iter().any(|node| node.says(text));
    let memory = stores.nodes.iter().map(resident_kilobytes).max();
    eprintln!(
        "the slowest of a hundred reads took {before:?} before the attack, and {during:?} during \
        it ({} reads); {opened} idle connections were opened; a node has up to {memory:?} kB \
        resident; was a member suspected: {}\n{}",
        times.len(),
        says("suspecting "),
        StoreStatus::ask(&Dialer::default(), &stores.nodes[0].location)
            .unwrap()
            .table()
    );
    assert!(during < plan.bound, "{during:?}, before it {before:?}");
    assert!(opened > plan.idle, "not all were opened: {opened}");
    assert!(
        !says("removed ") || says("this process was paused for"),
        "a member was declared down"
    );
    assert!(sum(&stores, |stats| stats.evicted) > 0);
    assert!(sum(&stores, |stats| stats.malformed) > 0);
    assert!(sum(&stores, |stats| stats.timed_out) > 0);
    stores.settle();
    let client = &stores.clients()[0];
    for number in 0..times.len() {
        let key = format!("during {number}").into_bytes();
        assert_eq!(client.get(&key).unwrap().as_deref(), Some(&key[..]));
    }
}

/// Makes one `get` and waits for its reply.
fn get_once(stream: &mut TcpStream) {
    let call = message("get", &[0x0b, 0, 1, 0, 0, 0, 1, b'a', 0]);
    stream.write_all(&call).unwrap();
    let mut reply = [0; 100];
    assert!(stream.read(&mut reply).unwrap() > 0, "no reply");
}

#[test]
fn five_thousand_idle_connections_take_less_than_150_megabytes() {
    // The node may need a third more descriptors than there are connections.
    let count = (available_connections(usize::MAX) / 3 * 2).min(5_000);
    let node = NodeProcess::start_bootstrap("storeserver");
    let mut open: Vec<TcpStream> = (0..count).map(|_| connect(&node)).collect();
    open.iter_mut().for_each(get_once);
    let resident = resident_kilobytes(&node);
    eprintln!("{count} idle connections: {resident} kB resident");
    assert!(resident < 30 * count as u64, "{resident} kB are resident");
    let stats = server_stats(&node);
    assert!(stats.open.unwrap() > count as i64, "{stats:?}");
    open.iter_mut().for_each(get_once);
}

/// Has the node closed this connection?
fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        // The reply to an incomplete message.
        Ok(_) => false,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn each_limit_can_be_set_and_what_it_closes_is_counted_and_shown() {
    let options = [
        "--bootstrap",
        "--idle-timeout",
        "1",
        "--message-timeout",
        "1",
    ];
    let sizes = ["--max-message-size", "1048576", "--max-key", "10"];
    let node = NodeProcess::start("storeserver", &[&options[..], &sizes].concat());
    let mut idle = connect(&node);
    let mut served = connect(&node);
    get_once(&mut served);
    let mut partial = connect(&node);
    partial.write_all(&message("get", &[0x0b])).unwrap();
    eventually("idle connections are closed", SOON, || {
        is_closed(&mut idle) && is_closed(&mut served)
    });
    eventually("one with half a message is closed", SOON, || {
        is_closed(&mut partial)
    });
    let mut large = connect(&node);
    let half = vec![b'h'; 600 * 1024];
    let field = |id| {
        let length = (half.len() as u32).to_be_bytes();
        [&[0x0b, 0, id][..], &length, &half].concat()
    };
    // The node may close the connection before everything is sent.
    let _ = large.write_all(&message("write", &[field(1), field(2), vec![0]].concat()));
    node.wait_for("closed the connection of");
    let client = StoreClient::new(node.location.clone());
    let refused = client.put(b"a key too long", b"").unwrap_err().to_string();
    assert!(refused.contains("at most 10 are accepted"), "{refused}");
    eventually("all are counted", SOON, || {
        let stats = server_stats(&node);
        stats.idle >= Some(2) && stats.timed_out == Some(1) && stats.too_large == Some(1)
    });
    let status = StoreStatus::ask(&Dialer::default(), &node.location).unwrap();
    let table = status.table();
    for words in ["idle", "1 timed out", "1 too large"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert_eq!(status.json()["nodes"][0]["server"]["too_large"], 1);
}

#[test]
fn too_many_connections_from_one_address_close_none_of_another_address() {
    let limits = ["--bootstrap", "--max-connections-per-ip", "20"];
    let node = NodeProcess::start("storeserver", &limits);
    let mut other = connect(&node);
    get_once(&mut other);
    let idle: Vec<TcpStream> = (0..100)
        .map(|_| connect_from([127, 0, 0, 2], &node))
        .collect();
    eventually("only 20 are left", SOON, || {
        server_stats(&node).evicted_by_address == Some(80)
    });
    get_once(&mut other);
    node.wait_for("20 from that address are open");
    drop(idle);
}

/// A connection from that loopback address.
fn connect_from(address: [u8; 4], node: &NodeProcess) -> TcpStream {
    let [a, b, c, d] = address;
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    let peer = SockaddrIn::new(127, 0, 0, 1, node.location.port());
    socket::connect(socket.as_raw_fd(), &peer).unwrap();
    TcpStream::from(socket)
}

#[test]
fn a_client_that_calls_occasionally_keeps_its_connection_when_the_table_is_full() {
    let limits = ["--bootstrap", "--max-connections", "50"];
    let node = NodeProcess::start("storeserver", &limits);
    let timeouts = Timeouts::default();
    let mut client = Dialer::default()
        .connect(timeouts, StoreSyncClient::new, &node.location)
        .unwrap();
    client.ping().unwrap();
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.extend((0..25).map(|_| connect(&node)));
        eventually("all are accepted", SOON, || {
            server_stats(&node).opened > Some(idle.len() as i64)
        });
        client.get(b"a".to_vec()).unwrap();
    }
    let stats = server_stats(&node);
    assert!(stats.open <= Some(50), "{stats:?}");
    assert!(stats.evicted >= Some(450), "{stats:?}");
}
