//! A fuzzer for the stable toolchain: what `cargo fuzz` does, less the instrumentation.
//!
//! `mutation` makes new inputs of old ones, knowing how Thrift's messages are built;
//! `targets` are the decoders, each fed with the bytes that a stranger may send it:
//! those of `nodes`, of who reads their `replies`, and of addresses; `trial` runs one
//! input and finds panics, slowness and greed; `corpus` is what is begun with, `seeds`
//! the part of it that is made of the interface; `campaign` puts them together, from
//! one seed; `worst` are messages that are too large for it.
//!
//! `cargo fuzz` needs a nightly compiler, a C++ one and a crate of its own, and is led
//! by the branches that an input takes. Here an input is kept, to be changed further,
//! when it leads to a new *place*: another method, another kind of error, or another
//! depth at which a decoder gives up. That sees less, and runs wherever the tests do.

pub mod campaign;
pub mod corpus;
pub mod decoder;
pub mod mutation;
pub mod nodes;
pub mod replies;
pub mod seeds;
pub mod targets;
pub mod trial;
pub mod worst;
