//! What must hold after every step, whatever is done to the network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Change, Event, Member, Membership, Status, Why};

use super::{Id, Simulator};

/// Long enough that nothing done before it is still felt: one who is accused hears of
/// it in a second or two and objects, and the longest grace is four seconds.
const MEMORY: Duration = Duration::from_secs(10);

/// What the simulator has seen, against which each step is checked.
#[derive(Clone, Default)]
pub struct Rules {
    /// The last records of each host's present process.
    tables: BTreeMap<Id, BTreeMap<Location, Member>>,
    /// The rings, as the events tell of them.
    rings: BTreeMap<Id, BTreeSet<Location>>,
    /// All that members ever said of themselves.
    said: BTreeSet<(Location, i64, Status, i64)>,
    /// Peers of the original, of whom others say ALIVE.
    speechless: BTreeSet<Location>,
    /// The last incarnation at which each host knew a member to have left.
    left: BTreeMap<(Id, Location), i64>,
    /// When one of two hosts could last not call the other.
    apart: BTreeMap<(Id, Id), Duration>,
}

/// Members that went off a ring because they were held to be dead.
pub fn deaths(events: &[Event]) -> impl Iterator<Item = &Location> {
    changes(events).filter_map(|change| match change {
        Change::Removed {
            location,
            why: Why::Down,
        } => Some(location),
        _ => None,
    })
}

fn changes(events: &[Event]) -> impl Iterator<Item = &Change> {
    let lists = events.iter().filter_map(|event| match event {
        Event::RingChanged(changes) => Some(changes),
        _ => None,
    });
    lists.flatten()
}

impl Rules {
    pub fn process_changed(&mut self, id: Id) {
        self.tables.remove(&id);
        self.rings.remove(&id);
        self.left.retain(|(host, _), _| *host != id);
    }

    pub fn speaks_for_no_one(&mut self, original: &Location) {
        self.speechless.insert(original.clone());
    }

    /// Checks what host `id` believes after a step.
    pub fn check(&mut self, simulator: &Simulator, id: Id, events: &[Event]) {
        let Some(node) = simulator.node(id) else {
            return;
        };
        self.note_distance(simulator, id);
        let mine = node.members().find(|m| m.location == *node.me());
        let mine = mine.expect("a node knows itself");
        assert!(
            matches!(mine.status, Status::Alive | Status::Left),
            "{} thinks itself {}",
            node.me(),
            mine.status
        );
        self.said.insert(saying(mine));
        self.check_table(id, node);
        self.check_ring(id, node, events);
        self.check_bounds(simulator, id, node);
        for dead in deaths(events) {
            self.check_death(simulator, id, dead);
        }
    }

    fn check_table(&mut self, id: Id, node: &Membership) {
        let me = node.me();
        let before = self.tables.remove(&id).unwrap_or_default();
        let mut after = BTreeMap::new();
        for member in node.members() {
            let location = &member.location;
            if let Some(known) = before.get(location) {
                assert!(
                    *known == *member || member.beats(known),
                    "at {me} a record went back from {known:?} to {member:?}"
                );
            }
            let is_own_word = matches!(member.status, Status::Alive | Status::Left);
            assert!(
                !is_own_word
                    || self.speechless.contains(location)
                    || self.said.contains(&saying(member)),
                "{me} believes {member:?}, which {location} never said"
            );
            self.check_departure(id, member);
            after.insert(location.clone(), member.clone());
        }
        for known in before.values() {
            let is_tombstone = !known.status.is_live();
            assert!(
                is_tombstone || after.contains_key(&known.location),
                "{me} forgot {known:?}"
            );
        }
        self.tables.insert(id, after);
    }

    fn check_departure(&mut self, id: Id, member: &Member) {
        let key = (id, member.location.clone());
        if member.status == Status::Left {
            self.left.insert(key, member.incarnation);
        } else if let Some(&left) = self.left.get(&key) {
            assert!(member.incarnation > left, "{member:?} returned as it left");
        }
    }

    fn check_ring(&mut self, id: Id, node: &Membership, events: &[Event]) {
        let ring = self.rings.entry(id).or_default();
        for change in changes(events) {
            let is_sound = match change {
                Change::Added { location, .. } => ring.insert(location.clone()),
                Change::Removed { location, .. } => ring.remove(location),
                Change::Restarted { location, .. } => ring.contains(location),
            };
            assert!(is_sound, "{} reports {change:?} at {}", id, node.me());
        }
        assert!(
            node.live().map(|(location, _)| location).eq(ring.iter()),
            "the ring of {} is not what its events tell",
            node.me()
        );
    }

    fn check_bounds(&self, simulator: &Simulator, id: Id, node: &Membership) {
        let settings = &simulator.settings;
        let tombstones = node.members().filter(|m| !m.status.is_live()).count();
        assert!(
            tombstones <= settings.most_tombstones,
            "{tombstones} graves"
        );
        let outstanding = simulator.outstanding(id);
        assert!(outstanding <= settings.most_calls, "{outstanding} calls");
    }

    /// A member that could always be reached, and to whom nothing was done, must not
    /// go off the ring, whatever the far side of a partition says of it.
    fn check_death(&self, simulator: &Simulator, id: Id, dead: &Location) {
        let Some(dead) = simulator.place(dead) else {
            return;
        };
        let long_ago = simulator.clock.saturating_sub(MEMORY);
        let is_calm =
            |host: Id| simulator.hosts[host].disturbed < long_ago && simulator.is_up(host);
        let together = self
            .apart
            .get(&pair(id, dead))
            .is_none_or(|at| *at < long_ago);
        assert!(
            !(together && is_calm(id) && is_calm(dead)),
            "host {id} lost host {dead}, which it could reach all the time"
        );
    }

    fn note_distance(&mut self, simulator: &Simulator, id: Id) {
        let network = &simulator.network;
        if !network.is_split() && network.cuts.is_empty() {
            return;
        }
        for other in 0..simulator.hosts.len() {
            if !network.connects(id, other) || !network.connects(other, id) {
                self.apart.insert(pair(id, other), simulator.clock);
            }
        }
    }
}

fn pair(a: Id, b: Id) -> (Id, Id) {
    (a.min(b), a.max(b))
}

fn saying(member: &Member) -> (Location, i64, Status, i64) {
    (
        member.location.clone(),
        member.incarnation,
        member.status,
        member.started,
    )
}
