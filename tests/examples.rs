//! Do the examples do what the README says?

mod common;

use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use common::network::free_port;
use common::{NodeProcess, SOON, eventually, run};

/// Runs an example to its end.
fn example(name: &str, arguments: &[&str]) -> Output {
    let output = Command::new(common::example(name))
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}");
    output
}

#[test]
fn dice_throws_within_its_sides_and_names_its_descent() {
    let output = example("dice", &["20"]);
    let lines: Vec<&str> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .collect();
    assert_eq!(lines[0], "locator.Base < dice.Dice");
    assert_eq!(lines.len(), 4);
    for throw in &lines[1..] {
        assert!(
            (1..=20).contains(&throw.parse::<i32>().unwrap()),
            "threw {throw}"
        );
    }
}

#[test]
fn wordcount_counts_all_words_on_more_than_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    let text: String = (1..=30)
        .map(|number| format!("word{number} ").repeat(100 - number))
        .collect();
    std::fs::write(&file, text).unwrap();
    let output = example("wordcount", &[file.to_str().unwrap()]);
    let lines: Vec<Vec<&str>> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let counted: Vec<(&str, &str)> = lines.iter().map(|line| (line[0], line[1])).collect();
    let expected: Vec<(String, String)> = (1..=10)
        .map(|number| ((100 - number).to_string(), format!("word{number}")))
        .collect();
    let expected: Vec<(&str, &str)> = expected.iter().map(|(n, w)| (&n[..], &w[..])).collect();
    assert_eq!(counted, expected);
    let nodes: std::collections::BTreeSet<&str> = lines.iter().map(|line| line[4]).collect();
    assert!(nodes.len() > 1, "all words were counted at {nodes:?}");
}

/// Another program's server, killed when dropped.
struct Other {
    server: Child,
    at: String,
}

impl Other {
    /// Starts it at a free port; nothing, saying so, where it is not installed.
    fn start(program: &str, port_option: &str, more: &[&str]) -> Option<Other> {
        let port = free_port().to_string();
        let mut command = Command::new(program);
        command.args([port_option, &port]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(server) = command.stderr(Stdio::null()).spawn() else {
            eprintln!("skipped: there is no {program}");
            return None;
        };
        let at = format!("127.0.0.1:{port}");
        let other = Other { server, at };
        eventually(&format!("{program} listens"), SOON, || {
            TcpStream::connect(&other.at).is_ok()
        });
        Some(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// What `compare` tells of the median of each, from which all that was called answered.
fn compared(node: &NodeProcess, others: &[(&str, &Other)], arguments: &[&str]) {
    let few = ["--connections", "2", "--keys", "50", "--rounds", "1"];
    let mut all = vec!["--store", node.at(), "--seconds", "1"];
    all.extend(
        others
            .iter()
            .flat_map(|(option, other)| [option, other.at.as_str()]),
    );
    let output = example("compare", &[&all[..], &few, arguments].concat());
    let told = String::from_utf8(output.stdout).unwrap();
    let rows = told.lines().filter(|line| line.ends_with(" 0"));
    assert_eq!(rows.count(), 2 + others.len(), "{told}");
    let ratios = told.lines().filter(|line| line.contains("; store is "));
    assert_eq!(ratios.count(), 1 + others.len(), "{told}");
}

#[test]
fn compare_reads_one_by_one_and_in_batches_and_writes_with_others_that_are_there() {
    let node = NodeProcess::start_alone("storeserver");
    let redis = Other::start("redis-server", "--port", &["--save", ""]);
    let memcached = Other::start("memcached", "-p", &["-u", "nobody", "-l", "127.0.0.1"]);
    let redis = redis.as_ref().map(|redis| ("--redis", redis));
    let memcached = memcached
        .as_ref()
        .map(|memcached| ("--memcached", memcached));
    let others: Vec<(&str, &Other)> = redis.into_iter().chain(memcached).collect();
    compared(&node, &others, &[]);
    compared(&node, &others, &["--batch", "16"]);
    compared(&node, &others, &["--write", "--wait", "0"]);
}

#[test]
fn rings_tells_of_the_sizes_given_an_addition_and_the_memory() {
    let few = ["5", "50", "--size", "20"];
    let told = String::from_utf8(example("rings", &few).stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 9, "{told}");
    for (line, nodes) in lines[3..5].iter().zip(["5 ", "50 "]) {
        assert!(line.trim_start().starts_with(nodes), "{told}");
        assert_eq!(line.matches('(').count(), 4, "{told}");
    }
}

#[test]
fn processes_times_a_start_and_a_storeget() {
    let told = String::from_utf8(example("processes", &["--rounds", "1"]).stdout).unwrap();
    for what in ["a store node, to its first answer: ", "storeget: "] {
        assert!(told.lines().any(|line| line.starts_with(what)), "{told}");
    }
}

#[test]
fn moves_tells_of_joins_at_rest_and_under_load_and_of_a_kill() {
    let few = ["--keys", "2000", "--keys-at-kill", "2000", "--seconds", "1"];
    let told = String::from_utf8(example("moves", &few).stdout).unwrap();
    for what in [
        "join at next_page: ",
        "during the join: ",
        "after the join: ",
        "failed calls: 0",
        "after kill -9 of one of five nodes with 2000 keys: settled in ",
    ] {
        assert!(told.lines().any(|line| line.starts_with(what)), "{told}");
    }
}

#[test]
fn certificates_makes_what_a_node_and_its_clients_need_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let made = made.to_str().unwrap();
    example("certificates", &[made, "one", "--client", "me"]);
    let mut again = Command::new(common::example("certificates"));
    let (status, told) = common::ended(&again.args([made, "one"]).output().unwrap());
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("one.key"), "{told}");
    // The CA is the same for one that comes later.
    example("certificates", &[made, "two"]);
    let options = |name: &str| {
        let file = |name: &str, ending: &str| format!("{made}/{name}.{ending}");
        let (pem, key, authority) = (file(name, "pem"), file(name, "key"), file("ca", "pem"));
        [
            "--tls-cert",
            &pem,
            "--tls-key",
            &key,
            "--tls-ca",
            &authority,
        ]
        .map(str::to_owned)
    };
    let (one, two, me) = (options("one"), options("two"), options("me"));
    let with = |arguments: &[&str], options: &[String]| -> Vec<String> {
        let arguments = arguments.iter().map(ToString::to_string);
        arguments.chain(options.iter().cloned()).collect()
    };
    let start = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        NodeProcess::start("location", &arguments)
    };
    let first = start(with(&["--alone"], &one));
    let second = start(with(&["-h", first.at()], &two));
    let asked = with(&["-h", second.at()], &me);
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let (status, told) = common::ended(&run("locationstatus", &asked));
    assert_eq!(status, Some(0), "{told}");
}
