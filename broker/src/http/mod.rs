//! The admin listener: health, readiness and metrics over HTTP/1.1, for probes and Prometheus.
//!
//! `request.rs` turns bytes into a request, `respond.rs` a request into bytes, both without I/O; this file is the
//! shell around them. It serves GET and HEAD to a few connections at a time and takes nothing else.

mod request;
mod respond;

use std::borrow::Cow;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::FuturesUnordered;
use heizer_runtime::net::{Listener, Stream};
use heizer_runtime::time;

use request::{BadRequest, Parsed, Request};
use respond::{Body, Response, Status};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection that asks nothing for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A request that has begun is whole within this time.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// An answer is taken within this time.
const RESPONSE_MAX: Duration = Duration::from_secs(30);
/// After a failed accept, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the broker can serve clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It doesn't yet, or no more, and why.
    NotReady(Cow<'static, str>),
}

/// What the admin listener shows.
pub trait AdminState {
    /// Whether the broker can serve clients, now.
    fn readiness(&self) -> Readiness;

    /// The text of all metrics ([`crate::metrics::render`]).
    fn metrics(&self) -> LocalBoxFuture<'_, String>;
}

/// Serves `listener` until it is dropped, and all its connections with it. It runs on one core.
pub async fn serve(listener: Listener, state: Rc<dyn AdminState>) {
    let mut connections = FuturesUnordered::new();
    // It lives on while connections end: an accept that is dropped may take a connection with it.
    let mut accepting = pin!(listener.accept());
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.next().await;
            continue;
        }
        let accepted = match connections.is_empty() {
            true => accepting.as_mut().await,
            false => match select(accepting.as_mut(), connections.next()).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => continue,
            },
        };
        accepting.set(listener.accept());
        match accepted {
            Ok((stream, _)) => connections.push(serve_connection(stream, state.clone())),
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request after the other, until the peer is done, wants no more, or misbehaves.
async fn serve_connection(stream: Stream, state: Rc<dyn AdminState>) {
    let mut buf = BytesMut::new();
    loop {
        let (response, keep) = match read_request(&stream, &mut buf).await {
            Ok(Some(request)) => {
                let response = answer(&request, &*state).await;
                (response.for_method(request.method), request.keep_alive)
            }
            Ok(None) => break,
            Err(bad) => (Response::refusal(bad), false),
        };
        let sent = time::timeout(RESPONSE_MAX, stream.write_all(response.into_parts(keep))).await;
        if !matches!(sent, Ok(Ok(()))) || !keep {
            break;
        }
    }
    stream.shutdown();
}

/// The next request of a connection; none when the peer is done or silent.
async fn read_request(stream: &Stream, buf: &mut BytesMut) -> Result<Option<Request>, BadRequest> {
    let mut deadline = time::now() + if buf.is_empty() { IDLE_MAX } else { REQUEST_MAX };
    loop {
        if let Parsed::Whole(request, consumed) = request::parse(buf)? {
            let _ = buf.split_to(consumed);
            return Ok(Some(request));
        }
        let was_empty = buf.is_empty();
        let wait = deadline.saturating_duration_since(time::now());
        match time::timeout(wait, read_some(stream, buf)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => return Ok(None),
            Err(_) if was_empty => return Ok(None),
            Err(_) => return Err(BadRequest::Slow),
        }
        if was_empty {
            deadline = time::now() + REQUEST_MAX;
        }
    }
}

async fn read_some(stream: &Stream, buf: &mut BytesMut) -> io::Result<usize> {
    let mut taken = std::mem::take(buf);
    taken.reserve(request::HEAD_BYTES_MAX + 1 - taken.len());
    let (read, taken) = stream.read(taken).await;
    *buf = taken;
    read
}

async fn answer(request: &Request, state: &dyn AdminState) -> Response {
    match request.path.as_str() {
        "/healthz" => Response::new(Status::Ok, Body::Text("ok\n".to_owned())),
        "/readyz" => match state.readiness() {
            Readiness::Ready => Response::new(Status::Ok, Body::Text("ready\n".to_owned())),
            Readiness::NotReady(reason) => {
                Response::new(Status::Unavailable, Body::Text(format!("not ready: {reason}\n")))
            }
        },
        "/metrics" => Response::new(Status::Ok, Body::Metrics(state.metrics().await)),
        _ => {
            let help = "not found; there are /healthz, /readyz and /metrics\n".to_owned();
            Response::new(Status::NotFound, Body::Text(help))
        }
    }
}

#[cfg(test)]
mod tests;
