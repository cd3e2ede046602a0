/**
 * A distributed key-value store on the location service.
 *
 * `get` and `put` are those of thrifty-p2p's diststore (2009); there, keys and
 * values were `string`, which is the same bytes on the wire. The others are this
 * program's additions: `write`, `fetch` and `unset` are acknowledged, the rest is
 * for nodes among themselves and for programs that show the store.
 */
include "locator.thrift"

/** The call was not carried out; the reason says why, for a person to read. */
exception Refused {
    1: string reason,
}

/** What is held for a key. Without a value and with version 0: nothing ever was. */
struct Found {
    1: optional binary value,
    2: i64 version,
}

/** A key with its value, or, without one, with the mark of its deletion. */
struct Pair {
    /** Never absent; optional, lest a pair that lacks it be taken for one of the empty key. */
    1: optional binary key,
    2: optional binary value,
    3: i64 version,
}

/** What came of a write. */
struct Written {
    1: i64 version,
    /** Was there a value before? */
    2: bool existed,
}

/** A copy that an owner declined to keep: its place among those sent, from 0, and why. */
struct Declined {
    1: i32 place,
    2: string reason,
}

/** What came of copies: the callee's current view, and which it declined. */
struct Kept {
    1: i64 view,
    2: list<Declined> declined,
}

/** A process: a location, and the incarnation with which it became a member. */
struct Peer {
    1: locator.Location location,
    2: i64 started,
}

/** How far a node is with the moves to its current view. */
enum Phase {
    INSTALLED = 0,
    DRAINED = 1,
    SYNCED = 2,
    SWITCHED = 3,
    SETTLED = 4,
}

/** What a node tells others of its moves. */
struct Word {
    1: Peer teller,
    2: i64 view,
    3: Phase phase,
    4: bool enrolled,
    /** The view that is read by; absent before the list of views was taken over. */
    5: optional i64 reads_by,
    6: list<i64> views,
    /** The start of the one spoken to, if it is in the teller's current view. */
    7: optional i64 sees,
    /** Copies kept of each key; absent while it is not known. */
    8: optional i32 replicas,
    /** How much the teller had been through: more in a word that it said later. */
    9: i64 changes,
}

/** The list of views of a node that is enrolled, oldest first. */
struct History {
    1: list<list<Peer>> views,
    2: i64 reads_by,
    3: i32 replicas,
}

/** The answer to a word. */
struct Told {
    1: Word word,
    2: optional History history,
}

/** Where the copying of a table goes on: in this stripe, after this key of it. Keys are
 * ordered by their points, those of one point by their bytes. */
struct Cursor {
    1: i32 stripe,
    2: optional binary after,
}

/** A request for a page of what the puller owns. */
struct Pull {
    1: Peer puller,
    2: i64 view,
    3: i64 reads_by,
    4: list<Peer> gone,
    5: Cursor cursor,
}

/** Some of what the puller owns; without `rest`, the last of it. */
struct Page {
    1: list<Pair> pairs,
    2: optional Cursor rest,
    /** Clients keep the giver busy: who asks for pages had better take its time. */
    3: bool busy,
}

/** What came to a node's server since it started. */
struct Traffic {
    /** Connections that are open now. */
    1: i64 open,
    /** Connections that were accepted. */
    2: i64 opened,
    /** Calls that were served. */
    3: i64 calls,
    /** Connections closed because too many were open, in all or from one address. */
    4: i64 crowded_out,
    5: i64 address_full,
    /** Connections closed because no call came for too long. */
    6: i64 idle,
    /** Connections closed because of a message that was no message, too slow or too long. */
    7: i64 garbage,
    8: i64 slow,
    9: i64 long,
    /** Connections closed after a call that ended in an application exception. */
    10: i64 exceptions,
    /** Connections closed because there was no thread to serve them. */
    11: i64 unserved,
    /** Times that a connection could not be accepted. */
    12: i64 failed_accepts,
}

/** What one node holds, for programs that show the store. */
struct Holdings {
    /** Keys with a value. */
    1: i64 keys,
    /** Of these, those whose primary the node is, if they were to be counted. */
    2: optional i64 as_primary,
    /** Memory that they take, in bytes, as the node reckons it. */
    3: i64 bytes,
    4: i32 replicas,
    5: Phase phase,
    /** Does the node answer clients? */
    6: bool serving,
    /** Keys copied here in the move that is under way; 0 when it is done. */
    7: i64 moved,
    /** The node's current view. */
    8: i64 view,
    9: Traffic traffic,
}

/** Who holds keys, for clients that call each key's primary themselves. */
struct Roll {
    /** The members of the callee's current view, on the ring and keeping copies: a key is written at its primary among them. */
    1: list<Peer> members,
    /**
     * Leave it to the callee to find the owners of keys: there are nodes on the ring
     * that are not among the members, and need to be told in their own way.
     */
    2: bool mixed,
    /** The members of the view that the callee reads by, if that is another one: while keys move, a key is read at its primary among these. */
    3: list<Peer> readers,
}

service Store extends locator.Locator {
    binary get(1: binary key),
    oneway void put(1: binary key, 2: binary value),

    /** Returns when the value is in place on all its owners; its version. */
    i64 write(1: binary key, 2: binary value) throws (1: Refused refused),
    /** The value, if there is one. */
    Found fetch(1: binary key) throws (1: Refused refused),
    /** Deletes; was there a value? */
    bool unset(1: binary key) throws (1: Refused refused),

    /** As `write` and `unset` for each pair in turn; versions in the pairs mean nothing here. */
    list<Written> write_many(1: list<Pair> pairs) throws (1: Refused refused),
    /** As `fetch` for each key. */
    list<Found> fetch_many(1: list<binary> keys) throws (1: Refused refused),
    Roll roll(),
    /**
     * Some of the pairs whose primary the callee is in that view. Refused unless the
     * callee is settled in it (its holdings name it), so that who scans all members at
     * one view sees every key once.
     */
    Page scan(1: i64 view, 2: Cursor cursor) throws (1: Refused refused),

    /**
     * Write these as their primary, which became a member at that incarnation: asked of
     * it by another node. Their versions are given by the primary. A process that has
     * been taken for dead since declines: the caller has turned to another one.
     */
    list<Written> coordinate(1: list<Pair> pairs, 2: i64 started) throws (1: Refused refused),
    /** Keep these as one of their owners, for a primary with that current view. */
    Kept replicate(1: list<Pair> pairs, 2: i64 view),
    /** What the callee holds for each key as an owner in that view. */
    list<Found> fetch_at(1: list<binary> keys, 2: i64 view) throws (1: Refused refused),
    Told tell(1: Word word, 2: bool wants_history) throws (1: Refused refused),
    Page pull(1: Pull pull) throws (1: Refused refused),
    /** What the callee holds. To count the keys whose primary it is takes a look at each of them. */
    Holdings holdings(1: bool counted),
}
