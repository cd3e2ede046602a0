//! `Promises`: what was acknowledged and returned, and what must therefore hold.

use std::collections::BTreeMap;

use thrifty_p2p::store::versions::Entry;

/// What clients were told of one key.
#[derive(Debug, Default)]
struct Told {
    /// The newest version that was acknowledged.
    acknowledged: i64,
    /// The newest version that was acknowledged or returned.
    seen: i64,
    /// The value of each version ever made; none for a deletion.
    made: BTreeMap<i64, Option<Vec<u8>>>,
}

/// What is known when an operation begins: nothing older may come of it.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    acknowledged: i64,
    seen: i64,
}

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// As new as all that was acknowledged or returned before.
    Fine,
    /// Older than a value that was returned before it was acknowledged, whose only
    /// holders have died since. A write that nobody acknowledged may come and go.
    Inversion,
}

/// What clients were told of all keys.
#[derive(Debug, Default)]
pub struct Promises {
    told: BTreeMap<Vec<u8>, Told>,
}

impl Promises {
    pub fn floor(&self, key: &[u8]) -> Floor {
        let told = self.told.get(key);
        Floor {
            acknowledged: told.map_or(0, |told| told.acknowledged),
            seen: told.map_or(0, |told| told.seen),
        }
    }

    /// A primary has chosen a version.
    pub fn made(&mut self, key: &[u8], entry: &Entry) -> Result<(), String> {
        let value = entry.value.as_deref().map(<[u8]>::to_vec);
        let made = &mut self.told.entry(key.to_vec()).or_default().made;
        match made.insert(entry.version, value) {
            None => Ok(()),
            Some(_) => Err(format!("two writes have version {}", entry.version)),
        }
    }

    /// A write was acknowledged that began at `floor`.
    pub fn acknowledged(&mut self, key: &[u8], floor: Floor, version: i64) -> Result<(), String> {
        if version <= floor.acknowledged {
            return Err(format!(
                "a write was acknowledged as {version} after {}",
                floor.acknowledged
            ));
        }
        let told = self.told.entry(key.to_vec()).or_default();
        told.acknowledged = told.acknowledged.max(version);
        told.seen = told.seen.max(version);
        Ok(())
    }

    /// A read that began at `floor` returned this.
    pub fn returned(
        &mut self,
        key: &[u8],
        floor: Floor,
        entry: Option<&Entry>,
    ) -> Result<Read, String> {
        let version = entry.map_or(0, |entry| entry.version);
        let told = self.told.entry(key.to_vec()).or_default();
        if version < floor.acknowledged {
            return Err(format!(
                "read {version} after {} was acknowledged",
                floor.acknowledged
            ));
        }
        told.holds(entry)?;
        if version < floor.seen {
            return Ok(Read::Inversion);
        }
        told.seen = told.seen.max(version);
        Ok(Read::Fine)
    }

    /// All is at rest, and every owner of the key holds this.
    pub fn kept(&self, key: &[u8], entry: Option<&Entry>) -> Result<(), String> {
        let Some(told) = self.told.get(key) else {
            return Ok(());
        };
        let version = entry.map_or(0, |entry| entry.version);
        if version < told.acknowledged {
            return Err(format!("kept {version} of {}", told.acknowledged));
        }
        told.holds(entry)
    }
}

impl Told {
    /// Is the entry's value the one that its version was made with?
    fn holds(&self, entry: Option<&Entry>) -> Result<(), String> {
        let Some(entry) = entry else { return Ok(()) };
        let value = entry.value.as_deref().map(<[u8]>::to_vec);
        match self.made.get(&entry.version) {
            Some(made) if *made == value => Ok(()),
            _ => Err(format!("version {} has another value", entry.version)),
        }
    }
}
