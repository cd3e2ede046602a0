//! Calls to several nodes at the same time, by one thread.
//!
//! A generated client sends a call and receives its answer in one go. Here the two are
//! done apart, so that all nodes are at work before the first answer is waited for: no
//! threads are started for that, and the caller is woken no more often than it must be.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

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

/// How long is waited for what should have come before.
const LATE: Duration = Duration::from_millis(1);

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
        for at in answered(&under_way, deadline) {
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

/// Waits until some have been answered; their places, the last one first. All of them
/// when it is too late: reading them will not take long, and tell so.
fn answered<C>(under_way: &[(usize, Sent<C>)], deadline: Instant) -> Vec<usize> {
    let streams = under_way.iter().map(|(_, sent)| sent.stream().as_fd());
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|stream| PollFd::new(stream, PollFlags::POLLIN))
        .collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Err(Errno::EINTR) => continue,
            Ok(0) => {
                for (_, sent) in under_way {
                    // One that cannot be told is read for as long as it is patient.
                    let _ = sent.stream().set_read_timeout(Some(LATE));
                }
                break;
            }
            Ok(_) | Err(_) => break,
        }
    }
    let is_quiet = fds.iter().all(|fd| fd.any() != Some(true));
    let is_answered = |at: &usize| is_quiet || fds[*at].any() == Some(true);
    (0..under_way.len()).rev().filter(is_answered).collect()
}
