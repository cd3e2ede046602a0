//! A service of one's own on `locator.Locator`: a word count spread over nodes by
//! key. Each word is counted by the node that owns it on the ring, so that no
//! node needs to know all words, and nobody has to be asked where a word is.
//!
//! `cargo run --example wordcount -- README.md` starts three nodes, counts the
//! words of the file on them, and prints the ten most frequent with their nodes.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

// Generated code looks for what it includes at the crate's root.
use thrifty_p2p::locator;

#[path = "gen/wordcount.rs"]
#[allow(clippy::all)]
mod wordcount;

use locator::TBaseSyncClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, service_chain, serve};
use thrifty_p2p::location::Location;
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::call;
use wordcount::{
    TWordCountSyncClient, WordCountSyncClient, WordCountSyncHandler, WordCountSyncProcessor,
};

#[derive(Clone)]
struct Counter {
    node: Node,
    /// The counts of the words that this node owns.
    counts: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl BaseHandler for Counter {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "locator.Locator", "wordcount.WordCount"])
    }
}

impl LocatorHandler for Counter {
    fn node(&self) -> &Node {
        &self.node
    }
}

impl WordCountSyncHandler for Counter {
    fn handle_count(&self, word: String, times: i64) -> thrift::Result<i64> {
        let mut counts = self
            .counts
            .lock()
            .expect("no thread has failed with the counts");
        let count = counts.entry(word).or_default();
        *count += times;
        Ok(*count)
    }

    fn handle_counted(&self) -> thrift::Result<BTreeMap<String, i64>> {
        Ok(self
            .counts
            .lock()
            .expect("no thread has failed with the counts")
            .clone())
    }
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: wordcount FILE");
        return ExitCode::from(2);
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => match count(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::FAILURE
            }
        },
        Err(e) => {
            eprintln!("cannot read {file}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn count(text: &str) -> Result<(), Error> {
    let (node, first) = start(None)?;
    let second = start(Some(node.location().clone()))?.1;
    let third = start(Some(node.location().clone()))?.1;
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.ring().len() < 3 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }

    // Any node, or a client with a ring of its own, can tell where a word belongs.
    let ring = node.ring();
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let word = word.to_lowercase();
        if let Some(owner) = ring.owner(word.as_bytes()) {
            call(WordCountSyncClient::new, owner, |counter| {
                counter.count(word, 1)
            })?;
        }
    }

    let mut counted = Vec::new();
    for location in ring.nodes() {
        for (word, count) in call(WordCountSyncClient::new, location, |counter| {
            counter.counted()
        })? {
            counted.push((count, word, location));
        }
    }
    counted.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (count, word, location) in counted.iter().take(10) {
        println!("{count:5}  {word:12}  counted at {location}");
    }

    for location in ring.nodes() {
        call(WordCountSyncClient::new, location, |counter| counter.die())?;
    }
    for server in [first, second, third] {
        server.join().expect("no server has failed")?;
    }
    Ok(())
}

/// Starts a node at a free port, in the network of `peer` or in one of its own.
fn start(peer: Option<Location>) -> Result<(Node, JoinHandle<Result<(), Error>>), Error> {
    let node = Node::bind(&BindOptions::at(0..=0), "wordcount.WordCount")?;
    let counter = Counter {
        node: node.clone(),
        counts: Arc::default(),
    };
    // Who is its own peer begins a network, without looking for others on this host.
    let peer = peer.unwrap_or_else(|| node.location().clone());
    let serving = thread::spawn(move || serve(counter, WordCountSyncProcessor::new, Some(&peer)));
    Ok((node, serving))
}
