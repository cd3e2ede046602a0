//! Copies key-value files into a store and out of it.
//!
//! [`tsv`] is the file format, [`load`] and [`dump`] copy, [`progress`] counts.

pub mod dump;
pub mod load;
pub mod progress;
pub mod tsv;
