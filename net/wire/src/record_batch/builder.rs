use bytes::Bytes;

use super::header::seal;
use super::varint::{put_varint, varint_len};
use super::{BatchHeader, Compression, HEADER_BYTES, LENGTH_END, TimestampType};

/// What the header of a built batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the first record (a producer sends 0).
    pub base_offset: i64,
    /// Leader epoch (a producer sends -1).
    pub partition_leader_epoch: i32,
    /// Compression of the records.
    pub compression: Compression,
    /// Who gives the timestamps.
    pub timestamp_type: TimestampType,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
    /// Whether the records are control records.
    pub control: bool,
}

impl Default for BatchOptions {
    /// A plain producer's: offset 0, everything else none or -1.
    fn default() -> Self {
        Self {
            base_offset: 0,
            partition_leader_epoch: -1,
            compression: Compression::None,
            timestamp_type: TimestampType::CreateTime,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            control: false,
        }
    }
}

/// Builds one batch, record by record.
#[derive(Clone, Debug)]
pub struct RecordBatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records, not yet compressed.
    out: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl RecordBatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> Self {
        Self { options, out: vec![0; HEADER_BYTES], count: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Bytes of the batch so far, before compression.
    pub fn size_bytes(&self) -> usize {
        self.out.len()
    }

    /// Appends a record at the next offset. `timestamp` is in ms; headers are (name, value).
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let length = 1
            + varint_len(timestamp_delta)
            + varint_len(self.count.into())
            + nullable_len(key)
            + nullable_len(value)
            + varint_len(headers.len() as i64)
            + headers
                .iter()
                .map(|(name, value)| nullable_len(Some(name)) + nullable_len(*value))
                .sum::<usize>();
        put_varint(&mut self.out, length as i64);
        self.out.push(0);
        put_varint(&mut self.out, timestamp_delta);
        put_varint(&mut self.out, self.count.into());
        self.put_nullable(key);
        self.put_nullable(value);
        put_varint(&mut self.out, headers.len() as i64);
        for (name, value) in headers {
            self.put_nullable(Some(name));
            self.put_nullable(*value);
        }
        self.count += 1;
        self
    }

    fn put_nullable(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => put_varint(&mut self.out, -1),
            Some(bytes) => {
                put_varint(&mut self.out, bytes.len() as i64);
                self.out.extend_from_slice(bytes);
            }
        }
    }

    /// The batch, which has at least one record.
    pub fn build(self) -> Bytes {
        assert!(self.count > 0, "a batch has records");
        let Self { options, mut out, count, base_timestamp, max_timestamp } = self;
        if options.compression != Compression::None {
            let compressed = options.compression.compress(&out[HEADER_BYTES..]);
            out.truncate(HEADER_BYTES);
            out.extend_from_slice(&compressed);
        }
        let header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: i32::try_from(out.len() - LENGTH_END).expect("a batch is smaller than 2 GiB"),
            partition_leader_epoch: options.partition_leader_epoch,
            crc: 0,
            attributes: BatchHeader::attributes_of(
                options.compression,
                options.timestamp_type,
                options.transactional,
                options.control,
            ),
            last_offset_delta: count - 1,
            base_timestamp,
            max_timestamp,
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: count,
        };
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        seal(&mut out);
        out.into()
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varint_len(-1),
        Some(bytes) => varint_len(bytes.len() as i64) + bytes.len(),
    }
}
