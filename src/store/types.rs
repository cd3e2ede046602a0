//! Basic types and timeouts of the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::diststore::{Refused, StoreSyncClient};
use crate::error::Error;
use crate::rpc::dialer::{Input, Output, Timeouts};
use crate::store::versions::Value;

/// A client of another store.
pub type Client = StoreSyncClient<Input, Output>;

/// Why a call was refused, for a person to read.
pub type Refusal = String;

/// What to write: a key with its value, or without a value to delete it.
pub type Mutation = (Vec<u8>, Option<Value>);

/// In a result of `write_as_primary`: the version that says "not the primary of this key".
pub(crate) const NOT_PRIMARY: i64 = -1;

/// How long a client's call is retried before it is refused. Longer than the time to declare
/// a silent node down.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// For calls that a peer answers from its own table.
pub(super) const PEER_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    reply: Duration::from_secs(1),
};

/// For calls that a primary answers after it has called the other owners.
pub(crate) const PRIMARY_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    reply: Duration::from_secs(3),
};

/// The reason that a peer gave for a refusal.
pub(super) fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Remote(_, thrift::Error::User(thrown)) => match thrown.downcast_ref::<Refused>() {
            Some(refused) => refused.reason.clone().unwrap_or_default(),
            None => thrown.to_string(),
        },
        other => other.to_string(),
    }
}

/// Milliseconds since 1970, by this host's clock.
pub(super) fn unix_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as i64
}
