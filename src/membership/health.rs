//! `Health`: how far a node trusts its own judgement.
//!
//! A node that is slow itself sees everyone else as silent. Lifeguard (Dadgar,
//! Phillips and Currey, 2018) has each node keep a score of signs that *it* is the
//! one in trouble, and lets it accuse the more slowly the worse the score.

use std::time::Duration;

/// Worst score. 3 makes a silent member DOWN after four times the suspicion, 16 s:
/// patient, and still bounded.
const WORST: u32 = 3;

/// 0 when all is well.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    score: u32,
}

impl Health {
    /// A sign of trouble of our own: we were paused, we had to refute an accusation,
    /// or all helpers were as silent as the one that they were asked to reach.
    pub fn worsen(&mut self) {
        self.score = (self.score + 1).min(WORST);
    }

    /// A peer answered in time.
    pub fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub fn score(&self) -> u32 {
        self.score
    }

    /// How long to suspect where one in good health would for `wait`.
    pub fn scale(&self, wait: Duration) -> Duration {
        wait * (self.score + 1)
    }
}
