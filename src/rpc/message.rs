//! The two directions of a connection as messages, with limits on size and time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use thrift::TConfiguration;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol, TInputProtocol};

use crate::rpc::other_protocol;
use crate::rpc::stream::Stream;

/// Bytes of the read buffer: many small messages, or the head of a large one. Longer values
/// are read directly to their destination.
const BUFFER_SIZE: usize = 8 * 1024;

/// A write buffer that grew beyond this for one message is shrunk, in bytes.
const MAX_KEPT_BUFFER: usize = 64 * 1024;

/// The longest string accepted, in bytes: the longest value and what surrounds it.
pub(crate) const MAX_STRING: usize = 17 * 1024 * 1024;

/// The largest message accepted, in bytes: a longest string, or many that add up to it.
pub(crate) const MAX_MESSAGE: usize = MAX_STRING + 1024 * 1024;

/// The most elements accepted in a list.
pub(crate) const MAX_LIST: usize = 65_536;

/// The most reads of one message. A number is one read, a string two, a field head two. It
/// bounds memory: an element may have one byte on the wire and fifty in memory. A gossip of
/// 10,000 records takes 20 reads each; the longest list of pairs takes 790,000.
const MAX_READS: usize = 1_000_000;

/// The type of a message that is an application exception, its fourth byte.
const EXCEPTION: u8 = 3;

/// The reading protocol of a connection.
pub type Input = TBinaryInputProtocol<MessageReader>;

/// The writing protocol of a connection.
pub type Output = TBinaryOutputProtocol<MessageWriter>;

/// The Thrift crate's limits on the parts of a message. A server limits lists in its `Arguments`
/// (and `max_list` is None), so that a call with a longer one can be skipped.
pub fn limits(max_list: Option<usize>) -> TConfiguration {
    TConfiguration::builder()
        .max_string_size(Some(MAX_STRING))
        .max_container_size(max_list)
        .build()
        .expect("the limits are consistent")
}

/// The protocols of a client over a stream, as [`protocols`].
pub(super) fn client_protocols(stream: Stream, message_timeout: Duration) -> (Input, Output) {
    protocols(stream, message_timeout, MAX_MESSAGE, Some(MAX_LIST))
}

/// The protocols over a stream. An incoming message may have `max_message` bytes, and lists of
/// `max_list` elements; a message may take `message_timeout` in either direction. The stream's own
/// timeouts limit each read and write.
pub(super) fn protocols(
    stream: Stream,
    message_timeout: Duration,
    max_message: usize,
    max_list: Option<usize>,
) -> (Input, Output) {
    let sent = Arc::new(AtomicBool::new(false));
    let reader = MessageReader {
        reader: BufReader::with_capacity(BUFFER_SIZE, stream.clone()),
        sent: sent.clone(),
        message_timeout,
        max_message,
        deadline: None,
        bytes_read: 0,
        reads: 0,
        failure: None,
    };
    let writer = MessageWriter {
        stream,
        sent,
        message_timeout,
        message: Vec::new(),
        suppressed: false,
        exception: None,
        is_refusal: false,
    };
    (
        TBinaryInputProtocol::with_config(reader, false, limits(max_list)),
        TBinaryOutputProtocol::new(writer, true),
    )
}

/// The incoming direction: buffered, with limits on each message.
pub struct MessageReader {
    reader: BufReader<Stream>,
    /// A message was sent since the last read: the next byte starts a new message.
    sent: Arc<AtomicBool>,
    message_timeout: Duration,
    max_message: usize,
    /// When the current message must be complete. None between messages.
    deadline: Option<Instant>,
    /// Bytes read of the current message.
    bytes_read: usize,
    /// Reads of the current message.
    reads: usize,
    /// Why the current message could not be read to its end. Kept because generated code may
    /// turn the error into an exception.
    failure: Option<io::ErrorKind>,
}

impl MessageReader {
    fn reset(&mut self) {
        (self.deadline, self.bytes_read, self.reads) = (None, 0, 0);
    }

    /// Waits for the first bytes of a message, for `idle_timeout` at most. False if the peer has
    /// closed the connection.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]: nothing arrived in time. [`io::ErrorKind::InvalidData`]: the
    /// bytes do not start a Thrift message.
    pub(super) fn next_message(&mut self, idle_timeout: Duration) -> io::Result<bool> {
        self.reset();
        self.sent.store(false, Relaxed);
        let deadline = Instant::now() + idle_timeout;
        loop {
            match self.reader.fill_buf() {
                Ok([]) => return Ok(false),
                Ok(bytes) => return other_protocol::check(bytes).map(|()| true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                // The socket's own timeout may expire several times meanwhile.
                Err(e) if e.kind() == io::ErrorKind::TimedOut && Instant::now() < deadline => (),
                Err(e) => return Err(e),
            }
        }
    }

    /// The buffered bytes that can belong to one message.
    pub(crate) fn buffered(&self) -> &[u8] {
        let bytes = self.reader.buffer();
        &bytes[..bytes.len().min(self.max_message)]
    }

    /// Skips buffered bytes.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// Why the last message could not be read to its end, if it could not. Too large is
    /// `FileTooLarge`; a closed connection is `UnexpectedEof`.
    pub(crate) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    fn read_with_limits(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reader.buffer().is_empty() {
            self.check_deadline()?;
            // A caller does not use `next_message`: check a reply's first bytes here.
            if self.bytes_read == 0 {
                other_protocol::check(self.reader.fill_buf()?)?;
            }
        }
        self.reader.read(buffer)
    }

    /// Counts one read.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes_read += bytes;
        self.reads += 1;
        if self.bytes_read <= self.max_message && self.reads <= MAX_READS {
            return Ok(());
        }
        self.failure = Some(io::ErrorKind::FileTooLarge);
        let max = self.max_message;
        let message = format!("a message of more than {max} bytes or {MAX_READS} reads");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
    }

    /// Called before each read of the socket. The first one of a message starts its clock.
    fn check_deadline(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.sent.swap(false, Relaxed) {
            self.reset();
        }
        let deadline = *self.deadline.get_or_insert(now + self.message_timeout);
        if now < deadline {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a message was started and not completed in time",
        ))
    }
}

impl Read for MessageReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_with_limits(buffer);
        match &read {
            Ok(0) if !buffer.is_empty() => self.failure = Some(io::ErrorKind::UnexpectedEof),
            Err(e) => self.failure = Some(e.kind()),
            Ok(_) => (),
        }
        read.and_then(|read| self.count(read).map(|()| read))
    }

    /// Most reads are a few bytes that are buffered already.
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        if let Some(bytes) = self.reader.buffer().get(..buffer.len()) {
            buffer.copy_from_slice(bytes);
            self.reader.consume(buffer.len());
            return self.count(buffer.len());
        }
        while !buffer.is_empty() {
            match self.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The outgoing direction: a message is collected and sent when it is flushed.
pub struct MessageWriter {
    stream: Stream,
    sent: Arc<AtomicBool>,
    message_timeout: Duration,
    message: Vec<u8>,
    /// Discard messages instead of sending them.
    suppressed: bool,
    /// The text of the last message, if it was an application exception.
    exception: Option<String>,
    /// The last message was a reply that throws an exception of the interface.
    is_refusal: bool,
}

impl MessageWriter {
    /// Discards the following messages (the reply to a oneway call), or sends them.
    pub(crate) fn suppress_reply(&mut self, suppressed: bool) {
        self.suppressed = suppressed;
        self.exception = None;
        self.is_refusal = false;
    }

    /// The message that is being collected.
    pub(crate) fn message(&mut self) -> &mut Vec<u8> {
        &mut self.message
    }

    /// The method and text of the last message, sent or suppressed, if it was an
    /// application exception.
    pub(crate) fn exception(&self) -> Option<&str> {
        self.exception.as_deref()
    }

    /// Was the last message a reply that throws an exception of the interface?
    pub(crate) fn is_refusal(&self) -> bool {
        self.is_refusal
    }
}

impl Write for MessageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.message.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Generated code flushes an exception twice.
        if self.message.is_empty() {
            return Ok(());
        }
        self.exception = parse_exception(&self.message);
        self.is_refusal = throws(&self.message) == Some(true);
        let written = if self.suppressed {
            Ok(())
        } else {
            self.stream.write_all(&self.message, self.message_timeout)
        };
        self.message.clear();
        self.message.shrink_to(MAX_KEPT_BUFFER);
        // The rest of a call that ended in an exception is still to be skipped.
        self.sent.store(self.exception.is_none(), Relaxed);
        written
    }
}

/// Is this a reply whose first field is not the result, which has the id 0?
fn throws(message: &[u8]) -> Option<bool> {
    let (_, rest) = crate::rpc::method_times::split_string(message.get(4..)?)?;
    Some(message[3] == 2 && rest.get(4) != Some(&0) && rest.get(5..7)? != [0, 0])
}

/// The method and text of a message that is an application exception.
fn parse_exception(message: &[u8]) -> Option<String> {
    if message.get(3) != Some(&EXCEPTION) {
        return None;
    }
    let mut input = TBinaryInputProtocol::new(message, true);
    let method = input.read_message_begin().ok()?.name;
    let error = thrift::Error::read_application_error_from_in_protocol(&mut input).ok()?;
    let (method, text) = (method.escape_default(), error.message.escape_default());
    Some(format!("{method} ended in an exception: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_reported_with_its_method_and_text() {
        let mut message = vec![0x80, 1, 0, 3, 0, 0, 0, 3];
        message.extend(b"get");
        message.extend([0, 0, 0, 1, 11, 0, 1, 0, 0, 0, 2]);
        message.extend(b"no\0");
        let expected = Some("get ended in an exception: no".to_owned());
        assert_eq!(parse_exception(&message), expected);
        for length in 0..message.len() {
            assert_eq!(parse_exception(&message[..length]), None, "cut at {length}");
        }
        message[3] = 2;
        assert_eq!(parse_exception(&message), None, "a reply is none");
        assert_eq!(throws(&message), Some(true));
        message[17] = 0;
        assert_eq!(throws(&message), Some(false), "that is the result");
    }
}
