//! Does a node without TLS accept `die()` and `debug()` only from its own machine?
//!
//! Needs root and `ip` for network namespaces, which stand for two machines.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::NodeProcess;
use common::certificates::Certificates;
use common::namespace::Namespace;
use common::raw::message;

/// The addresses of the two machines.
const NEAR: &str = "10.98.0.1";
const FAR: &str = "10.98.0.2";

/// Two hosts that are connected. None, with a message, if they cannot be created.
fn two_hosts() -> Option<[Namespace; 2]> {
    let create = || -> Result<[Namespace; 2], String> {
        let hosts = [Namespace::new("near")?, Namespace::new("far")?];
        let [near, far] = &hosts;
        let to = ["peer", "name", "link0", "netns", far.name()];
        near.ip(&[&["link", "add", "link0", "type", "veth"][..], &to].concat())?;
        for (host, address) in [(near, NEAR), (far, FAR)] {
            host.ip(&["address", "add", &format!("{address}/24"), "dev", "link0"])?;
            host.ip(&["link", "set", "link0", "up"])?;
        }
        Ok(hosts)
    };
    create()
        .inspect_err(|e| eprintln!("skipped: no network namespaces can be created: {e}"))
        .ok()
}

/// Sends bytes to a node from a host, without TLS or with it.
fn send(host: &Namespace, node: &NodeProcess, bytes: &[u8], tls: Option<&Certificates>) {
    let mut command = match tls {
        None => {
            let mut command = host.tool("bash");
            let path = node.at().replace(':', "/");
            command.args(["-c", &format!("cat >/dev/tcp/{path}")]);
            command
        }
        Some(certificates) => {
            let mut command = host.tool("openssl");
            command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", node.at()]);
            for (option, file) in [
                ("-cert", "client.pem"),
                ("-key", "client.key"),
                ("-CAfile", "ca.pem"),
            ] {
                command.args([option, &certificates.path(file)]);
            }
            command
        }
    };
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success(), "nothing was sent");
}

#[test]
fn another_machine_can_stop_a_node_only_under_tls() {
    let Some([near, far]) = two_hosts() else {
        return;
    };
    let start = |options: &[String]| {
        let mut command = near.command("location");
        command.args(["--bootstrap", "--port", "0", "--advertise", NEAR]);
        command.args(options);
        let mut node = NodeProcess::spawn_command(command, format!("location at {NEAR}"));
        node.wait_until_it_serves();
        node
    };
    let mut plain = start(&[]);
    plain.wait_for("there is no TLS: anyone who can connect");
    plain.wait_for("give --tls-cert");
    let is_serving_far = |node: &NodeProcess| {
        let status = far
            .command("locationstatus")
            .args(["-h", node.at()])
            .output();
        status.unwrap().status.success()
    };
    assert!(is_serving_far(&plain));
    for method in ["die", "debug"] {
        send(&far, &plain, &message(method, &[0]), None);
        plain.wait_for(&format!("refused {method}()"));
    }
    let lines = plain.lines();
    let refused = lines.iter().find(|line| line.contains("refused die()"));
    assert!(
        refused.unwrap().contains(FAR),
        "the peer is not named: {refused:?}"
    );
    assert!(
        is_serving_far(&plain),
        "another machine has stopped the node"
    );
    assert!(!plain.says(" live members"), "debug() was accepted");

    send(&near, &plain, &message("die", &[0]), None);
    assert!(plain.wait().success(), "die() from the same machine");

    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: die() from another machine under TLS: openssl is not installed");
        return;
    }
    let certificates = Certificates::new();
    let mut secure = start(&certificates.options("node"));
    assert!(!secure.says("there is no TLS"));
    send(&far, &secure, &message("die", &[0]), Some(&certificates));
    assert!(
        secure.wait().success(),
        "die() from another machine under TLS"
    );
}
