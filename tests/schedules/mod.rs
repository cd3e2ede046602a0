//! A whole network of stores in one thread: the real `Rebalance` and `Table` of every
//! node, driven by coroutines that follow the shell step by step, and interleaved by
//! a seeded source of chance.

pub mod few;
pub mod operations;
pub mod promises;
pub mod schedule;
pub mod tasks;
pub mod world;
