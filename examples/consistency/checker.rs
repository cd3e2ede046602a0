//! The consistency checker: a workload that checks whether a store is linearizable.
//!
//! * [`workload`]: the threads that write and read.
//! * [`history`]: the operations on each key.
//! * [`linearizable`]: whether the operations on a key have an order.
//! * [`report`]: the counts, and the line that shows them.
//! * [`any_node`]: a client that calls any node of a store.
//! * [`nodes`]: the nodes that clients may call.
//!
//! A call that is refused, or replied to with an exception, is a failed call. If a node is
//! expected to exit ([`Nodes::expect_exit`]) and cannot be reached, the call is not a failed one:
//! a read is made at another node instead, and whether a write took effect is unknown.

pub mod any_node;
pub mod history;
pub mod linearizable;
pub mod nodes;
pub mod report;
pub mod workload;

pub use any_node::AnyNode;
pub use nodes::Nodes;
pub use report::Report;
pub use workload::{CallError, KeyValueStore, Workload};
