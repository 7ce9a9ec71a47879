use bytes::Bytes;

use super::record::walk_record;
use super::varint::Cursor;
use super::{BatchError, BatchView, Compression, HEADER_BYTES, RecordError, TimestampType};

/// What a produced batch must keep to, besides its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// Most bytes of the whole batch (`max.message.bytes`).
    pub batch_bytes_max: usize,
    /// Whether zstd may be used: from Produce version 7 on.
    pub zstd_allowed: bool,
}

/// Why a produced batch is refused. Each says Kafka's error code; the broker's api layer maps them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// No batch at all (INVALID_RECORD).
    #[error("no record batch")]
    Empty,
    /// More than one batch, which no version from 3 on allows (INVALID_RECORD).
    #[error("more than one record batch")]
    SeveralBatches,
    /// Cut, or of an impossible length (CORRUPT_MESSAGE), or a wrong CRC (CORRUPT_MESSAGE), or another magic
    /// than 2 (INVALID_RECORD, which is what Kafka 4 answers at Produce 3 and up).
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Larger than the topic allows (MESSAGE_TOO_LARGE).
    #[error("batch of {size} bytes, {max} allowed")]
    TooLarge {
        /// Bytes of the batch.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// zstd before Produce version 7 (UNSUPPORTED_COMPRESSION_TYPE).
    #[error("zstd needs Produce version 7")]
    ZstdNotAllowed,
    /// A compression id that means nothing (UNSUPPORTED_COMPRESSION_TYPE).
    #[error("unknown compression {0}")]
    UnknownCompression(i8),
    /// A base offset other than 0 (INVALID_RECORD).
    #[error("base offset is {0}, not 0")]
    BaseOffset(i64),
    /// No record, or a count that disagrees with the offsets (INVALID_RECORD).
    #[error("{count} records, last offset delta {last_offset_delta}")]
    Count {
        /// The header's record count.
        count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// A control batch from a client (INVALID_RECORD).
    #[error("control batch")]
    Control,
    /// A producer id with a negative sequence, a negative epoch (INVALID_RECORD).
    #[error("producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    Sequence {
        /// The header's producer id.
        producer_id: i64,
        /// The header's producer epoch.
        producer_epoch: i16,
        /// The header's base sequence.
        base_sequence: i32,
    },
    /// Records that cannot be walked (INVALID_RECORD).
    #[error(transparent)]
    Records(#[from] RecordError),
    /// A record whose offset is not the next one (INVALID_RECORD).
    #[error("record {expected} has offset delta {found}")]
    OffsetDelta {
        /// Its place in the batch.
        expected: i32,
        /// Its offset delta.
        found: i32,
    },
}

/// What is known of an accepted batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceInfo {
    /// Records, at least 1; the last offset delta is one less.
    pub record_count: i32,
    /// The greatest timestamp as the header says it, in ms.
    pub max_timestamp: i64,
    /// The timestamp type as the header says it; the topic's holds (see `rewrite_timestamps`).
    pub timestamp_type: TimestampType,
    /// What walking the records showed; `None` if they are compressed and were not looked at.
    pub walked: Option<WalkedRecords>,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub first_sequence: i32,
    /// Sequence of the last record, or -1.
    pub last_sequence: i32,
    /// Compression of the records.
    pub compression: Compression,
    /// Whether the batch belongs to a transaction.
    pub is_transactional: bool,
}

/// What only the records themselves show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkedRecords {
    /// The least timestamp, in ms.
    pub timestamp_min: i64,
    /// The greatest timestamp, in ms. Where it differs from the header's, Kafka corrects the header.
    pub timestamp_max: i64,
    /// Whether every record has a key, as compacted topics want it.
    pub all_keyed: bool,
}

/// Checks what a producer sent for one partition (contract L3, L4): one batch, its CRC, its header, and every
/// record where they are not compressed. Allocates nothing.
pub fn validate_produce(
    records: &Bytes,
    rules: &ProduceRules,
) -> Result<(BatchView, ProduceInfo), ProduceError> {
    if records.is_empty() {
        return Err(ProduceError::Empty);
    }
    let batch = BatchView::parse(records)?;
    if batch.bytes().len() != records.len() {
        return Err(ProduceError::SeveralBatches);
    }
    let size = batch.bytes().len();
    if size > rules.batch_bytes_max {
        return Err(ProduceError::TooLarge { size, max: rules.batch_bytes_max });
    }
    batch.verify_crc()?;
    let info = check_header(&batch, rules)?;
    let walked = match info.compression {
        Compression::None => Some(walk(&batch)?),
        _ => None,
    };
    Ok((batch, ProduceInfo { walked, ..info }))
}

fn check_header(batch: &BatchView, rules: &ProduceRules) -> Result<ProduceInfo, ProduceError> {
    let header = batch.header();
    let compression = header.compression().map_err(ProduceError::UnknownCompression)?;
    if compression == Compression::Zstd && !rules.zstd_allowed {
        return Err(ProduceError::ZstdNotAllowed);
    }
    if header.base_offset != 0 {
        return Err(ProduceError::BaseOffset(header.base_offset));
    }
    let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(ProduceError::Count { count, last_offset_delta });
    }
    if header.is_control() {
        return Err(ProduceError::Control);
    }
    if header.has_producer_id() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(ProduceError::Sequence {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
    }
    Ok(ProduceInfo {
        record_count: count,
        max_timestamp: header.max_timestamp,
        timestamp_type: header.timestamp_type(),
        walked: None,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        compression,
        is_transactional: header.is_transactional(),
    })
}

/// Walks the varints of uncompressed records.
fn walk(batch: &BatchView) -> Result<WalkedRecords, ProduceError> {
    let header = batch.header();
    let mut cursor = Cursor { bytes: &batch.bytes()[..], position: HEADER_BYTES };
    let mut walked = WalkedRecords { timestamp_min: i64::MAX, timestamp_max: i64::MIN, all_keyed: true };
    for expected in 0..header.record_count {
        let record = walk_record(&mut cursor)?;
        if record.offset_delta != expected {
            return Err(ProduceError::OffsetDelta { expected, found: record.offset_delta });
        }
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        walked.timestamp_min = walked.timestamp_min.min(timestamp);
        walked.timestamp_max = walked.timestamp_max.max(timestamp);
        walked.all_keyed &= record.key.is_some();
    }
    match cursor.remaining() {
        0 => Ok(walked),
        trailing => Err(RecordError::Trailing(trailing).into()),
    }
}
