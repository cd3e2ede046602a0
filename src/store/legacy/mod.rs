//! Legacy nodes (of the original) in a store's network.
//!
//! They are on the ring, so keys belong to them too, and their clients look for these keys
//! there. A legacy node is never counted as a copy: our nodes keep all copies of such a key as
//! of any other. The primary of the key among ours keeps the legacy node in step with them:
//!
//! * it puts every write to the legacy node ([`calls`]);
//! * a read asks the legacy node too, whose clients may have put another value there;
//! * it puts again what the legacy node may not have ([`sync`]), because puts are never
//!   acknowledged, and a legacy node that has hung or restarted has missed some;
//! * until that is done, our own entry counts for what was written meanwhile ([`doubts`]).
//!
//! A legacy node that gives up a key puts it to the new owner by a one-way `put` and deletes it
//! at once. So a put that arrives while this node does not serve yet is kept ([`puts`]).

mod calls;
mod doubts;
mod puts;
mod sync;

pub use doubts::Doubts;
pub use puts::WaitingPuts;
