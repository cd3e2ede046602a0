//! Copying: what a node asks of which sources, and what a source gives.

use std::iter;
use std::ops::RangeInclusive;
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

    /// Is any key given whose point is among these? Who gains nothing by a change, as nearly
    /// all do when one joins, is told so without a look at the keys.
    pub fn gives_among(&self, points: RangeInclusive<u32>) -> bool {
        let of_basis = self.basis.as_ref().map(|basis| &basis.view);
        let views = of_basis.into_iter().chain([&self.current]);
        let others = views.flat_map(|view| view.arcs_begin(points.clone()));
        let mut begins = iter::once(*points.start()).chain(others);
        // All keys from one of these points to the next are held by the same processes.
        begins.any(|point| self.gives(Key { bytes: b"", point }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn peer(port: u16) -> Peer {
        Peer::new(Location::new("127.0.0.1", port).unwrap(), 1)
    }

    /// What `giver` gives `puller` when the last of five nodes joins.
    fn offer(giver: u16, puller: u16) -> Offer {
        let before = Arc::new(View::new((1..5).map(peer)));
        let current = Arc::new(View::new((1..6).map(peer)));
        Offer {
            replicas: 3,
            puller: current.place_of(&peer(puller)).unwrap(),
            basis: Some(Basis::new(&before, &peer(giver), &peer(puller), &[])),
            current,
        }
    }

    #[test]
    fn what_is_given_is_among_the_points_that_may_be_given() {
        let offer = offer(1, 5);
        let (mut given, mut passed_over) = (0, 0);
        for number in 0..20_000 {
            let name = format!("key{number}");
            let key = Key::new(name.as_bytes());
            let around = key.point..=key.point.saturating_add(1 << 20);
            assert!(!offer.gives(key) || offer.gives_among(around.clone()));
            given += usize::from(offer.gives(key));
            passed_over += usize::from(!offer.gives_among(around));
        }
        assert!(given > 2_000, "{given} of 20,000");
        assert!(passed_over > 10_000, "{passed_over} of 20,000");
    }

    #[test]
    fn who_gains_nothing_is_given_nothing() {
        for puller in 2..5 {
            assert!(!offer(1, puller).gives_among(0..=u32::MAX));
        }
        assert!(offer(1, 5).gives_among(0..=u32::MAX));
    }
}
