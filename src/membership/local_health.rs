//! `LocalHealth`: how much a node trusts its own failure detector.
//!
//! To a node that is slow itself, all others seem slow. So each node keeps a score of signs that
//! it is the slow one, and the worse the score, the longer are its suspect timeouts (local health
//! multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018).

use std::time::Duration;

/// The worst score. 3: a member that does not reply is DOWN after four times the suspect timeout,
/// which is 16 s.
const MAX_SCORE: u32 = 3;

/// The score of one node. 0 is healthy.
#[derive(Debug, Clone, Default)]
pub(super) struct LocalHealth {
    score: u32,
}

impl LocalHealth {
    /// Records a sign that this node is the slow one: it was paused, it had to refute a suspicion,
    /// or none of its helpers replied.
    pub fn degrade(&mut self) {
        self.score = (self.score + 1).min(MAX_SCORE);
    }

    /// Records that a peer replied in time.
    pub fn recover(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub fn score(&self) -> u32 {
        self.score
    }

    /// The timeout that replaces `timeout` at the current score.
    pub fn scale_timeout(&self, timeout: Duration) -> Duration {
        timeout * (self.score + 1)
    }
}
