//! Log compaction: what of a compacted log stays, and how its files are exchanged (contract L9, KIP-534).
//!
//! A round takes a log from its first dirty offset on. Pass 1 reads the dirty batches into an [`OffsetMap`], from each
//! key's hash to its last offset, until the range or the map's memory ends. Pass 2 reads every segment up to there from
//! the first one on, leaves out what the map or a delete horizon says is superseded, and writes what stays to one new
//! segment per group of old ones. `crate::log::Log` has the round itself (`log/compact.rs`); here is what it is made
//! of, without a log.
//!
//! | file | subject |
//! |---|---|
//! | `hash.rs`, `map.rs` | keys' hashes, and the bounded map of them |
//! | `plan.rs` | what may be cleaned, whether it is worth it, which segments become one |
//! | `transactions.rs` | which transactional batches are aborted, committed or undecided |
//! | `filter.rs` | the fate of a batch and of its records |
//! | `output.rs`, `swap.rs` | the new file, and its way into the place of the old ones |
//! | `pace.rs` | share of the core and bytes per second |

mod filter;
mod hash;
mod map;
mod output;
mod pace;
mod plan;
mod swap;
mod transactions;

#[cfg(test)]
mod tests;

pub use pace::Pace;
pub use plan::Cleanable;

pub(crate) use filter::{Fate, Filter};
pub(crate) use map::OffsetMap;
pub(crate) use output::{Cleaned, CleanedWriter};
pub(crate) use plan::{SegmentFacts, cleanable, group};
pub(crate) use swap::{LOG_SWAP, finish_swap, is_cleaned, remove_cleaned, swap};
pub(crate) use transactions::{Marker, Transactions, Verdict};

use crate::error::StorageError;

/// Records of one batch are decompressed into at most this much.
pub(crate) const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// What a round may use.
pub struct CompactLimits {
    /// Bytes of the offset map. A round ends early where it is full, and the next one goes on.
    pub map_bytes: usize,
    /// Keeps to a share of the core and to a rate of bytes.
    pub pace: Pace,
}

/// What a round did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// The log is clean below this offset.
    pub clean_to: i64,
    /// Bytes read in both passes.
    pub bytes_read: u64,
    /// Bytes written to new segments.
    pub bytes_written: u64,
    /// Records left out.
    pub records_removed: u64,
    /// Records without a key among them, which a compacted log cannot keep.
    pub records_keyless: u64,
    /// Segments before and after.
    pub segments: (usize, usize),
}

/// Why a round came to nothing. The log is as it was, unless it says that it has failed.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Somebody else wants the log's files: a truncation, the close, the deletion, retention. Another time, perhaps.
    #[error("interrupted")]
    Interrupted,
    /// A batch cannot be read. Trying again will not help; the rest of the log can be read.
    #[error("{}: at {position}: {reason}", path.display())]
    Damaged {
        /// The segment.
        path: std::path::PathBuf,
        /// Where the batch starts.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl CompactError {
    /// Whether the same round may well succeed later, without anybody doing anything about the log.
    pub fn is_passing(&self) -> bool {
        match self {
            CompactError::Interrupted => true,
            CompactError::Damaged { .. } => false,
            CompactError::Storage(StorageError::Io { source, .. }) => {
                source.kind() == std::io::ErrorKind::StorageFull
            }
            CompactError::Storage(StorageError::Closed { .. }) => true,
            CompactError::Storage(_) => false,
        }
    }
}
