//! Asking other nodes what they hold as owners.
//!
//! Many clients' reads are passed on at once; what they have to ask of one owner at the
//! same time goes there in one call ([`Lanes`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::debug;

use super::operations::Client;
use super::versions::Entry;
use super::view::Peer;
use super::wire::read_found;
use crate::diststore::TStoreSyncClient;
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::Links;
use crate::rpc::lanes::Lanes;

/// What is held for a key, a tombstone included; nothing if nothing ever was.
pub(super) type Held = Option<Entry>;

/// The most bytes of keys in one call.
const BATCH: usize = 64 * 1024;

/// For how long an owner that could not be reached is asked last.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// The ways of questions to all owners.
pub(super) struct Asking {
    owners: Arc<Owners>,
    /// Keys, each with the view in which the owner is asked.
    lanes: Lanes<(u64, Vec<u8>), Option<Held>>,
}

/// Who is asked.
struct Owners {
    node: Node,
    peers: Arc<Links<Client>>,
    /// Those that could not be reached a moment ago, and until when they are asked last.
    passed_over: Mutex<HashMap<Location, Instant>>,
}

impl Asking {
    /// Questions that go over `peers`; who cannot be reached is reported to `node`.
    pub fn new(node: Node, peers: Arc<Links<Client>>) -> Asking {
        let owners = Arc::new(Owners {
            node,
            peers,
            passed_over: Mutex::default(),
        });
        let asked = owners.clone();
        let carry = move |owner: &Location, questions: Vec<(u64, Vec<u8>)>| {
            let mut answers = Vec::new();
            for run in questions.chunk_by(|(view, _), (next, _)| view == next) {
                let view = run.first().map_or(0, |(view, _)| *view);
                let keys = run.iter().map(|(_, key)| key.clone()).collect();
                let held = asked.ask(owner, view, keys).into_iter().map(Some);
                answers.extend(held.chain(std::iter::repeat(None)).take(run.len()));
            }
            answers
        };
        Asking {
            owners,
            lanes: Lanes::new(BATCH, |(_, key)| key.len(), carry),
        }
    }

    /// What an owner in that view holds for a key, asked with what others ask of it;
    /// nothing if it refuses or cannot be reached. Blocks for two calls at the most.
    pub fn ask_with_others(&self, owner: &Location, view: u64, key: &[u8]) -> Option<Held> {
        let answers = self
            .lanes
            .deliver(vec![(owner.clone(), (view, key.to_vec()))]);
        answers.into_iter().next().flatten().flatten()
    }

    /// What an owner in that view holds for the first of these keys, as many as its answer
    /// has room for; nothing if it refuses or cannot be reached. Blocks for one call.
    pub fn ask(&self, owner: &Location, view: u64, keys: Vec<Vec<u8>>) -> Vec<Held> {
        self.owners.ask(owner, view, keys)
    }

    /// The owners of a key in the order in which to ask them: first those that could be
    /// reached when they were asked last.
    pub fn in_order(&self, mut owners: Vec<Peer>) -> Vec<Peer> {
        let now = Instant::now();
        let mut passed_over = self.owners.passed_over();
        passed_over.retain(|_, until| *until > now);
        owners.sort_by_key(|owner| passed_over.contains_key(&owner.location));
        owners
    }

    /// Forgets the way to a node that is gone.
    pub fn forget(&self, gone: &Location) {
        self.lanes.forget(gone);
    }
}

impl Owners {
    fn ask(&self, owner: &Location, view: u64, keys: Vec<Vec<u8>>) -> Vec<Held> {
        let read = |client: &mut Client| client.fetch_at(keys.clone(), view as i64);
        match self.peers.call(owner, read) {
            Ok(found) => found.into_iter().map(read_found).collect(),
            Err(e) => {
                debug!("{e}");
                if e.is_unreachable() {
                    let until = Instant::now() + PASSED_OVER;
                    self.passed_over().insert(owner.clone(), until);
                    self.node.unreachable(owner, &e);
                }
                Vec::new()
            }
        }
    }

    /// Held for a moment, never during a call.
    fn passed_over(&self) -> MutexGuard<'_, HashMap<Location, Instant>> {
        self.passed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
