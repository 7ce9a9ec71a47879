//! Record batches out of a `.log` file that is not to be trusted, whatever their format.

use std::path::Path;

use bytes::Bytes;
use heizer_wire::record_batch::{BatchHeader, BatchView, Record, RecordError};

use crate::batch::{BATCH_BYTES_MAX, BadHeader, HEADER_BYTES, crc_matches, parse_header};
use crate::error::StorageError;
use crate::inspect::legacy::{LegacyMessage, LegacyRecord, SIZE_END};
use crate::inspect::source::Source;

/// The records of one batch are decompressed into at most this much.
pub const RECORDS_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// Where every format has its magic.
const MAGIC_AT: usize = 16;

/// What comes next in a file.
#[derive(Debug)]
pub enum Next {
    /// A batch that is whole by its length.
    Batch(StoredBatch),
    /// The file ends here.
    End,
    /// A header's length of zeros, or zeros to the end: space that was reserved and not written yet.
    Zeros {
        /// Where they start.
        position: u64,
        /// Bytes from there to the file's end.
        left: u64,
        /// Where something else follows after all: what was written before and counts no more.
        first_other: Option<u64>,
    },
    /// What follows is no batch; nothing beyond can be read.
    Bad {
        /// Where it starts.
        position: u64,
        /// Bytes from there to the file's end.
        left: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A batch, or a message of an older format.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    position: u64,
    bytes: Bytes,
    format: Format,
}

#[derive(Clone, Debug)]
enum Format {
    Batch(BatchHeader),
    Legacy(LegacyMessage),
}

/// Reads a `.log` file batch by batch; after the end, or something bad, it stays there.
pub struct BatchReader {
    source: Source,
    position: u64,
}

impl BatchReader {
    /// Starts at the front of `path`.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        Ok(Self { source: Source::open(path).await?, position: 0 })
    }

    /// The file's length in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.source.len()
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next batch, or why there is none.
    pub async fn next(&mut self) -> Result<Next, StorageError> {
        let position = self.position;
        let left = self.source.left(position);
        if left == 0 {
            return Ok(Next::End);
        }
        let bad = |reason| Ok(Next::Bad { position, left, reason });
        let look = self.source.bytes(position, HEADER_BYTES as u64).await?;
        if look.iter().all(|&byte| byte == 0) {
            let first_other = self.source.first_non_zero(position).await?;
            return Ok(Next::Zeros { position, left, first_other });
        }
        let parsed = match look.get(MAGIC_AT) {
            Some(0 | 1) => LegacyMessage::parse(&look).map(|message| (message.size, Format::Legacy(message))),
            _ => parse_header(&look)
                .map(|header| (header.size_bytes(), Format::Batch(header)))
                .map_err(|bad: BadHeader| bad.to_string()),
        };
        let (size, format) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => return bad(reason),
        };
        if size > BATCH_BYTES_MAX {
            return bad(format!("a batch of {size} bytes, at most {BATCH_BYTES_MAX} are possible"));
        }
        let bytes =
            if size as u64 > left { Bytes::new() } else { self.source.bytes(position, size as u64).await? };
        if bytes.len() < size {
            return bad(format!("a batch of {size} bytes where {left} are left"));
        }
        self.position += size as u64;
        Ok(Next::Batch(StoredBatch { position, bytes, format }))
    }
}

impl StoredBatch {
    /// Where it starts in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The format: 0, 1 or 2.
    pub fn magic(&self) -> u8 {
        match &self.format {
            Format::Batch(_) => 2,
            Format::Legacy(message) => message.magic,
        }
    }

    /// The header of a batch of format v2.
    pub fn header(&self) -> Option<&BatchHeader> {
        match &self.format {
            Format::Batch(header) => Some(header),
            Format::Legacy(_) => None,
        }
    }

    /// The message of an older format.
    pub fn legacy(&self) -> Option<&LegacyMessage> {
        match &self.format {
            Format::Batch(_) => None,
            Format::Legacy(message) => Some(message),
        }
    }

    /// Offset of the first record. Of a compressed message of an older format only the last one is known without
    /// unpacking it.
    pub fn base_offset(&self) -> i64 {
        match &self.format {
            Format::Batch(header) => header.base_offset,
            Format::Legacy(message) => message.offset,
        }
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        match &self.format {
            Format::Batch(header) => header.last_offset(),
            Format::Legacy(message) => message.offset,
        }
    }

    /// The greatest timestamp as the header says it, in ms.
    pub fn max_timestamp(&self) -> i64 {
        match &self.format {
            Format::Batch(header) => header.max_timestamp,
            Format::Legacy(message) => message.timestamp,
        }
    }

    /// The CRC that it holds.
    pub fn crc(&self) -> u32 {
        match &self.format {
            Format::Batch(header) => header.crc,
            Format::Legacy(message) => message.crc,
        }
    }

    /// Whether the CRC is right (contract L1).
    pub fn crc_matches(&self) -> bool {
        match &self.format {
            Format::Batch(header) => crc_matches(header, &self.bytes),
            Format::Legacy(message) => message.crc_matches(&self.bytes),
        }
    }

    /// The records of a batch of format v2, each one or what is wrong with it; after an error there is nothing more.
    /// None of an older format, see [`legacy_record`](Self::legacy_record).
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record, RecordError>> + use<>, RecordError> {
        let records = match &self.format {
            // Compaction leaves batches without a record behind (contract L9): nothing, and nothing compressed.
            Format::Batch(header) if header.record_count == 0 && self.size() == HEADER_BYTES => None,
            Format::Batch(_) => {
                let view = BatchView::parse(&self.bytes).expect("its header was parsed, its bytes are there");
                Some(view.records(RECORDS_BYTES_MAX)?)
            }
            Format::Legacy(_) => None,
        };
        Ok(records.into_iter().flatten())
    }

    /// Key and value of a message of an older format, unless it is compressed.
    pub fn legacy_record(&self) -> Option<LegacyRecord> {
        self.legacy()?.record(&self.bytes)
    }
}

const _: () = assert!(SIZE_END < MAGIC_AT && MAGIC_AT < HEADER_BYTES);
