//! `LineConnection`: a connection to Redis or memcached. Their protocols have much in
//! common: replies are lines, and values of a known length between them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;

use crate::contender::{Answer, Connection, Opened, check_size, open};
use crate::keys::KeyBytes;

/// Milliseconds after which Redis gives up a `WAIT`.
const WAIT_TIMEOUT: usize = 1000;

/// What a server speaks.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// Redis. All keys of a call are pipelined. After the writes of a call, it waits for so
    /// many replicas.
    Redis { wait: usize },
    /// memcached's classic text protocol. One `get` reads all keys of a call, pipelined
    /// `set`s write them.
    Memcached,
}

/// A connection to a server.
pub struct LineConnection {
    protocol: Protocol,
    stream: BufReader<TcpStream>,
}

impl LineConnection {
    /// Connects to a server.
    ///
    /// # Errors
    /// As for [`open`], or Redis has too few replicas: every write would time out.
    pub fn connect(server: &Location, protocol: Protocol) -> Opened {
        let stream = BufReader::new(open(server)?);
        let mut connection = LineConnection { protocol, stream };
        // No key is written: this is only the `WAIT`.
        if let Err(e) = connection.write(&[], b"") {
            return Err(Error::Usage(format!("{server}: {e}, see --redis-wait")));
        }
        Ok(Box::new(connection))
    }

    /// Reads a line that must start like this. Returns the number at its end, or 0.
    fn line(&mut self, start: &str) -> Answer {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.starts_with(start) {
            return Err(format!("{line:?} instead of {start}").into());
        }
        let number = line.trim_end().rsplit([' ', '$', ':']).next();
        Ok(number.and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}

impl Connection for LineConnection {
    fn read(&mut self, keys: &[KeyBytes], value_size: usize) -> Answer {
        let request = self.protocol.read_request(keys);
        self.stream.get_mut().write_all(&request)?;
        let (start, end) = match self.protocol {
            Protocol::Redis { .. } => ("$", None),
            Protocol::Memcached => ("VALUE ", Some("END")),
        };
        for _ in keys {
            check_size(Some(self.line(start)?), value_size)?;
            self.stream.read_exact(&mut vec![0; value_size + 2])?;
        }
        end.map_or(Ok(0), |end| self.line(end))?;
        Ok(keys.len())
    }

    fn write(&mut self, keys: &[KeyBytes], value: &[u8]) -> Answer {
        let request = self.protocol.write_request(keys, value);
        self.stream.get_mut().write_all(&request)?;
        let (done, wait) = match self.protocol {
            Protocol::Redis { wait } => ("+OK", wait),
            Protocol::Memcached => ("STORED", 0),
        };
        for _ in keys {
            self.line(done)?;
        }
        if wait > 0 && self.line(":")? < wait {
            return Err("too few replicas".into());
        }
        Ok(keys.len())
    }
}

impl Protocol {
    fn read_request(self, keys: &[KeyBytes]) -> Vec<u8> {
        let (start, between): (&[u8], &[u8]) = match self {
            Protocol::Redis { .. } => (
                b"*2\r\n$3\r\nGET\r\n$12\r\n",
                b"\r\n*2\r\n$3\r\nGET\r\n$12\r\n",
            ),
            Protocol::Memcached => (b"get ", b" "),
        };
        [start, &keys.join(between), b"\r\n"].concat()
    }

    fn write_request(self, keys: &[KeyBytes], value: &[u8]) -> Vec<u8> {
        let size = value.len();
        let (before, after, wait) = match self {
            Protocol::Redis { wait } => {
                let before = "*3\r\n$3\r\nSET\r\n$12\r\n";
                (before, format!("\r\n${size}\r\n"), wait)
            }
            Protocol::Memcached => ("set ", format!(" 0 0 {size}\r\n"), 0),
        };
        let mut request = Vec::new();
        for key in keys {
            let parts = [before.as_bytes(), key, after.as_bytes(), value, b"\r\n"];
            request.extend_from_slice(&parts.concat());
        }
        if wait > 0 {
            request.extend(format!("WAIT {wait} {WAIT_TIMEOUT}\r\n").bytes());
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [KeyBytes; 2] = [*b"sb/000000001", *b"sb/000000002"];

    fn write(protocol: Protocol) -> String {
        String::from_utf8(protocol.write_request(&KEYS, b"v")).unwrap()
    }

    #[test]
    fn redis_has_one_command_per_key_and_one_wait_per_call() {
        let get = |digit| format!("*2\r\n$3\r\nGET\r\n$12\r\nsb/00000000{digit}\r\n");
        let set = |digit| format!("*3\r\n$3\r\nSET\r\n$12\r\nsb/00000000{digit}\r\n$1\r\nv\r\n");
        let (redis, gets) = (|wait| Protocol::Redis { wait }, get(1) + &get(2));
        assert_eq!(redis(0).read_request(&KEYS), gets.as_bytes());
        assert_eq!(write(redis(0)), set(1) + &set(2));
        assert_eq!(write(redis(2)), set(1) + &set(2) + "WAIT 2 1000\r\n");
    }

    #[test]
    fn memcached_reads_all_keys_by_one_get() {
        let get = b"get sb/000000001 sb/000000002\r\n";
        assert_eq!(Protocol::Memcached.read_request(&KEYS), get);
        let set = |digit| format!("set sb/00000000{digit} 0 0 1\r\nv\r\n");
        assert_eq!(write(Protocol::Memcached), set(1) + &set(2));
    }
}
