//! Does the page of a node show in a real browser what happens in the network?
//!
//! Drives Chromium (Debian: `chromium`) by `page/browser.py`, which needs the Python package
//! `websocket-client` (`THRIFTY_PYTHON` names the Python). Skipped, with a message, without them.
//! Pictures are kept in `target/page`. With `PAGE_PICTURE=write` the one of the README is replaced.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::http::{HTTP, http_of};
use common::stores::Stores;
use common::{NodeProcess, SOON, network};
use serde_json::{Value, json};
use tempfile::TempDir;
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::locator::{Gossip, Location, LocatorSyncClient, TLocatorSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// How soon a change must be seen.
const SEEN: Duration = Duration::from_secs(3);

/// A name that would run a script if it were taken for HTML.
const HOSTILE: &str = "<img src=x onerror=document.title='attacked'>";

/// A page that is open in a browser, which is ended when this is dropped.
struct Browser {
    driver: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _profile: TempDir,
}

impl Browser {
    /// Opens the page of a node. None, with a message, if a tool is missing.
    fn open(node: &NodeProcess) -> Option<Browser> {
        let python = std::env::var("THRIFTY_PYTHON").unwrap_or_else(|_| "python3".into());
        let runs = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !runs("chromium", &["--version"]) || !runs(&python, &["-c", "import websocket"]) {
            eprintln!("skipped: needs Chromium and a Python with the package websocket-client");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/browser.py");
        let mut driver = Command::new(python)
            .args([script, "chromium"])
            .arg(profile.path())
            .arg(format!("http://{}/", http_of(node)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Browser {
            commands: driver.stdin.take(),
            answers: BufReader::new(driver.stdout.take().unwrap()),
            driver,
            _profile: profile,
        })
    }

    fn command(&mut self, command: &Value) -> Value {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("no answer to {command}"))
    }

    fn eval(&mut self, script: &str) -> Value {
        self.command(&json!({ "eval": script }))
    }

    /// Waits until the page is so, for `time` at most after `began`.
    fn sees(&mut self, script: &str, began: Instant, time: Duration) {
        let left = time.saturating_sub(began.elapsed()).as_secs_f64();
        let seen = self.command(&json!({ "wait": script, "seconds": left }));
        let shown = self.eval("document.body.innerText");
        assert!(!seen.is_null(), "not within {time:?}: {script}\n{shown}");
        eprintln!(
            "seen after {:.2} s: {script}",
            began.elapsed().as_secs_f64()
        );
    }

    /// Takes a picture. Returns how wide the page is in it.
    fn picture(&mut self, name: &str, width: u32, height: u32, dark: bool, scale: f64) -> u64 {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/page"));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        let mut command = json!({ "shot": file, "width": width, "height": height, "dark": dark });
        command["scale"] = scale.into();
        self.command(&command).as_u64().unwrap()
    }

    /// Nothing was logged, and nothing was asked of another server.
    fn check(&mut self, node: &NodeProcess) {
        let report = self.command(&json!({ "report": true }));
        assert_eq!(report["console"], json!([]));
        let own = format!("http://{}/", http_of(node));
        let requests = report["requests"].as_array().unwrap();
        let is_own = |url: &Value| {
            let url = url.as_str().unwrap();
            url.starts_with(&own) || url.starts_with("data:") || url == "about:blank"
        };
        assert!(
            requests.len() > 1 && requests.iter().all(is_own),
            "{requests:?}"
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script ends, and with it the browser.
        self.commands = None;
        let _ = self.driver.wait();
    }
}

/// Is this text on the page?
fn text(text: &str) -> String {
    format!("document.body.innerText.includes({})", json!(text))
}

#[test]
fn the_page_of_a_store_shows_joins_keys_and_deaths_within_three_seconds() {
    let tag = format!("note={HOSTILE}");
    let mut stores = Stores::start(3, &[&HTTP[..], &["--tag", &tag]].concat());
    let Some(mut browser) = Browser::open(&stores.nodes[0]) else {
        return;
    };
    let client = StoreClient::new(stores.nodes[0].location.clone());
    for number in 0..2_000 {
        client
            .put(format!("key{number}").as_bytes(), b"value")
            .unwrap();
    }
    client.put(HOSTILE.as_bytes(), b"value").unwrap();
    let now = Instant::now;
    browser.sees(&text("3 members, all agree"), now(), SOON);
    browser.sees(&text("settled, 3 copies"), now(), SOON);
    browser.sees(&text(&tag), now(), SOON);
    let differ = "Math.max(...status.nodes.map(node => Math.abs(node.share - \
        ring.shares.get(node.location)))) < 1e-9";
    browser.sees(differ, now(), SEEN);
    for (name, width, height, dark) in [
        ("wide-light.png", 1600, 1200, false),
        ("wide-dark.png", 1600, 1200, true),
        ("narrow-light.png", 380, 2600, false),
        ("narrow-dark.png", 380, 2600, true),
    ] {
        let shown = browser.picture(name, width, height, dark, 1.0);
        assert!(shown <= u64::from(width), "{name} is {shown} wide");
    }

    let mut joiner = stores.spawn_joiner();
    joiner.wait_until_it_serves();
    let began = now();
    browser.sees(&text("4 members, all agree"), began, SEEN);
    browser.sees(&text(&format!("added {}", joiner.at())), began, SEEN);
    stores.admit(joiner);
    browser.sees(&text("Modulo hashing would have moved"), now(), SOON);
    browser.picture("join.png", 1600, 1200, false, 1.0);

    let ask = |key: &str| {
        let form = "document.getElementById('key-form').requestSubmit()";
        format!(
            "document.getElementById('key').value = {}; {form}; true",
            json!(key)
        )
    };
    browser.eval(&ask("key7"));
    let began = now();
    browser.sees(&text("its primary is node"), began, SEEN);
    let copies = "document.querySelectorAll('#copies tr').length === 4";
    browser.sees(copies, began, SEEN);
    let picture = browser.picture("small.png", 1000, 640, false, 0.75);
    assert!(picture <= 1000);
    browser.eval(&ask(HOSTILE));
    browser.sees("answer?.copies?.[0].state === 'held'", now(), SEEN);
    browser.eval(&ask(""));

    browser.eval("document.getElementById('gone').value = known[0]; draw(); true");
    browser.sees(&text("All other keys stay."), now(), SEEN);
    browser.picture("gone.png", 1600, 1200, false, 1.0);

    let dead = stores.kill(3);
    let began = now();
    let unwell = format!(
        "!status.nodes.some(node => node.location === '{}' && node.state === 'settled')",
        dead.at()
    );
    browser.sees(
        &format!("{unwell} && !document.querySelector('#verdict.good')"),
        began,
        SEEN,
    );
    browser.sees(
        &text(&format!("removed {}: it is down", dead.at())),
        began,
        SOON,
    );
    browser.sees(&text("settled, 3 copies"), began, SOON);
    browser.picture("death.png", 1600, 1200, true, 1.0);

    // A node of another network, with a hostile name, is shown as text.
    let foreign = Gossip {
        sender: Some(Location::new("127.0.0.1".to_owned(), 1)),
        network: Some(format!("diststore.Store/{HOSTILE}")),
        membership_digest: Some(1),
        members: Some(Vec::new()),
        ..Gossip::default()
    };
    let exchange = |node: &mut LocatorSyncClient<_, _>| node.exchange(foreign);
    let _ = call(LocatorSyncClient::new, &stores.nodes[0].location, exchange);
    browser.sees(&text(HOSTILE), now(), SOON);
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), 0);
    assert_ne!(browser.eval("document.title"), "attacked");
    browser.check(&stores.nodes[0]);
    keep_small_picture();
}

/// The README's picture is small and, if that is wanted, replaced.
fn keep_small_picture() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (taken, kept) = (
        folder.join("target/page/small.png"),
        folder.join("examples/page.png"),
    );
    if std::env::var("PAGE_PICTURE").is_ok_and(|how| how == "write") {
        std::fs::copy(&taken, &kept).unwrap();
    }
    for file in [taken, kept] {
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(
            (5_000..=100_000).contains(&bytes),
            "{} has {bytes} bytes",
            file.display()
        );
    }
}

#[test]
fn the_page_of_a_location_network_shows_its_members() {
    let first = NodeProcess::start("location", &[&["--bootstrap"], &HTTP[..]].concat());
    let Some(mut browser) = Browser::open(&first) else {
        return;
    };
    browser.sees(&text("1 member, all agree"), Instant::now(), SOON);
    let mut second = network::spawn_joiner(&first);
    second.wait_until_it_serves();
    let began = Instant::now();
    browser.sees(&text("2 members, all agree"), began, SEEN);
    browser.picture("location.png", 1600, 1200, false, 1.0);
    assert_eq!(
        browser.eval("document.querySelectorAll('#nodes tbody tr').length"),
        2
    );
    browser.check(&first);
}
