//! [`serve()`] and [`serve_base()`]: run a service until it is asked to stop.

use std::thread;

use log::{info, warn};
use thrift::server::TProcessor;

use super::{BaseHandler, LocatorHandler, service_chain};
use crate::error::Error;
use crate::http::HttpService;
use crate::location::Location;
use crate::membership::Change;
use crate::rpc::dispatch::Methods;
use crate::rpc::server::ServerHandle;

/// Serves a handler of an interface that extends `locator.Base`, until its
/// [`Shutdown`](crate::shutdown::Shutdown) is requested, for example by `die()`.
///
/// `processor` is the constructor of the generated processor: `MySyncProcessor::new`. Blocks.
///
/// # Errors
/// [`Error::Bind`] if the endpoint is served already; [`Error::Io`] if no thread can be started;
/// [`Error::Usage`] if it is to be shown by HTTP, which shows nodes of a network.
pub fn serve_base<H, P>(handler: H, processor: impl FnOnce(H) -> P) -> Result<(), Error>
where
    H: BaseHandler + Clone,
    P: TProcessor + Send + Sync + 'static,
{
    let endpoint = handler.endpoint();
    if endpoint.take_http_server().is_some() {
        let reason = "a service without a network has nothing to show by HTTP";
        return Err(Error::Usage(reason.into()));
    }
    while_serving(&handler, processor, || {
        info!("Starting the server at {}...", endpoint.location());
        endpoint.shutdown().wait();
    })?;
    info!("done.");
    Ok(())
}

/// Serves a handler of an interface that extends `locator.Locator`: joins the network of the first
/// of `peers` that replies, serves until the [`Shutdown`](crate::shutdown::Shutdown) is requested,
/// and leaves.
///
/// Without peers, joins a peer with the same service type on this host, or starts a new network;
/// if the only one is the node itself, starts a new network. Calls are served while the node joins, so two nodes that start at the same moment
/// find each other. Blocks.
///
/// # Errors
/// No given peer can be reached, or one belongs to another network; no thread can be started;
/// [`Error::Bind`] if the endpoint is served already.
pub fn serve<H, P>(
    handler: H,
    processor: impl FnOnce(H) -> P,
    peers: &[Location],
) -> Result<(), Error>
where
    H: LocatorHandler + Clone + 'static,
    P: TProcessor + Send + Sync + 'static,
{
    let node = handler.node();
    let watcher = handler.clone();
    let http = start_http(&handler)?;
    let served = while_serving(&handler, processor, || {
        let may_join = |peer: &Location| handler.may_join(peer);
        let on_change = move |changes: &[Change]| watcher.ring_changed(changes);
        let joined = node.join_network(&handler.service_type(), peers, may_join, on_change);
        if let Ok(bootstrapped) = joined {
            handler.joined(bootstrapped);
            info!("Starting the server at {}...", node.location());
            node.endpoint().shutdown().wait();
            handler.cleanup();
        }
        node.stop();
        joined
    });
    http.iter().for_each(ServerHandle::stop);
    served??;
    info!("done.");
    Ok(())
}

/// Runs the HTTP server of a handler on a thread of its own, if there is to be one.
fn start_http<H: LocatorHandler>(handler: &H) -> Result<Option<ServerHandle>, Error> {
    let Some(server) = handler.endpoint().take_http_server() else {
        return Ok(None);
    };
    let (service, handle) = (HttpService::new(handler.source()), server.handle());
    let thread = thread::Builder::new().name("http".into());
    let started = thread.spawn(move || server.run_protocol(service));
    started.map(|_| Some(handle)).map_err(Error::Io)
}

/// Runs the server of a handler on a thread of its own while `body` runs.
fn while_serving<H, P, T>(
    handler: &H,
    processor: impl FnOnce(H) -> P,
    body: impl FnOnce() -> T,
) -> Result<T, Error>
where
    H: BaseHandler + Clone,
    P: TProcessor + Send + Sync + 'static,
{
    let server = handler.endpoint().take_server()?;
    let handle = server.handle();
    let (processor, methods) = (processor(handler.clone()), methods(handler));
    let shutdown = handler.endpoint().shutdown().clone();
    let run = move || {
        server.run(processor, methods);
        // The server may also end because it could not start a thread.
        shutdown.request();
    };
    let thread = thread::Builder::new().name("server".into()).spawn(run);
    let thread = thread.map_err(Error::Io)?;
    let result = body();
    handle.stop();
    if thread.join().is_err() {
        warn!("the server has panicked");
    }
    Ok(result)
}

/// The oneway and local methods of the library's interfaces and of the handler's.
fn methods<H: BaseHandler>(handler: &H) -> Methods {
    let mut oneway = service_chain(&["debug", "die", "join", "remove", "add"]);
    oneway.extend(handler.oneway_methods());
    let mut local = service_chain(&["debug", "die"]);
    local.extend(handler.local_methods());
    Methods {
        oneway,
        local,
        fast_path: handler.fast_path(),
    }
}
