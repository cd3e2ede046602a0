//! Do the commands in the README and in the guide print what is shown there?
//!
//! The `console` blocks of a chapter are run in order, as child processes. A line
//! `**Terminal N**` says in which terminal the blocks below it are typed; each terminal
//! has its own environment and at most one running node. In a block
//!
//! - `$ ` begins a command; a `\` at its end continues it on the next line,
//! - `^C` is ctrl-C, which interrupts the node of this terminal,
//! - every other line is output; a line that begins with two spaces continues it.
//!
//! A node must print every line that is shown, a client exactly these lines. The chapters use
//! the default ports from 9900 upward, one chapter at a time. A chapter is skipped, with a
//! message, if another process uses one of the ports.

mod common;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use common::{NodeProcess, example, program};
use tempfile::TempDir;

const README: &str = include_str!("../README.md");
const OPERATIONS: &str = include_str!("../src/guide/operations.md");

/// Held while a chapter uses the default ports.
static PORTS: Mutex<()> = Mutex::new(());

/// What is typed in a terminal, and the output that is shown below it.
struct Step {
    terminal: String,
    typed: String,
    shown: Vec<String>,
}

impl Step {
    fn new(terminal: &str, typed: &str) -> Step {
        Step {
            terminal: terminal.into(),
            typed: typed.into(),
            shown: Vec::new(),
        }
    }

    /// Adds the next line of its block.
    fn add(&mut self, line: &str) {
        if let Some(typed) = self.typed.strip_suffix('\\') {
            self.typed = format!("{typed}{}", line.trim_start());
            return;
        }
        match (line.strip_prefix("  "), self.shown.last_mut()) {
            (Some(rest), Some(last)) => *last += &format!(" {rest}"),
            _ => self.shown.push(line.into()),
        }
    }
}

/// The steps of the chapter with this heading.
fn steps(page: &str, heading: &str) -> Vec<Step> {
    let (_, chapter) = page.split_once(&format!("{heading}\n")).unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let chapter = chapter.split("\n### ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let (mut terminal, mut is_console) = ("", false);
    for line in chapter.lines() {
        if let Some(named) = line.strip_prefix("**Terminal ") {
            terminal = named.trim_end_matches('*');
        } else if line.starts_with("```") {
            is_console = line == "```console";
        } else if is_console {
            add_line(&mut steps, terminal, line);
        }
    }
    steps
}

fn add_line(steps: &mut Vec<Step>, terminal: &str, line: &str) {
    if let Some(command) = line.strip_prefix("$ ") {
        steps.push(Step::new(terminal, command));
    } else if let Some(output) = line.strip_prefix("^C") {
        steps.push(Step::new(terminal, "^C"));
        steps.last_mut().unwrap().add(output);
    } else {
        steps.last_mut().unwrap().add(line);
    }
}

/// A line of the log without its time and level; any other line as it is.
fn message(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, message)| message)
}

/// One terminal: its exported variables and its node, with the command of the node.
#[derive(Default)]
struct Terminal {
    exported: Vec<(String, String)>,
    node: Option<(String, NodeProcess)>,
}

impl Terminal {
    fn export(&mut self, pairs: &str) {
        let pairs = pairs.split_whitespace();
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        self.exported.extend(pairs.map(pair));
    }

    /// A command of this terminal, in `folder`.
    fn command(&self, line: &str, folder: &TempDir) -> Command {
        let mut words = line.split_whitespace();
        let mut command = match line.strip_prefix("cargo run -q --example ") {
            Some(rest) => {
                words = rest.split_whitespace();
                let command = Command::new(example(words.next().unwrap()));
                assert_eq!(words.next(), Some("--"), "{line}");
                command
            }
            None => {
                let path = words.next().unwrap();
                let name = path.strip_prefix("target/debug/");
                Command::new(program(name.unwrap_or_else(|| panic!("not run: {line}"))))
            }
        };
        command.args(words).current_dir(folder.path());
        command.envs(self.exported.iter().cloned());
        command
    }
}

/// The terminals of a chapter, and the folder they are in.
struct Session {
    folder: TempDir,
    terminals: BTreeMap<String, Terminal>,
}

impl Session {
    fn run(&mut self, step: &Step) {
        let typed = step.typed.as_str();
        let terminal = self.terminals.entry(step.terminal.clone()).or_default();
        if typed == "cargo build --bins" {
            // Cargo has built the programs for this test already.
        } else if typed == "^C" {
            let (_, mut node) = terminal.node.take().expect("a node to interrupt");
            assert!(node.interrupt().success());
            wait_for(&node, step);
        } else if let Some(pairs) = typed.strip_prefix("export ") {
            terminal.export(pairs);
        } else if let Some(pattern) = typed.strip_prefix("pkill -9 -f ") {
            self.kill(pattern.trim_matches('\''));
        } else if typed.starts_with("target/debug/storeserver") {
            assert!(terminal.node.is_none(), "the terminal has a node: {typed}");
            let command = terminal.command(typed, &self.folder);
            let mut node = NodeProcess::spawn_command(command, typed.to_owned());
            node.wait_until_it_serves();
            wait_for(&node, step);
            terminal.node = Some((typed.to_owned(), node));
        } else {
            check_client(terminal.command(typed, &self.folder), step);
        }
    }

    /// Kills the one node whose command contains `pattern`.
    fn kill(&mut self, pattern: &str) {
        let matching = |terminal: &&mut Terminal| {
            let node = terminal.node.as_ref();
            node.is_some_and(|(command, _)| command.contains(pattern))
        };
        let mut found: Vec<&mut Terminal> = self.terminals.values_mut().filter(matching).collect();
        assert_eq!(found.len(), 1, "nodes that match {pattern}");
        let (_, mut node) = found[0].node.take().unwrap();
        node.kill();
    }
}

fn wait_for(node: &NodeProcess, step: &Step) {
    let lines = step.shown.iter();
    lines.for_each(|line| node.wait_for(message(line)));
}

fn check_client(mut command: Command, step: &Step) {
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let printed: Vec<&str> = printed.lines().map(message).collect();
    let shown: Vec<&str> = step.shown.iter().map(|line| message(line)).collect();
    assert_eq!(printed, shown, "{}", step.typed);
}

/// Runs every step of a chapter, which has at least `least` steps.
fn run_chapter(page: &str, heading: &str, least: usize) {
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    if (9900..9910).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        eprintln!("skipped: ports 9900 to 9909 are not all free");
        return;
    }
    let steps = steps(page, heading);
    let count = steps.len();
    assert!(count >= least, "only {count} steps");
    let mut session = Session {
        folder: tempfile::tempdir().unwrap(),
        terminals: BTreeMap::new(),
    };
    steps.iter().for_each(|step| session.run(step));
}

#[test]
fn the_quick_start_prints_what_the_readme_shows() {
    run_chapter(README, "## Quick start", 12);
}

#[test]
fn the_tls_chapter_prints_what_the_guide_shows() {
    run_chapter(OPERATIONS, "## TLS, step by step", 8);
}

/// Cargo compiles the one of the documentation.
#[test]
fn the_client_of_the_readme_is_that_of_the_documentation() {
    let (_, client) = README.split_once("```rust\n").unwrap();
    let client = client.split("```").next().unwrap();
    let lines = include_str!("../src/lib.rs").lines();
    let text: Vec<&str> = lines.filter_map(|line| line.strip_prefix("//! ")).collect();
    assert!(text.join("\n").contains(client.trim_end()), "{client}");
}

#[test]
fn the_links_of_the_readme_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    assert!(links.len() > 7, "{links:?}");
    for link in links {
        assert!(root.join(link).is_file(), "{link}");
    }
}

#[test]
fn the_readme_and_the_guide_have_short_lines() {
    let pages = [
        ("README.md", README),
        ("bulk.md", include_str!("../src/guide/bulk.md")),
        ("design.md", include_str!("../src/guide/design.md")),
        ("failures.md", include_str!("../src/guide/failures.md")),
        ("fuzzing.md", include_str!("../src/guide/fuzzing.md")),
        ("operations.md", OPERATIONS),
        ("original.md", include_str!("../src/guide/original.md")),
        (
            "performance.md",
            include_str!("../src/guide/performance.md"),
        ),
        ("visible.md", include_str!("../src/guide/visible.md")),
    ];
    for (name, page) in pages {
        for (number, line) in (1..).zip(page.lines()) {
            let length = line.chars().count();
            assert!(length <= 120, "{name}:{number} has {length} characters");
        }
    }
    assert!(README.lines().count() <= 250);
}
