//! Tunnels: a node whose link to a member is cut reaches it through another member's server.
//!
//! The node connects to the other member and calls `tunnel`. The handler connects to the target
//! and hands that connection over to the server's thread, which replies and then copies bytes in
//! both directions until one side closes. A tunnel leads to members only, and never to one on the
//! same host, which would take the calls for local ones.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::rpc::stream::Stream;

/// The most tunnels through one server. They are kept connections of the members whose links are
/// cut, so a network of dozens of nodes needs few.
const MAX_TUNNELS: usize = 256;

/// Bytes that are copied at a time: more than TLS decrypts at once.
const BUFFER_SIZE: usize = 64 * 1024;

thread_local! {
    /// The target of a tunnel that the handler on this thread has opened.
    static TARGET: Cell<Option<Stream>> = const { Cell::new(None) };
}

/// Makes a tunnel to `target` of the connection that the current thread serves, after the reply.
/// Called by a handler.
pub(crate) fn hand_over(target: Stream) {
    TARGET.set(Some(target));
}

/// The target that a handler on this thread has handed over, if there is one.
pub(super) fn take_target() -> Option<Stream> {
    TARGET.take()
}

/// The tunnels of one server: each has a clone.
#[derive(Default)]
pub(crate) struct Tunnels(Arc<()>);

impl Tunnels {
    /// Copies between `one`, of which `read` has arrived already, and `other`, until one of them
    /// ends or nothing comes for `idle_timeout`. Blocks.
    ///
    /// # Errors
    /// There are too many tunnels, or a connection has failed.
    pub fn run(
        &self,
        (mut one, mut other): (Stream, Stream),
        read: &[u8],
        (idle_timeout, write_timeout): (Duration, Duration),
    ) -> io::Result<()> {
        let _counted = self.0.clone();
        if Arc::strong_count(&self.0) > MAX_TUNNELS + 1 {
            return Err(io::Error::other(format!("{MAX_TUNNELS} tunnels are open")));
        }
        other.write_all(read, write_timeout)?;
        let timeout = PollTimeout::try_from(idle_timeout).unwrap_or(PollTimeout::MAX);
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let [from_one, from_other] = {
                let tcp = [&one.tcp, &other.tcp];
                let mut sockets = tcp.map(|tcp| PollFd::new(tcp.as_fd(), PollFlags::POLLIN));
                if poll(&mut sockets, timeout)? == 0 {
                    return Ok(());
                }
                sockets.map(|socket| socket.any() == Some(true))
            };
            let is_open = (!from_one || copy(&mut one, &other, &mut buffer, write_timeout)?)
                && (!from_other || copy(&mut other, &one, &mut buffer, write_timeout)?);
            if !is_open {
                return Ok(());
            }
        }
    }
}

/// Copies what is available. False at the end of `from`.
fn copy(from: &mut Stream, to: &Stream, buffer: &mut [u8], timeout: Duration) -> io::Result<bool> {
    let read = from.read(buffer)?;
    to.write_all(&buffer[..read], timeout)?;
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        one.set_read_timeout(Some(SOON)).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn plain(stream: TcpStream) -> Stream {
        Stream {
            tcp: Arc::new(stream),
            tls: None,
        }
    }

    /// Sends bytes into one end, and expects them at the other.
    fn pass(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
        from.write_all(bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        to.read_exact(&mut read).unwrap();
        assert_eq!(read, bytes);
    }

    #[test]
    fn a_tunnel_copies_both_ways_until_one_side_closes() {
        let ((caller, one), (target, other)) = (connection(), connection());
        let tunnels = Tunnels::default();
        thread::scope(|scope| {
            let streams = (plain(one), plain(other));
            let running = scope.spawn(|| tunnels.run(streams, b"early", (SOON, SOON)));
            let mut early = [0; 5];
            (&target).read_exact(&mut early).unwrap();
            assert_eq!(&early, b"early");
            pass(&caller, &target, &[1; 1000]);
            pass(&target, &caller, &[2; 1000]);
            pass(&caller, &target, b"more");
            drop(caller);
            running.join().unwrap().unwrap();
        });
        assert_eq!(
            (&target).read(&mut [0]).unwrap(),
            0,
            "the other side is closed too"
        );
        assert_eq!(
            Arc::strong_count(&tunnels.0),
            1,
            "it is not counted any more"
        );
    }

    #[test]
    fn an_idle_tunnel_ends_and_there_are_not_too_many() {
        let ((_caller, one), (_target, other)) = (connection(), connection());
        let tunnels = Tunnels::default();
        let streams = || {
            (
                plain(one.try_clone().unwrap()),
                plain(other.try_clone().unwrap()),
            )
        };
        let timeouts = (Duration::from_millis(10), SOON);
        tunnels.run(streams(), &[], timeouts).unwrap();
        let mut others = vec![tunnels.0.clone(); MAX_TUNNELS];
        assert!(tunnels.run(streams(), &[], timeouts).is_err());
        others.pop();
        tunnels.run(streams(), &[], timeouts).unwrap();
    }
}
