//! The events of a network, for those who follow it: in order, once each, resumed by a number, with gaps
//! told, and bounded.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::network::{spawn_joiner, start_bootstrap, start_network};
use common::{NodeProcess, SOON, eventually, program};
use serde_json::Value;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    Event, EventKind, Events, LocatorSyncClient, TBaseSyncClient, TLocatorSyncClient,
};
use thrifty_p2p::rpc::dialer::{Dialer, Timeouts, call};

/// Longer than any wait.
const TIMEOUTS: Timeouts = Timeouts::of_millis(5_000, 40_000);

fn events(node: &Location, after: i64, wait: Duration) -> Result<Events, Error> {
    let wait = wait.as_millis() as i32;
    let ask = |node: &mut _| TLocatorSyncClient::events(node, after, wait);
    Dialer::default().call_with_timeouts(TIMEOUTS, LocatorSyncClient::new, node, ask)
}

/// Follows a node by its numbers.
struct Reader {
    node: Location,
    last: i64,
    seen: Vec<Event>,
}

impl Reader {
    fn new(node: &NodeProcess) -> Reader {
        let first = events(&node.location, -1, SOON).unwrap();
        assert_eq!(
            (first.events, first.is_gap),
            (Some(Vec::new()), Some(false))
        );
        Reader {
            node: node.location.clone(),
            last: first.last.unwrap(),
            seen: Vec::new(),
        }
    }

    /// Waits for events of these kinds about that member, in this order. Returns the last one.
    fn sees(&mut self, kinds: &[EventKind], member: &Location) -> Event {
        let deadline = Instant::now() + SOON;
        loop {
            let about = self.seen.iter().filter(|event| {
                let location = event.location.as_ref();
                location.is_some_and(|at| Location::try_from(at).unwrap() == *member)
            });
            let mut wanted = kinds.iter().peekable();
            for event in about {
                if wanted.next_if(|kind| event.kind == Some(**kind)).is_some()
                    && wanted.peek().is_none()
                {
                    return event.clone();
                }
            }
            assert!(Instant::now() < deadline, "not {kinds:?}: {:#?}", self.seen);
            let reply = events(&self.node, self.last, Duration::from_secs(1)).unwrap();
            assert_eq!(reply.is_gap, Some(false));
            self.last = reply.last.unwrap();
            self.seen.extend(reply.events.unwrap());
        }
    }
}

/// Starts a node with a tag at the place of one that has ended.
fn restart(ended: &NodeProcess, peer: &NodeProcess, tag: &str) -> NodeProcess {
    let port = ended.location.port().to_string();
    NodeProcess::start_exactly(
        "location",
        &["--port", &port, "--host", peer.at(), "--tag", tag],
    )
}

#[test]
fn who_follows_a_node_sees_each_event_once_and_in_order() {
    let mut nodes = start_network(3);
    let mut reader = Reader::new(&nodes[0]);
    let mut joined = spawn_joiner(&nodes[0]);
    joined.wait_until_it_serves();
    let at = joined.location.clone();
    reader.sees(&[EventKind::JOINED], &at);
    joined.signal("STOP");
    reader.sees(&[EventKind::JOINED, EventKind::SUSPECTED], &at);
    joined.signal("CONT");
    reader.sees(
        &[EventKind::JOINED, EventKind::SUSPECTED, EventKind::REFUTED],
        &at,
    );
    joined.kill();
    let mut all = vec![
        EventKind::JOINED,
        EventKind::SUSPECTED,
        EventKind::REFUTED,
        EventKind::SUSPECTED,
        EventKind::DOWN,
    ];
    reader.sees(&all, &at);
    let mut again = restart(&joined, &nodes[1], "rack=7");
    all.extend([EventKind::JOINED, EventKind::TAGS_CHANGED]);
    let changed = reader.sees(&all, &at);
    assert_eq!(changed.tags.unwrap()["rack"], "7");
    assert!(again.interrupt().success());
    all.push(EventKind::LEFT);
    reader.sees(&all, &at);

    let moved = reader.seen.iter().filter_map(|event| event.moved);
    let moved: Vec<f64> = moved.map(f64::from).collect();
    assert!(
        moved.len() >= 4,
        "two joins, a death and a leave: {moved:?}"
    );
    assert!(
        moved.iter().all(|share| (0.1..0.5).contains(share)),
        "{moved:?}"
    );
    let numbers: Vec<i64> = reader
        .seen
        .iter()
        .map(|event| event.sequence.unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{numbers:?}"
    );

    // Who comes back with a number gets what it would have got; with 0, all; with that of another
    // process, all and that something is missing.
    let now = Duration::ZERO;
    let rest = events(&reader.node, numbers[2], now).unwrap();
    assert_eq!(rest.events.unwrap()[..numbers.len() - 3], reader.seen[3..]);
    let everything = events(&reader.node, 0, now).unwrap();
    assert_eq!(everything.is_gap, Some(false));
    assert!(everything.events.unwrap().len() >= numbers.len());
    let early = events(&reader.node, 7, now).unwrap();
    assert!(early.is_gap == Some(true) && early.events.unwrap().len() >= numbers.len());

    // The numbers of another process at that place are larger.
    let mut node = nodes.remove(0);
    node.kill();
    let node = restart(&node, &nodes[0], "rack=8");
    let missed = events(&node.location, reader.last, Duration::ZERO).unwrap();
    assert_eq!(missed.is_gap, Some(true));
}

#[test]
fn a_hundred_waiting_callers_do_no_harm_and_all_see_the_next_event() {
    let node = start_bootstrap();
    let last = events(&node.location, -1, SOON).unwrap().last.unwrap();
    let at = &node.location;
    thread::scope(|scope| {
        let wait = || events(at, last, Duration::from_secs(30)).unwrap();
        let waiting: Vec<_> = (0..100).map(|_| scope.spawn(wait)).collect();
        let began = Instant::now();
        eventually("all wait", SOON, || threads(&node) > 100);
        for _ in 0..100 {
            call(LocatorSyncClient::new, at, |node| node.ping()).unwrap();
        }
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        let mut joined = spawn_joiner(&node);
        joined.wait_until_it_serves();
        for waiter in waiting {
            let reply = waiter.join().unwrap();
            assert_eq!(reply.events.unwrap()[0].kind, Some(EventKind::JOINED));
        }
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    });
}

fn threads(node: &NodeProcess) -> usize {
    let tasks = format!("/proc/{}/task", node.id());
    std::fs::read_dir(tasks).unwrap().count()
}

#[test]
fn a_node_that_leaves_ends_the_waits_at_it() {
    let mut node = start_bootstrap();
    let at = node.location.clone();
    let last = events(&at, -1, SOON).unwrap().last.unwrap();
    thread::scope(|scope| {
        // Each asks again until the node is gone: it sees itself leave.
        let wait = || {
            let mut last = last;
            while let Ok(reply) = events(&at, last, Duration::from_secs(30)) {
                last = reply.last.unwrap();
            }
        };
        let waiting: Vec<_> = (0..50).map(|_| scope.spawn(wait)).collect();
        eventually("all wait", SOON, || threads(&node) > 50);
        let began = Instant::now();
        assert!(node.interrupt().success());
        waiting
            .into_iter()
            .for_each(|waiter| waiter.join().unwrap());
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
    });
}

/// `locationstatus --follow`, which is killed when this is dropped.
struct Following {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Following {
    fn start(node: &NodeProcess, options: &[&str]) -> Following {
        let mut child = Command::new(program("locationstatus"))
            .args([&["-h", node.at(), "--follow"], options].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stdout, kept) = (child.stdout.take().unwrap(), lines.clone());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Following { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn prints(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let lines = || self.lines();
        let has_it = || lines().iter().any(|line| is_it(line));
        let deadline = Instant::now() + SOON;
        while !has_it() {
            assert!(Instant::now() < deadline, "not {what}: {:#?}", lines());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends ctrl-C.
    fn end(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "INT", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn locationstatus_follows_another_node_when_the_one_it_follows_dies() {
    let mut nodes = start_network(4);
    let mut json = Following::start(&nodes[0], &["--json"]);
    let mut text = Following::start(&nodes[0], &[]);
    let is = |line: &str, kind: &str, field: &str, value: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["kind"] == kind && line[field] == value
    };
    let first = nodes[0].at().to_owned();
    json.prints("the node", |line| is(line, "follows", "node", &first));
    text.prints("the node", |line| line == format!("following {first}"));
    let mut joined = spawn_joiner(&nodes[1]);
    joined.wait_until_it_serves();
    json.prints("a join", |line| is(line, "joined", "location", joined.at()));
    json.prints("that keys have moved", |line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["kind"] == "ring_changed" && line["moved"].as_f64().unwrap() > 0.05
    });
    text.prints("a join", |line| {
        line.ends_with(&format!("Z added {}", joined.at()))
    });
    text.prints("that keys have moved", |line| {
        line.ends_with("% of all keys have another owner")
    });

    nodes.remove(0).kill();
    json.prints("another node", |line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["kind"] == "follows" && line["node"] != first.as_str()
    });
    json.prints("the death", |line| is(line, "down", "location", &first));
    text.prints("another node", |line| {
        line.starts_with(&format!("{first} does not answer: following "))
    });
    // One that nobody follows.
    let followed = [json.lines(), text.lines()].concat().join("\n");
    let is_followed = |node: &NodeProcess| followed.contains(&format!("following {}", node.at()));
    nodes.push(joined);
    let free = nodes.iter().position(|node| !is_followed(node)).unwrap();
    let mut leaves = nodes.remove(free);
    assert!(leaves.interrupt().success());
    json.prints("a leave", |line| is(line, "left", "location", leaves.at()));
    assert_eq!((json.end(), text.end()), (Some(0), Some(0)));
}
