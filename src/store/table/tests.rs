//! Cases of the table.

use super::*;
use crate::location::Location;
use crate::store::placement::{NodeId, Placement};

fn entry(version: i64, value: &str) -> Entry {
    Entry {
        version,
        value: Some(value.as_bytes().to_vec().into()),
    }
}

/// All keys of a table, by pages of these limits.
fn keys_by_pages(table: &Table, max_bytes: usize, max_scanned: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let page = table.page(&at, max_bytes, max_scanned, |_| true, |_| true);
        keys.extend(page.entries.into_iter().map(|(key, _)| key));
        cursor = page.next;
    }
    keys
}

#[test]
fn the_larger_version_wins_in_any_order() {
    let table = Table::default();
    let key = Key::new(b"a");
    assert!(table.apply(key, entry(2, "new")));
    let counted = (table.keys(), table.bytes());
    assert!(!table.apply(key, entry(1, "older and longer")));
    assert!(!table.apply(key, entry(2, "again")));
    assert_eq!(table.read(key), Some(entry(2, "new")));
    assert_eq!((table.keys(), table.bytes()), counted);
    let tombstone = Entry {
        version: 3,
        value: None,
    };
    assert!(table.apply(key, tombstone));
    let version = table.read(key).map(|held| held.version);
    assert_eq!((table.keys(), version), (0, Some(3)));
}

#[test]
fn pages_cover_the_table_however_small_they_are() {
    let table = Table::default();
    let names: Vec<String> = (0..2000).map(|i| format!("key{i}")).collect();
    for name in &names {
        table.apply(Key::new(name.as_bytes()), entry(1, "value"));
    }
    for (max_bytes, max_scanned) in [
        (1, usize::MAX),
        (usize::MAX, 3),
        (1000, 100),
        (usize::MAX, usize::MAX),
    ] {
        let mut keys = keys_by_pages(&table, max_bytes, max_scanned);
        assert_eq!(keys.len(), names.len());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len());
    }
    let is_wanted = |key: Key<'_>| key.bytes != b"key7";
    let whole = table.page(
        &Cursor::default(),
        usize::MAX,
        usize::MAX,
        |_| true,
        is_wanted,
    );
    assert_eq!((whole.entries.len(), whole.next), (names.len() - 1, None));
    let none = table.page(&Cursor::default(), 1, 1, |_| false, |_| true);
    assert_eq!(none, Page::default(), "unwanted stripes are skipped");
}

#[test]
fn keys_of_one_point_are_distinguished_and_swept_in_parts() {
    let table = Table::default();
    // Keys of 32 hexadecimal digits have the point that they spell.
    let count = 3 * LOCKED_SCAN + 7;
    let names: Vec<String> = (0..count).map(|i| format!("{i:032x}")).collect();
    let keys: Vec<Key<'_>> = names.iter().map(|name| Key::new(name.as_bytes())).collect();
    assert!(keys.iter().all(|key| key.point == 0));
    for (version, key) in (1..).zip(&keys) {
        assert_eq!(table.read(*key), None);
        let value = Some(Value::of(b"another key", b"value"));
        assert!(table.apply(*key, Entry { version, value }));
    }
    for (version, key) in (1..).zip(&keys) {
        assert_eq!(table.read(*key), Some(entry(version, "value")));
    }
    let expected: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    assert_eq!(keys_by_pages(&table, usize::MAX, 7), expected);
    let is_kept = |key: Key<'_>, _| key.bytes.ends_with(b"0");
    let kept = count.div_ceil(16);
    assert_eq!(table.sweep(0, false, || true, is_kept), Some(count - kept));
    assert_eq!(table.keys(), kept);
    assert_eq!(table.read(keys[16]), Some(entry(17, "value")));
    assert_eq!(table.read(keys[17]), None);
}

#[test]
fn a_sweep_stops_when_it_may_not_drop() {
    let table = Table::default();
    let key = Key::new(b"key");
    table.apply(key, entry(1, "value"));
    let stripe = stripe_of(key);
    assert_eq!(table.sweep(stripe, false, || false, |_, _| false), None);
    assert_eq!(table.keys(), 1);
}

#[test]
fn a_sweep_keeps_a_copy_until_its_write_is_finished() {
    let table = Table::default();
    let key = Key::new(b"key");
    let sweep = || table.sweep(stripe_of(key), false, || true, |_, _| false);
    table.apply_copy(key, entry(1, "value"));
    assert_eq!(sweep(), Some(0));
    table.finish(key, 1);
    assert_eq!(sweep(), Some(1));
}

#[test]
fn a_copy_is_unfinished_until_its_write_is_finished() {
    let table = Table::default();
    let key = Key::new(b"key");
    let is_finished = || table.look_up(key).is_some_and(|held| held.is_finished);
    assert_eq!(table.apply_copy(key, entry(2, "two")), Applied::Kept);
    assert!(!is_finished());
    let page = table.page(&Cursor::default(), usize::MAX, 9, |_| true, |_| true);
    assert_eq!(page.unfinished, [(b"key".to_vec(), 2)]);
    assert_eq!(table.apply_copy(key, entry(1, "one")), Applied::Older(2));
    let repeated = table.apply_copy(key, entry(2, "two"));
    assert_eq!(repeated, Applied::Known(false));
    table.finish(key, 1);
    assert!(!is_finished(), "that was another version");
    table.finish(key, 2);
    assert!(is_finished());
    let repeated = table.apply_copy(key, entry(2, "two"));
    assert_eq!(repeated, Applied::Known(true));
    assert_eq!(table.apply_copy(key, entry(3, "three")), Applied::Kept);
    assert!(!table.apply(key, entry(3, "three")), "it is there already");
    assert!(is_finished(), "and known to be finished now");
}

#[test]
fn a_tombstone_becomes_older_with_the_sweeps_that_count() {
    let table = Table::default();
    let key = Key::new(b"key");
    let value = None;
    table.apply(key, Entry { version: 7, value });
    let stripe = stripe_of(key);
    for (counts_age, age) in [(true, 1), (false, 1), (true, 2)] {
        let keep = |_: Key<'_>, tombstone: Option<Tombstone>| {
            assert_eq!(tombstone.unwrap().age, age);
            true
        };
        assert_eq!(table.sweep(stripe, counts_age, || true, keep), Some(0));
    }
}

#[test]
fn a_copy_resumes_after_a_key_that_is_gone() {
    let table = Table::default();
    let names = ["00a0", "00B0", "00c0", "00D0"].map(|digits| format!("{digits:0<32}"));
    let keys = names.each_ref().map(|name| Key::new(name.as_bytes()));
    for key in keys {
        table.apply(key, entry(1, "value"));
    }
    let page = |cursor: &Cursor| table.page(cursor, usize::MAX, 2, |_| true, |_| true);
    let next = page(&Cursor::default()).next.unwrap();
    let after = next.after.as_deref();
    assert_eq!(after, Some(keys[1].bytes), "in the order of points");
    table.sweep(0, false, || true, |key, _| key != keys[1]);
    let rest = page(&next).entries;
    let rest: Vec<_> = rest.iter().map(|(key, _)| Key::new(key)).collect();
    assert_eq!(rest, keys[2..]);
}

#[test]
fn the_table_grows_by_the_estimated_growth() {
    let table = Table::default();
    let key = Key::new(b"key");
    for (version, value) in [(1, "value"), (2, "a longer value"), (3, "short"), (4, "")] {
        let before = table.bytes();
        let growth = table.growth(key, &entry(version, value));
        table.apply(key, entry(version, value));
        assert_eq!(growth, table.bytes().saturating_sub(before), "{value}");
    }
    assert_eq!(table.bytes(), b"key".len() + OVERHEAD);
}

#[test]
fn of_many_keys_the_count_is_an_estimate() {
    let table = Table::default();
    for number in 0..2 * COUNTED {
        let name = format!("key{number}");
        let value = Some(vec![].into());
        table.apply(Key::new(name.as_bytes()), Entry { version: 1, value });
    }
    let half = table.count(|key| key.bytes.last().is_some_and(|digit| digit % 2 == 0));
    assert!(half.abs_diff(COUNTED) < COUNTED / 20, "{half}");
}

#[test]
fn primary_keys_are_counted_while_keys_come_and_go() {
    let node = |port| NodeId::new(Location::new("127.0.0.1", port).unwrap(), 1);
    let placement = |members: u16| Placement::new((1..=members).map(node));
    let table = Table::default();
    let names: Vec<String> = (0..5000).map(|i| format!("key{i}")).collect();
    let put = |names: &[String], version| {
        for name in names {
            table.apply(Key::new(name.as_bytes()), entry(version, "value"));
        }
    };
    let counted = |placement: &Placement| table.count(|key| placement.is_primary(&node(1), key));
    let expected = |placement: &Placement, names: &[String]| {
        let keys = names.iter().map(|name| Key::new(name.as_bytes()));
        keys.filter(|key| placement.is_primary(&node(1), *key))
            .count()
    };
    put(&names[..3000], 1);
    let three = placement(3);
    assert_eq!(counted(&three), expected(&three, &names[..3000]));
    put(&names, 2);
    assert_eq!(counted(&three), expected(&three, &names));
    for name in &names[..1000] {
        let tombstone = Entry {
            version: 3,
            value: None,
        };
        table.apply(Key::new(name.as_bytes()), tombstone);
    }
    assert_eq!(counted(&three), expected(&three, &names[1000..]));
    put(&names[..1000], 4);
    let four = placement(4);
    assert_eq!(counted(&four), expected(&four, &names));
    for number in 0..STRIPES {
        table.sweep(number, false, || true, |_, _| false);
    }
    assert_eq!(counted(&four), 0);
    assert_eq!((table.keys(), table.bytes()), (0, 0));
}
