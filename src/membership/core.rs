//! `Membership`: one node's part of the protocol, as a state machine.
//!
//! The fields are here, with what the driver calls. What can be read is next door in
//! `reading`; when the node gossips, probes and heals, in `rhythm`; what it does with
//! what it hears, in `exchange`, `transition`, `suspicion` and `original`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::call::{Action, Call, Calls, Failure, Outcome, Purpose, Request, Token};
use super::deadlines::Deadlines;
use super::event::{Change, Event};
use super::health::Health;
use super::member::{Member, Status};
use super::members::Members;
use super::news::News;
use super::probing::{Errands, Round};
use super::random::Random;
use super::roster::Roster;
use super::settings::Settings;
use super::suspicion::Inquiry;
use crate::location::Location;

/// Most events kept for a driver that does not drain them; ring changes are all kept.
const MOST_EVENTS: usize = 256;

/// The time of a call, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed start; never goes back. All intervals are measured by it.
    pub monotonic: Duration,
    /// Milliseconds since 1970. Only incarnations are made of it, and it may jump.
    pub unix_millis: i64,
}

/// What a member said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Its view then; a peer of the original has none.
    pub view: Option<u64>,
    /// When, by our monotonic clock.
    pub at: Duration,
}

/// A peer that was given, and is tried for ever.
#[derive(Debug, Clone)]
pub(super) struct Seed {
    pub location: Location,
    /// How the node there calls itself, if by another name.
    pub calls_itself: Option<Location>,
}

/// One node's knowledge of the network, and its decisions.
///
/// Every method returns at once: no socket, thread, lock or clock is touched. The
/// driver calls [`tick`](Membership::tick) when [`wake_at`](Membership::wake_at)
/// has come, makes the calls it is given, and reports each by
/// [`reply`](Membership::reply). After any call that may change something it
/// drains [`events`](Membership::events) and asks `wake_at` anew.
#[derive(Debug, Clone)]
pub struct Membership {
    pub(super) me: Location,
    pub(super) network: Arc<str>,
    pub(super) settings: Settings,
    pub(super) random: Random,
    pub(super) now: Now,
    pub(super) members: Members,
    /// Live members and those in grace, me included unless I left.
    pub(super) ring: Roster,
    pub(super) heard: BTreeMap<Location, Heard>,
    pub(super) news: News,
    pub(super) health: Health,
    pub(super) calls: Calls,
    pub(super) outbox: Vec<Action>,
    /// Since when each SUSPECT member is that, here.
    pub(super) accused: BTreeMap<Location, Duration>,
    /// When a SUSPECT member is DOWN.
    pub(super) suspicions: Deadlines,
    /// When a DOWN member in grace goes off the ring.
    pub(super) graces: Deadlines,
    /// When a DOWN or LEFT member is forgotten.
    pub(super) tombstones: Deadlines,
    pub(super) inquiries: BTreeMap<Location, Inquiry>,
    /// Members of whom the layer above awaits a verdict.
    pub(super) verdicts: BTreeSet<Location>,
    pub(super) errands: Errands,
    /// Locations that we only heard of, and how often each was tried in vain.
    pub(super) hearsay: BTreeMap<Location, u32>,
    /// Those that do not know `exchange`.
    pub(super) originals: BTreeSet<Location>,
    pub(super) seeds: Vec<Seed>,
    pub(super) round: Round,
    /// The next round of gossip; none while cold.
    pub(super) gossip_at: Option<Duration>,
    pub(super) misses: u32,
    pub(super) probe_at: Duration,
    pub(super) successor_next: bool,
    pub(super) heal_at: Duration,
    pub(super) full_at: Option<Duration>,
    /// Since when we have been running without a pause.
    pub(super) awake_since: Duration,
    leaving_since: Option<Duration>,
    farewells: usize,
    pub(super) changes: Vec<Change>,
    pub(super) happened: VecDeque<Event>,
    pub(super) complaints: BTreeMap<Location, Duration>,
}

impl Membership {
    /// The node `me` of `network`, knowing only `seeds` to try. Its own location
    /// among them does no harm. `random_seed` should differ between nodes; the same
    /// seed, times and replies give the same decisions.
    pub fn new(
        me: Location,
        network: Arc<str>,
        seeds: Vec<Location>,
        settings: Settings,
        now: Now,
        random_seed: u64,
    ) -> Membership {
        let started = now.unix_millis.max(0);
        let mut random = Random::new(random_seed);
        // Nodes started together must not probe together.
        let probe_at = now.monotonic + settings.probe_interval.mul_f64(random.fraction() / 2.0);
        let mut membership = Membership {
            seeds: seeds.into_iter().map(Seed::new).collect(),
            me: me.clone(),
            network,
            settings,
            random,
            now,
            members: Members::default(),
            ring: Roster::default(),
            heard: BTreeMap::new(),
            news: News::default(),
            health: Health::default(),
            calls: Calls::default(),
            outbox: Vec::new(),
            accused: BTreeMap::new(),
            suspicions: Deadlines::default(),
            graces: Deadlines::default(),
            tombstones: Deadlines::default(),
            inquiries: BTreeMap::new(),
            verdicts: BTreeSet::new(),
            errands: Errands::default(),
            hearsay: BTreeMap::new(),
            originals: BTreeSet::new(),
            round: Round::default(),
            gossip_at: None,
            misses: 0,
            probe_at,
            successor_next: true,
            heal_at: now.monotonic,
            full_at: None,
            awake_since: now.monotonic,
            leaving_since: None,
            farewells: 0,
            changes: Vec::new(),
            happened: VecDeque::new(),
            complaints: BTreeMap::new(),
        };
        membership.take(Member {
            location: me,
            incarnation: started,
            status: Status::Alive,
            started,
        });
        membership
    }

    /// One more peer that is tried until it is live, and again whenever it is not.
    pub fn seed(&mut self, now: Now, location: Location) {
        self.begin(now);
        self.seeds.push(Seed::new(location));
        self.heal_at = now.monotonic;
    }

    /// Does what is due and returns the calls to make. Calling it early does no harm.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        self.begin(now);
        self.give_up_lost_calls();
        self.pass_deadlines();
        self.run_errands();
        self.probe();
        self.heal();
        self.gossip();
        self.deliver()
    }

    /// When the next tick is needed, by the monotonic clock; perhaps in the past.
    /// Any other call may bring it forward.
    pub fn wake_at(&self) -> Duration {
        let errand = self.errands.earliest().filter(|_| self.has_room());
        let lost = self
            .calls
            .oldest()
            .map(|began| began + self.settings.call_lifetime);
        [
            self.gossip_at,
            errand,
            lost,
            self.suspicions.earliest(),
            self.graces.earliest(),
            self.tombstones.earliest(),
        ]
        .into_iter()
        .flatten()
        .fold(self.probe_at.min(self.heal_at), Duration::min)
    }

    /// The outcome of a call, and further calls that follow from it. A token that
    /// is not outstanding (any more) is ignored.
    pub fn reply(&mut self, now: Now, token: Token, outcome: Outcome) -> Vec<Action> {
        self.begin(now);
        if let Some(call) = self.calls.end(token) {
            match outcome {
                Outcome::Gossip(gossip) => self.answered(call, gossip),
                Outcome::Reached(reached) => self.helped(&call, Some(reached)),
                Outcome::All(locations) => self.met_original(&call.peer, &locations),
                Outcome::Done => {}
                Outcome::UnknownMethod => self.does_not_know(&call),
                Outcome::Refused => self.failed(&call, Failure::Refused),
                Outcome::Silent => self.failed(&call, Failure::Silent),
            }
        }
        self.deliver()
    }

    /// `location` asks to join, in the original's words. One that is not a live
    /// member is tried soon: by `exchange`, and by `get_all` if it does not know that.
    pub fn join(&mut self, now: Now, location: Location) {
        self.begin(now);
        self.hear_of(&location);
    }

    /// Someone says, in the original's words, that `location` is a member. Tried
    /// before it is believed, as for [`join`](Membership::join).
    pub fn add(&mut self, now: Now, location: Location) {
        self.begin(now);
        self.hear_of(&location);
    }

    /// Someone says, in the original's words, that `location` is gone. Not believed,
    /// but tried at once. Of ourselves: the peers of the original are tried at once,
    /// so that the one who forgot us is told that we are here.
    pub fn remove(&mut self, now: Now, location: Location) {
        self.begin(now);
        if location == self.me {
            let originals: Vec<Location> = self.originals.iter().cloned().collect();
            for original in &originals {
                self.try_soon(original);
            }
        } else if self.ring.contains(&location) {
            self.try_soon(&location);
        }
    }

    /// A call of the layer above failed: the peer is tried at once, and if it
    /// refuses us, and helpers too, it is DOWN after `verdict_suspicion`; if it is
    /// silent, after `silent_verdict_suspicion`. The verdict is in [`status_of`](Membership::status_of) and among the events.
    pub fn unreachable(&mut self, now: Now, location: &Location, failure: Failure) {
        self.begin(now);
        if *location != self.me && self.ring.contains(location) {
            self.verdicts.insert(location.clone());
            if failure == Failure::Silent {
                // One that is suspected already is not asked about once more.
                let deadline = self.now.monotonic + self.silent_wait(location);
                self.suspicions.hasten(location, deadline);
            }
            self.try_soon(location);
        }
    }

    /// Writes LEFT and tells a few members. The node goes on answering, and ticking,
    /// until [`left`](Membership::left). Leaving twice is leaving once.
    pub fn leave(&mut self, now: Now) -> Vec<Action> {
        self.begin(now);
        if self.leaving_since.is_none() {
            self.leaving_since = Some(now.monotonic);
            let mine = self.mine().with_status(Status::Left);
            self.take(mine);
            self.tell_originals_of_leaving();
            for _ in 0..self.settings.told_of_leaving {
                self.say_farewell();
            }
        }
        self.deliver()
    }

    /// May the process end? True when members have been told and late callers have
    /// been answered, or when it is of no use to wait any longer.
    pub fn left(&self, now: Now) -> bool {
        let Some(since) = self.leaving_since else {
            return false;
        };
        let lingered = since + self.settings.linger;
        let patience = lingered + self.settings.call_timeout;
        let is_told = !self.calls.any(Purpose::Farewell);
        now.monotonic >= if is_told { lingered } else { patience }
    }

    /// What happened since the last time. Drain it after every call that takes
    /// `&mut self`, and change the ring under the same lock.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.changes.is_empty() {
            events.push(Event::RingChanged(std::mem::take(&mut self.changes)));
        }
        events.extend(self.happened.drain(..));
        events
    }

    /// Every entry begins here: it learns the time, and whether time was lost.
    pub(super) fn begin(&mut self, now: Now) {
        let expected = self.wake_at().max(self.now.monotonic);
        self.now = now;
        let late = now.monotonic.saturating_sub(expected);
        if late > self.settings.pause_tolerance {
            self.was_paused(late);
        }
    }

    /// Nothing that ran out while we did not run speaks against anyone but us.
    fn was_paused(&mut self, by: Duration) {
        self.awake_since = self.now.monotonic;
        self.suspicions.postpone(by);
        self.graces.postpone(by);
        self.accused.values_mut().for_each(|since| *since += by);
        self.health.worsen();
        self.note(Event::Paused(by));
        // Others may think us dead: hear it soon.
        self.become_hot();
    }

    /// Exchanges with `peer`, or asks a peer of the original for its list. Was it called?
    pub(super) fn contact(&mut self, peer: &Location, purpose: Purpose) -> bool {
        if *peer == self.me || !self.has_room() || self.calls.is_calling(peer) {
            return false;
        }
        let full = self.is_alone();
        if self.originals.contains(peer) {
            self.call(peer, purpose, Request::GetAll);
        } else {
            let gossip = self.gossip_for(peer, full);
            self.call(peer, purpose, Request::Exchange(gossip));
        }
        true
    }

    pub(super) fn call(&mut self, peer: &Location, purpose: Purpose, request: Request) {
        let token = self.calls.begin(Call {
            peer: peer.clone(),
            purpose,
            began: self.now.monotonic,
            view: self.view(),
            full: matches!(&request, Request::Exchange(gossip) if gossip.full),
            target: match &request {
                Request::Reach(target) => Some(target.clone()),
                _ => None,
            },
        });
        self.outbox.push(Action {
            token,
            peer: peer.clone(),
            request,
        });
    }

    pub(super) fn say_farewell(&mut self) {
        let is_late = self
            .leaving_since
            .is_none_or(|since| self.now.monotonic >= since + self.settings.linger);
        if is_late || self.farewells >= 2 * self.settings.told_of_leaving {
            return;
        }
        self.farewells += 1;
        for _ in 0..self.settings.most_calls {
            let peer = self.ring.draw(&mut self.random).cloned();
            let fit = peer.filter(|peer| !self.originals.contains(peer));
            if fit.is_some_and(|peer| self.contact(&peer, Purpose::Farewell)) {
                return;
            }
        }
    }

    fn deliver(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.outbox)
    }

    pub(super) fn has_room(&self) -> bool {
        self.calls.len() < self.settings.most_calls
    }

    /// Is no other member on the ring?
    pub(super) fn is_alone(&self) -> bool {
        self.ring.len() <= 1 && self.ring.successor(&self.me).is_none()
    }

    pub(super) fn mine(&self) -> Member {
        let mine = self.members.get(&self.me);
        mine.expect("a node's own record is never forgotten")
            .clone()
    }

    /// Probes `location` in the next tick. False if too many are waiting for that.
    pub(super) fn try_soon(&mut self, location: &Location) -> bool {
        let most = self.settings.most_waiting;
        self.errands.add(location, self.now.monotonic, most)
    }

    pub(super) fn note(&mut self, event: Event) {
        if self.happened.len() == MOST_EVENTS {
            self.happened.pop_front();
        }
        self.happened.push_back(event);
    }
}

impl Seed {
    fn new(location: Location) -> Seed {
        Seed {
            location,
            calls_itself: None,
        }
    }
}
