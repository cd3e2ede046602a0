//! The corpus: the first inputs of the targets, in `tests/data/fuzz`.
//!
//! A line of a file is a name, a tab and the input in hexadecimal digits. A line that begins with
//! `#` is a comment. An input that has found a fault is never removed.

use std::fs;
use std::path::PathBuf;

/// The inputs of one file, each with its name.
///
/// # Panics
/// If the file cannot be read or parsed.
pub fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once('\t').expect("a name, a tab and an input");
            (name.to_owned(), from_hex(hex))
        })
        .collect()
}

/// The path of that file.
pub fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data/fuzz").join(format!("{name}.tsv"))
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
