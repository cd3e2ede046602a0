//! memcached's dialect: a line there, lines and values back.

use std::io::{self, Write};

use thrifty_p2p::load::keys::KEY;

use crate::other::{Answers, Dialect, number, unexpected};

/// memcached, spoken to in its classic text protocol.
#[derive(Clone, Copy)]
pub struct Memcached;

impl Dialect for Memcached {
    fn ask(self, keys: &[[u8; KEY]], request: &mut Vec<u8>) {
        request.extend_from_slice(b"get");
        for key in keys {
            request.push(b' ');
            request.extend_from_slice(key);
        }
        request.extend_from_slice(b"\r\n");
    }

    fn hear(self, answers: &mut Answers, count: usize, size: usize) -> io::Result<()> {
        for _ in 0..count {
            let head = answers.line()?;
            let length = head.rsplit(|byte| *byte == b' ').next();
            if number(length.ok_or_else(unexpected)?)? != size {
                return Err(unexpected());
            }
            answers.value(size)?;
        }
        answers.expect(b"END")
    }

    fn put(self, key: &[u8], value: &[u8], request: &mut Vec<u8>) {
        request.extend_from_slice(b"set ");
        request.extend_from_slice(key);
        write!(request, " 0 0 {}\r\n", value.len()).expect("memory takes it");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }

    fn put_is_done(self, answers: &mut Answers) -> io::Result<()> {
        answers.expect(b"STORED")
    }
}
