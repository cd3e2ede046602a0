//! Accepts the connections of one listener, on a thread that is replaced after a burst.
//!
//! Linux counts for each thread how often it woke another one than the last time, and takes
//! whoever has woken many for a master of workers: it no longer brings those two together on
//! one processor that wake each other. (`wakee_flips` and `wake_wide` in its scheduler.) A
//! new thread begins with the count of the thread that started it, and it is halved once a
//! second at the most.
//!
//! While many connections come at once, their threads and the one that starts them wait for
//! the memory map of the process again and again, and wake each other when they let go of it:
//! starting 5,000, it woke 500. So each connection that was accepted later began as a master
//! of hundreds, and was kept apart from its client: 50 of them were served 0.7 of the calls
//! for their first six seconds, and as many as ever from then on. That is why another thread,
//! which starts nothing else, starts a new acceptor for what comes after a burst.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;

/// A connection that comes so soon after another may find that one's thread still starting,
/// and one that comes later ends the burst.
const PAUSE: Duration = Duration::from_millis(10);

/// So many that come soon after another are a burst.
const BURST: usize = 16;

/// Stack of an acceptor's thread; only what is used takes memory.
const STACK: usize = 256 * 1024;

/// What is done with what a listener gives. Called on the acceptor's thread; the next
/// connection waits until it returns.
pub(crate) trait Door: Sync {
    /// A connection has come. To start its thread is left to this.
    fn admit(&self, stream: TcpStream, peer: SocketAddr);

    /// One could not be accepted. Rests for a moment, lest it be tried without end.
    fn recover(&self, error: &io::Error);
}

/// Accepts connections until the service is asked to stop, and one more has come. Blocks.
pub(crate) fn keep_accepting(listener: &TcpListener, stopped: &Shutdown, door: &impl Door) {
    let mut at_hand = None;
    while !stopped.is_requested() {
        let mut accept = || at_hand = accept_burst(at_hand.take(), listener, stopped, door);
        let fresh = thread::Builder::new()
            .name("acceptor".into())
            .stack_size(STACK);
        let is_started = thread::scope(|scope| {
            let started = fresh.spawn_scoped(scope, &mut accept);
            started.map(|acceptor| acceptor.join()).is_ok()
        });
        if !is_started {
            accept();
        }
    }
}

/// Accepts connections until a burst of them is over, and gives back the first one after it.
fn accept_burst(
    at_hand: Option<(TcpStream, SocketAddr)>,
    listener: &TcpListener,
    stopped: &Shutdown,
    door: &impl Door,
) -> Option<(TcpStream, SocketAddr)> {
    let mut burst = Burst::new(Instant::now());
    if let Some((stream, peer)) = at_hand {
        door.admit(stream, peer);
    }
    while !stopped.is_requested() {
        match listener.accept() {
            Ok(next) if burst.is_over(Instant::now()) => return Some(next),
            Ok((stream, peer)) => door.admit(stream, peer),
            Err(e) => door.recover(&e),
        }
    }
    None
}

/// Connections that an acceptor has let in.
struct Burst {
    /// How many came soon after another.
    close: usize,
    /// When the last one came.
    last: Instant,
}

impl Burst {
    /// With one that comes now, or none.
    fn new(now: Instant) -> Burst {
        Burst {
            close: 0,
            last: now,
        }
    }

    /// One comes now. Was there a burst, and is this one the first after it?
    fn is_over(&mut self, now: Instant) -> bool {
        let is_close = now.saturating_duration_since(self.last) < PAUSE;
        self.last = now;
        self.close += usize::from(is_close);
        !is_close && self.close >= BURST
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

        fn recover(&self, error: &io::Error) {
            panic!("{error}");
        }
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
        connect();
        let mut end = told.recv_timeout(WAIT);
        if end.is_ok() {
            // The acceptor had looked whether it is to stop before it was told to.
            end = told.recv_timeout(WAIT);
        }
        assert_eq!(end, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_burst_is_over_when_many_have_come_and_then_none_for_a_while() {
        let begun = Instant::now();
        let mut burst = Burst::new(begun);
        let soon = PAUSE - Duration::from_nanos(1);
        let mut now = begun;
        let mut comes_after = |pause| {
            now += pause;
            burst.is_over(now)
        };
        for _ in 1..BURST {
            assert!(
                !comes_after(soon) && !comes_after(PAUSE),
                "these are too few"
            );
        }
        assert!(!comes_after(soon), "more may come");
        assert!(comes_after(PAUSE));
    }

    #[test]
    fn connections_that_come_one_by_one_are_no_burst() {
        let begun = Instant::now();
        let mut burst = Burst::new(begun);
        assert!((1..1000).all(|n| !burst.is_over(begun + PAUSE * n)));
    }
}
