//! `Process`: one process of the network, with what its threads share.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Member, MemberTable, Status, Tags};
use thrifty_p2p::store::placement::NodeId;
use thrifty_p2p::store::rebalance::{MemberSnapshot, Phase, Rebalance, Routing, Rules};
use thrifty_p2p::store::recent_placements::RecentPlacements;
use thrifty_p2p::store::recent_writes::RecentWrites;
use thrifty_p2p::store::table::Table;
use thrifty_p2p::store::unfinished_copies::UnfinishedCopies;

use super::reads::CALL_TIMEOUT;

/// Identifies a process. One that restarts at the same location is another one.
pub type Id = usize;

/// Is a process there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Running,
    /// Stopped: calls to it time out. It may continue.
    Hung {
        /// It hangs for so long that others may declare it down.
        may_be_declared_down: bool,
    },
    Ended,
}

impl Health {
    /// Is it there, and may not be declared down?
    pub fn is_sound(self) -> bool {
        match self {
            Health::Running => true,
            Health::Hung {
                may_be_declared_down,
            } => !may_be_declared_down,
            Health::Ended => false,
        }
    }
}

/// One process of the network.
pub struct Process {
    pub location: Location,
    pub health: Health,
    /// Has it joined, so that its announcer and its puller run?
    pub has_joined: bool,
    /// Milliseconds that its clock is ahead.
    pub clock: i64,
    pub membership: Membership,
    pub contact: Contact,
    pub rebalance: Rebalance,
    /// A thread holds the lock of the rebalance.
    pub is_locked: bool,
    /// The epoch of the membership for which the rebalance accounts.
    pub rebalanced_epoch: u64,
    /// The snapshot that was published last.
    pub routing: Rc<Routing>,
    pub table: Rc<Table>,
    /// Stripes of the table that the sweeper has locked.
    pub locked_stripes: BTreeSet<usize>,
    /// Keys that are being written here, with the versions.
    pub locked_keys: BTreeMap<Vec<u8>, i64>,
    pub recent: Rc<RecentWrites>,
    pub recent_placements: Rc<RecentPlacements>,
    pub unfinished: Rc<UnfinishedCopies>,
    /// The copies that are being replayed, by their keys: who coordinated each, and its number.
    pub replays: BTreeMap<Vec<u8>, (NodeId, i64)>,
    /// The state that was announced last.
    pub announced: Option<(u64, Phase, bool)>,
    /// Sources that a page is being copied from.
    pub pulling: BTreeSet<NodeId>,
    /// The puller sweeps the table.
    pub is_sweeping: bool,
    /// A copy came from a primary with another placement.
    pub has_stale_write: bool,
}

/// What a process knows of the members.
pub struct Membership {
    pub members: MemberTable,
    /// Members that were declared down and stay on the ring for a while.
    pub in_grace: BTreeSet<Location>,
    /// Counts changes of what the rebalance needs to know.
    pub decided: u64,
    /// As many of them are published.
    pub epoch: u64,
}

/// When a process last heard another one.
#[derive(Debug, Clone, Copy)]
pub struct Contact {
    /// It is the only one on its ring.
    pub is_alone: bool,
    /// When the last call started that another member answered.
    pub contact_at: i64,
    /// When the last isolation ended or was noticed. Calls that started before do not end it.
    pub isolated_at: i64,
    /// How often it was isolated and then heard another member again.
    pub isolations: u64,
}

impl Process {
    /// A process with these tags that knows no other, started at time `now`.
    pub fn new(
        location: Location,
        tags: Tags,
        now: i64,
        replicas: Option<usize>,
        rules: Rules,
    ) -> Process {
        let own = Member {
            location: location.clone(),
            incarnation: now,
            status: Status::Alive,
            generation: now,
            tags,
        };
        let rebalance = Rebalance::new(NodeId::from(&own), replicas, rules);
        let mut members = MemberTable::default();
        members.merge(own);
        Process {
            location,
            health: Health::Running,
            has_joined: false,
            clock: 0,
            membership: Membership {
                members,
                in_grace: BTreeSet::new(),
                decided: 0,
                epoch: 0,
            },
            contact: Contact {
                is_alone: true,
                contact_at: 0,
                isolated_at: 0,
                isolations: 0,
            },
            is_locked: false,
            rebalanced_epoch: 0,
            routing: Rc::new(rebalance.routing()),
            rebalance,
            table: Rc::default(),
            locked_stripes: BTreeSet::new(),
            locked_keys: BTreeMap::new(),
            recent: Rc::default(),
            recent_placements: Rc::new(RecentPlacements::new(2 * CALL_TIMEOUT as u64)),
            unfinished: Rc::default(),
            replays: BTreeMap::new(),
            announced: None,
            pulling: BTreeSet::new(),
            is_sweeping: false,
            has_stale_write: false,
        }
    }

    /// Its own record.
    pub fn own_record(&self) -> &Member {
        let own = self.membership.members.get(&self.location);
        own.expect("a process never forgets itself")
    }

    pub fn has_left(&self) -> bool {
        self.own_record().status == Status::Left
    }

    /// The processes that take part, by what it knows.
    pub fn snapshot(&self) -> MemberSnapshot {
        let Membership {
            members, in_grace, ..
        } = &self.membership;
        let is_live =
            |member: &&Member| member.status.is_live() || in_grace.contains(&member.location);
        let is_leaving =
            |member: &&Member| member.status == Status::Left && member.location != self.location;
        MemberSnapshot {
            me: NodeId::from(self.own_record()),
            live: members.iter().filter(is_live).map(NodeId::from).collect(),
            leaving: members
                .iter()
                .filter(is_leaving)
                .map(NodeId::from)
                .collect(),
        }
    }

    /// May a request act by that snapshot, as `Store::is_current` decides?
    pub fn is_current(&self, routing: &Routing) -> bool {
        self.contact.has_contact()
            && self.contact.isolations == routing.isolations()
            && self.own_record().generation == routing.me().generation
    }

    /// Does the rebalance account for less than the membership knows?
    pub fn is_behind(&self) -> bool {
        self.rebalanced_epoch < self.membership.decided
    }

    /// Publishes the state of the rebalance until it does not change any more. Without the
    /// pauses in which requests act by the snapshot before, for processes that just start.
    pub fn publish_at_once(&mut self) {
        let mut before = None;
        while before != Some(self.rebalance.changes()) {
            before = Some(self.rebalance.changes());
            self.routing = Rc::new(self.rebalance.routing());
            self.recent_placements.update(self.routing.placements(), 0);
            self.rebalance.on_published();
        }
    }
}

impl Contact {
    /// Has it heard another member recently, or is it alone?
    pub fn has_contact(&self) -> bool {
        self.is_alone || self.contact_at >= self.isolated_at
    }

    /// A member has answered a call that started at `began`.
    pub fn record(&mut self, began: i64) {
        if self.contact_at < self.isolated_at && began >= self.isolated_at {
            self.isolations += 1;
        }
        self.contact_at = self.contact_at.max(began);
    }
}

/// The port and the generation of a process.
pub fn name(node: &NodeId) -> String {
    format!("{}@{}", node.location.port(), node.generation % 1_000_000)
}
