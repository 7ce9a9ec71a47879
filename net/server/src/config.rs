//! Settings of a server.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// The listener's name, such as `PLAINTEXT`; requests carry it.
    pub name: Rc<str>,
    /// The address to bind; port 0 takes a free one.
    pub addr: SocketAddr,
}

/// What one connection may do. Counts over all connections are [`crate::Census`]'s, memory is
/// [`crate::MemoryBudget`]'s.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`: a frame that claims more closes its connection. The memory budget may lower it.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`: a connection without a request for this long is closed.
    pub idle_max: Duration,
    /// A peer that has started a frame may wait this long before [`Limits::frame_rate_min`] is asked of it.
    pub frame_grace: Duration,
    /// Bytes per second that a started frame has to arrive at, on average, after its grace. Time that we spend
    /// waiting for memory doesn't count.
    pub frame_rate_min: u64,
    /// A peer that takes no piece of a response (at most 1 MiB) for this long is closed.
    pub write_stall_max: Duration,
    /// Requests of one connection that may be unanswered; reading stops at this many.
    pub requests_in_flight_max: usize,
    /// Bytes of unanswered requests of one connection; reading stops above it (a single request may exceed it).
    pub bytes_in_flight_max: usize,
    /// How long requests in flight may go on after their peer has closed or misbehaved.
    pub finish_grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_bytes_max: 104_857_600,
            idle_max: Duration::from_millis(600_000),
            frame_grace: Duration::from_secs(10),
            frame_rate_min: 4096,
            write_stall_max: Duration::from_secs(60),
            requests_in_flight_max: 64,
            bytes_in_flight_max: 32 << 20,
            finish_grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// How often the sweeper looks at connections: a quarter of the shortest of its limits, at most a second.
    pub(crate) fn sweep_interval(&self) -> Duration {
        let shortest = self.idle_max.min(self.frame_grace).min(self.write_stall_max);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}
