//! Network namespaces, which stand for hosts of their own. Creating one needs root and `ip`.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::program;

/// A network namespace. It is deleted, with its interfaces, when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace whose loopback interface is up.
    pub fn new(role: &str) -> Result<Namespace, String> {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let number = CREATED.fetch_add(1, Relaxed);
        let name = format!("thrifty-{}-{number}-{role}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name, as `ip netns` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// Runs these lines as `ip` commands in this namespace, by one process.
    pub fn ip_batch(&self, lines: &[String]) -> Result<(), String> {
        let mut batch = Command::new("ip");
        batch.args(["-n", &self.name, "-batch", "-"]);
        batch.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = batch.spawn().map_err(|e| format!("ip: {e}"))?;
        let mut input = child.stdin.take().unwrap();
        // If this fails, `ip` has ended before, and its stderr says why.
        let _ = input.write_all(lines.join("\n").as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|e| format!("ip: {e}"))?;
        success_of("-batch", &output)
    }

    /// A command that runs one of the crate's programs in this namespace. The process that it
    /// starts becomes the program.
    pub fn command(&self, name: &str) -> Command {
        self.tool(program(name))
    }

    /// The same for any other program.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, name]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|e| format!("ip: {e}"))?;
    success_of(&arguments.join(" "), &output)
}

fn success_of(arguments: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {}", stderr.trim()))
}
