//! `WaitingPuts`: values of legacy nodes that are still to be written.
//!
//! A legacy node that hands keys over deletes them as soon as it has sent them, so a put that
//! arrives when it cannot be executed may be the only copy. It waits until the node serves, and
//! is executed unless the key was written later. So does a value that a read has found at a
//! legacy node: our nodes keep copies of it from then on.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The most bytes of keys and values that wait. 64 MiB.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Estimated bytes of one put beyond its key and value.
const OVERHEAD: usize = 100;

/// The latest waiting put of each key.
#[derive(Debug, Default)]
pub struct WaitingPuts {
    puts: BTreeMap<Vec<u8>, WaitingPut>,
    bytes: usize,
}

/// A put that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPut {
    /// The value.
    pub value: Vec<u8>,
    /// When it arrived, in milliseconds since 1970.
    pub at: i64,
    /// If a read has found it at the legacy node that the key belongs to: the version that our
    /// nodes had then, 0 for none.
    pub seen: Option<i64>,
}

impl WaitingPuts {
    /// Adds a put, in place of an earlier one of the key. False if there is no room for it.
    pub fn add(&mut self, key: Vec<u8>, put: WaitingPut) -> bool {
        self.remove(&key);
        let size = size(&key, &put);
        let has_room = self.bytes + size <= MAX_BYTES;
        if has_room {
            self.bytes += size;
            self.puts.insert(key, put);
        }
        has_room
    }

    /// Adds a put if none of the key waits and there is room for it.
    pub fn add_if_none(&mut self, key: &[u8], put: WaitingPut) {
        if !self.contains(key) {
            self.add(key.to_vec(), put);
        }
    }

    /// The next put after that of this key, in the order of keys.
    pub fn after(&self, key: Option<&[u8]>) -> Option<(Vec<u8>, WaitingPut)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.puts.range::<[u8], _>((start, Bound::Unbounded));
        let (key, put) = later.next()?;
        Some((key.clone(), put.clone()))
    }

    /// Removes a put that was executed, unless a later one has replaced it.
    pub fn finish(&mut self, key: &[u8], put: &WaitingPut) {
        if self.puts.get(key) == Some(put) {
            self.remove(key);
        }
    }

    /// Does a put of this key wait?
    pub fn contains(&self, key: &[u8]) -> bool {
        self.puts.contains_key(key)
    }

    /// How many puts wait.
    pub fn len(&self) -> usize {
        self.puts.len()
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(put) = self.puts.remove(key) {
            self.bytes -= size(key, &put);
        }
    }
}

fn size(key: &[u8], put: &WaitingPut) -> usize {
    key.len() + put.value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &[u8], at: i64) -> WaitingPut {
        WaitingPut {
            value: value.to_vec(),
            at,
            seen: None,
        }
    }

    #[test]
    fn the_latest_put_of_a_key_waits_and_memory_is_bounded() {
        let mut puts = WaitingPuts::default();
        assert!(puts.add(b"a".to_vec(), put(b"1", 1)));
        assert!(puts.add(b"a".to_vec(), put(b"2", 2)));
        puts.finish(b"a", &put(b"1", 1));
        assert_eq!(puts.after(None), Some((b"a".to_vec(), put(b"2", 2))));
        assert_eq!(puts.after(Some(b"a")), None);
        assert!(!puts.add(b"b".to_vec(), put(&vec![0; MAX_BYTES], 3)));
        assert_eq!(puts.len(), 1);
        puts.finish(b"a", &put(b"2", 2));
        assert_eq!((puts.after(None), puts.bytes), (None, 0));
    }
}
