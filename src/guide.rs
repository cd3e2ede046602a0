//! The guide: one page for each subject that the README has no room for.
//!
//! | page | for |
//! |---|---|
//! | [`operations`] | running nodes: addresses, TLS, limits, status programs, signals, exit statuses |
//! | [`failures`] | what happens when nodes join, leave, die, hang or are split; what is refused |
//! | [`durability`] | keys on disk: restarts, power cuts, backups, failing disks |
//! | [`visible`] | the page, metrics and health of a node; the network in a terminal |
//! | [`bulk`] | a store in a file: the format, loading, dumping |
//! | [`performance`] | how to measure, the figures, where the time goes |
//! | [`fuzzing`] | the tests that search for faults, and how to run them longer |
//! | [`original`] | thrifty-p2p of 2009: what is the same, what is different, one network of both |
//! | [`design`] | how the program is built |

#[doc = include_str!("guide/bulk.md")]
pub mod bulk {}
#[doc = include_str!("guide/design.md")]
pub mod design {}
#[doc = include_str!("guide/durability.md")]
pub mod durability {}
#[doc = include_str!("guide/failures.md")]
pub mod failures {}
#[doc = include_str!("guide/fuzzing.md")]
pub mod fuzzing {}
#[doc = include_str!("guide/operations.md")]
pub mod operations {}
#[doc = include_str!("guide/original.md")]
pub mod original {}
#[doc = include_str!("guide/performance.md")]
pub mod performance {}
#[doc = include_str!("guide/visible.md")]
pub mod visible {}
