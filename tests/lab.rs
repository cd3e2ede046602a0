//! Do the commands of the exercises in `examples/lab` print what is shown there?
//!
//! The `console` blocks of a page are run in order, by one shell. In a block `$ ` begins a command,
//! `…` stands for any lines, and every other line is output. Numbers differ from run to run, so each
//! number but 0 counts as any other one.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{example, network, program};
use tempfile::TempDir;

/// The seconds after which a page is ended.
const TIMEOUT: &str = "240";

/// Comes before each command in what the shell prints.
const MARK: &str = "\u{1e}\n";

/// A folder with the state of the lab. Its nodes are ended when it is dropped.
struct Lab(TempDir);

impl Lab {
    /// Runs shell commands in the source tree, as their reader does.
    fn run(&self, script: &str) -> Output {
        let consistency = example("consistency");
        let programs = Path::new(program("storeserver")).parent().unwrap();
        assert!(consistency.starts_with(programs), "{consistency:?}");
        let mut shell = Command::new("timeout");
        shell.args([TIMEOUT, "sh", "-c", script]);
        shell.current_dir(env!("CARGO_MANIFEST_DIR"));
        shell.env("LAB", self.0.path()).env("PROGRAMS", programs);
        // Node 1 has the next port.
        let before = network::new_port() - 1;
        shell.env("PORT", before.to_string()).output().unwrap()
    }

    /// Does this work here, what the page needs? If not, prints why its test is skipped.
    fn has_or_skips(&self, what: &str, script: &str) -> bool {
        let has = self
            .run(&format!("cd \"$LAB\" && {script}"))
            .status
            .success();
        if !has {
            eprintln!("skipped: {what} cannot be created");
        }
        has
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run("examples/lab/lab stop");
    }
}

/// A command of a page, and the lines that are shown below it.
struct Step<'a> {
    command: &'a str,
    shown: Vec<&'a str>,
}

fn steps(page: &str) -> Vec<Step<'_>> {
    let blocks = page.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let mut steps: Vec<Step<'_>> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command,
                shown: Vec::new(),
            }),
            (None, Some(step)) => step.shown.push(line),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    steps
}

/// The text with one `N` for each number but 0.
fn masked(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let end = number.find(|c: char| !c.is_ascii_digit());
        let (number, after) = number.split_at(end.unwrap_or(number.len()));
        masked += before;
        masked += if number == "0" { "0" } else { "N" };
        rest = after;
    }
    masked + rest
}

/// Are these the lines that are shown?
fn is_shown(printed: &[&str], shown: &[&str]) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, printed) => printed.is_none(),
        (Some((&"…", shown)), _) => {
            (0..=printed.len()).any(|skipped| is_shown(&printed[skipped..], shown))
        }
        (Some((line, shown)), Some((first, printed))) => {
            masked(line) == masked(first) && is_shown(printed, shown)
        }
        (Some(_), None) => false,
    }
}

/// Runs the commands of a page in one shell, and compares what each prints with what is shown.
fn run_page(lab: &Lab, page: &str) {
    let steps = steps(page);
    // Each command finds the exit status of the one before.
    let command = |step: &Step<'_>| {
        format!(
            "status=$?; printf '\\036\\n'; (exit $status)\n{}\n",
            step.command
        )
    };
    // Cargo has built the programs for this test already.
    let is_typed = |step: &&Step<'_>| !step.command.starts_with("cargo build");
    let steps: Vec<&Step<'_>> = steps.iter().filter(is_typed).collect();
    let script: String = steps.iter().map(|step| command(step)).collect();
    let output = lab.run(&format!("exec 2>&1\n{script}"));
    let printed = String::from_utf8_lossy(&output.stdout);
    let folder = format!("logs in {}", lab.0.path().display());
    let printed = printed.replace(&folder, "logs in target/lab");
    let outputs: Vec<&str> = printed.split(MARK).skip(1).collect();
    assert_eq!(
        outputs.len(),
        steps.len(),
        "not within {TIMEOUT} s: {printed}"
    );
    for (step, output) in steps.iter().zip(outputs) {
        let lines: Vec<&str> = output.lines().collect();
        let command = step.command;
        assert!(is_shown(&lines, &step.shown), "{command} in {printed}");
    }
}

fn lab() -> Lab {
    Lab(tempfile::tempdir().unwrap())
}

#[test]
fn a_crash_of_a_node_breaks_a_store_with_one_copy_and_not_one_with_two() {
    run_page(&lab(), include_str!("../examples/lab/1-replicas.md"));
}

#[test]
fn a_power_cut_loses_what_was_acknowledged_and_not_synced_and_nothing_else() {
    let lab = lab();
    let disk = "truncate -s 16M file && mkfs.ext4 -q file && mkdir folder && \
        mount -o loop file folder && umount folder";
    if lab.has_or_skips("a file system in a file", disk) {
        run_page(&lab, include_str!("../examples/lab/2-power.md"));
    }
}

#[test]
fn a_split_in_which_both_sides_write_loses_a_value_and_says_so() {
    let lab = lab();
    let name = format!("lab-probe-{}", std::process::id());
    let bridge = format!(
        "ip netns add {name} && ip -n {name} link add probe type bridge; \
         status=$?; ip netns del {name}; exit $status"
    );
    if lab.has_or_skips("a network namespace with a bridge", &bridge) {
        run_page(&lab, include_str!("../examples/lab/3-split.md"));
    }
}
