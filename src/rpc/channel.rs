//! `Channel`: what a connection's bytes go through, a TCP stream as it is or TLS over one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rpc::session::Session;

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
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self {
            Channel::Plain(stream) => (&**stream).read(buffer),
            Channel::Tls(session) => session.read(buffer),
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
