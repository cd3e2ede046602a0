//! Basic types and timeouts of the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::diststore::StoreSyncClient;
use crate::rpc::dialer::{Input, Output, Timeouts};
use crate::store::versions::Value;

/// A client of another store.
pub type Client = StoreSyncClient<Input, Output>;

/// Why a call was refused, for a person to read.
pub type Refusal = String;

/// What to write: a key with its value, or without a value to delete it.
pub type Mutation = (Vec<u8>, Option<Value>);

/// In the result of a write: the version that says "not the primary of this key".
pub(crate) const NOT_PRIMARY: i64 = -1;

/// In the result of a write: the version that says "not finished, ask again".
pub(crate) const UNFINISHED: i64 = -2;

/// How long a client's call is retried before it is refused. Longer than the time to declare
/// a silent node down.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that knows the ring retries a call. Longer than a node does.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long after a write began an attempt of it may start, in milliseconds: as long as anybody
/// retries it, and a second more.
pub(super) const ATTEMPT_LIFETIME_MS: u64 = CLIENT_TIMEOUT.as_millis() as u64 + 1_000;

/// For calls that a peer answers from its own table.
pub(super) const PEER_TIMEOUTS: Timeouts = Timeouts::of_millis(500, 1_000);

/// For calls that ask for a confirmation: several of them while it counts.
pub(super) const QUORUM_TIMEOUTS: Timeouts = Timeouts::of_millis(400, 400);

/// For calls that a primary answers after it has called the other owners.
pub(crate) const PRIMARY_TIMEOUTS: Timeouts = Timeouts::of_millis(500, 3_000);

/// Milliseconds since 1970, by this host's clock.
pub(crate) fn unix_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as i64
}
