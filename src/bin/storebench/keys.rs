//! The keys of a workload.

use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;
use thrifty_p2p::store::placement::Key;

use crate::worker::Workload;

/// A key: a prefix that keeps it apart from keys of others, and nine digits.
pub type KeyBytes = [u8; 12];

/// Keys that are deleted by one call.
const REMOVED_AT_ONCE: usize = 4096;

/// The number of different keys with nine digits.
pub const MAX_KEYS: usize = 1_000_000_000;

/// The key with this number. Faster than `format!`: it is a part of each measured call.
pub fn key(mut number: usize) -> KeyBytes {
    let mut key = *b"sb/000000000";
    for digit in key[3..].iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    key
}

/// Deletes the keys of a workload.
///
/// # Errors
/// The store refuses, or cannot be reached.
pub fn remove(dialer: &Dialer, peer: &Location, workload: &Workload) -> Result<(), Error> {
    let ring = RingClient::of(dialer.clone(), peer)?;
    let keys: Vec<KeyBytes> = (0..workload.key_count())
        .map(|index| workload.key(index))
        .collect();
    for keys in keys.chunks(REMOVED_AT_ONCE) {
        let writes: Vec<_> = keys.iter().map(|key| (Key::new(key), None)).collect();
        ring.write_many(&writes)?;
    }
    Ok(())
}

/// The numbers of those of the first `count` keys that `peer` forwards: their primary is
/// another node.
///
/// # Errors
/// The peer cannot be called, or it forwards none of them.
pub fn forwarded(dialer: &Dialer, peer: &Location, count: usize) -> Result<Vec<usize>, Error> {
    let ring = RingClient::of(dialer.clone(), peer)?;
    if !ring.nodes().contains(peer) {
        let hint = "use the address that storestatus shows";
        return Err(Error::Usage(format!("no node is named {peer}: {hint}")));
    }
    let is_forwarded = |number: &usize| ring.primary(&key(*number)).as_ref() != Some(peer);
    let numbers: Vec<usize> = (0..count).filter(is_forwarded).collect();
    if numbers.is_empty() {
        return Err(Error::Usage(format!("{peer} forwards no key")));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_nine_digits() {
        assert_eq!(&key(0), b"sb/000000000");
        assert_eq!(&key(12_345), b"sb/000012345");
        assert_eq!(&key(MAX_KEYS - 1), b"sb/999999999");
    }
}
