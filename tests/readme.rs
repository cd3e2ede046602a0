//! Does the README's walk do what the README shows?
//!
//! Its `console` blocks are run as they stand, as child processes: what a node says
//! must be there, what a client prints must be exactly that. The walk uses the
//! well-known ports from 9900 upward, as a reader would, and is skipped, saying so,
//! where somebody else has them.

mod common;

use std::net::TcpListener;

use common::{NodeProcess, run};

/// A command of the walk and what is shown below it.
struct Step {
    command: String,
    shown: Vec<String>,
}

fn steps() -> Vec<Step> {
    let readme = include_str!("../README.md");
    let (_, walk) = readme.split_once("## A walk in three terminals").unwrap();
    let (walk, _) = walk.split_once("\n## ").unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in walk.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    command: command.into(),
                    shown: Vec::new(),
                }),
                None => steps.last_mut().unwrap().shown.push(line.into()),
            }
        }
    }
    steps
}

/// What is said, without the time and the level before it.
fn said(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, said)| said)
}

/// The program and its arguments.
fn parts(command: &str) -> (&str, Vec<&str>) {
    let rest = command.strip_prefix("cargo run -q --bin ").unwrap();
    let mut words = rest.split_whitespace().filter(|word| *word != "--");
    (words.next().unwrap(), words.collect())
}

fn check_client(step: &Step) {
    let (program, arguments) = parts(&step.command);
    let output = run(program, &arguments);
    let answers: Vec<&str> = step
        .shown
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with('['))
        .collect();
    let told: Vec<&str> = step
        .shown
        .iter()
        .filter(|line| line.starts_with('['))
        .map(|line| said(line))
        .collect();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        answers,
        "{}: {stderr}",
        step.command
    );
    assert_eq!(
        stderr.lines().map(said).collect::<Vec<_>>(),
        told,
        "{}",
        step.command
    );
}

#[test]
fn the_walk_goes_as_the_readme_shows_it() {
    if (9900..9910).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        eprintln!("skipped: ports 9900 to 9909 are not all free");
        return;
    }
    let steps = steps();
    assert!(
        steps.len() > 10,
        "a walk of {} steps shows nothing",
        steps.len()
    );
    let mut nodes: Vec<NodeProcess> = Vec::new();
    for step in &steps {
        match step.command.as_str() {
            "kill -INT the first" => {
                assert!(nodes[0].interrupt().success());
                step.shown
                    .iter()
                    .for_each(|line| nodes[0].wait_for(said(line)));
            }
            "kill -9 the second" => nodes[1].kill(),
            node if node.contains("--bin storeserver") => {
                let (program, arguments) = parts(node);
                nodes.push(NodeProcess::start_exactly(program, &arguments));
                let node = nodes.last().unwrap();
                step.shown.iter().for_each(|line| node.wait_for(said(line)));
            }
            _ => check_client(step),
        }
    }
}
