/**
 * A distributed key-value store on the location service.
 *
 * `get` and `put` are those of thrifty-p2p's diststore (2009). There, keys and values were
 * `string`, which has the same bytes on the wire. The other methods are additions: `write`,
 * `fetch` and `unset` are acknowledged; the rest is for calls between nodes and for programs
 * that show the store.
 *
 * Strict binary protocol, buffered (unframed). A list has at most 65,536 elements.
 */
include "locator.thrift"

/** The call was refused, for this reason (text for a person). */
exception Refused {
    1: string reason,
}

/** The result of a read. No value and version 0: the key was never written. */
struct ReadResult {
    1: optional binary value,
    2: i64 version,
}

/** A key with its value or, without a value, its tombstone. */
struct KeyValue {
    /** Always present. Optional so that a missing field is not read as the empty key. */
    1: optional binary key,
    2: optional binary value,
    3: i64 version,
}

/** Names one write, however often it is sent: a random number of the process that made the
 * name, and a number that it uses once. */
struct WriteId {
    1: i64 origin,
    2: i64 number,
}

/** A write. */
struct Write {
    /** Always present. Optional so that a missing field is not read as the empty key. */
    1: optional binary key,
    /** Without a value the key is deleted. */
    2: optional binary value,
    /** The same in every attempt. Without it an attempt after a broken call can write twice. */
    3: optional WriteId id,
    /** An earlier attempt, which another process got, may have taken effect. */
    4: bool is_retry,
    /** The write must not start later, by the callee's clock in milliseconds: its last known
     * time (see `PrimaryReply`) and what has passed since then. Without it a write with an id
     * takes longer, because the callee asks all others whether they know it. */
    5: optional i64 deadline,
    /** When the first attempt started, or before, by the callee's clock. Without it a write with an
     * id takes longer after a change of the members: the callee asks all others. */
    6: optional i64 started,
    /** Write only if the key has this version; 0: only if it has no value. */
    7: optional i64 if_version,
}

/** The result of a write. */
struct WriteResult {
    /**
     * The version that was written; -1: the callee is not the primary of the key, and did
     * nothing; -2: the write is not finished, ask again with the same id.
     */
    1: i64 version,
    /** Was there a value before? */
    2: bool existed,
    /** Why the write was refused, if it was. It has not taken effect and never will. */
    3: optional string refused,
    /** The key has another version than the write depends on: nothing was written. `version` is the
     * one that the key has, 0 without a value; `existed`: has it a value? */
    4: bool differs,
}

/** The results of writes at their primary. */
struct PrimaryReply {
    1: list<WriteResult> results,
    /** Milliseconds since the callee started. */
    2: i64 clock,
}

/** A copy of a write for an owner of its key. */
struct Copy {
    /** Always present. Optional so that a missing field is not read as the empty key. */
    1: optional binary key,
    2: optional binary value,
    3: i64 version,
    /** Numbers the writes that the sender coordinates. */
    4: i64 sequence,
    /** Names the write, unless this copies what another process wrote. */
    5: optional WriteId id,
    /** Was there a value before? */
    6: bool existed,
    /** The write was given up. This copy restores what the key had before. */
    7: bool is_undo,
    /** The owner must keep it whether it has room or not. */
    8: bool must_keep,
    /** The write was not made, because the key has this version, which the owner may have. */
    9: bool differs,
}

/** A copy that an owner did not keep: its index among those sent, from 0, and why. */
struct Rejection {
    1: i32 index,
    2: string reason,
    /** The owner has this version, which is larger. */
    3: optional i64 newer,
    /** That entry, if its write is finished and the copy was one that must be kept: it takes the
     * place of a copy that is replayed. */
    4: optional ReadResult finished,
}

/** The result of `replicate`: the callee's current placement, and the copies it did not keep. */
struct ReplicateResult {
    1: i64 placement_id,
    2: list<Rejection> rejections,
    /** None was kept: the callee does not know the sender, or takes it for gone. */
    3: bool is_fenced,
}

/** One process: a location, and the incarnation with which the process became a member. */
struct NodeId {
    1: locator.Location location,
    2: i64 generation,
    /** Copies of a key go to distinct zones: the first four bytes of the md5 of the process's tag `zone`,
     * if it has one. */
    3: optional i32 zone,
}

/** How far a node is with the rebalance to its current placement. */
enum Phase {
    INSTALLED = 0,
    DRAINED = 1,
    SYNCED = 2,
    SWITCHED = 3,
    SETTLED = 4,
}

/** What a node has saved about itself. */
struct Saved {
    /** The processes whose keys it has. */
    1: list<NodeId> lives,
    /** The last placement by which it read. */
    2: list<NodeId> placement,
    3: i64 settlement,
}

/** What a node reports of its rebalance. */
struct RebalanceStatus {
    1: NodeId sender,
    2: i64 placement_id,
    3: Phase phase,
    4: bool admitted,
    /** The placement that reads use; absent before the history was adopted. */
    5: optional i64 read_placement_id,
    /** All placements of the sender's history, oldest first. */
    6: list<i64> placement_ids,
    /** The receiver's generation, if the sender counts on the receiver. */
    7: optional i64 seen_generation,
    /** Copies kept of each key; absent while unknown. */
    8: optional i32 replicas,
    /** Larger in a status that was sent later. */
    9: i64 sequence,
    /** The receiver is leaving, and the sender has gone on without it. */
    10: bool gave_up,
    /** In a split only the side with more than half of the members serves; absent while unknown. */
    11: optional bool stops_on_split,
    /** Larger for a later read placement. */
    12: optional i64 settlement,
    /** What a node that is not admitted has in its directory; absent without one. */
    13: optional Saved saved,
    /** The operator does not want to wait for missing members. */
    14: optional bool is_forced,
}

/** The placements of an admitted node, oldest first. */
struct PlacementHistory {
    1: list<list<NodeId>> placements,
    2: i64 read_placement_id,
    3: i32 replicas,
    4: bool stops_on_split,
    5: optional i64 settlement,
    /** The network is being restored from what these processes have saved. */
    6: optional list<NodeId> restored,
}

/** The reply to a status: the callee's own, and its history if it was asked for. */
struct StatusReply {
    1: RebalanceStatus status,
    2: optional PlacementHistory history,
}

/** Where the copying of a table resumes: in this stripe, after this key of it. Keys are
 * ordered by their points, those of one point by their bytes. */
struct Cursor {
    1: i32 stripe,
    2: optional binary after,
}

/** A request for a page of the keys that the puller owns. */
struct Pull {
    1: NodeId puller,
    2: i64 placement_id,
    3: i64 read_placement_id,
    /** Processes that the puller takes for down. */
    4: list<NodeId> down,
    5: Cursor cursor,
    /** Digests of what the puller has in that stripe, one for each of its buckets. Then the page ends
     * with the stripe. */
    6: optional list<i64> digests,
}

/** Some keys that the puller owns. Without `next_page`, the last page. */
struct Page {
    1: list<KeyValue> pairs,
    2: optional Cursor next_page,
    /** The source is busy with clients: pull slowly. */
    3: bool busy,
    /** Buckets of the stripe in which the callee has the same as the puller. */
    4: optional list<i32> same,
}

/** Counters of a node's server since it started. */
struct ServerStats {
    /** Connections open now. */
    1: i64 open,
    /** Connections accepted. */
    2: i64 opened,
    /** Calls served. */
    3: i64 calls,
    /** Connections closed because too many were open in all. */
    4: i64 evicted,
    /** Connections closed because too many were open from one address. */
    5: i64 evicted_by_address,
    /** Connections closed because no call came within the idle timeout. */
    6: i64 idle,
    /** Connections closed because of a malformed message. */
    7: i64 malformed,
    /** Connections closed because a message took too long. */
    8: i64 timed_out,
    /** Connections closed because a message was too large. */
    9: i64 too_large,
    /** Calls that ended in an application exception. Their connections stay open. */
    10: i64 exceptions,
    /** Connections closed because no thread could be started for them. */
    11: i64 no_thread,
    /** Failed attempts to accept a connection. */
    12: i64 failed_accepts,
}

/** What one node holds, for programs that show the store. */
struct NodeStats {
    /** Keys with a value. */
    1: i64 keys,
    /** Of these, the keys whose primary the node is, if it was asked. Of many keys an estimate. */
    2: optional i64 primary_keys,
    /** Estimated memory for keys and values, in bytes. */
    3: i64 bytes,
    4: i32 replicas,
    5: Phase phase,
    /** Does the node serve clients? */
    6: bool serving,
    /** Keys received in the rebalance under way; 0 after it. */
    7: i64 keys_received,
    /** The node's current placement. */
    8: i64 placement_id,
    9: ServerStats server,
    /** Members that are down and may be running on the other side of a split. */
    10: list<locator.Location> silent,
    /** How long the first of them has been down, in milliseconds. */
    11: i64 silent_for,
    /** Keys whose primary the node is that lost a value written in a split. */
    12: i64 superseded,
    /** Members that do not reply to the node, but to others: it reaches them by way of those. */
    13: list<locator.Location> cut_links,
    /** The node refuses calls, because it does not reach more than half of the members. */
    14: bool is_stopped,
    /** In a split only the side with more than half of the members serves; absent while unknown. */
    15: optional bool stops_on_split,
    /** The version of the program. */
    16: optional string program,
    /** Members that the node waits for, while the network starts again from its disks. */
    17: list<locator.Location> missing,
}

/** Who holds which keys, for clients that call primaries themselves. */
struct Topology {
    /** The members of the callee's current placement: a key is written at its primary among them. */
    1: list<NodeId> members,
    /**
     * There are legacy nodes on the ring, which are not among the members: let the callee
     * route every call.
     */
    2: bool has_legacy,
    /** The members of the placement that reads use, if it is another one: during a
     * rebalance a key is read at its primary among these. */
    3: list<NodeId> read_members,
}

/** A key that has a value. */
struct ListedKey {
    /** Always present. Optional so that a missing field is not read as the empty key. */
    1: optional binary key,
    /** The size of the value. */
    2: i64 bytes,
    3: i64 version,
}

/** Keys in the order of their bytes. */
struct KeyPage {
    1: list<ListedKey> keys,
    /** The cursor of the next page. Absent in the last one. */
    2: optional binary cursor,
}

/** The keys with that prefix from `first` on, and before `limit` if there is one. */
struct KeyRange {
    1: binary prefix,
    2: binary first,
    3: optional binary limit,
}

/** The keys of a range in some stripes, stripe after stripe. Without `next_page`, the last ones. */
struct ScannedKeys {
    1: list<ListedKey> keys,
    /** The number of keys of each stripe, from the cursor's on. */
    2: list<i32> counts,
    3: optional Cursor next_page,
    /** The callee is busy with clients: scan slowly. */
    4: bool busy,
}

/** What a node holds of a key. */
struct HeldCopy {
    /** 0: nothing. */
    1: i64 version,
    /** The size of the value; absent if there is none. */
    2: optional i64 bytes,
    /** May it be read? Not while its write is not finished. */
    3: bool is_finished,
}

service Store extends locator.Locator {
    binary get(1: binary key),
    oneway void put(1: binary key, 2: binary value),

    /** Writes a value. Returns its version when it is in place on all owners. */
    i64 write(1: binary key, 2: binary value) throws (1: Refused refused),
    /** Reads a value, if there is one. */
    ReadResult fetch(1: binary key) throws (1: Refused refused),
    /** Deletes a key. Was there a value? */
    bool unset(1: binary key) throws (1: Refused refused),

    /**
     * `write` if the key has that version, as `fetch` returned it; 0: if it has no value. Otherwise
     * the result `differs`. Refused beside nodes of the original, whose puts have no versions. Each
     * call is a write of its own: to repeat a call that broke, give `write_many` an id.
     */
    WriteResult write_if(1: binary key, 2: binary value, 3: i64 version) throws (1: Refused refused),
    /** `unset` on the same condition. */
    WriteResult unset_if(1: binary key, 2: i64 version) throws (1: Refused refused),

    /** `write` or `unset` for each of these. Each takes effect by itself. */
    list<WriteResult> write_many(1: list<Write> writes) throws (1: Refused refused),
    /** `fetch` for each key. */
    list<ReadResult> fetch_many(1: list<binary> keys) throws (1: Refused refused),
    /**
     * The next keys of the network with that prefix, in the order of their bytes: at most `limit`,
     * 65,536 or 4 MiB of them. The first page has an empty cursor, any other that of the page
     * before. A key that has a value all the while is in exactly one page, a deleted one in none.
     * A page of any size takes a walk through all keys of the network: ask for large ones. Refused
     * if a member does not answer within ten seconds, or in a split may have other keys.
     */
    KeyPage list_keys(1: binary prefix, 2: binary cursor, 3: i32 limit) throws (1: Refused refused),
    Topology topology(),
    /**
     * A page of the pairs whose primary the callee is in that placement. Refused unless the
     * callee is settled in it (see `stats`), so that a client that scans all members at one
     * placement sees every key once.
     */
    Page scan(1: i64 placement_id, 2: Cursor cursor) throws (1: Refused refused),
    /** `scan` of keys without their values, or of their numbers only. */
    ScannedKeys scan_keys(1: i64 placement_id, 2: Cursor cursor, 3: KeyRange range, 4: bool counts_only)
        throws (1: Refused refused),

    /**
     * Forwards writes to their primary, the process of that generation, which assigns their
     * versions. A process that was declared down since then refuses: the caller has turned
     * to another primary. Without writes only the clock is returned.
     */
    PrimaryReply write_as_primary(1: list<Write> writes, 2: i64 generation) throws (1: Refused refused),
    /**
     * Keeps copies, as one of their owners, for a primary with that current placement. All its
     * writes with smaller sequence numbers than `finished` are finished: their copies can be read.
     */
    ReplicateResult replicate(1: NodeId primary, 2: list<Copy> copies, 3: i64 placement_id, 4: i64 finished),
    /**
     * Waits, for a second at most, until the callee, the process of that generation, has finished
     * the write of that sequence number. Is it?
     */
    bool wait_until_finished(1: i64 generation, 2: i64 sequence) throws (1: Refused refused),
    /**
     * What became of these writes, if the callee knows. Version 0: it does not; -2: it does not
     * know yet.
     */
    list<WriteResult> recall_writes(1: list<WriteId> ids) throws (1: Refused refused),
    /** What the callee holds for each key as an owner in that placement. */
    list<ReadResult> fetch_as_owner(1: list<binary> keys, 2: i64 placement_id) throws (1: Refused refused),
    /**
     * Does the callee have that placement too, with this member in it? If so it confirms no node
     * without this member for two seconds. Asked where splits stop a store.
     */
    bool confirm(1: NodeId member, 2: i64 placement_id) throws (1: Refused refused),
    /** Exchanges the state of the rebalance. */
    StatusReply rebalance_status(1: RebalanceStatus status, 2: bool wants_history) throws (1: Refused refused),
    /** Copies a page of what the puller owns. */
    Page pull(1: Pull pull) throws (1: Refused refused),
    /** What the callee holds. `count_primary` also asks for the number of its primary keys. */
    NodeStats stats(1: bool count_primary),
    /** What the callee holds of a key, as an owner or not. For programs that explain a store. */
    HeldCopy held_copy(1: binary key),
}
