//! Looking at the files of logs without touching them: dump, verify, and what recovery would do.
//!
//! Files are opened for reading only, nothing is locked, and everything is read from front to back in windows, so it
//! works beside a running broker, on Apache Kafka's own data directories, and with little memory whatever a file
//! says. What lies at the end of a log that is being written may be in motion.
//!
//! | file | subject |
//! |---|---|
//! | `source.rs` | a file read in windows |
//! | `batches.rs`, `legacy.rs` | record batches of any format out of a `.log` file |
//! | `tables.rs` | index files and Kafka's index of aborted transactions: entries of fixed size |
//! | `frames.rs` | entries of a stream |
//! | `layout.rs` | what a path is: a data directory, a partition's directory, a file |
//! | `verify/` | everything that can be checked |
//! | `recover.rs`, `noted.rs` | what opening a log after an unclean stop would do, and where it would start |

mod batches;
mod frames;
mod layout;
mod legacy;
mod noted;
mod recover;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod verify;

pub use batches::{BatchReader, Next, RECORDS_BYTES_MAX, StoredBatch};
pub use frames::{FrameReader, NextFrame};
pub use layout::{DataDir, FileKind, PartitionDir, Target};
pub use legacy::{LegacyMessage, LegacyRecord};
pub use noted::NotedLogs;
pub use recover::{Damaged, DryRun, PlannedCut, ScanStart, recover_dry_run};
pub use tables::{
    AbortedEntry, AbortedReader, Entry, OffsetEntry, OffsetReader, TableReader, TimeEntry, TimeReader,
    read_small_file, read_snapshot,
};
pub use verify::{Finding, Severity, Summary, Verifier};

pub use crate::producer::ProducerEntry;

use std::path::Path;

/// Told of every file as its bytes are gone through: the file, and how many bytes more.
pub type Progress<'a> = &'a dyn Fn(&Path, u64);
