//! The story of the network for the log, in the original's words.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use log::{info, warn};

use super::Node;
use crate::location::Location;
use crate::membership::{Change, Event, Member, Membership, Why};

impl Node {
    /// Tells the log every member that is known, and what each was last heard to see.
    pub fn debug(&self) {
        let ring = self.ring();
        let shares: HashMap<&Location, f64> = ring.shares().into_iter().collect();
        let now = self.shared.now().monotonic;
        let state = self.shared.state();
        let membership = &state.membership;
        let lines: Vec<String> = membership
            .members()
            .map(|member| {
                let share = shares.get(&member.location).unwrap_or(&0.0) * 100.0;
                let heard = last_heard(membership, &member.location, now);
                let Member {
                    location,
                    status,
                    incarnation,
                    ..
                } = member;
                format!("{location}  {status}  incarnation {incarnation}  {share:.1} % of the keys{heard}")
            })
            .collect();
        let (view, live) = (membership.view(), ring.len());
        drop(state);
        info!(
            "{} of network {} knows {live} live members, view {view:016x}:",
            self.location(),
            self.shared.network
        );
        for line in lines {
            info!("  {line}");
        }
    }

    /// Tells the log and the handler what has happened, in order, until the node stops.
    pub(super) fn announce(&self, events: &Receiver<Event>, on_change: impl Fn(&[Change])) {
        while let Ok(first) = events.recv() {
            let mut gathered = Vec::new();
            for event in std::iter::once(first).chain(events.try_iter()) {
                log_event(self.location(), &event);
                if let Event::RingChanged(changes) = event {
                    gathered.extend(changes);
                }
            }
            if !gathered.is_empty() {
                on_change(&gathered);
            }
        }
    }
}

/// What a member was last heard to see, to be added to a line of the log.
fn last_heard(membership: &Membership, location: &Location, now: Duration) -> String {
    let Some(heard) = membership.heard(location) else {
        return String::new();
    };
    let ago = now.saturating_sub(heard.at).as_secs();
    match heard.view {
        Some(view) if view == membership.view() => format!(", saw the same {ago} s ago"),
        Some(_) => format!(", saw something else {ago} s ago"),
        None => format!(", of the original, was there {ago} s ago"),
    }
}

/// The story of the network, in the original's words.
fn log_event(own: &Location, event: &Event) {
    match event {
        Event::RingChanged(changes) => {
            let of_others = |change: &&Change| change.location() != own;
            changes.iter().filter(of_others).for_each(log_change);
        }
        Event::Refuted { incarnation } => {
            info!("refuted what was said of this node, at incarnation {incarnation}");
        }
        Event::Suspected(peer) => info!("{peer} does not answer: suspected"),
        Event::Original { location, is_one } => {
            let kind = if *is_one {
                "a node of the original"
            } else {
                "no node of the original"
            };
            info!("{location} is {kind}");
        }
        Event::ForeignNetwork(peer, network) => warn!("{peer} is of another network: {network}"),
        Event::Disbelieved(peer, why) => warn!("in what {peer} told, {why}"),
        Event::Paused(time) => warn!("this node did not run for {:.1} s", time.as_secs_f64()),
    }
}

fn log_change(change: &Change) {
    match change {
        Change::Added { location, .. } => info!("added {location}"),
        Change::Removed {
            location,
            why: Why::Left,
        } => info!("removed {location}: it left"),
        Change::Removed {
            location,
            why: Why::Down,
        } => info!("removed {location}: it is down"),
        Change::Restarted { location, .. } => info!("restarted {location}"),
    }
}
