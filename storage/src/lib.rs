//! Partition logs on direct I/O in Kafka's on-disk format, and the stream that Raft logs stand on.
//!
//! Everything here is owned by one core. A [`Log`] is appended to in memory, flushed in groups by a task that exists
//! only while there is something to flush, and read from memory or disk; [`stream::Stream`] is its simpler sibling
//! for entries that only their writer reads back. Nothing here knows of the network, of replication, or of the clock
//! beyond `heizer_runtime`.
//!
//! | file | subject |
//! |---|---|
//! | `log/` | one partition's log: append, flush, read, look up, retain, truncate, open and recover |
//! | `segment/` | one segment: its files, writing and sealing them, walking them |
//! | `compact/` | log compaction: what stays, and how files are exchanged |
//! | `tail.rs` | append chunks: disk source and tail cache in one |
//! | `index.rs`, `epoch.rs`, `producer.rs` | offset and time index, leader epochs, idempotent producers: no I/O |
//! | `batch.rs`, `rope.rs`, `paths.rs` | batch headers, bytes in pieces, names and small files |
//! | `context.rs`, `dir.rs` | what logs of a core share: budgets; a data directory |
//! | `health.rs`, `space.rs` | whether a data directory works; its free space |
//! | `census.rs` | which logs are in which data directories |
//! | `readers.rs` | who reads a sealed segment, and which of its pages the kernel may drop |
//! | `checkpoint.rs` | where each log stood when it was last noted: what recovery starts from |
//! | `flush.rs` | one flush of the device for the durable writes of many logs |
//! | `rate.rs` | bytes per second that background work keeps to, and that can change meanwhile |
//! | `recycle.rs` | files kept or made ahead for segments to come |
//! | `stream/` | Raft's stream |
//! | `inspect/` | looking at the files of logs without touching them |

mod batch;
mod census;
mod checkpoint;
mod compact;
mod config;
mod context;
mod dir;
mod epoch;
mod error;
#[cfg(test)]
mod exploring;
mod flush;
mod health;
mod index;
pub mod inspect;
mod log;
mod paths;
mod producer;
mod rate;
mod readers;
mod recycle;
mod rope;
mod segment;
mod space;
pub mod stream;
mod tail;
#[cfg(test)]
mod testing;

pub use census::{
    DirListing, LogCopy, Note, NoteKind, Whereabouts, can_be_moved, remove_log, split_log_name, topic_id_of,
    whereabouts,
};
pub use compact::{Cleanable, CompactError, CompactLimits, CompactReport, Pace};
pub use config::{FLUSH_UNSET, Level, LogConfig, UnknownLevel};
pub use context::{StorageContext, StorageLimits};
pub use dir::LogDir;
pub use epoch::EpochEnd;
pub use error::{AppendError, LogFailed, OpenError, ProducerError, ReadError, StorageError};
pub use flush::{FlushCounts, WriteQueue};
pub use health::OnFailure;
pub use log::{
    AppendInfo, AppendOrigin, CopyBudget, Cut, Log, LogSizes, OpenMode, Place, ReadResult, RecoveryReport,
    RelocateError, Relocation, SegmentInfo, TimestampOffset, remove_deleted, remove_logs,
};
pub use paths::{decode_id, encode_id};
pub use rate::Rate;
pub use space::{Reserve, Space, SpaceStatus};
