//! `Limits`: how much a store takes.

/// What a store takes at the most, and refuses beyond, with nothing lost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest key, in bytes.
    pub key: usize,
    /// The longest value, in bytes; 16 MiB is the most that the wire takes.
    pub value: usize,
    /// Memory for keys and values, in bytes, as the table reckons it. Writes are refused
    /// beyond it; what a node must copy when others go is taken all the same.
    pub memory: usize,
}

/// The longest key.
pub const LONGEST_KEY: usize = 64 * 1024;

/// The longest value that fits the wire's own limit.
pub const LONGEST_VALUE: usize = 16 * 1024 * 1024;

/// What the longest key and all else in a message take beside its value.
const BESIDE_VALUE: usize = 2 * LONGEST_KEY;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key: LONGEST_KEY,
            value: LONGEST_VALUE,
            memory: usize::MAX,
        }
    }
}

impl Limits {
    /// The same limits, for nodes that take messages of so many bytes.
    pub fn within(self, longest_message: usize) -> Limits {
        let fits = longest_message.saturating_sub(BESIDE_VALUE);
        Limits {
            value: self.value.min(fits).min(LONGEST_VALUE),
            ..self
        }
    }

    /// Is a key with a value of these lengths taken? `grows` is by how much it adds to
    /// the memory `used` already; what adds nothing, such as a deletion, is always taken.
    ///
    /// # Errors
    /// The sentence that refuses it.
    pub fn check(&self, key: usize, value: usize, grows: usize, used: usize) -> Result<(), String> {
        if key > self.key {
            return Err(format!("a key of {key} bytes; {} are taken", self.key));
        }
        if value > self.value {
            return Err(format!(
                "a value of {value} bytes; {} are taken",
                self.value
            ));
        }
        if grows > 0 && used.saturating_add(grows) > self.memory {
            return Err(format!(
                "the memory for keys and values is full ({used} bytes are used)"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_nothing_is_taken_though_the_memory_is_full() {
        let limits = Limits {
            memory: 100,
            ..Limits::default()
        };
        assert!(limits.check(1, 1, 1, 99).is_ok());
        assert!(limits.check(1, 1, 1, 100).is_err());
        assert!(limits.check(1, 0, 0, 1000).is_ok());
        assert!(limits.check(limits.key + 1, 0, 0, 0).is_err());
        assert!(limits.check(1, limits.value + 1, 0, 0).is_err());
    }
    #[test]
    fn the_longest_key_and_value_fit_into_the_longest_message() {
        let small = Limits::default().within(1024 * 1024);
        assert!(small.key + small.value < 1024 * 1024);
        assert_eq!(small.value, 896 * 1024);
        assert_eq!(
            Limits::default().within(usize::MAX).value,
            LONGEST_VALUE,
            "the wire's own limit"
        );
    }
}
