//! `FastPath`: replies to some calls without the generated code.

/// Handles the calls that it knows. All others go to the generated processor.
pub trait FastPath: Send + Sync {
    /// Handles the call at the start of `call`, if it is complete and known.
    ///
    /// Appends the reply to `reply` and returns the call's length in bytes, at least 1.
    /// Otherwise appends nothing. The bytes after the call belong to later calls. The server
    /// calls this on the connection's thread with at most 8 KiB of buffered bytes. It may
    /// block like a handler.
    fn try_handle(&self, call: &[u8], reply: &mut Vec<u8>) -> Option<usize>;
}
