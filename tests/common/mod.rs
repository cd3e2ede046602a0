//! What the process tests share: programs as children, and waiting for a fact.

#![allow(dead_code)] // Each test file uses a part of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;

#[path = "../../examples/certificates/authority.rs"]
pub mod authority;
#[path = "../../examples/consistency/checker.rs"]
pub mod checker;
pub mod namespace;
pub mod network;
pub mod raw;
pub mod stores;
pub mod strangers;

/// How long a test waits for what should take a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls until `fact` holds.
///
/// # Panics
/// When it does not hold within `time`.
pub fn eventually(what: &str, time: Duration, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !fact() {
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The path of one of the crate's programs.
pub fn program(name: &str) -> &'static str {
    match name {
        "location" => env!("CARGO_BIN_EXE_location"),
        "locationstatus" => env!("CARGO_BIN_EXE_locationstatus"),
        "storeserver" => env!("CARGO_BIN_EXE_storeserver"),
        "storeput" => env!("CARGO_BIN_EXE_storeput"),
        "storeget" => env!("CARGO_BIN_EXE_storeget"),
        "storedel" => env!("CARGO_BIN_EXE_storedel"),
        "storeprimer" => env!("CARGO_BIN_EXE_storeprimer"),
        "storetest" => env!("CARGO_BIN_EXE_storetest"),
        "storestatus" => env!("CARGO_BIN_EXE_storestatus"),
        "storeload" => env!("CARGO_BIN_EXE_storeload"),
        "storedump" => env!("CARGO_BIN_EXE_storedump"),
        "storebench" => env!("CARGO_BIN_EXE_storebench"),
        _ => panic!("there is no program {name}"),
    }
}

/// The path of one of the crate's examples, built if it is not: a run of one test
/// file alone builds none.
pub fn example(name: &str) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", name]);
    for (variable, _) in std::env::vars_os() {
        // What Cargo tells a test of its package would make build scripts that look at
        // it run anew, and everything that depends on them be built again.
        let told = variable.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&variable);
        }
    }
    let built = build.status().unwrap();
    assert!(built.success(), "cannot build the example {name}");
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    target.join("examples").join(name)
}

/// A node as a child process: killed when dropped, its stderr shown when the test fails.
pub struct NodeProcess {
    child: Child,
    name: String,
    stderr: Arc<Mutex<Vec<String>>>,
    pub location: Location,
}

impl NodeProcess {
    /// Starts a node at a free port and waits until it serves.
    pub fn start(name: &str, arguments: &[&str]) -> NodeProcess {
        let ports = ["--port", "0"];
        NodeProcess::start_exactly(name, &[&ports, arguments].concat())
    }

    /// Starts a node of a network of its own, which knocks at nobody's port.
    pub fn start_alone(name: &str) -> NodeProcess {
        NodeProcess::start(name, &["--alone"])
    }

    /// Starts a node with these arguments alone and waits until it serves.
    pub fn start_exactly(name: &str, arguments: &[&str]) -> NodeProcess {
        let mut node = NodeProcess::spawn(name, arguments);
        node.wait_until_it_serves();
        node
    }

    /// Starts a node, without waiting until it serves.
    pub fn spawn(name: &str, arguments: &[&str]) -> NodeProcess {
        let mut command = Command::new(program(name));
        command.args(arguments);
        NodeProcess::spawn_command(command, format!("{name} {}", arguments.join(" ")))
    }

    /// Starts a node by a command that becomes the node, without waiting until it serves.
    pub fn spawn_command(mut command: Command, name: String) -> NodeProcess {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        gather(child.stderr.take().unwrap(), stderr.clone());
        let location = Location::new("0.0.0.0", 1).unwrap();
        NodeProcess {
            child,
            name,
            stderr,
            location,
        }
    }

    /// Waits for the node's own word that it serves, and learns its location from it.
    pub fn wait_until_it_serves(&mut self) {
        const SERVING: &str = "Starting the server at ";
        self.wait_for(SERVING);
        let line = self
            .lines()
            .into_iter()
            .find(|line| line.contains(SERVING))
            .unwrap();
        let (_, rest) = line.split_once(SERVING).unwrap();
        self.location = rest.trim_end_matches('.').parse().unwrap();
    }

    /// What the node has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the node says something that contains `text`.
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("{} says {text:?}", self.name), SOON, || {
            self.says(text)
        });
    }

    /// Has the node said something that contains `text`?
    pub fn says(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// How many lines the node has said so far: a mark for [`NodeProcess::says_after`].
    pub fn mark(&self) -> usize {
        self.stderr.lock().unwrap().len()
    }

    /// Has the node said a line that ends in one of `texts` since `mark`? What
    /// follows a colon is the reason, and is passed over.
    pub fn says_after(&self, mark: usize, texts: &[String]) -> bool {
        let lines = self.stderr.lock().unwrap();
        lines[mark..].iter().any(|line| {
            let said = line.split(": it ").next().unwrap_or(line);
            texts.iter().any(|text| said.ends_with(text.as_str()))
        })
    }

    /// `address:port`, as options take it.
    pub fn at(&self) -> &str {
        self.location.name()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, as `kill` takes it.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .unwrap();
        assert!(sent.success(), "cannot send {signal} to {}", self.name);
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let name = self.name.clone();
        eventually(&format!("{name} ends"), SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Ends the node as ctrl-C does, and waits for it.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait()
    }

    /// Kills the node on the spot.
    pub fn kill(&mut self) {
        self.strike();
        self.child.wait().unwrap();
    }

    /// Kills the node without waiting until it is gone.
    pub fn strike(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} said:\n{}\n---", self.name, self.lines().join("\n"));
        }
    }
}

/// Reads a child's lines as they come.
fn gather(stderr: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// The memory that the node has resident.
pub fn resident_kilobytes(node: &NodeProcess) -> u64 {
    memory_kilobytes(node, "VmRSS")
}

/// The most memory that the node ever had resident.
pub fn peak_kilobytes(node: &NodeProcess) -> u64 {
    memory_kilobytes(node, "VmHWM")
}

fn memory_kilobytes(node: &NodeProcess, measure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(measure))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a program to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    run_with_input(name, arguments, b"")
}

/// What a program that has ended says on stderr, with its exit status.
pub fn ended(output: &Output) -> (Option<i32>, String) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), told)
}

/// Runs a program to its end, with something on its stdin.
pub fn run_with_input(name: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program(name))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that does not read its input may end before it is written.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}
