//! Network namespaces: hosts of their own on this one. Making them takes root and `ip`.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::program;

/// A network namespace, deleted when dropped, with all that is in it.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, whose loopback is up.
    pub fn new(role: &str) -> Result<Namespace, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Relaxed);
        let name = format!("thrifty-{}-{number}-{role}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// A command that runs in this namespace, and is the program itself once it runs.
    pub fn command(&self, name: &str) -> Command {
        self.tool(program(name))
    }

    /// The same for a program that is not this crate's.
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
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), told.trim()))
}
