//! `Config`: the constants of the protocol, with their units and reasons.

use std::time::Duration;

/// Intervals, timeouts and limits. All nodes of a network should use the same. Nodes with
/// different ones still converge, within the times of the slowest one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Interval in which a cold node probes two members: its successor in sorted order, and
    /// the next one of a shuffled round. The successor bounds the time to detect a crash in a
    /// network of any size; the round covers a successor that is down itself. 1 s: two
    /// requests and two replies of some 100 bytes stay below 500 bytes a second. Beside legacy nodes
    /// its successor of ours is a third one.
    pub probe_interval: Duration,
    /// Interval between two gossip rounds of a hot node. 100 ms.
    pub gossip_interval: Duration,
    /// The longest delay until the first gossip round of a node that became hot; the delay is
    /// random. Short, because a rumor needs several hops; not zero, so that rumors which
    /// arrive together are sent together. 20 ms.
    pub max_gossip_delay: Duration,
    /// Random members that a hot node exchanges rumors with in each round. 2.
    pub gossip_fanout: usize,
    /// Gossip exchanges in a row from which neither side learned, after which a node is cold
    /// ("feedback with a counter", Demers et al., 1987). 3: with fewer, more nodes depend on
    /// the slower anti-entropy; with more, a crash, which is two rumors, costs over ten calls
    /// a node.
    pub max_useless_exchanges: u32,
    /// Rumors in one exchange. Anti-entropy spreads the rest. 256 records are some 15 kB.
    pub max_rumors: usize,
    /// The shortest interval between two push-pulls that a node starts. 1 s: while many records
    /// change, digests differ all the time, and each exchange would send all records.
    pub push_pull_interval: Duration,
    /// Interval in which one missing seed, and perhaps one DOWN member, is called, so that a
    /// healed partition merges. 2 s.
    pub reconnect_interval: Duration,
    /// The same for a node that knows no other live member. 250 ms: a seed may be starting, and
    /// the node has no other calls to make.
    pub join_retry_interval: Duration,
    /// How long the driver waits for a reply before it reports
    /// [`NoReply`](super::Outcome::NoReply). 500 ms.
    pub call_timeout: Duration,
    /// How long a member that received `ping_req` waits for the target's reply. 400 ms: less
    /// than `call_timeout`, so that a negative reply still arrives in time.
    pub ping_req_timeout: Duration,
    /// Members that are sent `ping_req` before a member is suspected. 3 (SWIM's k).
    pub ping_req_fanout: usize,
    /// From SUSPECT to DOWN if the connection was refused: the host replies, the process is
    /// gone. 1 s, for a process that restarts and for refutations.
    pub refused_suspect_timeout: Duration,
    /// From SUSPECT to DOWN if there was no reply; multiplied by local health. 4 s: longer
    /// than a busy machine pauses a process.
    pub suspect_timeout: Duration,
    /// From SUSPECT to DOWN if the layer above reported the member and the connection was
    /// refused. 150 ms, for some 200 ms in total.
    pub urgent_refused_suspect_timeout: Duration,
    /// From SUSPECT to DOWN if the layer above reported the member and there was no reply;
    /// multiplied by local health. 2 s, for less than 5 s in total: 1.5 s until the first call
    /// has failed, 1 s for the probe and the indirect probe, and this. With the indirect probe
    /// it takes longer than the 2 s after which a node without contact stops serving its keys,
    /// so a node is not replaced while it still serves.
    pub urgent_suspect_timeout: Duration,
    /// Nodes that send the suspect its own record, on average, of all that learn of a
    /// suspicion. 8: enough that one of them reaches it.
    pub suspect_notifiers: usize,
    /// How long a member stays on the ring after it changed from ALIVE to DOWN here without being
    /// SUSPECT in between. 4 s: when the sides of a partition meet, members of both are DOWN on
    /// the other side and need this time to refute.
    pub grace: Duration,
    /// How late a tick must be for the process to count as paused. 500 ms, as `call_timeout`:
    /// after such a pause, calls have timed out without the peers' fault.
    pub pause_threshold: Duration,
    /// How long the tombstone of a DOWN member is kept, and its location called. 24 h.
    pub down_retention: Duration,
    /// How long the tombstone of a LEFT member is kept, so that late rumors are recognized as
    /// stale. 1 h.
    pub left_retention: Duration,
    /// How long a leaving node still replies. 500 ms, as `call_timeout`: calls that were made
    /// before the others knew get their reply.
    pub leave_linger: Duration,
    /// Members that a leaving node informs. 3.
    pub leave_fanout: usize,
    /// Live members in the table; more are rejected. 5,000: with the tombstones, all records
    /// must fit in one gossip ([`MAX_RECORDS`](super::gossip::MAX_RECORDS)).
    pub max_live: usize,
    /// DOWN and LEFT records in the table; the oldest are dropped first. 4,000.
    pub max_tombstones: usize,
    /// Calls in flight. 16: enough to gossip at full speed while every second call times out.
    pub max_calls: usize,
    /// After this time the core drops a call whose outcome the driver never reported. 10 s.
    pub call_lifetime: Duration,
    /// Calls to a candidate, a location known from `join`, `add` or `get_all` only, before it
    /// is recorded as DOWN; at most one `reconnect_interval` apart. 5.
    pub max_attempts: u32,
    /// Locations that wait for a probe outside the schedule. 64.
    pub max_queued_probes: usize,
    /// How far an incarnation may be ahead of this node's clock. 24 h: a clock that is wrong by
    /// more must be corrected before its node can take part.
    pub max_clock_skew: Duration,
    /// The shortest interval between two events about rejected gossip of one sender. 1 min.
    pub report_interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        let millis = Duration::from_millis;
        let seconds = Duration::from_secs;
        Config {
            probe_interval: seconds(1),
            gossip_interval: millis(100),
            max_gossip_delay: millis(20),
            gossip_fanout: 2,
            max_useless_exchanges: 3,
            max_rumors: 256,
            push_pull_interval: seconds(1),
            reconnect_interval: seconds(2),
            join_retry_interval: millis(250),
            call_timeout: millis(500),
            ping_req_timeout: millis(400),
            ping_req_fanout: 3,
            refused_suspect_timeout: seconds(1),
            suspect_timeout: seconds(4),
            urgent_refused_suspect_timeout: millis(150),
            urgent_suspect_timeout: seconds(2),
            suspect_notifiers: 8,
            grace: seconds(4),
            pause_threshold: millis(500),
            down_retention: seconds(24 * 3600),
            left_retention: seconds(3600),
            leave_linger: millis(500),
            leave_fanout: 3,
            max_live: 5_000,
            max_tombstones: 4_000,
            max_calls: 16,
            call_lifetime: seconds(10),
            max_attempts: 5,
            max_queued_probes: 64,
            max_clock_skew: seconds(24 * 3600),
            report_interval: seconds(60),
        }
    }
}
