//! The size of messages in Thrift's binary protocol, in bytes.

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Gossip, Member, Request};

/// A field's type and id, and a list's type and length.
const FIELD: u64 = 3;
const LIST: u64 = 5;
const STOP: u64 = 1;

/// Version, type, name and sequence number of a message, and the stop of its arguments.
fn message(name: &str) -> u64 {
    4 + 4 + name.len() as u64 + 4 + STOP
}

fn string(length: usize) -> u64 {
    4 + length as u64
}

fn location(location: &Location) -> u64 {
    FIELD + string(location.address().len()) + FIELD + 2 + STOP
}

fn record(member: &Member) -> u64 {
    FIELD + location(&member.location) + (FIELD + 8) + (FIELD + 4) + (FIELD + 8) + STOP
}

fn locations(count: usize, example: &Location) -> u64 {
    FIELD + LIST + count as u64 * location(example)
}

/// The request or the reply of `exchange`.
pub fn exchange(gossip: &Gossip) -> u64 {
    let records: u64 = gossip.members.iter().map(record).sum();
    let fields = (FIELD + location(&gossip.sender))
        + (FIELD + string(gossip.network.len()))
        + (FIELD + 8)
        + (FIELD + LIST + records)
        + (FIELD + 1)
        + (FIELD + 1);
    message("exchange") + FIELD + fields + STOP
}

/// A request.
pub fn request(request: &Request) -> u64 {
    match request {
        Request::Exchange(gossip) => exchange(gossip),
        Request::PingReq(target) => message("ping_req") + FIELD + location(target),
        Request::GetAll => message("get_all"),
        Request::Add(subject, authorities) | Request::Remove(subject, authorities) => {
            let authorities = locations(authorities.len(), subject);
            message("remove") + FIELD + location(subject) + authorities
        }
    }
}

/// The reply of `ping_req`.
pub fn ping_req_reply() -> u64 {
    message("ping_req") + FIELD + 1
}
