//! Durable storage: the entries of a node in a directory (`storeserver --data`).
//!
//! Memory stays the working set: requests are answered from the [table](super::table), and the disk is
//! its shadow, read only at the start. An owner acknowledges a copy when it is on disk, and a primary
//! a write when it is on disk there too. Both append their entries to one [committer](committer::Disk)
//! and wait for it. The primary's own sync takes place while the copies are on their way.
//!
//! * [`directory`]: who may use it, and the node's part in its network;
//! * [`engine`]: what keeps the entries, and why it is fjall;
//! * `damage`: damage that fjall would pass over;
//! * [`row`]: how an entry is written;
//! * [`committer`]: many changes in one sync.
//!
//! What a node does with its entries when it starts is in `recovery`, and what the nodes of a network
//! decide together in the [rebalance](super::rebalance).

pub mod committer;
mod damage;
pub mod directory;
pub mod engine;
pub mod row;
