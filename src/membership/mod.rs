//! Membership: every node knows every node, and all come to know the same.

mod call;
mod core;
mod deadlines;
mod event;
mod exchange;
pub mod gossip;
mod health;
mod member;
mod members;
mod news;
mod original;
mod probing;
mod random;
mod roster;
mod settings;
mod suspicion;
mod transition;

pub use call::{Action, Failure, Outcome, Request, Token};
pub use core::{Heard, Membership, Now};
pub use event::{Change, Disbelief, Event, Why};
pub use gossip::{BadGossip, Gossip};
pub use member::{BadMember, Member, Status};
pub use members::{Members, Merged};
pub use random::Random;
pub use settings::Settings;
