//! A node of the service `visits`: a service of one's own on a thrifty-p2p network.
//!
//! Each page is counted at one node, the owner of its name on the ring. Counts are in memory:
//! they are lost with their node, and start again when a page gets another owner.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use thrifty_p2p::cli;
use thrifty_p2p::endpoint::Endpoint;
use thrifty_p2p::handler::{BaseHandler, LocatorHandler, service_chain};
use thrifty_p2p::node::Node;
use visits::visits::{TVisitsSyncClient, VisitsSyncClient};
use visits::visits::{VisitsSyncHandler, VisitsSyncProcessor};

/// What a node needs to serve. The library clones it: clones share the counts.
#[derive(Clone)]
struct Handler {
    node: Node,
    counts: Arc<Mutex<HashMap<String, i64>>>,
}

impl BaseHandler for Handler {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "locator.Locator", "visits.Visits"])
    }
}

impl LocatorHandler for Handler {
    fn node(&self) -> &Node {
        &self.node
    }
}

// Several threads call these methods at the same time.
impl VisitsSyncHandler for Handler {
    fn handle_visit(&self, page: String) -> thrift::Result<i64> {
        let ring = self.node.ring();
        match ring.owner(page.as_bytes()) {
            Some(owner) if owner != self.node.location() => {
                let dialer = self.node.dialer();
                let counted = dialer.call(VisitsSyncClient::new, owner, |node| node.count(page));
                counted.map_err(|e| e.to_string().into())
            }
            _ => self.handle_count(page),
        }
    }

    fn handle_count(&self, page: String) -> thrift::Result<i64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(page).or_default();
        *count += 1;
        Ok(*count)
    }
}

fn main() -> ExitCode {
    // Options, log, signals, joining, serving, leaving and the exit status.
    cli::run_service(
        "Counts the visits of pages, each page at one node",
        "visits.Visits",
        |node| Handler {
            node,
            counts: Arc::default(),
        },
        VisitsSyncProcessor::new,
    )
}
