//! Do strangers who open, fill, dribble and garble connections cost anybody else anything?
//!
//! `ATTACK_LONG=1` lets them go on for a minute against nodes with the default limits,
//! more than ten thousand connections among them, where the host lets a process have
//! as many file descriptors; its figures mean something on a machine that does nothing
//! else.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{connect, message};
use common::stores::{Stores, stats};
use common::strangers::{Siege, may_open};
use common::{NodeProcess, SOON, eventually, resident_kilobytes};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient, ServerStats};
use thrifty_p2p::locator::TBaseSyncClient;
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts};
use thrifty_p2p::status::store::StoreStatus;

const NODES: usize = 3;

/// How hard the nodes are attacked, and what is expected.
struct Plan {
    /// Options of the nodes.
    options: Vec<String>,
    /// Connections to the first node that are opened and left, more than it may have.
    left: usize,
    normal: Duration,
    attack: Duration,
    /// The slowest of a hundred calls of a well-behaved client may take so long.
    bound: Duration,
}

impl Plan {
    fn chosen() -> Plan {
        if std::env::var_os("ATTACK_LONG").is_some() {
            return Plan {
                options: Vec::new(),
                left: may_open(11_000),
                normal: Duration::from_secs(10),
                attack: Duration::from_secs(60),
                bound: Duration::from_secs(1),
            };
        }
        let left = may_open(3_000);
        let most = (left / 2).to_string();
        let options = ["--max-connections", &most, "--message-time", "1"];
        Plan {
            options: options.map(str::to_owned).to_vec(),
            left,
            normal: Duration::from_secs(1),
            attack: Duration::from_secs(7),
            bound: Duration::from_secs(2),
        }
    }
}

/// Calls whose like is sent with changes; none that ends a node, or that names others
/// to it, which might be there.
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

/// Writes and reads for that time; how long each read took, sorted. Every call must be
/// answered, and rightly.
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

fn stats(node: &NodeProcess) -> ServerStats {
    stats(&node.location).unwrap().traffic.unwrap()
}

/// The sum of one count over all nodes.
fn count(stores: &Stores, of: impl Fn(&ServerStats) -> Option<i64>) -> i64 {
    let counts = stores.nodes.iter().map(|node| of(&traffic(node)).unwrap());
    counts.sum()
}

#[test]
fn a_siege_of_every_kind_shuts_nobody_out() {
    let plan = Plan::chosen();
    let options: Vec<&str> = plan.options.iter().map(String::as_str).collect();
    let stores = Stores::start(NODES, &options);
    let large = vec![7; 1024 * 1024];
    stores.clients()[0].put(b"large", &large).unwrap();
    let normal = slowest_of_a_hundred(&well_behaved(&stores, "normal", plan.normal));
    let nodes: Vec<String> = stores.nodes.iter().map(|n| n.at().to_owned()).collect();
    let siege = Siege {
        nodes: &nodes,
        large: "large",
        is_over: AtomicBool::new(false),
    };
    let calls = calls();
    assert!(calls.len() > 10, "too few calls to change");
    let (times, opened) = thread::scope(|scope| {
        let opener = scope.spawn(|| siege.opens_and_leaves(plan.left));
        scope.spawn(|| siege.dribbles(50));
        scope.spawn(|| siege.never_reads(9));
        scope.spawn(|| siege.begins_and_stops(100));
        scope.spawn(|| siege.garbles(&calls, 1));
        scope.spawn(|| siege.comes_and_goes());
        let times = well_behaved(&stores, "besieged", plan.attack);
        siege.is_over.store(true, Relaxed);
        (times, opener.join().unwrap())
    });
    let besieged = slowest_of_a_hundred(&times);
    let says = |text: &str| stores.nodes.iter().any(|node| node.says(text));
    let memory = stores.nodes.iter().map(resident_kilobytes).max();
    eprintln!(
        "the slowest of a hundred reads took {normal:?}, and {besieged:?} under siege ({} reads); \
        {opened} connections were left; a node has {memory:?} kB resident; was a member \
        suspected: {}\n{}",
        times.len(),
        says("suspected"),
        StoreStatus::ask(&Dialer::default(), &stores.nodes[0].location)
            .unwrap()
            .table()
    );
    assert!(besieged < plan.bound, "{besieged:?}, normally {normal:?}");
    assert!(opened > plan.left, "not all were opened: {opened}");
    assert!(
        !says("removed ") || says("this node did not run for"),
        "a member was taken for dead"
    );
    assert!(count(&stores, |traffic| traffic.evicted) > 0);
    assert!(count(&stores, |traffic| traffic.malformed) > 0);
    assert!(count(&stores, |traffic| traffic.slow) > 0);
    stores.settle();
    let client = &stores.clients()[0];
    for number in 0..times.len() {
        let key = format!("besieged {number}").into_bytes();
        assert_eq!(client.get(&key).unwrap().as_deref(), Some(&key[..]));
    }
}

/// Makes one `get` and waits for its answer.
fn get_once(stream: &mut TcpStream) {
    let call = message("get", &[0x0b, 0, 1, 0, 0, 0, 1, b'a', 0]);
    stream.write_all(&call).unwrap();
    let mut answer = [0; 100];
    assert!(stream.read(&mut answer).unwrap() > 0, "no answer");
}

#[test]
fn five_thousand_idle_connections_take_less_than_150_megabytes() {
    // The node may need a third more descriptors than there are connections.
    let many = (may_open(usize::MAX) / 3 * 2).min(5_000);
    let node = NodeProcess::start_alone("storeserver");
    let mut open: Vec<TcpStream> = (0..many).map(|_| connect(&node)).collect();
    open.iter_mut().for_each(get_once);
    let resident = resident_kilobytes(&node);
    eprintln!("{many} idle connections: {resident} kB resident");
    assert!(resident < 30 * many as u64, "{resident} kB are resident");
    let traffic = traffic(&node);
    assert!(traffic.open.unwrap() > many as i64, "{traffic:?}");
    open.iter_mut().for_each(get_once);
}

/// Did the node close this connection?
fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        // The answer to a message that was broken off.
        Ok(_) => false,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn each_limit_can_be_set_and_what_it_ends_is_counted_and_shown() {
    let options = ["--alone", "--idle-time", "1", "--message-time", "1"];
    let sizes = ["--max-message", "1048576", "--max-key", "10"];
    let node = NodeProcess::start("storeserver", &[&options[..], &sizes].concat());
    let mut idle = connect(&node);
    let mut served = connect(&node);
    get_once(&mut served);
    let mut begun = connect(&node);
    begun.write_all(&message("get", &[0x0b])).unwrap();
    eventually("idle connections are closed", SOON, || {
        is_closed(&mut idle) && is_closed(&mut served)
    });
    eventually("one with half a message is closed", SOON, || {
        is_closed(&mut begun)
    });
    let mut long = connect(&node);
    let half = vec![b'h'; 600 * 1024];
    let field = |id| {
        let announced = (half.len() as u32).to_be_bytes();
        [&[0x0b, 0, id][..], &announced, &half].concat()
    };
    // The node may close before all is written.
    let _ = long.write_all(&message("write", &[field(1), field(2), vec![0]].concat()));
    node.wait_for("closed the connection of");
    let client = StoreClient::new(node.location.clone());
    let refused = client.put(b"a key too long", b"").unwrap_err().to_string();
    assert!(refused.contains("10 are taken"), "{refused}");
    eventually("all are counted", SOON, || {
        let traffic = traffic(&node);
        traffic.idle >= Some(2) && traffic.slow == Some(1) && traffic.long == Some(1)
    });
    let shown = StoreStatus::ask(&Dialer::default(), &node.location).unwrap();
    let table = shown.table();
    for words in ["idle", "1 too slow", "1 too long"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert_eq!(shown.json()["nodes"][0]["traffic"]["long"], 1);
}

#[test]
fn an_address_with_too_many_connections_costs_no_other_address() {
    let limits = ["--alone", "--max-connections-per-address", "20"];
    let node = NodeProcess::start("storeserver", &limits);
    let mut other = connect(&node);
    get_once(&mut other);
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| connect_from([127, 0, 0, 2], &node))
        .collect();
    eventually("the crowd is cut down", SOON, || {
        traffic(&node).evicted_by_address == Some(80)
    });
    get_once(&mut other);
    node.wait_for("20 from that address are open");
    drop(crowd);
}

/// A connection that comes from that loopback address.
fn connect_from(address: [u8; 4], node: &NodeProcess) -> TcpStream {
    let [a, b, c, d] = address;
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    let there = SockaddrIn::new(127, 0, 0, 1, node.location.port());
    socket::connect(socket.as_raw_fd(), &there).unwrap();
    TcpStream::from(socket)
}

#[test]
fn a_client_that_calls_now_and_then_is_served_on_one_connection_in_a_full_house() {
    let limits = ["--alone", "--max-connections", "50"];
    let node = NodeProcess::start("storeserver", &limits);
    let timeouts = Timeouts::default();
    let mut client = Dialer::default()
        .connect(timeouts, StoreSyncClient::new, &node.location)
        .unwrap();
    client.ping().unwrap();
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.extend((0..25).map(|_| connect(&node)));
        eventually("all are let in", SOON, || {
            traffic(&node).opened > Some(crowd.len() as i64)
        });
        client.get(b"a".to_vec()).unwrap();
    }
    let traffic = traffic(&node);
    assert!(traffic.open <= Some(50), "{traffic:?}");
    assert!(traffic.evicted >= Some(450), "{traffic:?}");
}
