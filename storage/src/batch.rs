//! What the log asks of a record batch's header beyond what `heizer_wire` gives: checks for bytes that come from a
//! disk, and the stamps of an append.

use std::ops::Range;

use bytes::Bytes;
use heizer_wire::record_batch::{BatchError, BatchHeader};

pub(crate) use heizer_wire::record_batch::HEADER_BYTES;

/// The CRC covers everything from here on (contract L1).
const CRC_FROM: usize = 21;
/// The largest batch that a log takes, and that recovery believes in: a damaged length must not ask for all memory.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;

/// Why bytes are not the header of a batch that a log can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeader {
    #[error("nothing but zeros")]
    Zeros,
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("a base offset of {base} with a last offset delta of {delta}")]
    Offset { base: i64, delta: i32 },
    #[error("a batch of {0} bytes, at most {BATCH_BYTES_MAX} are possible")]
    Size(usize),
}

/// Parses the header at the front of `bytes`.
pub(crate) fn parse_header(bytes: &[u8]) -> Result<BatchHeader, BadHeader> {
    if bytes.len() >= HEADER_BYTES && bytes[..HEADER_BYTES].iter().all(|&byte| byte == 0) {
        return Err(BadHeader::Zeros);
    }
    let header = BatchHeader::parse(bytes)?;
    let (base, delta) = (header.base_offset, header.last_offset_delta);
    if base < 0 || delta < 0 || base.checked_add(i64::from(delta) + 1).is_none() {
        return Err(BadHeader::Offset { base, delta });
    }
    if header.size_bytes() > BATCH_BYTES_MAX {
        return Err(BadHeader::Size(header.size_bytes()));
    }
    Ok(header)
}

/// Whether the batch that `bytes` starts with matches its CRC.
pub(crate) fn crc_matches(header: &BatchHeader, bytes: &[u8]) -> bool {
    crc32c::crc32c(&bytes[CRC_FROM..header.size_bytes()]) == header.crc
}

/// The timestamp that a batch has in a time index: its greatest, or -1 for one that compaction has left no record of.
pub(crate) fn index_timestamp(header: &BatchHeader) -> i64 {
    if header.record_count > 0 { header.max_timestamp } else { -1 }
}

/// Stamps the time of append: timestamp type, largest timestamp, and therefore a new CRC (contract L1).
pub(crate) fn stamp_append_time(header: &mut BatchHeader, body: &[u8], now_ms: i64) {
    header.attributes |= LOG_APPEND_TIME_BIT;
    header.max_timestamp = now_ms;
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&header.encode()[CRC_FROM..]), body);
}

/// Splits a sequence of whole batches into headers and their ranges.
pub(crate) fn split(batches: &Bytes) -> Result<Vec<(BatchHeader, Range<usize>)>, String> {
    let mut found = Vec::with_capacity(1);
    let mut at = 0;
    while at < batches.len() {
        let header = parse_header(&batches[at..]).map_err(|bad| bad.to_string())?;
        let size = header.size_bytes();
        if size > batches.len() - at {
            return Err(format!("a batch of {size} bytes in {}", batches.len() - at));
        }
        found.push((header, at..at + size));
        at += size;
    }
    if found.is_empty() { Err("no batch at all".to_owned()) } else { Ok(found) }
}
