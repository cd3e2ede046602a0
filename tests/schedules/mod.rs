//! A whole network of stores in one thread: the real `Rebalance`, `Routing` and `Table` of
//! every node, driven by coroutines that follow the product's threads step by step, in an
//! order that a seeded random generator chooses.

pub mod calls;
pub mod checks;
pub mod churn;
pub mod copies;
mod directed;
pub mod guard;
pub mod histories;
#[allow(dead_code)] // The checker has more than the schedules use.
#[path = "../../examples/consistency/linearizable.rs"]
pub mod linearizable;
pub mod membership;
pub mod process;
pub mod promises;
pub mod reads;
pub mod rebalancer;
pub mod schedule;
pub mod small_network;
mod small_store;
pub mod sweeper;
pub mod tasks;
pub mod world;
pub mod writes;
