//! `Histories`: what clients did, for the checker of linearizability, which knows nothing of
//! versions.

use std::collections::BTreeMap;

use super::linearizable::{Kind, Operation, Verdict, check};

/// The most states that the checker visits for one key.
const LIMIT: usize = 200_000;

/// An operation in progress: its key, and its index in the history of the key.
pub type InProgress = (Vec<u8>, usize);

/// The operations on each key.
#[derive(Debug, Default)]
pub struct Histories {
    /// None for an operation that never took effect.
    keys: BTreeMap<Vec<u8>, Vec<Option<Operation>>>,
}

impl Histories {
    /// A client begins to write this value, or to delete the key, perhaps only if it has the value
    /// `from`.
    pub fn begin_write(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        from: Option<Option<&[u8]>>,
        now: i64,
    ) -> InProgress {
        let to = value.map(number);
        let kind = match from {
            Some(from) => Kind::Swap {
                from: from.map(number),
                to,
            },
            None => to.map_or(Kind::Delete, Kind::Write),
        };
        self.begin(key, kind, now)
    }

    /// A client begins to read.
    pub fn begin_read(&mut self, key: &[u8], now: i64) -> InProgress {
        self.begin(key, Kind::Read(None), now)
    }

    fn begin(&mut self, key: &[u8], kind: Kind, now: i64) -> InProgress {
        let history = self.keys.entry(key.to_vec()).or_default();
        let (start, end) = (now as u64, None);
        history.push(Some(Operation { start, end, kind }));
        (key.to_vec(), history.len() - 1)
    }

    /// A write was acknowledged.
    pub fn end(&mut self, operation: &InProgress, now: i64) {
        if let Some(operation) = self.operation(operation) {
            operation.end = Some(now as u64);
        }
    }

    /// A read returned this value, or a condition was not met by it.
    pub fn end_read(&mut self, operation: &InProgress, value: Option<&[u8]>, now: i64) {
        if let Some(operation) = self.operation(operation) {
            operation.kind = Kind::Read(value.map(number));
            operation.end = Some(now as u64);
        }
    }

    /// The operation was refused: it has no effect, and never will have.
    pub fn never_happened(&mut self, (key, index): &InProgress) {
        if let Some(history) = self.keys.get_mut(key) {
            history[*index] = None;
        }
    }

    fn operation(&mut self, (key, index): &InProgress) -> Option<&mut Operation> {
        self.keys.get_mut(key)?[*index].as_mut()
    }

    /// Is there an order of the operations on each key? If not, or if the search takes too long,
    /// says which.
    pub fn check(&self) -> Result<(), String> {
        for (key, history) in &self.keys {
            let is_unread = |operation: &Operation| {
                operation.end.is_none() && matches!(operation.kind, Kind::Read(_))
            };
            let history = history.iter().flatten().copied();
            let mut history: Vec<Operation> = history.filter(|one| !is_unread(one)).collect();
            history.sort_by_key(|operation| operation.start);
            match check(&history, LIMIT) {
                Verdict::Linearizable => (),
                Verdict::Violation(why) => return Err(format!("{}: {why}", key.escape_ascii())),
                Verdict::Undecided => return Err("the checker gave up".into()),
            }
        }
        Ok(())
    }
}

/// The number that a value consists of.
fn number(value: &[u8]) -> u64 {
    let bytes = value.try_into().expect("values are numbers");
    u64::from_be_bytes(bytes)
}
