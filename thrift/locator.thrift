/**
 * The location service: every node knows every node, and consistent hashing tells which of
 * them a key belongs to.
 *
 * Names, order and field ids up to `get_node` are those of thrifty-p2p (2009) and never
 * change: nodes of that program take part in the same network. `exchange`, `members` and
 * `ping_req` are additions. A legacy node answers them with "unknown method" and is then
 * called by the original's methods only.
 */

/** Where a node is reached. The port's 16 bits are those of an unsigned number. */
struct Location {
    1: string address,
    2: i16 port,
}

/** The state of a member. At an equal incarnation a later value supersedes an earlier one. */
enum Status {
    ALIVE = 0,
    SUSPECT = 1,
    DOWN = 2,
    LEFT = 3,
}

/** One node's record of one location. Records merge by the larger (incarnation, status). */
struct Member {
    1: Location location,
    /** Raised by the member itself, when it starts and when it refutes a suspicion. */
    2: i64 incarnation,
    3: Status status,
    /** The incarnation with which the process became a member. Changed by a restart and by a
     * return after being declared down, not by refuting a suspicion. 0 for a legacy node. */
    4: i64 generation,
    /** What its operator says about it, such as its `zone`: at most 4 KiB in all. Set by the member
     * itself, and the same for all its life. A legacy node has none. */
    5: optional map<string, string> tags,
}

/** The state that one node sends another about the members of its network. */
struct Gossip {
    1: Location sender,
    /** The service type, a slash and the network's id. A node that joins has no slash and no id yet,
     * and takes those of its peer. Networks of different names do not merge. */
    2: string network,
    /** A sum over all live records, independent of their order: equal digests, equal rings. */
    3: i64 membership_digest,
    /** Recent changes, corrections, or every record of the sender. */
    4: list<Member> members,
    /** In a request: `members` is everything the sender knows; reply with the rest. */
    5: bool full,
    /** In a reply: the request changed the sender's table. */
    6: bool learned,
    /** In the reply to `members`: the peer through which the sender is joining. It has not joined
     * yet, and nobody joins through it. */
    7: optional Location joins,
}

/** What has happened to a member, as the callee of `events` has seen it. */
enum EventKind {
    /** It was added to the ring. */
    JOINED = 0,
    /** It announced that it leaves, and is off the ring. */
    LEFT = 1,
    /** It does not reply, and has time to refute. */
    SUSPECTED = 2,
    /** It has refuted a suspicion. */
    REFUTED = 3,
    /** It could not be reached, and is off the ring. */
    DOWN = 4,
    /** Its process has restarted, or has returned after it was declared down. */
    RESTARTED = 5,
    /** It has other tags than the process there before it. */
    TAGS_CHANGED = 6,
    /** Keys have other owners: see `moved`. */
    RING_CHANGED = 7,
    /** Something else that the callee has logged about members: see `text`. */
    NOTICE = 8,
}

/** An event. */
struct Event {
    /** One more than that of the event before. Numbers of other nodes and processes differ. */
    1: i64 sequence,
    /** When the callee logged it, in milliseconds since 1970. */
    2: i64 at,
    3: EventKind kind,
    4: optional Location location,
    /** Of a member that was added or removed, or has restarted, its tags. */
    5: optional map<string, string> tags,
    /** The share of all keys that have another owner, from 0 to 1. */
    6: optional double moved,
    /** The line of the callee's log. */
    7: string text,
}

/** The events after a number. */
struct Events {
    1: list<Event> events,
    /** The number of the last event: what to ask for next. */
    2: i64 last,
    /** Some are missing: ask for the `members`. */
    3: bool is_gap,
}

service Base {
    void ping(),
    string service_type(),
    /** The service's type and those that it extends, base first. */
    list<string> service_types(),
    oneway void debug(),
    oneway void die(),
}

service Locator extends Base {
    oneway void join(1: Location location),
    oneway void remove(1: Location location, 2: list<Location> authorities),
    oneway void add(1: Location location, 2: list<Location> authorities),
    list<Location> get_all(),
    /** The key's bytes are hashed as they are; on the wire `binary` is the original's `string`. */
    Location get_node(1: binary key),

    /** Heartbeat, gossip and anti-entropy in one: the reply holds corrections, changes and the callee's digest. */
    Gossip exchange(1: Gossip gossip),
    /** Every record of the callee, which learns nothing. For programs that show the network. */
    Gossip members(),
    /** Does the callee reach that location now? An indirect probe before a member is suspected. */
    bool ping_req(1: Location location),
    /**
     * Makes the connection one to that member, of which the callee copies all bytes in both
     * directions, for a caller whose own link to the member is cut. After `false` it stays what it
     * was: the callee does not know the member, cannot reach it, or (without TLS) is on its host.
     */
    bool tunnel(1: Location location),
    /**
     * An operator declares a member gone that is down, and does not reply that its process has
     * ended: it never returns with what it held. False if the callee knows no such member.
     */
    bool declare_gone(1: Location location),
    /**
     * The events after that number, of the last 1,000. 0: all of them. Negative: none, but `last`. If
     * there are none, waits for one, for that time, for 30 s at most. An error if 256 callers wait.
     */
    Events events(1: i64 after, 2: i32 timeout_ms),
}
