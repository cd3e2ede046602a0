//! What goes wrong around a node: no descriptors, no threads, no room for its log, a
//! machine that sleeps, names that nobody looks up. Does it go on, and recover?
//!
//! `FAULTS_LONG=1` lets the machine sleep for a minute. Steps of the clock are tested
//! where time is an argument: in `membership_cases`, and with the versions of the store.

mod common;

use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::network::free_port;
use common::raw::{answer_to, connect};
use common::stores::{Stores, stats};
use common::{NodeProcess, SOON, eventually, program};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::ServerStats;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{BaseSyncClient, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// A command that runs `program` by a shell that does this first.
fn shell(before: &str, after: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{before} exec \"$0\" \"$@\" {after}");
    command.args(["-c", &script, program(name)]).args(arguments);
    command
}

fn stats(node: &NodeProcess) -> Option<ServerStats> {
    stats(&node.location)?.traffic
}

fn answers(location: &Location) -> bool {
    call(BaseSyncClient::new, location, |peer| peer.ping()).is_ok()
}

/// Sets how many file descriptors a running process may have.
fn allow_descriptors(node: &NodeProcess, many: usize) {
    let process = format!("--pid={}", node.id());
    let limit = format!("--nofile={many}:");
    let set = Command::new("prlimit").args([process, limit]).status();
    assert!(set.expect("prlimit is there").success());
}

/// Processor time that the node has used, in hundredths of a second.
fn ticks(node: &NodeProcess) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|f| f.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn without_file_descriptors_a_node_waits_and_then_goes_on() {
    let stores = Stores::start(2, &[]);
    let starved = &stores.nodes[0];
    let used = fs::read_dir(format!("/proc/{}/fd", starved.id())).unwrap();
    allow_descriptors(starved, used.count() + 5);
    let crowd: Vec<TcpStream> = (0..100).map(|_| connect(starved)).collect();
    starved.wait_for("cannot accept connections for now: Too many open files");
    let (before, began) = (ticks(starved), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let (spent, time) = (ticks(starved) - before, began.elapsed());
    assert!(spent < 50, "{spent} hundredths of {time:?} were spent");
    let client = StoreClient::new(starved.location.clone());
    eventually("a call finds its way in", SOON, || {
        client.put(b"a", b"b").is_ok()
    });
    allow_descriptors(starved, 1000);
    drop(crowd);
    let crowd: Vec<TcpStream> = (0..100).map(|_| connect(starved)).collect();
    eventually("all are let in", SOON, || {
        traffic(starved).is_some_and(|traffic| {
            traffic.failed_accepts > Some(0) && traffic.open >= Some(crowd.len() as i64)
        })
    });
    stores.settle();
    assert_eq!(client.get(b"a").unwrap().as_deref(), Some(&b"b"[..]));
}

#[test]
fn with_few_file_descriptors_a_node_takes_fewer_connections_and_says_so() {
    let command = shell("ulimit -n 64;", "", "storeserver", &["--alone", "-p", "0"]);
    let mut node = NodeProcess::spawn_command(command, "storeserver with 64".into());
    node.wait_until_it_serves();
    node.wait_for("at most 48 connections are open at once, not 10000");
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(&node)).collect();
    eventually("the crowd is cut down", SOON, || {
        traffic(&node).is_some_and(|t| t.evicted >= Some(152) && t.open <= Some(48))
    });
    assert!(answers(&node.location));
    assert!(node.interrupt().success());
    drop(crowd);
}

/// A user whom nobody else is, so that nobody else's threads are counted.
const NOBODY_ELSE: &str = "64321";

/// A command for a user who may have so many threads; none where that cannot be done.
fn with_threads(many: usize) -> Option<Command> {
    let mut command = Command::new("setpriv");
    let user = [
        format!("--reuid={NOBODY_ELSE}"),
        format!("--regid={NOBODY_ELSE}"),
    ];
    command.args(user).arg("--clear-groups");
    command.args([
        "prlimit",
        &format!("--nproc={many}"),
        program("storeserver"),
    ]);
    let mut tried = Command::new("setpriv");
    tried
        .arg(format!("--reuid={NOBODY_ELSE}"))
        .args([program("storeserver"), "--version"]);
    let can = tried.output().is_ok_and(|output| output.status.success());
    can.then_some(command)
}

#[test]
fn without_threads_connections_are_closed_and_calls_of_others_go_on() {
    let Some(mut command) = with_threads(40) else {
        return eprintln!("skipped: this user cannot run a program as another one");
    };
    command.args(["--alone", "-p", "0"]);
    let mut node = NodeProcess::spawn_command(command, "storeserver of few threads".into());
    node.wait_until_it_serves();
    let crowd: Vec<TcpStream> = (0..100).map(|_| connect(&node)).collect();
    node.wait_for("no thread could be started");
    drop(crowd);
    eventually("a call is answered", SOON, || answers(&node.location));
    assert!(traffic(&node).unwrap().no_thread > Some(0));
    assert!(node.interrupt().success());
    // Where not even its own can be had, it ends, and says why.
    let mut command = with_threads(1).unwrap();
    let output = command.args(["--alone", "-p", "0"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("cannot go on"), "{told}");
}

/// What is served at this port, once it is.
fn serving_at(port: u16) -> Location {
    let location = Location::new("127.0.0.1", port).unwrap();
    eventually("it serves", SOON, || answers(&location));
    location
}

#[test]
fn a_log_that_is_closed_or_full_keeps_a_node_from_nothing() {
    for redirection in ["2>&-", "2>/dev/full"] {
        let port = free_port().to_string();
        let options = ["--alone", "-p", &port];
        let command = shell("", redirection, "storeserver", &options);
        let mut node = NodeProcess::spawn_command(command, format!("a log {redirection}"));
        node.location = serving_at(port.parse().unwrap());
        // Each of these would be told in the log.
        assert_eq!(answer_to(&node, b"GET / HTTP/1.1\r\n\r\n"), b"");
        call(BaseSyncClient::new, &node.location, |peer| peer.debug()).unwrap();
        let client = StoreClient::new(node.location.clone());
        client.put(b"a", b"b").unwrap();
        assert_eq!(client.get(b"a").unwrap().as_deref(), Some(&b"b"[..]));
        assert!(node.interrupt().success(), "{redirection}");
    }
}

#[test]
fn an_answer_that_finds_no_room_ends_in_4_and_a_sentence() {
    let stores = Stores::start(1, &[]);
    let node = &stores.nodes[0];
    let client = StoreClient::new(node.location.clone());
    client.put(b"A", b"Alpha").unwrap();
    let calls: [&[&str]; 4] = [
        &["storeget", "-h", node.at(), "A"],
        &["storestatus", "-h", node.at()],
        &["storestatus", "-h", node.at(), "--json"],
        &["locationstatus", "-h", node.at()],
    ];
    for arguments in calls {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(program(arguments[0]));
        command.args(&arguments[1..]).stdout(full);
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {told}");
        assert!(told.contains("No space left"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_machine_that_slept_loses_no_write_and_no_member() {
    let asleep = match std::env::var_os("FAULTS_LONG") {
        Some(_) => Duration::from_secs(60),
        None => Duration::from_secs(5),
    };
    let stores = Stores::start(3, &[]);
    let clients = stores.clients();
    let keys: Vec<Vec<u8>> = (0..100).map(|i| format!("key {i}").into_bytes()).collect();
    for (number, key) in keys.iter().enumerate() {
        clients[number % clients.len()].put(key, key).unwrap();
    }
    stores.nodes.iter().for_each(|node| node.signal("STOP"));
    thread::sleep(asleep);
    stores.nodes.iter().for_each(|node| node.signal("CONT"));
    let began = Instant::now();
    eventually("writes are taken", SOON, || {
        clients
            .iter()
            .all(|client| client.put(b"after", b"it").is_ok())
    });
    let back = began.elapsed();
    let settled = stores.settle();
    eprintln!("asleep for {asleep:?}, back after {back:?}, settled {settled:?} later");
    for client in stores.clients() {
        for key in &keys {
            assert_eq!(client.get(key).unwrap().as_deref(), Some(&key[..]));
        }
    }
}

/// A namespace in which names are asked of a server that never answers.
struct Deaf {
    namespace: Namespace,
    /// What `ip netns exec` shows instead of the host's `/etc`.
    files: PathBuf,
}

impl Deaf {
    fn new() -> Result<Deaf, String> {
        let namespace = Namespace::new("deaf")?;
        // What is sent to nobody's hardware address is lost without a word.
        namespace.ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"])?;
        namespace.ip(&["address", "add", "192.0.2.1/24", "dev", "near"])?;
        namespace.ip(&["link", "set", "near", "up"])?;
        namespace.ip(&["link", "set", "far", "up"])?;
        let nobody = ["192.0.2.53", "lladdr", "02:00:00:00:00:01", "dev", "near"];
        namespace.ip(&[&["neighbour", "add"], &nobody[..]].concat())?;
        let files = Path::new("/etc/netns").join(namespace.name());
        let told = |e| format!("{}: {e}", files.display());
        fs::create_dir_all(&files).map_err(told)?;
        let servers = "nameserver 192.0.2.53\noptions timeout:2 attempts:2\n";
        fs::write(files.join("resolv.conf"), servers).map_err(told)?;
        Ok(Deaf { namespace, files })
    }

    fn start(&self, arguments: &[&str]) -> NodeProcess {
        let mut command = self.namespace.command("location");
        command.args(arguments);
        NodeProcess::spawn_command(command, format!("location {}", arguments.join(" ")))
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        // What is left behind harms nobody: names of namespaces are not used twice.
        let _ = fs::remove_dir_all(&self.files);
    }
}

#[test]
fn a_name_that_nobody_looks_up_delays_who_gave_it_and_no_gossip() {
    let deaf = match Deaf::new() {
        Ok(deaf) => deaf,
        Err(why) => return eprintln!("skipped: no network namespace: {why}"),
    };
    let address = ["--address", "127.0.0.1", "-p"];
    let mut first = deaf.start(&[&address[..], &["9900", "--alone"]].concat());
    first.wait_until_it_serves();
    let join = ["9901", "-h", "127.0.0.1:9900"];
    let mut second = deaf.start(&[&address[..], &join].concat());
    second.wait_until_it_serves();
    let began = Instant::now();
    let unnamed = ["9902", "-h", "peer.example.org:9900"];
    let mut waiting = deaf.start(&[&address[..], &unnamed].concat());
    let all_agree = || {
        let mut status = deaf.namespace.command("locationstatus");
        status.args(["-h", "127.0.0.1:9901"]).stdout(Stdio::null());
        status.status().unwrap().success()
    };
    eventually("members agree while the name is looked up", SOON, all_agree);
    assert_eq!(waiting.wait().code(), Some(3));
    let time = began.elapsed();
    assert!(time > Duration::from_secs(3), "it was answered in {time:?}");
    assert!(waiting.says("peer.example.org does not resolve"));
    assert!(all_agree());
    for node in [&first, &second] {
        assert!(!node.says("removed") && !node.says("suspected"));
    }
}

#[test]
fn the_systemd_unit_names_options_that_there_are() {
    let unit = include_str!("../examples/storeserver.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<&str> = start.unwrap().split_whitespace().collect();
    assert!(words[0].ends_with("/storeserver"));
    let help = common::run("storeserver", &["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let options: Vec<&&str> = words.iter().filter(|word| word.starts_with('-')).collect();
    assert!(!options.is_empty());
    for option in options {
        assert!(
            help.contains(*option),
            "{option} is no option of storeserver"
        );
    }
    let checked = Command::new("systemd-analyze").arg("--version").output();
    if checked.is_err() {
        return eprintln!("skipped: systemd-analyze is not there");
    }
    // It insists that the program is where the unit says.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("storeserver.service");
    let here = unit.replace(words[0], program("storeserver"));
    fs::write(&path, here).unwrap();
    let errors = File::create(folder.path().join("errors")).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .stderr(errors)
        .status();
    let told = fs::read_to_string(folder.path().join("errors")).unwrap();
    let ours: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("storeserver"))
        .collect();
    assert!(verify.unwrap().success() && ours.is_empty(), "{told}");
}
