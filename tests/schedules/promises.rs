//! `Promises`: what was acknowledged and returned, and what must therefore hold.

use std::collections::BTreeMap;

use thrifty_p2p::store::versions::Entry;

/// What clients know of one key.
#[derive(Debug, Default)]
struct KeyHistory {
    /// The newest version that was acknowledged.
    acknowledged: i64,
    /// The newest version that was acknowledged or returned.
    seen: i64,
    /// The value of each version that was ever assigned. None for a deletion.
    assigned: BTreeMap<i64, Option<Vec<u8>>>,
}

/// What is known when an operation starts. Its result must not be older.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    acknowledged: i64,
    seen: i64,
}

/// What clients know of all keys.
#[derive(Debug, Default)]
pub struct Promises {
    keys: BTreeMap<Vec<u8>, KeyHistory>,
}

impl Promises {
    /// What is known of the key now.
    pub fn floor(&self, key: &[u8]) -> Floor {
        let known = self.keys.get(key);
        Floor {
            acknowledged: known.map_or(0, |known| known.acknowledged),
            seen: known.map_or(0, |known| known.seen),
        }
    }

    /// A primary has assigned a version.
    pub fn assigned(&mut self, key: &[u8], entry: &Entry) -> Result<(), String> {
        let value = entry.value.as_deref().map(<[u8]>::to_vec);
        let assigned = &mut self.keys.entry(key.to_vec()).or_default().assigned;
        match assigned.insert(entry.version, value) {
            None => Ok(()),
            Some(_) => Err(format!("two writes have version {}", entry.version)),
        }
    }

    /// A write that started at `floor` was acknowledged.
    pub fn acknowledged(&mut self, key: &[u8], floor: Floor, version: i64) -> Result<(), String> {
        if version <= floor.acknowledged {
            return Err(format!(
                "a write was acknowledged as {version} after {}",
                floor.acknowledged
            ));
        }
        let known = self.keys.entry(key.to_vec()).or_default();
        known.acknowledged = known.acknowledged.max(version);
        known.seen = known.seen.max(version);
        Ok(())
    }

    /// The value that was assigned to this version. None for a deletion, and for version 0.
    pub fn value_of(&self, key: &[u8], version: i64) -> Option<Vec<u8>> {
        let assigned = &self.keys.get(key)?.assigned;
        assigned.get(&version).cloned().flatten()
    }

    /// A read that started at `floor` returned `entry`.
    pub fn returned(
        &mut self,
        key: &[u8],
        floor: Floor,
        entry: Option<&Entry>,
    ) -> Result<(), String> {
        let version = entry.map_or(0, |entry| entry.version);
        let known = self.keys.entry(key.to_vec()).or_default();
        if version < floor.acknowledged {
            return Err(format!(
                "read {version} after {} was acknowledged",
                floor.acknowledged
            ));
        }
        known.check_value(entry)?;
        if version < floor.seen {
            return Err(format!("read {version} after {} was read", floor.seen));
        }
        known.seen = known.seen.max(version);
        Ok(())
    }

    /// All operations have ended, and an owner of the key holds `entry`.
    pub fn held(&self, key: &[u8], entry: Option<&Entry>) -> Result<(), String> {
        let Some(known) = self.keys.get(key) else {
            return Ok(());
        };
        let version = entry.map_or(0, |entry| entry.version);
        if version < known.acknowledged {
            return Err(format!("held {version} of {}", known.acknowledged));
        }
        known.check_value(entry)
    }
}

impl KeyHistory {
    /// Has the entry the value that its version was assigned to?
    fn check_value(&self, entry: Option<&Entry>) -> Result<(), String> {
        let Some(entry) = entry else { return Ok(()) };
        let value = entry.value.as_deref().map(<[u8]>::to_vec);
        match self.assigned.get(&entry.version) {
            Some(assigned) if *assigned == value => Ok(()),
            _ => Err(format!("version {} has another value", entry.version)),
        }
    }
}
