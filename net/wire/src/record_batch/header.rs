use super::{BatchError, Compression};

/// Bytes in front of the records.
pub const HEADER_BYTES: usize = 61;
/// End of the batch length field: a batch takes its batch length and these bytes more.
pub const LENGTH_END: usize = 12;

const BASE_OFFSET: usize = 0;
const BATCH_LENGTH: usize = 8;
const PARTITION_LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

pub(super) const COMPRESSION_BITS: i16 = 0b111;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
pub(super) const DELETE_HORIZON_BIT: i16 = 1 << 6;

const _: () = assert!(RECORD_COUNT + size_of::<i32>() == HEADER_BYTES);

/// Who gave the records their timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, each record its own.
    #[default]
    CreateTime,
    /// The broker: the batch's max timestamp holds for all.
    LogAppendTime,
}

/// The 61 bytes in front of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field, [`LENGTH_END`] less than the whole batch.
    pub batch_length: i32,
    /// Leader epoch in which the batch was appended; a producer sends -1.
    pub partition_leader_epoch: i32,
    /// CRC32C from the attributes to the end.
    pub crc: u32,
    /// Compression, timestamp type and flags: see the accessors.
    pub attributes: i16,
    /// Offset of the last record, relative to the base offset.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to, in ms; the delete horizon where
    /// [`BatchHeader::has_delete_horizon`].
    pub base_timestamp: i64,
    /// The greatest timestamp, in ms.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records (compaction leaves fewer than the offsets span).
    pub record_count: i32,
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`, which may end before the records do. The batch length is
    /// checked to cover the header; the CRC is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // Older formats have their magic at the same place, but may be shorter than our header.
        match bytes.get(MAGIC) {
            None => return Err(BatchError::Truncated { needed: HEADER_BYTES, remaining: bytes.len() }),
            Some(2) => {}
            Some(&magic) => return Err(BatchError::UnsupportedMagic(magic as i8)),
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, remaining: bytes.len() });
        };
        let batch_length = i32::from_be_bytes(at(header, BATCH_LENGTH));
        if batch_length < (HEADER_BYTES - LENGTH_END) as i32 {
            return Err(BatchError::InvalidLength(batch_length));
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(at(header, BASE_OFFSET)),
            batch_length,
            partition_leader_epoch: i32::from_be_bytes(at(header, PARTITION_LEADER_EPOCH)),
            crc: u32::from_be_bytes(at(header, CRC)),
            attributes: i16::from_be_bytes(at(header, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(at(header, LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(at(header, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(at(header, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(at(header, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(at(header, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(at(header, BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(at(header, RECORD_COUNT)),
        })
    }

    /// The 61 bytes, with `crc` as it is.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, BASE_OFFSET, self.base_offset.to_be_bytes());
        put(&mut out, BATCH_LENGTH, self.batch_length.to_be_bytes());
        put(&mut out, PARTITION_LEADER_EPOCH, self.partition_leader_epoch.to_be_bytes());
        put(&mut out, MAGIC, [2]);
        put(&mut out, CRC, self.crc.to_be_bytes());
        put(&mut out, ATTRIBUTES, self.attributes.to_be_bytes());
        put(&mut out, LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(&mut out, BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut out, MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut out, PRODUCER_ID, self.producer_id.to_be_bytes());
        put(&mut out, PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
        put(&mut out, BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(&mut out, RECORD_COUNT, self.record_count.to_be_bytes());
        out
    }

    /// Bytes of the whole batch. [`BatchHeader::parse`] has seen that this is at least the header.
    pub fn size_bytes(&self) -> usize {
        LENGTH_END + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record. Wraps on a header that no validation has seen.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(self.last_offset_delta.into())
    }

    /// Offset of the batch that follows.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Sequence number of the last record, which wraps from the greatest int32 to 0 (contract T1); -1 without
    /// sequence numbers.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sum & i64::from(i32::MAX)) as i32
    }

    /// The compression of the records; `Err` holds an id that means nothing.
    pub fn compression(&self) -> Result<Compression, i8> {
        let id = (self.attributes & COMPRESSION_BITS) as i8;
        Compression::from_id(id).ok_or(id)
    }

    /// Who gave the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether its records are markers for brokers and clients, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp holds the delete horizon (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// When the tombstones and markers of the batch may go, in ms (KIP-534); none until compaction has seen them.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Whether an idempotent producer wrote the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    pub(super) fn attributes_of(
        compression: Compression,
        timestamp_type: TimestampType,
        transactional: bool,
        control: bool,
    ) -> i16 {
        let mut attributes = i16::from(compression.id());
        if timestamp_type == TimestampType::LogAppendTime {
            attributes |= LOG_APPEND_TIME_BIT;
        }
        if transactional {
            attributes |= TRANSACTIONAL_BIT;
        }
        if control {
            attributes |= CONTROL_BIT;
        }
        attributes
    }
}

fn at<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[offset..offset + N]);
    value
}

fn put<const N: usize>(batch: &mut [u8], offset: usize, value: [u8; N]) {
    batch[offset..offset + N].copy_from_slice(&value);
}

/// The CRC32C that the header of `batch` (one whole batch) should hold.
pub(super) fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES..])
}

/// Stores the CRC that `batch` (one whole batch) has now.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc_of(batch);
    put(batch, CRC, crc.to_be_bytes());
}

/// Assigns the base offset in place; the CRC stays right (contract L1). `batch` holds at least the header.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    put(batch, BASE_OFFSET, base_offset.to_be_bytes());
}

/// Assigns the leader epoch in place; the CRC stays right (contract L1). `batch` holds at least the header.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) {
    put(batch, PARTITION_LEADER_EPOCH, epoch.to_be_bytes());
}

/// Makes `batch` (exactly one whole batch) one of log append time `now_ms`, with a new CRC (contract L1).
pub fn rewrite_log_append_time(batch: &mut [u8], now_ms: i64) {
    rewrite_timestamps(batch, TimestampType::LogAppendTime, now_ms);
}

/// Sets timestamp type and max timestamp of `batch` (exactly one whole batch), with a new CRC (contract L1).
pub fn rewrite_timestamps(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp: i64) {
    let old = i16::from_be_bytes([batch[ATTRIBUTES], batch[ATTRIBUTES + 1]]);
    let new = match timestamp_type {
        TimestampType::CreateTime => old & !LOG_APPEND_TIME_BIT,
        TimestampType::LogAppendTime => old | LOG_APPEND_TIME_BIT,
    };
    put(batch, ATTRIBUTES, new.to_be_bytes());
    put(batch, MAX_TIMESTAMP, max_timestamp.to_be_bytes());
    seal(batch);
}
