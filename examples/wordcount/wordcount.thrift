/** Counts words on as many nodes as there are: each word is counted by the node that owns it. */
include "locator.thrift"

service WordCount extends locator.Locator {
    /** Counts a word so many times more; answers its count so far. */
    i64 count(1: string word, 2: i64 times),
    /** All words counted here, with their counts. */
    map<string, i64> counted(),
}
