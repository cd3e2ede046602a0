//! Copying: what a node asks of which sources, and what a source gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Moves, Phase};
use crate::store::table::{Cursor, Key};
use crate::store::view::{Peer, View};

/// A request for a page of what the asker owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Who asks.
    pub puller: Peer,
    /// The asker's current view: a source that has another one refuses.
    pub view: u64,
    /// The view that the asker reads by: it holds what it owns there.
    pub read: u64,
    /// Processes that the asker takes to be gone, whose duty falls to the next owner.
    pub gone: Vec<Peer>,
    /// Where to go on.
    pub cursor: Cursor,
}

/// Names the attempt that a page belongs to: pages of an abandoned one do not count.
pub type Attempt = u64;

/// What one node gives another that copies: which keys.
#[derive(Debug, Clone)]
pub struct Offer {
    me: Peer,
    puller: Peer,
    replicas: usize,
    current: Arc<View>,
    /// The view that the puller reads by; none to give all that it owns.
    basis: Option<Arc<View>>,
    gone: BTreeSet<Peer>,
}

impl Offer {
    /// Is this key given: does the puller own it now and did not before, and is this
    /// node the first of its owners before that is left?
    pub fn gives(&self, key: Key<'_>) -> bool {
        if !self.current.owns(&self.puller, key, self.replicas) {
            return false;
        }
        let Some(basis) = &self.basis else {
            return true;
        };
        let mut held = false;
        let mut first = None;
        for owner in basis.owners(key, self.replicas) {
            held |= owner == self.puller;
            if first.is_none() && !self.gone.contains(&owner) {
                first = Some(owner);
            }
        }
        !held && first.is_none_or(|first| first == self.me)
    }
}

impl Moves {
    /// The pages to ask for now, each with its source.
    pub fn pulls(&self) -> Vec<(Peer, Pull)> {
        let (Some(read), Phase::Drained) = (&self.read, self.phase) else {
            return Vec::new();
        };
        let gone: Vec<Peer> = self
            .views
            .iter()
            .flat_map(|view| view.members())
            .filter(|peer| self.is_gone(peer))
            .collect();
        let pull = |cursor: &Cursor| Pull {
            puller: self.me.clone(),
            view: self.current().id(),
            read: read.id(),
            gone: gone.clone(),
            cursor: cursor.clone(),
        };
        let open =
            |(peer, cursor): (&Peer, &Option<Cursor>)| Some((peer.clone(), pull(cursor.as_ref()?)));
        self.sources.iter().filter_map(open).collect()
    }

    /// The current attempt to copy, to come back with its pages.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// A page from `source` was applied; `next` is where the next one begins.
    pub fn pulled(&mut self, attempt: Attempt, source: &Peer, next: Option<Cursor>) {
        if attempt == self.attempt && self.phase == Phase::Drained {
            self.sources.insert(source.clone(), next);
            self.changes += 1;
            self.advance();
        }
    }

    /// What this node gives to whoever asks so; none while it cannot know.
    pub fn offer(&self, pull: &Pull) -> Option<Offer> {
        let drained = self.phase >= Phase::Drained && self.current().id() == pull.view;
        if !drained || (self.read.is_none() && !self.offers_all) {
            return None;
        }
        let shared = self.views.iter().find(|view| view.id() == pull.read);
        Some(Offer {
            me: self.me.clone(),
            puller: pull.puller.clone(),
            replicas: self.replicas?,
            current: self.current().clone(),
            basis: if self.offers_all {
                None
            } else {
                shared.cloned()
            },
            gone: pull
                .gone
                .iter()
                .filter(|peer| **peer != self.me)
                .cloned()
                .collect(),
        })
    }
}
