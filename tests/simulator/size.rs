//! How many bytes a message has in Thrift's binary protocol.

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{Gossip, Member, Request};

/// A message's version, type, name, sequence number and the stop of its arguments.
fn message(name: &str) -> u64 {
    4 + 4 + name.len() as u64 + 4 + 1
}

fn location(location: &Location) -> u64 {
    3 + 4 + location.address().len() as u64 + 3 + 2 + 1
}

fn record(member: &Member) -> u64 {
    3 + location(&member.location) + (3 + 8) + (3 + 4) + (3 + 8) + 1
}

fn locations(count: usize, example: &Location) -> u64 {
    3 + 5 + count as u64 * location(example)
}

/// A gossip in a message of `exchange`, either way.
pub fn exchange(gossip: &Gossip) -> u64 {
    let records: u64 = gossip.members.iter().map(record).sum();
    let network = 3 + 4 + gossip.network.len() as u64;
    let gossip = (3 + location(&gossip.sender)) + network + (3 + 8) + (3 + 5 + records) + (3 + 1);
    message("exchange") + 3 + gossip + 1
}

/// What a caller sends.
pub fn request(request: &Request) -> u64 {
    match request {
        Request::Exchange(gossip) => exchange(gossip),
        Request::Reach(target) => message("reach") + 3 + location(target),
        Request::GetAll => message("get_all"),
        Request::Add {
            location: place,
            authorities,
        }
        | Request::Remove {
            location: place,
            authorities,
        } => message("remove") + 3 + location(place) + locations(authorities.len(), place),
    }
}

/// What the callee of `reach` sends.
pub fn reached() -> u64 {
    message("reach") + 3 + 1
}
