//! What others reach: Kafka's protocol on every core, and the admin listener on the first.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{LocalBoxFuture, select};
use heizer_runtime::cores::CoreGone;
use heizer_runtime::net::Listener;
use heizer_runtime::time::Instant;
use heizer_runtime::{cores, task, time};
use heizer_server::{BindError, Census, Limits, ListenerConfig, MemoryBudget, Server, ServerMetrics};

use crate::api::Api;
use crate::http::{self, AdminState, Readiness};
use crate::metrics::{Bounds, BrokerRow, CoreFigures, Holdings, ProcessFigures, Questions, Scraper};
use crate::shard::here;

/// How long requests in flight may take to be answered when the broker stops.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FrontError {
    #[error(transparent)]
    Listener(#[from] BindError),
    #[error("address {addr} is in use or cannot be bound ({source}); choose another one with --admin-listen")]
    Admin { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    CoreGone(#[from] CoreGone),
}

/// A core's listener: a room of its own beside the shard's, which its requests are served from.
struct Front {
    server: Server<Api>,
}

/// Binds the listener called `name` on every core; the address that all of them share.
pub async fn listen(name: &str, addr: SocketAddr) -> Result<SocketAddr, FrontError> {
    let census = Census::new(usize::MAX, usize::MAX);
    let counted = census.clone();
    here().on_settings(move |config| {
        counted.set_limits(config.max_connections as usize, config.max_connections_per_ip as usize);
    });
    let bound = bind(name, addr, census.clone())?;
    for core in cores::all().filter(|core| *core != cores::current()) {
        let (name, census) = (name.to_owned(), census.clone());
        cores::call(core, move || async move { bind(&name, bound, census) }).await??;
    }
    Ok(bound)
}

fn bind(name: &str, addr: SocketAddr, census: Arc<Census>) -> Result<SocketAddr, BindError> {
    let shard = here();
    let config = shard.config();
    let frame_bytes_max = config.socket_request_max_bytes as usize;
    // Requests may take half of the core's memory, one of them half of that.
    let memory = usize::try_from(config.memory_per_core_bytes).unwrap_or(usize::MAX);
    let budget = MemoryBudget::new(memory / 2, frame_bytes_max);
    let idle_max = config.connections_max_idle.unwrap_or(Duration::MAX);
    let limits = Limits {
        request_bytes_max: frame_bytes_max,
        idle_max,
        // A consumer may leave an answer unread for as long as it may be silent; the memory it holds is bounded.
        write_stall_max: idle_max,
        ..Limits::default()
    };
    let listener = ListenerConfig { name: name.into(), addr };
    let server = Server::bind(listener, limits, census, budget, Api::new(shard.clone()))?;
    let bound = server.local_addr();
    cores::set_room(Rc::new(Front { server }));
    Ok(bound)
}

/// Takes connections on this core.
pub fn serve() {
    let front = cores::room::<Front>();
    task::spawn(async move { front.server.serve().await });
}

/// Ends this core's listener: what is in flight is answered, within a grace.
pub async fn drain() {
    if let Some(front) = cores::take_room::<Front>() {
        front.server.drain(DRAIN_GRACE).await;
    }
}

/// Serves the admin listener until the sender is dropped, so that probes are answered while the broker stops.
pub fn serve_admin(
    addr: SocketAddr,
    started: Instant,
) -> Result<(task::JoinHandle<()>, oneshot::Sender<()>), FrontError> {
    let bound = Listener::bind(addr);
    let listener = bound.map_err(|source| FrontError::Admin { addr, source })?;
    tracing::info!(addr = %listener.local_addr(), "admin listener");
    let (end, ended) = oneshot::channel::<()>();
    let serving = task::spawn(async move {
        let serving = pin!(http::serve(listener, Rc::new(Admin::new(started))));
        select(serving, ended).await;
    });
    Ok((serving, end))
}

/// What the admin listener shows of this broker.
struct Admin {
    started: Instant,
    scraper: Scraper,
}

impl Admin {
    fn new(started: Instant) -> Admin {
        let bounds = Bounds::new(&here().node().config);
        Admin { started, scraper: Scraper::new(Questions { figures, holdings }, bounds) }
    }
}

impl AdminState for Admin {
    fn readiness(&self) -> Readiness {
        if here().is_ready() { Readiness::Ready } else { Readiness::NotReady("starting or stopping".into()) }
    }

    fn metrics(&self) -> LocalBoxFuture<'_, String> {
        let broker = BrokerRow {
            ready: here().is_ready(),
            uptime: time::now() - self.started,
            process: ProcessFigures::read(),
        };
        Box::pin(self.scraper.scrape(broker))
    }
}

/// What this core can tell at once. Without a listener, while the broker stops, its counts are gone.
fn figures() -> CoreFigures {
    match cores::try_room::<Front>() {
        Some(front) => here().figures(&front.server.metrics(), Some(front.server.budget())),
        None => here().figures(&ServerMetrics::default(), None),
    }
}

/// What this core has to look up.
fn holdings(bounds: Bounds) -> LocalBoxFuture<'static, Holdings> {
    Box::pin(async move { here().holdings(bounds).await })
}
