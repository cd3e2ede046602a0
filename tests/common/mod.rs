//! Shared by the tests: programs as child processes, and polling for a condition.

#![allow(dead_code)] // No test file uses all of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;

#[path = "../../examples/certificates/authority.rs"]
pub mod authority;
pub mod certificates;
#[path = "../../examples/consistency/checker.rs"]
#[allow(unused_imports)] // No test file uses all that it exports.
pub mod checker;
#[cfg(target_os = "linux")]
mod entered;
#[cfg(target_os = "linux")]
pub mod hosts;
pub mod http;
pub mod legacy;
mod legacy_messages;
#[cfg(target_os = "linux")]
mod links;
pub mod load;
pub mod namespace;
pub mod network;
pub mod raw;
pub mod stores;
#[cfg(target_os = "linux")]
mod switch;
pub mod untrusted;

/// The timeout for everything that normally takes a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls until `condition` holds.
///
/// # Panics
/// If it does not hold within `timeout`.
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
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
        "storelist" => env!("CARGO_BIN_EXE_storelist"),
        "storebench" => env!("CARGO_BIN_EXE_storebench"),
        _ => panic!("there is no program {name}"),
    }
}

/// The path of one of the crate's examples. Builds it first, because Cargo builds no examples
/// when it runs a single test file.
pub fn example(name: &str) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", name]);
    for (variable, _) in std::env::vars_os() {
        // Cargo sets these for a test. Build scripts that read them would run again, and
        // their dependents would be rebuilt.
        let text = variable.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&variable);
        }
    }
    let status = build.status().unwrap();
    assert!(status.success(), "cannot build the example {name}");
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    target.join("examples").join(name)
}

/// A node as a child process. It is killed when dropped; its stderr is printed if the test
/// fails.
pub struct NodeProcess {
    child: Child,
    name: String,
    stderr: Arc<Mutex<Vec<String>>>,
    pub location: Location,
}

impl NodeProcess {
    /// Starts a node at a port that the system chooses, and waits until it serves.
    pub fn start(name: &str, arguments: &[&str]) -> NodeProcess {
        let ports = ["--port", "0"];
        NodeProcess::start_exactly(name, &[&ports, arguments].concat())
    }

    /// Starts the first node of a new network, and waits until it serves.
    pub fn start_bootstrap(name: &str) -> NodeProcess {
        NodeProcess::start(name, &["--bootstrap"])
    }

    /// Starts a node with exactly these arguments, and waits until it serves.
    pub fn start_exactly(name: &str, arguments: &[&str]) -> NodeProcess {
        let mut node = NodeProcess::spawn(name, arguments);
        node.wait_until_it_serves();
        node
    }

    /// Starts a node. Does not wait until it serves.
    pub fn spawn(name: &str, arguments: &[&str]) -> NodeProcess {
        let mut command = Command::new(program(name));
        command.args(arguments);
        NodeProcess::spawn_command(command, format!("{name} {}", arguments.join(" ")))
    }

    /// Starts a node by a command that becomes the node's process. Does not wait until it
    /// serves.
    pub fn spawn_command(mut command: Command, name: String) -> NodeProcess {
        // Short pauses of the process, which excuse it, are logged at this level.
        if command.get_args().all(|argument| argument != "-v") {
            command.env("RUST_LOG", "info,thrifty_p2p::node::log=debug");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        collect_lines(child.stderr.take().unwrap(), stderr.clone());
        let location = Location::new("0.0.0.0", 1).unwrap();
        NodeProcess {
            child,
            name,
            stderr,
            location,
        }
    }

    /// Waits until the node logs that it serves, and takes its location from that line.
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

    /// The lines that the node has logged so far.
    pub fn lines(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the node has logged a line that contains `text`.
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("{} logs {text:?}", self.name), SOON, || {
            self.says(text)
        });
    }

    /// Has the node logged a line that contains `text`?
    pub fn says(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// How many lines the node has logged so far, for [`NodeProcess::has_logged_since`].
    pub fn log_position(&self) -> usize {
        self.stderr.lock().unwrap().len()
    }

    /// Has the node logged a line that ends in one of `texts` since `position`? A reason at
    /// the end of the line (": it left") is ignored.
    pub fn has_logged_since(&self, position: usize, texts: &[String]) -> bool {
        let lines = self.stderr.lock().unwrap();
        lines[position..].iter().any(|line| {
            let event = line.split(": it ").next().unwrap_or(line);
            texts.iter().any(|text| event.ends_with(text.as_str()))
        })
    }

    /// The node's `address:port`, for options.
    pub fn at(&self) -> &str {
        self.location.name()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the signal with this name, for example `INT`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .unwrap();
        assert!(sent.success(), "cannot send {signal} to {}", self.name);
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let name = self.name.clone();
        eventually(&format!("{name} ends"), SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The exit status, if the process has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends SIGINT, as ctrl-C does, and waits until the process has ended.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait()
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub fn kill(&mut self) {
        self.send_kill();
        self.child.wait().unwrap();
    }

    /// Sends SIGKILL. Does not wait.
    pub fn send_kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.lines().join("\n");
            eprintln!("--- the log of {}:\n{log}\n---", self.name);
        }
    }
}

/// Starts a thread that appends the child's lines as they arrive.
fn collect_lines(stderr: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// The node's resident memory.
pub fn resident_kilobytes(node: &NodeProcess) -> u64 {
    memory_kilobytes(node, "VmRSS")
}

/// The largest resident memory that the node ever had.
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

/// The exit status and the stderr of a program that has ended.
pub fn ended(output: &Output) -> (Option<i32>, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

/// Runs a program to its end, with `input` on its stdin.
pub fn run_with_input(name: &str, arguments: &[&str], input: &[u8]) -> Output {
    pipe(Command::new(program(name)).args(arguments), input)
}

/// Runs a command to its end, with `input` on its stdin.
pub fn pipe(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // This fails if the program ends before it has read its input, which is no error.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}
