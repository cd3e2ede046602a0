//! Handler traits: what your own service implements, and [`serve()`], which runs it.
//!
//! In the original a service extends a handler class and overrides methods. Here the handlers
//! are traits with default methods, and blanket implementations provide the generated traits. A
//! service whose interface extends `locator.Locator` is:
//!
//! ```no_run
//! use thrifty_p2p::endpoint::{BindOptions, Endpoint};
//! use thrifty_p2p::handler::{BaseHandler, LocatorHandler, serve, service_chain};
//! use thrifty_p2p::node::Node;
//! # use thrifty_p2p::locator::LocatorSyncProcessor as MineSyncProcessor;
//!
//! #[derive(Clone)]
//! struct MyHandler { node: Node }
//!
//! impl BaseHandler for MyHandler {
//!     fn endpoint(&self) -> &Endpoint { self.node.endpoint() }
//!     fn service_types(&self) -> Vec<String> {
//!         service_chain(&["locator.Base", "locator.Locator", "mine.Mine"])
//!     }
//! }
//! impl LocatorHandler for MyHandler {
//!     fn node(&self) -> &Node { &self.node }
//! }
//! // impl MineSyncHandler for MyHandler { … }, the trait generated from your interface
//!
//! let node = Node::bind(&BindOptions::default_ports(40), "mine.Mine")?;
//! serve(MyHandler { node }, MineSyncProcessor::new, &[])?;
//! # Ok::<(), thrifty_p2p::error::Error>(())
//! ```
//!
//! # Threads
//!
//! The server calls the methods of the interface, each call on the thread of its connection.
//! Several threads call them at the same time. They may block, and may call other nodes. No
//! lock of the library is held meanwhile.
//!
//! [`joined`](LocatorHandler::joined), [`ring_changed`](LocatorHandler::ring_changed) and
//! [`cleanup`](LocatorHandler::cleanup) are called by the library itself. Their docs name the
//! thread and whether they may block.
//!
//! # Errors
//!
//! An exception that your interface declares is an ordinary reply. Any other error of a method
//! becomes an application exception, after which the server closes the connection.
//!
//! # Calls to other nodes
//!
//! Make them by [`Node::dialer`]: it uses the node's identity when the network uses TLS.

mod generated;
mod serve;

use std::sync::Arc;

use log::info;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::http::Source;
use crate::location::Location;
use crate::membership::Change;
use crate::node::Node;
use crate::rpc::fast_path::FastPath;

pub use serve::{serve, serve_base};

/// A service type and those that it extends, as [`BaseHandler::service_types`] returns them.
pub fn service_chain(types: &[&str]) -> Vec<String> {
    types.iter().map(ToString::to_string).collect()
}

/// A service that extends `locator.Base`.
pub trait BaseHandler: Send + Sync {
    /// The port of the service, and the request to stop it. Called from any thread; must not
    /// block.
    fn endpoint(&self) -> &Endpoint;

    /// The service's type and those that it extends, base first. Called by the server, for
    /// probing peers, and by [`serve()`]; must not block.
    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base"])
    }

    /// The service's own type: the last of its [`service_types`](BaseHandler::service_types).
    fn service_type(&self) -> String {
        self.service_types().pop().unwrap_or_default()
    }

    /// The oneway methods of your own interface. They are never answered, not even if a client
    /// sends them as ordinary calls. Called once, before the server runs.
    fn oneway_methods(&self) -> Vec<String> {
        Vec::new()
    }

    /// The methods of your own interface that only callers on this machine may call and, under
    /// TLS, callers with a certificate. `die` and `debug` always are. Called once, before the
    /// server runs.
    fn local_methods(&self) -> Vec<String> {
        Vec::new()
    }

    /// Replies to some calls of your own interface without the generated code, for a method
    /// whose speed matters. It must not be oneway or local. Called once, before the server runs.
    fn fast_path(&self) -> Option<Arc<dyn FastPath>> {
        None
    }

    /// Replies that the service runs. Called by the server; must not block, because other nodes
    /// suspect a node that does not reply in time.
    fn ping(&self) {}

    /// Logs the state of the service. Called by the server; may block.
    fn debug(&self) {
        info!("{} at {}", self.service_type(), self.endpoint().location());
    }

    /// Stops the service gracefully, as ctrl-C does. Called by the server. Requests the stop and
    /// returns.
    fn die(&self) {
        self.endpoint().shutdown().request();
    }
}

/// A service that extends `locator.Locator`.
pub trait LocatorHandler: BaseHandler {
    /// The node of the service. Called from any thread; must not block.
    fn node(&self) -> &Node;

    /// A node asks to become a member. Called by the server; returns before the node is one.
    fn join(&self, location: Location) {
        self.node().add(location);
    }

    /// A legacy node reports a new member. The `authorities` know it already. Called by the
    /// server; returns before the node is a member here.
    fn add(&self, location: Location, _authorities: Vec<Location>) {
        self.node().add(location);
    }

    /// A legacy node reports that a member is gone. The `authorities` know it already. Called by
    /// the server; returns before the member has been probed.
    fn remove(&self, location: Location, _authorities: Vec<Location>) {
        self.node().remove(location);
    }

    /// All nodes on the ring, sorted. Called by the server; must not block, because legacy nodes
    /// and clients wait for it.
    fn get_all(&self) -> Vec<Location> {
        self.node().ring().nodes().cloned().collect()
    }

    /// The owner of `key`. None if the ring is empty. Called by the server; must not block.
    fn get_node(&self, key: &[u8]) -> Option<Location> {
        self.node().ring().owner(key).cloned()
    }

    /// The node is about to join the network of `peer`: an error ends [`serve()`] instead.
    ///
    /// Called once at most, on the thread of [`serve()`]. It may block briefly.
    ///
    /// # Errors
    /// The handler does not fit this network.
    fn may_join(&self, _peer: &Location) -> Result<(), Error> {
        Ok(())
    }

    /// What the service shows by HTTP ([`BindOptions::http`](crate::endpoint::BindOptions::http)).
    /// Called once, before the node joins.
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.node().clone())
    }

    /// The node has joined its network, or has started a new one (`bootstrapped`).
    ///
    /// Called once, on the thread of [`serve()`]. It may block briefly: the service is not stopped
    /// before it returns. Calls are served already, and `ring_changed` may have been called.
    fn joined(&self, _bootstrapped: bool) {}

    /// The ring has changed. `changes` are all changes since the last call, in order.
    ///
    /// Called on a thread of the node, one call at a time, without a lock. It may block, and may
    /// call other nodes. Changes that happen meanwhile are in the next call.
    fn ring_changed(&self, _changes: &[Change]) {}

    /// The service is about to stop: hand over what must not be lost.
    ///
    /// Called once, on the thread of [`serve()`], while calls are still served. It may block. By
    /// default it leaves the network. If you override it, call [`Node::leave`] at the moment when
    /// the node is to be off the ring.
    fn cleanup(&self) {
        self.node().leave();
    }
}

/// A node that is a locator and nothing else: the program `location`.
#[derive(Clone)]
pub struct PlainLocator {
    /// The node.
    pub node: Node,
}

impl BaseHandler for PlainLocator {
    fn endpoint(&self) -> &Endpoint {
        self.node.endpoint()
    }

    fn service_types(&self) -> Vec<String> {
        service_chain(&["locator.Base", "locator.Locator"])
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
