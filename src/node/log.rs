//! What a node logs about its network, in the original's words.

use std::collections::HashMap;
use std::time::Duration;

use log::{Level, info, log, warn};

use super::Node;
use crate::location::Location;
use crate::membership::{Change, ChangeKind, Event, Member, Membership};

/// Pauses that are shorter are usual where the machine is busy.
const WORTH_A_WARNING: Duration = Duration::from_secs(1);

impl Node {
    /// Logs every known member, and when it was last heard.
    pub fn debug(&self) {
        let ring = self.ring();
        let shares: HashMap<&Location, f64> = ring.shares().into_iter().collect();
        let now = self.shared.now().monotonic;
        let state = self.shared.state.lock();
        let membership = &state.membership;
        let line = |member: &Member| {
            let share = shares.get(&member.location).unwrap_or(&0.0) * 100.0;
            let contact = last_contact(membership, &member.location, now);
            let Member {
                location,
                status,
                incarnation,
                ..
            } = member;
            format!(
                "{location}  {status}  incarnation {incarnation}  {share:.1} % of the keys{contact}"
            )
        };
        let lines: Vec<String> = membership.members().map(line).collect();
        let (digest, live) = (membership.digest(), ring.len());
        let network = membership.network().clone();
        drop(state);
        info!(
            "{} of network {network} knows {live} live members, digest {digest:016x}:",
            self.location()
        );
        for line in lines {
            info!("  {line}");
        }
    }

    /// Logs events and passes ring changes to the handler until the node stops.
    pub(super) fn deliver_events(&self, on_change: impl Fn(&[Change])) {
        while let Some(pending) = self.next_events() {
            if pending.dropped > 0 {
                warn!("{} membership events were not logged", pending.dropped);
            }
            let own = self.location();
            let of_others = pending.changes.iter().filter(|c| c.location != *own);
            of_others.for_each(log_change);
            pending.events.iter().for_each(log_event);
            if !pending.changes.is_empty() {
                on_change(&pending.changes);
            }
        }
    }
}

/// When a member was last heard and whether it agreed, to be added to a line.
fn last_contact(membership: &Membership, location: &Location, now: Duration) -> String {
    let Some(contact) = membership.contact(location) else {
        return String::new();
    };
    let ago = now.saturating_sub(contact.at).as_secs();
    match contact.digest {
        Some(digest) if digest == membership.digest() => format!(", agreed {ago} s ago"),
        Some(_) => format!(", differed {ago} s ago"),
        None => format!(", a legacy node, answered {ago} s ago"),
    }
}

fn log_event(event: &Event) {
    match event {
        Event::RingChanged(change) => log_change(change),
        Event::Refuted(incarnation) => {
            info!("refuted suspicion; incarnation is now {incarnation}");
        }
        Event::Suspected(peer) => info!("suspecting {peer}: no response"),
        Event::LinkCut(peer, other) => {
            warn!("the link to {peer} is cut: it does not reply to this node, but to {other}");
        }
        Event::LinkRestored(peer) => info!("the link to {peer} is restored"),
        Event::Exited(peer) => info!("{peer} has ended: its host refuses connections"),
        Event::DeclaredGone(peer) => warn!("{peer} was declared gone by an operator"),
        Event::LegacyPeer(peer) => info!("{peer} is a legacy node"),
        Event::UpgradedPeer(peer) => info!("{peer} is not a legacy node"),
        Event::ForeignNetwork(peer, network) => warn!("{peer} is of another network: {network}"),
        Event::GossipRejected(peer, reason) => warn!("rejected gossip of {peer}: {reason}"),
        Event::ProcessPaused(time) => {
            let level = if *time < WORTH_A_WARNING {
                Level::Debug
            } else {
                Level::Warn
            };
            log!(
                level,
                "this process was paused for {:.1} s",
                time.as_secs_f64()
            );
        }
    }
}

fn log_change(change: &Change) {
    let location = &change.location;
    match change.kind {
        ChangeKind::Added => info!("added {location}"),
        ChangeKind::Down => info!("removed {location}: it is down"),
        ChangeKind::Left => info!("removed {location}: it left"),
        ChangeKind::Restarted => info!("restarted {location}"),
    }
}
