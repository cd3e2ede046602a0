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
    /// Read a key only at its first owner that is not gone, as that owner knows, too.
    AskFirstOwner,
    /// Do not read a copy before its write is finished.
    FinishBeforeReading,
    /// Keep no copies of a process that is gone.
    FenceTheGone,
    /// Count a copy only if its owner knows who is gone.
    TellWhoIsGone,
    /// Answer a write that is known by its id, instead of running it again.
    RunOnce,
    /// Write only if the condition of a write is met.
    MeetConditions,
    /// Tell all owners that a condition was not met before the caller of a repeated write is told.
    NoteUnmet,
    /// Do not start a write after its caller has given up.
    RefuseTheLate,
    /// Undo a write that was given up.
    Undo,
    /// Give a write a larger version than any owner has.
    OvertakeOwners,
    /// Bring the unfinished copies of a process that is gone to all owners.
    Replay,
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
