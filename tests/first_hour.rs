//! Does what a new user tries in the first hour work as the README and `--help` say?

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::authority::Role;
use common::certificates::{Certificates, DAY};
use common::{NodeProcess, SOON, ended, eventually, program, run, run_with_input};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program with a peer, run to its end; its status must be this one.
fn at(node: &NodeProcess, status: i32, name: &str, arguments: &[&str]) -> (String, String) {
    let output = run(name, &[&["-h", node.at()], arguments].concat());
    let (code, stderr) = ended(&output);
    assert_eq!(code, Some(status), "{name} {arguments:?}: {stderr}");
    (text(&output), stderr)
}

#[test]
fn errors_are_plain_sentences_and_a_key_is_escaped() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let (_, errors) = at(&node, 1, "storeget", &["no"]);
    assert_eq!(errors, "there is no key no\n");
    let (_, errors) = at(&node, 1, "storedel", &["\x1b[31mcaf\u{e9}\n"]);
    assert_eq!(errors, "there is no key \\u{1b}[31mcaf\u{e9}\\n\n");
    let (_, errors) = at(&node, 1, "storeget", &["-v", "no"]);
    assert!(errors.contains("ERROR] there is no key no"), "{errors}");
    let (missing, errors) = at(&node, 1, "storetest", &[]);
    assert!(
        missing.starts_with("None received from expected "),
        "{missing}"
    );
    assert!(errors.contains("there is no key Q\n"), "{errors}");
}

#[test]
fn an_answer_that_cannot_be_written_is_told() {
    let node = NodeProcess::start_bootstrap("storeserver");
    at(&node, 0, "storeput", &["a", "apple"]);
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for name in ["storeget", "storestatus", "storedump", "storelist"] {
        let key = ["a"].into_iter().filter(|_| name == "storeget");
        let mut command = Command::new(program(name));
        let output = command
            .args(["-h", node.at()])
            .args(key)
            .stdout(full())
            .output();
        let (code, stderr) = ended(&output.unwrap());
        assert_eq!(code, Some(4), "{name}: {stderr}");
        assert!(
            stderr.contains("the answer could not be written: No space"),
            "{stderr}"
        );
    }
}

#[test]
fn two_signals_at_once_are_one_and_a_node_hands_over() {
    let mut last = NodeProcess::start_bootstrap("storeserver");
    for signals in [["TERM", "TERM"], ["HUP", "HUP"], ["INT", "TERM"]] {
        let mut node = NodeProcess::start("storeserver", &["-h", last.at()]);
        eventually("both nodes are settled", SOON, || {
            text(&run("storestatus", &["-h", node.at()])).contains("\nsettled, but 2 of 3")
        });
        for number in 0..20 {
            at(&node, 0, "storeput", &[&format!("key {number}"), "value"]);
        }
        let process = last.id().to_string();
        for signal in signals {
            Command::new("kill")
                .args(["-s", signal, &process])
                .status()
                .unwrap();
        }
        assert_eq!(last.wait().code(), Some(0), "{:?}", last.lines());
        for number in 0..20 {
            at(&node, 0, "storeget", &[&format!("key {number}")]);
        }
        std::mem::swap(&mut last, &mut node);
    }
}

#[test]
fn a_dump_that_breaks_off_leaves_the_file_of_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.tsv");
    let path = file.to_str().unwrap();
    let mut node = NodeProcess::start_bootstrap("storeserver");
    at(&node, 0, "storeput", &["a", "apple"]);
    at(&node, 0, "storedump", &[path]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a\tapple\n");
    let names = || fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names(), 1, "nothing else is left");
    // A value that fills the pipe, so that the dump is under way when the node ends.
    let big = "x".repeat(1 << 20);
    let lines: String = (0..40).map(|n| format!("k{n}\t{big}\n")).collect();
    let loaded = run_with_input("storeload", &["-h", node.at()], lines.as_bytes());
    assert!(loaded.status.success());
    let limit = format!(
        "ulimit -f 2048; exec {} -h {} {path}",
        program("storedump"),
        node.at()
    );
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-c", &format!("trap '' XFSZ; {limit}")])
        .output()
        .unwrap();
    let (code, stderr) = ended(&output);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(
        stderr.contains("the answer could not be written"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "a\tapple\n");
    assert_eq!(names(), 1, "the incomplete file is removed");
    node.kill();
    let output = run("storedump", &["-h", node.at(), path]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(fs::read_to_string(&file).unwrap(), "a\tapple\n");
}

#[test]
fn the_peer_is_taken_from_the_environment_and_a_port_may_be_left_out() {
    let node = NodeProcess::start_bootstrap("storeserver");
    at(&node, 0, "storeput", &["a", "apple"]);
    let get = |peer: &str| {
        let mut command = Command::new(program("storeget"));
        command.arg("a").env("THRIFTY_PEER", peer).output().unwrap()
    };
    assert_eq!(text(&get(node.at())), "apple\n");
    // Nothing listens at this address.
    for (peer, named) in [("127.9.9.9", "127.9.9.9:9900"), ("[::9]", "::9:9900")] {
        let (code, stderr) = ended(&get(peer));
        assert_eq!(code, Some(3), "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn a_program_goes_on_with_another_node_when_its_own_dies() {
    let mut first = NodeProcess::start_bootstrap("storeserver");
    let others = [(); 2].map(|()| NodeProcess::start("storeserver", &["-h", first.at()]));
    let wait = ["--wait", "--timeout", "20"];
    at(&first, 0, "storestatus", &wait);
    at(&first, 0, "storeprimer", &[]);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let letters = ('A'..='Z').cycle().take(26_000);
    fs::write(&keys, letters.map(|c| format!("{c}\n")).collect::<String>()).unwrap();
    let mut reader = Command::new(program("storeget"));
    reader.args(["-h", first.at(), "--keys-from", keys.to_str().unwrap()]);
    let mut reader = reader.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    let before = lines.by_ref().take(500).count();
    first.kill();
    let after = lines.map_while(Result::ok).filter(|line| !line.is_empty());
    assert_eq!(before + after.count(), 26_000);
    assert!(reader.wait().unwrap().success());
    let [second, _third] = others;
    let peers = format!("{},{}", first.at(), second.at());
    assert!(
        run("storeput", &["-h", &peers, "b", "banana"])
            .status
            .success()
    );
}

#[test]
fn storestatus_waits_until_the_store_is_settled_and_shows_who_is_down() {
    let first = NodeProcess::start_bootstrap("storeserver");
    let _second = NodeProcess::start("storeserver", &["-h", first.at()]);
    let mut third = NodeProcess::start("storeserver", &["-h", first.at()]);
    let (table, _) = at(&first, 0, "storestatus", &["--wait", "--timeout", "20"]);
    assert!(table.ends_with("settled, 3 copies\n"), "{table}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        table.matches(&format!("settled  {version}")).count(),
        3,
        "{table}"
    );
    third.kill();
    eventually("the third node is shown as down", SOON, || {
        let (table, _) = at(&first, 1, "storestatus", &[]);
        let mut lines = table.lines();
        lines.any(|line| line.starts_with(third.at()) && line.contains("  down  "))
    });
}

#[test]
fn storestatus_waits_no_longer_for_nodes_that_are_not_there_and_a_timeout_names_the_verdict() {
    let first = NodeProcess::start_bootstrap("storeserver");
    let alone = "settled, but 1 of 3 copies: the next death loses keys\n";
    let (_, errors) = at(&first, 4, "storestatus", &["--wait", "--timeout", "1"]);
    assert_eq!(errors, format!("not done after 1s: {alone}"));
    let (table, _) = at(&first, 1, "storestatus", &["--wait", "--timeout", "20"]);
    assert!(table.ends_with(alone), "{table}");
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    let (table, _) = at(&second, 1, "storestatus", &["--wait", "--timeout", "20"]);
    assert!(table.ends_with("settled, but 2 of 3 copies\n"), "{table}");
}

#[test]
fn a_node_leaves_when_a_program_asks_it_to() {
    let first = NodeProcess::start_bootstrap("storeserver");
    let mut second = NodeProcess::start("storeserver", &["-h", first.at()]);
    at(&second, 0, "storeput", &["a", "apple"]);
    let left = run("locationstatus", &["--leave", second.at()]);
    assert_eq!(ended(&left), (Some(0), String::new()));
    assert_eq!(second.wait().code(), Some(0));
    first.wait_for(&format!("removed {}: it left", second.at()));
    let (value, _) = at(&first, 0, "storeget", &["a"]);
    assert_eq!(value, "apple\n");
    let gone = run("locationstatus", &["--leave", second.at()]);
    assert_eq!(gone.status.code(), Some(3));
}

#[test]
fn locationstatus_names_the_owner_of_a_key() {
    let first = NodeProcess::start_bootstrap("location");
    let second = NodeProcess::start("location", &["-h", first.at()]);
    first.wait_for(&format!("added {}", second.at()));
    let owner = |node, key| at(node, 0, "locationstatus", &["--key", key]).0;
    let owners: Vec<String> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .map(|key| {
            assert_eq!(owner(&first, key), owner(&second, key), "{key}");
            owner(&first, key).trim_end().to_owned()
        })
        .into();
    for node in [&first, &second] {
        assert!(owners.iter().any(|owner| owner == node.at()), "{owners:?}");
    }
}

#[test]
fn each_help_names_only_the_exit_statuses_of_its_program() {
    for (name, statuses) in [
        ("location", "0 2 3 4 130"),
        ("storeserver", "0 2 3 4 130"),
        ("storeput", "0 2 3 4 5"),
        ("storeget", "0 1 2 3 4"),
        ("storedel", "0 1 2 3 4 5"),
        ("storeprimer", "0 2 3 4"),
        ("storetest", "0 1 2 3 4"),
        ("locationstatus", "0 1 2 3 4"),
        ("storestatus", "0 1 2 3 4"),
        ("storeload", "0 2 3 4"),
        ("storedump", "0 2 3 4"),
        ("storelist", "0 2 3 4"),
        ("storebench", "0 2 3 4 130"),
    ] {
        let help = text(&run(name, &["--help"]));
        let (before, last) = help.split_once("Exit status: ").unwrap();
        let words = last.split(|c: char| !c.is_ascii_alphanumeric());
        let numbers: Vec<&str> = words.filter(|word| word.parse::<u8>().is_ok()).collect();
        assert_eq!(numbers.join(" "), statuses, "{name}");
        let tls = before.rfind("\nTLS:").unwrap();
        let options = before[tls..].matches("\n      --").count();
        assert_eq!(options, 3, "{name}: the options of TLS are the last ones");
    }
}

#[test]
fn a_client_that_hears_no_reply_to_its_connection_says_so_within_a_second() {
    // A listener whose queue of connections is full accepts none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let timeout = Duration::from_millis(300);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&full, timeout) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue has no end");
    }
    let began = Instant::now();
    let (code, stderr) = ended(&run("storeget", &["-h", &full.to_string(), "a"]));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_certificate_that_expires_soon_is_told_by_each_program_that_shows_it() {
    let certificates = Certificates::new();
    let until = SystemTime::now() + 5 * DAY - Duration::from_secs(3600);
    certificates
        .authority
        .issue("short", Role::Node, until)
        .unwrap();
    let with = |arguments: &[&str], name: &str| -> Vec<String> {
        let given = arguments.iter().map(ToString::to_string);
        given.chain(certificates.options(name)).collect()
    };
    let start = with(&["--bootstrap"], "short");
    let start: Vec<&str> = start.iter().map(String::as_str).collect();
    let node = NodeProcess::start("storeserver", &start);
    assert!(
        node.says("short.pem expires in less than 5 days"),
        "{:?}",
        node.lines()
    );
    let put = with(&["-h", node.at(), "a", "apple"], "client");
    let put: Vec<&str> = put.iter().map(String::as_str).collect();
    assert_eq!(ended(&run("storeput", &put)), (Some(0), String::new()));
}
