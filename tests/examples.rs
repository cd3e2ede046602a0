//! Do the examples do what the README says?

mod common;

use std::process::{Command, Output};

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
