//! `Router`: sends each call of a client to the right node, while nodes join, leave and fail.
//!
//! The topology is refreshed every second, and whenever a call shows that it is out of date,
//! by one of the calling threads; the others use the one that is known. A node that could not
//! be reached is not called for a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::{Mutex, MutexGuard};

use super::topology::{Access, KeyBatch, Target, Topology};
use crate::diststore::{StoreSyncClient, TStoreSyncClient};
use crate::error::Error;
use crate::location::Location;
use crate::parallel::parallel_map;
use crate::retry::jittered;
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::pool::Pool;
use crate::store::placement::{Key, NodeId};
use crate::store::types::{CLIENT_TIMEOUT, Client, PRIMARY_TIMEOUTS};

/// For a node that forwards calls: longer than it retries before it refuses.
const PROXY_TIMEOUTS: Timeouts = Timeouts::of_millis(500, 12_000);

/// The age at which the topology is refreshed.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The pause before a retry if no key was done.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a node that could not be reached is not called.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Messages of one call in flight at the same time.
const PARALLEL: usize = 8;

/// The connections to the nodes of a network, and what is known of the nodes.
pub struct Router {
    pub primaries: Pool<Client>,
    proxies: Pool<Client>,
    known: Mutex<Known>,
}

/// What is known of a network.
struct Known {
    topology: Arc<Topology>,
    /// When the topology is to be refreshed.
    stale_at: Instant,
    /// Nodes that could not be reached, each with the time until which it is not called.
    failed: BTreeMap<Location, Instant>,
}

impl Known {
    /// A node failed at `now`. As many are remembered as there are nodes, for the pause.
    fn mark_failed(&mut self, node: &Location, now: Instant) {
        self.failed.retain(|_, until| now < *until);
        self.failed.insert(node.clone(), now + FAILURE_PAUSE);
        self.stale_at = now;
    }

    /// The nodes that are not to be called at `now`.
    fn failed(&self, now: Instant) -> Vec<Location> {
        let failed = self.failed.iter().filter(|(_, until)| now < **until);
        failed.map(|(node, _)| node.clone()).collect()
    }
}

impl Router {
    /// A router for the network of `peer`. Fetches its topology.
    ///
    /// # Errors
    /// The peer cannot be called, or does not know the method.
    pub fn connect(dialer: Dialer, peer: &Location) -> Result<Router, Error> {
        let router = Router {
            primaries: Pool::new(dialer.clone(), StoreSyncClient::new, PRIMARY_TIMEOUTS),
            proxies: Pool::new(dialer, StoreSyncClient::new, PROXY_TIMEOUTS),
            known: Mutex::new(Known {
                topology: Arc::new(Topology::unknown(peer.clone())),
                stale_at: Instant::now(),
                failed: BTreeMap::new(),
            }),
        };
        router.refresh_from(peer)?;
        Ok(router)
    }

    /// The connections for calls to `target`.
    pub fn pool(&self, target: Target<'_>) -> &Pool<Client> {
        match target {
            Target::Primary(_) => &self.primaries,
            Target::Proxy(_) => &self.proxies,
        }
    }

    /// The primary to call for `key`. None while a node must route the call.
    pub fn primary(&self, key: Key<'_>, access: Access) -> Option<NodeId> {
        match self.topology().target(key, access, &self.failed()) {
            Target::Primary(primary) => Some(primary.clone()),
            Target::Proxy(_) => None,
        }
    }

    /// Calls with all keys, and again with those that got no result, until each has one.
    ///
    /// `size` returns the bytes that the key at an index adds to a message. `call` makes the
    /// call of one batch and returns results for its keys in order. It may return fewer.
    ///
    /// # Errors
    /// A node refuses; or some key had no result in time.
    pub fn retry_until_done<T: Send>(
        &self,
        keys: &[Key<'_>],
        access: Access,
        size: impl Fn(usize) -> usize,
        call: impl Fn(&KeyBatch<'_>) -> Result<Vec<Option<T>>, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let deadline = Instant::now() + CLIENT_TIMEOUT;
        let mut results: Vec<Option<T>> = keys.iter().map(|_| None).collect();
        loop {
            let topology = self.topology();
            let open = (0..keys.len()).filter(|index| results[*index].is_none());
            let batches = topology.batches(keys, open, access, &size, &self.failed());
            let replies = parallel_map(&batches, PARALLEL, |batch| (batch, call(batch)));
            let mut failure = None;
            let mut has_progress = false;
            for (batch, reply) in replies {
                match reply {
                    Ok(values) => has_progress |= record(&mut results, batch, values),
                    // A legacy node may be taken for a member until another node has called it.
                    Err(e) if e.is_unreachable() || e.is_unknown_method() => {
                        self.mark_failed(batch.target.location(), &e);
                        failure = Some(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            if results.iter().all(Option::is_some) {
                return Ok(results.into_iter().flatten().collect());
            }
            if Instant::now() > deadline {
                return Err(failure.unwrap_or_else(|| self.no_primary()));
            }
            if !has_progress {
                thread::sleep(jittered(RETRY_PAUSE));
                self.known().stale_at = Instant::now();
            }
        }
    }

    /// The error when every node that was called is not the primary.
    fn no_primary(&self) -> Error {
        let node = self.topology().nodes()[0].clone();
        let reason = format!("no node accepted the call as primary for {CLIENT_TIMEOUT:?}");
        Error::Remote(node, reason.into())
    }

    /// Fetches the topology and returns it; if no node replies, the one that is known.
    pub fn refresh(&self) -> Arc<Topology> {
        self.known().stale_at = Instant::now();
        self.topology()
    }

    /// The topology that is known. Refreshes it first if it is out of date and no other thread
    /// does so.
    pub fn topology(&self) -> Arc<Topology> {
        let topology = {
            let mut known = self.known();
            let now = Instant::now();
            if now < known.stale_at {
                return known.topology.clone();
            }
            known.stale_at = now + MAX_AGE;
            known.topology.clone()
        };
        let failed = self.failed();
        let mut nodes = topology.nodes().iter();
        let refreshed = nodes.find(|node| {
            let call = || self.refresh_from(node);
            !failed.contains(node) && call().inspect_err(|e| self.mark_failed(node, e)).is_ok()
        });
        if refreshed.is_none() {
            debug!("no node replied with the topology");
        }
        self.known().topology.clone()
    }

    fn refresh_from(&self, node: &Location) -> Result<(), Error> {
        let reply = self.primaries.call(node, TStoreSyncClient::topology)?;
        let before = self.known().topology.clone();
        let topology = Arc::new(Topology::from_wire(reply, &before));
        let mut known = self.known();
        known.topology = topology;
        known.stale_at = Instant::now() + MAX_AGE;
        Ok(())
    }

    /// Does not call a node for a while, and refreshes the topology before the next call.
    pub fn mark_failed(&self, node: &Location, error: &Error) {
        debug!("{node} is not called for a while: {error}");
        self.known().mark_failed(node, Instant::now());
    }

    fn failed(&self) -> Vec<Location> {
        self.known().failed(Instant::now())
    }

    /// What is known. Held briefly, never during a call.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

/// Stores the values for the keys of a batch. Returns whether there was any.
fn record<T>(results: &mut [Option<T>], batch: &KeyBatch<'_>, values: Vec<Option<T>>) -> bool {
    let mut has_value = false;
    for (index, value) in batch.indexes.iter().zip(values) {
        has_value |= value.is_some();
        results[*index] = value;
    }
    has_value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_node_may_be_called_again_after_the_pause() {
        let [one, other] = [1, 2].map(|port| Location::new("10.0.0.1", port).unwrap());
        let now = Instant::now();
        let mut known = Known {
            topology: Arc::new(Topology::unknown(one.clone())),
            stale_at: now,
            failed: BTreeMap::new(),
        };
        known.mark_failed(&one, now);
        known.mark_failed(&other, now + FAILURE_PAUSE / 2);
        assert_eq!(known.failed(now).len(), 2);
        assert_eq!(known.failed(now + FAILURE_PAUSE).first(), Some(&other));
        assert_eq!(known.failed(now + FAILURE_PAUSE * 2), []);
        known.mark_failed(&other, now + FAILURE_PAUSE * 2);
        assert_eq!(known.failed.len(), 1, "the first one is forgotten");
    }
}
