//! Conversions between the generated structs of the interface and the store's own types.
//!
//! A message without its sender, with a cursor to nowhere or with an impossible version is
//! refused with a sentence. Any other missing field counts as zero or empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_writes::{Condition, PendingWrite, WriteReply, WriteRequest};
use super::placement::{Key, NodeId, Placement};
use super::rebalance::{Phase, PlacementHistory, Pull, RebalanceStatus, Saved};
use super::recent_writes::{WriteId, WriteIds, WriteOutcome};
use super::table::{Cursor, Page, STRIPES, stripe_of};
use super::types::{NOT_PRIMARY, UNFINISHED};
use super::versions::{Entry, Value, is_plausible};
use crate::diststore as wire;
use crate::location::Location;
use crate::locator;

/// The most members in all placements of one message: 128 placements of 128 members. A member
/// has 120 points in each placement, which take a kilobyte.
pub const MAX_LISTED_NODES: usize = 16_384;

/// The most members in what a node has saved: stores are for dozens of nodes.
const MAX_SAVED_NODES: usize = 1_000;

/// The refusal of a node that may not answer as an owner.
pub(super) const NOT_AN_OWNER: &str = "this node does not answer for that placement";

/// Why a message could not be decoded.
pub type DecodeError = String;

/// The exception of the interface for a refusal.
pub fn refused(reason: impl Into<String>) -> thrift::Error {
    wire::Refused::new(reason.into()).into()
}

impl From<Phase> for wire::Phase {
    fn from(phase: Phase) -> wire::Phase {
        match phase {
            Phase::Installed => wire::Phase::INSTALLED,
            Phase::Drained => wire::Phase::DRAINED,
            Phase::Synced => wire::Phase::SYNCED,
            Phase::Switched => wire::Phase::SWITCHED,
            Phase::Settled => wire::Phase::SETTLED,
        }
    }
}

impl From<wire::Phase> for Phase {
    /// An unknown phase counts as the first one, because of which no step is taken.
    fn from(phase: wire::Phase) -> Phase {
        match phase {
            wire::Phase::DRAINED => Phase::Drained,
            wire::Phase::SYNCED => Phase::Synced,
            wire::Phase::SWITCHED => Phase::Switched,
            wire::Phase::SETTLED => Phase::Settled,
            _ => Phase::Installed,
        }
    }
}

impl From<&NodeId> for wire::NodeId {
    fn from(node: &NodeId) -> wire::NodeId {
        let zone = node.zone.map(|zone| zone as i32);
        wire::NodeId::new(
            locator::Location::from(&node.location),
            node.generation,
            zone,
        )
    }
}

impl TryFrom<wire::NodeId> for NodeId {
    type Error = DecodeError;

    fn try_from(node: wire::NodeId) -> Result<NodeId, DecodeError> {
        let location = node.location.unwrap_or_default();
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(NodeId {
            zone: node.zone.map(|zone| zone as u32),
            ..NodeId::new(location, node.generation.unwrap_or(0))
        })
    }
}

fn nodes(wire: Vec<wire::NodeId>) -> Result<Vec<NodeId>, DecodeError> {
    wire.into_iter().map(NodeId::try_from).collect()
}

fn sender(wire: Option<wire::NodeId>) -> Result<NodeId, DecodeError> {
    wire.ok_or("a message without its sender")?.try_into()
}

impl From<&RebalanceStatus> for wire::RebalanceStatus {
    fn from(status: &RebalanceStatus) -> wire::RebalanceStatus {
        wire::RebalanceStatus {
            sender: Some((&status.sender).into()),
            placement_id: Some(status.placement_id as i64),
            phase: Some(status.phase.into()),
            admitted: Some(status.admitted),
            read_placement_id: status.read_placement_id.map(|id| id as i64),
            placement_ids: Some(status.placement_ids.iter().map(|id| *id as i64).collect()),
            seen_generation: status.seen_generation,
            replicas: status.replicas.map(|replicas| replicas as i32),
            sequence: Some(status.sequence as i64),
            gave_up: Some(status.gave_up),
            stops_on_split: status.stops_on_split,
            settlement: Some(status.settlement as i64),
            saved: status.recovered.as_ref().map(Into::into),
            is_forced: Some(status.is_forced),
        }
    }
}

impl TryFrom<wire::RebalanceStatus> for RebalanceStatus {
    type Error = DecodeError;

    fn try_from(status: wire::RebalanceStatus) -> Result<RebalanceStatus, DecodeError> {
        let ids = status.placement_ids.unwrap_or_default().into_iter();
        Ok(RebalanceStatus {
            sender: sender(status.sender)?,
            placement_id: status.placement_id.unwrap_or(0) as u64,
            phase: status.phase.map_or(Phase::Installed, Phase::from),
            admitted: status.admitted.unwrap_or(false),
            read_placement_id: status.read_placement_id.map(|id| id as u64),
            placement_ids: ids.map(|id| id as u64).collect(),
            seen_generation: status.seen_generation,
            replicas: status.replicas.and_then(|count| count.try_into().ok()),
            sequence: status.sequence.unwrap_or(0) as u64,
            gave_up: status.gave_up.unwrap_or(false),
            stops_on_split: status.stops_on_split,
            settlement: status.settlement.unwrap_or(0) as u64,
            recovered: status.saved.map(Saved::try_from).transpose()?,
            is_forced: status.is_forced.unwrap_or(false),
        })
    }
}

impl From<&Saved> for wire::Saved {
    fn from(saved: &Saved) -> wire::Saved {
        let members = saved
            .placement
            .iter()
            .flat_map(|placement| placement.members());
        wire::Saved {
            lives: Some(saved.lives.iter().map(Into::into).collect()),
            placement: Some(members.map(Into::into).collect()),
            settlement: Some(saved.settlement as i64),
        }
    }
}

impl TryFrom<wire::Saved> for Saved {
    type Error = DecodeError;

    fn try_from(saved: wire::Saved) -> Result<Saved, DecodeError> {
        let lives = saved.lives.unwrap_or_default();
        let members = saved.placement.unwrap_or_default();
        if lives.len() + members.len() > MAX_SAVED_NODES {
            return Err(format!("more than {MAX_SAVED_NODES} saved members"));
        }
        let placement = Placement::new(nodes(members)?);
        Ok(Saved {
            lives: nodes(lives)?,
            placement: Some(Arc::new(placement)).filter(|placement| !placement.is_empty()),
            settlement: saved.settlement.unwrap_or(0) as u64,
        })
    }
}

impl From<&PlacementHistory> for wire::PlacementHistory {
    fn from(history: &PlacementHistory) -> wire::PlacementHistory {
        let members = |placement: &Arc<Placement>| placement.members().map(Into::into).collect();
        wire::PlacementHistory {
            placements: Some(history.placements.iter().map(members).collect()),
            read_placement_id: Some(history.read_placement_id as i64),
            replicas: Some(history.replicas as i32),
            stops_on_split: Some(history.stops_on_split),
            settlement: Some(history.settlement as i64),
            restored: history.restored.as_ref().map(members),
        }
    }
}

impl TryFrom<wire::PlacementHistory> for PlacementHistory {
    type Error = DecodeError;

    fn try_from(history: wire::PlacementHistory) -> Result<PlacementHistory, DecodeError> {
        let placements = history.placements.unwrap_or_default();
        let restored = history.restored.as_ref().map_or(0, Vec::len);
        let listed = placements.iter().map(Vec::len).sum::<usize>() + restored;
        if listed > MAX_LISTED_NODES {
            return Err(format!(
                "placements of {listed} members; at most {MAX_LISTED_NODES} are accepted"
            ));
        }
        let placement = |members| Ok::<_, DecodeError>(Arc::new(Placement::new(nodes(members)?)));
        let placements = placements.into_iter().map(placement);
        let placements = placements.collect::<Result<Vec<_>, _>>()?;
        let read_placement_id = history.read_placement_id.unwrap_or(0) as u64;
        let replicas = history.replicas.unwrap_or(0).max(0) as usize;
        let is_read = |placement: &Arc<Placement>| placement.id() == read_placement_id;
        if replicas == 0 || !placements.iter().any(is_read) {
            return Err("a history without its read placement or number of copies".into());
        }
        let restored = history.restored.map(nodes).transpose()?;
        Ok(PlacementHistory {
            settlement: history.settlement.unwrap_or(0) as u64,
            restored: restored.map(|nodes| Arc::new(Placement::new(nodes))),
            placements,
            read_placement_id,
            replicas,
            stops_on_split: history.stops_on_split.unwrap_or(false),
        })
    }
}

impl From<&Cursor> for wire::Cursor {
    fn from(cursor: &Cursor) -> wire::Cursor {
        wire::Cursor::new(cursor.stripe as i32, cursor.after.clone())
    }
}

impl TryFrom<wire::Cursor> for Cursor {
    type Error = DecodeError;

    fn try_from(cursor: wire::Cursor) -> Result<Cursor, DecodeError> {
        let wire::Cursor { stripe, after } = cursor;
        let stripe = usize::try_from(stripe.unwrap_or(0)).unwrap_or(STRIPES);
        if stripe >= STRIPES {
            return Err("a cursor to a stripe that does not exist".into());
        }
        let is_elsewhere = |key: &Vec<u8>| stripe_of(Key::new(key)) != stripe;
        if after.as_ref().is_some_and(is_elsewhere) {
            return Err("a cursor after a key of another stripe".into());
        }
        Ok(Cursor { stripe, after })
    }
}

impl From<&Pull> for wire::Pull {
    fn from(pull: &Pull) -> wire::Pull {
        wire::Pull {
            puller: Some((&pull.puller).into()),
            placement_id: Some(pull.placement_id as i64),
            read_placement_id: Some(pull.read_placement_id as i64),
            down: Some(pull.down.iter().map(Into::into).collect()),
            cursor: Some((&pull.cursor).into()),
            digests: Some(pull.digests.iter().map(|digest| *digest as i64).collect()),
        }
    }
}

impl TryFrom<wire::Pull> for Pull {
    type Error = DecodeError;

    fn try_from(pull: wire::Pull) -> Result<Pull, DecodeError> {
        let digests = pull.digests.unwrap_or_default();
        Ok(Pull {
            puller: sender(pull.puller)?,
            placement_id: pull.placement_id.unwrap_or(0) as u64,
            read_placement_id: pull.read_placement_id.unwrap_or(0) as u64,
            down: nodes(pull.down.unwrap_or_default())?,
            cursor: pull.cursor.ok_or("a pull without a cursor")?.try_into()?,
            digests: digests.into_iter().map(|digest| digest as u64).collect(),
        })
    }
}

/// A key with its entry, for another node.
pub fn to_key_value(key: Vec<u8>, entry: &Entry) -> wire::KeyValue {
    let value = entry.value.as_ref().map(|value| value.to_vec());
    wire::KeyValue::new(key, value, entry.version)
}

/// The key and the entry that another node has sent, at this time.
///
/// # Errors
/// The key is missing, or the version is impossible.
pub fn from_key_value(
    pair: wire::KeyValue,
    unix_millis: i64,
) -> Result<(Vec<u8>, Entry), DecodeError> {
    let version = pair.version.unwrap_or(0);
    if !is_plausible(version, unix_millis) {
        return Err(format!("{version} is not a plausible version"));
    }
    let key = pair.key.ok_or("a pair without a key")?;
    let value = pair.value.map(|value| Value::of(&key, &value));
    Ok((key, Entry { version, value }))
}

impl From<WriteId> for wire::WriteId {
    fn from(id: WriteId) -> wire::WriteId {
        wire::WriteId::new(id.origin, id.number)
    }
}

impl From<wire::WriteId> for WriteId {
    fn from(id: wire::WriteId) -> WriteId {
        WriteId {
            origin: id.origin.unwrap_or(0),
            number: id.number.unwrap_or(0),
        }
    }
}

/// What a client or another node wants to write. `deadline` is that of a write without one, and
/// the latest one; `clock` is the zero of the times in the message. `ids` names the writes
/// that have no id.
///
/// # Errors
/// A key is missing.
pub fn to_requests(
    writes: Vec<wire::Write>,
    deadline: Instant,
    clock: Instant,
    ids: &WriteIds,
) -> Result<Vec<WriteRequest>, DecodeError> {
    let request = |write: wire::Write| {
        let key = write.key.ok_or("a write without a key")?;
        let is_named = write.id.is_some();
        let by_clock = |millis: Option<i64>| {
            let millis = u64::try_from(millis?).unwrap_or(0);
            clock.checked_add(Duration::from_millis(millis))
        };
        let until = by_clock(write.deadline);
        Ok(WriteRequest {
            value: write.value.map(|value| Value::of(&key, &value)),
            key,
            id: write.id.map_or_else(|| ids.next(), WriteId::from),
            // Without a deadline it may have waited while its caller turned to another node.
            is_retry: write.is_retry.unwrap_or(false) || (is_named && until.is_none()),
            started: match is_named {
                true => by_clock(write.started).unwrap_or(clock),
                false => Instant::now(),
            },
            deadline: until.unwrap_or(deadline).min(deadline),
            condition: write.if_version.map(Condition::Version),
        })
    };
    writes.into_iter().map(request).collect()
}

/// A write for its primary, with its start and its deadline by the primary's clock.
pub fn from_request(request: &WriteRequest, (started, deadline): (i64, i64)) -> wire::Write {
    wire::Write {
        key: Some(request.key.clone()),
        value: request.value.as_ref().map(|value| value.to_vec()),
        id: Some(request.id.into()),
        is_retry: Some(request.is_retry),
        deadline: Some(deadline),
        started: Some(started),
        if_version: match request.condition {
            Some(Condition::Version(version)) => Some(version),
            Some(Condition::Unchanged(_)) | None => None,
        },
    }
}

impl From<WriteReply> for wire::WriteResult {
    fn from(reply: WriteReply) -> wire::WriteResult {
        let code = |version| wire::WriteResult::new(version, false, None, false);
        match reply {
            WriteReply::Done(done) => {
                wire::WriteResult::new(done.version, done.existed, None, done.is_unmet)
            }
            WriteReply::NotPrimary => code(NOT_PRIMARY),
            WriteReply::Unfinished => code(UNFINISHED),
            WriteReply::Refused(reason) => wire::WriteResult::new(0, false, reason, false),
        }
    }
}

impl From<wire::WriteResult> for WriteReply {
    fn from(result: wire::WriteResult) -> WriteReply {
        match (result.refused, result.version.unwrap_or(0)) {
            (Some(reason), _) => WriteReply::Refused(reason),
            (None, NOT_PRIMARY) => WriteReply::NotPrimary,
            (None, UNFINISHED) => WriteReply::Unfinished,
            (None, version) => WriteReply::Done(WriteOutcome {
                version,
                existed: result.existed.unwrap_or(false),
                is_undone: false,
                is_unmet: result.differs.unwrap_or(false),
            }),
        }
    }
}

/// A copy of a write, for an owner of its key.
pub fn to_copy(key: Vec<u8>, write: &PendingWrite) -> wire::Copy {
    wire::Copy {
        key: Some(key),
        value: write.entry.value.as_ref().map(|value| value.to_vec()),
        version: Some(write.entry.version),
        sequence: Some(write.sequence),
        id: write.id.map(Into::into),
        existed: Some(write.outcome.existed),
        is_undo: Some(write.outcome.is_undone),
        must_keep: Some(write.must_keep),
        differs: Some(write.outcome.is_unmet),
    }
}

/// A copy that another node has sent, at this time, with its key.
///
/// # Errors
/// The key is missing, or the version is impossible.
pub fn from_copy(
    copy: wire::Copy,
    unix_millis: i64,
) -> Result<(Vec<u8>, PendingWrite), DecodeError> {
    let pair = wire::KeyValue::new(copy.key, copy.value, copy.version);
    let (key, entry) = from_key_value(pair, unix_millis)?;
    let outcome = WriteOutcome {
        version: entry.version,
        existed: copy.existed.unwrap_or(false),
        is_undone: copy.is_undo.unwrap_or(false),
        is_unmet: copy.differs.unwrap_or(false),
    };
    let write = PendingWrite {
        id: copy.id.map(WriteId::from),
        sequence: copy.sequence.unwrap_or(0),
        entry,
        outcome,
        must_keep: copy.must_keep.unwrap_or(false),
    };
    Ok((key, write))
}

/// The result of a read.
pub fn to_read_result(held: Option<Entry>) -> wire::ReadResult {
    let version = held.as_ref().map_or(0, |entry| entry.version);
    let value = held.and_then(|entry| entry.value);
    wire::ReadResult::new(value.map(|value| value.to_vec()), version)
}

/// What another node holds for a key.
pub fn from_read_result(result: wire::ReadResult) -> Option<Entry> {
    let version = result.version.filter(|version| *version != 0)?;
    let value = result.value.map(Value::from);
    Some(Entry { version, value })
}

impl From<Page> for wire::Page {
    fn from(page: Page) -> wire::Page {
        let entries = page.entries.into_iter();
        let pairs: Vec<_> = entries
            .map(|(key, entry)| to_key_value(key, &entry))
            .collect();
        wire::Page {
            pairs: Some(pairs),
            next_page: page.next.as_ref().map(Into::into),
            busy: Some(false),
            same: Some(page.same.iter().map(|bucket| *bucket as i32).collect()),
        }
    }
}

/// The page that another node has sent, at this time.
///
/// # Errors
/// One of its pairs or its cursor is malformed.
pub fn from_page(page: wire::Page, unix_millis: i64) -> Result<Page, DecodeError> {
    let pairs = page.pairs.unwrap_or_default().into_iter();
    let entries = pairs.map(|pair| from_key_value(pair, unix_millis));
    let same = page.same.unwrap_or_default().into_iter();
    Ok(Page {
        entries: entries.collect::<Result<_, _>>()?,
        unfinished: Vec::new(),
        same: same.filter_map(|bucket| bucket.try_into().ok()).collect(),
        next: page.next_page.map(Cursor::try_from).transpose()?,
    })
}
