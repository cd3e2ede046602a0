//! A fuzzer for the stable toolchain: like `cargo fuzz`, but without instrumentation.
//!
//! | module | contents |
//! |---|---|
//! | `corpus` | the first inputs, which are in files |
//! | `seeds` | the part of the corpus that our stubs write |
//! | `mutation` | new inputs from old ones, by the structure of Thrift messages |
//! | `decoder`, `targets` | all decoders of bytes that an untrusted peer may send |
//! | `nodes`, `replies` | the targets that decode requests, and those that decode replies |
//! | `trial` | runs one input, and detects panics, slowness and excessive memory |
//! | `campaign` | runs many inputs from one seed |
//! | `largest` | messages that are too large for mutation |
//!
//! `cargo fuzz` needs a nightly compiler, a C++ compiler and a crate of its own. It is guided by
//! the branches that an input takes. This fuzzer keeps an input for further mutation if its
//! *coverage* is new: another method, another kind of error, or another depth at which a decoder
//! stops. That finds less, but runs everywhere the tests run.

pub mod campaign;
pub mod corpus;
pub mod decoder;
pub mod largest;
pub mod mutation;
pub mod nodes;
pub mod replies;
pub mod seeds;
pub mod targets;
pub mod trial;
