//! Do the README's walks do what the README shows?
//!
//! Its `console` blocks are run as they stand, as child processes: what a node says
//! must be there, what a client prints must be exactly that. The walks use the
//! well-known ports from 9900 upward, as a reader would, one after another, and are
//! skipped, saying so, where somebody else has them.

mod common;

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use common::{NodeProcess, example, program};
use tempfile::TempDir;

/// One walk at a time has the well-known ports.
static PORTS: Mutex<()> = Mutex::new(());

/// A command of the walk and what is shown below it.
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The steps of the chapter with that heading.
fn steps(heading: &str) -> Vec<Step> {
    let readme = include_str!("../README.md");
    let (_, walk) = readme.split_once(heading).unwrap();
    let walk = walk.split("\n## ").next().unwrap();
    let walk = walk.split("\n### ").next().unwrap();
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

/// Where a walk is walked: a folder of its own, and what was exported there.
struct Shell {
    folder: TempDir,
    exported: Vec<(String, String)>,
}

impl Shell {
    fn new() -> Shell {
        Shell {
            folder: tempfile::tempdir().unwrap(),
            exported: Vec::new(),
        }
    }

    fn export(&mut self, pairs: &str) {
        let pairs = pairs.split_whitespace();
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        self.exported.extend(pairs.map(pair));
    }

    /// What `cargo run` would run.
    fn command(&self, line: &str) -> Command {
        let rest = line.strip_prefix("cargo run -q --").unwrap();
        let mut words = rest.split_whitespace().filter(|word| *word != "--");
        let mut command = match (words.next(), words.next().unwrap()) {
            (Some("bin"), name) => Command::new(program(name)),
            (_, name) => Command::new(example(name)),
        };
        command.args(words).current_dir(self.folder.path());
        command.envs(self.exported.iter().cloned());
        command
    }
}

fn check_client(shell: &Shell, step: &Step) {
    let output = shell.command(&step.command).output().unwrap();
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

/// Does every step of a walk, which has so many at least.
fn walk(heading: &str, least: usize) {
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    if (9900..9910).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        eprintln!("skipped: ports 9900 to 9909 are not all free");
        return;
    }
    let steps = steps(heading);
    assert!(
        steps.len() >= least,
        "a walk of {} steps shows nothing",
        steps.len()
    );
    let mut shell = Shell::new();
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
                let mut node = NodeProcess::spawn_command(shell.command(node), node.to_owned());
                node.wait_until_it_serves();
                step.shown.iter().for_each(|line| node.wait_for(said(line)));
                nodes.push(node);
            }
            export if export.starts_with("export ") => shell.export(&export["export ".len()..]),
            _ => check_client(&shell, step),
        }
    }
}

#[test]
fn the_walk_goes_as_the_readme_shows_it() {
    walk("## A walk in three terminals", 11);
}

#[test]
fn the_walk_under_tls_goes_as_the_readme_shows_it() {
    walk("### Who may come in", 7);
}
