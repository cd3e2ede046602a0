/** Throws dice, for whoever has none. */
include "locator.thrift"

service Dice extends locator.Base {
    /** One throw of a die with so many sides. */
    i32 roll(1: i32 sides),
}
