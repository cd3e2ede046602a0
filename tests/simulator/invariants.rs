//! What must hold after every step, under any faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Change, ChangeKind, Event, Member, Membership, Status, config};

use super::{Id, Simulator};

/// After this time a fault has no effect any more: a suspect learns of the suspicion and refutes
/// it in a second or two, and the longest grace is four seconds.
const FAULT_EFFECT: Duration = Duration::from_secs(10);

/// What the simulator has observed. Each step is compared with it.
#[derive(Clone, Default)]
pub struct Invariants {
    /// The records of each host's current process after its last step.
    tables: BTreeMap<Id, BTreeMap<Location, Member>>,
    /// The ring of each host, computed from its events.
    rings: BTreeMap<Id, BTreeSet<Location>>,
    /// Every record that a member has ever had of itself.
    own_records: BTreeSet<RecordKey>,
    /// Legacy nodes. Others write ALIVE for them.
    legacy: BTreeSet<Location>,
    /// The last incarnation with which each host knew a member as LEFT.
    left: BTreeMap<(Id, Location), i64>,
    /// When two hosts could last not call each other, in one direction or both.
    disconnected_at: BTreeMap<(Id, Id), Duration>,
}

/// All fields of a record.
type RecordKey = (Location, i64, Status, i64);

/// The members that were removed from a ring because they were declared down.
pub fn removed_as_down(events: &[Event]) -> impl Iterator<Item = &Location> {
    let down = changes(events).filter(|change| change.kind == ChangeKind::Down);
    down.map(|change| &change.location)
}

fn changes(events: &[Event]) -> impl Iterator<Item = &Change> {
    events.iter().filter_map(|event| match event {
        Event::RingChanged(change) => Some(change),
        _ => None,
    })
}

impl Invariants {
    /// Forgets the earlier process of a host.
    pub fn on_boot(&mut self, id: Id) {
        self.tables.remove(&id);
        self.rings.remove(&id);
        self.left.retain(|(host, _), _| *host != id);
    }

    pub fn on_legacy_boot(&mut self, location: &Location) {
        self.legacy.insert(location.clone());
    }

    /// Checks the state of the node on host `id` after a step.
    pub fn check(&mut self, simulator: &Simulator, id: Id, events: &[Event]) {
        let Some(node) = simulator.node(id) else {
            return;
        };
        self.record_disconnections(simulator, id);
        let own = super::record(node, node.me());
        assert!(
            matches!(own.status, Status::Alive | Status::Left),
            "{} has the status {} in its own table",
            node.me(),
            own.status
        );
        self.own_records.insert(key(own));
        self.check_table(id, node);
        self.check_ring(id, node, events);
        check_limits(simulator, id, node);
        for removed in removed_as_down(events) {
            self.check_removal(simulator, id, removed);
        }
    }

    /// Records only grow, only tombstones are dropped, and only a member itself writes ALIVE and
    /// LEFT.
    fn check_table(&mut self, id: Id, node: &Membership) {
        let me = node.me();
        let before = self.tables.remove(&id).unwrap_or_default();
        let mut after = BTreeMap::new();
        for member in node.members() {
            let location = &member.location;
            if let Some(known) = before.get(location) {
                assert!(
                    *known == *member || member.supersedes(known),
                    "{me} replaced {known:?} by the smaller {member:?}"
                );
            }
            let is_own_status = matches!(member.status, Status::Alive | Status::Left);
            assert!(
                !is_own_status
                    || self.legacy.contains(location)
                    || self.own_records.contains(&key(member)),
                "{me} has {member:?}, which {location} never wrote"
            );
            self.check_left(id, member);
            after.insert(location.clone(), member.clone());
        }
        for known in before.values() {
            let is_tombstone = !known.status.is_live();
            assert!(
                is_tombstone || after.contains_key(&known.location),
                "{me} dropped {known:?}"
            );
        }
        self.tables.insert(id, after);
    }

    /// A member that has left returns with a larger incarnation only.
    fn check_left(&mut self, id: Id, member: &Member) {
        let key = (id, member.location.clone());
        if member.status == Status::Left {
            self.left.insert(key, member.incarnation);
        } else if let Some(&left) = self.left.get(&key) {
            assert!(
                member.incarnation > left,
                "{member:?} returned with the incarnation with which it left"
            );
        }
    }

    /// The events describe the ring.
    fn check_ring(&mut self, id: Id, node: &Membership, events: &[Event]) {
        let ring = self.rings.entry(id).or_default();
        for change in changes(events) {
            let location = &change.location;
            let is_valid = match change.kind {
                ChangeKind::Added => ring.insert(location.clone()),
                ChangeKind::Down | ChangeKind::Left => ring.remove(location),
                ChangeKind::Restarted => ring.contains(location),
            };
            assert!(is_valid, "host {id} reported {change:?}");
        }
        assert!(
            node.live().map(|(location, _)| location).eq(ring.iter()),
            "the ring of {} differs from its events",
            node.me()
        );
    }

    /// A member that ran without a fault and could be reached all the time is not removed,
    /// whatever the other side of a partition writes about it.
    fn check_removal(&self, simulator: &Simulator, id: Id, removed: &Location) {
        let Some(removed) = simulator.id_of(removed) else {
            return;
        };
        let limit = simulator.clock.saturating_sub(FAULT_EFFECT);
        let is_faultless =
            |host: Id| simulator.hosts[host].disturbed_at < limit && simulator.is_up(host);
        let disconnected_at = self.disconnected_at.get(&pair(id, removed));
        let was_connected = disconnected_at.is_none_or(|at| *at < limit);
        assert!(
            !(was_connected && is_faultless(id) && is_faultless(removed)),
            "host {id} removed host {removed}, which it could reach all the time"
        );
    }

    fn record_disconnections(&mut self, simulator: &Simulator, id: Id) {
        let network = &simulator.network;
        if !network.is_partitioned() && network.cuts.is_empty() {
            return;
        }
        for other in 0..simulator.hosts.len() {
            if !network.connects(id, other) || !network.connects(other, id) {
                self.disconnected_at
                    .insert(pair(id, other), simulator.clock);
            }
        }
    }
}

/// Tombstones and calls are limited.
fn check_limits(simulator: &Simulator, id: Id, node: &Membership) {
    let config = &simulator.config;
    let tombstones = node.members().filter(|m| !m.status.is_live()).count();
    assert!(
        tombstones <= config.max_tombstones,
        "{tombstones} tombstones"
    );
    let calls = simulator.calls_in_flight(id);
    assert!(calls <= config::MAX_CALLS, "{calls} calls in flight");
}

fn pair(a: Id, b: Id) -> (Id, Id) {
    (a.min(b), a.max(b))
}

fn key(member: &Member) -> RecordKey {
    (
        member.location.clone(),
        member.incarnation,
        member.status,
        member.generation,
    )
}
