//! `Stream`: the bytes of one connection, over plain TCP or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rpc::tls::stream::TlsStream;

/// Both directions of a connection. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Stream {
    /// The TCP stream. Shutting it down ends the connection.
    pub tcp: Arc<TcpStream>,
    /// TLS over it, if the connection uses that.
    pub tls: Option<Arc<TlsStream>>,
}

impl Stream {
    /// Does the peer call from this host: over loopback, or from the address that it called?
    pub(crate) fn is_local(&self) -> bool {
        let ip = |address: SocketAddr| address.ip().to_canonical();
        let called = self.tcp.local_addr().map(ip).ok();
        let peer = self.tcp.peer_addr().map(ip).ok();
        peer.is_some_and(|peer| peer.is_loopback() || called == Some(peer))
    }

    /// Writes all of `bytes` within `timeout` in total.
    pub(crate) fn write_all(&self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let written = match &self.tls {
            None => write_within(&self.tcp, bytes, timeout),
            Some(tls) => tls.write_all(bytes, timeout),
        };
        written.map_err(name_timeout)
    }
}

impl Read for Stream {
    /// Reads what is available. Blocks for the TCP stream's read timeout.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.tls {
            None => (&*self.tcp).read(buffer),
            Some(tls) => tls.read(buffer),
        };
        read.map_err(name_timeout)
    }
}

fn write_within(mut stream: &TcpStream, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
    let mut deadline = None;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
        // Most messages take one write and need no clock.
        if !bytes.is_empty() && Instant::now() > *deadline.get_or_insert(Instant::now() + timeout) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// A socket timeout is `WouldBlock` on Unix; the Thrift crate looks for `TimedOut`.
fn name_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::Error::new(io::ErrorKind::TimedOut, "timed out")
    } else {
        error
    }
}
