//! TLS 1.3 between all programs of a network: identities, streams, readable errors.

pub(crate) mod errors;
pub mod identity;
pub(crate) mod stream;
