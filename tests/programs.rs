//! Do the programs print and exit as their `--help` says?

mod common;

use std::io::Write;
use std::process::Output;

use common::{NodeProcess, run, run_with_input};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The stdout of a program that succeeded.
fn done(output: Output) -> String {
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    stdout(&output)
}

/// Three store nodes in one network.
fn three() -> [NodeProcess; 3] {
    let first = NodeProcess::start_bootstrap("storeserver");
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    let third = NodeProcess::start("storeserver", &["--host", second.at()]);
    [first, second, third]
}

#[test]
fn a_value_put_through_one_node_is_read_through_any_other() {
    let nodes = three();
    for number in 0..30 {
        let (key, value) = (format!("key{number}"), format!("value{number}"));
        done(run(
            "storeput",
            &["-h", nodes[number % 3].at(), &key, &value],
        ));
        let got = done(run("storeget", &["-h", nodes[(number + 1) % 3].at(), &key]));
        assert_eq!(got, value + "\n");
    }
}

#[test]
fn any_value_is_read_as_it_was_written() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    for value in ["-5", "-", "--", "", "two words", "new\nline", "caf\u{e9}"] {
        done(run(
            "storeput",
            &[&host[..], &["key", "--", value]].concat(),
        ));
        assert_eq!(
            done(run("storeget", &[&host[..], &["--raw", "key"]].concat())),
            value
        );
    }
    for value in ["-5", "-"] {
        done(run("storeput", &[&host[..], &["t", value]].concat()));
        assert_eq!(
            done(run("storeget", &[&host[..], &["t"]].concat())),
            format!("{value}\n")
        );
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let put = run_with_input(
        "storeput",
        &[&host[..], &["--stdin", "key"]].concat(),
        &bytes,
    );
    done(put);
    let got = run("storeget", &[&host[..], &["--raw", "key"]].concat());
    assert!(got.stdout == bytes, "{} bytes came back", got.stdout.len());
}

#[test]
fn the_json_of_a_value_represents_any_bytes() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    done(run_with_input(
        "storeput",
        &[&host[..], &["--stdin", "key"]].concat(),
        b"\xffa",
    ));
    let got = done(run("storeget", &[&host[..], &["--json", "key"]].concat()));
    let start = r#"{"found":true,"hex":"ff61","key":"key","value":null,"version":""#;
    assert!(got.starts_with(start), "{got}");
    let missing = run("storeget", &[&host[..], &["--json", "no"]].concat());
    assert_eq!(code(&missing), 1);
    assert_eq!(
        stdout(&missing).trim_end(),
        r#"{"found":false,"hex":null,"key":"no","value":null,"version":"0"}"#
    );
}

#[test]
fn a_missing_key_prints_an_empty_line_and_an_error_and_exits_with_1() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let missing = run("storeget", &["-h", node.at(), "missing"]);
    assert_eq!((code(&missing), stdout(&missing)), (1, "\n".into()));
    assert!(stderr(&missing).contains("there is no key missing"));
    let deleted = run("storedel", &["-h", node.at(), "missing"]);
    assert_eq!((code(&deleted), stdout(&deleted)), (1, String::new()));
}

#[test]
fn an_empty_value_differs_from_a_missing_one() {
    let node = NodeProcess::start_bootstrap("storeserver");
    done(run("storeput", &["-h", node.at(), "empty", ""]));
    assert_eq!(done(run("storeget", &["-h", node.at(), "empty"])), "\n");
    done(run("storedel", &["-h", node.at(), "empty"]));
    assert_eq!(code(&run("storeget", &["-h", node.at(), "empty"])), 1);
}

#[test]
fn storetest_reads_what_storeprimer_writes() {
    let nodes = three();
    let unprimed = run("storetest", &["-h", nodes[0].at()]);
    assert_eq!(code(&unprimed), 1);
    let lines = stdout(&unprimed);
    assert_eq!(lines.lines().count(), 26);
    for line in lines.lines() {
        let owner = line.strip_prefix("None received from expected ").unwrap();
        assert!(
            nodes.iter().any(|node| node.at() == owner),
            "{owner} is no node"
        );
    }
    done(run("storeprimer", &["-h", nodes[1].at()]));
    let primed = done(run("storetest", &["-h", nodes[2].at()]));
    let words: Vec<&str> = primed.lines().collect();
    assert_eq!(words.len(), 26);
    assert_eq!(
        (words[0], words[9], words[23], words[25]),
        ("Alpha", "Juliet", "X-ray", "Zulu")
    );
    for (letter, word) in (b'A'..=b'Z').zip(words) {
        assert_eq!(letter, word.as_bytes()[0]);
    }
}

#[test]
fn h_is_the_host_and_help_has_no_short_option() {
    for program in [
        "location",
        "locationstatus",
        "storeserver",
        "storeput",
        "storeget",
        "storedel",
        "storeprimer",
        "storetest",
        "storestatus",
        "storeload",
        "storedump",
        "storelist",
        "storebench",
    ] {
        let help = done(run(program, &["--help"]));
        assert!(help.contains("-h, --host <PEER>"), "{program}: {help}");
        assert!(help.contains("Exit status:"), "{program}: {help}");
        assert_eq!(
            code(&run(program, &["-h"])),
            2,
            "{program} took -h for help"
        );
        assert_eq!(code(&run(program, &["--no-such-option"])), 2, "{program}");
        assert!(
            done(run(program, &["--version"])).starts_with(program),
            "{program}"
        );
    }
    assert_eq!(code(&run("storeput", &["key"])), 2, "a put needs a value");
    assert_eq!(code(&run("storeget", &[])), 2, "a get needs a key");
}

#[test]
fn without_a_peer_a_client_exits_with_3_and_without_a_reply_with_4() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let not_thrift = std::thread::spawn(move || {
        for stream in listener.incoming().take(1) {
            stream.unwrap().write_all(b"?").unwrap();
        }
    });
    let without_reply = run("storeget", &["-h", &address, "key"]);
    assert_eq!(code(&without_reply), 4, "{}", stderr(&without_reply));
    assert!(stderr(&without_reply).contains(&address));
    not_thrift.join().unwrap();

    let without_peer = run("storeget", &["-h", &address, "key"]);
    assert_eq!(code(&without_peer), 3, "{}", stderr(&without_peer));
    let location = NodeProcess::start_bootstrap("location");
    let foreign = run("storeget", &["-h", location.at(), "key"]);
    let error = stderr(&foreign);
    assert_eq!(code(&foreign), 3, "{error}");
    assert!(error.contains("locator.Locator"), "{error}");
    let joining = run("storeserver", &["-p", "0", "-h", location.at()]);
    assert_eq!(code(&joining), 3, "{}", stderr(&joining));
}

#[test]
fn nodes_that_start_at_the_same_instant_take_different_ports() {
    let first = NodeProcess::start_bootstrap("location");
    let mut nodes: Vec<NodeProcess> = (0..6)
        .map(|_| NodeProcess::spawn("location", &["-h", first.at()]))
        .collect();
    nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
    let mut ports: Vec<u16> = nodes.iter().map(|node| node.location.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), nodes.len());
    assert!(
        ports.iter().all(|port| (9900..9940).contains(port)),
        "{ports:?}"
    );
}

#[test]
fn ports_above_32767_work_for_nodes_and_clients() {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (40_000..60_000).find(is_free).unwrap().to_string();
    let first = NodeProcess::start_exactly("storeserver", &["--bootstrap", "-p", &port]);
    let second = NodeProcess::start("storeserver", &["-h", first.at()]);
    done(run("storeput", &["-h", second.at(), "a", "apple"]));
    assert_eq!(done(run("storeget", &["-h", first.at(), "a"])), "apple\n");
}

#[test]
fn the_last_line_of_storestatus_is_settled_and_its_json_has_the_keys() {
    let nodes = three();
    done(run("storeprimer", &["-h", nodes[0].at()]));
    common::eventually("the store is settled", common::SOON, || {
        code(&run("storestatus", &["-h", nodes[1].at()])) == 0
    });
    let table = done(run("storestatus", &["-h", nodes[1].at()]));
    assert!(table.contains("\nsettled"), "{table}");
    assert!(
        nodes.iter().all(|node| table.contains(node.at())),
        "{table}"
    );
    let json = done(run("storestatus", &["--json", "-h", nodes[1].at()]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["settled"].as_bool(), json["keys"].as_u64()),
        (Some(true), Some(26))
    );
    assert_eq!(json["copies"].as_u64(), Some(78));
    assert_eq!(json["expected_copies"].as_u64(), Some(78));
    let primary = json["nodes"].as_array().unwrap().iter();
    let primary: u64 = primary
        .map(|node| node["primary_keys"].as_u64().unwrap())
        .sum();
    assert_eq!(primary, 26);
}
