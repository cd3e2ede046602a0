//! Does a network under TLS accept only programs with a certificate of its CA?

mod common;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::authority::Role;
use common::certificates::{Certificates, DAY, start_bootstrap, with};
use common::raw::{message, reply_to};
use common::{NodeProcess, SOON, ended, eventually, run};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::transport::{
    TBufferedReadTransport, TBufferedWriteTransport, TIoChannel, TTlsClientChannel,
};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, serve_base};
use thrifty_p2p::locator::{BaseSyncClient, BaseSyncProcessor, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::call;

/// Waits until the node logs that it has closed a connection for this reason, and checks that the
/// line names the peer.
fn check_rejected(node: &NodeProcess, reason: &str) {
    node.wait_for(reason);
    let lines = node.lines();
    let line = lines.iter().find(|line| line.contains(reason)).unwrap();
    assert!(
        line.contains("closed the connection of 127.0.0.1:"),
        "the peer is not named: {line}"
    );
}

#[test]
fn a_store_under_tls_keeps_a_written_value_when_a_node_is_killed() {
    let certificates = Certificates::new();
    let (node, client) = (certificates.options("node"), certificates.options("client"));
    let first = start_bootstrap("storeserver", &certificates);
    let mut second = NodeProcess::start("storeserver", &with(&["-h", first.at()], &node));
    let third = NodeProcess::start("storeserver", &with(&["-h", second.at()], &node));
    let run_at = |program: &str, at: &NodeProcess, arguments: &[&str]| {
        let host = ["-h", at.at()];
        run(program, &with(&[&host[..], arguments].concat(), &client))
    };
    let settled = |nodes: usize| {
        eventually("the store is settled", SOON, || {
            let status = run_at("storestatus", &third, &[]);
            let table = String::from_utf8_lossy(&status.stdout).into_owned();
            let last = table.lines().last().unwrap_or_default();
            last.starts_with("settled") && table.matches("  settled  ").count() == nodes
        });
    };
    settled(3);
    for (program, arguments) in [
        ("storeprimer", &[][..]),
        ("storeput", &["key", "value"]),
        ("locationstatus", &[]),
        (
            "storebench",
            &["--connections", "2", "--seconds", "1", "--keys", "9"],
        ),
        (
            "storebench",
            &["--routing", "direct", "--seconds", "1", "--keys", "9"],
        ),
    ] {
        let output = run_at(program, &first, arguments);
        assert!(output.status.success(), "{program}: {:?}", ended(&output));
    }
    second.kill();
    let got = run_at("storeget", &first, &["key"]);
    assert_eq!(got.stdout, b"value\n", "{:?}", ended(&got));
    settled(2);
    let tested = run_at("storetest", &third, &[]);
    assert!(tested.status.success(), "{:?}", ended(&tested));
    let deleted = run_at("storedel", &third, &["key"]);
    assert!(deleted.status.success(), "{:?}", ended(&deleted));
    for node in [&first, &third] {
        assert!(
            !node.says("there is no TLS"),
            "{} logs a warning",
            node.at()
        );
    }
}

#[test]
fn large_values_arrive_complete_over_tls() {
    let certificates = Certificates::new();
    let node = start_bootstrap("storeserver", &certificates);
    let store = StoreClient::of(certificates.dialer(), vec![node.location.clone()]);
    let value: Vec<u8> = (0..=250).cycle().take(16 * 1024 * 1024).collect();
    for length in [1, 16_384, 65_536, 65_537, value.len()] {
        store.put(b"key", &value[..length]).unwrap();
        let got = store.get(b"key").unwrap().unwrap();
        assert!(got == value[..length], "{} of {length} bytes", got.len());
    }
}

/// A ping over the TLS channel of the Thrift crate.
fn ping_by_thrift(node: &NodeProcess, config: ClientConfig) -> thrift::Result<()> {
    let stream = TcpStream::connect(node.at())?;
    stream.set_read_timeout(Some(SOON))?;
    let name = "localhost".try_into().unwrap();
    let channel = TTlsClientChannel::with_stream(stream, name, Arc::new(config))?;
    let (read, write) = channel.split()?;
    let input = TBinaryInputProtocol::new(TBufferedReadTransport::new(read), true);
    let output = TBinaryOutputProtocol::new(TBufferedWriteTransport::new(write), true);
    BaseSyncClient::new(input, output).ping()
}

#[test]
fn a_peer_without_a_certificate_gets_no_reply_even_to_a_ping() {
    let certificates = Certificates::new();
    let node = start_bootstrap("location", &certificates);
    let config = || {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(certificates.path("ca.pem"));
        roots.add(authority.unwrap()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    };
    let refused = ping_by_thrift(&node, config().with_no_client_auth());
    assert!(refused.is_err(), "a ping without a certificate");
    check_rejected(&node, "the peer showed no certificate");

    let chain = vec![CertificateDer::from_pem_file(certificates.path("client.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("client.key")).unwrap();
    let known = config().with_client_auth_cert(chain, key).unwrap();
    ping_by_thrift(&node, known).expect("a ping with a certificate");

    let plain = call(BaseSyncClient::new, &node.location, |peer| peer.ping());
    let text = plain.as_ref().map_err(ToString::to_string);
    assert!(
        matches!(plain, Err(Error::Tls(..))),
        "a plain ping: {text:?}"
    );
    assert!(text.unwrap_err().contains("--tls-cert"));
    check_rejected(&node, "the peer does not speak TLS");
    let reply = reply_to(&node, &message("ping", &[0]));
    assert!(
        reply.len() < 8 && !reply.windows(4).any(|bytes| bytes == b"ping"),
        "{reply:?}"
    );
}

#[test]
fn both_sides_report_a_certificate_of_another_ca() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let node = start_bootstrap("storeserver", &ours);
    let get = ["-h", node.at(), "key"];
    let untrusted = run(
        "storeget",
        &with(&get, &theirs.options_trusting("client", &ours)),
    );
    let (status, stderr) = ended(&untrusted);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(
        stderr.contains("the peer reports that our certificate is of another CA"),
        "{stderr}"
    );
    check_rejected(&node, "the peer's certificate is of another CA");

    let mistrusting = run(
        "storeget",
        &with(&get, &ours.options_trusting("client", &theirs)),
    );
    let (status, stderr) = ended(&mistrusting);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(
        stderr.contains("the peer's certificate is of another CA than the one given by --tls-ca"),
        "{stderr}"
    );
    check_rejected(
        &node,
        "the peer reports that our certificate is of another CA",
    );

    let joining = ["-p", "0", "-h", node.at()];
    let joiner = run(
        "storeserver",
        &with(&joining, &theirs.options_trusting("node", &ours)),
    );
    let (status, stderr) = ended(&joiner);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(!node.says("added"), "an untrusted node has joined");
}

#[test]
fn both_sides_report_an_expired_certificate() {
    let certificates = Certificates::new();
    let yesterday = SystemTime::now() - DAY;
    let issue = |name, role| certificates.authority.issue(name, role, yesterday).unwrap();
    issue("expired", Role::Client);
    issue("expired-node", Role::Node);
    let node = start_bootstrap("storeserver", &certificates);
    let get = ["-h", node.at(), "key"];
    let (status, stderr) = ended(&run(
        "storeget",
        &with(&get, &certificates.options("expired")),
    ));
    assert_eq!(status, Some(3), "{stderr}");
    assert!(stderr.contains("expired.pem has expired"), "{stderr}");
    assert!(stderr.contains("our certificate has expired"), "{stderr}");
    check_rejected(&node, "the peer's certificate has expired");

    let arguments = with(&["--bootstrap"], &certificates.options("expired-node")).join(" ");
    let old = NodeProcess::start("storeserver", &arguments.split(' ').collect::<Vec<_>>());
    old.wait_for("expired-node.pem has expired");
    let get = ["-h", old.at(), "key"];
    let (status, stderr) = ended(&run(
        "storeget",
        &with(&get, &certificates.options("client")),
    ));
    assert_eq!(status, Some(3), "{stderr}");
    assert!(
        stderr.contains("the peer's certificate has expired"),
        "{stderr}"
    );
    check_rejected(&old, "the peer reports that our certificate has expired");
}

#[test]
fn a_node_with_a_client_certificate_does_not_start() {
    let certificates = Certificates::new();
    let arguments = with(&["--bootstrap", "-p", "0"], &certificates.options("client")).join(" ");
    let (status, stderr) = ended(&run("location", &arguments.split(' ').collect::<Vec<_>>()));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("is a client's"), "{stderr}");
}

#[test]
fn programs_with_and_without_tls_report_that_only_one_side_has_it() {
    let certificates = Certificates::new();
    let (plain, secure) = (
        NodeProcess::start_bootstrap("storeserver"),
        start_bootstrap("storeserver", &certificates),
    );
    let (node, client) = (certificates.options("node"), certificates.options("client"));
    let get = |at: &NodeProcess, options: &[String]| {
        let output = run("storeget", &with(&["-h", at.at(), "key"], options));
        ended(&output)
    };
    let (status, stderr) = get(&secure, &[]);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(
        stderr.contains("TLS, where Thrift was expected"),
        "{stderr}"
    );
    check_rejected(&secure, "the peer does not speak TLS");
    let (status, stderr) = get(&plain, &client);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(stderr.contains("it has no TLS"), "{stderr}");
    check_rejected(&plain, "TLS, where Thrift was expected");

    for (peer, options) in [(&plain, &node[..]), (&secure, &[])] {
        let joining = with(&["-p", "0", "-h", peer.at()], options);
        let (status, stderr) = ended(&run("storeserver", &joining));
        assert_eq!(status, Some(3), "{stderr}");
        assert!(
            !peer.says("added"),
            "an untrusted node has joined {}",
            peer.at()
        );
    }
}

#[test]
fn tls_needs_all_three_files_and_each_must_be_valid() {
    let certificates = Certificates::new();
    let (pem, key) = (certificates.path("node.pem"), certificates.path("node.key"));
    let (authority, other) = (certificates.path("ca.pem"), certificates.path("client.key"));
    for (certificate, key, authority, expected) in [
        (
            Some(&pem),
            None,
            Some(&authority),
            "all three of --tls-cert",
        ),
        (None, None, Some(&authority), "THRIFTY_TLS_CERT"),
        (
            Some(&pem),
            Some(&other),
            Some(&authority),
            "client.key cannot be used",
        ),
        (
            Some(&key),
            Some(&key),
            Some(&authority),
            "no certificate in PEM",
        ),
        (
            Some(&pem),
            Some(&pem),
            Some(&authority),
            "no private key in PEM",
        ),
        (
            Some(&pem),
            Some(&key),
            Some(&"/nowhere".into()),
            "/nowhere cannot be used",
        ),
    ] {
        for name in ["storeserver", "storeget"] {
            let mut command = Command::new(common::program(name));
            let given = [certificate, key, authority];
            let names = ["THRIFTY_TLS_CERT", "THRIFTY_TLS_KEY", "THRIFTY_TLS_CA"];
            for (variable, value) in names.iter().zip(given) {
                command.envs(value.map(|value| (variable, value)));
            }
            command.args(["-h", "127.0.0.1:1"]);
            command.args(["key"].iter().filter(|_| name == "storeget"));
            let (status, stderr) = ended(&command.output().unwrap());
            assert_eq!(status, Some(2), "{name}, {expected}: {stderr}");
            assert!(stderr.contains(expected), "{name}, {expected}: {stderr}");
        }
    }
}

/// A service on `locator.Base` in this process.
#[derive(Clone)]
struct Service {
    endpoint: Arc<Endpoint>,
}

impl BaseHandler for Service {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Calls `send` repeatedly until the peer closes the connection. Returns how long that takes.
fn time_until_closed(stream: &mut TcpStream, mut send: impl FnMut(&mut TcpStream)) -> Duration {
    let began = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    eventually("the connection is closed", SOON, || {
        send(stream);
        match stream.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock),
        }
    });
    began.elapsed()
}

#[test]
fn a_slow_handshake_closes_its_connection_and_delays_no_other() {
    let certificates = Certificates::new();
    let mut options = BindOptions::at(0..=0);
    options.identity = Some(certificates.identity("node"));
    options.limits.handshake_timeout = Duration::from_secs(2);
    let endpoint = Arc::new(Endpoint::bind(&options).unwrap());
    let location = endpoint.location().clone();
    let service = Service {
        endpoint: endpoint.clone(),
    };
    let serving = thread::spawn(move || serve_base(service, BaseSyncProcessor::new));
    let mut silent = TcpStream::connect(location.name()).unwrap();
    let mut slow = TcpStream::connect(location.name()).unwrap();
    // The start of a long handshake message, whose other bytes arrive slowly.
    slow.write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb])
        .unwrap();
    let dialer = certificates.dialer();
    let began = Instant::now();
    let pinged = dialer.call(BaseSyncClient::new, &location, |peer| peer.ping());
    pinged.unwrap();
    assert!(
        began.elapsed() < options.limits.handshake_timeout,
        "a ping waited for the handshake of another connection"
    );
    let send_byte = |stream: &mut TcpStream| drop(stream.write_all(&[0]));
    let time = time_until_closed(&mut slow, send_byte);
    assert!(time < 4 * options.limits.handshake_timeout, "{time:?}");
    let time = time_until_closed(&mut silent, |_| ());
    assert!(time < 4 * options.limits.handshake_timeout, "{time:?}");

    let stopped = dialer.call(BaseSyncClient::new, &location, |peer| peer.die());
    stopped.unwrap();
    serving.join().unwrap().unwrap();
}
