//! The keys of a workload.

use thrifty_p2p::client::ring::RingClient;
use thrifty_p2p::error::Error;
use thrifty_p2p::location::Location;
use thrifty_p2p::rpc::dialer::Dialer;

/// A key: `key` and nine digits.
pub type KeyBytes = [u8; 12];

/// The number of different keys with nine digits.
pub const MAX_KEYS: usize = 1_000_000_000;

/// The key with this number. Faster than `format!`: it is a part of each measured call.
pub fn key(mut number: usize) -> KeyBytes {
    let mut key = *b"key000000000";
    for digit in key[3..].iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    key
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
        assert_eq!(&key(0), b"key000000000");
        assert_eq!(&key(12_345), b"key000012345");
        assert_eq!(&key(MAX_KEYS - 1), b"key999999999");
    }
}
