//! `StoreLimits`: what a store accepts.

/// The limits of one store. A write beyond them is refused, and nothing is lost.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// The longest key, in bytes.
    pub key: usize,
    /// The longest value, in bytes, up to 16 MiB.
    pub value: usize,
    /// Estimated memory for keys and values, in bytes. Beyond it writes are refused; copies
    /// that a node receives because others are gone are kept nevertheless.
    pub memory: usize,
}

/// The longest key, in bytes.
pub const MAX_KEY: usize = 64 * 1024;

/// The longest value that fits a message, in bytes.
pub const MAX_VALUE: usize = 16 * 1024 * 1024;

/// Bytes of a message beyond its value: the longest key and everything else.
const MESSAGE_OVERHEAD: usize = 2 * MAX_KEY;

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits {
            key: MAX_KEY,
            value: MAX_VALUE,
            memory: usize::MAX,
        }
    }
}

impl StoreLimits {
    /// The limits for nodes that accept messages of at most `max_message` bytes.
    pub fn within(self, max_message: usize) -> StoreLimits {
        let fits = max_message.saturating_sub(MESSAGE_OVERHEAD);
        StoreLimits {
            value: self.value.min(fits).min(MAX_VALUE),
            ..self
        }
    }

    /// Checks a key and a value of these lengths. `growth` is what they add to the `used`
    /// memory. What adds nothing, such as a deletion, always fits.
    ///
    /// # Errors
    /// Why they are refused.
    pub fn check(
        &self,
        key: usize,
        value: usize,
        growth: usize,
        used: usize,
    ) -> Result<(), String> {
        if key > self.key {
            let max = self.key;
            return Err(format!("a key of {key} bytes; at most {max} are accepted"));
        }
        if value > self.value {
            let max = self.value;
            return Err(format!(
                "a value of {value} bytes; at most {max} are accepted"
            ));
        }
        if growth > 0 && used.saturating_add(growth) > self.memory {
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
    fn a_write_that_adds_nothing_is_accepted_when_the_memory_is_full() {
        let limits = StoreLimits {
            memory: 100,
            ..StoreLimits::default()
        };
        assert!(limits.check(1, 1, 1, 99).is_ok());
        assert!(limits.check(1, 1, 1, 100).is_err());
        assert!(limits.check(1, 0, 0, 1000).is_ok());
        assert!(limits.check(limits.key + 1, 0, 0, 0).is_err());
        assert!(limits.check(1, limits.value + 1, 0, 0).is_err());
    }

    #[test]
    fn the_longest_key_and_value_fit_into_the_longest_message() {
        let small = StoreLimits::default().within(1024 * 1024);
        assert!(small.key + small.value < 1024 * 1024);
        assert_eq!(small.value, 896 * 1024);
        assert_eq!(
            StoreLimits::default().within(usize::MAX).value,
            MAX_VALUE,
            "the message limit"
        );
    }
}
