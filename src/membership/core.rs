//! `Membership`: the state of one node, and its construction.
//!
//! Its methods are in the files of their subjects: `inputs` and `queries` have those for the
//! driver; the map in the module's documentation has the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, Call, Failure, Token};
use super::config::{self, Config};
use super::event::Event;
use super::member::{Member, Status};
use super::rng::Rng;
use super::rumors::RumorQueue;
use super::table::MemberTable;
use super::timers::Timers;
use crate::location::Location;

/// The time of an input, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since any fixed start; never goes back. Measures all intervals.
    pub monotonic: Duration,
    /// Milliseconds since 1970, used for incarnations only. May be set forward and back.
    pub unix_millis: i64,
}

/// The last message of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Its digest in that message. None for a legacy node.
    pub digest: Option<u64>,
    /// When it arrived, by this node's monotonic clock.
    pub at: Duration,
}

/// A member to which a call failed, while helpers try to reach it.
#[derive(Debug, Clone)]
pub(super) struct IndirectProbe {
    /// How the call failed.
    pub failure: Failure,
    /// When the failed call was made.
    pub called_at: Duration,
    /// The member's incarnation at the start. If it has changed, the member has refuted.
    pub incarnation: i64,
    /// Helpers that have not replied yet.
    pub awaited: usize,
    /// No helper has replied: this node may be cut off itself.
    pub is_cut_off: bool,
}

/// The membership protocol of one node, as a state machine.
///
/// No method blocks or touches a socket, thread, lock or clock. The driver calls
/// [`tick`](Membership::tick) at the time that [`wake_at`](Membership::wake_at) returns, makes
/// the calls that it gets, and reports each outcome by [`reply`](Membership::reply). After every
/// method that takes `&mut self` it takes the [`events`](Membership::events) and reads
/// `wake_at` again.
#[derive(Debug, Clone)]
pub struct Membership {
    pub(super) me: Location,
    pub(super) network: Arc<str>,
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) table: MemberTable,
    /// Live members and those in grace; this node included until it leaves.
    pub(super) ring: BTreeSet<Location>,
    pub(super) contacts: BTreeMap<Location, Contact>,
    pub(super) rumors: RumorQueue,
    /// How slow this node seems itself; 0 is healthy (see `failure_detector`).
    pub(super) local_health: u32,
    /// The calls in flight. Tokens increase with time.
    pub(super) calls: BTreeMap<Token, Call>,
    pub(super) last_token: u64,
    /// Calls that the driver gets at the end of the current input.
    pub(super) outbox: Vec<Action>,
    /// When each SUSPECT member became SUSPECT here.
    pub(super) suspect_since: BTreeMap<Location, Duration>,
    /// When a SUSPECT member becomes DOWN.
    pub(super) suspect_timers: Timers,
    /// When a DOWN member in grace leaves the ring.
    pub(super) grace_timers: Timers,
    /// When the tombstone of a DOWN or LEFT member is dropped.
    pub(super) tombstone_timers: Timers,
    /// Running indirect probes, by target.
    pub(super) indirect_probes: BTreeMap<Location, IndirectProbe>,
    /// Members that do not reply to this node while a helper reaches them, each with that helper.
    pub(super) cut_links: BTreeMap<Location, Location>,
    /// Members that are DOWN and may be running, each with the time since when: no host has
    /// answered that no process listens there.
    pub(super) silent: BTreeMap<Location, Duration>,
    /// Members that the layer above reported as unreachable: their suspect timeouts are short.
    pub(super) urgent: BTreeSet<Location>,
    /// When locations are probed outside the schedule.
    pub(super) probe_queue: Timers,
    /// Locations known from `join`, `add` or `get_all` only, with the number of failed calls.
    pub(super) candidates: BTreeMap<Location, u32>,
    /// Nodes that do not know `exchange`.
    pub(super) legacy: BTreeSet<Location>,
    /// Those of them whose last list had this node.
    pub(super) listed_by: BTreeSet<Location>,
    /// The configured peers, each with the location that the node there uses for itself, if it is
    /// another one. A peer is called for as long as this node runs, while it is not live.
    pub(super) seeds: BTreeMap<Location, Option<Location>>,
    /// Members that are still to be probed in this round.
    pub(super) probe_round: Vec<Location>,
    /// Was the last scheduled probe one of the round, not of the successor?
    pub(super) probed_round_robin: bool,
    /// The next gossip round; None while the node is cold.
    pub(super) gossip_at: Option<Duration>,
    /// Gossip exchanges in a row from which neither side learned.
    pub(super) useless_exchanges: u32,
    pub(super) probe_at: Duration,
    pub(super) reconnect_at: Duration,
    /// When this node last started a push-pull because of different digests.
    pub(super) last_push_pull: Option<Duration>,
    /// The end of the last pause of this process, or its start.
    pub(super) running_since: Duration,
    pub(super) leaving_since: Option<Duration>,
    /// Members called to announce that this node leaves.
    pub(super) leave_calls: usize,
    /// Events that the driver has not taken yet.
    pub(super) pending_events: Vec<Event>,
    /// When gossip of a sender was last reported as rejected.
    pub(super) reported_at: BTreeMap<Location, Duration>,
}

impl Membership {
    /// The node `me` of `network`, which knows only itself and `seeds`. Its own location among
    /// the seeds is ignored. Nodes should have different `random_seed`s; equal seeds, times and
    /// inputs give equal decisions.
    pub fn new(
        me: Location,
        network: Arc<str>,
        seeds: Vec<Location>,
        config: Config,
        now: Now,
        random_seed: u64,
    ) -> Membership {
        let generation = now.unix_millis.max(0);
        let tags = config.tags.clone();
        let mut rng = Rng::new(random_seed);
        // Nodes that start at the same time must not probe at the same time.
        let probe_at = now.monotonic + config::PROBE_INTERVAL.mul_f64(rng.fraction() / 2.0);
        let mut membership = Membership {
            me: me.clone(),
            network,
            config,
            rng,
            now,
            table: MemberTable::default(),
            ring: BTreeSet::new(),
            contacts: BTreeMap::new(),
            rumors: RumorQueue::default(),
            local_health: 0,
            calls: BTreeMap::new(),
            last_token: 0,
            outbox: Vec::new(),
            suspect_since: BTreeMap::new(),
            suspect_timers: Timers::default(),
            grace_timers: Timers::default(),
            tombstone_timers: Timers::default(),
            indirect_probes: BTreeMap::new(),
            cut_links: BTreeMap::new(),
            silent: BTreeMap::new(),
            urgent: BTreeSet::new(),
            probe_queue: Timers::default(),
            candidates: BTreeMap::new(),
            legacy: BTreeSet::new(),
            listed_by: BTreeSet::new(),
            seeds: seeds.into_iter().map(|seed| (seed, None)).collect(),
            probe_round: Vec::new(),
            probed_round_robin: true,
            gossip_at: None,
            useless_exchanges: 0,
            probe_at,
            reconnect_at: now.monotonic,
            last_push_pull: None,
            running_since: now.monotonic,
            leaving_since: None,
            leave_calls: 0,
            pending_events: Vec::new(),
            reported_at: BTreeMap::new(),
        };
        membership.apply(Member {
            location: me,
            incarnation: generation,
            status: Status::Alive,
            generation,
            tags,
        });
        membership
    }

    /// This node's own record.
    pub fn own_record(&self) -> Member {
        let own = self.table.get(&self.me);
        own.expect("a node's own record is never dropped").clone()
    }

    /// Is no other member on the ring?
    pub(super) fn is_alone(&self) -> bool {
        self.ring.iter().all(|member| *member == self.me)
    }
}
