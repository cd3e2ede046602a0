//! `WriteLocks`: writes of one key follow one another; writes of different keys do not wait
//! for each other.
//!
//! Each key has a lock of its own while it is written, so a batch stops no other keys,
//! however many keys it has and however long its copies take.

use std::collections::HashSet;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::placement::Key;

/// Parts of the set of locked keys: enough that threads rarely meet in one.
const SHARDS: usize = 64;

/// The keys that are being written.
pub(super) struct WriteLocks {
    shards: Vec<Shard>,
}

#[derive(Default)]
struct Shard {
    /// Held briefly.
    locked: Mutex<HashSet<Vec<u8>>>,
    /// Notified when keys are unlocked.
    unlocked: Condvar,
}

/// Locked keys. They are unlocked when this is dropped.
pub(super) struct WriteGuard<'a> {
    locks: &'a WriteLocks,
    keys: Vec<Key<'a>>,
}

impl Default for WriteLocks {
    fn default() -> WriteLocks {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        WriteLocks { shards }
    }
}

impl WriteLocks {
    /// Locks all these keys. Blocks until then, or until the deadline: then None.
    ///
    /// Keys are locked in their order, so that no two callers wait for each other.
    pub fn lock<'a>(&'a self, keys: &[Key<'a>], deadline: Instant) -> Option<WriteGuard<'a>> {
        let mut wanted = keys.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut guard = WriteGuard {
            locks: self,
            keys: Vec::with_capacity(wanted.len()),
        };
        for key in wanted {
            if !self.shard(key).lock(key, deadline) {
                return None;
            }
            guard.keys.push(key);
        }
        Some(guard)
    }

    fn shard(&self, key: Key<'_>) -> &Shard {
        &self.shards[key.point as usize % SHARDS]
    }
}

impl Shard {
    /// False if the key is still locked at the deadline.
    fn lock(&self, key: Key<'_>, deadline: Instant) -> bool {
        let mut locked = self.locked.lock();
        let is_locked = |locked: &mut HashSet<Vec<u8>>| locked.contains(key.bytes);
        self.unlocked
            .wait_while_until(&mut locked, is_locked, deadline);
        locked.insert(key.bytes.to_vec())
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            let shard = self.locks.shard(*key);
            shard.locked.lock().remove(key.bytes);
            shard.unlocked.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_is_locked_once_at_a_time_and_others_are_free() {
        let locks = WriteLocks::default();
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Key::new(bytes));
        let held = locks.lock(&[b, a, b], Instant::now()).unwrap();
        assert!(locks.lock(&[c], Instant::now()).is_some());
        let began = Instant::now();
        let soon = began + Duration::from_millis(20);
        assert!(locks.lock(&[c, a], soon).is_none());
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(
            locks.lock(&[c], Instant::now()).is_some(),
            "a failed lock leaves nothing locked"
        );
        drop(held);
        assert!(locks.lock(&[a, b], Instant::now()).is_some());
    }

    #[test]
    fn many_threads_that_lock_overlapping_keys_all_finish() {
        let locks = WriteLocks::default();
        let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        let active: Vec<AtomicUsize> = names.iter().map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for number in 0..8 {
                let (locks, names, active) = (&locks, &names, &active);
                scope.spawn(move || {
                    for round in 0..500 {
                        let chosen = [number, (number + round) % 8, (round * 5) % 8];
                        let keys = chosen.map(|at| Key::new(names[at].as_bytes()));
                        let _held = locks.lock(&keys, Instant::now() + LONG).unwrap();
                        assert_eq!(active[number].fetch_add(1, SeqCst), 0);
                        active[number].fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    }
}
