//! `Request`: the head of an HTTP request, read from a connection.

use std::io::{self, Read};
use std::time::Instant;

use httparse::{EMPTY_HEADER, Status};

use crate::rpc::limits::{MAX_REQUEST, ServerLimits};
use crate::rpc::stream::Stream;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// A request that may be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// HEAD instead of GET.
    pub is_head: bool,
    pub path: String,
    /// What follows the question mark, decoded.
    pub query: Vec<u8>,
    /// The peer may send another request on the connection.
    pub keeps_alive: bool,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Request(Request),
    /// The peer has closed the connection, or has sent nothing for long.
    End,
    /// A status and a reason. The connection must be closed.
    Rejected(&'static str, &'static str),
}

/// Reads requests from one connection.
pub(super) struct Requests<'a> {
    pub stream: Stream,
    pub limits: &'a ServerLimits,
    /// Bytes that were read and belong to later requests.
    pub buffer: Vec<u8>,
}

impl Requests<'_> {
    /// Waits for the next request.
    ///
    /// # Errors
    /// Those of the connection; the request takes too long.
    pub fn next(&mut self) -> io::Result<Next> {
        let mut began = Instant::now();
        loop {
            if let Some((next, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Ok(next);
            }
            let is_idle = self.buffer.is_empty();
            if is_idle && began.elapsed() >= self.limits.idle_timeout {
                return Ok(Next::End);
            }
            if !is_idle && began.elapsed() >= self.limits.message_timeout {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut bytes = [0; 1024];
            let read = match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Next::End),
                Err(e) if is_transient(&e) => 0,
                read => read?,
            };
            self.buffer.extend_from_slice(&bytes[..read]);
            if is_idle && read > 0 {
                began = Instant::now();
            }
        }
    }
}

/// Can the read be repeated after this error?
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::TimedOut
    )
}

/// The request at the start of these bytes, with its length. None if it is not complete.
fn parse(bytes: &[u8]) -> Option<(Next, usize)> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(&bytes[..bytes.len().min(MAX_REQUEST)]);
    let rejected = |status, reason| Some((Next::Rejected(status, reason), bytes.len()));
    let length = match status {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < MAX_REQUEST => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return rejected("431 Request Header Fields Too Large", "it is too large");
        }
        Err(_) => return rejected("400 Bad Request", "it is not HTTP"),
    };
    let is_head = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return rejected("405 Method Not Allowed", "only GET and HEAD are answered"),
    };
    let has = |name: &str, value: &str| {
        let mut headers = parsed.headers.iter();
        headers.any(|header| {
            let is_value = header.value.eq_ignore_ascii_case(value.as_bytes());
            header.name.eq_ignore_ascii_case(name) && (value.is_empty() || is_value)
        })
    };
    let is_empty = !has("content-length", "") || has("content-length", "0");
    if !is_empty || has("transfer-encoding", "") {
        return rejected("400 Bad Request", "it has a body");
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        is_head,
        path: path.to_owned(),
        query: decode(query),
        keeps_alive: parsed.version == Some(1) && !has("connection", "close"),
    };
    Some((Next::Request(request), length))
}

/// The bytes of a percent-encoded text. What is not encoded correctly stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (rest, _) = (&after[2..], bytes.push(byte)),
            None => (rest, _) = (after, bytes.push(*first)),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<Next> {
        parse(text.as_bytes()).map(|(next, _)| next)
    }

    fn rejection(text: &str) -> &'static str {
        match request(text) {
            Some(Next::Rejected(status, _)) => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_complete_request_is_read_and_a_part_of_it_is_none() {
        let text = "GET /key.json?a%20b%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n";
        let twice = text.repeat(2);
        let Some((Next::Request(first), length)) = parse(twice.as_bytes()) else {
            panic!("not read");
        };
        assert_eq!(length, text.len());
        assert_eq!((first.path.as_str(), first.is_head), ("/key.json", false));
        assert_eq!(first.query, b"a b\xff%zz");
        assert!(first.keeps_alive);
        assert!((0..length).all(|end| request(&text[..end]).is_none()));
    }

    #[test]
    fn a_request_that_would_change_something_or_is_too_large_is_rejected() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"] {
            let text = format!("{method} / HTTP/1.1\r\n\r\n");
            assert_eq!(rejection(&text), "405 Method Not Allowed");
        }
        let body = "GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        let chunks = "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for text in [body, chunks, "\x16\x03\x01\x02", "fetch\r\n\r\n"] {
            assert_eq!(rejection(text), "400 Bad Request", "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_REQUEST));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(MAX_HEADERS + 1));
        for text in [long, many] {
            assert_eq!(rejection(&text), "431 Request Header Fields Too Large");
        }
    }

    #[test]
    fn a_connection_is_kept_unless_the_peer_says_otherwise() {
        for (head, expected) in [
            ("HTTP/1.1\r\n", true),
            ("HTTP/1.1\r\nConnection: Close\r\n", false),
            ("HTTP/1.0\r\n", false),
        ] {
            match request(&format!("HEAD / {head}\r\n")) {
                Some(Next::Request(request)) => assert_eq!(request.keeps_alive, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
