//! What can go wrong, one type per operation.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk operation failed, or a file was not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// While doing what.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file's content cannot be right.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log had failed before.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// The disk is full, and part of the log is in memory alone.
    #[error("{}: no space is left for what is not written yet", path.display())]
    Full {
        /// Its directory.
        path: PathBuf,
    },
    /// The log was closed or deleted.
    #[error("{}: the log is closed", path.display())]
    Closed {
        /// Its directory.
        path: PathBuf,
    },
}

/// The actions of syncs, which are never tried again: see [`StorageError::is_no_space`].
const SYNCS: [&str; 2] = ["sync", "flush the device of"];

impl StorageError {
    /// Whether the disk has no space for it (ENOSPC), or a quota has been used up (EDQUOT), so that it can be tried
    /// again later. Never so for a sync: whatever has made that fail, the kernel may have dropped the data.
    pub fn is_no_space(&self) -> bool {
        match self {
            StorageError::Io { action, source, .. } => {
                !SYNCS.contains(action)
                    && matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            StorageError::Full { .. } => true,
            StorageError::Corrupt { .. } | StorageError::Failed(_) | StorageError::Closed { .. } => false,
        }
    }
}

/// Why a log or stream could not be opened.
pub type OpenError = StorageError;

/// Adds path and action to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, StorageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { path: path.to_owned(), action, source })
    }
}

/// A write or sync of this log failed (a full disk is no failure: its writes wait). That is final: what the disk holds beyond the last confirmed flush is
/// unknown, so nothing is appended any more; reading what is durable goes on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log has failed: {reason}")]
pub struct LogFailed {
    /// The first error.
    pub reason: Arc<str>,
}

impl LogFailed {
    pub(crate) fn new(error: &StorageError) -> Self {
        Self { reason: error.to_string().into() }
    }
}

/// Why an append changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not a sequence of whole v2 batches.
    #[error("not a sequence of record batches: {0}")]
    Invalid(String),
    /// A replica's batch starts below the log end.
    #[error("batch at offset {got} below the log end {log_end}")]
    OffsetNotMonotonic {
        /// Where the log ends.
        log_end: i64,
        /// What came.
        got: i64,
    },
    /// The leader epoch is below the last one in the log.
    #[error("leader epoch {got} below the log's {current}")]
    EpochFell {
        /// The log's latest epoch.
        current: i32,
        /// What came.
        got: i32,
    },
    /// The producer's id, epoch or sequence do not fit (contract T1).
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// More bytes than a segment holds.
    #[error("{bytes} bytes in one append, a segment holds {max}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// `segment.bytes`.
        max: usize,
    },
    /// The data directory has less space left than is kept in reserve.
    #[error("the disk is full: appends are refused until there is space again")]
    NoSpace,
    /// The log has failed.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// The log is closed, deleted or being truncated.
    #[error("the log is closed")]
    Closed,
}

/// A producer's batch does not continue what the log knows of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id}: sequence {got} after {last}")]
    OutOfOrderSequence {
        /// Whose.
        producer_id: i64,
        /// The last sequence known, -1 when there is none.
        last: i32,
        /// What came.
        got: i32,
    },
    /// INVALID_PRODUCER_EPOCH.
    #[error("producer {producer_id}: epoch {got} below {current}")]
    InvalidEpoch {
        /// Whose.
        producer_id: i64,
        /// The epoch known.
        current: i16,
        /// What came.
        got: i16,
    },
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// OFFSET_OUT_OF_RANGE (contract F1).
    #[error("offset {offset} outside {log_start}..={log_end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: i64,
        /// The first offset there is.
        log_start: i64,
        /// The next offset to be written.
        log_end: i64,
    },
    /// The disk failed, or a file is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
