//! Copies of writes on their way to the owners of their keys.
//!
//! Writes of many keys are under way at once; what they have for one owner at the
//! same time goes there in one call ([`Lanes`]).

use std::sync::Arc;

use super::operations::{PEER_PATIENCE, Refusal};
use super::table::Key;
use super::versions::Entry;
use super::wire::pair;
use crate::diststore::{Kept, StoreSyncClient, TStoreSyncClient};
use crate::location::Location;
use crate::node::Node;
use crate::rpc::client::{Input, Output};
use crate::rpc::lanes::{Done, Item, Lanes, Load};
use crate::rpc::links::Links;
use crate::rpc::several::{Halves, Unheard, Unsaid, call_several};

/// The most bytes of keys and values in one call, unless one pair is longer: enough
/// that the call itself costs little beside them, and little enough to be quick.
const BATCH: usize = 256 * 1024;

/// Bytes that a pair takes in a message beside its key and value.
const BESIDE: usize = 32;

/// A client of an owner, for calls that go to several owners at once.
type Owner = Halves<StoreSyncClient<Unheard, Output>, StoreSyncClient<Input, Unsaid>>;

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

impl Item for Copy {
    fn weight(&self) -> usize {
        self.key.len() + self.entry.value.as_ref().map_or(0, |v| v.len()) + BESIDE
    }

    fn goes_with(&self, other: &Copy) -> bool {
        self.view == other.view
    }
}

/// The ways of copies to all owners.
pub(super) struct Copies {
    owners: Arc<Links<Owner>>,
    lanes: Lanes<Copy, Outcome>,
}

impl Copies {
    /// Copies from this node, which is told who cannot be reached.
    pub fn new(node: Node) -> Copies {
        let halves = |input, output| {
            Halves::new(StoreSyncClient::new, StoreSyncClient::new, (input, output))
        };
        let owners = Arc::new(Links::new(node.caller().clone(), halves, PEER_PATIENCE));
        Copies {
            owners: owners.clone(),
            lanes: Lanes::new(BATCH, move |loads, done| send(&node, &owners, loads, done)),
        }
    }

    /// Sends copies to owners, all at once; what came of each. Blocks for as long as
    /// calls to peers may take.
    pub fn send(&self, copies: Vec<(Location, Copy)>) -> Vec<Outcome> {
        let outcomes = self.lanes.deliver(copies).into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or(Outcome::Unreached))
            .collect()
    }

    /// Forgets the way to a node that is gone: calls under way break off.
    pub fn forget(&self, gone: &Location) {
        self.lanes.forget(gone);
        self.owners.forget(gone);
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

/// Calls owners, each with copies of one view.
fn send(node: &Node, owners: &Links<Owner>, loads: &[Load<Copy>], done: Done<'_, Outcome>) {
    let locations: Vec<Location> = loads.iter().map(|load| load.to.clone()).collect();
    let replicate = |owner: &mut Owner, place: usize| {
        let copies: &[Copy] = &loads[place].items;
        let pairs = copies.iter();
        let pairs = pairs.map(|copy| pair(copy.key.to_vec(), &copy.entry));
        let (pairs, view) = (pairs.collect(), copies[0].view as i64);
        owner.send(|sender| sender.replicate(pairs, view))
    };
    let kept = |owner: &mut Owner, _| owner.receive(|receiver| receiver.replicate(Vec::new(), 0));
    call_several(owners, &locations, replicate, kept, |place, outcome| {
        let count = loads[place].items.len();
        let outcomes = match outcome {
            Ok(kept) => outcomes(kept, count),
            Err(e) if e.is_unreachable() => {
                node.unreachable(&locations[place], &e);
                (0..count).map(|_| Outcome::Unreached).collect()
            }
            Err(e) => (0..count)
                .map(|_| Outcome::Declined(e.to_string()))
                .collect(),
        };
        done(place, outcomes);
    });
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
