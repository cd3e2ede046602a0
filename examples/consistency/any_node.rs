//! `AnyNode`: a client that calls any node of a store.
//!
//! Calls for one key go to one node after another, which forward them. Batched calls go to the
//! primaries, by a [`RingClient`].

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::client::{Conditional, StoreClient};
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::store::placement::Key;

use super::nodes::Nodes;
use super::workload::{CallError, KeyValueStore, Versioned, Write};

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
    /// Makes the batched calls.
    ring: Option<RingClient>,
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
            ring: None,
            choice,
            remaining: CALLS_PER_NODE,
        }
    }

    /// Makes a call. If its node has exited, a read is made once more at another node, but a write
    /// is not: it may have taken effect.
    fn call<T>(
        &mut self,
        may_be_repeated: bool,
        call: impl Fn(&StoreClient) -> Result<T, Error>,
    ) -> Result<T, CallError> {
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
                return result.map_err(CallError::new);
            }
            self.change_node();
            if !may_be_repeated {
                let is_expected = true;
                return result.map_err(|e| CallError {
                    is_expected,
                    ..CallError::new(e)
                });
            }
        }
    }

    /// The client for batched calls.
    fn ring(&mut self) -> Result<&RingClient, CallError> {
        if self.ring.is_none() {
            let (number, location) = self.choose(Instant::now() + SEARCH_TIMEOUT)?;
            let connected = RingClient::of(self.dialer.clone(), &location);
            let unreachable = connected.as_ref().is_err_and(Error::is_unreachable);
            let is_expected = self.nodes.end_call(number, unreachable) && unreachable;
            self.ring = Some(connected.map_err(|e| CallError {
                is_expected,
                ..CallError::new(e)
            })?);
        }
        self.ring
            .as_ref()
            .ok_or_else(|| CallError::new("there is no client"))
    }

    /// Starts a call. Waits for a node that may be called. Returns its number and its client.
    fn start_call(&mut self, deadline: Instant) -> Result<(u64, &StoreClient), CallError> {
        let (number, location) = self.choose(deadline)?;
        if self.current != Some(number) {
            self.current = Some(number);
            self.client = None;
        }
        let connect = || StoreClient::of(self.dialer.clone(), vec![location]);
        Ok((number, self.client.get_or_insert_with(connect)))
    }

    /// Waits for a node that may be called, and starts a call in its entry of [`Nodes`].
    fn choose(&self, deadline: Instant) -> Result<(u64, Location), CallError> {
        while Instant::now() < deadline && !self.nodes.is_closed() {
            match self.nodes.start_call(self.current, self.choice) {
                Some(node) => return Ok(node),
                None => thread::sleep(SEARCH_PAUSE),
            }
        }
        Err(CallError::new("no node can be called"))
    }

    /// Lets the next call choose a node.
    fn change_node(&mut self) {
        self.current = None;
        self.choice += 1;
    }
}

impl KeyValueStore for AnyNode {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        self.call(true, |client| client.get(key))
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError> {
        self.call(false, |client| put(client, key, value))
    }

    fn read(&mut self, key: &[u8]) -> Result<Option<Versioned>, CallError> {
        let read = self.call(true, |client| client.read(key))?;
        Ok(Some((read.value, read.version)))
    }

    fn put_if(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        version: i64,
    ) -> Result<bool, CallError> {
        let result = self.call(false, |client| match value {
            Some(value) => client.put_if(key, value, version),
            None => client.delete_if(key, version),
        })?;
        Ok(matches!(result, Conditional::Written(_)))
    }

    fn get_many(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, CallError> {
        get_many(self.ring()?, keys)
    }

    fn write_many(&mut self, writes: &[Write]) -> Result<(), CallError> {
        write_many(self.ring()?, writes)
    }
}

impl KeyValueStore for StoreClient {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        StoreClient::get(self, key).map_err(CallError::new)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError> {
        put(self, key, value).map_err(CallError::new)
    }
}

impl KeyValueStore for Arc<RingClient> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        RingClient::get(self, key).map_err(CallError::new)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CallError> {
        let written = match value {
            Some(value) => RingClient::put(self, key, value),
            None => self.delete(key).map(|_| ()),
        };
        written.map_err(CallError::new)
    }

    fn get_many(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, CallError> {
        get_many(self, keys)
    }

    fn write_many(&mut self, writes: &[Write]) -> Result<(), CallError> {
        write_many(self, writes)
    }
}

fn put(client: &StoreClient, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
    match value {
        Some(value) => client.put(key, value),
        None => client.delete(key).map(|_| ()),
    }
}

fn get_many(client: &RingClient, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, CallError> {
    client.get_many(keys).map_err(CallError::new)
}

fn write_many(client: &RingClient, writes: &[Write]) -> Result<(), CallError> {
    let writes = writes
        .iter()
        .map(|(key, value)| (Key::new(key), value.as_deref()));
    let written = client.write_many(&writes.collect::<Vec<_>>());
    written.map(|_| ()).map_err(CallError::new)
}
