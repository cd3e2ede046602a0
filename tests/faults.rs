//! Does a node continue and recover when its host fails it: without file descriptors, threads or
//! space for its log, on a machine that sleeps, with a name server that does not reply?
//!
//! With `FAULTS_LONG=1` the machine sleeps for a minute. Steps of the clock are tested where
//! time is an argument: in `membership_cases`, and with the versions of the store.

mod common;

use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::network::free_port;
use common::raw::{connect, reply_to};
use common::stores::{Stores, stats};
use common::{NodeProcess, SOON, eventually, program};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::ServerStats;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{BaseSyncClient, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// A command that runs a program by a shell: after the commands `before`, with the redirections
/// `redirections`.
fn shell(before: &str, redirections: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{before} exec \"$0\" \"$@\" {redirections}");
    command.args(["-c", &script, program(name)]).args(arguments);
    command
}

fn server_stats(node: &NodeProcess) -> Option<ServerStats> {
    stats(&node.location)?.server
}

fn is_serving(location: &Location) -> bool {
    call(BaseSyncClient::new, location, |peer| peer.ping()).is_ok()
}

/// Sets the limit of file descriptors of a running process.
fn limit_descriptors(node: &NodeProcess, count: usize) {
    let process = format!("--pid={}", node.id());
    let limit = format!("--nofile={count}:");
    let set = Command::new("prlimit").args([process, limit]).status();
    assert!(set.expect("prlimit is installed").success());
}

/// The processor time that the node has used, in hundredths of a second.
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
fn a_node_without_file_descriptors_waits_and_then_recovers() {
    let stores = Stores::start(2, &[]);
    let starved = &stores.nodes[0];
    let used = fs::read_dir(format!("/proc/{}/fd", starved.id())).unwrap();
    limit_descriptors(starved, used.count() + 5);
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(starved)).collect();
    starved.wait_for("cannot accept connections now: Too many open files");
    let (before, began) = (ticks(starved), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let (spent, time) = (ticks(starved) - before, began.elapsed());
    assert!(
        spent < 50,
        "{spent} hundredths of a second of {time:?} were used"
    );
    let client = StoreClient::new(starved.location.clone());
    eventually("a call is served", SOON, || client.put(b"a", b"b").is_ok());
    limit_descriptors(starved, 1000);
    drop(idle);
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(starved)).collect();
    eventually("all are accepted", SOON, || {
        server_stats(starved).is_some_and(|stats| {
            stats.failed_accepts > Some(0) && stats.open >= Some(idle.len() as i64)
        })
    });
    stores.settle();
    assert_eq!(client.get(b"a").unwrap().as_deref(), Some(&b"b"[..]));
}

#[test]
fn a_node_with_few_file_descriptors_accepts_fewer_connections_and_logs_how_many() {
    let command = shell(
        "ulimit -n 64;",
        "",
        "storeserver",
        &["--bootstrap", "-p", "0"],
    );
    let mut node = NodeProcess::spawn_command(command, "storeserver with 64".into());
    node.wait_until_it_serves();
    node.wait_for("at most 48 connections are open at once, not 10000");
    let idle: Vec<TcpStream> = (0..200).map(|_| connect(&node)).collect();
    eventually("at most 48 are left", SOON, || {
        server_stats(&node).is_some_and(|t| t.evicted >= Some(152) && t.open <= Some(48))
    });
    assert!(is_serving(&node.location));
    assert!(node.interrupt().success());
    drop(idle);
}

/// The id of a user who runs no other program, so that no other threads are counted.
const UNUSED_USER: &str = "64321";

/// A command that runs `storeserver` as a user who may have `count` threads. None if this user
/// cannot run a program as another one.
fn with_threads(count: usize) -> Option<Command> {
    let mut command = Command::new("setpriv");
    let user = [
        format!("--reuid={UNUSED_USER}"),
        format!("--regid={UNUSED_USER}"),
    ];
    command.args(user).arg("--clear-groups");
    command.args([
        "prlimit",
        &format!("--nproc={count}"),
        program("storeserver"),
    ]);
    let mut trial = Command::new("setpriv");
    trial
        .arg(format!("--reuid={UNUSED_USER}"))
        .args([program("storeserver"), "--version"]);
    let can = trial.output().is_ok_and(|output| output.status.success());
    can.then_some(command)
}

#[test]
fn a_node_without_threads_closes_connections_and_serves_calls_again_later() {
    let Some(mut command) = with_threads(40) else {
        return eprintln!("skipped: this user cannot run a program as another one");
    };
    command.args(["--bootstrap", "-p", "0"]);
    let mut node = NodeProcess::spawn_command(command, "storeserver with few threads".into());
    node.wait_until_it_serves();
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(&node)).collect();
    node.wait_for("no thread could be started");
    drop(idle);
    eventually("a call is served", SOON, || is_serving(&node.location));
    assert!(server_stats(&node).unwrap().no_thread > Some(0));
    assert!(node.interrupt().success());
    // If not even its own threads can be started, it ends and logs why.
    let mut command = with_threads(1).unwrap();
    let output = command.args(["--bootstrap", "-p", "0"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("cannot go on"), "{stderr}");
}

/// Waits until a node serves at this port. Returns its location.
fn wait_for_node_at(port: u16) -> Location {
    let location = Location::new("127.0.0.1", port).unwrap();
    eventually("it serves", SOON, || is_serving(&location));
    location
}

#[test]
fn a_node_whose_log_is_closed_or_full_serves_and_leaves() {
    for redirection in ["2>&-", "2>/dev/full"] {
        let port = free_port().to_string();
        let options = ["--bootstrap", "-p", &port];
        let command = shell("", redirection, "storeserver", &options);
        let mut node = NodeProcess::spawn_command(command, format!("a log {redirection}"));
        node.location = wait_for_node_at(port.parse().unwrap());
        // Each of these writes to the log.
        assert!(reply_to(&node, b"GET / HTTP/1.1\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
        call(BaseSyncClient::new, &node.location, |peer| peer.debug()).unwrap();
        let client = StoreClient::new(node.location.clone());
        client.put(b"a", b"b").unwrap();
        assert_eq!(client.get(b"a").unwrap().as_deref(), Some(&b"b"[..]));
        assert!(node.interrupt().success(), "{redirection}");
    }
}

#[test]
fn a_client_that_cannot_write_its_output_reports_it_and_exits_with_4() {
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
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {stderr}");
        assert!(stderr.contains("No space left"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn nodes_of_a_machine_that_slept_lose_no_write_and_no_member() {
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
    eventually("writes are accepted", SOON, || {
        clients
            .iter()
            .all(|client| client.put(b"after", b"sleep").is_ok())
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

/// A network namespace whose name server never replies.
struct SilentNameServer {
    namespace: Namespace,
    /// Files that `ip netns exec` shows instead of those in the host's `/etc`.
    files: PathBuf,
}

impl SilentNameServer {
    fn new() -> Result<SilentNameServer, String> {
        let namespace = Namespace::new("silent")?;
        // Packets to a hardware address that no interface has are dropped silently.
        namespace.ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"])?;
        namespace.ip(&["address", "add", "192.0.2.1/24", "dev", "near"])?;
        namespace.ip(&["link", "set", "near", "up"])?;
        namespace.ip(&["link", "set", "far", "up"])?;
        let neighbour = ["192.0.2.53", "lladdr", "02:00:00:00:00:01", "dev", "near"];
        namespace.ip(&[&["neighbour", "add"], &neighbour[..]].concat())?;
        let files = Path::new("/etc/netns").join(namespace.name());
        let failed = |e| format!("{}: {e}", files.display());
        fs::create_dir_all(&files).map_err(failed)?;
        let servers = "nameserver 192.0.2.53\noptions timeout:2 attempts:2\n";
        fs::write(files.join("resolv.conf"), servers).map_err(failed)?;
        Ok(SilentNameServer { namespace, files })
    }

    fn start(&self, arguments: &[&str]) -> NodeProcess {
        let mut command = self.namespace.command("location");
        command.args(arguments);
        NodeProcess::spawn_command(command, format!("location {}", arguments.join(" ")))
    }
}

impl Drop for SilentNameServer {
    fn drop(&mut self) {
        // Files that are left do no harm: no other namespace gets the same name.
        let _ = fs::remove_dir_all(&self.files);
    }
}

#[test]
fn a_slow_name_lookup_delays_the_node_that_joins_and_no_gossip() {
    let host = match SilentNameServer::new() {
        Ok(host) => host,
        Err(why) => return eprintln!("skipped: no network namespace: {why}"),
    };
    let address = ["--advertise", "127.0.0.1", "-p"];
    let mut first = host.start(&[&address[..], &["9900", "--bootstrap"]].concat());
    first.wait_until_it_serves();
    let join = ["9901", "-h", "127.0.0.1:9900"];
    let mut second = host.start(&[&address[..], &join].concat());
    second.wait_until_it_serves();
    let began = Instant::now();
    let unnamed = ["9902", "-h", "peer.example.org:9900"];
    let mut waiting = host.start(&[&address[..], &unnamed].concat());
    let all_agree = || {
        let mut status = host.namespace.command("locationstatus");
        status.args(["-h", "127.0.0.1:9901"]).stdout(Stdio::null());
        status.status().unwrap().success()
    };
    eventually(
        "the members agree while the name is looked up",
        SOON,
        all_agree,
    );
    assert_eq!(waiting.wait().code(), Some(3));
    let time = began.elapsed();
    assert!(
        time > Duration::from_secs(3),
        "the lookup took only {time:?}"
    );
    assert!(waiting.says("peer.example.org does not resolve"));
    assert!(all_agree());
    for node in [&first, &second] {
        assert!(!node.says("removed") && !node.says("suspecting"));
    }
}

#[test]
fn the_systemd_unit_uses_options_that_exist() {
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
        assert!(help.contains(*option), "storeserver has no option {option}");
    }
    let checked = Command::new("systemd-analyze").arg("--version").output();
    if checked.is_err() {
        return eprintln!("skipped: systemd-analyze is not installed");
    }
    // It fails if the program is not where the unit says.
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
    let stderr = fs::read_to_string(folder.path().join("errors")).unwrap();
    let complaints: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("storeserver"))
        .collect();
    assert!(
        verify.unwrap().success() && complaints.is_empty(),
        "{stderr}"
    );
}
