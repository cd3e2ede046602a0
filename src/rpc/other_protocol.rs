//! Clients that speak another protocol: what is logged, and what they are answered.

use std::io;

use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TCompactInputProtocol, TCompactOutputProtocol,
    TInputProtocol, TMessageType, TOutputProtocol,
};
use thrift::server::handle_process_result;
use thrift::{ApplicationError, ApplicationErrorKind};

use crate::rpc::tls::errors::UNEXPECTED as UNEXPECTED_TLS;

/// The longest method name, in bytes. A longer one shows that the peer speaks another protocol.
pub(super) const MAX_METHOD_NAME: usize = 128;

/// The first bytes of a message of Thrift's strict binary protocol, and of the compact one.
const BINARY: &[u8] = &[0x80, 1];
const COMPACT: &[u8] = &[0x82];

const HTTP: &str = "HTTP, where Thrift was expected";
const FRAMED: &str = "framed, where buffered was expected";
const COMPACT_FRAMED: &str = "the compact protocol, framed, where binary and buffered was expected";
const COMPACT_BUFFERED: &str = "the compact protocol, where the binary protocol was expected";
const JSON: &str = "Thrift's JSON protocol, where the binary protocol was expected";

/// Checks that the first bytes can start a message of Thrift's binary protocol.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]. It names the other protocol if that is a known one.
pub(super) fn check(bytes: &[u8]) -> io::Result<()> {
    match name(bytes) {
        Some(other) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
        None => Ok(()),
    }
}

/// The name of the other protocol. None for Thrift's binary one, and if too few bytes tell.
fn name(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.first_chunk::<4>()?;
    let number = u32::from_be_bytes(*head);
    let rest = &bytes[4..];
    match head {
        [0x15 | 0x16, 0x03, ..] => Some(UNEXPECTED_TLS),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" => Some(HTTP),
        [0x82, ..] => Some(COMPACT_BUFFERED),
        b"[1,\"" => Some(JSON),
        // A strict header, or the length of a frame or of an old header's method name.
        _ if number >> 16 == 0x8001 => None,
        _ if rest.starts_with(BINARY) => Some(FRAMED),
        _ if rest.starts_with(COMPACT) => Some(COMPACT_FRAMED),
        _ if number as usize <= MAX_METHOD_NAME => None,
        _ => Some("not a message of Thrift's binary protocol"),
    }
}

/// What a client that sent these first bytes is answered in its own protocol. None if that
/// protocol has no answer, or the call's header is incomplete.
pub(super) fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let name = name(bytes)?;
    let mut reply = Vec::new();
    match name {
        HTTP => {
            let length = name.len() + 1;
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{name}\n");
            return Some(answer.into_bytes());
        }
        FRAMED => put_exception(
            &mut TBinaryInputProtocol::new(&bytes[4..], true),
            name,
            &mut TBinaryOutputProtocol::new(&mut reply, true),
        ),
        COMPACT_FRAMED | COMPACT_BUFFERED => put_exception(
            &mut TCompactInputProtocol::new(&bytes[if name == COMPACT_FRAMED { 4 } else { 0 }..]),
            name,
            &mut TCompactOutputProtocol::new(&mut reply),
        ),
        _ => return None,
    }
    .ok()?;
    if name != COMPACT_BUFFERED {
        reply.splice(..0, (reply.len() as u32).to_be_bytes());
    }
    Some(reply)
}

/// Reads the header of a call and writes the exception that answers it.
fn put_exception(
    input: &mut dyn TInputProtocol,
    text: &str,
    output: &mut dyn TOutputProtocol,
) -> thrift::Result<()> {
    let call = input.read_message_begin()?;
    if call.message_type == TMessageType::OneWay || call.name.len() > MAX_METHOD_NAME {
        return Err("it has no answer".into());
    }
    let error = ApplicationError::new(ApplicationErrorKind::InvalidProtocol, text);
    handle_process_result(&call, Err(error.into()), output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thrift::protocol::TMessageIdentifier;

    #[test]
    fn other_protocols_are_named_by_their_first_bytes() {
        let cases: [(&[u8], Option<&str>); 13] = [
            (b"GET / HTTP/1.1", Some(HTTP)),
            (&[0x16, 3, 1, 2], Some(UNEXPECTED_TLS)),
            (&[0x15, 3, 3, 0, 2], Some(UNEXPECTED_TLS)),
            (&[0, 0, 0, 17, 0x80, 1, 0, 1], Some(FRAMED)),
            (&[0, 1, 0, 0, 0x80, 1, 0, 1], Some(FRAMED)),
            (&[0, 0, 0, 9, 0x82, 0x21], Some(COMPACT_FRAMED)),
            (&[0x82, 0x21, 1, 4], Some(COMPACT_BUFFERED)),
            (b"[1,\"ping\"", Some(JSON)),
            (
                &[0x7f, 0xff, 0xff, 0xff],
                Some("not a message of Thrift's binary protocol"),
            ),
            (&[0x80, 1, 0, 1, 0x80, 1], None),
            (&[0, 0, 0, 4, b'p'], None),
            (&[0x80], None),
            (&[], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(name(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_call_is_answered_in_its_own_protocol_with_its_number() {
        let call = TMessageIdentifier::new("ping", TMessageType::Call, 7);
        let (mut binary, mut compact) = (vec![0, 0, 0, 17], Vec::new());
        let mut output = TBinaryOutputProtocol::new(&mut binary, true);
        output.write_message_begin(&call).unwrap();
        let mut output = TCompactOutputProtocol::new(&mut compact);
        output.write_message_begin(&call).unwrap();
        let framed = answer(&binary).unwrap();
        assert_eq!(framed[..4], (framed.len() as u32 - 4).to_be_bytes());
        let compact = answer(&compact).unwrap();
        let check = |input: &mut dyn TInputProtocol, text: &str| {
            let header = input.read_message_begin().unwrap();
            assert_eq!(header.message_type, TMessageType::Exception);
            assert_eq!((header.name.as_str(), header.sequence_number), ("ping", 7));
            let error = thrift::Error::read_application_error_from_in_protocol(input).unwrap();
            assert_eq!(error.message, text);
        };
        check(&mut TBinaryInputProtocol::new(&framed[4..], true), FRAMED);
        check(
            &mut TCompactInputProtocol::new(&compact[..]),
            COMPACT_BUFFERED,
        );
        assert!(answer(b"GET / HTTP/1.1").unwrap().ends_with(b"expected\n"));
        for length in 0..binary.len() {
            assert_eq!(answer(&binary[..length]), None, "cut at {length}");
        }
    }
}
