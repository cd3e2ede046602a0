//! Copying: what a node asks of which sources, and what a source gives.

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
    replicas: usize,
    current: Arc<View>,
    /// The puller's place in the current view.
    puller: u16,
    /// The view that the puller reads by; none to give all that it owns.
    basis: Option<Basis>,
}

/// The view by which it is told who gives a key.
#[derive(Debug, Clone)]
struct Basis {
    view: Arc<View>,
    /// The places of this node and of the puller.
    me: Option<u16>,
    puller: Option<u16>,
    /// For each place: is that process gone?
    gone: Vec<bool>,
}

impl Offer {
    /// Is this key given: does the puller own it now and did not before, and is this
    /// node the first of its owners before that is left?
    pub fn gives(&self, key: Key<'_>) -> bool {
        let owners = self.current.owner_places(key, self.replicas);
        owners.contains(&self.puller)
            && self
                .basis
                .as_ref()
                .is_none_or(|basis| basis.gives(key, self.replicas))
    }
}

impl Basis {
    fn new(view: &Arc<View>, me: &Peer, puller: &Peer, gone: &[Peer]) -> Basis {
        let is_gone = |peer: Peer| peer != *me && gone.contains(&peer);
        Basis {
            me: view.place_of(me),
            puller: view.place_of(puller),
            gone: view.members().map(is_gone).collect(),
            view: view.clone(),
        }
    }

    fn gives(&self, key: Key<'_>, replicas: usize) -> bool {
        let owners = self.view.owner_places(key, replicas);
        let is_held = self.puller.is_some_and(|puller| owners.contains(&puller));
        let mut left = owners
            .iter()
            .filter(|place| !self.gone[usize::from(**place)]);
        !is_held && left.next().is_none_or(|first| Some(*first) == self.me)
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
        let basis = shared.filter(|_| !self.offers_all);
        Some(Offer {
            replicas: self.replicas?,
            current: self.current().clone(),
            puller: self.current().place_of(&pull.puller)?,
            basis: basis.map(|view| Basis::new(view, &self.me, &pull.puller, &pull.gone)),
        })
    }
}
