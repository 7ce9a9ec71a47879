use std::ops::Range;

use bytes::Bytes;

use super::varint::Cursor;
use super::{BatchHeader, CompressionError, TimestampType};

/// Why the records of a batch cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record reaches past the end, or past its own length.
    #[error("record is cut")]
    Truncated,
    /// A varint of too many bytes or bits.
    #[error("malformed varint")]
    Varint,
    /// A negative record length, header count or header key length.
    #[error("invalid length {0}")]
    InvalidLength(i32),
    /// A record that ends before its length does.
    #[error("record does not fill its length")]
    Length,
    /// Bytes after the last record that the header counts.
    #[error("{0} bytes follow the last record")]
    Trailing(usize),
    /// A compression id that means nothing.
    #[error("unknown compression {0}")]
    UnknownCompression(i8),
    /// The records cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// One record. A null key or value is `None`, an empty one is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the log.
    pub offset: i64,
    /// Its timestamp in ms: the producer's, or the broker's under log append time.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers in order; names may repeat.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its name, UTF-8 by convention, which nobody enforces.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Where the parts of one record lie.
pub(super) struct RecordParts {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    /// Where the headers start (behind their count), and how many there are.
    headers_at: usize,
    header_count: usize,
}

/// Walks one record, headers and all, and checks that it fills its length. Allocates nothing.
pub(super) fn walk_record(cursor: &mut Cursor<'_>) -> Result<RecordParts, RecordError> {
    let length = cursor.varint()?;
    let length = usize::try_from(length).map_err(|_| RecordError::InvalidLength(length))?;
    if length > cursor.remaining() {
        return Err(RecordError::Truncated);
    }
    let end = cursor.position + length;
    let mut inner = Cursor { bytes: &cursor.bytes[..end], position: cursor.position };
    let _attributes = inner.byte()?;
    let timestamp_delta = inner.varlong()?;
    let offset_delta = inner.varint()?;
    let key = nullable(&mut inner)?;
    let value = nullable(&mut inner)?;
    let header_count = inner.varint()?;
    let header_count = usize::try_from(header_count).map_err(|_| RecordError::InvalidLength(header_count))?;
    let headers_at = inner.position;
    for _ in 0..header_count {
        walk_header(&mut inner)?;
    }
    if inner.position != end {
        return Err(RecordError::Length);
    }
    cursor.position = end;
    Ok(RecordParts { timestamp_delta, offset_delta, key, value, headers_at, header_count })
}

type HeaderParts = (Range<usize>, Option<Range<usize>>);

fn walk_header(cursor: &mut Cursor<'_>) -> Result<HeaderParts, RecordError> {
    let length = cursor.varint()?;
    let length = usize::try_from(length).map_err(|_| RecordError::InvalidLength(length))?;
    let start = cursor.skip(length)?;
    Ok((start..start + length, nullable(cursor)?))
}

/// Length-prefixed bytes; any negative length is null, as in Kafka.
fn nullable(cursor: &mut Cursor<'_>) -> Result<Option<Range<usize>>, RecordError> {
    let Ok(length) = usize::try_from(cursor.varint()?) else { return Ok(None) };
    let start = cursor.skip(length)?;
    Ok(Some(start..start + length))
}

/// Iterates over the records of one batch; after an error there is nothing more. Keys and values are slices of
/// the (decompressed) batch.
#[derive(Clone, Debug)]
pub struct RecordIter {
    data: Bytes,
    position: usize,
    /// Records still expected; `None` once finished or failed.
    left: Option<i32>,
    header: BatchHeader,
}

impl RecordIter {
    pub(super) fn new(header: &BatchHeader, data: Bytes) -> Self {
        Self { data, position: 0, left: Some(header.record_count.max(0)), header: *header }
    }

    fn record(&mut self) -> Result<Record, RecordError> {
        let mut cursor = Cursor { bytes: &self.data, position: self.position };
        let parts = walk_record(&mut cursor)?;
        self.position = cursor.position;
        let slice = |range: Range<usize>| self.data.slice(range);
        let mut cursor = Cursor { bytes: &self.data, position: parts.headers_at };
        // Walked already, so the count is real: each header takes two bytes at least.
        let mut headers = Vec::with_capacity(parts.header_count);
        for _ in 0..parts.header_count {
            let (key, value) = walk_header(&mut cursor)?;
            headers.push(RecordHeader { key: slice(key), value: value.map(slice) });
        }
        let timestamp = match self.header.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp.wrapping_add(parts.timestamp_delta),
            TimestampType::LogAppendTime => self.header.max_timestamp,
        };
        Ok(Record {
            offset: self.header.base_offset.wrapping_add(parts.offset_delta.into()),
            timestamp,
            key: parts.key.map(slice),
            value: parts.value.map(slice),
            headers,
        })
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.left? {
            0 => {
                self.left = None;
                let trailing = self.data.len() - self.position;
                (trailing > 0).then_some(Err(RecordError::Trailing(trailing)))
            }
            left => {
                let record = self.record();
                self.left = record.is_ok().then_some(left - 1);
                Some(record)
            }
        }
    }
}

impl std::iter::FusedIterator for RecordIter {}
