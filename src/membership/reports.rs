//! The events that the driver takes: ring changes, and what is logged.

use std::mem;
use std::sync::Arc;

use super::config;
use super::core::Membership;
use super::event::{Event, RejectReason};
use crate::location::Location;

/// Senders whose last report is remembered. Further senders are not reported.
const MAX_REPORTED_SENDERS: usize = 1_000;

impl Membership {
    /// Returns and removes the events since the last call, in order. The driver takes them after
    /// every method that takes `&mut self`, so there are few for each record of a gossip.
    pub fn events(&mut self) -> Vec<Event> {
        mem::take(&mut self.pending_events)
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.pending_events.push(event);
    }

    /// Reports that the node at `location` belongs to another network.
    pub(super) fn report_foreign_network(&mut self, location: &Location, network: &Arc<str>) {
        if self.may_report(location) {
            let event = Event::ForeignNetwork(location.clone(), network.clone());
            self.push_event(event);
        }
    }

    /// Reports that a part of a gossip was rejected.
    pub(super) fn report_rejected(&mut self, sender: &Location, reason: RejectReason) {
        if self.may_report(sender) {
            self.push_event(Event::GossipRejected(sender.clone(), reason));
        }
    }

    /// Takes one report of a sender in each `REPORT_INTERVAL`.
    fn may_report(&mut self, sender: &Location) -> bool {
        let now = self.now.monotonic;
        let interval = config::REPORT_INTERVAL;
        self.reported_at.retain(|_, at| now < *at + interval);
        let is_new = !self.reported_at.contains_key(sender);
        let may_report = is_new && self.reported_at.len() < MAX_REPORTED_SENDERS;
        if may_report {
            self.reported_at.insert(sender.clone(), now);
        }
        may_report
    }
}
