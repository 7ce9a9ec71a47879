//! Coordinators: state machines over a partition of an internal topic, without any I/O.
//!
//! # How durable state and soft state differ
//!
//! A coordinator has two kinds of state.
//!
//! *Durable* state is what the log says: committed offsets and, for every group, the newest group record. It
//! changes in one place, by a record that is in the log: at load through `replay`, later when the shell reports a
//! write as done, at which point the very records that were appended are decoded and applied. Between the append
//! and the high watermark nothing durable has changed. So a failed append needs no undoing, readers never see an
//! offset that could still be lost, and the state equals a replay of the log at every moment.
//!
//! *Soft* state is what lives on top: who is joining, who waits, the timers, a generation in the making. It changes
//! directly and is lost when the coordinator moves. Clients then learn by their generation and member id that they
//! have to join again, as Kafka's clients are used to.
//!
//! # What the shell does
//!
//! Every entry point takes an input and the time and returns a [`CoordinatorResult`]. The shell
//! 1. sends its `answers`;
//! 2. appends each of its `writes` as one batch, in order;
//! 3. calls `on_write_done(id, Ok)` when the high watermark has passed a write, or with the error if the append
//!    failed, and treats the result like any other. The answers that waited for the write come out of this call:
//!    nothing is answered before it is durable (contract G3);
//! 4. calls `on_timer` when `next_deadline` is reached.
//!
//! Until `on_loaded`, and after `on_unloaded`, requests do not reach the coordinator: the shell answers
//! COORDINATOR_LOAD_IN_PROGRESS or NOT_COORDINATOR.
//!
//! If writes are open when one fails, the later ones were decided in the belief that it would succeed. What that
//! can do is bounded: offsets of different writes don't depend on each other, and a group's record is the whole of
//! the group, replaced by the next generation's.

pub mod group;
mod placement;
mod records;
mod result;
mod timers;

pub use self::placement::partition_for;
pub use self::records::RecordError;
pub use self::result::{Answer, AnswerId, Client, CoordinatorResult, Millis, Record, Write, WriteId};
