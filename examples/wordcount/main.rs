//! An example of a service that extends `locator.Locator`: a word count on several nodes.
//!
//! The owner of a word on the ring counts that word. So no node needs to know all words, and a
//! client computes from the ring which node to call.
//!
//! `cargo run --example wordcount -- README.md` starts three nodes, counts the words of the file
//! on them, and prints the ten most frequent words, each with the node that counted it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

// Generated code expects the modules that it includes at the root of the crate.
use thrifty_p2p::locator;

#[path = "gen/wordcount.rs"]
#[allow(clippy::all)]
mod wordcount;

use locator::TBaseSyncClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, serve, service_chain};
use thrifty_p2p::hash_ring::HashRing;
use thrifty_p2p::location::Location;
use thrifty_p2p::node::Node;
use thrifty_p2p::rpc::dialer::call;
use wordcount::{
    TWordCountSyncClient, WordCountSyncClient, WordCountSyncHandler, WordCountSyncProcessor,
};

/// The nodes of the network.
const NODES: usize = 3;

/// The words that are printed.
const PRINTED: usize = 10;

/// How long the nodes may take to become members.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The handler of the service. The server clones it.
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
        let mut counts = self.counts.lock();
        let count = counts.entry(word).or_default();
        *count += times;
        Ok(*count)
    }

    fn handle_counted(&self) -> thrift::Result<BTreeMap<String, i64>> {
        Ok(self.counts.lock().clone())
    }
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: wordcount FILE");
        return ExitCode::from(2);
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) => {
            eprintln!("cannot read {file}: {e}");
            return ExitCode::FAILURE;
        }
    };
    match run(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a network, counts the words of `text` on it, prints the result, and stops all nodes.
fn run(text: &str) -> Result<(), Error> {
    let first = Running::start(None)?;
    let peer = first.node.location().clone();
    let mut network = vec![first];
    while network.len() < NODES {
        network.push(Running::start(Some(peer.clone()))?);
    }
    wait_for_members(&network[0].node)?;

    let ring = network[0].node.ring();
    count(&ring, text)?;
    print_most_frequent(&ring)?;
    network.into_iter().try_for_each(Running::stop)
}

/// Has each word of `text` counted by its owner.
fn count(ring: &HashRing<Location>, text: &str) -> Result<(), Error> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        if let Some(owner) = ring.owner(word.as_bytes()) {
            call(WordCountSyncClient::new, owner, |node| node.count(word, 1))?;
        }
    }
    Ok(())
}

/// Collects the counts of all nodes and prints the largest ones.
fn print_most_frequent(ring: &HashRing<Location>) -> Result<(), Error> {
    let mut counts = Vec::new();
    for location in ring.nodes() {
        let counted = call(WordCountSyncClient::new, location, |node| node.counted())?;
        let counted = counted.into_iter();
        counts.extend(counted.map(|(word, count)| (count, word, location)));
    }
    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (count, word, location) in counts.iter().take(PRINTED) {
        println!("{count:5}  {word:12}  counted at {location}");
    }
    Ok(())
}

/// Waits until all nodes are members.
fn wait_for_members(node: &Node) -> Result<(), Error> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    while node.ring().len() < NODES {
        if Instant::now() > deadline {
            let members = node.ring().len();
            let late = format!("only {members} of {NODES} nodes are members");
            return Err(Error::NoPeer(late));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A node with its server, which runs on a thread of its own.
struct Running {
    node: Node,
    server: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts a node on a free port. It joins the network of `peer`, or starts a new network.
    fn start(peer: Option<Location>) -> Result<Running, Error> {
        let node = Node::bind(&BindOptions::at(0..=0), "wordcount.WordCount")?;
        let counter = Counter {
            node: node.clone(),
            counts: Arc::default(),
        };
        // A node that is its own peer starts a network without looking for a peer on this host.
        let peer = peer.unwrap_or_else(|| node.location().clone());
        let server = thread::spawn(move || serve(counter, WordCountSyncProcessor::new, &[peer]));
        Ok(Running { node, server })
    }

    /// Stops the node and waits for its server.
    fn stop(self) -> Result<(), Error> {
        let location = self.node.location();
        call(WordCountSyncClient::new, location, |node| node.die())?;
        self.server.join().expect("the server does not panic")
    }
}
