//! Can the crate in `examples/service` be copied, built and run elsewhere?

mod common;

use std::path::Path;
use std::process::Command;

use common::{NodeProcess, SOON, ended, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The command of the README that copies the crate, with this folder in the place of `../visits`.
fn copy_command(folder: &Path) -> String {
    let readme = include_str!("../README.md").lines();
    let mut lines = readme.filter(|line| line.starts_with("cp -r examples/service ../visits"));
    lines
        .next()
        .unwrap()
        .replace("../visits", folder.to_str().unwrap())
}

#[test]
fn the_service_builds_elsewhere_without_warnings_and_its_nodes_share_the_pages() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("visits");
    let mut copy = Command::new("sh");
    copy.args(["-ec", &copy_command(&folder)]).current_dir(ROOT);
    assert!(copy.status().unwrap().success());
    // The versions that this crate is tested with.
    std::fs::copy(
        Path::new(ROOT).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )
    .unwrap();
    // Kept from one run to the next.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--offline"]).current_dir(&folder);
    build.env("CARGO_TARGET_DIR", &target);
    // All is built once and not debugged.
    build.envs([("CARGO_INCREMENTAL", "0"), ("CARGO_PROFILE_DEV_DEBUG", "0")]);
    let built = build.output().unwrap();
    let printed = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{printed}");
    assert!(!printed.contains("warning"), "{printed}");

    let node = |arguments: &[&str]| {
        let mut command = Command::new(target.join("debug/visits"));
        command.args(["-p", "0"]).args(arguments);
        let mut node = NodeProcess::spawn_command(command, "a node of the service".into());
        node.wait_until_it_serves();
        node
    };
    let mut first = node(&["--bootstrap"]);
    let mut second = node(&["-h", first.at()]);
    first.wait_for(&format!("added {}", second.at()));
    let visit = |node: &NodeProcess, page: &str| {
        let mut client = Command::new(target.join("debug/visit"));
        let output = client.args([node.at(), page]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for page in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(visit(&first, page), "1", "{page}");
        assert_eq!(visit(&second, page), "2", "{page}");
    }
    let fails = |arguments: &[&str]| {
        let mut client = Command::new(target.join("debug/visit"));
        ended(&client.args(arguments).output().unwrap())
    };
    let usage = "usage: visit HOST:PORT PAGE\n".to_owned();
    assert_eq!(fails(&["a"]), (Some(2), usage));
    let (status, message) = fails(&["127.9.9.9:9900", "a"]);
    assert_eq!(status, Some(3), "{message}");
    assert!(
        message.starts_with("nothing listens at 127.9.9.9:9900: "),
        "{message}"
    );
    let help = Command::new(target.join("debug/visits"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.starts_with("Counts the visits of pages"), "{help}");
    second.signal("TERM");
    assert!(second.wait().success());
    eventually(
        "the first node knows that the second has left",
        SOON,
        || first.says(&format!("removed {}: it left", second.at())),
    );
    assert!(first.interrupt().success());
}
