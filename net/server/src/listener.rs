//! Accepting, refusing and draining: one server on one core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use heizer_runtime::net::{Listener, Stream};
use heizer_runtime::sync::Event;
use heizer_runtime::task::spawn;
use heizer_runtime::time::{now, sleep, timeout};

use crate::budget::MemoryBudget;
use crate::census::{Admission, Census, Refused};
use crate::config::{Limits, ListenerConfig};
use crate::connection::{self, Connection};
use crate::metrics::{CloseReason, ServerMetrics, add};
use crate::service::{ConnectionInfo, Service};
use crate::watch::{Order, Watch};

/// After a failed accept (descriptors run out, mostly) the next try waits this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ({listener}): {source}")]
pub struct BindError {
    /// The listener's name.
    pub listener: String,
    /// The address asked for.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// A listener, its connections and their memory, on one core. Clones are handles on the same server.
///
/// It is bound, serves until [`Server::drain`] is called, and is gone when that returns.
pub struct Server<S> {
    core: Rc<Core>,
    service: Rc<S>,
}

struct Core {
    name: Rc<str>,
    local: SocketAddr,
    listener: RefCell<Option<Rc<Listener>>>,
    limits: Rc<Limits>,
    census: Arc<Census>,
    budget: MemoryBudget,
    metrics: Rc<ServerMetrics>,
    connections: RefCell<BTreeMap<u64, Rc<Watch>>>,
    next_id: Cell<u64>,
    draining: Cell<bool>,
    /// Announces the start of the drain and every connection's end.
    changed: Event,
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Server { core: Rc::clone(&self.core), service: Rc::clone(&self.service) }
    }
}

impl<S: Service> Server<S> {
    /// Binds the listener on this core. `budget` and `limits` are this core's, `census` counts for the process.
    pub fn bind(
        listener: ListenerConfig,
        limits: Limits,
        census: Arc<Census>,
        budget: MemoryBudget,
        service: Rc<S>,
    ) -> Result<Server<S>, BindError> {
        let ListenerConfig { name, addr } = listener;
        let listener =
            Listener::bind(addr).map_err(|source| BindError { listener: name.to_string(), addr, source })?;
        let core = Core {
            name,
            local: listener.local_addr(),
            listener: RefCell::new(Some(Rc::new(listener))),
            limits: Rc::new(limits),
            census,
            budget,
            metrics: Rc::new(ServerMetrics::default()),
            connections: RefCell::default(),
            next_id: Cell::new(1),
            draining: Cell::new(false),
            changed: Event::default(),
        };
        Ok(Server { core: Rc::new(core), service })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.core.local
    }

    /// This server's counters.
    pub fn metrics(&self) -> Rc<ServerMetrics> {
        Rc::clone(&self.core.metrics)
    }

    /// The memory that its requests hold.
    pub fn budget(&self) -> &MemoryBudget {
        &self.core.budget
    }

    /// Accepts and serves connections until [`Server::drain`] begins.
    pub async fn serve(&self) {
        let Some(listener) = self.core.listener.borrow().as_ref().map(Rc::clone) else { return };
        let _sweeper = spawn(sweep(Rc::downgrade(&self.core), self.core.limits.sweep_interval()));
        loop {
            let changed = self.core.changed.listen();
            if self.core.draining.get() {
                return;
            }
            let accept = std::pin::pin!(listener.accept());
            match select(accept, changed).await {
                Either::Left((Ok((stream, peer)), _)) => self.open(stream, peer),
                Either::Left((Err(error), _)) => {
                    add(&self.core.metrics.accept_errors, 1);
                    tracing::warn!(listener = %self.core.name, %error, "accepting a connection failed");
                    sleep(ACCEPT_RETRY).await;
                }
                Either::Right(((), _)) => {}
            }
        }
    }

    /// Stops accepting and reading, lets requests in flight be answered within `grace`, closes everything.
    pub async fn drain(&self, grace: Duration) {
        let core = &self.core;
        core.draining.set(true);
        drop(core.listener.borrow_mut().take());
        core.changed.notify_all();
        core.order_all(Order::Finish);
        if timeout(grace, core.emptied()).await.is_err() {
            let left = core.connections.borrow().len();
            tracing::info!(listener = %core.name, connections = left, "drain: grace is over, dropping what is left");
            core.order_all(Order::Drop);
            core.emptied().await;
        }
    }

    fn open(&self, stream: Stream, peer: SocketAddr) {
        let core = &self.core;
        let admission = match core.census.admit(peer.ip()) {
            Ok(admission) => admission,
            Err(refused) => {
                let (counter, limit) = match refused {
                    Refused::Total => (&core.metrics.refused_total, "max.connections"),
                    Refused::PerIp => (&core.metrics.refused_per_ip, "max.connections.per.ip"),
                };
                add(counter, 1);
                tracing::debug!(%peer, limit, "connection refused");
                stream.shutdown();
                return;
            }
        };
        let id = core.next_id.replace(core.next_id.get() + 1);
        let watch = Rc::new(Watch::new(now()));
        core.connections.borrow_mut().insert(id, Rc::clone(&watch));
        let place = Place {
            core: Rc::clone(core),
            id,
            watch: Rc::clone(&watch),
            reason: CloseReason::Panicked,
            _admission: admission,
        };
        add(&core.metrics.connections_opened, 1);
        add(&core.metrics.connections_current, 1);
        let info = ConnectionInfo { id, peer, local: core.local, listener: Rc::clone(&core.name) };
        let connection = Connection {
            stream,
            info: Rc::new(info),
            watch,
            limits: Rc::clone(&core.limits),
            budget: core.budget.clone(),
            metrics: Rc::clone(&core.metrics),
        };
        drop(spawn(occupy(place, connection, Rc::clone(&self.service))));
    }
}

async fn occupy<S: Service>(mut place: Place, connection: Connection, service: Rc<S>) {
    let reason = connection::run(&connection, &service).await;
    tracing::debug!(peer = %connection.info.peer, reason = reason.name(), "connection closed");
    place.reason = reason;
}

/// A connection's entry in its server; given back when its task ends, however it ends.
struct Place {
    core: Rc<Core>,
    id: u64,
    watch: Rc<Watch>,
    reason: CloseReason,
    _admission: Admission,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.connections.borrow_mut().remove(&self.id);
        let metrics = &self.core.metrics;
        metrics.requests_current.set(metrics.requests_current.get() - self.watch.in_flight.get() as u64);
        metrics.count_close(self.reason);
        self.core.changed.notify_all();
    }
}

impl Core {
    fn order_all(&self, order: Order) {
        let watches: Vec<_> = self.connections.borrow().values().map(Rc::clone).collect();
        for watch in watches {
            watch.give(order, CloseReason::Drained);
        }
    }

    async fn emptied(&self) {
        loop {
            let changed = self.changed.listen();
            if self.connections.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

/// Closes idle, slow and stalled connections until the server is gone: one timer a core, none a connection.
async fn sweep(core: Weak<Core>, interval: Duration) {
    loop {
        sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        if core.draining.get() && core.connections.borrow().is_empty() {
            return;
        }
        let now = now();
        let judged: Vec<_> = core
            .connections
            .borrow()
            .iter()
            .filter_map(|(&id, watch)| Some((id, Rc::clone(watch), watch.judge(&core.limits, now)?)))
            .collect();
        for (id, watch, (order, reason)) in judged {
            tracing::debug!(listener = %core.name, connection = id, reason = reason.name(), "closing");
            watch.give(order, reason);
        }
    }
}
