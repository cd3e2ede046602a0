//! Files of pairs, into a store and out of it.
//!
//! [`lines`] is the format, [`load`] and [`dump`] are the two ways, and [`progress`]
//! says how far they are.

pub mod dump;
pub mod lines;
pub mod load;
pub mod progress;
