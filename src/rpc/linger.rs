//! `linger`: how a connection with unread bytes is closed without losing what the peer is to read.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The most bytes that are read: more than a largest message has. 20 MiB.
const MAX_BYTES: usize = 20 * 1024 * 1024;

/// Tells the peer that nothing more comes, then reads what it still sends, for `time` and
/// [`MAX_BYTES`] at most. Bytes that arrive at a closed connection reset it, and the peer would
/// lose the answer that says why.
pub(super) fn linger(mut tcp: &TcpStream, time: Duration) {
    let (deadline, mut left) = (Instant::now() + time, MAX_BYTES);
    // Errors are ignored, as the connection has failed already.
    let _ = tcp.shutdown(Shutdown::Write);
    let _ = tcp.set_read_timeout(Some(time));
    while let Ok(read @ 1..) = tcp.read(&mut [0; 8192]) {
        left = left.saturating_sub(read);
        if left == 0 || Instant::now() >= deadline {
            break;
        }
    }
}
