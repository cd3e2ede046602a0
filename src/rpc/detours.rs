//! `Detours`: which peers a node reaches by way of another one, because the link to them is cut.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::location::Location;

/// The peers that do not reply to this node, each with one to which they do. Shared by the
/// node, which adds and removes them, and its pools, which look them up for new connections.
#[derive(Debug, Default)]
pub(crate) struct Detours(Mutex<BTreeMap<Location, Location>>);

impl Detours {
    /// From now on `peer` is reached by way of `via`.
    pub fn add(&self, peer: &Location, via: &Location) {
        self.0.lock().insert(peer.clone(), via.clone());
    }

    /// From now on `peer` is called directly.
    pub fn remove(&self, peer: &Location) {
        self.0.lock().remove(peer);
    }

    /// By way of whom `peer` is reached. None: directly.
    pub fn via(&self, peer: &Location) -> Option<Location> {
        self.0.lock().get(peer).cloned()
    }

    /// The peers that are not called directly.
    pub fn peers(&self) -> Vec<Location> {
        self.0.lock().keys().cloned().collect()
    }
}
