//! The constants of the protocol, with their units and reasons.

use std::time::Duration;

/// How often, how long and how many. All nodes of a network should agree on them;
/// nothing breaks when they do not, but the bounds promised are then the worst of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At rest, one exchange in this time with the next member of a shuffled round,
    /// and one with the successor in sorted order. The successor's turn bounds how
    /// long a failure stays unseen at any number of nodes; the round finds what the
    /// successor alone would miss. 1 s: two requests and two replies of some 100
    /// bytes a second are within 500 bytes a second.
    pub probe_interval: Duration,
    /// While hot, the time between two rounds of gossip. 100 ms.
    pub gossip_interval: Duration,
    /// The longest wait of a node that has just become hot. Short, so that news
    /// crosses the network in a few of these and not in as many gossip intervals;
    /// not zero, so that what arrives together goes on together. 20 ms.
    pub gossip_delay: Duration,
    /// Random members exchanged with in each round of gossip. 2.
    pub gossip_fanout: usize,
    /// Exchanges in a row that taught neither side anything, after which a node is
    /// cold. 3: fewer leave more nodes to the slower repair by views; with more, a death,
    /// which is two changes, takes over ten calls a node (Demers et al. 1987,
    /// "feedback with a counter").
    pub gossip_misses: u32,
    /// Most records of recent news carried in one exchange; what does not fit is
    /// repaired by views. 256 records are some 15 kB.
    pub most_news: usize,
    /// The least time between two full exchanges that a node begins. 1 s: while
    /// much changes at once, views always differ, and everything would be sent always.
    pub full_interval: Duration,
    /// Every so often one given peer that is not live is tried, and perhaps one
    /// DOWN member, so that a split network finds itself again. 2 s.
    pub heal_interval: Duration,
    /// The same while a node knows no other live one: it has nothing else to do,
    /// and its peer may be just starting. 250 ms.
    pub alone_interval: Duration,
    /// The longest that the driver waits for a reply; after it, it reports
    /// `Silent`. 500 ms.
    pub call_timeout: Duration,
    /// The longest that a helper tries on behalf of another (`reach`). Less than
    /// `call_timeout`, so that "no" still arrives in time. 400 ms.
    pub reach_timeout: Duration,
    /// Members asked to `reach` one that failed us, before it is suspected. 3.
    pub helpers: usize,
    /// From SUSPECT to DOWN when the connection was refused: the host is there and
    /// says that the process is not. 1 s, for one that restarts or is being refuted.
    pub refused_suspicion: Duration,
    /// From SUSPECT to DOWN when there was no answer, times own health. 4 s: longer
    /// than the pauses of a busy machine.
    pub silent_suspicion: Duration,
    /// From SUSPECT to DOWN when the layer above waits for the verdict, and the
    /// connection was refused. 150 ms, so that all of it takes some 200 ms.
    pub verdict_suspicion: Duration,
    /// The same when there was no answer, times own health. 2 s, so that all of it
    /// takes less than 5 s: up to 1.5 s until a call has failed, 1 s until a probe and
    /// those of the helpers have, and this. Together with the helpers' time it is longer
    /// than a node may be out of touch (2 s) before it stops answering for what it holds.
    pub silent_verdict_suspicion: Duration,
    /// How many of those who hear of an accusation tell the accused, on average, so
    /// that it can object. 8.
    pub tellers: usize,
    /// How long a member stays on the ring that jumped to DOWN without having been
    /// SUSPECT here. 4 s: when two halves of a split network meet, each tells the
    /// other that it is dead, and the dead need this time to object.
    pub grace: Duration,
    /// How late a tick may come before the node takes itself to have been paused.
    /// 500 ms, the timeout of a call: a pause as long has made calls look silent.
    pub pause_tolerance: Duration,
    /// How long a DOWN member is remembered, and tried. 24 h.
    pub down_kept: Duration,
    /// How long a LEFT member is remembered, so that late news of it is known to be
    /// old. 1 h.
    pub left_kept: Duration,
    /// How long a leaving node stays to answer after it began to leave. 500 ms.
    pub linger: Duration,
    /// Members told by a leaving node before it goes. 3.
    pub told_of_leaving: usize,
    /// Most live members; a further one is refused. 5,000. With the tombstones a
    /// full exchange must stay within `gossip::MOST_RECORDS`.
    pub most_live: usize,
    /// Most DOWN and LEFT records; the oldest are forgotten first. 4,000.
    pub most_tombstones: usize,
    /// Most calls outstanding. 16: enough for gossip at full speed while every
    /// second peer is silent.
    pub most_calls: usize,
    /// When the core gives up a call that the driver never reported. 10 s.
    pub call_lifetime: Duration,
    /// Times that a location of which we only heard (by `join`, `add` or `get_all`)
    /// is tried, one `heal_interval` apart at most, before it counts as DOWN. 5.
    pub attempts: u32,
    /// Most locations waiting to be tried out of turn. 64.
    pub most_waiting: usize,
    /// How far ahead of our clock an incarnation may be. One day: a clock that is
    /// wrong by more must be set right before its node can take part.
    pub most_ahead: Duration,
    /// The least time between two complaints of one sender. 1 min.
    pub complaint_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        let millis = Duration::from_millis;
        let seconds = Duration::from_secs;
        Settings {
            probe_interval: seconds(1),
            gossip_interval: millis(100),
            gossip_delay: millis(20),
            gossip_fanout: 2,
            gossip_misses: 3,
            most_news: 256,
            full_interval: seconds(1),
            heal_interval: seconds(2),
            alone_interval: millis(250),
            call_timeout: millis(500),
            reach_timeout: millis(400),
            helpers: 3,
            refused_suspicion: seconds(1),
            silent_suspicion: seconds(4),
            verdict_suspicion: millis(150),
            silent_verdict_suspicion: seconds(2),
            tellers: 8,
            grace: seconds(4),
            pause_tolerance: millis(500),
            down_kept: seconds(24 * 3600),
            left_kept: seconds(3600),
            linger: millis(500),
            told_of_leaving: 3,
            most_live: 5_000,
            most_tombstones: 4_000,
            most_calls: 16,
            call_lifetime: seconds(10),
            attempts: 5,
            most_waiting: 64,
            most_ahead: seconds(24 * 3600),
            complaint_interval: seconds(60),
        }
    }
}
