//! Listeners and connections: frames in, responses out in request order, memory bounded.
//!
//! One [`Server`] runs on each core and owns its listener, its connections and their memory; nothing here is
//! shared between cores but the [`Census`], which counts connections over the whole process.
//!
//! The rooms:
//! - `service`: what a server asks of the program behind it: [`Service`], [`Request`], [`Reply`].
//! - `config`: [`ListenerConfig`] and [`Limits`], under Kafka's names where Kafka has the setting.
//! - `budget`: [`MemoryBudget`], from which every request's bytes are reserved before they are read.
//! - `frame`: the framing as a state machine without I/O: bytes in, whole frames or the reason to close out.
//! - `pipeline`: requests in flight on one connection; whatever finishes first, answers leave in order.
//! - `connection`: the shell that carries bytes between a socket, `frame` and `pipeline`.
//! - `watch`: what the sweeper looks at to close idle, slow and stalled peers, with no timer per connection.
//! - `listener`: [`Server`]: accept, count, refuse, drain.
//! - `metrics`: [`ServerMetrics`], plain counters of one core.

mod budget;
mod census;
mod config;
mod connection;
mod frame;
mod listener;
mod metrics;
mod pipeline;
mod service;
mod watch;

#[cfg(test)]
mod tests;

pub use budget::{MemoryBudget, Reservation};
pub use census::{Admission, Census, Refused};
pub use config::{Limits, ListenerConfig};
pub use listener::{BindError, Server};
pub use metrics::{CloseReason, ServerMetrics};
pub use service::{ConnectionInfo, Lease, Reply, Request, Service};
