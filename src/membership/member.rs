//! The record: what is said of one member, and which of two sayings wins.
//!
//! Two records of one location merge into the larger by (incarnation, status,
//! started). A maximum is commutative, associative and idempotent, so it does not
//! matter in which order, how often or by which way records arrive: whoever has
//! seen the same records believes the same.

use std::fmt;

use crate::location::{BadLocation, Location};
use crate::locator;

/// What is believed of a member. At one incarnation a later variant wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Said by the member itself: it runs.
    Alive,
    /// Said by one whose call failed: still on the ring, and given time to object.
    Suspect,
    /// Said by one whose suspicion ran out: off the ring.
    Down,
    /// Said by the member itself: off the ring, though its process may still answer.
    Left,
}

/// What one node says of one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Whom the record is about.
    pub location: Location,
    /// Raised by the member itself, at its start and whenever it is accused:
    /// `max(unix milliseconds, last seen of me + 1)`.
    pub incarnation: i64,
    /// What is believed of it.
    pub status: Status,
    /// The incarnation with which the process at that address became a member. A
    /// restart changes it (and has lost what was in memory), and so does coming back
    /// after one was taken for dead (and has missed what went on); refuting a mere
    /// suspicion does not.
    pub started: i64,
}

/// A wire record that says nothing that could be believed. Nothing was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadMember {
    /// The location is missing or names no place.
    Location(BadLocation),
    /// The status is missing or none that is known.
    Status,
    /// The incarnation is negative, or smaller than the process's start.
    Incarnation,
}

impl Status {
    /// Does a member of this status belong to the view, and to the ring?
    pub fn is_live(self) -> bool {
        self <= Status::Suspect
    }
}

impl Member {
    /// Does this record win over `other`, of the same location?
    pub fn beats(&self, other: &Member) -> bool {
        self.rank() > other.rank()
    }

    /// The larger of two records of one location.
    pub fn merge(self, other: Member) -> Member {
        if other.beats(&self) { other } else { self }
    }

    /// The same saying with another status, as an accuser or the clock writes it.
    pub fn with_status(&self, status: Status) -> Member {
        Member {
            status,
            ..self.clone()
        }
    }

    /// The record's part of a view: a 64-bit hash of all it says, the same on
    /// every machine and in every version.
    ///
    /// FNV-1a (offset `cbf29ce484222325`, prime `100000001b3`) over the bytes of
    /// the name, the incarnation (8, little endian), the status (1) and the start
    /// (8, little endian); then the finalizer of splitmix64, since FNV's last
    /// bytes reach few bits and a sum of related hashes must not cancel out.
    pub fn digest(&self) -> u64 {
        let bytes = self
            .location
            .name()
            .bytes()
            .chain(self.incarnation.to_le_bytes())
            .chain([self.status as u8])
            .chain(self.started.to_le_bytes());
        let sum = bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        super::random::mix(sum)
    }

    fn rank(&self) -> (i64, Status, i64) {
        (self.incarnation, self.status, self.started)
    }
}

impl TryFrom<&locator::Member> for Member {
    type Error = BadMember;

    fn try_from(wire: &locator::Member) -> Result<Member, BadMember> {
        let place = wire.location.clone().unwrap_or_default();
        let location = Location::try_from(&place).map_err(BadMember::Location)?;
        let status = wire.status.and_then(status_of_wire);
        let status = status.ok_or(BadMember::Status)?;
        let incarnation = wire.incarnation.unwrap_or(-1);
        let started = wire.started.unwrap_or(0);
        if started < 0 || incarnation < started {
            return Err(BadMember::Incarnation);
        }
        Ok(Member {
            location,
            incarnation,
            status,
            started,
        })
    }
}

impl From<&Member> for locator::Member {
    fn from(member: &Member) -> locator::Member {
        locator::Member::new(
            locator::Location::from(&member.location),
            member.incarnation,
            locator::Status::from(member.status),
            member.started,
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

fn status_of_wire(wire: locator::Status) -> Option<Status> {
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

impl fmt::Display for BadMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadMember::Location(bad) => write!(f, "a record of no place: {bad}"),
            BadMember::Status => f.write_str("a record of no known status"),
            BadMember::Incarnation => f.write_str("a record of an impossible incarnation"),
        }
    }
}

impl std::error::Error for BadMember {}
