//! Handlers: what a service of one's own extends, and `serve`, which runs it.
//!
//! The original is extended by inheritance: take the base handler or the locator
//! handler, override what differs. Here the handlers are traits whose methods have
//! bodies, and a blanket implementation gives each the generated trait of its
//! interface. A service that extends `locator.Locator` is:
//!
//! ```no_run
//! use thrifty_p2p::endpoint::{Endpoint, Place};
//! use thrifty_p2p::handler::{BaseHandler, LocatorHandler, lineage, serve};
//! use thrifty_p2p::node::Node;
//! # use thrifty_p2p::locator::LocatorSyncProcessor as MineSyncProcessor;
//!
//! #[derive(Clone)]
//! struct MyHandler { node: Node }
//!
//! impl BaseHandler for MyHandler {
//!     fn endpoint(&self) -> &Endpoint { self.node.endpoint() }
//!     fn service_types(&self) -> Vec<String> {
//!         lineage(&["locator.Base", "locator.Locator", "mine.Mine"])
//!     }
//! }
//! impl LocatorHandler for MyHandler {
//!     fn node(&self) -> &Node { &self.node }
//! }
//! // impl MineSyncHandler for MyHandler { … }, the trait generated from your interface
//!
//! let node = Node::bind(&Place::first_of(40), "mine.Mine")?;
//! serve(MyHandler { node }, MineSyncProcessor::new, None)?;
//! # Ok::<(), thrifty_p2p::error::Error>(())
//! ```
//!
//! Methods named as in the interface are called by the server, each on the thread
//! of its connection; they may block, and may call other nodes. An exception that
//! your interface declares goes to the caller as such; any other error becomes an
//! application exception, and ends the connection.
//!
//! A handler calls other nodes by [`Node::caller`], which has the node's identity where
//! the network asks for one.

use std::sync::Arc;
use std::thread;

use log::{info, warn};
use thrift::server::TProcessor;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::location::Location;
use crate::locator::{self, BaseSyncHandler, LocatorSyncHandler};
use crate::membership::Change;
use crate::node::Node;
use crate::rpc::server::{Methods, Stopper};
use crate::rpc::shortcut::Shortcut;

/// A line of descent, as [`BaseHandler::service_types`] gives it.
pub fn lineage(types: &[&str]) -> Vec<String> {
    types.iter().map(ToString::to_string).collect()
}

/// The handler of `locator.Base`: override what differs.
pub trait BaseHandler: Send + Sync {
    /// The claimed port, and the switch that ends the service.
    fn endpoint(&self) -> &Endpoint;

    /// The service's line of descent, base first.
    fn service_types(&self) -> Vec<String> {
        lineage(&["locator.Base"])
    }

    /// What this service is: the end of its line of descent.
    fn service_type(&self) -> String {
        self.service_types().pop().unwrap_or_default()
    }

    /// The oneway methods that your own interface adds. Failures of these are kept
    /// off the wire, also when a caller sends them as ordinary calls.
    fn oneway_methods(&self) -> Vec<String> {
        Vec::new()
    }

    /// The methods that your own interface adds for callers on the same machine only,
    /// and for those who have shown a certificate where the service asks for one.
    /// `die` and `debug` always are such methods.
    fn local_methods(&self) -> Vec<String> {
        Vec::new()
    }

    /// What answers some calls of your own interface past the generated code, if anything
    /// does: for a method that is called so often that this matters. It must be neither
    /// oneway nor local, which is not looked at before. Asked once, before serving begins.
    fn shortcut(&self) -> Option<Arc<dyn Shortcut>> {
        None
    }

    /// Answers that the service is there.
    fn ping(&self) {}

    /// Tells the log what there is to know.
    fn debug(&self) {
        info!("{} at {}", self.service_type(), self.endpoint().location());
    }

    /// Ends the service gracefully, as ctrl-C does.
    fn die(&self) {
        self.endpoint().shutdown().request();
    }
}

/// The handler of `locator.Locator`: override what differs.
pub trait LocatorHandler: BaseHandler {
    /// The node that is served.
    fn node(&self) -> &Node;

    /// A node asks to come in.
    fn join(&self, location: Location) {
        self.node().join(location);
    }

    /// Someone says that `location` is in; `authorities` know already.
    fn add(&self, location: Location, _authorities: Vec<Location>) {
        self.node().add(location);
    }

    /// Someone says that `location` is gone; `authorities` know already.
    fn remove(&self, location: Location, _authorities: Vec<Location>) {
        self.node().remove(location);
    }

    /// All nodes of the network, sorted.
    fn get_all(&self) -> Vec<Location> {
        self.node().ring().nodes().cloned().collect()
    }

    /// The node that `key` belongs to; none on an empty ring.
    fn get_node(&self, key: &[u8]) -> Option<Location> {
        self.node().ring().owner(key).cloned()
    }

    /// The node has entered its network; `first` tells that it began a new one.
    ///
    /// Called once, on the thread of [`serve`], before it waits for the end. It
    /// must not block for long.
    fn entered(&self, _first: bool) {}

    /// The ring has changed, by these changes since the last call.
    ///
    /// Called on a thread of the node's own, one call at a time, in order, with
    /// no lock held. It may block and call other nodes; changes that come
    /// meanwhile are gathered for the next call.
    fn ring_changed(&self, _changes: &[Change]) {}

    /// The service is about to end: hand over what must not be lost. Overriding
    /// it, leave the network by `self.node().leave()` when you want to be off the ring.
    ///
    /// Called once, on the thread of [`serve`], while calls are still answered. It may block.
    fn cleanup(&self) {
        self.node().leave();
    }
}

/// A node that is a locator and nothing more, as the program `location` runs it.
#[derive(Clone)]
pub struct PlainLocator {
    /// The node that is served.
    pub node: Node,
}

impl BaseHandler for PlainLocator {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        lineage(&["locator.Base", "locator.Locator"])
    }

    fn debug(&self) {
        self.node.debug();
    }
}

impl LocatorHandler for PlainLocator {
    fn node(&self) -> &Node {
        &self.node
    }
}

/// Serves a handler of `locator.Base` or a service extended from it until it is
/// asked to end: by its switch, or by `die()`.
///
/// `processor` is the constructor of the generated processor: `MySyncProcessor::new`.
/// Blocks; the port was claimed before.
///
/// # Errors
/// [`Error::Bind`] when the endpoint is being served already; [`Error::Local`] when no
/// thread can be started.
pub fn serve_base<H, P>(handler: H, processor: impl FnOnce(H) -> P) -> Result<(), Error>
where
    H: BaseHandler + Clone,
    P: TProcessor + Send + Sync + 'static,
{
    let running = Running::start(&handler, processor)?;
    info!(
        "Starting the server at {}...",
        handler.endpoint().location()
    );
    handler.endpoint().shutdown().wait();
    running.stop();
    info!("done.");
    Ok(())
}

/// Serves a handler of `locator.Locator` or a service extended from it: claims no
/// port (the node has one), joins the network of `peer` or starts a new one, serves
/// until it is asked to end, cleans up and leaves.
///
/// Without a `peer`, one of the same service type is looked for on this host.
/// Calls are answered while the node joins, so that of two nodes that start at the
/// same instant each finds the other. Blocks.
///
/// # Errors
/// The peer given cannot be reached, or serves something else; no thread can be started.
pub fn serve<H, P>(
    handler: H,
    processor: impl FnOnce(H) -> P,
    peer: Option<&Location>,
) -> Result<(), Error>
where
    H: LocatorHandler + Clone + 'static,
    P: TProcessor + Send + Sync + 'static,
{
    let node = handler.node().clone();
    let running = Running::start(&handler, processor)?;
    let watcher = handler.clone();
    let joined = node.enter(&handler.service_type(), peer, move |changes| {
        watcher.ring_changed(changes);
    });
    if let Ok(first) = joined {
        handler.entered(first);
        info!("Starting the server at {}...", node.location());
        node.endpoint().shutdown().wait();
        handler.cleanup();
    }
    node.stop();
    running.stop();
    if joined.is_ok() {
        info!("done.");
    }
    joined.map(|_| ())
}

/// A server that runs on a thread of its own.
struct Running {
    stopper: Stopper,
    thread: thread::JoinHandle<()>,
}

impl Running {
    fn start<H, P>(handler: &H, processor: impl FnOnce(H) -> P) -> Result<Running, Error>
    where
        H: BaseHandler + Clone,
        P: TProcessor + Send + Sync + 'static,
    {
        let server = handler.endpoint().take_server()?;
        let stopper = server.stopper();
        let (processor, methods) = (processor(handler.clone()), methods(handler));
        let shutdown = handler.endpoint().shutdown().clone();
        let serve = move || {
            server.run(processor, methods);
            // Where the server could not begin, there is no use in going on.
            shutdown.request();
        };
        let thread = thread::Builder::new().name("server".into()).spawn(serve);
        let thread = thread.map_err(Error::Local)?;
        Ok(Running { stopper, thread })
    }

    fn stop(self) {
        self.stopper.stop();
        if self.thread.join().is_err() {
            warn!("the server has failed");
        }
    }
}

/// The methods of the project's own interfaces and of the handler's.
fn methods<H: BaseHandler>(handler: &H) -> Methods {
    let mut oneway = lineage(&["debug", "die", "join", "remove", "add"]);
    oneway.extend(handler.oneway_methods());
    let mut local = lineage(&["debug", "die"]);
    local.extend(handler.local_methods());
    Methods {
        oneway,
        local,
        shortcut: handler.shortcut(),
    }
}

impl<H: BaseHandler> BaseSyncHandler for H {
    fn handle_ping(&self) -> thrift::Result<()> {
        self.ping();
        Ok(())
    }

    fn handle_service_type(&self) -> thrift::Result<String> {
        Ok(self.service_type())
    }

    fn handle_service_types(&self) -> thrift::Result<Vec<String>> {
        Ok(self.service_types())
    }

    fn handle_debug(&self) -> thrift::Result<()> {
        self.debug();
        Ok(())
    }

    fn handle_die(&self) -> thrift::Result<()> {
        self.die();
        Ok(())
    }
}

impl<H: LocatorHandler> LocatorSyncHandler for H {
    fn handle_join(&self, location: locator::Location) -> thrift::Result<()> {
        if let Some(location) = believable("join", &location) {
            LocatorHandler::join(self, location);
        }
        Ok(())
    }

    fn handle_remove(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        if let Some(location) = believable("remove", &location) {
            self.remove(location, all_believable(&authorities));
        }
        Ok(())
    }

    fn handle_add(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        if let Some(location) = believable("add", &location) {
            self.add(location, all_believable(&authorities));
        }
        Ok(())
    }

    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        Ok(self.get_all().iter().map(Into::into).collect())
    }

    fn handle_get_node(&self, key: Vec<u8>) -> thrift::Result<locator::Location> {
        let nowhere = || locator::Location::new(String::new(), 0);
        Ok(self
            .get_node(&key)
            .as_ref()
            .map_or_else(nowhere, Into::into))
    }

    fn handle_exchange(&self, gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        self.node().receive(gossip)
    }

    fn handle_reach(&self, location: locator::Location) -> thrift::Result<bool> {
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(self.node().reaches(&location))
    }

    fn handle_members(&self) -> thrift::Result<locator::Gossip> {
        Ok(self.node().told())
    }
}

/// The location that a oneway call names; one that names no place is refused with
/// a line in the log, since nobody waits for an answer.
fn believable(method: &str, location: &locator::Location) -> Option<Location> {
    Location::try_from(location)
        .inspect_err(|e| warn!("refused a {method}: {e}"))
        .ok()
}

fn all_believable(locations: &[locator::Location]) -> Vec<Location> {
    locations
        .iter()
        .filter_map(|location| location.try_into().ok())
        .collect()
}
