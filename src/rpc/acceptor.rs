//! Accepts the connections of one listener, on a thread that is replaced after a burst.
//!
//! Linux counts for each thread how often it woke another one than the last time. Two that
//! wake each other are brought together on one processor, but not if both have woken several,
//! and one of them many more than the other: it is taken for the master of many workers.
//! (`wakee_flips` and `wake_wide` in its scheduler.) A thread begins with the count of the
//! one that started it, and the count is halved once a second at the most.
//!
//! While many connections come at once, their threads and the one that starts them wait for
//! the memory map of the process again and again, and wake each other when they let go of it:
//! starting 5,000, it woke 500. So each connection that was accepted later began with
//! hundreds, and was kept apart from its client: 50 of them were served 0.7 of the calls for
//! their first six seconds, and as many as ever from then on. That is why what comes after a
//! burst is accepted by a new thread, started by one that starts nothing else.
//!
//! While connections come without a pause there is no new acceptor: those of one burst may be
//! kept apart from their clients for some seconds, and those that come while the threads of
//! thousands end, which hold the memory map as well.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;

/// A connection that was waited for less long may come while the thread of the last one is
/// still starting.
const PAUSE: Duration = Duration::from_millis(10);

/// When so many have come without a pause before them, the next pause ends a burst.
const BURST: usize = 16;

/// What `accept` gives.
type Accepted = (TcpStream, SocketAddr);

/// What is done with what a listener gives. Called on the acceptor's thread; the next
/// connection waits until it returns.
pub(crate) trait Door: Sync {
    /// A connection has come. To start its thread is left to this.
    fn admit(&self, stream: TcpStream, peer: SocketAddr);

    /// One could not be accepted. Rests for a moment, lest it be tried without end.
    fn recover(&self, error: &io::Error);
}

/// Accepts connections until the service is asked to stop, which is noticed with the next
/// one. Blocks as long. While no other thread can be started, it accepts on its own.
pub(crate) fn keep_accepting(listener: &TcpListener, stopped: &Shutdown, door: &impl Door) {
    let mut at_hand = None;
    while !stopped.is_requested() {
        let mut accept = || at_hand = accept_burst(at_hand.take(), listener, stopped, door);
        let acceptor = thread::Builder::new().name("acceptor".into());
        // By reference: what is at hand is not lost with a thread that cannot be started.
        if thread::scope(|scope| acceptor.spawn_scoped(scope, &mut accept).is_err()) {
            let next = at_hand.take().map_or_else(|| listener.accept(), Ok);
            let_in(next, door);
        }
    }
}

/// Accepts connections until a burst of them is over, and gives back the first one after it.
fn accept_burst(
    at_hand: Option<Accepted>,
    listener: &TcpListener,
    stopped: &Shutdown,
    door: &impl Door,
) -> Option<Accepted> {
    if let Some(first) = at_hand {
        let_in(Ok(first), door);
    }
    let mut burst = Burst::default();
    while !stopped.is_requested() {
        let began = Instant::now();
        let next = listener.accept();
        if next.is_ok() && burst.count(began.elapsed()) {
            return next.ok();
        }
        let_in(next, door);
    }
    None
}

fn let_in(next: io::Result<Accepted>, door: &impl Door) {
    match next {
        Ok((stream, peer)) => door.admit(stream, peer),
        Err(e) => door.recover(&e),
    }
}

/// How many connections an acceptor has accepted without a pause before them.
#[derive(Default)]
struct Burst(usize);

impl Burst {
    /// Counts one that was waited for so long. Is it the first one after a burst?
    fn count(&mut self, waited: Duration) -> bool {
        let is_pause = waited >= PAUSE;
        self.0 += usize::from(!is_pause);
        is_pause && self.0 >= BURST
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
    use std::thread::ThreadId;

    use super::*;

    /// Longer than anything takes here.
    const WAIT: Duration = Duration::from_secs(10);

    /// Tells on which thread connections come.
    struct Told(Sender<ThreadId>);

    impl Door for Told {
        fn admit(&self, _: TcpStream, _: SocketAddr) {
            self.0.send(thread::current().id()).unwrap();
        }

        /// Then the next is waited for in vain.
        fn recover(&self, _: &io::Error) {}
    }

    /// The thread on which the next connection comes.
    fn next(told: &Receiver<ThreadId>) -> ThreadId {
        told.recv_timeout(WAIT).unwrap()
    }

    #[test]
    fn what_comes_after_a_burst_is_accepted_by_a_new_thread() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect(address).unwrap();
        let (tell, told) = mpsc::channel();
        let (stopped, door) = (Shutdown::new(), Told(tell));
        let stop = stopped.clone();
        thread::spawn(move || keep_accepting(&listener, &stopped, &door));
        connect();
        let first = next(&told);
        // How soon after another these come is the system's to decide.
        let deadline = Instant::now() + WAIT;
        let mut last = first;
        while last == first && Instant::now() < deadline {
            (0..2 * BURST).for_each(|_| drop(connect()));
            thread::sleep(PAUSE);
            connect();
            (0..=2 * BURST).for_each(|_| last = next(&told));
        }
        assert_ne!(last, first);
        stop.request();
        // If it has ended already, nobody is there to be called.
        let _ = TcpStream::connect(address);
        let mut end = told.recv_timeout(WAIT);
        if end.is_ok() {
            // The acceptor had looked whether it is to stop before it was told to.
            end = told.recv_timeout(WAIT);
        }
        assert_eq!(end, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_burst_is_over_when_many_have_come_and_then_none_for_a_while() {
        let mut burst = Burst::default();
        let soon = PAUSE - Duration::from_nanos(1);
        for _ in 1..BURST {
            let is_over = burst.count(soon) || burst.count(PAUSE);
            assert!(!is_over, "these are too few");
        }
        assert!(!burst.count(soon), "more may come");
        assert!(burst.count(PAUSE));
    }

    #[test]
    fn connections_that_come_one_by_one_are_no_burst() {
        let mut burst = Burst::default();
        assert!((1..1000).all(|_| !burst.count(PAUSE)));
    }
}
