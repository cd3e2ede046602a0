//! `Members`: a network as a client knows it, and where the call for a key goes.
//!
//! Nothing here calls anybody or waits: what is known, and whom to avoid, comes in, and
//! targets and batches come out.

use crate::diststore::{self, Roll};
use crate::location::Location;
use crate::store::table::Key;
use crate::store::view::{Peer, View};
use crate::store::wire::MOST_LISTED;

/// The most bytes of keys and values in one message, unless one pair is longer.
pub const MESSAGE: usize = 1024 * 1024;

/// The most keys in one message.
const KEYS: usize = 4096;

/// Who is in, and how keys are placed on them.
pub struct Members {
    /// By which keys are written.
    view: View,
    /// By which keys are read, if that is another one: while keys move, the one before.
    readers: Option<View>,
    /// All that can be asked, sorted; at least one. Where no members are known, whoever
    /// could be asked before.
    nodes: Vec<Location>,
    /// Leave it to a node to find the owners of keys.
    mixed: bool,
}

/// What keys are called for.
#[derive(Clone, Copy)]
pub enum Purpose {
    Read,
    Write,
}

/// Where the keys of one message go.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// To the process that is their primary.
    Primary(Peer),
    /// To a node that finds their owners.
    Any(Location),
}

/// Where a key goes, as is soon found for each of many.
#[derive(Clone, Copy)]
enum Aim<'a> {
    Primary(&'a Location),
    Any(&'a Location),
}

/// Keys of one message, by their places among those of the call.
pub struct Batch {
    pub target: Target,
    pub places: Vec<usize>,
    bytes: usize,
}

impl Members {
    /// Nothing is known but a node, to which all is left.
    pub fn nobody_but(node: Location) -> Members {
        Members {
            view: View::new([]),
            readers: None,
            nodes: vec![node],
            mixed: true,
        }
    }

    /// What a node has told; `before` is what was known till then.
    pub fn told(roll: Roll, before: &Members) -> Members {
        let members = listed(roll.members);
        let readers = Some(listed(roll.readers)).filter(|readers| !readers.is_empty());
        let mut nodes: Vec<Location> = members.iter().map(|peer| peer.location.clone()).collect();
        nodes.sort();
        if nodes.is_empty() {
            nodes.clone_from(&before.nodes);
        }
        Members {
            view: View::new(members),
            readers: readers.map(View::new),
            nodes,
            mixed: roll.mixed.unwrap_or(false),
        }
    }

    /// By which keys are written.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// All that can be asked, sorted; at least one.
    pub fn nodes(&self) -> &[Location] {
        &self.nodes
    }

    /// Where the call for a key goes.
    pub fn target(&self, key: Key<'_>, purpose: Purpose, avoided: &[Location]) -> Target {
        self.target_of(self.aim(key, purpose, avoided))
    }

    /// The keys at these places in batches, by where they go; `weigh` tells the bytes of
    /// what is sent for one.
    pub fn batches(
        &self,
        keys: &[Key<'_>],
        purpose: Purpose,
        places: impl Iterator<Item = usize>,
        weigh: impl Fn(usize) -> usize,
        avoided: &[Location],
    ) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for place in places {
            let aim = self.aim(keys[place], purpose, avoided);
            let bytes = weigh(place);
            let has_room = |batch: &&mut Batch| {
                batch.target.is(aim) && batch.places.len() < KEYS && batch.bytes + bytes <= MESSAGE
            };
            match batches.iter_mut().rev().find(has_room) {
                Some(batch) => {
                    batch.places.push(place);
                    batch.bytes += bytes;
                }
                None => batches.push(Batch {
                    target: self.target_of(aim),
                    places: vec![place],
                    bytes,
                }),
            }
        }
        batches
    }

    /// Where a key's call goes: to its primary, or, if that is not to be called, to the
    /// first node that is.
    fn aim<'a>(&'a self, key: Key<'_>, purpose: Purpose, avoided: &[Location]) -> Aim<'a> {
        let is_callable = |node: &&Location| !avoided.contains(node);
        let primary = match purpose {
            Purpose::Read => self.reader(key),
            Purpose::Write => self.view.primary_location(key),
        };
        let primary = primary.filter(|_| !self.mixed);
        match primary.filter(is_callable) {
            Some(primary) => Aim::Primary(primary),
            None => Aim::Any(
                self.nodes
                    .iter()
                    .find(is_callable)
                    .unwrap_or(&self.nodes[0]),
            ),
        }
    }

    /// Where a key is read: at its primary in the view that is read by, if that is still
    /// a member, so that one that is gone is not called as long as keys move because of it.
    fn reader(&self, key: Key<'_>) -> Option<&Location> {
        let reader = self.readers.as_ref().and_then(|readers| {
            let location = readers.primary_location(key)?;
            let is_member = readers.member_at(location) == self.view.member_at(location);
            is_member.then_some(location)
        });
        reader.or_else(|| self.view.primary_location(key))
    }

    fn target_of(&self, aim: Aim<'_>) -> Target {
        match aim {
            Aim::Primary(at) => match self.view.member_at(at) {
                Some(primary) => Target::Primary(primary),
                None => Target::Any(at.clone()),
            },
            Aim::Any(node) => Target::Any(node.clone()),
        }
    }
}

impl Target {
    /// The primary, if that is where it goes.
    pub fn primary(self) -> Option<Peer> {
        match self {
            Target::Primary(peer) => Some(peer),
            Target::Any(_) => None,
        }
    }

    fn is(&self, aim: Aim<'_>) -> bool {
        match (self, aim) {
            (Target::Primary(peer), Aim::Primary(at)) => peer.location == *at,
            (Target::Any(node), Aim::Any(at)) => node == at,
            _ => false,
        }
    }

    pub fn location(&self) -> &Location {
        match self {
            Target::Primary(peer) => &peer.location,
            Target::Any(node) => node,
        }
    }
}

/// The processes of a list that a node tells.
fn listed(peers: Option<Vec<diststore::Peer>>) -> Vec<Peer> {
    let peers = peers.unwrap_or_default().into_iter().take(MOST_LISTED);
    peers.filter_map(|peer| peer.try_into().ok()).collect()
}
