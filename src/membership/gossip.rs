//! `Gossip`: what two nodes tell one another in an `exchange`.

use std::fmt;
use std::sync::Arc;

use super::member::Member;
use crate::location::{BadLocation, Location};
use crate::locator;

/// Most records taken from one gossip. More than a full network can have, so a
/// longer one is a mistake or a lie and is refused whole.
pub const MOST_RECORDS: usize = 10_000;

/// Longest name of a network, in bytes.
pub const LONGEST_NETWORK: usize = 255;

/// A request or a reply of `exchange`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// Who speaks.
    pub sender: Location,
    /// The speaker's network. Differently named networks do not merge.
    pub network: Arc<str>,
    /// The speaker's view: the wrapping sum of its live records' digests.
    pub view: u64,
    /// Recent news, corrections, or all that the speaker knows.
    pub members: Vec<Member>,
    /// In a request: "answer with all you know that I did not send".
    /// In a reply: "you taught me something", which keeps the caller hot.
    pub full: bool,
    /// Records that came in and were refused when they were read. 0 in what goes out.
    pub refused: usize,
}

/// A wire gossip that cannot be answered. Nothing was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadGossip {
    /// The sender is missing or no place.
    Sender(BadLocation),
    /// The network is missing, empty, or longer than [`LONGEST_NETWORK`].
    Network,
    /// More than [`MOST_RECORDS`] records.
    TooMany(usize),
}

impl TryFrom<locator::Gossip> for Gossip {
    type Error = BadGossip;

    /// Reads a gossip; records that say nothing believable are left out and counted.
    fn try_from(wire: locator::Gossip) -> Result<Gossip, BadGossip> {
        let sender = wire.sender.unwrap_or_default();
        let sender = Location::try_from(&sender).map_err(BadGossip::Sender)?;
        let network = wire.network.unwrap_or_default();
        if network.is_empty() || network.len() > LONGEST_NETWORK {
            return Err(BadGossip::Network);
        }
        let records = wire.members.unwrap_or_default();
        if records.len() > MOST_RECORDS {
            return Err(BadGossip::TooMany(records.len()));
        }
        let members: Vec<Member> = records.iter().filter_map(|r| r.try_into().ok()).collect();
        Ok(Gossip {
            sender,
            network: network.into(),
            view: wire.view.unwrap_or(0) as u64,
            refused: records.len() - members.len(),
            members,
            full: wire.full.unwrap_or(false),
        })
    }
}

impl From<&Gossip> for locator::Gossip {
    fn from(gossip: &Gossip) -> locator::Gossip {
        let members: Vec<locator::Member> = gossip.members.iter().map(Into::into).collect();
        locator::Gossip::new(
            locator::Location::from(&gossip.sender),
            gossip.network.to_string(),
            gossip.view as i64,
            members,
            gossip.full,
        )
    }
}

impl fmt::Display for BadGossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadGossip::Sender(bad) => write!(f, "a gossip from no place: {bad}"),
            BadGossip::Network => f.write_str("a gossip of an unnamed network"),
            BadGossip::TooMany(records) => {
                write!(f, "a gossip of {records} records; {MOST_RECORDS} are taken")
            }
        }
    }
}

impl std::error::Error for BadGossip {}
