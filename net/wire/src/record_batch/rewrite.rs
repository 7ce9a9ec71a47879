//! Batches that lose some of their records: what log compaction makes of them.

use bytes::Bytes;

use super::header::{DELETE_HORIZON_BIT, seal};
use super::record::walk_record;
use super::varint::{Cursor, put_varint, varint_len};
use super::{BatchHeader, BatchView, HEADER_BYTES, LENGTH_END, RecordError, TimestampType};

/// A batch with its records decompressed, so that they can be looked at and left out.
#[derive(Clone, Debug)]
pub struct UnpackedBatch {
    header: BatchHeader,
    data: Bytes,
}

/// One record as it lies in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its offset in the log.
    pub offset: i64,
    /// Its own timestamp in ms; under log append time the batch's holds instead.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// All of it, its length included.
    bytes: &'a [u8],
}

impl BatchView {
    /// The batch with its records decompressed into at most `decompressed_bytes_max` bytes.
    pub fn unpack(&self, decompressed_bytes_max: usize) -> Result<UnpackedBatch, RecordError> {
        let header = *self.header();
        let compression = header.compression().map_err(RecordError::UnknownCompression)?;
        // A batch without records may have had any compression before it lost them.
        let data = match header.record_count {
            0 => self.stored_records(),
            _ => compression.decompress(&self.stored_records(), decompressed_bytes_max)?,
        };
        Ok(UnpackedBatch { header, data })
    }
}

impl UnpackedBatch {
    /// The records in order; after an error there is nothing more.
    pub fn records(&self) -> RawRecords<'_> {
        let cursor = Cursor { bytes: &self.data, position: 0 };
        RawRecords { cursor, left: Some(self.header.record_count.max(0)), header: &self.header }
    }

    /// The batch with those records alone that `keep` has true for, one entry a record and at least one of them kept.
    /// Offsets, sequences, leader epoch and compression stay; the CRC is new, and under create time the greatest
    /// timestamp is that of what is kept.
    ///
    /// A `delete_horizon_ms` is stamped on the batch (KIP-534): it takes the place of the base timestamp, and every
    /// record's timestamp is written relative to it. Without one, a horizon that is there stays.
    pub fn rebuild(&self, keep: &[bool], delete_horizon_ms: Option<i64>) -> Result<Bytes, RecordError> {
        let mut header = self.header;
        let mut records = Vec::with_capacity(self.data.len());
        let mut largest = -1;
        let mut count = 0;
        for (record, _) in self.records().zip(keep).filter(|(_, keep)| **keep) {
            let record = record?;
            match delete_horizon_ms {
                None => records.extend_from_slice(record.bytes),
                Some(horizon) => put_rebased(&mut records, &record, horizon)?,
            }
            largest = largest.max(record.timestamp);
            count += 1;
        }
        assert!(count > 0, "a batch that keeps no record is not rebuilt");
        if header.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp = largest;
        }
        if let Some(horizon) = delete_horizon_ms {
            header.attributes |= DELETE_HORIZON_BIT;
            header.base_timestamp = horizon;
        }
        header.record_count = count;
        let compression = header.compression().map_err(RecordError::UnknownCompression)?;
        Ok(sealed(header, &compression.compress(&records)))
    }
}

/// The header of `header`'s batch alone: no record and no compression, but the same offsets, sequences and flags.
pub fn empty_batch(header: &BatchHeader) -> Bytes {
    let mut header = *header;
    header.attributes &= !(super::header::COMPRESSION_BITS | DELETE_HORIZON_BIT);
    header.base_timestamp = -1;
    header.record_count = 0;
    sealed(header, &[])
}

fn sealed(mut header: BatchHeader, records: &[u8]) -> Bytes {
    let length = HEADER_BYTES - LENGTH_END + records.len();
    header.batch_length = i32::try_from(length).expect("a batch is smaller than 2 GiB");
    let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
    seal(&mut out);
    out.into()
}

/// Appends `record` with its timestamp relative to `base_timestamp`.
fn put_rebased(out: &mut Vec<u8>, record: &RawRecord<'_>, base_timestamp: i64) -> Result<(), RecordError> {
    let mut cursor = Cursor { bytes: record.bytes, position: 0 };
    let _length = cursor.varint()?;
    let attributes = cursor.byte()?;
    let _timestamp_delta = cursor.varlong()?;
    let rest = &record.bytes[cursor.position..];
    let delta = record.timestamp.wrapping_sub(base_timestamp);
    put_varint(out, (1 + varint_len(delta) + rest.len()) as i64);
    out.push(attributes);
    put_varint(out, delta);
    out.extend_from_slice(rest);
    Ok(())
}

/// See [`UnpackedBatch::records`].
#[derive(Debug)]
pub struct RawRecords<'a> {
    cursor: Cursor<'a>,
    /// Records still expected; `None` once finished or failed.
    left: Option<i32>,
    header: &'a BatchHeader,
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.take()?;
        if left == 0 {
            let trailing = self.cursor.remaining();
            return (trailing > 0).then_some(Err(RecordError::Trailing(trailing)));
        }
        let record = self.record();
        self.left = record.is_ok().then_some(left - 1);
        Some(record)
    }
}

impl<'a> RawRecords<'a> {
    fn record(&mut self) -> Result<RawRecord<'a>, RecordError> {
        let (bytes, start) = (self.cursor.bytes, self.cursor.position);
        let parts = walk_record(&mut self.cursor)?;
        Ok(RawRecord {
            offset: self.header.base_offset.wrapping_add(parts.offset_delta.into()),
            timestamp: self.header.base_timestamp.wrapping_add(parts.timestamp_delta),
            key: parts.key.map(|range| &bytes[range]),
            value: parts.value.map(|range| &bytes[range]),
            bytes: &bytes[start..self.cursor.position],
        })
    }
}

impl std::iter::FusedIterator for RawRecords<'_> {}
