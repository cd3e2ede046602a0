//! Is the ring equal to the original's, point for point?
//!
//! The vectors were recorded from the original. `RING_VECTORS` names a folder with other vectors
//! of the same format.

use std::collections::BTreeMap;
use std::path::PathBuf;

use thrifty_p2p::hash_ring::{HashRing, point};

fn rows(file: &str) -> Vec<Vec<String>> {
    let folder = std::env::var_os("RING_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data"),
        PathBuf::from,
    );
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

/// The rings of the vectors by name. `arrange` sets the order in which their nodes are added.
fn rings(arrange: impl Fn(&mut Vec<(String, u32)>)) -> BTreeMap<String, HashRing<String>> {
    let mut nodes: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
    for row in rows("ring_nodes.tsv") {
        nodes
            .entry(row[0].clone())
            .or_default()
            .push((row[1].clone(), row[2].parse().unwrap()));
    }
    nodes
        .into_iter()
        .map(|(name, mut nodes)| {
            arrange(&mut nodes);
            let one_by_one = nodes
                .iter()
                .cloned()
                .fold(HashRing::new(), |ring, node| ring.updated([node], &[]));
            (name, one_by_one)
        })
        .collect()
}

fn check(rings: &BTreeMap<String, HashRing<String>>) {
    let lookups = rows("ring_lookups.tsv");
    assert!(!lookups.is_empty(), "no lookups");
    for row in lookups {
        let (ring, key) = (&rings[&row[0]], bytes(&row[1]));
        let case = format!("ring {} key {}", row[0], row[1]);
        assert_eq!(point(&key).to_string(), row[2], "{case}: point");
        assert_eq!(ring.owner(&key), Some(&row[3]), "{case}: owner");
        let first_five: Vec<&str> = ring
            .preference_list(&key)
            .take(5)
            .map(String::as_str)
            .collect();
        assert_eq!(first_five.join(","), row[4], "{case}: preference list");
        assert_eq!(
            ring.preference_list(&key).count(),
            ring.len(),
            "{case}: each node is listed once"
        );
    }
}

#[test]
fn owners_and_preference_lists_are_those_of_the_original() {
    check(&rings(|_| ()));
}

#[test]
fn the_order_in_which_nodes_are_added_does_not_matter() {
    check(&rings(|nodes| nodes.reverse()));
    check(&rings(|nodes| {
        nodes.sort_by_key(|(name, _)| point(name.as_bytes()))
    }));
}
