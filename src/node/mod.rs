//! `Node`: a member of a network, which knows all members and the ring.
//!
//! The membership core ([`Membership`]) decides. A node gives
//! it the time, makes the calls that it asks for, and keeps the ring up to date. Threads:
//!
//! * the **driver**, one for each node: wakes when the core asks for it and starts callers;
//! * the **callers**, one for each call in flight: make the call and report its outcome. The
//!   core limits their number;
//! * the **event thread**, one for each node: logs what changed, keeps it for those who follow, and
//!   informs the handler;
//! * the server's **connection threads**, which deliver what other nodes send.
//!
//! One lock guards the core. It is held to decide and never during a call, so nodes cannot
//! deadlock. The ring is replaced under that lock and read without it.

mod activity;
mod driver;
mod events;
mod history;
mod join;
mod log;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use self::driver::outcome_of;
use self::shared::Shared;
use crate::endpoint::{BindOptions, Endpoint};
use crate::error::Error;
use crate::location::Location;
use crate::locator::{self, TBaseSyncClient, TLocatorSyncClient};
use crate::membership::{Failure, Gossip, Member, Membership, Outcome, Status, config};
use crate::rpc::dialer::{Dialer, Timeouts};
use crate::rpc::tunnel;

pub use self::activity::Count;

/// A member of a network. A cheap handle; clones are the same node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

/// The processes that take part in a network, as one node knows them.
pub(crate) struct MemberSnapshot {
    /// This node's own record.
    pub own: Member,
    /// The members on the ring, without legacy nodes.
    pub live: Vec<Member>,
    /// Members that have left. Some of their processes still reply.
    pub leaving: Vec<Member>,
}

impl Node {
    /// Claims a port for a node of the named network. Networks of different names do not
    /// merge; by convention the name is the service type. Nor do networks of different ids
    /// ([`BindOptions::network`]).
    ///
    /// # Errors
    /// [`Error::Bind`]: no port of the options is free.
    pub fn bind(options: &BindOptions, network: &str) -> Result<Node, Error> {
        let endpoint = Endpoint::bind(options)?;
        let node = Node {
            shared: Arc::new(Shared::new(endpoint, network, options.tags.clone())),
        };
        if let Some(id) = &options.network {
            node.decide(|membership, _| membership.found(id));
        }
        Ok(node)
    }

    /// The claimed port, and the switch that ends the service.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Opens connections to other nodes, with this node's identity.
    pub fn dialer(&self) -> &Dialer {
        self.shared.endpoint.dialer()
    }

    /// Where others reach this node.
    pub fn location(&self) -> &Location {
        self.shared.endpoint.location()
    }

    /// The records of all members, those that are gone included, sorted by location.
    pub fn members(&self) -> Vec<Member> {
        self.read(|membership| membership.members().cloned().collect())
    }

    /// The name of the node's network: the service type and, behind a slash, its id once it is known.
    pub(crate) fn network(&self) -> String {
        self.read(|membership| membership.network().to_string())
    }

    /// The name of the network of the node at `location`, if that replies and knows it.
    pub(crate) fn network_of(&self, location: &Location) -> Option<String> {
        let timeout = config::CALL_TIMEOUT;
        let gossip = self.call(timeout, location, |peer| peer.members()).ok()?;
        gossip.network
    }

    /// Calls these locations until the nodes there are members. Resolves host names, which may block.
    pub(crate) fn add_seeds<'a>(&self, locations: impl Iterator<Item = &'a Location>) {
        for location in locations {
            let resolved = location.resolve().ok();
            if let Some(peer) = resolved.and_then(|all| all.first().map(|at| Location::from(*at))) {
                self.decide(|membership, now| membership.seed(now, peer));
            }
        }
    }

    /// The node was a member of its network before.
    pub(crate) fn set_returning(&self) {
        self.shared.state.lock().is_returning = true;
    }

    /// The processes that take part. Blocks for no call.
    pub(crate) fn snapshot(&self) -> MemberSnapshot {
        self.read(|membership| {
            let live = membership
                .members()
                .filter(|member| !member.is_legacy() && membership.is_on_ring(&member.location));
            let left = membership.members().filter(|member| {
                member.status == Status::Left && member.location != *self.location()
            });
            MemberSnapshot {
                own: membership.own_record(),
                live: live.cloned().collect(),
                leaving: left.cloned().collect(),
            }
        })
    }

    /// Is this location known to be down?
    pub(crate) fn is_down(&self, location: &Location) -> bool {
        let status = self.read(|membership| membership.status_of(location));
        status.is_none_or(|status| status == Status::Down)
    }

    /// Is this a legacy node?
    pub(crate) fn is_legacy(&self, location: &Location) -> bool {
        self.read(|membership| membership.is_legacy(location))
    }

    /// The records of legacy nodes, those that are gone included.
    pub(crate) fn legacy_nodes(&self) -> Vec<Member> {
        self.read(|membership| {
            let legacy = membership.members().filter(|member| member.is_legacy());
            legacy.cloned().collect()
        })
    }

    /// Are there other members, all of them legacy nodes, and no location that may turn out to be
    /// one of ours?
    pub(crate) fn has_only_legacy_peers(&self) -> bool {
        self.has_legacy() && self.read(Membership::has_only_legacy_peers)
    }

    /// Exchanges all records with `location`, and waits until the ring accounts for them.
    /// Returns whether it does. Blocks for two timeouts of a call at most.
    ///
    /// # Errors
    /// See [`Error`]; it names the location.
    pub(crate) fn push_pull(&self, location: &Location) -> Result<bool, Error> {
        let gossip = self.full_state();
        let timeout = config::CALL_TIMEOUT;
        let reply = self.call(timeout, location, |peer| peer.exchange(gossip))?;
        self.on_exchange(reply)
            .map_err(|e| Error::Remote(location.clone(), e))?;
        Ok(self.wait_until_published(timeout))
    }

    /// A node asks to join, or is said to be a member: it is probed, and added once it replies.
    pub(crate) fn add(&self, location: Location) {
        self.decide(|membership, now| membership.add(now, location));
    }

    /// A node is said to be gone: it is probed at once.
    pub(crate) fn remove(&self, location: Location) {
        self.decide(|membership, now| membership.remove(now, location));
    }

    /// Reports a failed call to `location`, which is then probed at once. Does not block.
    pub fn report_unreachable(&self, location: &Location, error: &Error) {
        let failure = match outcome_of(error) {
            Outcome::Refused => Failure::Refused,
            _ => Failure::NoReply,
        };
        self.decide(|membership, now| membership.report_unreachable(now, location, failure));
    }

    /// Reports a call to `location` that takes long: the member is probed at once. Does not block.
    pub(crate) fn report_slow(&self, location: &Location) {
        let failure = Failure::NoReply;
        self.decide(|membership, now| membership.report_unreachable(now, location, failure));
    }

    /// An operator declares a member gone that is down and may be running. False if it is not
    /// such a member.
    pub(crate) fn declare_gone(&self, location: &Location) -> bool {
        self.decide(|membership, now| membership.declare_gone(now, location))
    }

    /// The members that are down and may be running on the other side of a split: nobody knows
    /// that their processes have ended. Each with the time for which it has been down.
    pub(crate) fn silent(&self) -> Vec<(Location, Duration)> {
        let now = self.shared.now().monotonic;
        self.read(|membership| {
            let silent = membership.silent();
            silent
                .map(|(location, since)| (location.clone(), now.saturating_sub(since)))
                .collect()
        })
    }

    /// The members that do not reply to this node, but to others. Never blocks.
    pub(crate) fn cut_links(&self) -> Vec<Location> {
        self.dialer().detours().keys().cloned().collect()
    }

    /// Replies to an `exchange`.
    ///
    /// # Errors
    /// The gossip is malformed.
    pub(crate) fn on_exchange(&self, gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        let activity = &self.shared.activity;
        activity.add_received(&gossip);
        let gossip = Gossip::try_from(gossip).map_err(|e| e.to_string())?;
        let reply = self.decide(|membership, now| membership.on_exchange(now, gossip));
        let reply = locator::Gossip::from(&reply);
        activity.add_sent(&reply);
        Ok(reply)
    }

    /// Does `location` reply to this node now? Blocks for the time of an indirect probe.
    pub(crate) fn ping(&self, location: &Location) -> bool {
        let timeout = config::PING_REQ_TIMEOUT;
        self.call(timeout, location, |peer| peer.ping()).is_ok()
    }

    /// Connects to a member for a caller whose own link to it is cut, and makes a tunnel of the
    /// connection that this thread serves. False if that is not possible. Blocks for the time of
    /// an indirect probe.
    pub(crate) fn open_tunnel(&self, location: &Location) -> bool {
        let timeout = config::PING_REQ_TIMEOUT;
        let timeouts = Timeouts {
            connect: timeout,
            reply: timeout,
        };
        let is_member = self.read(|membership| membership.is_on_ring(location));
        if !is_member || location == self.location() {
            return false;
        }
        match self.dialer().open(timeouts, location) {
            Ok(target) if self.dialer().has_identity() || !target.is_local() => {
                tunnel::hand_over(target);
                true
            }
            Ok(_) => false,
            Err(e) => {
                ::log::debug!("no tunnel: {e}");
                false
            }
        }
    }

    /// All records, as `members` returns them.
    pub(crate) fn full_state(&self) -> locator::Gossip {
        let state = self.shared.state.lock();
        let (gossip, joins) = (state.membership.full_state(), state.joins.clone());
        drop(state);
        locator::Gossip::from(&Gossip { joins, ..gossip })
    }

    /// Reads the membership. Held briefly, never during a call.
    fn read<T>(&self, query: impl FnOnce(&Membership) -> T) -> T {
        query(&self.shared.state.lock().membership)
    }
}
