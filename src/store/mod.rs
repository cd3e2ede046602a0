//! diststore: a replicated key-value store on the location service.

pub mod handler;
pub mod limits;
mod mover;
pub mod moves;
pub mod operations;
pub mod status;
pub mod table;
pub mod versions;
pub mod view;
mod wire;
