//! `Gossip`: the request and the reply of an `exchange`.

use std::sync::Arc;

use super::member::Member;
use crate::location::{BadLocation, Location};
use crate::locator;

/// Records in one gossip. More than a full table has, so a longer gossip is malformed and is
/// rejected as a whole.
pub const MAX_RECORDS: usize = 10_000;

/// Length of a network's name in bytes.
pub const MAX_NETWORK_NAME: usize = 255;

/// The request or the reply of an `exchange`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// The node that sends it.
    pub sender: Location,
    /// The sender's network: its service type and, behind a slash, its id unless the sender has
    /// none yet. Networks of different names do not merge.
    pub network: Arc<str>,
    /// The sender's digest: the wrapping sum of its live records' digests.
    pub digest: u64,
    /// Rumors, corrections, or every record of the sender.
    pub members: Vec<Member>,
    /// In a request: `members` is everything the sender knows; reply with the rest.
    pub full: bool,
    /// In a reply: the request changed the table of the node that replies, so the caller stays
    /// hot.
    pub learned: bool,
    /// In the reply to `members`: the peer through which the sender is joining.
    pub joins: Option<Location>,
    /// Records that could not be read and were left out. 0 in a gossip to be sent.
    pub refused: usize,
}

/// Why a gossip was rejected as a whole. Nothing was merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGossip {
    /// The sender is missing or is no valid location.
    #[error("a gossip without a valid sender: {0}")]
    Sender(BadLocation),
    /// The network is missing, empty, or longer than [`MAX_NETWORK_NAME`].
    #[error("a gossip without a valid network name")]
    Network,
    /// It has this number of records, more than [`MAX_RECORDS`].
    #[error("a gossip of {0} records, over {MAX_RECORDS}")]
    TooMany(usize),
}

impl TryFrom<locator::Gossip> for Gossip {
    type Error = BadGossip;

    /// Reads a gossip. Malformed records are left out and counted.
    fn try_from(wire: locator::Gossip) -> Result<Gossip, BadGossip> {
        let sender = wire.sender.unwrap_or_default();
        let sender = Location::try_from(&sender).map_err(BadGossip::Sender)?;
        let network = wire.network.unwrap_or_default();
        if network.is_empty() || network.len() > MAX_NETWORK_NAME {
            return Err(BadGossip::Network);
        }
        let records = wire.members.unwrap_or_default();
        if records.len() > MAX_RECORDS {
            return Err(BadGossip::TooMany(records.len()));
        }
        let members: Vec<Member> = records.iter().filter_map(Member::from_wire).collect();
        Ok(Gossip {
            sender,
            network: network.into(),
            digest: wire.membership_digest.unwrap_or(0) as u64,
            refused: records.len() - members.len(),
            members,
            full: wire.full.unwrap_or(false),
            learned: wire.learned.unwrap_or(false),
            joins: wire.joins.and_then(|peer| Location::try_from(&peer).ok()),
        })
    }
}

impl From<&Gossip> for locator::Gossip {
    fn from(gossip: &Gossip) -> locator::Gossip {
        let members: Vec<locator::Member> = gossip.members.iter().map(Into::into).collect();
        locator::Gossip::new(
            locator::Location::from(&gossip.sender),
            gossip.network.to_string(),
            gossip.digest as i64,
            members,
            gossip.full,
            gossip.learned,
            gossip.joins.as_ref().map(locator::Location::from),
        )
    }
}
