//! What a node shows by HTTP: a page for people, metrics for Prometheus, and its health.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a page that shows the network live |
//! | `/status.json` | what `storestatus --json` (or `locationstatus --json`) prints, and `here`: what only this node knows |
//! | `/key.json?KEY` | where a key lies and who holds which version of it |
//! | `/metrics` | this node's counters, as OpenMetrics text |
//! | `/livez`, `/readyz` | does the process answer; has it joined, and does it serve? |
//!
//! Nothing can be changed here: only GET and HEAD are answered. The port is off by default. It
//! has the same server as Thrift calls, with tighter limits ([`http_limits`](crate::rpc::limits::http_limits)) and the same TLS.
//!
//! The page polls `/status.json`. A status is computed on demand, and not again for a second
//! (`cache`), so the number of open pages does not matter.

mod cache;
pub mod metrics;
mod network;
mod request;
mod server;

use std::fmt;

use serde_json::Value;

use crate::error::Error;
use crate::node::Node;
use metrics::Metrics;

pub(crate) use server::HttpService;

/// What a service shows. A [`Node`] is a source; a service of your own may show more.
///
/// Called on threads of connections, some at the same time. May block for some seconds.
pub trait Source: Send + Sync {
    /// The node of the service.
    fn node(&self) -> &Node;

    /// Does the service serve its clients, if it has joined?
    fn is_serving(&self) -> bool {
        true
    }

    /// The status of the whole network, a JSON object.
    ///
    /// # Errors
    /// The node cannot be called.
    fn status(&self) -> Result<Value, Error> {
        network::status(self.node())
    }

    /// Where a key lies, a JSON object.
    ///
    /// # Errors
    /// The node cannot be called.
    fn key(&self, key: &[u8]) -> Result<Value, Error> {
        Ok(network::key(self.node(), key))
    }

    /// Adds metrics to those that every node has.
    ///
    /// # Errors
    /// Those of the [`Metrics`].
    fn add_metrics(&self, _metrics: &mut Metrics<'_>) -> fmt::Result {
        Ok(())
    }
}

impl Source for Node {
    fn node(&self) -> &Node {
        self
    }
}
