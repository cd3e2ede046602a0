/** A service that rolls dice. It needs no network. */
include "locator.thrift"

service Dice extends locator.Base {
    /** Rolls a die. Returns a number from 1 to `sides`. There must be at least two sides. */
    i32 roll(1: i32 sides),
}
