//! Raw bytes, sent to a node without a client library.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::{NodeProcess, SOON};

/// Opens a connection. Sends nothing.
pub fn connect(node: &NodeProcess) -> TcpStream {
    let stream = TcpStream::connect(node.at()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `bytes` and returns everything that the node sends before it closes the connection.
pub fn reply_to(node: &NodeProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(node);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Ok(_) => reply,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => reply,
        Err(e) => panic!("the connection stayed open: {e}"),
    }
}

/// The message of a call of that method. `arguments` is the encoded struct of its arguments.
pub fn message(name: &str, arguments: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 1, 0, 1];
    bytes.extend((name.len() as u32).to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend([0; 4]);
    bytes.extend(arguments);
    bytes
}
