//! `Member`: one node's record of one location, and which of two records supersedes the other.
//!
//! Two records of one location merge to the larger by (incarnation, status, generation, tags). A
//! maximum is commutative, associative and idempotent: nodes that have received the same records
//! have equal tables, in whatever order, however often and by whatever path the records arrived.

use std::fmt;

use super::tags::Tags;
use crate::location::Location;
use crate::locator;

/// The state of a member. At an equal incarnation a later variant supersedes an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Written by the member itself: it runs.
    Alive,
    /// Written by a node that could not reach it: on the ring, with time to refute.
    Suspect,
    /// Written by a node whose suspect timeout has expired: off the ring.
    Down,
    /// Written by the member itself: off the ring, though its process may still reply.
    Left,
}

/// A record of one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The location that the record is about.
    pub location: Location,
    /// Raised by the member itself, when it starts and when it refutes: the larger one of its unix
    /// milliseconds and the last known incarnation + 1.
    pub incarnation: i64,
    /// The state of the member.
    pub status: Status,
    /// The incarnation with which the process at that location became a member. A new one means
    /// that state of the old one is lost: the process has restarted, or it was declared down and
    /// has missed what the others did since. Refuting a suspicion does not change it. 0 for a
    /// legacy node: nobody can tell whether its process has restarted.
    pub generation: i64,
    /// What its operator says about it. The same for all records of a generation, unless a sender
    /// lies: then the member refutes the larger ones. A legacy node has none.
    pub tags: Tags,
}

impl Status {
    /// Is a member with this status part of the digest and of the ring?
    pub fn is_live(self) -> bool {
        self <= Status::Suspect
    }
}

impl Member {
    /// Is this the record of a legacy node? All members know that before they put it on a ring.
    pub fn is_legacy(&self) -> bool {
        self.generation == 0
    }

    /// Is this record larger than `other`, of the same location?
    pub fn supersedes(&self, other: &Member) -> bool {
        self.rank() > other.rank()
    }

    /// The larger of two records of one location.
    pub fn merge(self, other: Member) -> Member {
        if other.supersedes(&self) { other } else { self }
    }

    /// Does `known` declare the process down that this record calls live or leaving? Then this
    /// record does not replace `known`, even if it is larger: others have continued without the
    /// process. A legacy node returns as it is.
    pub fn was_declared_down(&self, known: &Member) -> bool {
        let is_same = self.generation == known.generation && !self.is_legacy();
        is_same && known.status == Status::Down && self.status != Status::Down
    }

    /// The same record with another status, as a failure detector or a leaving member writes it.
    pub fn with_status(&self, status: Status) -> Member {
        Member {
            status,
            ..self.clone()
        }
    }

    /// The record's part of a digest: a 64-bit hash of all its fields, equal on every machine and
    /// in every version.
    ///
    /// FNV-1a (offset `cbf29ce484222325`, prime `100000001b3`) over the bytes of the location's
    /// name, the incarnation (8, little endian), the status (1), the generation (8, little endian)
    /// and each tag (`NAME=VALUE` and a zero byte, sorted); then the finalizer of splitmix64, because
    /// the last bytes of FNV change few bits, and related hashes must not cancel out in a sum.
    pub fn digest(&self) -> u64 {
        let tags = self.tags.iter().flat_map(|(name, value)| {
            let parts = [name.as_bytes(), b"=", value.as_bytes(), b"\0"];
            parts.into_iter().flatten().copied()
        });
        let bytes = self
            .location
            .name()
            .bytes()
            .chain(self.incarnation.to_le_bytes())
            .chain([self.status as u8])
            .chain(self.generation.to_le_bytes())
            .chain(tags);
        let sum = bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        super::rng::mix(sum)
    }

    /// Reads a record from the wire. None if its location or status is missing or invalid, its
    /// incarnation is negative or smaller than its generation, or it has bad tags.
    pub fn from_wire(wire: &locator::Member) -> Option<Member> {
        let generation = wire.generation.unwrap_or(0);
        let incarnation = wire.incarnation?;
        let tags = Tags::new(wire.tags.clone().unwrap_or_default()).ok()?;
        let has_owner = generation != 0 || tags.is_empty();
        let is_possible = has_owner && (0..=incarnation).contains(&generation);
        is_possible.then_some(Member {
            location: wire.location.as_ref()?.try_into().ok()?,
            incarnation,
            status: wire.status.and_then(status_from_wire)?,
            generation,
            tags,
        })
    }

    fn rank(&self) -> (i64, Status, i64, &Tags) {
        let tags = &self.tags;
        (self.incarnation, self.status, self.generation, tags)
    }
}

impl From<&Member> for locator::Member {
    fn from(member: &Member) -> locator::Member {
        locator::Member::new(
            locator::Location::from(&member.location),
            member.incarnation,
            locator::Status::from(member.status),
            member.generation,
            Some((*member.tags).clone()).filter(|tags| !tags.is_empty()),
        )
    }
}

impl From<Status> for locator::Status {
    fn from(status: Status) -> locator::Status {
        match status {
            Status::Alive => locator::Status::ALIVE,
            Status::Suspect => locator::Status::SUSPECT,
            Status::Down => locator::Status::DOWN,
            Status::Left => locator::Status::LEFT,
        }
    }
}

fn status_from_wire(wire: locator::Status) -> Option<Status> {
    [Status::Alive, Status::Suspect, Status::Down, Status::Left]
        .into_iter()
        .find(|&status| locator::Status::from(status) == wire)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Alive => "alive",
            Status::Suspect => "suspect",
            Status::Down => "down",
            Status::Left => "left",
        })
    }
}
