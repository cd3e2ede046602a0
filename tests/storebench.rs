//! Does the load generator measure what it says, and print what its figures need?

mod common;

use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use common::network::free_port;
use common::{NodeProcess, SOON, ended, eventually, run};
use serde_json::Value;

/// A short run.
const SHORT: [&str; 8] = [
    "--connections",
    "2",
    "--warm-up",
    "0",
    "--seconds",
    "1",
    "--keys",
    "100",
];

fn storebench(node: &NodeProcess, arguments: &[&str]) -> Output {
    run("storebench", &[&["-h", node.at()], arguments].concat())
}

/// What a run prints that must succeed.
fn printed(node: &NodeProcess, arguments: &[&str]) -> String {
    let output = storebench(node, arguments);
    assert_eq!(ended(&output), (Some(0), String::new()));
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON of a run that must succeed.
fn json(node: &NodeProcess, arguments: &[&str]) -> Value {
    let printed = printed(node, &[arguments, &["--json"]].concat());
    assert_eq!(printed.lines().count(), 1, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

/// The calls and keys of the first measured run.
fn calls_and_keys(json: &Value) -> [f64; 2] {
    let runs = json["runs"].as_array().unwrap();
    let run = runs.iter().find(|run| run["run"] == "store").unwrap();
    assert_eq!(run["failed"], 0.0, "{json}");
    ["calls", "keys"].map(|name| run[name].as_f64().unwrap())
}

#[test]
fn the_text_has_settings_a_row_per_run_medians_and_comparisons() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let asked = ["--baseline", "--read-ratio", "0.5", "--rounds", "2"];
    let idle = ["--idle-connections", "3"];
    let printed = printed(&node, &[&asked[..], &SHORT, &idle].concat());
    for setting in [
        concat!("program: storebench ", env!("CARGO_PKG_VERSION")),
        &format!("peer: {}", node.at()),
        "routing: proxy",
        "connections: 2",
        "idle_connections: 3",
        "keys: 100",
        "value_size: 100",
        "batch: 1",
        "read_ratio: 0.5",
        "read_method: fetch",
        "write_method: write",
        "request_size: 37",
        "reply_size: 140",
        "warm_up: 0",
    ] {
        assert!(printed.lines().any(|line| line == setting), "{printed}");
    }
    let header = "run rate p50 p90 p99 p99.9 max calls keys failed seconds";
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = printed.lines().skip_while(|line| words(line) != header);
    lines.next();
    let starts = [
        "load-store ",
        "store ",
        "store+idle ",
        "echo ",
        "store ",
        "store+idle ",
        "echo ",
        "median rate of store: ",
        "median rate of store+idle: ",
        "median rate of echo: ",
        "store+idle / store: rate ",
        "store / echo: rate ",
    ];
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), starts.len(), "{printed}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line:?} is not {start:?}");
    }
    for figure in ["rate ", ", p50 ", ", p99 ", ", p99.9 "] {
        assert!(lines[11].contains(figure), "{printed}");
    }
    assert_eq!(lines[11].matches(" to ").count(), 4, "{printed}");
}

#[test]
fn the_json_has_the_same() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let json = json(&node, &[&SHORT[..], &["--baseline"]].concat());
    let runs = json["runs"].as_array().unwrap().iter();
    let names: Vec<&str> = runs.map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(names, ["load-store", "store", "echo"]);
    assert_eq!(json["settings"]["connections"], 2);
    let store = json["runs"][1]["rate"].as_f64().unwrap();
    let echo = json["runs"][2]["rate"].as_f64().unwrap();
    let ratios = &json["comparisons"]["store / echo"];
    let median = ratios["rate"]["median"].as_f64().unwrap();
    // A number read from JSON may differ in its last bit from what was written.
    assert!((median - store / echo).abs() < 1e-9, "{json}");
    assert!(ratios["p99.9"]["max"].is_number(), "{json}");
    let median_rate = json["median_rates"]["echo"].as_f64().unwrap();
    assert!((median_rate - echo).abs() < 1e-3, "{json}");
}

#[test]
fn as_many_operations_are_done_as_asked_for_by_every_routing_and_in_batches() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let few = ["--connections", "3", "--warm-up", "0"];
    let few = [&few[..], &["--operations", "1000"]].concat();
    let run = |more: &[&str]| calls_and_keys(&json(&node, &[&few[..], more].concat()));
    assert_eq!(run(&[]), [1000.0, 1000.0]);
    for routing in ["proxy", "direct", "shared"] {
        let mixed = ["--read-ratio", "0.5", "--routing", routing];
        assert_eq!(run(&mixed), [1000.0, 1000.0], "{routing}");
        // For 334, 333 and 333 operations by 16 each worker makes 21 calls.
        let batches = [&mixed[..], &["--batch", "16"]].concat();
        assert_eq!(run(&batches), [63.0, 1008.0], "{routing}");
    }
}

#[test]
fn only_the_keys_that_the_peer_forwards_are_used_if_asked_for() {
    let first = NodeProcess::start("storeserver", &["--bootstrap", "--replicas", "1"]);
    let joining = ["-h", first.at(), "--replicas", "1"];
    let second = NodeProcess::start("storeserver", &joining);
    eventually("the store is settled", SOON, || {
        run("storestatus", &["-h", second.at()]).status.success()
    });
    let forwarded = |node: &NodeProcess| {
        let few = ["--connections", "2", "--keys", "100", "--load-only"];
        let json = json(node, &[&few[..], &["--forwarded-only"]].concat());
        json["settings"]["keys"].as_u64().unwrap()
    };
    let (by_first, by_second) = (forwarded(&first), forwarded(&second));
    assert_eq!(by_first + by_second, 100, "each forwards the other's");
    let status = run("storestatus", &["--json", "-h", first.at()]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["keys"], 100, "only these keys were written");
    let alone = NodeProcess::start_bootstrap("storeserver");
    let nothing = storebench(&alone, &["--forwarded-only"]);
    assert_eq!(ended(&nothing).0, Some(2));
}

#[test]
fn a_load_alone_is_not_followed_by_measurements() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let printed = printed(&node, &["--load-only", "--keys", "100"]);
    let last = printed.lines().last().unwrap();
    assert!(last.starts_with("load-store "), "{printed}");
}

#[test]
fn no_keys_are_left_when_a_server_to_compare_with_does_not_answer() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let absent = ["--redis", "127.9.9.9:6379"];
    let output = storebench(&node, &[&SHORT[..], &absent].concat());
    let (status, message) = ended(&output);
    assert_eq!(status, Some(3), "{message}");
    assert!(
        message.starts_with("nothing listens at 127.9.9.9:6379: "),
        "{message}"
    );
    let status = run("storestatus", &["--json", "-h", node.at()]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["keys"], 0);
}

#[test]
fn a_legacy_store_needs_no_more_than_get_and_put() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let mixed = ["--legacy", "--read-ratio", "0.9"];
    let json = json(&node, &[&SHORT[..], &mixed].concat());
    let settings = &json["settings"];
    assert_eq!(settings["read_method"], "get");
    assert_eq!(settings["write_method"], "put");
}

#[test]
fn failed_calls_end_with_4_and_wrong_options_with_2() {
    let small = NodeProcess::start("storeserver", &["--bootstrap", "--max-value", "99"]);
    let refused = storebench(&small, &SHORT);
    assert_eq!(ended(&refused).0, Some(4));
    for wrong in [
        &["--connections", "0"][..],
        &["--batch", "0"],
        &["--legacy", "--routing", "direct"],
        &["--idle-connections", "1", "--routing", "shared"],
        &["--operations", "1", "--seconds", "1"],
        &["--redis-wait", "1"],
    ] {
        assert_eq!(ended(&storebench(&small, wrong)).0, Some(2), "{wrong:?}");
    }
}

/// Another program's server, killed when this is dropped.
struct Server {
    process: Child,
    at: String,
}

impl Server {
    /// Starts it on a free port; `None`, with a message, where it is not installed.
    fn start(program: &str, port_option: &str, more: &[&str]) -> Option<Server> {
        let port = free_port().to_string();
        let mut command = Command::new(program);
        command.args([port_option, &port]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(process) = command.stderr(Stdio::null()).spawn() else {
            eprintln!("skipped: there is no {program}");
            return None;
        };
        let at = format!("127.0.0.1:{port}");
        let server = Server { process, at };
        eventually(&format!("{program} listens"), SOON, || {
            TcpStream::connect(&server.at).is_ok()
        });
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn redis_and_memcached_are_measured_in_turn_with_the_store() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let redis = Server::start(
        "redis-server",
        "--port",
        &["--save", "", "--bind", "127.0.0.1"],
    );
    let memcached = Server::start("memcached", "-p", &["-u", "nobody", "-l", "127.0.0.1"]);
    let mut servers = Vec::new();
    let mut names = Vec::new();
    for (option, server) in [("--redis", &redis), ("--memcached", &memcached)] {
        if let Some(server) = server {
            servers.extend([option, &server.at]);
            names.push(format!("store / {}", option.trim_start_matches('-')));
        }
    }
    let wait = ["--redis-wait", "0"];
    let wait = if redis.is_some() { &wait[..] } else { &[] };
    for more in [
        &[][..],
        &["--batch", "16"],
        &["--read-ratio", "0"],
        &["--read-ratio", "0.5", "--batch", "16"],
    ] {
        let json = json(&node, &[&SHORT[..], &servers, wait, more].concat());
        let runs = json["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2 * (1 + names.len()), "{json}");
        assert!(runs.iter().all(|run| run["keys"].as_f64() > Some(0.0)));
        for name in &names {
            assert!(json["comparisons"][name]["p99"]["median"].is_number());
        }
    }
    if let Some(redis) = &redis {
        let writes = ["--read-ratio", "0", "--redis", &redis.at];
        let (status, why) = ended(&storebench(&node, &writes));
        assert_eq!(status, Some(2), "a Redis without replicas: {why}");
        assert!(why.contains("too few replicas"), "{why}");
    }
}
