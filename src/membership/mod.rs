//! Membership: every node knows every member, and all nodes converge to the same members.
//!
//! The core only decides. Its inputs are the time, the outcomes of calls and the requests that
//! arrive; its outputs are calls to make and events. A driver owns the sockets, the clock and
//! the lock (see [`Membership`]). So a test can run a thousand nodes in one thread, from one
//! seed.
//!
//! # Records
//!
//! There is one [`Member`] record for each location. It holds a status and an incarnation,
//! which only the member itself raises. Two records of one location merge to the larger one,
//! so the order in which they arrive does not matter. A member writes ALIVE and LEFT about
//! itself. A node that cannot reach it writes SUSPECT, and a node whose suspect timeout has
//! expired writes DOWN. A member that receives a larger record about itself than its own
//! refutes it with a higher incarnation.
//!
//! The **digest** is the sum of the hashes of all live records: equal digests mean equal live
//! members. The **ring** contains the live members and, for some seconds, those in grace.
//!
//! # How a node joins
//!
//! 1. The new node writes itself ALIVE with the current time in milliseconds as incarnation. It
//!    calls `exchange` on its seeds and requests all records.
//! 2. The first seed that replies merges the new node's record and returns all its own. The new
//!    node has the whole ring after one call.
//! 3. Both have learned a record, so both are *hot*: within 20 ms, and every 100 ms from then
//!    on, each exchanges its rumors with 2 random members. A node that learns from a request
//!    becomes hot too, and says so in its reply (rumor mongering with feedback and a counter:
//!    Demers et al., 1987).
//! 4. After 3 exchanges in a row from which neither side learned, a node is *cold*.
//! 5. Anti-entropy repairs what rumors missed: every exchange compares digests. If they differ
//!    and no rumors explain it, both nodes send each other all records (push-pull).
//!
//! # How a crash is detected
//!
//! 1. Each node probes two members a second: its successor in sorted order, and the next one of
//!    a shuffled round (SWIM: Das, Gupta and Motivala, 2002). So some call fails within a
//!    second. Either the connection is *refused*: the host replies, the process is gone. Or
//!    there is *no reply* for half a second.
//! 2. The caller sends `ping_req` to three other members, which probe the failed one. One
//!    success ends the indirect probe, and so does a message from the member itself.
//! 3. Otherwise the caller writes SUSPECT, which spreads as a rumor. The suspect stays on all
//!    rings. Of the nodes that learn of the suspicion, eight on average send it to the suspect,
//!    so that it can refute.
//! 4. Without a refutation the suspect is DOWN and off the ring after 1 s (refused) or 4 s (no
//!    reply). DOWN spreads as a rumor too. A node with a bad local health score waits up to four
//!    times as long for a suspect that does not reply (Lifeguard: Dadgar, Phillips and Currey,
//!    2018).
//! 5. A DOWN record is kept for a day as a tombstone, and the location is called now and then.
//!    If the member runs after all, for example behind a healed network partition, that call
//!    carries the DOWN record to it, and it refutes. No record of the same generation replaces
//!    DOWN, neither ALIVE nor LEFT: the member returns with a new one, even if only to leave.
//!
//! If a helper reaches the member in step 2, only the link to it is cut
//! ([`cut_links`](Membership::cut_links)): the layer above calls it by way of the helper, and it is
//! probed every second. A DOWN member is [`silent`](Membership::silent) until its host answers that
//! no process listens there: it may be running on the other side of a split. Each node finds that
//! out itself, because a record cannot tell which node has asked.
//!
//! The driver reports failed calls of the layer above
//! ([`report_unreachable`](Membership::report_unreachable)). The member is then probed at once
//! with shorter timeouts: steps 1 to 4 take some 200 ms if the connection is refused.
//!
//! # Grace: how a healed partition keeps its members
//!
//! When two halves of a network meet again, each has the members of the other as DOWN. If these
//! records took effect at once, nearly all members would leave the rings for a moment. So a
//! member that changes from ALIVE to DOWN here without being SUSPECT in between stays on the ring
//! for 4 s of *grace*. One that was SUSPECT for less than 1 s stays until that second is over. A
//! refutation takes less time.
//!
//! # Pauses of the node's own process
//!
//! After a process was stopped or starved, the timeouts of all its calls expire at once. The
//! core notices that a tick is late. It then ignores the calls that got no reply during the
//! pause, extends all suspect timeouts by the lost time, and gossips, to learn whether it was
//! suspected itself.
//!
//! # Limits
//!
//! - 5,000 live members, 4,000 tombstones, 10,000 records in one gossip, 16 calls in flight.
//!   Live members over the limit are rejected, with one event per minute and sender; the
//!   oldest tombstones are dropped.
//! - Clocks may differ, and may be set back, by hours. A node whose clock is a day behind
//!   rejects the records of the others, with an event.
//! - 4 KiB of tags at a member. All records must fit a message: some 4,000 with so many tags.
//! - There is no authentication here: records of any node that can connect are merged.
//! - A group of nodes cannot find the others if every node that it ever knew is gone for good.
//! - A silent crash of one of two nodes looks like a partition, and each side of a partition sees
//!   the others as crashed. All sides continue, and merge when they meet.
//!
//! # Map
//!
//! | file | content |
//! |---|---|
//! | `core` | [`Membership`]: the state of one node, and its construction |
//! | `inputs`, `queries` | what the driver calls; what can be read |
//! | `schedule` | when a node gossips, probes and reconnects |
//! | `calls` | how calls are made, and what an `exchange` contains |
//! | `merge`, `apply` | how received records are merged; what a changed record causes |
//! | `failure_detector` | from a failed call to SUSPECT and DOWN |
//! | `legacy` | nodes without `exchange` |
//! | `member`, `tags`, `table`, `gossip` | the record and its tags; all records of a node; the message |
//! | `action`, `event`, `reports` | the outputs: calls to make, and events |
//! | `config` | all constants, with their units and reasons |
//! | `rumors`, `timers`, `rng` | data structures |

mod action;
mod apply;
mod calls;
pub mod config;
mod core;
mod event;
mod failure_detector;
pub mod gossip;
mod inputs;
mod legacy;
mod member;
mod merge;
mod queries;
mod reports;
mod rng;
mod rumors;
mod schedule;
mod table;
pub mod tags;
mod timers;

pub use action::{Action, Failure, Outcome, Request, Token};
pub use config::Config;
pub use core::{Contact, Membership, Now};
pub use event::{Change, ChangeKind, Event, RejectReason};
pub use gossip::{BadGossip, Gossip};
pub use member::{Member, Status};
pub use rng::Rng;
pub use table::{MemberTable, Merge};
pub use tags::{BadTags, Tags};
