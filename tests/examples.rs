//! Do the examples do what the README says?

mod common;

use std::process::{Command, Output};

use common::{NodeProcess, run};

/// Runs an example to its end.
fn example(name: &str, arguments: &[&str]) -> Output {
    let output = Command::new(common::example(name))
        .args(arguments)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {printed}");
    output
}

#[test]
fn dice_throws_within_its_sides_and_prints_its_service_chain() {
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

/// The lines that a measuring example prints.
fn lines(name: &str, arguments: &[&str]) -> Vec<String> {
    let printed = String::from_utf8(example(name, arguments).stdout).unwrap();
    printed.lines().map(str::to_owned).collect()
}

fn assert_starts(lines: &[String], starts: &[&str]) {
    for start in starts {
        let is_there = lines.iter().any(|line| line.starts_with(start));
        assert!(is_there, "no line starts with {start:?}: {lines:#?}");
    }
}

#[test]
fn rings_prints_lookups_for_each_size_an_addition_and_the_memory() {
    let lines = lines("rings", &["5", "50", "--size", "20"]);
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let starts = [
        "lookup, 5 nodes: md5 alone ",
        "lookup, 50 nodes: md5 alone ",
        "one more node, 20 nodes: ",
        "memory, 20 nodes: ",
    ];
    assert_starts(&lines, &starts);
    assert!(
        lines[1..3]
            .iter()
            .all(|line| line.matches('(').count() == 4)
    );
}

#[test]
fn processes_prints_the_times_of_a_start_and_of_a_storeget() {
    let lines = lines("processes", &["--rounds", "1"]);
    assert_starts(&lines, &["start of a store node: ", "storeget: "]);
}

#[test]
fn moves_prints_joins_without_and_with_load_and_the_repair_after_a_kill() {
    let few = ["--keys", "2000", "--keys-at-kill", "2000", "--seconds", "1"];
    let lines = lines("moves", &few);
    let starts = [
        "join without load: ",
        "before the join: ",
        "during the join: ",
        "after the join: ",
        "during / before: rate ",
        "kill -9 of one of five nodes with 2000 keys: settled in ",
    ];
    assert_starts(&lines, &starts);
    let ends = lines.iter().filter(|line| line.ends_with(" 0 failed"));
    assert_eq!(ends.count(), 3, "{lines:#?}");
}

#[test]
fn scaling_prints_the_reads_by_one_and_by_two_threads() {
    let few = ["--keys", "100", "--rounds", "1", "--millis", "10"];
    let lines = lines("scaling", &few);
    assert_starts(&lines, &["threads 1: ", "threads 2: "]);
}

#[test]
fn certificates_makes_what_a_node_and_its_clients_need_and_keeps_the_ca() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let made = made.to_str().unwrap();
    example("certificates", &[made, "one", "--client", "me"]);
    let read = |file: &str| std::fs::read_to_string(format!("{made}/{file}")).unwrap();
    let (authority, key) = (read("ca.pem"), read("one.key"));
    let mut wrong = Command::new(common::example("certificates"));
    let (status, printed) = common::ended(&wrong.args([made, "ca"]).output().unwrap());
    assert_eq!(status, Some(1), "{printed}");
    // Renewed, and one that comes later.
    example("certificates", &[made, "one", "two"]);
    assert_eq!(read("ca.pem"), authority);
    assert_ne!(read("one.key"), key);
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
    let first = start(with(&["--bootstrap"], &one));
    let second = start(with(&["-h", first.at()], &two));
    let asked = with(&["-h", second.at()], &me);
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let (status, printed) = common::ended(&run("locationstatus", &asked));
    assert_eq!(status, Some(0), "{printed}");
}
