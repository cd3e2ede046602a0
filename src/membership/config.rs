//! The constants of the protocol, with their units and reasons: intervals, timeouts and limits.
//!
//! All nodes of a network should use the same. Nodes with different ones still converge, within the
//! times of the slowest one.

use std::time::Duration;

use super::tags::Tags;

/// Interval in which a cold node probes two members: its successor in sorted order, and
/// the next one of a shuffled round. The successor bounds the time to detect a crash in a
/// network of any size; the round covers a successor that is down itself. 1 s: two
/// requests and two replies of some 100 bytes stay below 500 bytes a second. Beside legacy nodes
/// its successor of ours is a third one.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two gossip rounds of a hot node. 100 ms.
pub const GOSSIP_INTERVAL: Duration = Duration::from_millis(100);

/// The longest delay until the first gossip round of a node that became hot; the delay is
/// random. Short, because a rumor needs several hops; not zero, so that rumors which
/// arrive together are sent together. 20 ms.
pub const MAX_GOSSIP_DELAY: Duration = Duration::from_millis(20);

/// Random members that a hot node exchanges rumors with in each round. 2.
pub const GOSSIP_FANOUT: usize = 2;

/// Gossip exchanges in a row from which neither side learned, after which a node is cold
/// ("feedback with a counter", Demers et al., 1987). 3: with fewer, more nodes depend on
/// the slower anti-entropy; with more, a crash, which is two rumors, costs over ten calls
/// a node.
pub const MAX_USELESS_EXCHANGES: u32 = 3;

/// Rumors in one exchange. Anti-entropy spreads the rest. 256 records are some 15 kB.
pub const MAX_RUMORS: usize = 256;

/// The shortest interval between two push-pulls that a node starts. 1 s: while many records
/// change, digests differ all the time, and each exchange would send all records.
pub const PUSH_PULL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval in which one missing seed, and perhaps one DOWN member, is called, so that a
/// healed partition merges. 2 s.
pub const RECONNECT_INTERVAL: Duration = Duration::from_secs(2);

/// The same for a node that knows no other live member. 250 ms: a seed may be starting, and
/// the node has no other calls to make.
pub const JOIN_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long the driver waits for a reply before it reports
/// [`NoReply`](super::Outcome::NoReply). 500 ms.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a member that received `ping_req` waits for the target's reply. 400 ms: less
/// than [`CALL_TIMEOUT`], so that a negative reply still arrives in time.
pub const PING_REQ_TIMEOUT: Duration = Duration::from_millis(400);

/// Members that are sent `ping_req` before a member is suspected. 3 (SWIM's k).
pub const PING_REQ_FANOUT: usize = 3;

/// From SUSPECT to DOWN if the connection was refused: the host replies, the process is
/// gone. 1 s, for a process that restarts and for refutations.
pub const REFUSED_SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);

/// From SUSPECT to DOWN if there was no reply; multiplied by local health. 4 s: longer
/// than a busy machine pauses a process.
pub const SUSPECT_TIMEOUT: Duration = Duration::from_secs(4);

/// From SUSPECT to DOWN if the layer above reported the member and the connection was
/// refused. 150 ms, for some 200 ms in total.
pub const URGENT_REFUSED_SUSPECT_TIMEOUT: Duration = Duration::from_millis(150);

/// From SUSPECT to DOWN if the layer above reported the member and there was no reply;
/// multiplied by local health. 2 s, for less than 5 s in total: 1.5 s until the first call
/// has failed, 1 s for the probe and the indirect probe, and this. With the indirect probe
/// it takes longer than the 2 s after which a node without contact stops serving its keys,
/// so a node is not replaced while it still serves.
pub const URGENT_SUSPECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes that send the suspect its own record, on average, of all that learn of a
/// suspicion. 8: enough that one of them reaches it.
pub const SUSPECT_NOTIFIERS: usize = 8;

/// How late a tick must be for the process to count as paused. 500 ms, as [`CALL_TIMEOUT`]:
/// after such a pause, calls have timed out without the peers' fault.
pub const PAUSE_THRESHOLD: Duration = Duration::from_millis(500);

/// How long the tombstone of a LEFT member is kept, so that late rumors are recognized as
/// stale. 1 h.
pub const LEFT_RETENTION: Duration = Duration::from_secs(3600);

/// How long a leaving node still replies. 500 ms, as [`CALL_TIMEOUT`]: calls that were made
/// before the others knew get their reply.
pub const LEAVE_LINGER: Duration = Duration::from_millis(500);

/// Members that a leaving node informs. 3.
pub const LEAVE_FANOUT: usize = 3;

/// Calls in flight. 16: enough to gossip at full speed while every second call times out.
pub const MAX_CALLS: usize = 16;

/// After this time the core drops a call whose outcome the driver never reported. 10 s.
pub const CALL_LIFETIME: Duration = Duration::from_secs(10);

/// Calls to a candidate, a location known from `join`, `add` or `get_all` only, before it
/// is recorded as DOWN; at most one [`RECONNECT_INTERVAL`] apart. 5.
pub const MAX_ATTEMPTS: u32 = 5;

/// Locations that wait for a probe outside the schedule. 64.
pub const MAX_QUEUED_PROBES: usize = 64;

/// How far an incarnation may be ahead of this node's clock. 24 h: a clock that is wrong by
/// more must be corrected before its node can take part.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// The shortest interval between two events about rejected gossip of one sender. 1 min.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The tags of a node, and the constants that tests vary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a member stays on the ring after it changed from ALIVE to DOWN here without being
    /// SUSPECT in between. 4 s: when the sides of a partition meet, members of both are DOWN on
    /// the other side and need this time to refute.
    pub grace: Duration,
    /// How long the tombstone of a DOWN member is kept, and its location called. 24 h.
    pub down_retention: Duration,
    /// Live members in the table; more are rejected. 5,000: with the tombstones, all records
    /// must fit in one gossip ([`MAX_RECORDS`](super::gossip::MAX_RECORDS)).
    pub max_live: usize,
    /// DOWN and LEFT records in the table; the oldest are dropped first. 4,000.
    pub max_tombstones: usize,
    /// What the operator says about this node.
    pub tags: Tags,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grace: Duration::from_secs(4),
            down_retention: Duration::from_secs(24 * 3600),
            max_live: 5_000,
            max_tombstones: 4_000,
            tags: Tags::default(),
        }
    }
}
