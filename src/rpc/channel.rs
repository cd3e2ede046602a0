//! `Channel`: what a connection's bytes go through, a TCP stream as it is or TLS over one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::rpc::courtesy::give_way;
use crate::rpc::session::Session;
use crate::rpc::turn::Wait;

/// Both directions of a connection; clones are the same connection.
#[derive(Clone)]
pub(crate) enum Channel {
    Plain(Arc<TcpStream>),
    Tls(Arc<Session>),
}

impl Channel {
    /// The stream below: whoever shuts it down ends the connection.
    pub(crate) fn stream(&self) -> &Arc<TcpStream> {
        match self {
            Channel::Plain(stream) => stream,
            Channel::Tls(session) => session.stream(),
        }
    }

    /// Reads what is there, or waits for it for as long as the stream's timeout says.
    pub(crate) fn read(&self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        let read = match self {
            Channel::Plain(stream) => Waiting(stream, wait).read(buffer),
            Channel::Tls(session) => session.read(buffer, wait),
        };
        read.map_err(timeout_by_name)
    }

    /// Writes all of it, as [`Write::write_all`], but within `time` in all.
    pub(crate) fn send(&self, bytes: &[u8], time: Duration) -> io::Result<()> {
        let sent = match self {
            Channel::Plain(stream) => write_within(stream, bytes, time),
            Channel::Tls(session) => session.send(bytes, time),
        };
        sent.map_err(timeout_by_name)
    }
}

/// A stream to be read by who waits in that way.
pub(super) struct Waiting<'a>(pub &'a TcpStream, pub Wait);

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Waiting(mut stream, wait) = *self;
        match wait {
            Wait::Asleep => (),
            Wait::GivingWay => match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {
                    give_way();
                }
                read => return read.map_err(io::Error::from),
            },
            Wait::AfterOthers => {
                give_way();
            }
        }
        stream.read(buffer)
    }
}

fn write_within(mut stream: &TcpStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let mut deadline = None;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
        // Most messages go at once, and need no clock.
        if !bytes.is_empty() && Instant::now() > *deadline.get_or_insert(Instant::now() + time) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// A socket's timeout reports "would block" on Unix; Thrift looks for "timed out".
fn timeout_by_name(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::Error::new(io::ErrorKind::TimedOut, "timed out")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_gives_way_reads_what_is_there_and_waits_for_what_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let time = Duration::from_millis(50);
        stream.set_read_timeout(Some(time)).unwrap();
        let channel = Channel::Plain(Arc::new(stream));
        let mut buffer = [0; 8];
        for wait in [Wait::Asleep, Wait::GivingWay, Wait::AfterOthers] {
            let begun = Instant::now();
            let nothing = channel.read(&mut buffer, wait).map_err(|e| e.kind());
            assert_eq!(nothing, Err(io::ErrorKind::TimedOut), "{wait:?}");
            assert!(begun.elapsed() >= time, "{wait:?}");
            peer.write_all(b"word").unwrap();
            assert_eq!(channel.read(&mut buffer, wait).unwrap(), 4);
            assert_eq!(&buffer[..4], b"word");
        }
        drop(peer);
        assert_eq!(channel.read(&mut buffer, Wait::GivingWay).unwrap(), 0);
    }
}
