//! Measuring: what a test can observe.

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Member, Membership, Status};

use super::{Id, Process, Simulator};

impl Simulator {
    /// The node that runs on a host.
    pub fn node(&self, id: Id) -> Option<&Membership> {
        match &self.hosts[id].process {
            Process::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The host at a location.
    pub fn id_of(&self, location: &Location) -> Option<Id> {
        self.ids.get(location).copied()
    }

    pub fn is_running(&self, id: Id) -> bool {
        !matches!(self.hosts[id].process, Process::Absent)
    }

    pub fn is_legacy(&self, id: Id) -> bool {
        matches!(self.hosts[id].process, Process::Legacy(_))
    }

    /// Does a process run on the host that is neither paused nor leaving?
    pub fn is_up(&self, id: Id) -> bool {
        let host = &self.hosts[id];
        self.is_running(id) && !host.is_paused && !host.is_leaving
    }

    pub fn up(&self) -> Vec<Id> {
        (0..self.hosts.len()).filter(|&id| self.is_up(id)).collect()
    }

    pub fn calls_in_flight(&self, id: Id) -> usize {
        self.hosts[id].calls_in_flight
    }

    /// The suspicions that all hosts have raised.
    pub fn suspicions(&self) -> u64 {
        self.hosts.iter().map(|host| host.suspicions).sum()
    }

    /// Do all hosts that are up know exactly the hosts that are up?
    pub fn is_agreed(&self) -> bool {
        self.disagreement().is_none()
    }

    /// What one of the hosts that are up knows wrongly.
    pub fn disagreement(&self) -> Option<String> {
        let up = self.up();
        let first = up.iter().find_map(|&id| self.node(id));
        let digest = first.map(Membership::digest);
        for &id in &up {
            let size = match &self.hosts[id].process {
                Process::Node(node) if Some(node.digest()) != digest => {
                    return Some(format!("host {id} has another digest"));
                }
                Process::Node(node) => node.size(),
                Process::Legacy(legacy) => legacy.ring.len(),
                Process::Absent => 0,
            };
            if size != up.len() {
                return Some(format!("host {id} knows {size} members of {}", up.len()));
            }
        }
        // Equal digests and sizes: it is enough to look at one node's records.
        let node = first?;
        let wrong = up.iter().find(|&&id| !self.is_known_by(node, id))?;
        Some(format!("host {wrong} has a wrong record"))
    }

    /// Does `node` have host `id` on the ring, with the generation of its process?
    fn is_known_by(&self, node: &Membership, id: Id) -> bool {
        let location = &self.hosts[id].location;
        let generation = self.node(id).map(Membership::generation);
        node.is_on_ring(location)
            && generation.is_none_or(|own| record(node, location).generation == own)
    }

    /// The hosts that a node knows and could call. A legacy node waits to be called.
    pub fn known_hosts(&self, id: Id) -> Vec<Id> {
        let Some(node) = self.node(id) else {
            return Vec::new();
        };
        let known = node.members().filter(|m| m.status != Status::Left);
        known.filter_map(|m| self.id_of(&m.location)).collect()
    }

    /// A hash of the whole run. Equal runs have equal ones.
    pub fn fingerprint(&self) -> u64 {
        let parts = self.hosts.iter().enumerate().map(|(id, host)| {
            let digest = self.node(id).map_or(0, Membership::digest);
            digest ^ host.bytes_sent.rotate_left(17) ^ host.calls.rotate_left(40)
        });
        parts.fold(self.queue.scheduled, |sum, part| sum.rotate_left(7) ^ part)
    }
}

/// The record that `node` has of a location.
pub fn record<'a>(node: &'a Membership, location: &Location) -> &'a Member {
    let mut members = node.members();
    let record = members.find(|member| member.location == *location);
    record.unwrap_or_else(|| panic!("{location} has no record"))
}
