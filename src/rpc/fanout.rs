//! `call_all`: one call to each of several peers at the same time, by one thread.
//!
//! All calls are sent before the first reply is awaited, so no threads are started. A
//! generated client sends a call and receives its reply in one method; [`SplitClient`] does the
//! two separately.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thrift::TransportErrorKind;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

use crate::error::Error;
use crate::location::Location;
use crate::rpc::message::{Input, Output};
use crate::rpc::pool::{Pool, PooledConnection};

/// The input of a client that only sends.
pub type EmptyInput = TBinaryInputProtocol<io::Empty>;

/// The output of a client that only receives.
pub type SinkOutput = TBinaryOutputProtocol<io::Sink>;

/// Two generated clients of one connection: the *sender* has an empty input, the *receiver*
/// an output that discards. Both make every call, so that their sequence numbers agree. The
/// receiver's arguments do not matter.
pub struct SplitClient<S, R> {
    sender: S,
    receiver: R,
}

impl<S, R> SplitClient<S, R> {
    /// Splits a connection. `sender` and `receiver` are constructors of the generated client.
    pub fn new(
        sender: impl FnOnce(EmptyInput, Output) -> S,
        receiver: impl FnOnce(Input, SinkOutput) -> R,
        (input, output): (Input, Output),
    ) -> SplitClient<S, R> {
        SplitClient {
            sender: sender(TBinaryInputProtocol::new(io::empty(), true), output),
            receiver: receiver(input, TBinaryOutputProtocol::new(io::sink(), true)),
        }
    }

    /// Sends a call without waiting for its reply.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send<T>(
        &mut self,
        call: impl FnOnce(&mut S) -> thrift::Result<T>,
    ) -> thrift::Result<()> {
        match call(&mut self.sender) {
            // The call was sent, and the input is empty.
            Err(thrift::Error::Transport(e)) if e.kind == TransportErrorKind::EndOfFile => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Receives the reply to the call that was sent. `call` is the same call with any
    /// arguments.
    ///
    /// # Errors
    /// The call's.
    pub fn receive<T>(
        &mut self,
        call: impl FnOnce(&mut R) -> thrift::Result<T>,
    ) -> thrift::Result<T> {
        call(&mut self.receiver)
    }
}

/// Makes one call to each of `locations` at the same time. `send` sends the call of an index,
/// `receive` receives its reply, and `done` is called with the index and the result as soon
/// as it is known.
///
/// Blocks for the pool's timeouts, and the connect timeout once for each location without an
/// idle connection; those are called last. A reply that has started to arrive is read to its
/// end before others. Only for methods that may be repeated, as for [`Pool::call`].
pub fn call_all<C, T>(
    pool: &Pool<C>,
    locations: &[Location],
    send: impl Fn(&mut C, usize) -> thrift::Result<()>,
    receive: impl Fn(&mut C, usize) -> thrift::Result<T>,
    mut done: impl FnMut(usize, Result<T, Error>),
) {
    if let [only] = locations {
        let result = pool.call(only, |client| {
            send(client, 0)?;
            receive(client, 0)
        });
        return done(0, result);
    }
    let send_on = |index: usize, connection: Result<PooledConnection<C>, Error>| {
        let mut connection = connection?;
        while let Err(e) = send(&mut connection.client, index) {
            connection = pool.replace(connection, e)?;
        }
        Ok((index, connection, Instant::now() + pool.timeouts.reply))
    };
    let mut in_flight = Vec::new();
    let mut indexes: Vec<usize> = (0..locations.len()).collect();
    indexes.sort_by_key(|index| !pool.has_idle(&locations[*index]));
    for index in indexes {
        match send_on(index, pool.checkout(&locations[index])) {
            Ok(call) => in_flight.push(call),
            Err(e) => done(index, Err(e)),
        }
    }
    while !in_flight.is_empty() {
        for (at, is_readable) in poll_ready(&in_flight) {
            let (index, mut connection, _) = in_flight.swap_remove(at);
            let received = if is_readable {
                receive(&mut connection.client, index)
            } else {
                Err(io::Error::new(ErrorKind::TimedOut, "timed out").into())
            };
            let failed = match received {
                Ok(reply) => {
                    pool.checkin(connection, true);
                    done(index, Ok(reply));
                    continue;
                }
                Err(e) => pool.replace(connection, e),
            };
            match send_on(index, failed) {
                Ok(call) => in_flight.push(call),
                Err(e) => done(index, Err(e)),
            }
        }
    }
}

/// A call that was sent: its index, the connection, and when its reply times out.
type InFlight<C> = (usize, PooledConnection<C>, Instant);

/// Blocks until calls need attention: their replies have started to arrive, or (false) their
/// deadlines have passed. Returns their positions, the last one first.
fn poll_ready<C>(in_flight: &[InFlight<C>]) -> Vec<(usize, bool)> {
    let streams = in_flight.iter().map(|(_, call, _)| call.stream.as_fd());
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|stream| PollFd::new(stream, PollFlags::POLLIN))
        .collect();
    let deadlines = in_flight.iter().map(|(_, _, deadline)| *deadline);
    let first = deadlines.min().unwrap_or_else(Instant::now);
    loop {
        // Rounded up to a whole millisecond.
        let left = first.saturating_duration_since(Instant::now()).as_millis() + 1;
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let polled = poll(&mut fds, left);
        if polled == Err(Errno::EINTR) {
            continue;
        }
        let now = Instant::now();
        let state = |at: usize| match fds[at].any() {
            // If polling fails, a read reports it within the stream's own timeout.
            _ if polled.is_err() => Some((at, true)),
            Some(true) => Some((at, true)),
            _ => (now >= in_flight[at].2).then_some((at, false)),
        };
        return (0..in_flight.len()).rev().filter_map(state).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locator::{BaseSyncClient, TBaseSyncClient};
    use crate::rpc::dialer::{Dialer, Timeouts};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    type Pinger =
        SplitClient<BaseSyncClient<EmptyInput, Output>, BaseSyncClient<Input, SinkOutput>>;

    /// For each ping of a connection the delay of its reply. After the last one the peer
    /// closes the connection.
    type Delays = Vec<Duration>;

    /// A peer with these delays on its first connection and none on others.
    fn peer(first: Delays) -> Location {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let others = std::iter::repeat(vec![Duration::ZERO; 10]);
            let all = std::iter::once(first).chain(others);
            for (stream, delays) in listener.incoming().zip(all) {
                let mut stream = stream.unwrap();
                for delay in delays {
                    let mut ping = [0; 17];
                    if stream.read_exact(&mut ping).is_err() {
                        break;
                    }
                    thread::sleep(delay);
                    // A reply without a value is the call with another message type.
                    ping[3] = 2;
                    if stream.write_all(&ping).is_err() {
                        break;
                    }
                }
            }
        });
        Location::new("127.0.0.1", port).unwrap()
    }

    fn pool() -> Pool<Pinger> {
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            reply: Duration::from_secs(2),
        };
        let split = |input, output| {
            SplitClient::new(BaseSyncClient::new, BaseSyncClient::new, (input, output))
        };
        Pool::new(Dialer::default(), split, timeouts)
    }

    /// The results of pings, in the order in which they were known.
    fn ping(pool: &Pool<Pinger>, peers: &[Location]) -> Vec<(usize, Result<(), Error>)> {
        let mut results = Vec::new();
        let send = |peer: &mut Pinger, _| peer.send(TBaseSyncClient::ping);
        let receive = |peer: &mut Pinger, _| peer.receive(TBaseSyncClient::ping);
        call_all(pool, peers, send, receive, |index, result| {
            results.push((index, result));
        });
        results
    }

    const NONE: Duration = Duration::ZERO;
    const SHORT: Duration = Duration::from_millis(200);
    const TOO_LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_slow_peer_delays_no_other_and_a_silent_one_times_out() {
        let delays = [TOO_LONG, SHORT, NONE].map(|second| vec![NONE, second, NONE]);
        let peers = delays.map(peer);
        let pool = pool();
        let first = ping(&pool, &peers);
        assert!(first.iter().all(|(_, result)| result.is_ok()), "{first:?}");
        let second = ping(&pool, &peers);
        let order: Vec<usize> = second.iter().map(|(index, _)| *index).collect();
        assert_eq!(order, [2, 1, 0]);
        assert!(second[0].1.is_ok() && second[1].1.is_ok(), "{second:?}");
        assert!(matches!(&second[2].1, Err(Error::Timeout(at, _)) if *at == peers[0]));
    }

    #[test]
    fn a_connection_that_its_peer_closed_is_replaced() {
        let peers = [vec![NONE], vec![NONE; 10], vec![NONE]].map(peer);
        let pool = pool();
        for round in 0..5 {
            let results = ping(&pool, &peers);
            assert_eq!(results.len(), 3);
            assert!(
                results.iter().all(|(_, result)| result.is_ok()),
                "{round}: {results:?}"
            );
        }
    }

    #[test]
    fn a_peer_that_is_gone_is_reported_beside_those_that_reply() {
        let gone = Location::new("127.0.0.1", 1).unwrap();
        let peers = [peer(vec![NONE; 10]), gone, peer(vec![NONE; 10])];
        let pool = pool();
        for _ in 0..3 {
            let mut results = ping(&pool, &peers);
            results.sort_by_key(|(index, _)| *index);
            assert!(results[0].1.is_ok() && results[2].1.is_ok());
            assert!(
                matches!(results[1].1, Err(Error::Refused(..))),
                "{results:?}"
            );
        }
    }
}
