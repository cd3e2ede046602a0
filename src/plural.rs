//! Numbers with their nouns, for logs and messages.

use std::fmt::Display;

/// A number and its noun, in the plural unless the number is one: `1 copy`, `2 copies`, `0 keys`.
/// The noun has a regular plural.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ends_in_ies = noun.strip_suffix('y');
    let ends_in_ies = ends_in_ies.filter(|stem| !stem.ends_with(['a', 'e', 'o']));
    match ends_in_ies {
        _ if number == N::from(1) => format!("{number} {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let keys = [0, 1, 2].map(|count| counted(count, "key"));
        assert_eq!(keys, ["0 keys", "1 key", "2 keys"]);
        assert_eq!(counted(5, "day"), "5 days");
        assert_eq!(
            [counted(1, "copy"), counted(3, "copy")],
            ["1 copy", "3 copies"]
        );
    }
}
