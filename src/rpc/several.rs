//! Calls to several nodes at the same time, by one thread.
//!
//! A generated client sends a call and receives its answer in one go. Here the two are
//! done apart, so that all nodes are at work before the first answer is waited for: no
//! threads are started for that, and the caller is woken no more often than it must be.

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

    fn send<T>(&mut self, call: impl FnOnce(&mut S) -> thrift::Result<T>) -> thrift::Result<()> {
        match call(&mut self.sender) {
            // The call was sent, and nothing can be read.
            Err(thrift::Error::Transport(e)) if e.kind == TransportErrorKind::EndOfFile => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Makes a call to each of `locations`, all at the same time; `done` is told what came of
/// each as soon as it is known, by its place. `send` makes the call of that place, and
/// `receive` the same with any arguments.
///
/// Blocks for as long as the links' patience says, and for as long again where there is
/// no connection yet. For methods that may be repeated, as [`Links::call`] is.
pub fn call_several<S, R, T>(
    links: &Links<Halves<S, R>>,
    locations: &[Location],
    send: impl Fn(&mut S, usize) -> thrift::Result<T>,
    receive: impl Fn(&mut R) -> thrift::Result<T>,
    mut done: impl FnMut(usize, Result<T, Error>),
) {
    let mut under_way = Vec::new();
    let mut rest = Vec::new();
    if locations.len() > 1 {
        for (place, location) in locations.iter().enumerate() {
            match links.send(location, |halves| halves.send(|sender| send(sender, place))) {
                Some(sent) => under_way.push((place, sent)),
                None => rest.push(place),
            }
        }
    } else {
        rest.extend(0..locations.len());
    }
    let deadline = Instant::now() + links.patience().answer;
    while !under_way.is_empty() {
        let answered = answered(&under_way, deadline);
        if answered.is_empty() {
            for (place, sent) in under_way.drain(..) {
                done(place, links.give_up(sent));
            }
        }
        for at in answered {
            let (place, sent) = under_way.swap_remove(at);
            match links.receive(sent, |halves| receive(&mut halves.receiver)) {
                Some(outcome) => done(place, outcome),
                None => rest.push(place),
            }
        }
    }
    for place in rest {
        let outcome = links.call(&locations[place], |halves| {
            halves.send(|sender| send(sender, place))?;
            receive(&mut halves.receiver)
        });
        done(place, outcome);
    }
}

/// Waits until some have been answered; their places, the last one first. None when it
/// is too late.
fn answered<C>(under_way: &[(usize, Sent<C>)], deadline: Instant) -> Vec<usize> {
    let streams = under_way.iter().map(|(_, sent)| sent.stream().as_fd());
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|stream| PollFd::new(stream, PollFlags::POLLIN))
        .collect();
    let all = (0..under_way.len()).rev();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) => return all.filter(|at| fds[*at].any() == Some(true)).collect(),
            Err(Errno::EINTR) => (),
            // Who reads them waits no longer than it is patient.
            Err(_) => return all.collect(),
        }
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

    type Links = crate::rpc::links::Links<
        Halves<BaseSyncClient<Unheard, Output>, BaseSyncClient<Input, Unsaid>>,
    >;

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
            answer: Duration::from_millis(800),
        };
        let halves =
            |input, output| Halves::new(BaseSyncClient::new, BaseSyncClient::new, (input, output));
        Links::new(Caller::default(), halves, patience)
    }

    /// What came of pings, in the order in which that was known.
    fn ping(links: &Links, peers: &[Location]) -> Vec<(usize, Result<(), Error>)> {
        let mut outcomes = Vec::new();
        let send = |sender: &mut BaseSyncClient<_, _>, _| sender.ping();
        let receive = |receiver: &mut BaseSyncClient<_, _>| receiver.ping();
        call_several(links, peers, send, receive, |place, outcome| {
            outcomes.push((place, outcome));
        });
        outcomes
    }

    const AT_ONCE: Duration = Duration::ZERO;
    const SLOWLY: Duration = Duration::from_millis(200);
    const TOO_LATE: Duration = Duration::from_secs(3);

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
