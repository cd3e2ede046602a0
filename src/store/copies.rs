//! Copies of writes on their way to the owners of their keys.
//!
//! Writes of many keys are under way at once; what they have for one owner at the
//! same time goes there in one call ([`Lanes`]).

use std::sync::Arc;

use super::operations::{Client, Refusal};
use super::table::Key;
use super::versions::Entry;
use super::wire::pair;
use crate::diststore::{Kept, TStoreSyncClient};
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::Links;
use crate::rpc::lanes::Lanes;

/// The most bytes of keys and values in one call, unless one pair is longer: enough
/// that the call itself costs little beside them, and little enough to be quick.
const BATCH: usize = 256 * 1024;

/// Bytes that a pair takes in a message beside its key and value.
const BESIDE: usize = 32;

/// The copy of an entry that goes to one owner.
pub(super) struct Copy {
    key: Arc<[u8]>,
    entry: Entry,
    /// The current view of the primary that sends it.
    view: u64,
}

/// What came of it.
pub(super) enum Outcome {
    /// The owner has it; its own current view is this.
    Kept(u64),
    /// It has no room for it.
    Declined(Refusal),
    /// It did not answer.
    Unreached,
}

/// The ways of copies to all owners.
pub(super) struct Copies(Lanes<Copy, Outcome>);

impl Copies {
    /// Copies that go over `peers`; who cannot be reached is reported to `node`.
    pub fn new(node: Node, peers: Arc<Links<Client>>) -> Copies {
        let weigh = |copy: &Copy| {
            copy.key.len() + copy.entry.value.as_ref().map_or(0, |v| v.len()) + BESIDE
        };
        Copies(Lanes::new(BATCH, weigh, move |owner, copies| {
            let runs = copies.chunk_by(|one, next| one.view == next.view);
            runs.flat_map(|copies| send(&node, &peers, owner, copies))
                .collect()
        }))
    }

    /// Sends copies to owners, all at once; what came of each. Blocks for as long as
    /// calls to peers may take.
    pub fn send(&self, copies: Vec<(Location, Copy)>) -> Vec<Outcome> {
        let outcomes = self.0.deliver(copies).into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or(Outcome::Unreached))
            .collect()
    }

    /// Forgets the way to a node that is gone.
    pub fn forget(&self, gone: &Location) {
        self.0.forget(gone);
    }
}

impl Copy {
    /// The copy of `entry` that a primary with that current view sends.
    pub fn new(key: Key<'_>, entry: &Entry, view: u64) -> Copy {
        Copy {
            key: key.bytes.into(),
            entry: entry.clone(),
            view,
        }
    }
}

/// Calls one owner with copies of one view.
fn send(node: &Node, peers: &Links<Client>, owner: &Location, copies: &[Copy]) -> Vec<Outcome> {
    let view = copies.first().map_or(0, |copy| copy.view);
    let pairs = || {
        let pairs = copies.iter();
        pairs
            .map(|copy| pair(copy.key.to_vec(), &copy.entry))
            .collect()
    };
    match peers.call(owner, |client| client.replicate(pairs(), view as i64)) {
        Ok(kept) => outcomes(kept, copies.len()),
        Err(e) if e.is_unreachable() => {
            node.unreachable(owner, &e);
            copies.iter().map(|_| Outcome::Unreached).collect()
        }
        Err(e) => copies
            .iter()
            .map(|_| Outcome::Declined(e.to_string()))
            .collect(),
    }
}

fn outcomes(kept: Kept, count: usize) -> Vec<Outcome> {
    let view = kept.view.unwrap_or(0) as u64;
    let mut outcomes: Vec<Outcome> = (0..count).map(|_| Outcome::Kept(view)).collect();
    for declined in kept.declined.unwrap_or_default() {
        let place = usize::try_from(declined.place.unwrap_or(-1)).ok();
        if let Some(outcome) = place.and_then(|place| outcomes.get_mut(place)) {
            *outcome = Outcome::Declined(declined.reason.unwrap_or_default());
        }
    }
    outcomes
}
