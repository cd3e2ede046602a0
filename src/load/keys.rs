//! The keys of a load, and which of them comes next.

use crate::client::ring::RingClient;
use crate::error::Error;
use crate::location::Location;
use crate::rpc::client::Caller;

/// Bytes of a key.
pub const KEY: usize = 12;

/// The most keys, by the digits of their names.
pub const MOST_KEYS: usize = 1_000_000_000;

/// The keys that are read and written.
pub enum Keys {
    /// The first so many.
    First(usize),
    /// Those of these numbers.
    Chosen(Vec<usize>),
}

impl Keys {
    /// Of the first `count` keys, those that `peer` passes on: their primary is another node.
    ///
    /// # Errors
    /// The peer cannot be called, or there are none.
    pub fn passed_on_by(caller: &Caller, peer: &Location, count: usize) -> Result<Keys, Error> {
        let ring = RingClient::of(caller.clone(), peer)?;
        if !ring.nodes().contains(peer) {
            return Err(Error::Usage(format!(
                "no node is known by the name of {peer}: give the one that storestatus shows"
            )));
        }
        let is_passed_on = |number: &usize| ring.primary(&name(*number)).as_ref() != Some(peer);
        let chosen: Vec<usize> = (0..count).filter(is_passed_on).collect();
        if chosen.is_empty() {
            return Err(Error::Usage(format!("{peer} passes on no key")));
        }
        Ok(Keys::Chosen(chosen))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Keys::First(count) => *count,
            Keys::Chosen(numbers) => numbers.len(),
        }
    }

    /// The name of the one at this place.
    pub fn at(&self, place: usize) -> [u8; KEY] {
        match self {
            Keys::First(_) => name(place),
            Keys::Chosen(numbers) => name(numbers[place]),
        }
    }

    /// The name of any one of them.
    pub fn any(&self, random: &mut Random) -> [u8; KEY] {
        self.at((random.number() % self.count() as u64) as usize)
    }
}

/// The key of this number. Written digit by digit: it is part of each call.
fn name(mut number: usize) -> [u8; KEY] {
    let mut name = *b"key000000000";
    for digit in name[3..].iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    name
}

/// A generator of random numbers, by its state (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to less than 1.
    pub fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_nine_digits_and_all_are_met() {
        assert_eq!(&name(0), b"key000000000");
        assert_eq!(&name(MOST_KEYS - 1), b"key999999999");
        let keys = Keys::Chosen(vec![7, 12_345]);
        let mut random = Random(0);
        let mut met: Vec<_> = (0..100).map(|_| keys.any(&mut random)).collect();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, [*b"key000000007", *b"key000012345"]);
    }
}
