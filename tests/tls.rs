//! Does a network under TLS let in those who show a certificate of its CA, and nobody
//! else? And may strangers end a node without TLS?
//!
//! Every test makes its own CA and certificates, by the file that the example
//! `certificates` is made of.

mod common;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::authority::{Authority, Role};
use common::namespace::Namespace;
use common::raw::{answer_to, message};
use common::{NodeProcess, SOON, ended, eventually, run};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};
use thrift::transport::{
    TBufferedReadTransport, TBufferedWriteTransport, TIoChannel, TTlsClientChannel,
};
use thrifty_p2p::client::StoreClient;
use thrifty_p2p::endpoint::{BindOptions, Endpoint};
use thrifty_p2p::error::Error;
use thrifty_p2p::handler::{BaseHandler, serve_base};
use thrifty_p2p::locator::{BaseSyncClient, BaseSyncProcessor, TBaseSyncClient};
use thrifty_p2p::rpc::dialer::{Dialer, call};
use thrifty_p2p::rpc::tls::identity::Identity;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A CA with a node's certificate and a client's.
struct Certificates {
    folder: TempDir,
    authority: Authority,
}

impl Certificates {
    fn new() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::in_folder(folder.path()).unwrap();
        let tomorrow = SystemTime::now() + DAY;
        authority.issue("node", Role::Node, tomorrow).unwrap();
        authority.issue("client", Role::Client, tomorrow).unwrap();
        Certificates { folder, authority }
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_owned()
    }

    /// The options that make a program this one.
    fn options(&self, name: &str) -> Vec<String> {
        self.options_trusting(name, self)
    }

    /// The same, but it trusts another CA.
    fn options_trusting(&self, name: &str, other: &Certificates) -> Vec<String> {
        vec![
            "--tls-cert".into(),
            self.path(&format!("{name}.pem")),
            "--tls-key".into(),
            self.path(&format!("{name}.key")),
            "--tls-ca".into(),
            other.path("ca.pem"),
        ]
    }

    fn identity(&self, name: &str) -> Identity {
        let file = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        let authority = self.folder.path().join("ca.pem");
        Identity::load(&file("pem"), &file("key"), &authority).unwrap()
    }

    fn dialer(&self) -> Dialer {
        Dialer::new(Some(self.identity("client")))
    }
}

/// These arguments and options together.
fn with<'a>(arguments: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    let options = options.iter().map(String::as_str);
    arguments.iter().copied().chain(options).collect()
}

fn start_alone(name: &str, certificates: &Certificates) -> NodeProcess {
    NodeProcess::start(name, &with(&["--alone"], &certificates.options("node")))
}

/// Makes sure that this node has closed a connection for such a reason, naming the peer.
fn has_turned_away(node: &NodeProcess, reason: &str) {
    node.wait_for(reason);
    let lines = node.lines();
    let line = lines.iter().find(|line| line.contains(reason)).unwrap();
    assert!(
        line.contains("closed the connection of 127.0.0.1:"),
        "no peer is named: {line}"
    );
}

#[test]
fn stores_under_tls_gossip_copy_and_keep_what_was_put_when_one_is_killed() {
    let certificates = Certificates::new();
    let (node, client) = (certificates.options("node"), certificates.options("client"));
    let first = start_alone("storeserver", &certificates);
    let mut second = NodeProcess::start("storeserver", &with(&["-h", first.at()], &node));
    let third = NodeProcess::start("storeserver", &with(&["-h", second.at()], &node));
    let ask = |program: &str, at: &NodeProcess, arguments: &[&str]| {
        let host = ["-h", at.at()];
        run(program, &with(&[&host[..], arguments].concat(), &client))
    };
    let settled = |nodes: usize| {
        eventually("the store is settled", SOON, || {
            let status = ask("storestatus", &third, &[]);
            let table = String::from_utf8_lossy(&status.stdout).into_owned();
            status.status.success() && table.lines().count() == nodes + 2
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
            &["--through", "ring", "--seconds", "1", "--keys", "9"],
        ),
    ] {
        let output = ask(program, &first, arguments);
        assert!(output.status.success(), "{program}: {:?}", ended(&output));
    }
    second.kill();
    let got = ask("storeget", &first, &["key"]);
    assert_eq!(got.stdout, b"value\n", "{:?}", ended(&got));
    settled(2);
    let letters = ask("storetest", &third, &[]);
    assert!(letters.status.success(), "{:?}", ended(&letters));
    let deleted = ask("storedel", &third, &["key"]);
    assert!(deleted.status.success(), "{:?}", ended(&deleted));
    for node in [&first, &third] {
        assert!(!node.says("there is no TLS"), "{} warns", node.at());
    }
}

#[test]
fn large_values_go_over_tls_whole() {
    let certificates = Certificates::new();
    let node = start_alone("storeserver", &certificates);
    let store = StoreClient::of(certificates.dialer(), node.location.clone());
    let value: Vec<u8> = (0..=250).cycle().take(16 * 1024 * 1024).collect();
    for length in [1, 16_384, 65_536, 65_537, value.len()] {
        store.put(b"key", &value[..length]).unwrap();
        let got = store.get(b"key").unwrap().unwrap();
        assert!(got == value[..length], "{} of {length} bytes", got.len());
    }
}

/// A ping over the Thrift crate's own TLS channel.
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
fn a_peer_without_a_certificate_gets_nothing_not_even_a_ping() {
    let certificates = Certificates::new();
    let node = start_alone("location", &certificates);
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
    has_turned_away(&node, "the peer showed no certificate");

    let chain = vec![CertificateDer::from_pem_file(certificates.path("client.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("client.key")).unwrap();
    let known = config().with_client_auth_cert(chain, key).unwrap();
    ping_by_thrift(&node, known).expect("a ping with a certificate");

    let plain = call(BaseSyncClient::new, &node.location, |peer| peer.ping());
    let told = plain.as_ref().map_err(ToString::to_string);
    assert!(
        matches!(plain, Err(Error::Tls(..))),
        "a plain ping: {told:?}"
    );
    assert!(told.unwrap_err().contains("--tls-cert"));
    has_turned_away(&node, "the peer does not speak TLS");
    let answer = answer_to(&node, &message("ping", &[0]));
    assert!(
        answer.len() < 8 && !answer.windows(4).any(|bytes| bytes == b"ping"),
        "{answer:?}"
    );
}

#[test]
fn a_certificate_of_another_ca_is_named_on_both_sides() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let node = start_alone("storeserver", &ours);
    let get = ["-h", node.at(), "key"];
    let strange = run(
        "storeget",
        &with(&get, &theirs.options_trusting("client", &ours)),
    );
    let (status, told) = ended(&strange);
    assert_eq!(status, Some(3), "{told}");
    assert!(
        told.contains("the peer says that our certificate is of another CA"),
        "{told}"
    );
    has_turned_away(&node, "the peer's certificate is of another CA");

    let distrusting = run(
        "storeget",
        &with(&get, &ours.options_trusting("client", &theirs)),
    );
    let (status, told) = ended(&distrusting);
    assert_eq!(status, Some(3), "{told}");
    assert!(
        told.contains("the peer's certificate is of another CA than the one given by --tls-ca"),
        "{told}"
    );
    has_turned_away(&node, "the peer says that our certificate is of another CA");

    let joining = ["-p", "0", "-h", node.at()];
    let joiner = run(
        "storeserver",
        &with(&joining, &theirs.options_trusting("node", &ours)),
    );
    let (status, told) = ended(&joiner);
    assert_eq!(status, Some(3), "{told}");
    assert!(!node.says("added"), "a stranger has joined");
}

#[test]
fn an_expired_certificate_is_named_on_both_sides() {
    let certificates = Certificates::new();
    let yesterday = SystemTime::now() - DAY;
    let issue = |name, role| certificates.authority.issue(name, role, yesterday).unwrap();
    issue("late", Role::Client);
    issue("old", Role::Node);
    let node = start_alone("storeserver", &certificates);
    let get = ["-h", node.at(), "key"];
    let (status, told) = ended(&run("storeget", &with(&get, &certificates.options("late"))));
    assert_eq!(status, Some(3), "{told}");
    assert!(told.contains("late.pem has expired"), "{told}");
    assert!(told.contains("our certificate has expired"), "{told}");
    has_turned_away(&node, "the peer's certificate has expired");

    let alone = with(&["--alone"], &certificates.options("old")).join(" ");
    let old = NodeProcess::start("storeserver", &alone.split(' ').collect::<Vec<_>>());
    old.wait_for("old.pem has expired");
    let get = ["-h", old.at(), "key"];
    let (status, told) = ended(&run(
        "storeget",
        &with(&get, &certificates.options("client")),
    ));
    assert_eq!(status, Some(3), "{told}");
    assert!(
        told.contains("the peer's certificate has expired"),
        "{told}"
    );
    has_turned_away(&old, "the peer says that our certificate has expired");
}

#[test]
fn a_client_certificate_makes_no_node() {
    let certificates = Certificates::new();
    let alone = with(&["--alone", "-p", "0"], &certificates.options("client")).join(" ");
    let (status, told) = ended(&run("location", &alone.split(' ').collect::<Vec<_>>()));
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("is a client's"), "{told}");
}

#[test]
fn plain_and_tls_do_not_meet_and_say_so() {
    let certificates = Certificates::new();
    let (plain, secure) = (
        NodeProcess::start_alone("storeserver"),
        start_alone("storeserver", &certificates),
    );
    let (node, client) = (certificates.options("node"), certificates.options("client"));
    let get = |at: &NodeProcess, options: &[String]| {
        let output = run("storeget", &with(&["-h", at.at(), "key"], options));
        ended(&output)
    };
    let (status, told) = get(&secure, &[]);
    assert_eq!(status, Some(3), "{told}");
    assert!(told.contains("TLS, where Thrift was expected"), "{told}");
    has_turned_away(&secure, "the peer does not speak TLS");
    let (status, told) = get(&plain, &client);
    assert_eq!(status, Some(3), "{told}");
    assert!(told.contains("it speaks no TLS"), "{told}");
    has_turned_away(&plain, "TLS, where Thrift was expected");

    for (peer, options) in [(&plain, &node[..]), (&secure, &[])] {
        let joining = with(&["-p", "0", "-h", peer.at()], options);
        let (status, told) = ended(&run("storeserver", &joining));
        assert_eq!(status, Some(3), "{told}");
        assert!(!peer.says("added"), "a stranger has joined {}", peer.at());
    }
}

#[test]
fn all_three_files_are_needed_and_each_must_be_what_it_should() {
    let certificates = Certificates::new();
    let (pem, key) = (certificates.path("node.pem"), certificates.path("node.key"));
    let (authority, other) = (certificates.path("ca.pem"), certificates.path("client.key"));
    for (certificate, key, authority, word) in [
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
            let (status, told) = ended(&command.output().unwrap());
            assert_eq!(status, Some(2), "{name}, {word}: {told}");
            assert!(told.contains(word), "{name}, {word}: {told}");
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

/// How long the connection stays open, which is at the most [`SOON`].
fn time_until_closed(stream: &mut TcpStream, mut say: impl FnMut(&mut TcpStream)) -> Duration {
    let began = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    eventually("the connection is closed", SOON, || {
        say(stream);
        match stream.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock),
        }
    });
    began.elapsed()
}

#[test]
fn who_does_not_shake_hands_in_time_is_closed_and_delays_nobody() {
    let certificates = Certificates::new();
    let mut place = BindOptions::at(0..=0);
    place.identity = Some(certificates.identity("node"));
    place.limits.handshake = Duration::from_secs(2);
    let endpoint = Arc::new(Endpoint::bind(&place).unwrap());
    let location = endpoint.location().clone();
    let service = Service {
        endpoint: endpoint.clone(),
    };
    let serving = thread::spawn(move || serve_base(service, BaseSyncProcessor::new));
    let mut silent = TcpStream::connect(location.name()).unwrap();
    let mut slow = TcpStream::connect(location.name()).unwrap();
    // The head of a long handshake message, of which a byte comes now and then.
    slow.write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb])
        .unwrap();
    let dialer = certificates.dialer();
    let began = Instant::now();
    let pinged = dialer.call(BaseSyncClient::new, &location, |peer| peer.ping());
    pinged.unwrap();
    assert!(
        began.elapsed() < place.limits.handshake,
        "a ping waited for those who do not shake hands"
    );
    let dribble = |stream: &mut TcpStream| drop(stream.write_all(&[0]));
    let time = time_until_closed(&mut slow, dribble);
    assert!(time < 4 * place.limits.handshake, "{time:?}");
    let time = time_until_closed(&mut silent, |_| ());
    assert!(time < 4 * place.limits.handshake, "{time:?}");

    let died = dialer.call(BaseSyncClient::new, &location, |peer| peer.die());
    died.unwrap();
    serving.join().unwrap().unwrap();
}

/// Two hosts at the ends of one cable, or a word on why there are none.
fn two_hosts() -> Option<[Namespace; 2]> {
    let lay = || -> Result<[Namespace; 2], String> {
        let hosts = [Namespace::new("near")?, Namespace::new("far")?];
        let [near, far] = &hosts;
        let to = ["peer", "name", "cable", "netns", far.name()];
        near.ip(&[&["link", "add", "cable", "type", "veth"][..], &to].concat())?;
        for (host, address) in [(near, NEAR), (far, FAR)] {
            host.ip(&["address", "add", &format!("{address}/24"), "dev", "cable"])?;
            host.ip(&["link", "set", "cable", "up"])?;
        }
        Ok(hosts)
    };
    lay()
        .inspect_err(|e| eprintln!("skipped, since no network namespaces can be made here: {e}"))
        .ok()
}

const NEAR: &str = "10.98.0.1";
const FAR: &str = "10.98.0.2";

/// Sends bytes to a node from a host: as they are, or over TLS.
fn send(host: &Namespace, node: &NodeProcess, bytes: &[u8], tls: Option<&Certificates>) {
    let mut command = match tls {
        None => {
            let mut command = host.tool("bash");
            let place = node.at().replace(':', "/");
            command.args(["-c", &format!("cat >/dev/tcp/{place}")]);
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
fn a_node_without_tls_is_not_ended_from_another_machine() {
    let Some([near, far]) = two_hosts() else {
        return;
    };
    let start = |options: &[String]| {
        let mut command = near.command("location");
        command.args(["--alone", "--port", "0", "--address", NEAR]);
        command.args(options);
        let mut node = NodeProcess::spawn_command(command, format!("a location at {NEAR}"));
        node.wait_until_it_serves();
        node
    };
    let mut open = start(&[]);
    open.wait_for("there is no TLS; give --tls-cert");
    let is_serving_afar = |node: &NodeProcess| {
        let status = far
            .command("locationstatus")
            .args(["-h", node.at()])
            .output();
        status.unwrap().status.success()
    };
    assert!(is_serving_afar(&open));
    for method in ["die", "debug"] {
        send(&far, &open, &message(method, &[0]), None);
        open.wait_for(&format!("refused {method}()"));
    }
    let lines = open.lines();
    let refused = lines.iter().find(|line| line.contains("refused die()"));
    assert!(
        refused.unwrap().contains(FAR),
        "no peer is named: {refused:?}"
    );
    assert!(is_serving_afar(&open), "a stranger has ended the node");
    assert!(!open.says("locator.Locator at"), "debug() was honoured");

    send(&near, &open, &message("die", &[0]), None);
    assert!(open.wait().success(), "die() from the same machine");

    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped, since there is no openssl: die() from afar under TLS");
        return;
    }
    let certificates = Certificates::new();
    let mut closed = start(&certificates.options("node"));
    assert!(!closed.says("there is no TLS"));
    send(&far, &closed, &message("die", &[0]), Some(&certificates));
    assert!(closed.wait().success(), "die() from afar under TLS");
}
