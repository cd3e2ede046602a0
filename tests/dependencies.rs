//! Have all dependencies a compatible licence, and do they build with the stated Rust version?
//!
//! Checks the dependencies for this machine, including those of tests, without a network. Where
//! it is installed, `cargo deny --config .ci/deny.toml --offline check bans licenses sources`
//! checks them for all systems.

use std::process::Command;

use serde_json::Value;

/// Licences that an MIT-licensed program may depend on. `.ci/deny.toml` has the same list.
const COMPATIBLE: [&str; 7] = [
    "0BSD",
    "Apache-2.0",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
];

/// A crate of the build.
struct Package {
    name: String,
    licence: String,
    /// The Rust version that it states, if it states one.
    rust: Option<Rust>,
    is_ours: bool,
}

/// A version of Rust: major, minor, patch.
type Rust = [u64; 3];

fn rust(text: &str) -> Rust {
    let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// The compiler's name for this system.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let host = stdout.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

fn packages() -> Vec<Package> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &host()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{stderr}");
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

/// Is a licence expression compatible? Alternatives are joined by `OR` or `/`, licences that apply
/// together by `AND`. In each set of alternatives one must be compatible. For `A OR B AND C` that
/// is stricter than necessary.
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
fn every_dependency_has_a_compatible_licence() {
    let packages = packages();
    assert!(packages.len() > 20, "only {} were checked", packages.len());
    for package in &packages {
        let (name, licence) = (&package.name, &package.licence);
        assert!(is_compatible(licence), "{name} is under {licence:?}");
    }
}

#[test]
fn an_expression_is_compatible_if_one_of_its_alternatives_is() {
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
fn the_lists_of_licences_in_tests_ci_and_guide_are_equal() {
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
fn no_dependency_needs_a_newer_rust_than_the_stated_one() {
    let packages = packages();
    let ours = packages.iter().find(|package| package.is_ours);
    let stated = ours.and_then(|package| package.rust).expect("it is stated");
    for Package { name, rust, .. } in &packages {
        assert!(
            rust.is_none_or(|needed| needed <= stated),
            "{name} needs Rust {rust:?}, and {stated:?} is stated: choose an older version of it"
        );
    }
    let [major, minor, _] = stated;
    let readme = include_str!("../README.md");
    assert!(readme.contains(&format!("a Rust toolchain ({major}.{minor} or newer)")));
}
