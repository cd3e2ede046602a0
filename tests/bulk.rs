//! Do `storeload` and `storedump` copy any pairs unchanged, while nodes join and fail?

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::stores::Stores;
use common::{NodeProcess, SOON, eventually, program, run, run_with_input};
use thrifty_p2p::bulk::tsv::{decode, encode};
use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::location::Location;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The stdout of a program that succeeded.
fn done(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "progress is shown on a terminal only");
    output.stdout
}

fn lines_of(pairs: &Pairs) -> Vec<u8> {
    let mut lines = Vec::new();
    for (key, value) in pairs {
        encode(key, value, &mut lines);
    }
    lines
}

/// The pairs of a dump. Each key must be there once.
fn pairs_of(dump: &[u8]) -> Pairs {
    let mut pairs = Pairs::new();
    for line in dump.split_inclusive(|byte| *byte == b'\n') {
        let (key, value) = decode(&line[..line.len() - 1]).unwrap();
        let other = pairs.insert(key.to_vec(), value.into_owned());
        assert_eq!(other, None, "{} is dumped twice", key.escape_ascii());
    }
    pairs
}

/// Pseudorandom bytes (xorshift).
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(next).collect()
}

/// Pairs of all bytes, and of short and long keys and values.
fn any_pairs() -> Pairs {
    let some = (0..500).map(|i| (bytes(i, 1 + i as usize % 40), bytes(!i, i as usize % 300)));
    let some = some.filter(|(key, _)| !key.is_empty());
    let mut pairs: Pairs = some.collect();
    pairs.insert(Vec::new(), b"value of the empty key".to_vec());
    pairs.insert(b"empty".to_vec(), Vec::new());
    pairs.insert((0..=255).collect(), (0..=255).rev().collect());
    pairs.insert("caf\u{e9}".into(), "\u{1f980}\t\r\n\\".into());
    pairs.insert(bytes(1, 64 * 1024), bytes(2, 3 << 20));
    pairs
}

fn numbered(count: usize) -> Pairs {
    let pair = |number| (format!("key{number:06}").into(), bytes(number, 100));
    (0..count as u64).map(pair).collect()
}

/// Starts a program with pipes.
fn spawn(name: &str, arguments: &[&str]) -> Child {
    Command::new(program(name))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn any_bytes_survive_a_load_and_a_dump_twice() {
    let pairs = any_pairs();
    let stores = Stores::start(3, &["--replicas", "2"]);
    done(run_with_input(
        "storeload",
        &["-h", stores.nodes[0].at()],
        &lines_of(&pairs),
    ));
    let first = done(run("storedump", &["-h", stores.nodes[1].at()]));
    assert!(
        pairs_of(&first) == pairs,
        "the dump differs from what was loaded"
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs").display().to_string();
    done(run("storedump", &["-h", stores.nodes[2].at(), &file]));
    let other = NodeProcess::start_bootstrap("storeserver");
    done(run("storeload", &["-h", other.at(), &file]));
    let again = done(run("storedump", &["-h", other.at(), "-"]));
    assert!(pairs_of(&again) == pairs, "the second dump differs");
}

/// The point of a key of 32 hexadecimal digits is its first eight digits, in any case. So the
/// order of the points differs from that of the bytes.
#[test]
fn a_stripe_of_several_pages_is_dumped_completely() {
    let store = NodeProcess::start_bootstrap("storeserver");
    let digits = ["00a0", "00B0", "00c0", "00D0", "00e0", "00F0"];
    let pair = |digits: &str| {
        (
            format!("{digits:0<32}").into_bytes(),
            vec![b'v'; 1024 * 1024],
        )
    };
    let pairs: Pairs = digits.into_iter().map(pair).collect();
    done(run_with_input(
        "storeload",
        &["-h", store.at()],
        &lines_of(&pairs),
    ));
    let dumped = pairs_of(&done(run("storedump", &["-h", store.at()])));
    assert!(dumped == pairs, "{} of {} pairs", dumped.len(), pairs.len());
}

#[test]
fn an_empty_file_and_an_empty_store_are_valid() {
    let node = NodeProcess::start_bootstrap("storeserver");
    done(run("storeload", &["-h", node.at()]));
    assert_eq!(done(run("storedump", &["-h", node.at()])), b"");
}

#[test]
fn the_last_line_of_a_key_wins() {
    let stores = Stores::start(3, &["--replicas", "1"]);
    let mut lines = Vec::new();
    let mut last = Pairs::new();
    for number in 0..60_000u64 {
        // Some keys are repeated in the same batch, others in a later one.
        let key = match number % 3 {
            0 => format!("soon {}", number / 30),
            1 => format!("late {}", number % 1000),
            _ => "always".to_owned(),
        };
        let value = format!("{number:0100}").into_bytes();
        encode(key.as_bytes(), &value, &mut lines);
        last.insert(key.into_bytes(), value);
    }
    done(run_with_input(
        "storeload",
        &["-h", stores.nodes[0].at()],
        &lines,
    ));
    let dump = pairs_of(&done(run("storedump", &["-h", stores.nodes[0].at()])));
    let wrong = last
        .iter()
        .filter(|(key, value)| dump.get(*key) != Some(value));
    let wrong: Vec<String> = wrong
        .map(|(key, _)| key.escape_ascii().to_string())
        .collect();
    assert!(wrong.is_empty(), "not the last value: {wrong:?}");
    assert_eq!(dump.len(), last.len());
}

#[test]
fn a_malformed_line_is_reported_by_its_number_and_the_lines_before_are_stored() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let before: Pairs = numbered(5000);
    let long = [&b"\t"[..], &vec![b'v'; (16 << 20) + 1]].concat();
    for (bad, reason) in [
        (&b"no tab"[..], "there is no tab"),
        (b"", "there is no tab"),
        (b"a\tb\tc", "second tab"),
        (b"a\tb\r", "carriage return"),
        (b"a\\q\tb", "\"\\q\" is not an escape"),
        (
            &long,
            "a value of 16777217 bytes; at most 16777216 are accepted",
        ),
    ] {
        let lines = [&lines_of(&before)[..], bad, b"\nafter\tit\n"].concat();
        let output = run_with_input("storeload", &["-h", node.at()], &lines);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("line 5001: "), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(error.contains("; stored 5000 lines"), "{error}");
        let stored = pairs_of(&done(run("storedump", &["-h", node.at()])));
        assert!(stored == before, "only the lines before are stored");
    }
}

#[test]
fn an_endless_line_is_rejected_after_its_maximum_length() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let mut load = spawn("storeload", &["-h", node.at()]);
    let mut stdin = load.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        // Ends when the pipe is closed.
        (0..200)
            .take_while(|_| stdin.write_all(&piece).is_ok())
            .count()
    });
    let output = load.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("line 1: longer than"),
        "{}",
        stderr(&output)
    );
    assert!((60..80).contains(&written), "{written} MiB were read");
}

#[test]
fn a_line_that_the_store_refuses_is_reported_by_its_number() {
    let node = NodeProcess::start("storeserver", &["--bootstrap", "--max-value", "200"]);
    let mut lines = lines_of(&numbered(3000));
    encode(b"long", &[b'v'; 201], &mut lines);
    let output = run_with_input("storeload", &["-h", node.at()], &lines);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(error.contains("line 3001: "), "{error}");
    let reason = "a value of 201 bytes; at most 200 are accepted";
    assert!(error.contains(reason), "{error}");
    let stored = pairs_of(&done(run("storedump", &["-h", node.at()])));
    let count = format!("; stored {} lines", stored.len());
    assert!(error.contains(&count), "{error}");
}

#[test]
fn a_dump_into_a_pipe_that_is_closed_early_succeeds() {
    let node = NodeProcess::start_bootstrap("storeserver");
    done(run_with_input(
        "storeload",
        &["-h", node.at()],
        &lines_of(&numbered(20_000)),
    ));
    let mut dump = spawn("storedump", &["-h", node.at()]);
    let mut first = [0; 10];
    dump.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = dump.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_file_that_cannot_be_opened_is_wrong_usage_and_a_full_one_a_failure() {
    let node = NodeProcess::start_bootstrap("storeserver");
    for name in ["storeload", "storedump"] {
        let output = run(name, &["-h", node.at(), "/no/such/file"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("/no/such/file"),
            "{}",
            stderr(&output)
        );
    }
    let full = File::create("/dev/full").unwrap();
    done(run_with_input("storeload", &["-h", node.at()], b"a\tb\n"));
    let output = Command::new(program("storedump"))
        .args(["-h", node.at()])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}

#[test]
fn a_dump_while_nodes_join_and_fail_has_every_key_once() {
    let mut stores = Stores::start(4, &["--replicas", "3", "--page-delay", "20"]);
    let pairs = numbered(20_000);
    let lines = lines_of(&pairs);
    done(run_with_input(
        "storeload",
        &["-h", stores.nodes[0].at()],
        &lines,
    ));
    let first = stores.nodes[0].at().to_owned();
    let dumps = thread::spawn(move || {
        let dumps = (0..6).map(|_| run("storedump", &["-h", &first]));
        dumps.collect::<Vec<Output>>()
    });
    let joiner = stores.spawn_joiner();
    stores.admit(joiner);
    stores.kill(2);
    for output in dumps.join().unwrap() {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let dump = pairs_of(&output.stdout);
        let missing = pairs.keys().filter(|key| !dump.contains_key(*key)).count();
        assert_eq!(missing, 0, "of {} keys", pairs.len());
        assert!(dump == pairs, "the dump has other values");
    }
}

#[test]
fn a_load_loses_no_line_while_a_node_is_killed() {
    let mut stores = Stores::start(4, &["--replicas", "3"]);
    let mut load = spawn("storeload", &["-h", stores.nodes[0].at()]);
    let mut stdin = load.stdin.take().unwrap();
    let pairs = numbered(60_000);
    let lines = lines_of(&pairs);
    let (before, after) = lines.split_at(lines.len() / 2);
    stdin.write_all(before).unwrap();
    let client = RingClient::connect(&stores.nodes[1].location).unwrap();
    eventually("the load has started", SOON, || {
        client.get(b"key000000").unwrap().is_some()
    });
    let gone: Location = stores.kill(0).location.clone();
    stdin.write_all(after).unwrap();
    drop(stdin);
    done(load.wait_with_output().unwrap());
    assert!(
        stores.settle() < Duration::from_secs(30),
        "after {gone} was killed"
    );
    let dump = pairs_of(&done(run("storedump", &["-h", stores.nodes[0].at()])));
    let missing: BTreeSet<_> = pairs
        .keys()
        .filter(|key| !dump.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "{} keys are missing", missing.len());
    assert!(dump == pairs, "the dump has other values");
}
