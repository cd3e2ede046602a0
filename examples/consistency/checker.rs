//! The consistency checker: a workload that checks every reply of a store.
//!
//! * [`workload`]: the threads that write and read.
//! * [`history`]: what was written, and which replies to a read are correct.
//! * [`report`]: the counts, and the line that shows them.
//! * [`any_node`]: a client that calls any node of a store.
//! * [`nodes`]: the nodes that clients may call.
//!
//! A call that is refused, or replied to with an exception, is a failed call. If a node is
//! expected to exit ([`Nodes::expect_exit`]) and cannot be reached, the client calls another node
//! instead, and the call is not a failed one.

pub mod any_node;
pub mod history;
pub mod nodes;
pub mod report;
pub mod workload;

pub use any_node::AnyNode;
pub use history::DELETE_INTERVAL;
pub use nodes::Nodes;
pub use report::Report;
pub use workload::{KeyValueStore, Workload};
