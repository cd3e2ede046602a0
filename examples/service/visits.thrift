/** Counts the visits of pages. The owner of a page on the ring counts it. */
include "locator.thrift"

service Visits extends locator.Locator {
    /** Counts a visit, at any node. Returns how many visits the page had. */
    i64 visit(1: string page),
    /** The same at the owner of the page. For calls between nodes: it is never forwarded. */
    i64 count(1: string page),
}
