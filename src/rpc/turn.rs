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
//! Nobody gives way while that costs too much, as `courtesy` tells.

/// Calls from one of a connection to its next, that one counted, while one other connection
/// is called as often. Then nothing was measured to be gained by giving way.
const OF_TWO: u64 = 2;

/// Calls that a connection has in a row before it lets others go first. With 16, the
/// slowest hundredth of the calls of 50 connections took twice as long; with 2, a
/// twentieth fewer were served.
const IN_A_ROW: u64 = 4;

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
}

impl Turn {
    /// Of a new connection, when the server has served so many calls.
    pub(crate) fn new(served: u64) -> Turn {
        Turn {
            begun: served,
            last: served,
            own: 0,
        }
    }

    /// This connection was served the call of that number. How it waits for its next one.
    pub(crate) fn served(&mut self, number: u64) -> Wait {
        let since = number - self.last;
        self.last = number;
        self.own += 1;
        if since > OF_TWO {
            *self = Turn::new(number);
            return Wait::GivingWay;
        }
        if self.own < IN_A_ROW {
            return Wait::Asleep;
        }
        let is_alone = number - self.begun == self.own;
        *self = Turn::new(number);
        if is_alone {
            Wait::Asleep
        } else {
            Wait::AfterOthers
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

    #[test]
    fn who_is_called_alone_only_sleeps() {
        assert_eq!(waits(1..=100), [Wait::Asleep; 100]);
    }

    #[test]
    fn who_is_called_among_several_gives_way() {
        for connections in [3, 50] {
            let numbers = (1..=100).map(|n| n * connections);
            assert_eq!(waits(numbers), [Wait::GivingWay; 100]);
        }
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
