//! `Doubts`: which writes a legacy node may not have.
//!
//! For each legacy node this is one time: writes of our nodes since then may be missing there.
//! There is none when all is in place. A node that returns is in doubt about all that was
//! written since it was last heard, so its own values do not count for those keys until they
//! have been put to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::membership::{Member, Status};
use crate::store::placement::Key;
use crate::store::versions::{Entry, written_at};

/// When a legacy node turns out not to reply, writes of this time before may not have arrived.
/// Six seconds, in milliseconds: longer than it takes to find out.
const MARGIN: i64 = 6_000;

/// After a failed call a legacy node is not called for this time, in milliseconds: a second
/// call would wait as long.
const PAUSE_AFTER_FAILURE: i64 = 500;

/// How long a legacy node takes at most to hand keys over after the ring has changed, in
/// milliseconds. Ten seconds.
const HANDOVER: i64 = 10_000;

/// How much earlier than this node a legacy node may notice a change, in milliseconds.
const NOTICE: i64 = 1_000;

/// How long a legacy node that has joined or returned is put again what it may lack, and how
/// often, in milliseconds: another legacy node may still put an older value to it.
const REPEAT: i64 = HANDOVER;
const REPEAT_INTERVAL: i64 = 500;

/// What this node knows of each legacy node. All times are milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Doubts {
    peers: BTreeMap<Location, Peer>,
    ring: Arc<HashRing<Location>>,
    /// Nodes that were added to the ring or removed lately, and when that was noticed.
    changes: BTreeMap<Location, i64>,
    /// The ring before these changes.
    before: HashRing<Location>,
}

/// What is known of one legacy node.
#[derive(Debug)]
struct Peer {
    /// The incarnation of its record, and whether it is alive by that.
    incarnation: i64,
    is_alive: bool,
    /// Writes since then may be missing there.
    unsure_since: Option<i64>,
    /// Counts the reasons for doubt.
    reasons: u64,
    /// It is not called until then.
    paused_until: i64,
    /// What it may lack was put to it, and is put again, but not until then.
    is_repeat: bool,
    repeat_at: i64,
    repeat_until: i64,
    /// It has missed writes since the first time. Until the second one it may put older values.
    missed: (i64, i64),
}

/// A legacy node that is to be put what it may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The legacy node.
    pub peer: Location,
    /// Writes since then may be missing there.
    pub since: i64,
    /// It was put all that it might lack since the last reason for doubt.
    pub is_repeat: bool,
    /// To be passed to [`Doubts::resolve`].
    pub reasons: u64,
}

impl Doubts {
    /// Takes over the records of all legacy nodes, and the ring, to which `me` was the last to be
    /// added at first.
    pub fn update(
        &mut self,
        me: &Location,
        members: &[Member],
        ring: &Arc<HashRing<Location>>,
        now: i64,
    ) {
        for member in members {
            self.update_member(member, now);
        }
        self.peers
            .retain(|peer, _| members.iter().any(|member| member.location == *peer));
        if !Arc::ptr_eq(ring, &self.ring) {
            self.change_ring(me, ring, now);
            self.doubt_all(now);
        }
    }

    /// The ring has changed. Until all knew, writes may have gone by the ring before; a node that
    /// is gone may have failed to put some; and legacy nodes may put older values to each other.
    fn doubt_all(&mut self, now: i64) {
        let first = self.changes.values().min().unwrap_or(&now) - NOTICE;
        let is_gone = self.changes.keys().any(|node| !self.ring.contains(node));
        let gone = is_gone.then_some(now - MARGIN);
        let inherited = self.handing_over(now).filter_map(|peer| peer.unsure_since);
        let since = inherited.chain(gone).fold(first, i64::min);
        let is_legacy = |node: &Location| self.peers.contains_key(node);
        let repeats = self.changes.keys().any(is_legacy);
        for peer in self.peers.values_mut() {
            peer.doubt(since);
            if repeats {
                peer.repeat_until = now + REPEAT;
            }
        }
    }

    /// The legacy nodes that may be handing keys over: live ones, and those of the last changes.
    fn handing_over(&self, now: i64) -> impl Iterator<Item = &Peer> {
        let is_recent = move |at: &i64| now - at <= HANDOVER;
        let active = self.peers.iter().filter(move |(node, peer)| {
            peer.is_alive || self.changes.get(*node).is_some_and(is_recent)
        });
        active.map(|(_, peer)| peer)
    }

    fn change_ring(&mut self, me: &Location, ring: &Arc<HashRing<Location>>, now: i64) {
        self.changes.retain(|_, at| now - *at <= HANDOVER);
        let known = std::mem::replace(&mut self.ring, ring.clone());
        if known.is_empty() {
            self.changes.insert(me.clone(), now);
        } else {
            let both = known.nodes().chain(ring.nodes());
            let changed = both.filter(|node| known.contains(node) != ring.contains(node));
            let changed = changed.map(|node| (node.clone(), now));
            self.changes.extend(changed.collect::<Vec<_>>());
        }
        let is_new = |node: &&Location| ring.contains(node);
        if self.peers.is_empty() {
            return;
        }
        let (added, removed): (Vec<&Location>, Vec<_>) = self.changes.keys().partition(is_new);
        let added: Vec<Location> = added.into_iter().cloned().collect();
        let removed = removed.into_iter().map(|node| (node.clone(), 1));
        self.before = ring.updated(removed, &added);
    }

    /// A write of that time did not reach the legacy node.
    pub fn add(&mut self, peer: &Location, since: i64, now: i64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.doubt(since);
            peer.miss(now);
        }
    }

    /// A call to the legacy node failed.
    pub fn on_failure(&mut self, peer: &Location, now: i64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.paused_until = now + PAUSE_AFTER_FAILURE;
        }
    }

    /// May the legacy node be called now?
    pub fn may_call(&self, peer: &Location, now: i64) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|peer| peer.is_alive && peer.paused_until <= now)
    }

    /// May the legacy node lack this entry of ours, so that its own value does not count?
    pub fn may_lack(&self, peer: &Location, entry: &Entry) -> bool {
        let since = self.peers.get(peer).and_then(|peer| peer.unsure_since);
        since.is_some_and(|since| written_at(entry.version) >= since)
    }

    /// Writes since then may be missing at the legacy node.
    pub fn since(&self, peer: &Location) -> Option<i64> {
        self.peers.get(peer)?.unsure_since
    }

    /// Is a legacy node known, whether it replies or not? It may hold keys that ours do not know.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Has the ring changed lately, so that others may not know?
    pub fn has_ring_changed(&self, now: i64) -> bool {
        self.changes.values().any(|at| now - at <= HANDOVER)
    }

    /// Did a legacy node hand this key over when it may not have had `entry` yet, which ours
    /// have? Such a put is older than the entry. It cannot be told from a put of a client.
    pub fn is_late_handover(&self, key: Key<'_>, entry: &Entry, now: i64) -> bool {
        let written_at = written_at(entry.version);
        // A node that has missed writes, because it hung or leaves, puts older values.
        let mut handing_over = self.handing_over(now);
        if handing_over.any(|peer| peer.has_missed(written_at, now)) {
            return true;
        }
        let recent = self.changes.values().filter(|at| now - **at <= HANDOVER);
        let Some(first) = recent.min() else {
            return false;
        };
        let owner = self.before.owner_at(key.point);
        owner != self.ring.owner_at(key.point)
            && owner.is_some_and(|owner| self.peers.contains_key(owner))
            && written_at >= first - NOTICE
    }

    /// Writes since then may be missing at some legacy node, so deletions must not be forgotten.
    pub fn oldest(&self) -> Option<i64> {
        let since = self.peers.values().filter_map(|peer| peer.unsure_since);
        since.min()
    }

    /// The legacy nodes that can be put what they may not have.
    pub fn open(&self, now: i64) -> Vec<Doubt> {
        let callable = self.peers.iter().filter(|(at, _)| self.may_call(at, now));
        let callable = callable.filter(|(_, peer)| peer.repeat_at <= now);
        let doubt = |(at, peer): (&Location, &Peer)| {
            Some(Doubt {
                peer: at.clone(),
                since: peer.unsure_since?,
                is_repeat: peer.is_repeat,
                reasons: peer.reasons,
            })
        };
        callable.filter_map(doubt).collect()
    }

    /// The legacy nodes that have all, as far as is known.
    pub fn resolved(&self, now: i64) -> Vec<Location> {
        let callable = self.peers.iter().filter(|(at, _)| self.may_call(at, now));
        let sure = callable.filter(|(_, peer)| peer.unsure_since.is_none());
        sure.map(|(at, _)| at.clone()).collect()
    }

    /// The legacy node has all that it may have lacked, unless there are new reasons for doubt.
    pub fn resolve(&mut self, doubt: &Doubt, now: i64) {
        let Some(peer) = self.peers.get_mut(&doubt.peer) else {
            return;
        };
        if peer.reasons != doubt.reasons {
            return;
        }
        if now < peer.repeat_until {
            peer.is_repeat = true;
            peer.repeat_at = now + REPEAT_INTERVAL;
        } else {
            peer.unsure_since = None;
        }
    }

    fn update_member(&mut self, member: &Member, now: i64) {
        let is_alive = member.status == Status::Alive;
        // This node may be the newcomer.
        let is_newcomer = !self.ring.is_empty();
        let peer = self.peers.entry(member.location.clone()).or_insert(Peer {
            incarnation: member.incarnation,
            is_alive,
            // If it does not reply now, it was alive when its record was written.
            unsure_since: Some(if is_alive { now } else { member.incarnation } - NOTICE),
            reasons: 0,
            paused_until: 0,
            is_repeat: false,
            repeat_at: 0,
            repeat_until: if is_newcomer { now + REPEAT } else { 0 },
            missed: (i64::MAX, 0),
        });
        if (peer.incarnation, peer.is_alive) != (member.incarnation, is_alive) {
            (peer.incarnation, peer.is_alive) = (member.incarnation, is_alive);
            peer.paused_until = 0;
            peer.repeat_until = now + REPEAT;
            peer.doubt(now - MARGIN);
            peer.miss(now);
        }
    }
}

impl Peer {
    /// It misses what it is in doubt about, for as long as it may take to hand keys over.
    fn miss(&mut self, now: i64) {
        let since = self.unsure_since.unwrap_or(i64::MAX);
        let before = if now <= self.missed.1 {
            self.missed.0
        } else {
            i64::MAX
        };
        self.missed = (since.min(before), now + HANDOVER);
    }

    fn has_missed(&self, written_at: i64, now: i64) -> bool {
        now <= self.missed.1 && written_at >= self.missed.0
    }

    fn doubt(&mut self, since: i64) {
        self.reasons += 1;
        (self.is_repeat, self.repeat_at) = (false, 0);
        self.unsure_since = Some(self.unsure_since.map_or(since, |known| known.min(since)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Tags;

    const NOW: i64 = 1_700_000_000_000;

    fn location(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    fn legacy(status: Status, incarnation: i64) -> Member {
        Member {
            location: location(1),
            incarnation,
            status,
            generation: 0,
            tags: Tags::default(),
        }
    }

    fn written(at: i64) -> Entry {
        Entry {
            version: crate::store::versions::next_version(at, 0, 7),
            value: None,
        }
    }

    fn ring(ports: &[u16]) -> Arc<HashRing<Location>> {
        Arc::new(ports.iter().map(|port| location(*port)).collect())
    }

    #[test]
    fn what_was_written_while_a_legacy_node_hung_is_in_doubt_until_it_was_put() {
        let (mut doubts, ring, me) = (Doubts::default(), ring(&[1, 2]), location(2));
        doubts.update(&me, &[legacy(Status::Alive, NOW)], &ring, NOW);
        let first = doubts.open(NOW).pop().unwrap();
        doubts.resolve(&first, NOW);
        assert_eq!(doubts.resolved(NOW), [location(1)]);
        assert!(!doubts.may_lack(&location(1), &written(NOW)));

        let later = NOW + 3_600_000;
        let down = [legacy(Status::Down, NOW)];
        doubts.update(&me, &down, &ring, NOW + 20_000);
        assert!(doubts.open(later).is_empty());
        doubts.update(&me, &[legacy(Status::Alive, later)], &ring, later);
        assert!(doubts.may_lack(&location(1), &written(NOW + 20_000)));
        assert!(!doubts.may_lack(&location(1), &written(NOW)));
        let doubt = doubts.open(later).pop().unwrap();
        doubts.resolve(&doubt, later + 1);
        assert!(doubts.open(later + 1).is_empty(), "it is put again later");
        assert!(doubts.open(later + 1 + REPEAT_INTERVAL)[0].is_repeat);
        doubts.add(&location(1), later, later);
        doubts.resolve(&doubt, later + REPEAT);
        assert!(doubts.may_lack(&location(1), &written(NOW + 20_000)));
    }

    #[test]
    fn a_failed_call_pauses_calls_for_a_moment() {
        let mut doubts = Doubts::default();
        let members = [legacy(Status::Alive, NOW)];
        doubts.update(&location(2), &members, &ring(&[1, 2]), NOW);
        doubts.on_failure(&location(1), NOW);
        assert!(!doubts.may_call(&location(1), NOW + 1));
        assert!(doubts.may_call(&location(1), NOW + PAUSE_AFTER_FAILURE));
    }

    /// Which puts are late when node 2 has joined node 1, which is a legacy node.
    fn check_late(doubts: &Doubts) {
        let ring = ring(&[1, 2]);
        let names: Vec<String> = (0..50).map(|number| format!("key{number}")).collect();
        let keys: Vec<Key<'_>> = names.iter().map(|name| Key::new(name.as_bytes())).collect();
        let has_moved = |key: &Key<'_>| ring.owner_at(key.point) == Some(&location(2));
        assert!(keys.iter().any(has_moved) && !keys.iter().all(has_moved));
        for key in &keys {
            let is_late = |at| doubts.is_late_handover(*key, &written(at), NOW + 5_000);
            assert_eq!(is_late(NOW), has_moved(key));
            assert!(!is_late(NOW - 5_000));
            assert!(!doubts.is_late_handover(*key, &written(NOW), NOW + 20_000));
        }
    }

    #[test]
    fn a_put_is_late_if_its_key_has_moved_from_a_legacy_node_and_was_written_since() {
        let members = [legacy(Status::Alive, NOW)];
        let mut other = Doubts::default();
        other.update(&location(1), &members, &ring(&[1]), NOW - 60_000);
        other.update(&location(1), &members, &ring(&[1, 2]), NOW);
        check_late(&other);
        let mut joiner = Doubts::default();
        joiner.update(&location(2), &members, &ring(&[1, 2]), NOW);
        check_late(&joiner);
    }
}
