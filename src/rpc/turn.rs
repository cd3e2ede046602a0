//! `Turn`: how a connection's thread waits for the next call.
//!
//! To wake a thread costs more than most calls. So where several connections are called,
//! a thread that has nothing to read gives way to the others once before it sleeps: mostly
//! its next call has come by then, and nobody needs to wake it.
//!
//! What is gained so can be lost to somebody: a thread and its client may come to call and
//! answer each other by turns on one processor, each ready when the other is done, for as
//! long as the kernel lets them, while other clients wait for milliseconds. So a thread
//! that was called a few times in a row gives way before it looks for more, as memcached
//! serves no more than so many requests of a connection at a time. (What a client has sent
//! at once, and what was read at once, is served at once: only waiting is decided here.)
//!
//! Where many are called, nearly no call has come by the time that its answer has gone, and
//! those few threads that find theirs would only be served before others. So there everybody
//! gives way before it looks, and all are served by turns.
//!
//! The kernel chooses a processor for a thread when it wakes it: that of its client, by which
//! they need not interrupt each other's. Who only gives way is never woken, and would stay
//! where it is, however far from its client. So now and then a thread sleeps at once.
//!
//! Nobody gives way while that costs too much, as `courtesy` tells.

/// Calls from one of a connection to its next, that one counted, while one other connection
/// is called as often. Then nothing was measured to be gained by giving way.
const OF_TWO: u64 = 2;

/// The same while many are called. With 24 connections it makes no difference whether they
/// look first; with 16, looking first served a thirtieth more, and with 50 a twentieth fewer.
const MANY: u64 = 24;

/// Calls of a connection that its distance from call to call is averaged over, so that one
/// that comes early does not make many few.
const AVERAGED: u64 = 8;

/// A longer distance counts as this one: a call or two that come late do not make few many.
const FARTHEST: u64 = 4 * MANY;

/// Calls that a connection has in a row before it lets others go first. With 16, the
/// slowest hundredth of the calls of 50 connections took twice as long; with 2, a
/// twentieth fewer were served.
const IN_A_ROW: u64 = 4;

/// Of so many times that a thread might give way, it sleeps at one. Without that, 100
/// connections were served 0.8 of what they are if all sleep always, from 0.7 to 1.2 in single
/// runs; with it 1.12. With 4 or 64 it is as much as with 16.
const ASLEEP_ONCE_IN: u64 = 16;

/// How a reader waits for what has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It sleeps until something comes.
    Asleep,
    /// It looks, gives way to other threads if there is nothing, and only then sleeps.
    GivingWay,
    /// It gives way to other threads before it looks, and then sleeps.
    AfterOthers,
}

/// What a connection's thread keeps in mind: the calls that were served since its turn began,
/// by itself and by the whole server.
#[derive(Debug)]
pub(crate) struct Turn {
    /// How many the server had served when the turn began.
    begun: u64,
    /// How many it had served after the last one of this connection.
    last: u64,
    /// How many were of this connection.
    own: u64,
    /// The average distance from one of its calls to the next, times [`AVERAGED`].
    distances: u64,
    /// How often it might have given way.
    occasions: u64,
}

impl Turn {
    /// Of a new connection, when the server has served so many calls.
    pub(crate) fn new(served: u64) -> Turn {
        Turn {
            begun: served,
            last: served,
            own: 0,
            distances: 0,
            occasions: 0,
        }
    }

    /// This connection was served the call of that number. How it waits for its next one.
    pub(crate) fn served(&mut self, number: u64) -> Wait {
        let distance = number - self.last;
        self.last = number;
        self.own += 1;
        self.distances -= self.distances / AVERAGED;
        self.distances += distance.min(FARTHEST);
        if self.distances > MANY * AVERAGED {
            self.end(number);
            return self.awake(Wait::AfterOthers);
        }
        if distance > OF_TWO {
            self.end(number);
            return self.awake(Wait::GivingWay);
        }
        if self.own < IN_A_ROW {
            return Wait::Asleep;
        }
        let is_alone = number - self.begun == self.own;
        self.end(number);
        if is_alone {
            Wait::Asleep
        } else {
            Wait::AfterOthers
        }
    }

    /// Its next turn begins.
    fn end(&mut self, number: u64) {
        (self.begun, self.own) = (number, 0);
    }

    /// It waits in that way, but for the times when it is to sleep.
    fn awake(&mut self, wait: Wait) -> Wait {
        self.occasions += 1;
        if self.occasions.is_multiple_of(ASLEEP_ONCE_IN) {
            Wait::Asleep
        } else {
            wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a connection waits that is served these calls, one after the other.
    fn waits(numbers: impl IntoIterator<Item = u64>) -> Vec<Wait> {
        let mut turn = Turn::new(0);
        numbers.into_iter().map(|n| turn.served(n)).collect()
    }

    /// The same for one of so many connections that are called by turns.
    fn waits_of_one_of(connections: u64) -> Vec<Wait> {
        waits((1..=160).map(|n| n * connections))
    }

    /// How often it waits in each way.
    fn count(waits: &[Wait]) -> [usize; 3] {
        [Wait::Asleep, Wait::GivingWay, Wait::AfterOthers]
            .map(|way| waits.iter().filter(|wait| **wait == way).count())
    }

    #[test]
    fn who_is_called_alone_only_sleeps() {
        assert_eq!(waits_of_one_of(1), [Wait::Asleep; 160]);
    }

    #[test]
    fn who_is_called_among_several_gives_way_and_sleeps_now_and_then() {
        for connections in [3, 8, MANY] {
            assert_eq!(count(&waits_of_one_of(connections)), [10, 150, 0]);
        }
    }

    #[test]
    fn who_is_called_among_many_gives_way_before_it_looks() {
        for connections in [MANY + 1, 50, 1000] {
            let waits = waits_of_one_of(connections);
            let (begun, later) = waits.split_at(48);
            assert!(
                !begun[..2].contains(&Wait::AfterOthers),
                "these may be late"
            );
            assert_eq!(count(later), [7, 0, 105]);
        }
    }

    #[test]
    fn a_call_that_comes_early_or_late_makes_no_other_of_it() {
        let early = |n: u64| 50 * n - if n.is_multiple_of(8) { 48 } else { 0 };
        let among_many = waits((1..=160).map(early));
        assert!(!among_many[48..].contains(&Wait::GivingWay));
        let late = |n: u64| 5 * n + n / 8 * 1000;
        let among_few = waits((1..=160).map(late));
        assert!(!among_few.contains(&Wait::AfterOthers));
    }

    #[test]
    fn who_is_called_in_a_row_beside_others_lets_them_go_first_now_and_then() {
        let row = [Wait::Asleep, Wait::Asleep, Wait::Asleep, Wait::AfterOthers];
        let two_by_turns = (1..=8).map(|n| n * 2);
        assert_eq!(waits(two_by_turns), [row, row].concat());
        assert_eq!(waits([1, 2, 3, 5]), row, "one other call is enough");
        let after_others = waits([50, 51, 52, 53, 55]);
        assert_eq!(after_others, [&[Wait::GivingWay], &row[..]].concat());
    }
}
