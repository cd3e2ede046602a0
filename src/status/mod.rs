//! The state of a whole network, for programs that show it: which members agree on the
//! membership ([`network`]), and what the nodes of a store hold ([`store`]).

pub mod follow;
pub mod key;
pub mod network;
pub mod store;
mod table;
