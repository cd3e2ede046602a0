//! `Rules`: the rules of the protocol, which tests leave out one at a time to show that each
//! is necessary. In the product no rule can be left out.

/// A rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Write to the owners in all placements of the list, not only in the current one.
    WriteToAll,
    /// Read by the old placement until all members are synced.
    ReadByOld,
    /// Switch and settle in two steps.
    SettleAfterSwitch,
    /// Wait for the writes in progress before the table is copied.
    Drain,
    /// Copy again when a source is gone.
    PullAgain,
}

/// The rules in force: all of them by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    #[cfg(feature = "testing")]
    left_out: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(feature = "testing")]
    pub fn without(rule: Rule) -> Rules {
        Rules {
            left_out: Some(rule),
        }
    }

    /// Is this rule in force?
    #[cfg(feature = "testing")]
    pub fn has(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    /// Is this rule in force?
    #[cfg(not(feature = "testing"))]
    pub fn has(&self, _rule: Rule) -> bool {
        true
    }
}
