//! Leaving: a node announces that it leaves, and replies until its process may end.

use super::action::Action;
use super::calls::Purpose;
use super::core::{Membership, Now};
use super::member::Status;

impl Membership {
    /// Writes LEFT and announces it to `leave_fanout` members. The node continues to reply and
    /// to tick until [`left`](Membership::left). A second call does nothing.
    pub fn leave(&mut self, now: Now) -> Vec<Action> {
        self.advance_to(now);
        if self.leaving_since.is_none() {
            self.leaving_since = Some(now.monotonic);
            let left = self.own_record().with_status(Status::Left);
            self.apply(left);
            self.notify_legacy_of_leave();
            for _ in 0..self.config.leave_fanout {
                self.announce_leave();
            }
        }
        self.take_actions()
    }

    /// May the process end? True after `leave_linger`, as soon as no announcement is in flight,
    /// and one `call_timeout` later in any case.
    pub fn left(&self, now: Now) -> bool {
        let Some(since) = self.leaving_since else {
            return false;
        };
        let linger_end = since + self.config.leave_linger;
        let is_announcing = self.calls.has(Purpose::Leave);
        now.monotonic
            >= if is_announcing {
                linger_end + self.config.call_timeout
            } else {
                linger_end
            }
    }

    /// Sends this node's LEFT record to one random member. Does nothing if the process is about
    /// to end or enough members were called.
    pub(super) fn announce_leave(&mut self) {
        let is_late = self
            .leaving_since
            .is_none_or(|since| self.now.monotonic >= since + self.config.leave_linger);
        // As many failed announcements are repeated as there are announcements.
        if is_late || self.leave_calls >= 2 * self.config.leave_fanout {
            return;
        }
        self.leave_calls += 1;
        for _ in 0..self.config.max_calls {
            let sampled = self.ring.sample(&mut self.rng).cloned();
            let peer = sampled.filter(|peer| !self.is_legacy(peer));
            if peer.is_some_and(|peer| self.exchange_with(&peer, Purpose::Leave)) {
                return;
            }
        }
    }
}
