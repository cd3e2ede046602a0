//! `TlsStream`: TLS over one TCP stream, starting with the handshake.
//!
//! The Thrift crate's own TLS channels have no limit on the time of a handshake or a write,
//! and treat the end of a stream without a TLS close alert, as a killed process leaves it,
//! as an error. So this uses the same `rustls` with this crate's limits. On the wire both
//! are the same.
//!
//! One thread at a time uses a connection, for both directions: calls and replies
//! alternate. The lock on the TLS state lets the reader and the writer share it and is
//! never contended. Another thread ends the connection by shutting down the TCP stream,
//! which takes no lock.
//!
//! A missing close alert is safe to ignore, because a Thrift message shows by itself
//! whether it is complete.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::Connection;

use crate::rpc::linger::linger;
use crate::rpc::tls::errors::describe;

/// How long a rejected peer may take to read the alert.
const REJECT_TIMEOUT: Duration = Duration::from_millis(500);

/// TLS over a TCP stream, after the handshake.
pub(crate) struct TlsStream {
    tcp: Arc<TcpStream>,
    /// The keys, and bytes that are buffered in both directions.
    tls: Mutex<Connection>,
    /// How long one record may take to arrive.
    record_timeout: Duration,
}

impl TlsStream {
    /// Makes the handshake. None if the peer closed the connection without sending anything.
    ///
    /// Blocks for `timeout` plus the stream's own read timeout at most.
    ///
    /// # Errors
    /// A side does not trust the other or does not speak TLS; timeout.
    pub(crate) fn handshake(
        tcp: Arc<TcpStream>,
        mut tls: Connection,
        timeout: Duration,
        record_timeout: Duration,
    ) -> io::Result<Option<Arc<TlsStream>>> {
        let deadline = Instant::now() + timeout;
        let mut received = false;
        while tls.is_handshaking() || tls.wants_write() {
            if Instant::now() > deadline {
                let late = "TLS: no handshake in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, late));
            }
            let writes = tls.wants_write();
            let transferred = if writes {
                tls.write_tls(&mut &*tcp)
            } else {
                tls.read_tls(&mut &*tcp)
            };
            match transferred {
                Ok(0) if received => {
                    let ended = "TLS: the connection ended in the handshake";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
                }
                Ok(0) => return Ok(None),
                Ok(_) => received |= !writes,
                Err(e) if is_transient(&e) => continue,
                Err(e) => return Err(e),
            }
            if let Err(e) = tls.process_new_packets() {
                // The alert, for as long as the peer may take to read it.
                let _ = tls.write_tls(&mut &*tcp);
                linger(&tcp, REJECT_TIMEOUT);
                return Err(describe(&e));
            }
        }
        Ok(Some(Arc::new(TlsStream {
            tcp,
            tls: Mutex::new(tls),
            record_timeout,
        })))
    }

    /// Reads what is available. Blocks for the TCP stream's read timeout.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.tls.lock();
        let deadline = Instant::now() + self.record_timeout;
        loop {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            check_deadline(deadline)?;
            tls.read_tls(&mut &*self.tcp)?;
            tls.process_new_packets().map_err(|e| describe(&e))?;
        }
    }

    /// Writes all of `bytes` within `timeout` in total.
    pub(crate) fn write_all(&self, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let mut tls = self.tls.lock();
        let deadline = Instant::now() + timeout;
        while !bytes.is_empty() || tls.wants_write() {
            check_deadline(deadline)?;
            // rustls takes as much as its buffer has room for.
            let taken = tls.writer().write(bytes)?;
            bytes = &bytes[taken..];
            match tls.write_tls(&mut &*self.tcp) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
                Ok(_) => (),
            }
        }
        Ok(())
    }
}

fn check_deadline(deadline: Instant) -> io::Result<()> {
    if Instant::now() > deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Can the operation be repeated after this error?
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
