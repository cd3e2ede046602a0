//! `AnyNode`: a client that calls any node of a store.

use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::client::StoreClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::rpc::dialer::Dialer;

use super::nodes::Nodes;
use super::workload::KeyValueStore;

/// The calls after which a client changes to another node.
const CALLS_PER_NODE: u32 = 50;

/// How long a client waits for a node that it may call.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The pause before the client looks for such a node again.
const SEARCH_PAUSE: Duration = Duration::from_millis(2);

/// A client that calls one of several nodes. It changes to another node after some calls, and
/// if its node exits.
pub struct AnyNode {
    dialer: Dialer,
    nodes: Nodes,
    /// The number of the node that is called. None to choose one.
    current: Option<u64>,
    /// A client of that node.
    client: Option<StoreClient>,
    /// Selects the next node.
    choice: usize,
    /// Calls until the client changes to another node.
    remaining: u32,
}

impl AnyNode {
    /// A client without TLS. `choice` selects its first node.
    pub fn new(nodes: Nodes, choice: usize) -> AnyNode {
        AnyNode::of(Dialer::default(), nodes, choice)
    }

    /// A client that connects by `dialer`. `choice` selects its first node.
    pub fn of(dialer: Dialer, nodes: Nodes, choice: usize) -> AnyNode {
        AnyNode {
            dialer,
            nodes,
            current: None,
            client: None,
            choice,
            remaining: CALLS_PER_NODE,
        }
    }

    /// Makes a call, to another node if the current one has exited.
    fn call<T>(&mut self, call: impl Fn(&StoreClient) -> Result<T, Error>) -> Result<T, String> {
        self.remaining -= 1;
        if self.remaining == 0 {
            self.remaining = CALLS_PER_NODE;
            self.change_node();
        }
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        loop {
            let (number, client) = self.start_call(deadline)?;
            let result = call(client);
            let unreachable = result.as_ref().is_err_and(Error::is_unreachable);
            let may_have_exited = self.nodes.end_call(number, unreachable);
            if !(unreachable && may_have_exited) {
                return result.map_err(|e| e.to_string());
            }
            self.change_node();
        }
    }

    /// Starts a call. Waits for a node that may be called. Returns its number and its client.
    fn start_call(&mut self, deadline: Instant) -> Result<(u64, &StoreClient), String> {
        let (number, location) = loop {
            match self.nodes.start_call(self.current, self.choice) {
                Some(node) => break node,
                None if Instant::now() > deadline => return Err("no node can be called".into()),
                None => thread::sleep(SEARCH_PAUSE),
            }
        };
        if self.current != Some(number) {
            self.current = Some(number);
            self.client = None;
        }
        let connect = || StoreClient::of(self.dialer.clone(), location);
        Ok((number, self.client.get_or_insert_with(connect)))
    }

    /// Lets the next call choose a node.
    fn change_node(&mut self) {
        self.current = None;
        self.choice += 1;
    }
}

impl KeyValueStore for AnyNode {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.call(|client| client.get(key))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        self.call(|client| put(client, key, value))
    }
}

impl KeyValueStore for StoreClient {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        StoreClient::get(self, key).map_err(|e| e.to_string())
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        put(self, key, value).map_err(|e| e.to_string())
    }
}

fn put(client: &StoreClient, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    match value {
        Some(value) => client.put(key, value),
        None => client.delete(key).map(|_| ()),
    }
}
