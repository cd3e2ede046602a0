//! What a node logs about its network, in the original's words.

use std::collections::HashMap;
use std::time::Duration;

use log::{Level, info, log, warn};

use super::Node;
use crate::location::Location;
use crate::membership::{Change, ChangeKind, Event, Member, Membership};
use crate::plural::counted;

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
            "{} of network {network} knows {}, digest {digest:016x}:",
            self.location(),
            counted(live, "live member")
        );
        for line in lines {
            info!("  {line}");
        }
    }

    /// Logs events and passes ring changes to the handler until the node stops.
    pub(super) fn deliver_events(&self, on_change: impl Fn(&[Change])) {
        while let Some(pending) = self.next_events() {
            if pending.dropped > 0 {
                warn!(
                    "not logged: {}",
                    counted(pending.dropped, "membership event")
                );
            }
            let own = self.location();
            let of_others = pending.changes.iter().filter(|c| c.location != *own);
            let events = pending.events.iter().map(describe);
            for (level, line) in of_others.map(describe_change).chain(events) {
                log!(level, "{line}");
                let at = self.shared.now().unix_millis;
                self.shared.activity.add_event(at, line);
            }
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

/// The level and the text of an event's line.
fn describe(event: &Event) -> (Level, String) {
    let info = |text| (Level::Info, text);
    let warn = |text| (Level::Warn, text);
    match event {
        Event::RingChanged(change) => describe_change(change),
        Event::Refuted(number) => info(format!("refuted suspicion; incarnation is now {number}")),
        Event::Suspected(peer) => info(format!("suspecting {peer}: no response")),
        Event::LinkCut(peer, other) => warn(format!(
            "the link to {peer} is cut: it does not reply to this node, but to {other}"
        )),
        Event::LinkRestored(peer) => info(format!("the link to {peer} is restored")),
        Event::Exited(peer) => info(format!("{peer} has ended: its host refuses connections")),
        Event::DeclaredGone(peer) => warn(format!("{peer} was declared gone by an operator")),
        Event::LegacyPeer(peer) => info(format!("{peer} is a legacy node")),
        Event::UpgradedPeer(peer) => info(format!("{peer} is not a legacy node")),
        Event::ForeignNetwork(peer, of) => warn(format!("{peer} is of another network: {of}")),
        Event::GossipRejected(peer, why) => warn(format!("rejected gossip of {peer}: {why}")),
        Event::ProcessPaused(time) => {
            let text = format!("this process was paused for {:.1} s", time.as_secs_f64());
            let is_short = *time < WORTH_A_WARNING;
            (if is_short { Level::Debug } else { Level::Warn }, text)
        }
    }
}

fn describe_change(change: &Change) -> (Level, String) {
    let location = &change.location;
    let text = match change.kind {
        ChangeKind::Added => format!("added {location}"),
        ChangeKind::Down => format!("removed {location}: it is down"),
        ChangeKind::Left => format!("removed {location}: it left"),
        ChangeKind::Restarted => format!("restarted {location}"),
    };
    (Level::Info, text)
}
