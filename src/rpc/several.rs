//! Calls to several nodes at the same time, by one thread.
//!
//! All nodes are at work before the first answer is waited for: no threads are started for
//! that, and the caller is woken no more often than it must be. A generated client sends a
//! call and receives its answer in one go; [`Halves`] of one do the two apart, and so does
//! [`ByHand`](crate::rpc::by_hand::ByHand).

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thrift::TransportErrorKind;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

use crate::error::Error;
use crate::location::Location;
use crate::rpc::connection::{Input, Output};
use crate::rpc::links::{Links, Sent};

/// What a client reads from that only sends.
pub type Unheard = TBinaryInputProtocol<io::Empty>;

/// What a client writes to that only receives.
pub type Unsaid = TBinaryOutputProtocol<io::Sink>;

/// Two generated clients of one connection: the *sender*'s reading ends at once, and
/// the *receiver*'s writing goes nowhere. Both make every call, so that they number it
/// alike; with which arguments the receiver does does not matter.
pub struct Halves<S, R> {
    sender: S,
    receiver: R,
}

impl<S, R> Halves<S, R> {
    /// The halves of a connection, each with the constructor of the generated client.
    pub fn new(
        sender: impl FnOnce(Unheard, Output) -> S,
        receiver: impl FnOnce(Input, Unsaid) -> R,
        (input, output): (Input, Output),
    ) -> Halves<S, R> {
        Halves {
            sender: sender(TBinaryInputProtocol::new(io::empty(), true), output),
            receiver: receiver(input, TBinaryOutputProtocol::new(io::sink(), true)),
        }
    }

    /// Sends a call, and ends before its answer.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send<T>(
        &mut self,
        call: impl FnOnce(&mut S) -> thrift::Result<T>,
    ) -> thrift::Result<()> {
        match call(&mut self.sender) {
            // The call was sent, and nothing can be read.
            Err(thrift::Error::Transport(e)) if e.kind == TransportErrorKind::EndOfFile => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Receives the answer of the call that was sent, by the same with any arguments.
    ///
    /// # Errors
    /// As the call.
    pub fn receive<T>(
        &mut self,
        call: impl FnOnce(&mut R) -> thrift::Result<T>,
    ) -> thrift::Result<T> {
        call(&mut self.receiver)
    }
}

/// Makes a call to each of `locations`, all at the same time; `done` is told what came of
/// each as soon as it is known, by its place. `send` sends the call of that place, and
/// `receive` receives its answer.
///
/// Blocks for as long as the links' patience says, for connecting once for each location
/// to which no connection is kept: these come last. An answer that has begun to come is
/// waited for before others are read. For methods that may be repeated, as by
/// [`Links::call`].
pub fn call_several<C, T>(
    links: &Links<C>,
    locations: &[Location],
    send: impl Fn(&mut C, usize) -> thrift::Result<()>,
    receive: impl Fn(&mut C, usize) -> thrift::Result<T>,
    mut done: impl FnMut(usize, Result<T, Error>),
) {
    if let [only] = locations {
        // There is nothing to look at meanwhile.
        let outcome = links.call(only, |client| {
            send(client, 0)?;
            receive(client, 0)
        });
        return done(0, outcome);
    }
    let mut under_way = Vec::new();
    let mut places: Vec<usize> = (0..locations.len()).collect();
    places.sort_by_key(|place| !links.is_kept(&locations[*place]));
    for place in places {
        match links.send(&locations[place], |client| send(client, place)) {
            Ok(sent) => under_way.push((place, sent)),
            Err(e) => done(place, Err(e)),
        }
    }
    while !under_way.is_empty() {
        for (at, state) in look(&under_way) {
            let (place, sent) = under_way.swap_remove(at);
            let received = match state {
                Seen::Answered => links.receive(sent, |client| receive(client, place)),
                Seen::Late => Some(links.give_up(sent)),
            };
            match received {
                Some(outcome) => done(place, outcome),
                None => match links.send_anew(&locations[place], |client| send(client, place)) {
                    Ok(sent) => under_way.push((place, sent)),
                    Err(e) => done(place, Err(e)),
                },
            }
        }
    }
}

/// What is to be done about a call under way.
#[derive(Clone, Copy)]
enum Seen {
    /// There is something to read.
    Answered,
    /// It is too late for an answer.
    Late,
}

/// Waits until something is to be done about calls under way; which ones, the last one
/// first.
fn look<C>(under_way: &[(usize, Sent<C>)]) -> Vec<(usize, Seen)> {
    let streams = under_way.iter().map(|(_, sent)| sent.stream().as_fd());
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|stream| PollFd::new(stream, PollFlags::POLLIN))
        .collect();
    let deadlines = under_way.iter().map(|(_, sent)| sent.deadline());
    let first = deadlines.min().unwrap_or_else(Instant::now);
    loop {
        // A millisecond is the least that can be waited for.
        let left = first.saturating_duration_since(Instant::now()).as_millis() + 1;
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let polled = poll(&mut fds, left);
        if polled == Err(Errno::EINTR) {
            continue;
        }
        let now = Instant::now();
        let seen = |at: usize| match fds[at].any() {
            // Who reads one that cannot be looked at waits no longer than it is patient.
            _ if polled.is_err() => Some((at, Seen::Answered)),
            Some(true) => Some((at, Seen::Answered)),
            _ => (now >= under_way[at].1.deadline()).then_some((at, Seen::Late)),
        };
        return (0..under_way.len()).rev().filter_map(seen).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locator::{BaseSyncClient, TBaseSyncClient};
    use crate::rpc::client::{Caller, Patience};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    type Pinger = Halves<BaseSyncClient<Unheard, Output>, BaseSyncClient<Input, Unsaid>>;

    type Links = crate::rpc::links::Links<Pinger>;

    /// What a peer does with the pings of one connection: for each the time after which it
    /// answers. When there are no more it closes the connection.
    type Manners = Vec<Duration>;

    /// A peer that treats its first connection in one way, and others at once.
    fn peer(first: Manners) -> Location {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let others = std::iter::repeat(vec![Duration::ZERO; 10]);
            let manners = std::iter::once(first).chain(others);
            for (stream, manners) in listener.incoming().zip(manners) {
                let mut stream = stream.unwrap();
                for time in manners {
                    let mut ping = [0; 17];
                    if stream.read_exact(&mut ping).is_err() {
                        break;
                    }
                    thread::sleep(time);
                    // A reply without a value is the call, marked as a reply.
                    ping[3] = 2;
                    if stream.write_all(&ping).is_err() {
                        break;
                    }
                }
            }
        });
        Location::new("127.0.0.1", port).unwrap()
    }

    fn links() -> Links {
        let patience = Patience {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(2),
        };
        let halves =
            |input, output| Halves::new(BaseSyncClient::new, BaseSyncClient::new, (input, output));
        Links::new(Caller::default(), halves, patience)
    }

    /// What came of pings, in the order in which that was known.
    fn ping(links: &Links, peers: &[Location]) -> Vec<(usize, Result<(), Error>)> {
        let mut outcomes = Vec::new();
        let send = |peer: &mut Pinger, _| peer.send(TBaseSyncClient::ping);
        let receive = |peer: &mut Pinger, _| peer.receive(TBaseSyncClient::ping);
        call_several(links, peers, send, receive, |place, outcome| {
            outcomes.push((place, outcome));
        });
        outcomes
    }

    const AT_ONCE: Duration = Duration::ZERO;
    const SLOWLY: Duration = Duration::from_millis(200);
    const TOO_LATE: Duration = Duration::from_secs(10);

    #[test]
    fn a_slow_peer_holds_up_no_other_and_a_silent_one_is_given_up() {
        let manners = [TOO_LATE, SLOWLY, AT_ONCE].map(|second| vec![AT_ONCE, second, AT_ONCE]);
        let peers = manners.map(peer);
        let links = links();
        let first = ping(&links, &peers);
        assert!(
            first.iter().all(|(_, outcome)| outcome.is_ok()),
            "{first:?}"
        );
        let second = ping(&links, &peers);
        let order: Vec<usize> = second.iter().map(|(place, _)| *place).collect();
        assert_eq!(order, [2, 1, 0]);
        assert!(second[0].1.is_ok() && second[1].1.is_ok(), "{second:?}");
        assert!(matches!(&second[2].1, Err(Error::Silent(at, _)) if *at == peers[0]));
    }

    #[test]
    fn a_connection_that_its_peer_has_closed_is_replaced_unseen() {
        let peers = [vec![AT_ONCE], vec![AT_ONCE; 10], vec![AT_ONCE]].map(peer);
        let links = links();
        for round in 0..5 {
            let outcomes = ping(&links, &peers);
            assert_eq!(outcomes.len(), 3);
            assert!(
                outcomes.iter().all(|(_, outcome)| outcome.is_ok()),
                "{round}: {outcomes:?}"
            );
        }
    }

    #[test]
    fn a_peer_that_is_gone_is_told_of_beside_those_that_answer() {
        let gone = Location::new("127.0.0.1", 1).unwrap();
        let peers = [peer(vec![AT_ONCE; 10]), gone, peer(vec![AT_ONCE; 10])];
        let links = links();
        for _ in 0..3 {
            let mut outcomes = ping(&links, &peers);
            outcomes.sort_by_key(|(place, _)| *place);
            assert!(outcomes[0].1.is_ok() && outcomes[2].1.is_ok());
            assert!(
                matches!(outcomes[1].1, Err(Error::Refused(..))),
                "{outcomes:?}"
            );
        }
    }
}
