/**
 * The location service: every node knows every node, and consistent hashing
 * tells which of them a key belongs to.
 *
 * Names, order and field ids up to `get_node` are those of thrifty-p2p (2009)
 * and never change: nodes of that program take part in a network of this one.
 * `exchange` and `reach` are this program's additions; a node that does not
 * know them answers "unknown method" and is spoken to in the older words.
 */

/** Where a node is reached. The port's 16 bits are those of an unsigned number. */
struct Location {
    1: string address,
    2: i16 port,
}

/** What is believed of a member. Later values win over earlier ones at an equal incarnation. */
enum Status {
    ALIVE = 0,
    SUSPECT = 1,
    DOWN = 2,
    LEFT = 3,
}

/** What one node knows of one location. Records merge by the larger (incarnation, status). */
struct Member {
    1: Location location,
    /** Raised by the member itself, at its start and whenever it is accused. */
    2: i64 incarnation,
    3: Status status,
    /** The incarnation with which the process became a member: a restart changes it, and a return after being taken for dead; the refutation of a suspicion does not. */
    4: i64 started,
}

/** What one node tells another of the members of its network. */
struct Gossip {
    1: Location sender,
    /** Nodes of differently named networks do not merge. */
    2: string network,
    /** A sum over all live records that does not depend on their order: equal views, equal rings. */
    3: i64 view,
    /** Recent news, corrections, or everything that the sender knows. */
    4: list<Member> members,
    /** In a request: everything is sent, answer with the rest. In a reply: you taught me something. */
    5: bool full,
}

service Base {
    void ping(),
    string service_type(),
    /** The line of descent, base first. */
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

    /** Heartbeat, gossip and repair in one: the reply holds corrections, news and the callee's view. */
    Gossip exchange(1: Gossip gossip),
    /** Everything that the callee knows; it learns nothing. For programs that show the network. */
    Gossip members(),
    /** Does the callee reach that location now? Asked before a silent member is suspected. */
    bool reach(1: Location location),
}
