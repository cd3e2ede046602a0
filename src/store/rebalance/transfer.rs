//! Copying keys: what a node asks of which sources, and what a source sends.

use std::iter;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Phase, Rebalance};
use crate::store::placement::{Key, NodeId, Placement};
use crate::store::table::Cursor;

/// A request for a page of the keys that the puller owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The node that asks.
    pub puller: NodeId,
    /// Its current placement. A source with another one refuses.
    pub placement_id: u64,
    /// Its read placement: it holds what it owns there.
    pub read_placement_id: u64,
    /// Processes that it takes for gone, whose part falls to the next owner.
    pub down: Vec<NodeId>,
    /// Where to continue.
    pub cursor: Cursor,
    /// Digests of what the puller has of the [`SharedKeys`] in the buckets of that stripe. Empty if
    /// it has nothing.
    pub digests: Vec<u64>,
}

/// Keys that both of two nodes own now: what they have of them can be compared.
#[derive(Debug, Clone)]
pub struct SharedKeys {
    replicas: usize,
    current: Arc<Placement>,
    owners: [u16; 2],
}

impl SharedKeys {
    /// Do both own this key?
    pub fn include(&self, key: Key<'_>) -> bool {
        let owners = self.current.owner_indexes(key, self.replicas);
        self.owners.iter().all(|owner| owners.contains(owner))
    }
}

/// Names the attempt that a page belongs to. Pages of an abandoned attempt do not count.
pub type AttemptId = u64;

/// Which keys a source sends to a puller.
#[derive(Debug, Clone)]
pub struct TransferFilter {
    replicas: usize,
    current: Arc<Placement>,
    /// The puller's index in the current placement.
    puller: u16,
    /// Who holds what before the rebalance. None to send all that the puller owns.
    source_view: Option<SourceView>,
}

/// The placement that decides which source sends a key.
#[derive(Debug, Clone)]
struct SourceView {
    placement: Arc<Placement>,
    /// The indexes of this node and of the puller.
    me: Option<u16>,
    puller: Option<u16>,
    /// For each index: is that process gone?
    is_gone: Vec<bool>,
}

impl TransferFilter {
    /// Is this key sent? It is if the puller owns it now and did not before, and this node is
    /// the first of its previous owners that is left.
    pub fn includes(&self, key: Key<'_>) -> bool {
        let owners = self.current.owner_indexes(key, self.replicas);
        let view = self.source_view.as_ref();
        owners.contains(&self.puller) && view.is_none_or(|view| view.includes(key, self.replicas))
    }

    /// Can a key in this range of points be sent? Lets a source skip ranges without looking
    /// at their keys, as nearly all are for most pullers when one node joins.
    pub fn may_include_points(&self, points: RangeInclusive<u32>) -> bool {
        let before = self.source_view.as_ref().map(|view| &view.placement);
        let placements = before.into_iter().chain([&self.current]);
        let starts = placements.flat_map(|placement| placement.arc_starts(points.clone()));
        // The keys from one of these points to the next have the same owners.
        let mut starts = iter::once(*points.start()).chain(starts);
        starts.any(|point| self.includes(Key { bytes: b"", point }))
    }
}

impl SourceView {
    fn new(
        placement: &Arc<Placement>,
        me: &NodeId,
        puller: &NodeId,
        down: &[NodeId],
    ) -> SourceView {
        let is_gone = |node: &NodeId| node != me && down.contains(node);
        SourceView {
            me: placement.index_of(me),
            puller: placement.index_of(puller),
            is_gone: placement.members().map(is_gone).collect(),
            placement: placement.clone(),
        }
    }

    fn includes(&self, key: Key<'_>, replicas: usize) -> bool {
        let owners = self.placement.owner_indexes(key, replicas);
        let has_it = self.puller.is_some_and(|puller| owners.contains(&puller));
        let mut left = owners
            .iter()
            .filter(|index| !self.is_gone[usize::from(**index)]);
        !has_it && left.next().is_none_or(|first| Some(*first) == self.me)
    }
}

impl Rebalance {
    /// The pages to ask for now, each with its source.
    pub fn pulls(&self) -> Vec<(NodeId, Pull)> {
        let (Some(read), Phase::Drained) = (&self.read, self.phase) else {
            return Vec::new();
        };
        let members = self.placements.iter().flat_map(|known| known.members());
        let down: Vec<NodeId> = members.filter(|node| self.is_gone(node)).cloned().collect();
        let pull = |cursor: &Cursor| Pull {
            puller: self.me.clone(),
            placement_id: self.current().id(),
            read_placement_id: read.id(),
            down: down.clone(),
            cursor: cursor.clone(),
            digests: Vec::new(),
        };
        let open = |(node, cursor): (&NodeId, &Option<Cursor>)| {
            Some((node.clone(), pull(cursor.as_ref()?)))
        };
        self.sources.iter().filter_map(open).collect()
    }

    /// The current attempt to copy, to be passed to [`pulled`](Rebalance::pulled).
    pub fn attempt_id(&self) -> AttemptId {
        self.attempt_id
    }

    /// A page from `source` was applied. `next` is where the next one starts.
    pub fn pulled(&mut self, attempt_id: AttemptId, source: &NodeId, next: Option<Cursor>) {
        if attempt_id == self.attempt_id && self.phase == Phase::Drained {
            self.sources.insert(source.clone(), next);
            self.changes += 1;
            self.advance();
        }
    }

    /// The keys that this node owns together with another one.
    pub fn shared_keys(&self, other: &NodeId) -> Option<SharedKeys> {
        let current = self.current();
        Some(SharedKeys {
            replicas: self.replicas?,
            current: current.clone(),
            owners: [current.index_of(&self.me)?, current.index_of(other)?],
        })
    }

    /// This node offers all that it holds.
    pub fn offers_all(&self) -> bool {
        self.offers_all
    }

    /// What this node sends in reply to a pull. None while it cannot know.
    pub fn transfer_filter(&self, pull: &Pull) -> Option<TransferFilter> {
        let is_drained = self.phase >= Phase::Drained && self.current().id() == pull.placement_id;
        let may_be_old = self.lease.is_some() || self.was_given_up;
        if !is_drained || may_be_old || (self.read.is_none() && !self.offers_all) {
            return None;
        }
        let shared = self.placement(pull.read_placement_id);
        let before = shared.filter(|_| !self.offers_all);
        Some(TransferFilter {
            replicas: self.replicas?,
            current: self.current().clone(),
            puller: self.current().index_of(&pull.puller)?,
            source_view: before
                .map(|before| SourceView::new(before, &self.me, &pull.puller, &pull.down)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn node(port: u16) -> NodeId {
        NodeId::new(Location::new("127.0.0.1", port).unwrap(), 1)
    }

    /// What `source` sends `puller` when the last of five nodes joins.
    fn filter(source: u16, puller: u16) -> TransferFilter {
        let before = Arc::new(Placement::new((1..5).map(node)));
        let current = Arc::new(Placement::new((1..6).map(node)));
        let view = SourceView::new(&before, &node(source), &node(puller), &[]);
        TransferFilter {
            replicas: 3,
            puller: current.index_of(&node(puller)).unwrap(),
            source_view: Some(view),
            current,
        }
    }

    #[test]
    fn an_included_key_is_in_a_range_that_may_be_included() {
        let filter = filter(1, 5);
        let (mut included, mut skipped) = (0, 0);
        for number in 0..20_000 {
            let name = format!("key{number}");
            let key = Key::new(name.as_bytes());
            let range = key.point..=key.point.saturating_add(1 << 20);
            assert!(!filter.includes(key) || filter.may_include_points(range.clone()));
            included += usize::from(filter.includes(key));
            skipped += usize::from(!filter.may_include_points(range));
        }
        assert!(included > 2_000, "{included} of 20,000");
        assert!(skipped > 10_000, "{skipped} of 20,000");
    }

    #[test]
    fn a_node_that_gains_no_key_is_sent_nothing() {
        for puller in 2..5 {
            assert!(!filter(1, puller).may_include_points(0..=u32::MAX));
        }
        assert!(filter(1, 5).may_include_points(0..=u32::MAX));
    }
}
