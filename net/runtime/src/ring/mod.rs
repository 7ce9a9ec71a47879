//! The real backend: one glommio executor and one io_uring of our own per core.
//!
//! glommio schedules tasks; everything that makes a task ready comes through our ring: files,
//! sockets, timers and doorbells from other cores. The [`flusher`] enters the ring once a scheduler pass.

mod cached;
mod device;
mod driver;
mod file;
mod flusher;
mod mailbox;
mod op;
pub(crate) mod path;
mod sendfile;
mod socket;

pub(crate) use cached::{CachedFile, has_cachestat};
pub(crate) use device::Device;
pub(crate) use driver::{Clock, Driver, thread_cpu_time};
pub(crate) use file::File;
pub(crate) use flusher::flush_until_closed;
pub(crate) use mailbox::{Doorbell, Mailbox};
pub(crate) use socket::{BACKLOG, Listener, Stream};
