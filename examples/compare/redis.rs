//! Redis' dialect: arrays of strings there, and a line or a string back for each.

use std::io::{self, Write};

use thrifty_p2p::load::keys::KEY;

use crate::other::{Answers, Dialect, number, unexpected};

/// What comes before the key of a `GET`: of an array of two strings, the first one, and
/// the length of the second.
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$12\r\n";
const _: () = assert!(KEY == 12);

/// The longest that a write waits for replicas, in milliseconds.
const PATIENCE: &str = "1000";

/// Redis, whose writes wait for so many replicas.
#[derive(Clone, Copy)]
pub struct Redis {
    pub wait: usize,
}

impl Dialect for Redis {
    fn ask(self, keys: &[[u8; KEY]], request: &mut Vec<u8>) {
        for key in keys {
            request.extend_from_slice(GET);
            request.extend_from_slice(key);
            request.extend_from_slice(b"\r\n");
        }
    }

    fn hear(self, answers: &mut Answers, count: usize, size: usize) -> io::Result<()> {
        for _ in 0..count {
            let length = answers.line()?.strip_prefix(b"$").ok_or_else(unexpected)?;
            if number(length)? != size {
                return Err(unexpected());
            }
            answers.value(size)?;
        }
        Ok(())
    }

    fn put(self, key: &[u8], value: &[u8], request: &mut Vec<u8>) {
        command(&[b"SET", key, value], request);
        if self.wait > 0 {
            let replicas = self.wait.to_string();
            let wait = [&b"WAIT"[..], replicas.as_bytes(), PATIENCE.as_bytes()];
            command(&wait, request);
        }
    }

    fn put_is_done(self, answers: &mut Answers) -> io::Result<()> {
        answers.expect(b"+OK")?;
        if self.wait > 0 {
            let replicas = answers.line()?.strip_prefix(b":").ok_or_else(unexpected)?;
            if number(replicas)? < self.wait {
                return Err(unexpected());
            }
        }
        Ok(())
    }
}

fn command(words: &[&[u8]], request: &mut Vec<u8>) {
    length(b'*', words.len(), request);
    for word in words {
        length(b'$', word.len(), request);
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

fn length(kind: u8, length: usize, request: &mut Vec<u8>) {
    request.push(kind);
    write!(request, "{length}\r\n").expect("memory takes it");
}
