//! Messages as the original's stubs write them.

use std::io::Write;
use std::net::TcpStream;

use thrift::protocol::{
    TBinaryOutputProtocol, TFieldIdentifier, TListIdentifier, TMessageIdentifier, TMessageType,
    TOutputProtocol, TSerializable, TStructIdentifier, TType,
};
use thrift::{ApplicationError, ApplicationErrorKind};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator;

/// Replies to a method that the original does not have.
pub fn send_unknown_method(
    head: TMessageIdentifier,
    output: &mut dyn TOutputProtocol,
) -> thrift::Result<()> {
    let error = ApplicationError::new(ApplicationErrorKind::UnknownMethod, "unknown method");
    output.write_message_begin(&TMessageIdentifier::new(
        head.name,
        TMessageType::Exception,
        head.sequence_number,
    ))?;
    thrift::Error::write_application_error_to_out_protocol(&error, output)?;
    output.write_message_end()?;
    output.flush()
}

/// Makes a oneway call as the original's stubs do: with the message type of an ordinary call,
/// without waiting for a reply, on a connection of its own.
pub fn send_oneway(
    method: &str,
    peer: &Location,
    location: &Location,
    authorities: Option<&[Location]>,
) -> thrift::Result<()> {
    let mut message = Vec::new();
    let mut output = TBinaryOutputProtocol::new(&mut message, true);
    let head = TMessageIdentifier::new(method, TMessageType::Call, 0);
    output.write_message_begin(&head)?;
    output.write_struct_begin(&TStructIdentifier::new("arguments"))?;
    output.write_field_begin(&TFieldIdentifier::new("location", TType::Struct, 1))?;
    locator::Location::from(location).write_to_out_protocol(&mut output)?;
    if let Some(authorities) = authorities {
        output.write_field_begin(&TFieldIdentifier::new("authorities", TType::List, 2))?;
        let size = authorities.len() as i32;
        output.write_list_begin(&TListIdentifier::new(TType::Struct, size))?;
        for authority in authorities {
            locator::Location::from(authority).write_to_out_protocol(&mut output)?;
        }
    }
    output.write_field_stop()?;
    let mut stream = TcpStream::connect(peer.name())?;
    Ok(stream.write_all(&message)?)
}
