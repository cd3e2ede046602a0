//! `IndirectProbe`: a member to which a call failed, while helpers try to reach it.
//!
//! The fault may be this node's or the path's, so a member is suspected only if helpers do
//! not reach it either (SWIM: Das, Gupta and Motivala, 2002, section 3.1).

use std::time::Duration;

use super::action::Failure;

/// The state of one indirect probe.
#[derive(Debug, Clone)]
pub(super) struct IndirectProbe {
    /// How the call failed.
    pub failure: Failure,
    /// When the failed call was made.
    pub called_at: Duration,
    /// The member's incarnation at the start. If it has changed, the member has refuted.
    pub incarnation: i64,
    /// Helpers that were sent `ping_req`.
    asked: usize,
    /// Helpers that have not replied yet.
    awaited: usize,
    /// Helpers that could not reach the member.
    nacks: usize,
}

impl IndirectProbe {
    /// A probe by this number of helpers.
    pub fn new(
        failure: Failure,
        called_at: Duration,
        incarnation: i64,
        helpers: usize,
    ) -> IndirectProbe {
        IndirectProbe {
            failure,
            called_at,
            incarnation,
            asked: helpers,
            awaited: helpers,
            nacks: 0,
        }
    }

    /// Records that a helper could not reach the member (`is_nack`), or did not reply itself.
    /// Returns true when no helper is awaited any more.
    pub fn on_reply(&mut self, is_nack: bool) -> bool {
        self.awaited -= 1;
        self.nacks += usize::from(is_nack);
        self.awaited == 0
    }

    /// Did no helper reply? Then this node may be cut off itself.
    pub fn is_cut_off(&self) -> bool {
        self.asked > 0 && self.nacks == 0
    }
}
