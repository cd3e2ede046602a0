//! `WriteLocks`: writes of one key follow one another; writes of different keys do not wait
//! for each other.
//!
//! Each key has a lock of its own while it is written, so a batch stops no other keys,
//! however many keys it has and however long its copies take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::placement::Key;

/// Parts of the set of locked keys: enough that threads rarely meet in one.
const SHARDS: usize = 64;

/// The keys that are being written. A cheap handle.
#[derive(Clone)]
pub(super) struct WriteLocks {
    shards: Arc<Vec<Shard>>,
}

#[derive(Default)]
struct Shard {
    /// The locked keys, with the largest version that is being written. Held briefly.
    locked: Mutex<HashMap<Vec<u8>, i64>>,
    /// Notified when keys are unlocked.
    unlocked: Condvar,
}

/// A locked key. It is unlocked when this is dropped, by any thread.
pub(super) struct WriteGuard {
    locks: WriteLocks,
    point: u32,
    key: Vec<u8>,
}

impl Default for WriteLocks {
    fn default() -> WriteLocks {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        WriteLocks {
            shards: Arc::new(shards),
        }
    }
}

impl WriteLocks {
    /// Locks a key. Blocks until then, or until the deadline: then None.
    ///
    /// Who locks several keys takes them in their order, so that no two wait for each other.
    pub fn lock(&self, key: Key<'_>, deadline: Instant) -> Option<WriteGuard> {
        let shard = self.shard(key.point);
        let mut locked = shard.locked.lock();
        let is_locked = |locked: &mut HashMap<Vec<u8>, i64>| locked.contains_key(key.bytes);
        let waited = shard
            .unlocked
            .wait_while_until(&mut locked, is_locked, deadline);
        if waited.timed_out() && locked.contains_key(key.bytes) {
            return None;
        }
        locked.insert(key.bytes.to_vec(), 0);
        Some(WriteGuard {
            locks: self.clone(),
            point: key.point,
            key: key.bytes.to_vec(),
        })
    }

    /// The largest version of the key that is being written here. 0 if none is.
    pub fn pending_version(&self, key: Key<'_>) -> i64 {
        let locked = self.shard(key.point).locked.lock();
        locked.get(key.bytes).copied().unwrap_or(0)
    }

    fn shard(&self, point: u32) -> &Shard {
        &self.shards[point as usize % SHARDS]
    }
}

impl WriteGuard {
    /// A write of the key has this version.
    pub fn set_version(&self, version: i64) {
        let mut locked = self.locks.shard(self.point).locked.lock();
        if let Some(pending) = locked.get_mut(&self.key) {
            *pending = version;
        }
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let shard = self.locks.shard(self.point);
        shard.locked.lock().remove(&self.key);
        shard.unlocked.notify_all();
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
        let [a, b] = [b"a", b"b"].map(|bytes| Key::new(bytes));
        let held = locks.lock(a, Instant::now()).unwrap();
        assert!(locks.lock(b, Instant::now()).is_some());
        let began = Instant::now();
        let soon = began + Duration::from_millis(20);
        assert!(locks.lock(a, soon).is_none());
        assert!(began.elapsed() >= Duration::from_millis(20));
        drop(held);
        assert!(locks.lock(a, Instant::now()).is_some());
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
                        let mut chosen = [number, (number + round) % 8];
                        chosen.sort_unstable_by_key(|at| Key::new(names[*at].as_bytes()).point);
                        let mut keys = chosen.map(|at| Key::new(names[at].as_bytes())).to_vec();
                        keys.dedup();
                        let deadline = Instant::now() + LONG;
                        let lock = |key: &Key<'_>| locks.lock(*key, deadline).unwrap();
                        let _held: Vec<WriteGuard> = keys.iter().map(lock).collect();
                        assert_eq!(active[number].fetch_add(1, SeqCst), 0);
                        active[number].fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    }
}
