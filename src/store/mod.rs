//! diststore: a replicated key-value store on the location service.
//!
//! A key is held by its *owners*: its first N nodes on the ring (N copies, three by default), of
//! distinct zones as far as there are any ([`placement`]).
//! The first owner is the *primary*, which orders the key's writes. An acknowledged write is
//! on all owners, so any N−1 of them may die at once. While nodes come and go, keys move to
//! where the ring places them and can be read and written throughout.
//!
//! # The life of a write
//!
//! 1. Any node accepts it, gives it an id unless its client did, and forwards it to the key's
//!    primary in its current placement (`write`), together with other writes (`forwarder`). A node
//!    that is not the primary says so, and the sender looks it up again. A request has a
//!    deadline by the primary's clock ([`primary_clocks`]): it does not start when its sender
//!    has given up.
//! 2. The primary locks the key (`write_locks`): writes of one key follow one another. A write
//!    that is known by its id is answered ([`recent_writes`], [`recent_placements`]). Otherwise
//!    the primary reads the latest version where the key is read and assigns a larger one
//!    ([`versions`], [`key_writes`]). A deletion is the write of a tombstone. A write may depend
//!    on the version that it finds, 0 for no value; beside legacy nodes that is refused.
//! 3. It sends copies to the owners in *every* placement of its list ([`rebalance`]). An
//!    owner keeps a copy whatever placement it has itself, unless it has no room or takes the
//!    primary for gone, and answers with its own current placement. If the primary does not
//!    know that one, or the owner does not know who is gone, the two exchange the membership,
//!    and the owners in that placement get copies too. A copy is not shown until the write is
//!    finished ([`unfinished_copies`]).
//!    Copies of several writes for one owner go there in one call (`replicator`).
//! 4. An owner that cannot be reached is reported to the membership. The write goes on in the
//!    background (`finisher`) until the owner replies or is declared down, or is undone at its
//!    deadline. Its sender asks again by the id.
//! 5. When no owner is left to reach, the primary applies the write to its own table and
//!    acknowledges it. What can be read at the primary is therefore on all owners.
//!
//! # The life of a read
//!
//! The first owner in the read placement that is not gone answers from its table. If what it has
//! is an unfinished copy, it waits for the process that coordinates the write ([`write_sequence`])
//! or, if that is gone, brings the copy to all owners itself. A node that may not answer refuses and
//! never says "missing": it joined just now, or has heard no member for two seconds and may have
//! been declared down, or has nothing of a key that may be on the other side of a split.
//!
//! # A node joins, leaves, dies, hangs
//!
//! * **Joins.** It adopts the list of placements from an admitted node, serves clients when
//!   all members have confirmed it, and copies what it owns, slowly while clients keep it or
//!   its source busy (`throttle`). Then all switch to the new placement and drop what they do
//!   not own any more.
//! * **Leaves** (ctrl-C, SIGTERM, `die()`). It is off the ring at once, and serves copies and
//!   reads until all members have switched to a placement without it (`handoff`).
//! * **Dies.** The other owners have all it held. Reads and writes of the keys whose primary it
//!   was wait until it is declared down, about 200 ms if its host refuses connections. The next
//!   nodes on the ring copy what it held.
//! * **Cannot reach another one.** The `watchdog` reports calls without a reply, and the membership
//!   finds out who reaches that node. Calls go by way of that one.
//! * **Hangs.** Like a death, after the seconds that it takes to distinguish a hanging node
//!   from a slow one. When it continues, it joins again with the table it has, in which
//!   larger versions replace what it missed.
//!
//! # Assumptions and limits
//!
//! A member that is declared down is down, or joins again. If the network splits, both sides go on,
//! or the smaller one stops (`split`, [`quorum`]). Tombstones are kept for sixty sweeps, and as long
//! as a member may return that is out of reach. An unanswered write takes effect for good, or not
//! at all. A rebalance involves every member: a store is for dozens of nodes. There are no vector
//! clocks, Merkle trees, hinted handoffs, consensus, times to live or transactions. Tables are not
//! ordered by key: a [listing](list) is sorted by who asks for it.
//!
//! With a [data directory](durable) entries are on disk too, and a network that has ended as a whole
//! is restored from the directories of its nodes.
//!
//! Legacy nodes are on the ring but in no placement. A key that belongs to one by the ring is
//! put to it as well and read from it first, without any promise (`legacy`).

pub mod durable;
mod execution;
mod fast_path;
mod finisher;
pub(crate) mod forwarder;
pub mod handler;
mod handoff;
pub mod key_writes;
mod legacy;
pub mod limits;
pub mod list;
pub mod network_scan;
mod owner_calls;
pub mod placement;
mod primary;
pub mod primary_clocks;
pub mod quorum;
mod read;
pub mod rebalance;
mod rebalancer;
pub mod recent_placements;
pub mod recent_writes;
mod recovered;
mod recovery;
mod remote_read;
mod replicator;
mod split;
pub mod split_losses;
#[allow(clippy::module_inception)]
pub mod store;
mod sweeper;
pub mod table;
mod throttle;
pub mod types;
pub mod unfinished_copies;
pub mod versions;
mod visible;
mod watchdog;
pub mod wire;
mod write;
mod write_locks;
pub mod write_sequence;
