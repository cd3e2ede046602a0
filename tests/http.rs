//! Does a node show its network, its metrics and its health by HTTP, and nothing else?

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::certificates::{Certificates, with};
use common::http::{HTTP, get, get_json, http_of, metric, send};
use common::stores::Stores;
use common::untrusted::available_connections;
use common::{NodeProcess, SOON, eventually, run};
use serde_json::Value;
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::diststore::{StoreSyncClient, TStoreSyncClient};
use thrifty_p2p::rpc::dialer::call;

fn store_status(node: &NodeProcess) -> Value {
    let output = run("storestatus", &["-h", node.at(), "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn the_status_is_that_of_the_program_and_what_only_this_node_knows() {
    let stores = Stores::start(3, &HTTP);
    for node in &stores.nodes {
        let mut shown = get_json(&http_of(node), "/status.json");
        let here = shown.as_object_mut().unwrap().remove("here").unwrap();
        let printed = store_status(node);
        assert_eq!(keys(&shown), keys(&printed));
        assert_eq!(keys(&shown["nodes"][0]), keys(&printed["nodes"][0]));
        for field in ["network", "settled", "verdict", "keys", "safe"] {
            assert_eq!(shown[field], printed[field], "{field}");
        }
        assert_eq!(here["location"], node.at());
        assert_eq!(here["members"].as_array().unwrap().len(), 3);
    }
    let events = get_json(&http_of(&stores.nodes[0]), "/status.json")["here"]["events"].take();
    let added = |node: &NodeProcess| {
        let mut events = events.as_array().unwrap().iter();
        events.any(|event| event["text"] == format!("added {}", node.at()))
    };
    assert!(stores.nodes[1..].iter().all(added), "{events}");
}

#[test]
fn a_location_node_shows_its_members_and_the_owner_of_a_key() {
    let first = NodeProcess::start("location", &[&["--bootstrap"], &HTTP[..]].concat());
    let _second = NodeProcess::start("location", &["-h", first.at()]);
    let at = http_of(&first);
    eventually("both agree", SOON, || {
        let shown = get_json(&at, "/status.json");
        shown["agreed"] == true && shown["live"] == 2
    });
    let printed = run("locationstatus", &["-h", first.at(), "--json"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let mut shown = get_json(&at, "/status.json");
    shown.as_object_mut().unwrap().remove("here");
    assert_eq!(shown, printed);
    let key = get_json(&at, "/key.json?a");
    assert_eq!(key["point"], 0x0cc1_75b9);
    assert_eq!(key["owners"].as_array().unwrap().len(), 1);
    assert!(
        get(&at, "/metrics")
            .body
            .contains("thrifty_members{state=\"alive\"} 2")
    );
}

#[test]
fn a_key_is_shown_with_its_owners_and_the_version_that_each_holds() {
    let stores = Stores::start(3, &[&HTTP[..], &["--replicas", "2"]].concat());
    let client = StoreClient::new(stores.nodes[0].location.clone());
    client.put(b"a key <&>", b"12345").unwrap();
    let at = http_of(&stores.nodes[1]);
    let shown = get_json(&at, "/key.json?a%20key%20%3C%26%3E");
    assert_eq!(shown["key"], "a key <&>");
    let copies = shown["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 2);
    let roles: Vec<&Value> = copies.iter().map(|copy| &copy["role"]).collect();
    assert_eq!(roles, ["primary", "replica"]);
    for copy in copies {
        assert!(
            copy["state"] == "held" || copy["state"] == "unconfirmed",
            "{copy}"
        );
        assert_eq!(copy["bytes"], 5);
        assert_eq!(copy["version"], copies[0]["version"]);
    }
    let missing = get_json(&at, "/key.json?b");
    assert_eq!(missing["copies"][0]["state"], "nothing");
}

#[test]
fn a_node_is_alive_before_it_is_ready_and_ready_until_it_leaves() {
    // A peer that accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap().to_string();
    let joining = ["--port", "0", "--host", &peer];
    let node = NodeProcess::spawn("storeserver", &[&joining[..], &HTTP].concat());
    let at = http_of(&node);
    eventually("it answers", SOON, || TcpStream::connect(&at).is_ok());
    assert_eq!(get(&at, "/livez").status, 200);
    assert_eq!(get(&at, "/readyz").status, 503);
    let served = NodeProcess::start("storeserver", &[&["--bootstrap"], &HTTP[..]].concat());
    let at = http_of(&served);
    eventually("it is ready", SOON, || get(&at, "/readyz").status == 200);
    assert_eq!(get(&at, "/livez").body, "ok\n");
}

#[test]
fn nothing_but_get_and_head_is_answered_and_unknown_paths_are_not_found() {
    let node = NodeProcess::start("storeserver", &[&["--bootstrap"], &HTTP[..]].concat());
    let at = http_of(&node);
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
    ] {
        let request = format!("{method} /status.json HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
        let answer = send(&at, request.as_bytes()).unwrap();
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("Allow: GET, HEAD"));
    }
    for path in ["/nothing", "/..", "//", "/status.json/", "/key.jso"] {
        assert_eq!(get(&at, path).status, 404, "{path}");
    }
    let long_key = format!("/key.json?{}", "a".repeat(2000));
    assert_eq!(get(&at, &long_key).status, 404);
    let head = send(&at, b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let page = get(&at, "/");
    assert!(
        head.head
            .contains(&format!("Content-Length: {}", page.body.len()))
    );
    assert!(page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(!page.body.contains("NONCE"));
}

#[test]
fn several_requests_on_one_connection_are_answered_in_order() {
    let node = NodeProcess::start("location", &[&["--bootstrap"], &HTTP[..]].concat());
    let at = http_of(&node);
    let requests = "GET /livez HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n\
        GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(&at).unwrap();
    for part in requests.as_bytes().chunks(7) {
        stream.write_all(part).unwrap();
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let lines = answers.lines().filter(|line| line.starts_with("HTTP/1.1 "));
    let statuses: Vec<&str> = lines.map(|line| &line[9..12]).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

/// Reads OpenMetrics text strictly.
const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
assert len(families) > 15, families
for family in families:
    assert family.documentation and family.samples or family.name == 'thrifty_failed_calls', family
    assert family.type in ('counter', 'gauge', 'histogram'), family
";

#[test]
fn the_metrics_are_valid_and_their_sums_agree_with_the_status() {
    let stores = Stores::start(3, &HTTP);
    let client = StoreClient::new(stores.nodes[0].location.clone());
    for number in 0..100 {
        client
            .put(format!("key{number}").as_bytes(), b"value")
            .unwrap();
    }
    for number in 0..40 {
        client.delete(format!("key{number}").as_bytes()).unwrap();
    }
    let metrics = |node: &NodeProcess| get(&http_of(node), "/metrics").body;
    let texts: Vec<String> = stores.nodes.iter().map(metrics).collect();
    let status = store_status(&stores.nodes[0]);
    let sum = |name: &str| texts.iter().map(|text| metric(text, name)).sum::<f64>();
    let shown = |field: &str| {
        let nodes = status["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node[field].as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!(sum("thrifty_store_keys"), 180.0);
    assert_eq!(sum("thrifty_store_keys"), shown("keys"));
    assert_eq!(
        sum("thrifty_store_keys"),
        status["copies"].as_f64().unwrap()
    );
    assert_eq!(sum("thrifty_store_size_bytes"), shown("bytes"));
    assert_eq!(sum("thrifty_store_tombstones"), 120.0);
    for (text, node) in texts.iter().zip(&stores.nodes) {
        let first = metric(text, "thrifty_calls_total");
        let timed = metric(text, "thrifty_call_duration_seconds_count");
        assert!((first - timed).abs() <= 2.0, "{first} and {timed} calls");
        let nodes = status["nodes"].as_array().unwrap();
        let shown = nodes
            .iter()
            .find(|shown| shown["location"] == node.at())
            .unwrap();
        assert!(first <= shown["server"]["calls"].as_f64().unwrap());
        assert_eq!(metric(text, "thrifty_members"), 3.0);
        assert!(metric(text, "thrifty_gossip_bytes_total") > 100.0);
    }
    let writes = "thrifty_call_duration_seconds_count{method=\"write_many\"} 140";
    assert!(texts[0].contains(writes), "{}", texts[0]);
    parse(&texts[0]);
}

#[test]
fn a_store_with_a_directory_shows_what_its_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = ["--bootstrap", "--data", data.to_str().unwrap()];
    let node = NodeProcess::start("storeserver", &[&options[..], &HTTP].concat());
    let text = || get(&http_of(&node), "/metrics").body;
    let before = text();
    let client = StoreClient::new(node.location.clone());
    client.put(b"key", &[0; 1000]).unwrap();
    let after = text();
    let grown = |name: &str| metric(&after, name) - metric(&before, name);
    assert!(grown("thrifty_store_disk_syncs_total") >= 1.0, "{after}");
    assert!(grown("thrifty_store_disk_sync_seconds_total") > 0.0);
    assert!((1000.0..2000.0).contains(&grown("thrifty_store_disk_written_bytes_total")));
    assert!(metric(&after, "thrifty_store_disk_free_bytes") > 0.0);
    assert_eq!(metric(&after, "thrifty_store_disk_waiting_bytes"), 0.0);
    parse(&after);
}

/// Is the text OpenMetrics for the parser of Prometheus' own Python client?
fn parse(text: &str) {
    let python = std::env::var("THRIFTY_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import prometheus_client"])
        .output();
    if !has.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: needs a Python with the package prometheus_client");
    }
    let output = common::pipe(Command::new(python).args(["-c", PARSE]), text.as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{text}");
}

#[test]
fn refused_and_unknown_calls_are_counted_as_failed() {
    let options = [&["--bootstrap", "--max-key", "5"], &HTTP[..]].concat();
    let node = NodeProcess::start("storeserver", &options);
    let write = |node: &mut StoreSyncClient<_, _>| node.write(b"too long".to_vec(), Vec::new());
    call(StoreSyncClient::new, &node.location, write).unwrap_err();
    common::raw::reply_to(&node, &common::raw::message("nonsense", &[0]));
    let text = get(&http_of(&node), "/metrics").body;
    for line in [
        "thrifty_failed_calls_total{method=\"write\"} 1",
        "thrifty_failed_calls_total{method=\"other\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("nonsense"));
}

#[test]
fn a_hundred_open_pages_ask_the_other_nodes_once_a_second() {
    let stores = Stores::start(2, &HTTP);
    let (at, other) = (http_of(&stores.nodes[0]), http_of(&stores.nodes[1]));
    let asked = || {
        let text = get(&other, "/metrics").body;
        metric(
            &text,
            "thrifty_call_duration_seconds_count{method=\"stats\"}",
        )
    };
    let (before, began) = (asked(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                while began.elapsed() < Duration::from_secs(3) {
                    assert_eq!(get(&at, "/status.json").status, 200);
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
    });
    let (calls, seconds) = (asked() - before, began.elapsed().as_secs_f64());
    assert!(
        (1.0..=seconds + 1.0).contains(&calls),
        "{calls} calls in {seconds} s"
    );
}

#[test]
fn without_a_certificate_of_the_network_nothing_is_shown_under_tls() {
    let certificates = Certificates::new();
    let options = certificates.options("node");
    let node = NodeProcess::start(
        "storeserver",
        &with(&["--bootstrap", "--http", "0"], &options),
    );
    let at = http_of(&node);
    assert!(send(&at, b"GET /livez HTTP/1.1\r\n\r\n").is_none());
    let mut client = Command::new("openssl");
    client.args([
        "s_client",
        "-quiet",
        "-connect",
        &at,
        "-CAfile",
        &certificates.path("ca.pem"),
    ]);
    let request = b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
    let refused = common::pipe(&mut client, request);
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("ok"));
    client.args(["-cert", &certificates.path("client.pem")]);
    client.args(["-key", &certificates.path("client.key")]);
    let answered = common::pipe(&mut client, request);
    let stdout = String::from_utf8_lossy(&answered.stdout);
    assert!(stdout.ends_with("ok\n"), "{answered:?}");
}

#[test]
fn a_port_in_use_ends_the_program_with_a_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run("location", &["--bootstrap", "--port", "0", "--http", &port]);
    assert_eq!(output.status.code(), Some(2));
    let bad = run("location", &["--http", "nowhere"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("give ADDRESS:PORT"));
}

#[test]
fn clients_that_open_fill_stall_and_corrupt_connections_do_not_stop_the_node() {
    let node = NodeProcess::start("storeserver", &[&["--bootstrap"], &HTTP[..]].concat());
    let at = http_of(&node);
    let client = StoreClient::new(node.location.clone());
    client.put(b"a", b"apple").unwrap();
    // More than are accepted; each has sent a part of a request.
    let stalled: Vec<TcpStream> = (0..available_connections(1_200))
        .filter_map(|_| {
            let mut stream = TcpStream::connect(&at).ok()?;
            let _ = stream.write_all(b"GET /status.json HTTP/1.1\r\nX-Slow: ");
            Some(stream)
        })
        .collect();
    assert_eq!(get(&at, "/livez").status, 200);
    let mut random = Random(7);
    let request = b"GET /key.json?a HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n";
    for _ in 0..300 {
        let mut bytes = request.to_vec();
        for _ in 0..=random.below(8) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_slice(&request[..random.below(request.len())]),
            }
        }
        let mut stream = TcpStream::connect(&at).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "));
    }
    let huge = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 100_000]].concat();
    assert_eq!(send(&at, &huge).map(|answer| answer.status), Some(431));
    // A stalled request is given up after the time that one may take.
    let mut first = stalled.last().unwrap();
    first.set_read_timeout(Some(SOON)).unwrap();
    eventually("a stalled connection is closed", SOON, || {
        !matches!(first.read(&mut [0; 64]), Ok(1..))
    });
    assert_eq!(client.get(b"a").unwrap().as_deref(), Some(&b"apple"[..]));
    assert_eq!(get(&at, "/readyz").status, 200);
    assert!(!node.says("panicked"));
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}
