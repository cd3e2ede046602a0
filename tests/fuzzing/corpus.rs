//! The corpus: inputs to begin with, in `tests/data/fuzz`, a file a target.
//!
//! A line is a name, a tab and the input in hexadecimal; lines that begin with `#` say
//! where it comes from. An input that found a fault stays there for ever.

use std::fs;
use std::path::PathBuf;

/// The inputs of the target of that name, each with its own.
///
/// # Panics
/// The file is not there, or not as it should be.
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = path(target);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once('\t').expect("a name, a tab and an input");
            (name.to_owned(), from_hex(hex))
        })
        .collect()
}

/// Where the corpus of that target is.
pub fn path(target: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data/fuzz").join(format!("{target}.tsv"))
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hexadecimal digits"))
        .collect()
}
