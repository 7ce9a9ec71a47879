//! Counters of one core's server.

use std::cell::Cell;

/// Counters of one server on one core, since its start. Whoever exports them adds the cores up.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Connections accepted and admitted.
    pub connections_opened: Cell<u64>,
    /// Connections ended, for whatever reason.
    pub connections_closed: Cell<u64>,
    /// Connections open now.
    pub connections_current: Cell<u64>,
    /// Connections turned away by `max.connections`.
    pub refused_total: Cell<u64>,
    /// Connections turned away by `max.connections.per.ip`.
    pub refused_per_ip: Cell<u64>,
    /// Failed accepts (descriptors run out, mostly).
    pub accept_errors: Cell<u64>,
    /// Bytes received.
    pub bytes_in: Cell<u64>,
    /// Bytes sent.
    pub bytes_out: Cell<u64>,
    /// Whole request frames handed to the service.
    pub requests: Cell<u64>,
    /// Requests in flight now.
    pub requests_current: Cell<u64>,
    closed: [Cell<u64>; CloseReason::ALL.len()],
}

impl ServerMetrics {
    /// How many connections were closed for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].get()
    }

    pub(crate) fn count_close(&self, reason: CloseReason) {
        add(&self.connections_closed, 1);
        self.connections_current.set(self.connections_current.get() - 1);
        add(&self.closed[reason as usize], 1);
    }
}

pub(crate) fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// Reading or writing failed.
    Io,
    /// The service asked for it ([`crate::Reply::Close`]).
    Service,
    /// No request for `connections.max.idle.ms`.
    Idle,
    /// A started frame came too slowly.
    Slow,
    /// The peer took no response bytes for too long.
    Stalled,
    /// A size prefix that is negative or too small for a header, or a header that doesn't parse.
    Malformed,
    /// A frame larger than the limit.
    Oversized,
    /// The first bytes were a TLS handshake.
    Tls,
    /// The first bytes were an HTTP request.
    Http,
    /// The server was shut down.
    Drained,
    /// The service panicked while it handled a request.
    Panicked,
}

impl CloseReason {
    /// Every reason, in the order of its number.
    pub const ALL: [CloseReason; 12] = [
        CloseReason::Peer,
        CloseReason::Io,
        CloseReason::Service,
        CloseReason::Idle,
        CloseReason::Slow,
        CloseReason::Stalled,
        CloseReason::Malformed,
        CloseReason::Oversized,
        CloseReason::Tls,
        CloseReason::Http,
        CloseReason::Drained,
        CloseReason::Panicked,
    ];

    /// A label for metrics.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Peer => "peer",
            CloseReason::Io => "io",
            CloseReason::Service => "service",
            CloseReason::Idle => "idle",
            CloseReason::Slow => "slow",
            CloseReason::Stalled => "stalled",
            CloseReason::Malformed => "malformed",
            CloseReason::Oversized => "oversized",
            CloseReason::Tls => "tls",
            CloseReason::Http => "http",
            CloseReason::Drained => "drained",
            CloseReason::Panicked => "panicked",
        }
    }
}
