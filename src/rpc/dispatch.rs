//! What the thread of one connection does: read calls, hand each to the fast path or the
//! generated processor, and decide when to close.
//!
//! * A **oneway** call is never answered, not even by an exception. The original's stubs
//!   send oneway calls as ordinary ones, so the server is given the names of the oneway
//!   methods.
//! * A **local** method is accepted from this machine only or, under TLS, from every peer.
//! * After an **application exception** the rest of the call is skipped: generated code does not
//!   read the arguments of an unknown method, or those after a malformed one. Where the end of
//!   the call cannot be found, the connection is closed.
//! * A connection that the server closes is first read for a moment (`linger`).

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use thrift::protocol::{TInputProtocol, TMessageType};
use thrift::server::{TProcessor, handle_process_result};
use thrift::{ProtocolError, ProtocolErrorKind};

use crate::error::message;
use crate::rpc::arguments::Arguments;
use crate::rpc::fast_path::FastPath;
use crate::rpc::message::{Input, Output, protocols};
use crate::rpc::other_protocol::{self, MAX_METHOD_NAME};
use crate::rpc::server_state::{Closing, Connection, ServerState};
use crate::rpc::stats::CloseReason;
use crate::rpc::stream::Stream;
use crate::rpc::tunnel::take_target;

/// What a server knows about its methods, by their names.
#[derive(Clone, Default)]
pub struct Methods {
    /// Methods that are never answered.
    pub oneway: Vec<String>,
    /// Methods for callers on the same machine, or with a certificate, only.
    pub local: Vec<String>,
    /// Handles some methods without the processor: none that is oneway or local.
    pub fast_path: Option<Arc<dyn FastPath>>,
}

/// What all connections of a server have in common.
pub(crate) struct Service {
    pub protocol: Box<dyn Protocol>,
    pub state: Arc<ServerState>,
}

/// What is spoken on the connections of a server.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// Serves one connection until the peer closes it (then `Ok`), the server stops, or it must
    /// be closed. Called on the connection's thread; may block.
    fn serve(
        &self,
        state: &ServerState,
        stream: Stream,
        connection: &Connection,
        peer: SocketAddr,
    ) -> Result<(), Closing>;
}

/// Thrift calls, which a processor handles.
pub(super) struct Thrift {
    pub processor: Box<dyn TProcessor + Send + Sync>,
    pub methods: Methods,
}

impl Service {
    /// Serves one connection to its end.
    pub fn serve_connection(
        &self,
        connection: &Connection,
        peer: SocketAddr,
    ) -> Result<(), Closing> {
        match self.open(&connection.stream)? {
            Some(stream) => self.protocol.serve(&self.state, stream, connection, peer),
            None => Ok(()),
        }
    }

    /// Prepares a stream for calls. None if the peer closed it without sending anything.
    fn open(&self, tcp: &Arc<TcpStream>) -> io::Result<Option<Stream>> {
        let limits = &self.state.limits;
        tcp.set_nodelay(true)?;
        let mut tls = None;
        if let Some(identity) = &self.state.identity {
            let (handshake, record) = (limits.handshake_timeout, limits.message_timeout);
            tcp.set_read_timeout(Some(handshake))?;
            tcp.set_write_timeout(Some(handshake))?;
            tls = identity.accept(tcp.clone(), handshake, record)?;
            if tls.is_none() {
                return Ok(None);
            }
        }
        tcp.set_read_timeout(Some(limits.read_timeout()))?;
        tcp.set_write_timeout(Some(limits.message_timeout))?;
        let tcp = tcp.clone();
        Ok(Some(Stream { tcp, tls }))
    }
}

impl Protocol for Thrift {
    fn serve(
        &self,
        state: &ServerState,
        stream: Stream,
        connection: &Connection,
        peer: SocketAddr,
    ) -> Result<(), Closing> {
        let is_trusted = state.identity.is_some() || stream.is_local();
        let limits = &state.limits;
        let (timeout, size) = (limits.message_timeout, limits.max_message);
        let (mut input, mut output) = protocols(stream.clone(), timeout, size, None);
        let mut times = state.methods.recorder();
        let mut idle_timeout = limits.first_call_timeout.min(limits.idle_timeout);
        while !state.stopping.is_requested() {
            match input.transport.next_message(idle_timeout) {
                Ok(true) => (),
                Ok(false) => break,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    let message = format!("no call for {idle_timeout:?}");
                    return Err(Closing::new(CloseReason::Idle, message));
                }
                Err(e) => {
                    answer_other_protocol(&input, &mut output);
                    return Err(e.into());
                }
            }
            times.start(input.transport.buffered());
            let handled = match self.try_fast_path(&mut input, &mut output) {
                Some(handled) => handled,
                None => self.dispatch(&mut input, &mut output, is_trusted),
            };
            let exception = check_handled(handled, &input, &output)?;
            times.stop(exception.is_some(), output.transport.is_refusal());
            if let Some(exception) = exception {
                state.report_exception(peer, exception);
            }
            state.counters.calls.fetch_add(1, Relaxed);
            connection.last_use.record(state.newest());
            idle_timeout = limits.idle_timeout;
            if let Some(target) = take_target() {
                let (read, tunnels) = (input.transport.buffered(), &state.tunnels);
                let timeouts = (limits.idle_timeout, limits.message_timeout);
                return Ok(tunnels.run((stream, target), read, timeouts)?);
            }
        }
        Ok(())
    }
}

impl Thrift {
    /// Handles one call without the processor, if it is buffered completely and known.
    fn try_fast_path(&self, input: &mut Input, output: &mut Output) -> Option<thrift::Result<()>> {
        let (input, output) = (&mut input.transport, &mut output.transport);
        let fast_path = self.methods.fast_path.as_ref()?;
        let buffered = input.buffered();
        let Some(length) = fast_path.try_handle(buffered, output.message()) else {
            output.message().clear();
            return None;
        };
        let is_buffered = (1..=buffered.len()).contains(&length);
        assert!(is_buffered, "a fast path has handled {length} bytes");
        input.consume(length);
        output.suppress_reply(false);
        Some(output.flush().map_err(thrift::Error::from))
    }

    /// Hands one call to the processor, or answers that it is refused.
    fn dispatch(
        &self,
        input: &mut Input,
        output: &mut Output,
        is_trusted: bool,
    ) -> thrift::Result<()> {
        let header = input.read_message_begin()?;
        if header.name.len() > MAX_METHOD_NAME {
            // It would be repeated in the reply and in the log.
            let length = header.name.len();
            let message = format!("a method name of {length} bytes");
            return Err(ProtocolError::new(ProtocolErrorKind::InvalidData, message).into());
        }
        let Methods { oneway, local, .. } = &self.methods;
        let is_oneway =
            header.message_type == TMessageType::OneWay || oneway.contains(&header.name);
        output.transport.suppress_reply(is_oneway);
        let refused = (!is_trusted && local.contains(&header.name)).then(|| header.clone());
        let mut arguments = Arguments::new(input, header);
        if let Some(header) = refused {
            let allowed = "is accepted from this machine only, or under TLS";
            let why = format!("refused {}(): it {allowed}", header.name);
            handle_process_result(&header, Err(why.into()), output)?;
        } else {
            self.processor.process(&mut arguments, output)?;
        }
        arguments.skip_rest()
    }
}

/// Answers a peer that speaks another protocol in that protocol, if it can be answered.
fn answer_other_protocol(input: &Input, output: &mut Output) {
    if let Some(answer) = other_protocol::answer(input.transport.buffered()) {
        output.transport.message().extend(answer);
        // The connection is closed in any case.
        let _ = output.transport.flush();
    }
}

/// Decides whether the connection can be used after a call. The application exception in which
/// the call ended, if it did.
fn check_handled<'a>(
    handled: thrift::Result<()>,
    input: &Input,
    output: &'a Output,
) -> Result<Option<&'a str>, Closing> {
    let exception = output.transport.exception();
    let Err(e) = handled else {
        return Ok(exception);
    };
    let text = exception.map_or_else(|| message(&e), str::to_owned);
    Err(match input.transport.failure() {
        Some(io::ErrorKind::UnexpectedEof) => {
            Closing::new(None, "its peer closed it in the middle of a message")
        }
        Some(failure) => Closing::new(CloseReason::of_io(failure), text),
        None => Closing::new(CloseReason::of(&e), text),
    })
}

impl From<io::Error> for Closing {
    fn from(error: io::Error) -> Closing {
        Closing::new(CloseReason::of_io(error.kind()), error.to_string())
    }
}
