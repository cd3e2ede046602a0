//! `Hosts`: hosts at one switch, with faults of the network between each two of them.
//!
//! Each host is a network namespace with the address `10.99.0.<number + 1>`. All are joined by a
//! [`Switch`](super::switch). One more host is that of the client: the thread that creates the
//! hosts is in its namespace until they are dropped, with all threads that it starts meanwhile. So
//! a test calls nodes on the hosts as it calls nodes on its own machine, and a test's load gets its
//! history first-hand.
//!
//! * No host ever learns that a link is cut. The hosts know each other's hardware addresses, so
//!   there is no ARP, which would report a host as unreachable after three seconds.
//! * A change of the links applies to all frames that the switch has not forwarded yet. So no frame
//!   arrives over a link after it was cut.
//! * After a link is healed, TCP repeats what was dropped, at growing intervals: a connection that was
//!   silent for a while may stay silent for as long again. A new connection is made at once.
//! * Nothing leaves the namespaces. Networks of several tests have the same addresses, but none of
//!   them is connected to another one.
//!
//! Creating namespaces needs root and `ip`.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::NodeProcess;
use super::entered::Entered;
use super::links::Link;
use super::namespace::Namespace;
use super::stores::settle;
use super::switch::{Switch, hardware_address, open_port};

/// The port of every node: each has a host of its own.
const PORT: &str = "9900";

/// Hosts at one switch, numbered from 0.
pub struct Hosts {
    // Dropped in this order: the thread leaves the namespaces before they are deleted.
    _client: Entered,
    switch: Switch,
    /// The last one is that of the client.
    namespaces: Vec<Namespace>,
    _center: Namespace,
}

impl Hosts {
    /// Creates this many hosts for nodes, and one for the client. This thread is in the client's
    /// namespace until they are dropped.
    pub fn create(count: usize) -> Result<Hosts, String> {
        let center = Namespace::new("switch")?;
        let roles = (0..count).map(|host| format!("host{host}"));
        let namespaces: Vec<Namespace> = roles
            .chain(["client".to_owned()])
            .map(|role| Namespace::new(&role))
            .collect::<Result<_, _>>()?;
        center.ip_batch(&ports(&namespaces))?;
        let inside = Entered::enter(&center)?;
        let sockets = (0..namespaces.len()).map(|host| open_port(&port(host)));
        let sockets: Result<_, _> = sockets.collect();
        drop(inside);
        let switch = Switch::start(sockets.map_err(|e| format!("no packet sockets: {e}"))?);
        for (host, namespace) in namespaces.iter().enumerate() {
            namespace.ip_batch(&uplink(host, namespaces.len()))?;
        }
        Ok(Hosts {
            _client: Entered::enter(&namespaces[count])?,
            switch,
            namespaces,
            _center: center,
        })
    }

    /// As [`create`](Hosts::create). If that fails, prints why the test is skipped.
    pub fn create_or_skip(count: usize) -> Option<Hosts> {
        Hosts::create(count)
            .inspect_err(|e| eprintln!("skipped: no network namespaces can be created: {e}"))
            .ok()
    }

    /// The number of the client's host.
    pub fn client(&self) -> usize {
        self.namespaces.len() - 1
    }

    /// Does this on a host, in a thread of its own.
    pub fn on<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let enter = || Entered::enter(&self.namespaces[host]).unwrap();
        let done = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _inside = enter();
                work()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Drops everything from one host to another one.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.change(&[from], &[to], |link| link.is_cut = true);
    }

    /// Drops everything between two hosts.
    pub fn cut(&self, one: usize, other: usize) {
        self.split(&[one], &[other]);
    }

    /// Drops everything between the two sides, from one moment on. Hosts on no side, such as the
    /// client's, reach both.
    pub fn split(&self, one: &[usize], other: &[usize]) {
        self.change_both_ways(one, other, |link| link.is_cut = true);
    }

    /// Delays everything from one host to another one.
    pub fn delay_one_way(&self, from: usize, to: usize, delay: Duration) {
        self.change(&[from], &[to], |link| link.delay = delay);
    }

    /// Delays everything between two hosts, by this time each way.
    pub fn delay(&self, one: usize, other: usize, delay: Duration) {
        self.change_both_ways(&[one], &[other], |link| link.delay = delay);
    }

    /// Drops this share of the frames from one host to another one, at random.
    pub fn lose_one_way(&self, from: usize, to: usize, share: f64) {
        self.change(&[from], &[to], |link| link.loss = share);
    }

    /// Drops this share of the frames between two hosts, at random.
    pub fn lose(&self, one: usize, other: usize, share: f64) {
        self.change_both_ways(&[one], &[other], |link| link.loss = share);
    }

    /// Removes all faults from one host to another one.
    pub fn heal_one_way(&self, from: usize, to: usize) {
        self.change(&[from], &[to], Link::heal);
    }

    /// Removes all faults between two hosts.
    pub fn heal(&self, one: usize, other: usize) {
        self.change_both_ways(&[one], &[other], Link::heal);
    }

    /// Removes all faults, from one moment on.
    pub fn heal_all(&self) {
        let all: Vec<usize> = (0..self.namespaces.len()).collect();
        self.change(&all, &all, Link::heal);
    }

    /// Changes all links from one of the hosts `from` to one of the hosts `to` at once.
    fn change(&self, from: &[usize], to: &[usize], change: impl Fn(&mut Link)) {
        self.switch.links().change(from, to, change);
    }

    /// Changes all links between the two sides at once.
    fn change_both_ways(&self, one: &[usize], other: &[usize], change: impl Fn(&mut Link)) {
        let mut links = self.switch.links();
        links.change(one, other, &change);
        links.change(other, one, change);
    }

    /// The frames from one host to another one that were dropped so far.
    pub fn dropped(&self, from: usize, to: usize) -> u64 {
        self.switch.links().dropped(from, to)
    }

    /// A command that runs one of the crate's programs on a host.
    pub fn command(&self, host: usize, name: &str) -> Command {
        self.namespaces[host].command(name)
    }

    /// Starts a node on a host, at port 9900. Does not wait until it serves.
    pub fn spawn(&self, host: usize, name: &str, arguments: &[&str]) -> NodeProcess {
        let mut command = self.namespaces[host].command(name);
        command.args(["--port", PORT, "--advertise", &address(host)]);
        command.args(arguments);
        NodeProcess::spawn_command(command, format!("{name} on host {host}"))
    }

    /// Starts a store's node on a host. It joins the store of the node on the host `peer` or,
    /// without one, starts a new store. Does not wait until it serves.
    pub fn spawn_store(&self, host: usize, peer: Option<usize>, options: &[&str]) -> NodeProcess {
        let peer = peer.map(|host| format!("{}:{PORT}", address(host)));
        let join = match &peer {
            Some(peer) => vec!["--host", peer],
            None => vec!["--bootstrap"],
        };
        self.spawn(host, "storeserver", &[&join, options].concat())
    }

    /// Starts a store with one node on each host but the client's, and waits until it is settled.
    pub fn start_stores(&self, options: &[&str]) -> Vec<NodeProcess> {
        let mut first = self.spawn_store(0, None, options);
        first.wait_until_it_serves();
        let join = |host| self.spawn_store(host, Some(0), options);
        let mut nodes = vec![first];
        nodes.extend((1..self.client()).map(join));
        nodes.iter_mut().for_each(NodeProcess::wait_until_it_serves);
        settle(&nodes);
        nodes
    }
}

/// The address of a host.
pub fn address(host: usize) -> String {
    format!("10.99.0.{}", host + 1)
}

/// The name of the switch's port for a host.
fn port(host: usize) -> String {
    format!("port{host}")
}

/// The `ip` commands that connect the switch to each host. The hosts' ends are not up yet.
fn ports(namespaces: &[Namespace]) -> Vec<String> {
    let connect = |(host, namespace): (usize, &Namespace)| {
        let (port, to, hardware) = (port(host), namespace.name(), hardware_address(host));
        [
            format!("link add {port} type veth peer name uplink address {hardware} netns {to}"),
            format!("link set {port} addrgenmode none up"),
        ]
    };
    namespaces.iter().enumerate().flat_map(connect).collect()
}

/// The `ip` commands that connect a host to the switch, and name the other hosts to it.
fn uplink(host: usize, hosts: usize) -> Vec<String> {
    let mut lines = vec![
        "link set uplink addrgenmode none".to_owned(),
        format!("address add {}/24 dev uplink", address(host)),
        "link set uplink up".to_owned(),
    ];
    lines.extend((0..hosts).filter(|other| *other != host).map(|other| {
        let (address, hardware) = (address(other), hardware_address(other));
        format!("neighbour replace {address} lladdr {hardware} nud permanent dev uplink")
    }));
    lines
}
