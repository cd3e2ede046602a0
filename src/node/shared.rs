//! `Shared`: the state of one node that its threads share, and how decisions become the ring.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Node;
use super::activity::{Activity, Count};
use super::events::PendingEvents;
use crate::endpoint::Endpoint;
use crate::hash_ring::HashRing;
use crate::location::Location;
use crate::membership::{Change, ChangeKind, Config, Event, Membership, Now, Tags};

/// A node that has heard no other member for this time may have been declared down: it is
/// isolated. Less than the time that the others need to declare it down.
const ISOLATED_AFTER: Duration = Duration::from_secs(2);

/// The state of one node.
pub(super) struct Shared {
    pub endpoint: Endpoint,
    /// The zero of monotonic time.
    start: Instant,
    /// The membership and what follows from it. Held to decide, never during a call or a log line.
    pub state: Mutex<State>,
    /// Notified when the driver may have to wake earlier, and when the ring has changed.
    pub changed: Condvar,
    /// Notified when there is an event for the event thread, and when the node stops.
    pub event_added: Condvar,
    /// The ring of the live members. Replaced by the driver.
    ring: ArcSwap<HashRing<Location>>,
    /// Counts changes of the membership.
    epoch: AtomicU64,
    /// When the last call started that another member answered, in milliseconds since the
    /// start. Not when the reply arrived: a process that was stopped in between finds old
    /// replies waiting for it.
    contact_at: AtomicU64,
    /// Counts how often this node was isolated and then heard another member again.
    isolations: AtomicU64,
    /// This node is the only one of ours on its ring. Legacy nodes do not declare it down.
    is_alone: AtomicBool,
    /// There are legacy nodes among the members.
    has_legacy: AtomicBool,
    /// Members that are down and may be running on the other side of a split.
    silent: AtomicUsize,
    /// This node's own generation.
    generation: AtomicI64,
    /// The node has joined its network, or started it.
    pub has_joined: AtomicBool,
    /// What happened so far.
    pub activity: Activity,
    /// The node's own threads, joined when it stops.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What `Shared::state` guards.
pub(super) struct State {
    pub membership: Membership,
    /// The peer through which the node joins, until it has joined.
    pub joins: Option<Location>,
    /// The node was a member of its network before, and looks for the other ones.
    pub is_returning: bool,
    /// The last node met that belongs to another network.
    pub foreign_peer: Option<(Location, Arc<str>)>,
    /// Changes that the driver has not applied to the ring yet, each with its number among all events.
    changes: Vec<(u64, Change)>,
    /// Events so far.
    seen: u64,
    /// Events for the log and the handler.
    pub events: PendingEvents,
    /// How often events were collected, and how many of these times were published.
    collected: u64,
    published: u64,
    pub stopped: bool,
}

impl Shared {
    /// The state of a node that knows only itself.
    pub fn new(endpoint: Endpoint, network: &str, tags: Tags) -> Shared {
        let network: Arc<str> = network.into();
        let start = Instant::now();
        let now = now_since(start);
        let location = endpoint.location().clone();
        // Differs between nodes that start at the same moment.
        let seed = RandomState::new().hash_one((&location, now.unix_millis));
        let ring = [location.clone()].into_iter().collect();
        let config = Config {
            tags,
            ..Config::default()
        };
        let mut membership = Membership::new(location, network, Vec::new(), config, now, seed);
        // The event that this node is on its own ring is not reported.
        membership.events();
        Shared {
            endpoint,
            start,
            generation: AtomicI64::new(membership.generation()),
            state: Mutex::new(State {
                membership,
                joins: None,
                is_returning: false,
                foreign_peer: None,
                changes: Vec::new(),
                seen: 0,
                events: PendingEvents::default(),
                collected: 0,
                published: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
            event_added: Condvar::new(),
            ring: ArcSwap::from_pointee(ring),
            epoch: AtomicU64::new(0),
            contact_at: AtomicU64::new(0),
            isolations: AtomicU64::new(0),
            is_alone: AtomicBool::new(true),
            has_legacy: AtomicBool::new(false),
            silent: AtomicUsize::new(0),
            has_joined: AtomicBool::new(false),
            activity: Activity::new(now.unix_millis),
            threads: Mutex::default(),
        }
    }

    /// Collects the events of the membership.
    pub fn collect(&self, state: &mut State) {
        let events = state.membership.events();
        if events.is_empty() {
            return;
        }
        state.collected += 1;
        self.generation
            .store(state.membership.generation(), Release);
        for event in events {
            state.seen += 1;
            match &event {
                Event::RingChanged(change) => {
                    state.changes.push((state.seen, change.clone()));
                    continue;
                }
                Event::ForeignNetwork(peer, network) => {
                    state.foreign_peer = Some((peer.clone(), network.clone()));
                }
                Event::LinkCut(peer, via) => {
                    let mut detours = self.endpoint.dialer().detours();
                    detours.insert(peer.clone(), via.clone());
                }
                Event::Suspected(_) => self.activity.add(Count::Suspicions, 1),
                Event::Refuted(_) => self.activity.add(Count::Refutations, 1),
                Event::LinkRestored(peer) => {
                    self.endpoint.dialer().detours().remove(peer);
                }
                _ => (),
            }
            state.events.add(state.seen, event);
            self.event_added.notify_all();
        }
    }

    /// Publishes collected changes: the ring, then the epoch, then the event. Called by the
    /// driver only, so that rings are computed one after another and never under the lock.
    /// Returns the lock again.
    pub fn publish<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.published < state.collected {
            let collected = state.collected;
            let changes = std::mem::take(&mut state.changes);
            let membership = &state.membership;
            let has_legacy = membership.live().any(|(_, generation)| generation == 0);
            let of_ours = membership.live().filter(|(_, generation)| *generation != 0);
            let is_alone = of_ours.count() < 2;
            // Before the ring says that they are down.
            self.silent.store(membership.silent().count(), Release);
            drop(state);
            self.change_ring(&changes);
            self.has_legacy.store(has_legacy, Relaxed);
            if self.is_alone.swap(is_alone, Relaxed) {
                // Before there was another member, none could be heard.
                self.contact_at.fetch_max(self.millis(), Release);
            }
            self.epoch.fetch_add(1, Release);
            state = self.state.lock();
            if !changes.is_empty() {
                state.events.add_changes(changes);
                self.event_added.notify_all();
            }
            state.published = collected;
            self.changed.notify_all();
        }
        state
    }

    fn change_ring(&self, changes: &[(u64, Change)]) {
        // Of several changes of one location the last one counts.
        let last: BTreeMap<&Location, ChangeKind> =
            changes.iter().map(|(_, c)| (&c.location, c.kind)).collect();
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for (location, kind) in last {
            match kind {
                ChangeKind::Added => added.push((location.clone(), 1)),
                ChangeKind::Down | ChangeKind::Left => removed.push(location.clone()),
                ChangeKind::Restarted => (),
            }
        }
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let ring = self.ring.load().updated(added, &removed);
        self.ring.store(Arc::new(ring));
    }

    /// Records that a member has answered a call that started at `began` (see
    /// [`millis`](Shared::millis)). Called after its reply was merged.
    pub fn record_contact(&self, began: u64) {
        if self.is_isolated_at(began) {
            self.isolations.fetch_add(1, Release);
        }
        self.contact_at.fetch_max(began, Release);
    }

    fn is_isolated_at(&self, millis: u64) -> bool {
        let contact_at = self.contact_at.load(Acquire);
        millis.saturating_sub(contact_at) >= ISOLATED_AFTER.as_millis() as u64
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The current time by both clocks.
    pub fn now(&self) -> Now {
        now_since(self.start)
    }
}

/// What can be read without the lock.
impl Node {
    /// The ring of the live members, as it is now. Never blocks.
    pub fn ring(&self) -> Arc<HashRing<Location>> {
        self.shared.ring.load_full()
    }

    /// Grows with every change of the membership. Never blocks.
    pub(crate) fn epoch(&self) -> u64 {
        self.shared.epoch.load(Acquire)
    }

    /// This node's own generation. It changes when the node learns that it was declared down.
    /// Never blocks.
    pub(crate) fn generation(&self) -> i64 {
        self.shared.generation.load(Acquire)
    }

    /// Has this node heard another member recently, or is it alone? Otherwise the others may
    /// have declared it down. Never blocks.
    pub(crate) fn has_contact(&self) -> bool {
        let shared = &self.shared;
        shared.is_alone.load(Relaxed) || !shared.is_isolated_at(shared.millis())
    }

    /// Grows with every isolation of this node, noticed or not. Never blocks.
    pub(crate) fn isolations(&self) -> u64 {
        self.shared.isolations.load(Acquire)
    }

    /// How many members are down and may be running on the other side of a split? Never blocks.
    pub(crate) fn silent_count(&self) -> usize {
        self.shared.silent.load(Acquire)
    }

    /// Are there legacy nodes among the members? Never blocks.
    pub(crate) fn has_legacy(&self) -> bool {
        self.shared.has_legacy.load(Relaxed)
    }

    /// Waits until the ring accounts for everything that was decided before, for `timeout` at
    /// most. Returns whether it does.
    pub(crate) fn wait_until_published(&self, timeout: Duration) -> bool {
        let mut state = self.shared.state.lock();
        let collected = state.collected;
        let is_waiting = |state: &mut State| state.published < collected && !state.stopped;
        let changed = &self.shared.changed;
        changed.wait_while_for(&mut state, is_waiting, timeout);
        state.published >= collected
    }
}

fn now_since(start: Instant) -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        monotonic: start.elapsed(),
        unix_millis: unix.as_millis() as i64,
    }
}
