//! What a node logs about its network, in the original's words.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, info, log, warn};

use super::Node;
use crate::location::Location;
use crate::locator::{self, EventKind as Kind};
use crate::membership::{Change, ChangeKind, Event, Member, Membership};
use crate::plural::counted;

/// Pauses that are shorter are usual where the machine is busy.
const WORTH_A_WARNING: Duration = Duration::from_secs(1);

/// An event without anything but its kind and text, which are added. (The generated default has zeros.)
const NOTHING_MORE: locator::Event = locator::Event {
    sequence: None,
    at: None,
    kind: None,
    location: None,
    tags: None,
    moved: None,
    text: None,
};

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

    /// Logs events, keeps them for those who follow, and passes ring changes to the handler, until
    /// the node stops.
    pub(super) fn deliver_events(&self, on_change: impl Fn(&[Change])) {
        let mut ring = self.ring();
        while let Some(pending) = self.next_events() {
            if pending.dropped > 0 {
                let dropped = counted(pending.dropped, "membership event");
                let text = format!("not logged: {dropped}");
                warn!("{text}");
                self.keep_event(Kind::NOTICE, text, NOTHING_MORE);
            }
            for event in pending.in_order() {
                self.log_event(&event);
            }
            let before = std::mem::replace(&mut ring, self.ring());
            if !Arc::ptr_eq(&before, &ring) {
                let moved = before.moved(&ring);
                let text = format!("{:.1} % of all keys have another owner", moved * 100.0);
                let details = locator::Event {
                    moved: Some(moved.into()),
                    ..NOTHING_MORE
                };
                self.keep_event(Kind::RING_CHANGED, text, details);
            }
            let changes: Vec<Change> = pending.changes.into_iter().map(|(_, c)| c).collect();
            if !changes.is_empty() {
                on_change(&changes);
            }
        }
    }

    fn log_event(&self, event: &Event) {
        let own = self.location();
        let mut details = locator::Event {
            location: Some(subject(event).unwrap_or(own).into()),
            ..NOTHING_MORE
        };
        let (level, text) = describe(event);
        let kind = match event {
            Event::RingChanged(change) if change.location == *own => return,
            Event::RingChanged(change) => {
                details.tags = Some((*change.tags).clone());
                match change.kind {
                    ChangeKind::Added => Kind::JOINED,
                    ChangeKind::Down => Kind::DOWN,
                    ChangeKind::Left => Kind::LEFT,
                    ChangeKind::Restarted => Kind::RESTARTED,
                }
            }
            Event::Suspected(_) | Event::SuspectedByOthers(_) => Kind::SUSPECTED,
            Event::Refuted(_) | Event::RefutedByMember(_) => Kind::REFUTED,
            _ => Kind::NOTICE,
        };
        log!(level, "{text}");
        self.keep_event(kind, text, details.clone());
        if let Event::RingChanged(change) = event
            && change.has_other_tags
        {
            let text = format!("{} has other tags: {}", change.location, change.tags);
            self.keep_event(Kind::TAGS_CHANGED, text, details);
        }
    }

    fn keep_event(&self, kind: Kind, text: String, details: locator::Event) {
        self.shared.activity.history.add(locator::Event {
            at: Some(self.shared.now().unix_millis),
            kind: Some(kind),
            text: Some(text),
            ..details
        });
    }
}

/// The member that an event is about. None: this node.
fn subject(event: &Event) -> Option<&Location> {
    match event {
        Event::RingChanged(change) => Some(&change.location),
        Event::Suspected(peer)
        | Event::SuspectedByOthers(peer)
        | Event::RefutedByMember(peer)
        | Event::LinkCut(peer, _)
        | Event::LinkRestored(peer)
        | Event::Exited(peer)
        | Event::DeclaredGone(peer)
        | Event::LegacyPeer(peer)
        | Event::UpgradedPeer(peer)
        | Event::ForeignNetwork(peer, _)
        | Event::GossipRejected(peer, _) => Some(peer),
        Event::Refuted(_) | Event::ProcessPaused(_) => None,
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
    let debug = |text| (Level::Debug, text);
    match event {
        Event::RingChanged(change) => describe_change(change),
        Event::Refuted(number) => info(format!("refuted suspicion; incarnation is now {number}")),
        Event::Suspected(peer) => info(format!("suspecting {peer}: no response")),
        Event::SuspectedByOthers(peer) => debug(format!("others suspect {peer}: no response")),
        Event::RefutedByMember(peer) => debug(format!("{peer} has refuted a suspicion")),
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
