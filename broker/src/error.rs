//! Why a partition did not do what it was asked. The api layer turns these into Kafka's error codes, and nobody else.

use heizer_runtime::cores::CoreGone;
use heizer_storage::{AppendError, LogFailed, ReadError, StorageError};

/// A request to a partition, refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// No topic of that name here.
    #[error("unknown topic or partition")]
    Unknown,
    /// No topic with that id here.
    #[error("unknown topic id")]
    UnknownTopicId,
    /// The topic exists and its partition is about to be opened, or another broker leads it.
    #[error("not the leader of the partition")]
    NotLeader,
    /// Its log, or the directory that it is in, cannot be used.
    #[error("the partition is offline: {reason}")]
    Offline {
        /// Why.
        reason: std::sync::Arc<str>,
    },
    /// The client knows an older leader epoch (KIP-320).
    #[error("the leader epoch is older than {current}")]
    FencedEpoch {
        /// The partition's leader epoch.
        current: i32,
    },
    /// The client knows a leader epoch that has not come here yet (KIP-320).
    #[error("the leader epoch is newer than {current}")]
    UnknownEpoch {
        /// The partition's leader epoch.
        current: i32,
    },
    /// The offset wanted lies outside the log.
    #[error("offset {offset} lies outside {log_start}..={log_end}")]
    OffsetOutOfRange {
        /// The offset wanted.
        offset: i64,
        /// The log's first offset.
        log_start: i64,
        /// Where reading ends.
        log_end: i64,
    },
    /// `cleanup.policy` does not contain `delete`.
    #[error("the topic's cleanup.policy does not let records be deleted")]
    KeptByPolicy,
    /// Nothing was appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be written any more.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// The disk refused or a file is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was appended is not yet as safe as asked for.
    #[error("the append was not confirmed in time")]
    TimedOut,
    /// The partition's core did not answer.
    #[error(transparent)]
    CoreGone(#[from] CoreGone),
}

impl From<ReadError> for PartitionError {
    fn from(error: ReadError) -> PartitionError {
        match error {
            ReadError::OffsetOutOfRange { offset, log_start, log_end } => {
                PartitionError::OffsetOutOfRange { offset, log_start, log_end }
            }
            ReadError::Storage(error) => PartitionError::Storage(error),
        }
    }
}
