//! Are the crates that this one is made of allowed here, and old enough?
//!
//! Asked of what is built for this machine, tests included, which is all there without a
//! network. `cargo deny --config .ci/deny.toml --offline check bans licenses sources`
//! asks it of all systems, where it is installed.

use std::process::Command;

use serde_json::Value;

/// What `.ci/deny.toml` allows too. All may be used in an MIT-licensed program.
const COMPATIBLE: [&str; 6] = [
    "0BSD",
    "Apache-2.0",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
];

/// A crate of the build.
struct Package {
    name: String,
    licence: String,
    /// The Rust that it says it needs; none if it does not say.
    rust: Option<Rust>,
    is_ours: bool,
}

/// A version of Rust: major, minor, patch.
type Rust = [u64; 3];

fn rust(text: &str) -> Rust {
    let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// The system that is built for, as the compiler calls it.
fn host() -> String {
    let told = Command::new("rustc").arg("-vV").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

fn packages() -> Vec<Package> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &host()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{told}");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let text = |package: &Value, field| package[field].as_str().map(str::to_owned);
    let package = |package: &Value| Package {
        name: text(package, "name").unwrap_or_default(),
        licence: text(package, "license").unwrap_or_default(),
        rust: text(package, "rust_version").map(|version| rust(&version)),
        is_ours: package["source"].is_null(),
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(package).collect()
}

/// May a crate be used of which its author says this? Alternatives are joined by `OR`,
/// or `/` as it was once, what must be kept together by `AND`. One of each set of
/// alternatives must be compatible; that asks more than `A OR B AND C` does, never less.
fn is_compatible(licence: &str) -> bool {
    let known = |one: &str| {
        let one = one.split(" WITH ").next().unwrap_or_default();
        COMPATIBLE.contains(&one.trim_matches(['(', ')', ' ']))
    };
    let alternatives = licence.replace('/', " OR ");
    let mut together = alternatives.split(" AND ");
    together.all(|alternatives| alternatives.split(" OR ").any(known))
}

#[test]
fn every_dependency_has_a_licence_that_is_compatible() {
    let packages = packages();
    assert!(
        packages.len() > 20,
        "only {} were looked at",
        packages.len()
    );
    for package in &packages {
        let (name, licence) = (&package.name, &package.licence);
        assert!(is_compatible(licence), "{name} is under {licence:?}");
    }
}

#[test]
fn a_licence_is_compatible_when_some_way_to_keep_it_is() {
    for licence in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 AND ISC",
    ] {
        assert!(is_compatible(licence), "{licence}");
    }
    for licence in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND MPL-2.0"] {
        assert!(!is_compatible(licence), "{licence}");
    }
}

#[test]
fn the_lists_of_licences_are_one() {
    let quoted = COMPATIBLE
        .map(|licence| format!("    \"{licence}\",\n"))
        .concat();
    let deny = include_str!("../.ci/deny.toml");
    assert!(deny.contains(&format!("allow = [\n{quoted}]")), "{quoted}");
    let listed = COMPATIBLE.join(", ");
    let page = include_str!("../src/guide/design.md").replace('\n', " ");
    assert!(page.contains(&listed), "{listed}");
}

#[test]
fn no_dependency_needs_a_newer_rust_than_is_stated() {
    let packages = packages();
    let ours = packages.iter().find(|package| package.is_ours);
    let stated = ours.and_then(|package| package.rust).expect("it is stated");
    for Package { name, rust, .. } in &packages {
        assert!(
            rust.is_none_or(|needed| needed <= stated),
            "{name} needs Rust {rust:?}, and {stated:?} is stated: `cargo update` finds an older one"
        );
    }
    let [major, minor, _] = stated;
    let readme = include_str!("../README.md");
    assert!(readme.contains(&format!("a Rust toolchain ({major}.{minor} or newer)")));
}
