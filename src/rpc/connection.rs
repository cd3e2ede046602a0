//! One connection's two directions: bytes in, bytes out, and their bounds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use thrift::TConfiguration;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

use crate::rpc::bytes::{EXCEPTION, counted};
use crate::rpc::channel::Channel;
use crate::rpc::turn::Wait;
use crate::trust;

/// Bytes read ahead of need: many small messages, or the head of a large one.
/// Longer values are read straight to their place.
const READ_AHEAD: usize = 8 * 1024;

/// An outgoing buffer that grew beyond this for one large message is given back.
const KEPT_BUFFER: usize = 64 * 1024;

/// The longest string taken: the longest value and some room for what surrounds it.
pub(crate) const LONGEST_STRING: usize = 17 * 1024 * 1024;

/// The most bytes taken of one message, whatever it is made of: a longest string, or
/// many that add up to as much.
pub(crate) const LONGEST_MESSAGE: usize = LONGEST_STRING + 1024 * 1024;

/// The longest list taken.
const LONGEST_LIST: usize = 65_536;

/// The most reads of one message; a number is one, a string two, a field two more. A
/// record of a list may be a byte on the wire and fifty in memory. A gossip of 10,000
/// records takes 20 reads each; the longest list of pairs 12 each, which is 790,000.
const MOST_READS: usize = 1_000_000;

/// Method names are short: whatever announces a longer one does not speak Thrift.
pub(crate) const LONGEST_METHOD: usize = 128;

/// The reading protocol over one connection.
pub type Input = TBinaryInputProtocol<Incoming>;

/// The writing protocol over one connection.
pub type Output = TBinaryOutputProtocol<Outgoing>;

/// What came instead of waiting for a message.
pub(crate) enum Begun {
    /// Its first bytes.
    Message,
    /// The end: the peer has closed the connection.
    End,
    /// Nothing, for too long.
    Nothing,
}

/// What the reading protocol takes of a message's parts.
pub fn limits() -> TConfiguration {
    TConfiguration::builder()
        .max_string_size(Some(LONGEST_STRING))
        .max_container_size(Some(LONGEST_LIST))
        .build()
        .expect("the limits are in order")
}

/// The two protocols over `channel`, whose timeouts bound each read and write. A message
/// that comes may have `longest` bytes and take `message_time`, and so may one that goes
/// take.
pub(crate) fn protocols(
    channel: Channel,
    message_time: Duration,
    longest: usize,
) -> (Input, Output) {
    let turned = Arc::new(AtomicBool::new(false));
    let socket = Socket {
        channel: channel.clone(),
        turned: turned.clone(),
    };
    let incoming = Incoming::new(socket, message_time, longest);
    let outgoing = Outgoing::new(Socket { channel, turned }, message_time);
    (
        TBinaryInputProtocol::with_config(incoming, false, limits()),
        TBinaryOutputProtocol::new(outgoing, true),
    )
}

/// A channel that its reader and its writer share.
struct Socket {
    channel: Channel,
    /// A message was sent since the last read: what comes next begins a new one.
    turned: Arc<AtomicBool>,
}

/// A socket to be read, by who waits in this way.
struct Inlet {
    socket: Socket,
    wait: Wait,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.channel.read(buffer, self.wait)
    }
}

/// The incoming direction: buffered, and bounded in the time that one message may take.
pub struct Incoming {
    reader: BufReader<Inlet>,
    message_time: Duration,
    /// The most bytes taken of one message.
    longest: usize,
    /// When the message being read must be complete; none between messages.
    deadline: Option<Instant>,
    /// Bytes of the message that were read.
    taken: usize,
    /// Reads of the message.
    reads: usize,
    /// Why the rest of it could not be read: generated code may answer that by an
    /// exception like any other.
    failure: Option<io::ErrorKind>,
}

impl Incoming {
    fn new(socket: Socket, message_time: Duration, longest: usize) -> Incoming {
        let wait = Wait::Asleep;
        let reader = BufReader::with_capacity(READ_AHEAD, Inlet { socket, wait });
        Incoming {
            reader,
            message_time,
            longest,
            deadline: None,
            taken: 0,
            reads: 0,
            failure: None,
        }
    }

    /// Forgets what was counted of the last message.
    fn count_anew(&mut self) {
        (self.deadline, self.taken, self.reads) = (None, 0, 0);
    }

    /// Waits in that way for the first bytes of a message, for `idle`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when what the peer sends begins no Thrift message.
    pub(crate) fn begins(&mut self, idle: Duration, wait: Wait) -> io::Result<Begun> {
        self.count_anew();
        self.reader.get_ref().socket.turned.store(false, Relaxed);
        if self.reader.buffer().is_empty() {
            self.reader.get_mut().wait = wait;
            let begun = self.wait(idle);
            self.reader.get_mut().wait = Wait::Asleep;
            match begun? {
                Begun::Message => (),
                instead => return Ok(instead),
            }
        }
        looks_like_thrift(self.reader.buffer())?;
        Ok(Begun::Message)
    }

    /// Reads ahead when bytes come, however often the socket's own timeout runs out before.
    fn wait(&mut self, idle: Duration) -> io::Result<Begun> {
        let until = Instant::now() + idle;
        loop {
            match self.reader.fill_buf() {
                Ok([]) => return Ok(Begun::End),
                Ok(_) => return Ok(Begun::Message),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    if Instant::now() >= until {
                        return Ok(Begun::Nothing);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// What was read ahead, as far as it may belong to one message.
    pub(crate) fn at_hand(&self) -> &[u8] {
        let bytes = self.reader.buffer();
        &bytes[..bytes.len().min(self.longest)]
    }

    /// Passes over so many bytes of it.
    pub(crate) fn pass_over(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// Why the last message could not be read to its end, if so: too long is invalid
    /// data, and a peer that has gone an unexpected end or another failure.
    pub(crate) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    fn read_in_time(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reader.buffer().is_empty() {
            self.check_deadline()?;
            // A caller waits for no beginning: what an answer is shows here.
            if self.taken == 0 {
                looks_like_thrift(self.reader.fill_buf()?)?;
            }
        }
        self.reader.read(buffer)
    }

    /// Counts one read of so many bytes.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.taken += bytes;
        self.reads += 1;
        if self.taken <= self.longest && self.reads <= MOST_READS {
            return Ok(());
        }
        self.failure = Some(io::ErrorKind::InvalidData);
        let longest = self.longest;
        let limit = format!("a message of more than {longest} bytes or {MOST_READS} reads");
        Err(io::Error::new(io::ErrorKind::InvalidData, limit))
    }

    /// Called before each read that will go to the socket: the first such read
    /// of a message starts its clock.
    fn check_deadline(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.reader.get_ref().socket.turned.swap(false, Relaxed) {
            self.count_anew();
        }
        let deadline = *self.deadline.get_or_insert(now + self.message_time);
        if now < deadline {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a message was begun and not ended in time",
        ))
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_in_time(buffer);
        match &read {
            Ok(0) if !buffer.is_empty() => self.failure = Some(io::ErrorKind::UnexpectedEof),
            Err(e) => self.failure = Some(e.kind()),
            Ok(_) => (),
        }
        read.and_then(|read| self.count(read).map(|()| read))
    }

    /// Most of what a message is made of is a few bytes that were read ahead.
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

/// Tells a message of Thrift from the openings of other protocols by its first bytes.
fn looks_like_thrift(first: &[u8]) -> io::Result<()> {
    let alien = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    let Some(head) = first.first_chunk::<4>() else {
        return Ok(());
    };
    let size = u32::from_be_bytes(*head);
    if size >> 16 == 0x8001 || size as usize <= LONGEST_METHOD {
        return Ok(());
    }
    match head {
        [0x15 | 0x16, 0x03, ..] => alien(trust::UNEXPECTED),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" => alien("HTTP, where Thrift was expected"),
        _ => alien("no message of Thrift's binary protocol"),
    }
}

/// The outgoing direction: a message is gathered, and sent whole when it is flushed.
pub struct Outgoing {
    socket: Socket,
    message_time: Duration,
    message: Vec<u8>,
    /// Throw the message away instead of sending it.
    muted: bool,
    /// What the last message said, if it was an exception.
    exception: Option<String>,
}

impl Outgoing {
    fn new(socket: Socket, message_time: Duration) -> Outgoing {
        Outgoing {
            socket,
            message_time,
            message: Vec::new(),
            muted: false,
            exception: None,
        }
    }

    /// From here on messages are sent, or, after a oneway call, thrown away.
    pub(crate) fn mute(&mut self, muted: bool) {
        self.muted = muted;
        self.exception = None;
    }

    /// The message that is gathered, empty at first.
    pub(crate) fn message(&mut self) -> &mut Vec<u8> {
        &mut self.message
    }

    /// Which call ended in which exception, if the last message was one, sent or
    /// thrown away.
    pub(crate) fn exception(&self) -> Option<&str> {
        self.exception.as_deref()
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.message.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.message.is_empty() {
            return Ok(());
        }
        // An exception is flushed twice, the second time with nothing to send.
        self.exception = excepted(&self.message);
        let sent = if self.muted {
            Ok(())
        } else {
            self.socket.channel.send(&self.message, self.message_time)
        };
        self.message.clear();
        self.message.shrink_to(KEPT_BUFFER);
        self.socket.turned.store(true, Relaxed);
        sent
    }
}

/// The method and the words of a message that is an exception. The type of a message
/// is the fourth byte of its strict header; the method follows with its length, a
/// sequence number, and the exception's first field, with its type, id and length.
fn excepted(message: &[u8]) -> Option<String> {
    const BEFORE_WORDS: usize = 4 + 1 + 2;
    let (head, rest) = message.split_first_chunk::<4>()?;
    if head[3] != EXCEPTION {
        return None;
    }
    let (method, rest) = counted(rest)?;
    let (words, _) = counted(rest.get(BEFORE_WORDS..)?)?;
    Some(format!(
        "{} ended in an exception: {}",
        method.escape_ascii(),
        words.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openings_of_other_protocols_are_named() {
        let told = |bytes: &[u8]| looks_like_thrift(bytes).map_err(|e| e.to_string());
        assert_eq!(
            told(b"GET / HTTP/1.1"),
            Err("HTTP, where Thrift was expected".into())
        );
        assert_eq!(
            told(&[0x16, 3, 1, 2]),
            Err(trust::UNEXPECTED.into()),
            "a handshake"
        );
        assert_eq!(
            told(&[0x15, 3, 3, 0, 2]),
            Err(trust::UNEXPECTED.into()),
            "an alert"
        );
        assert!(told(&[0x7f, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(told(&[0x80, 1, 0, 1]), Ok(()));
        assert_eq!(told(&[0, 0, 0, 4, b'p']), Ok(()));
        assert_eq!(told(&[0x80]), Ok(()), "too little to tell");
    }

    #[test]
    fn an_exception_is_told_with_its_method_and_its_words() {
        let mut message = vec![0x80, 1, 0, 3, 0, 0, 0, 3];
        message.extend(b"get");
        message.extend([0, 0, 0, 1, 11, 0, 1, 0, 0, 0, 2]);
        message.extend(b"no");
        let told = Some("get ended in an exception: no".to_owned());
        assert_eq!(excepted(&message), told);
        for length in 0..message.len() {
            assert_eq!(excepted(&message[..length]), None, "cut off at {length}");
        }
        message[3] = 2;
        assert_eq!(excepted(&message), None, "a reply is none");
    }
}
