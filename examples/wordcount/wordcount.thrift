/** A word count on several nodes. The owner of a word on the ring counts that word. */
include "locator.thrift"

service WordCount extends locator.Locator {
    /** Adds `times` to the count of `word`. Returns the new count. */
    i64 count(1: string word, 2: i64 times),
    /** All words that this node has counted, with their counts. */
    map<string, i64> counted(),
}
