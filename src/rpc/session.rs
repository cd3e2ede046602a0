//! `Session`: TLS over one TCP stream, from its handshake on.
//!
//! The Thrift crate's own TLS channels do not fit here. Their handshake goes on for as
//! long as a stranger sends a byte now and then; a write has no bound in all; and the end of
//! a stream without TLS's own farewell, as a killed process leaves it, is a failure
//! to them. So this is the same `rustls` that they are made of, with the bounds that
//! all connections have here. On the wire they are the same, and speak to each other.
//!
//! A connection is used by one thread at a time for both of its directions, as
//! calls and answers follow each other. The lock on the TLS state is there to share
//! it between the reader and the writer, and is never waited for. Another thread
//! that wants the connection ended shuts the stream down, which takes no lock.
//!
//! A stream that ends without TLS's farewell is at its end, no more: a message of
//! Thrift tells by itself when it is complete, so none can be cut short unseen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::Connection;

use crate::rpc::channel::Waiting;
use crate::rpc::turn::Wait;
use crate::trust::distrust;

/// How long a peer that was turned away has to read why.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// TLS over a stream, after the handshake.
pub(crate) struct Session {
    stream: Arc<TcpStream>,
    /// Keys, and bytes on their way in and out.
    tls: Mutex<Connection>,
    /// How long a record may take to come once begun.
    record_time: Duration,
}

impl Session {
    /// Shakes hands: none if the peer went without having said anything.
    ///
    /// Blocks for `time` and the stream's own timeout, at the most. Records may later
    /// take `record_time` to come.
    ///
    /// # Errors
    /// One side does not trust the other, or does not speak TLS; not in time.
    pub(crate) fn begin(
        stream: Arc<TcpStream>,
        mut tls: Connection,
        time: Duration,
        record_time: Duration,
    ) -> io::Result<Option<Session>> {
        let deadline = Instant::now() + time;
        let mut heard = false;
        while tls.is_handshaking() || tls.wants_write() {
            if Instant::now() > deadline {
                let late = "TLS: no handshake in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, late));
            }
            let says = tls.wants_write();
            let moved = if says {
                tls.write_tls(&mut &*stream)
            } else {
                tls.read_tls(&mut &*stream)
            };
            match moved {
                Ok(0) if heard => {
                    let ended = "TLS: the connection ended in the handshake";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
                }
                Ok(0) => return Ok(None),
                Ok(_) => heard |= !says,
                Err(e) if is_passing(&e) => continue,
                Err(e) => return Err(e),
            }
            if let Err(e) = tls.process_new_packets() {
                turn_away(&stream, &mut tls);
                return Err(distrust(&e));
            }
        }
        Ok(Some(Session {
            stream,
            tls: Mutex::new(tls),
            record_time,
        }))
    }

    pub(crate) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Reads what has come, or waits for it for as long as the stream's timeout says.
    pub(crate) fn read(&self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        let mut tls = self.tls();
        let deadline = Instant::now() + self.record_time;
        loop {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            in_time(deadline)?;
            tls.read_tls(&mut Waiting(&self.stream, wait))?;
            tls.process_new_packets().map_err(|e| distrust(&e))?;
        }
    }

    /// Writes all of it within `time` in all.
    pub(crate) fn send(&self, mut bytes: &[u8], time: Duration) -> io::Result<()> {
        let mut tls = self.tls();
        let deadline = Instant::now() + time;
        while !bytes.is_empty() || tls.wants_write() {
            in_time(deadline)?;
            // As much as there is room for is encrypted and waits to be written.
            let taken = tls.writer().write(bytes)?;
            bytes = &bytes[taken..];
            match tls.write_tls(&mut &*self.stream) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
                Ok(_) => (),
            }
        }
        Ok(())
    }

    /// Held by the one thread that uses the connection, during one read or one write.
    fn tls(&self) -> MutexGuard<'_, Connection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() > deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Does this failure leave all as it was, to be tried again?
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Sends the alert that says why, and waits until the peer has gone: a connection that
/// is closed while bytes of the peer lie unread is reset, and the alert is lost.
///
/// Whatever fails here fails on a connection that has failed already.
fn turn_away(stream: &TcpStream, tls: &mut Connection) {
    let deadline = Instant::now() + LAST_WORDS;
    let _ = tls.write_tls(&mut &*stream);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(LAST_WORDS));
    let mut unread = [0; 4096];
    while Instant::now() < deadline {
        match (&*stream).read(&mut unread) {
            Ok(0) | Err(_) => break,
            Ok(_) => (),
        }
    }
}
