//! `HttpService`: answers the requests of a connection.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::Cache;
use super::request::{Next, Request, Requests};
use super::{Source, metrics, network};
use crate::error::Error;
use crate::rpc::dispatch::Protocol;
use crate::rpc::server_state::{Closing, Connection, ServerState};
use crate::rpc::stats::CloseReason;
use crate::rpc::stream::Stream;

/// The page. `NONCE` stands for a random text, by which the browser knows the page's own script
/// and style, and runs no others.
const PAGE: &str = include_str!("page.html");

const UNAVAILABLE: &str = "503 Service Unavailable";

/// The longest key that is looked up, in bytes.
const MAX_KEY: usize = 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Headers of every answer: other sites can neither embed nor read it, and it is not kept.
const HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// What the connections of an HTTP port speak.
pub(crate) struct HttpService {
    source: Arc<dyn Source>,
    cache: Cache,
}

/// An answer without its length.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// More header lines.
    headers: String,
    body: Arc<Vec<u8>>,
}

impl Answer {
    fn new(status: &'static str, content_type: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            content_type,
            headers: String::new(),
            body: Arc::new(body.into()),
        }
    }

    /// The answer as bytes.
    fn encode(&self, is_head: bool, keeps_alive: bool) -> Vec<u8> {
        let (status, of, length) = (self.status, self.content_type, self.body.len());
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {of}\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n{HEADERS}{}\r\n",
            self.headers
        );
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

impl Protocol for HttpService {
    fn serve(
        &self,
        state: &ServerState,
        stream: Stream,
        connection: &Connection,
        _peer: SocketAddr,
    ) -> Result<(), Closing> {
        let limits = &state.limits;
        let mut requests = Requests {
            stream: stream.clone(),
            limits,
            buffer: Vec::new(),
        };
        let send = |bytes: Vec<u8>| stream.write_all(&bytes, limits.message_timeout);
        while !state.stopping.is_requested() {
            let request = match requests.next()? {
                Next::Request(request) => request,
                Next::End => break,
                Next::Rejected(status, reason) => {
                    let mut answer = Answer::new(status, TEXT, format!("{reason}\n"));
                    answer.headers = "Allow: GET, HEAD\r\n".into();
                    send(answer.encode(false, false))?;
                    return Err(Closing::new(CloseReason::Malformed, reason));
                }
            };
            let answer = self.answer(&request);
            send(answer.encode(request.is_head, request.keeps_alive))?;
            connection.last_use.record(state.newest());
            if !request.keeps_alive {
                break;
            }
        }
        Ok(())
    }
}

impl HttpService {
    /// A service that shows this source.
    pub(crate) fn new(source: Arc<dyn Source>) -> HttpService {
        HttpService {
            source,
            cache: Cache::default(),
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        const OK: &str = "200 OK";
        let source = &*self.source;
        match request.path.as_str() {
            "/" => page(),
            "/livez" => Answer::new(OK, TEXT, "ok\n"),
            "/readyz" if is_ready(source) => Answer::new(OK, TEXT, "ready\n"),
            "/readyz" => Answer::new(UNAVAILABLE, TEXT, "joining or leaving\n"),
            "/metrics" => match metrics::encode(&self.source) {
                Ok(text) => Answer::new(OK, metrics::CONTENT_TYPE, text),
                Err(_) => Answer::new("500 Internal Server Error", TEXT, "cannot be encoded\n"),
            },
            "/status.json" => self.cached(b"", || source.status()),
            "/key.json" if request.query.len() <= MAX_KEY => {
                // A slash, so that no key is the question for the status.
                let question = [b"/", &request.query[..]].concat();
                self.cached(&question, || source.key(&request.query))
            }
            _ => Answer::new("404 Not Found", TEXT, "there is no such page\n"),
        }
    }

    /// A JSON answer, and what this node knows, computed at most once a second.
    fn cached(&self, question: &[u8], ask: impl FnOnce() -> Result<Value, Error>) -> Answer {
        let answer = self.cache.get(question, || {
            let mut answer = ask().unwrap_or_else(|e| json!({ "error": e.to_string() }));
            answer["here"] = network::here(&*self.source, is_ready(&*self.source));
            answer.to_string().into_bytes()
        });
        match answer {
            Some(body) => Answer {
                body,
                ..Answer::new("200 OK", JSON, "")
            },
            None => Answer::new(UNAVAILABLE, TEXT, "too much is asked at once\n"),
        }
    }
}

/// Has the node joined, and does it serve? Not while it leaves.
fn is_ready(source: &dyn Source) -> bool {
    let node = source.node();
    let is_leaving = node.endpoint().shutdown().is_requested();
    node.has_joined() && source.is_serving() && !is_leaving
}

fn page() -> Answer {
    let nonce = format!("{:016x}", RandomState::new().hash_one(0));
    let mut answer = Answer::new("200 OK", HTML, PAGE.replace("NONCE", &nonce));
    answer.headers = format!(
        "Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}'; \
         style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'\r\n"
    );
    answer
}
