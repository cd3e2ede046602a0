//! `Limits`: how much a store takes.

/// What a store takes at the most, and refuses beyond, with nothing lost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest key, in bytes.
    pub key: usize,
    /// The longest value, in bytes; 16 MiB is the most that the wire takes.
    pub value: usize,
    /// Memory for keys and values, in bytes, as the table reckons it.
    pub memory: usize,
}

/// The longest value that fits the wire's own limit.
pub const LONGEST_VALUE: usize = 16 * 1024 * 1024;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key: 64 * 1024,
            value: LONGEST_VALUE,
            memory: usize::MAX,
        }
    }
}

impl Limits {
    /// Is a pair of a key and a value of these lengths taken, with so much memory used already?
    ///
    /// # Errors
    /// The sentence that refuses it.
    pub fn check(&self, key: usize, value: usize, used: usize) -> Result<(), String> {
        if key > self.key {
            return Err(format!("a key of {key} bytes; {} are taken", self.key));
        }
        if value > self.value {
            return Err(format!(
                "a value of {value} bytes; {} are taken",
                self.value
            ));
        }
        if used.saturating_add(key + value) > self.memory {
            return Err(format!(
                "the memory for keys and values is full ({used} bytes)"
            ));
        }
        Ok(())
    }
}
