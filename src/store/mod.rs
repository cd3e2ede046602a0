//! diststore: a replicated key-value store on the location service.
//!
//! A key's first N nodes on the ring hold it: N *copies* (three, unless told
//! otherwise). The first of them is its *primary*, and orders its writes. An
//! acknowledged write is on all of them, so any N-1 may die at once; while nodes come
//! and go, keys move to where the ring puts them, and are found all the while.
//!
//! # The life of a write
//!
//! 1. Any node takes it and passes it on to the key's primary in its current view
//!    ([`operations`]). A node that is not (or not any more) the primary says so, and
//!    the sender looks again.
//! 2. The primary waits for the key's turn: writes of one key follow one another. It
//!    asks where the key is read for the newest version, and takes a larger one
//!    ([`versions`]). A deletion is a write too, of a tombstone.
//! 3. It sends a copy to the owners in *every* view on its list ([`moves`]). A
//!    replica takes it whatever view it has itself (unless it has no room), and answers
//!    with its own current view. If that is news
//!    to the primary, the two exchange what they know of the membership, and the
//!    primary sends to the owners in the views it has learned of. Copies of many
//!    writes that are for one owner go there in one call (`copies`).
//! 4. An owner that cannot be reached is reported to membership; the write waits until
//!    it answers or is found down.
//! 5. When nobody is left to send to, the primary applies the write itself, and
//!    acknowledges. So what can be read at the primary is on all owners.
//!
//! # The life of a read
//!
//! The first owner in the view that is *read by* answers from its own table; the next
//! one if it is gone or refuses. A node that is not entitled to answer, because it
//! came in just now, or has heard nobody for two seconds and may have been given up,
//! refuses; it never says "missing".
//!
//! # A node joins, leaves, dies, hangs
//!
//! * **Joins.** It takes over the list of views from one that is in, serves clients
//!   when all have answered with it in view, and copies what it owns, slowly while
//!   clients keep it or its source busy (`pace`); then all switch to the new view,
//!   and drop what they do not own any more. See [`moves`].
//! * **Leaves** (ctrl-C, SIGTERM, `die()`). It is off the ring at once and answers on,
//!   for copies and reads, until all have switched to a view without it.
//! * **Dies.** The other owners have all it had. Reads go to the next owner at once;
//!   writes wait until it is found down, some 200 ms when its host refuses calls. The
//!   next node on the ring copies what it had.
//! * **Hangs.** As a death, after the seconds that it takes to tell a hanging node
//!   from a slow one. When it goes on, it comes in anew, with the table it has, in
//!   which larger versions replace what it missed.
//!
//! # What it assumes, and where it ends
//!
//! That a member which is found down is down, or comes in anew: a network that splits
//! goes on on both sides, and on healing the later write of a key wins, by the
//! writers' clocks. A tombstone is kept for an hour, so a node that hung for longer
//! can bring a deleted key back. A refused or unanswered write may have taken effect
//! on some owners. Moves tell every member: stores are for dozens of nodes. No vector
//! clocks, Merkle trees, hinted handoff, consensus, times to live, scans in order, transactions.
//!
//! Nodes of the original are on the ring but not in the views: what belongs to one by
//! the ring is put to it as well, and read from it first, without any promise.

mod asking;
pub mod by_hand;
mod copies;
pub mod handler;
pub mod limits;
mod mover;
pub mod moves;
pub mod operations;
mod originals;
mod pace;
mod reading;
mod shortcut;
pub mod status;
pub mod table;
pub mod versions;
pub mod view;
pub mod wire;
pub(crate) mod writing;
