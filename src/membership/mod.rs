//! Membership: every node knows every node, and all come to know the same.
//!
//! The core decides and does nothing else. It is told the time and what came in, and
//! answers with calls to make and events; a driver owns the sockets, the clock and
//! the one lock ([`Membership`] says how). So a thousand nodes run in one test, in
//! one thread, from one seed.
//!
//! # What is known
//!
//! Of each location there is one [`Member`] record: a status, and an incarnation that
//! the member itself raises. Two records of one location merge into the larger, so
//! the order in which they arrive does not matter. ALIVE and LEFT are said by the
//! member itself; SUSPECT by whoever could not reach it; DOWN by whoever's suspicion
//! ran out. What is said of a member that is greater than its own word, it outdoes
//! with a higher incarnation: the owner has the last word as long as it can speak.
//!
//! The **view** is the sum of the hashes of all live records: equal views, equal
//! members. The **ring** has the live members and, for a few seconds, those in grace.
//!
//! # The life of a join
//!
//! 1. The newcomer writes itself ALIVE, at an incarnation that is the time in
//!    milliseconds, and calls `exchange` on its seeds, asking for everything.
//! 2. The first that answers takes the newcomer's record, and returns all it knows.
//!    The newcomer has its ring after one call.
//! 3. Both have learned something, so they are *hot*: within 20 ms, and every 100 ms
//!    from then, each exchanges its news with 2 random members. Who learns thereby
//!    becomes hot too, and says so in its reply (Demers et al. 1987: rumor mongering
//!    with feedback and a counter).
//! 4. After 3 exchanges in a row that taught neither side anything, a node is *cold*.
//! 5. Whom the news missed is found at rest: every exchange compares views, and if
//!    they differ though there is no news, both tell each other everything.
//!
//! # The life of a crash
//!
//! 1. Each node calls its successor in sorted order once a second, and the next of a
//!    shuffled round (SWIM, Das, Gupta and Motivala 2002). So within a second some
//!    call fails: it is *refused* (the host is there, the process is not) or there is
//!    *silence* for half a second.
//! 2. The caller asks three others to `reach` the one that failed. One success
//!    settles it. A sign of life that came in meanwhile does too.
//! 3. Otherwise it writes SUSPECT, which is news. The suspect stays on all rings. Some
//!    eight of those who hear it tell the suspect, so that it can object.
//! 4. After 1 s (refused) or 4 s (silent) without an objection, or sooner where the
//!    layer above waits for the verdict, it is DOWN, and off the
//!    ring; this is news again. A node in doubt about itself waits up to four times
//!    as long (Lifeguard, Dadgar, Phillips and Currey 2018).
//! 5. A DOWN member is remembered for a day and tried now and then. If it was wrong,
//!    or was a split of the network, the first contact tells the dead that they are
//!    dead, and they object.
//!
//! When a call of the layer above was refused, the driver says so
//! ([`Membership::unreachable`]); steps 1 to 4 then take some 200 ms.
//!
//! # What keeps a healing network whole
//!
//! When two halves meet again, each tells the other that it is DOWN, and for a moment
//! everyone would throw out nearly everyone. So a member that jumps to DOWN without
//! having been SUSPECT here stays on the ring for 4 s of *grace*, and one that was
//! SUSPECT only for a moment stays until it was that for 1 s. Objections take less.
//!
//! # A pause of one's own
//!
//! A process that was stopped, or starved, sees the timers of all its calls run out
//! at once. It notices that its tick comes late, forgets what fell silent meanwhile,
//! gives every suspect the lost time back, and asks around what was said of it.
//!
//! # Limits
//!
//! - 5,000 live members, 4,000 tombstones, 10,000 records in one gossip, 16 calls at
//!   once. What is beyond is refused or forgotten, and said once a minute.
//! - Clocks may differ, and be set back, by hours. A node whose clock is a day behind
//!   does not believe the others, and says so.
//! - Whoever can connect is believed: there is no authentication.
//! - If all whom a group of nodes ever knew are gone for good, it cannot find others.
//! - A silent crash among two nodes, or on both sides of a split, looks the same: both
//!   sides go on, and merge when they meet.
//!
//! # Map
//!
//! `member` the record; `members` the table; `gossip` what is exchanged; `call` and
//! `event` what goes out; `core` the node, as the driver calls it, and `reading` what
//! it shows; `rhythm` when it acts; `exchange`, `transition`, `suspicion`, `original`
//! what it does with what it hears; `settings` all constants; `roster`, `deadlines`,
//! `news`, `probing`, `health`, `random` the parts.

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
mod reading;
mod rhythm;
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
