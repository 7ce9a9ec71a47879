//! Record batch v2 ("magic 2"): header, checks of produced batches, records, compression, building.
//!
//! ```text
//!  0 base offset        i64 ┐ may be patched in place,       27 base timestamp  i64
//!  8 batch length       i32 │ the CRC does not cover them    35 max timestamp   i64
//! 12 leader epoch       i32 ┘ (contract L1)                  43 producer id     i64
//! 16 magic              i8                                   51 producer epoch  i16
//! 17 CRC32C of the rest u32                                  53 base sequence   i32
//! 21 attributes         i16                                  57 record count    i32
//! 23 last offset delta  i32                                  61 records
//! ```
//!
//! A batch is stored and sent as it came (contract L2): [`BatchView`] is a header parsed and a slice kept.

mod builder;
mod compression;
mod header;
mod produce;
mod record;
mod rewrite;
mod varint;
mod view;

pub use builder::{BatchOptions, RecordBatchBuilder};
pub use compression::{Compression, CompressionError};
pub use header::{
    BatchHeader, HEADER_BYTES, LENGTH_END, TimestampType, rewrite_log_append_time, rewrite_timestamps,
    set_base_offset, set_partition_leader_epoch,
};
pub use produce::{ProduceError, ProduceInfo, ProduceRules, WalkedRecords, validate_produce};
pub use record::{Record, RecordError, RecordHeader, RecordIter};
pub use rewrite::{RawRecord, RawRecords, UnpackedBatch, empty_batch};
pub use view::{BatchError, BatchIter, BatchView, batches};
