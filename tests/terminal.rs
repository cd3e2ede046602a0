//! Do the programs show on a terminal what they are asked to, and leave it as it was?

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use common::stores::Stores;
use common::{NodeProcess, SOON, eventually, program, run};
use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use serde_json::Value;
use thrifty_p2p::client::StoreClient;

/// A program on a terminal of its own.
struct OnTerminal {
    child: Child,
    /// The terminal's own side.
    keyboard: File,
    slave: OwnedFd,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(name: &str, arguments: &[&str]) -> OnTerminal {
        let pty = openpty(None, None).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new(program(name))
            .args(arguments)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keyboard = File::from(pty.master);
        let (mut output, screen) = (keyboard.try_clone().unwrap(), Arc::default());
        let shown: Arc<Mutex<String>> = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        OnTerminal {
            child,
            keyboard,
            slave: pty.slave,
            screen,
        }
    }

    fn wait_for(&self, text: &str) {
        let shows = || self.screen.lock().unwrap().contains(text);
        eventually(&format!("the terminal shows {text:?}"), SOON, shows);
    }

    fn ends(&mut self) -> bool {
        let mut status = None;
        eventually("it ends", SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watched_status_is_redrawn_until_q_and_the_terminal_is_as_before() {
    let stores = Stores::start(2, &[]);
    for (name, word) in [("storestatus", "settled"), ("locationstatus", "all agree")] {
        for key in ["q", "\x03"] {
            let mut shown = OnTerminal::start(name, &["-h", stores.nodes[0].at(), "--watch"]);
            shown.wait_for(word);
            // Redrawn: twice from the top.
            eventually("it is redrawn", SOON, || {
                shown.screen.lock().unwrap().matches("\x1b[H").count() > 1
            });
            let raw = tcgetattr(&shown.slave).unwrap();
            shown.keyboard.write_all(key.as_bytes()).unwrap();
            assert!(shown.ends());
            let after = tcgetattr(&shown.slave).unwrap();
            let new = tcgetattr(&openpty(None, None).unwrap().slave).unwrap();
            assert_ne!(raw.local_flags, new.local_flags);
            assert_eq!(after.local_flags, new.local_flags);
        }
    }
}

#[test]
fn without_a_terminal_a_watched_status_is_a_line_a_second_until_nobody_reads() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let mut child = Command::new(program("storestatus"))
        .args(["-h", node.at(), "--watch"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("settled"), "{first}");
    let second = lines.next().unwrap().unwrap();
    assert!(
        second.contains("calls/s") && !second.contains('\x1b'),
        "{second}"
    );
    drop(lines);
    let mut status = None;
    eventually("it ends", SOON, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

#[test]
fn a_key_is_explained_without_its_value_and_traced_with_it() {
    let stores = Stores::start(3, &["--replicas", "2"]);
    let client = StoreClient::new(stores.nodes[0].location.clone());
    client.put(b"a", b"apple").unwrap();
    let primary = client.owner(b"a").unwrap();
    let host = ["-h", stores.nodes[0].at()];
    let explained = run("storestatus", &[&host[..], &["--explain", "a"]].concat());
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.starts_with("key a: point 0cc175b9, 5.0 % around the ring"),
        "{text}"
    );
    let rows: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(
        rows[0].starts_with(primary.name()) && rows[0].contains("primary"),
        "{text}"
    );
    assert!(
        rows[1].contains("replica") && !text.contains("apple"),
        "{text}"
    );
    let json = run(
        "storestatus",
        &[&host[..], &["--json", "--explain", "a"]].concat(),
    );
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["owners"][0], primary.name());
    assert_eq!(json["copies"][1]["bytes"], 5);

    let traced = run("storeget", &[&host[..], &["--trace", "a"]].concat());
    assert_eq!(traced.stdout, b"apple\n");
    let trace = String::from_utf8(traced.stderr).unwrap();
    let asked = format!("asked {}, ", stores.nodes[0].at());
    assert!(
        trace.starts_with(&asked) && trace.contains("primary"),
        "{trace}"
    );
    let missing = run("storestatus", &[&host[..], &["--explain", "none"]].concat());
    assert!(missing.status.success());
    assert!(
        String::from_utf8(missing.stdout)
            .unwrap()
            .contains("nothing")
    );
}

#[test]
fn a_load_shows_a_bar_on_a_terminal() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: String = (0..50_000)
        .map(|number| format!("key{number}\tvalue\n"))
        .collect();
    std::fs::write(file.path(), lines).unwrap();
    let path = file.path().to_str().unwrap();
    let mut load = OnTerminal::start("storeload", &["-h", node.at(), path]);
    assert!(load.ends());
    load.wait_for("50000 keys");
    load.wait_for("##########");
}
