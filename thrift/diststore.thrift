/**
 * A distributed key-value store on the location service.
 *
 * `get` and `put` are those of thrifty-p2p's diststore (2009); there, keys and
 * values were `string`, which is the same bytes on the wire.
 */
include "locator.thrift"

service Store extends locator.Locator {
    binary get(1: binary key),
    oneway void put(1: binary key, 2: binary value),
}
