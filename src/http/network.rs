//! What a location node shows: all members and whether they agree, and the owner of a key.

use serde_json::{Value, json};

use super::Source;
use crate::error::Error;
use crate::hash_ring::point;
use crate::node::Node;
use crate::status::network::NetworkStatus;

/// The status of the whole network, as `locationstatus --json` prints it.
pub(super) fn status(node: &Node) -> Result<Value, Error> {
    Ok(NetworkStatus::ask_once(node.dialer(), node.location())?.json())
}

/// A key's point and its owner.
pub(super) fn key(node: &Node, key: &[u8]) -> Value {
    let ring = node.ring();
    let owners: Vec<&str> = ring
        .owner(key)
        .map(|owner| owner.name())
        .into_iter()
        .collect();
    json!({ "key": String::from_utf8_lossy(key), "point": point(key), "owners": owners })
}

/// What only this node knows: its members as it sees them, and what it has logged of them.
pub(super) fn here(source: &dyn Source, is_ready: bool) -> Value {
    let node = source.node();
    let members = node.members();
    let members = members.iter().map(|member| {
        json!({
            "location": member.location.name(),
            "state": member.status.to_string(),
            "incarnation": member.incarnation,
            "generation": member.generation,
            "tags": *member.tags,
        })
    });
    let members: Vec<Value> = members.collect();
    let events = node.recent_events().into_iter();
    let events: Vec<Value> = events
        .map(|(at, text)| json!({ "at": at, "text": text }))
        .collect();
    json!({
        "at": node.unix_millis(),
        "location": node.location().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": is_ready,
        "members": members,
        "events": events,
    })
}
