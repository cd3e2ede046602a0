//! `Shortcut`: calls that are answered from bytes to bytes, past the generated code.

/// Answers the calls that it knows, and leaves all others to the processor.
pub trait Shortcut: Send + Sync {
    /// If `call` begins with a whole call that is known, adds its reply to `reply`, and
    /// tells how many bytes the call has, one at least; else adds nothing. What else there
    /// is of `call` belongs to later calls. Called by the server on the thread of the
    /// connection, for calls of which it has the first eight kilobytes at the most; may
    /// block, as a handler.
    fn answer(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize>;
}
