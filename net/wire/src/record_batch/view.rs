use bytes::Bytes;

use super::header::crc_of;
use super::{BatchHeader, HEADER_BYTES, RecordError, RecordIter};

/// Why bytes are not a record batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does. At the end of a fetched range this is no fault: the rest of the
    /// batch comes with the next fetch.
    #[error("{needed} bytes needed, {remaining} remain")]
    Truncated {
        /// Bytes that the batch takes, or its header where that is cut.
        needed: usize,
        /// Bytes there are.
        remaining: usize,
    },
    /// A batch length that is negative or does not cover the header.
    #[error("invalid batch length {0}")]
    InvalidLength(i32),
    /// Another format than v2.
    #[error("message format with magic {0} is not supported")]
    UnsupportedMagic(i8),
    /// The CRC does not match.
    #[error("CRC is {stored:08x}, should be {computed:08x}")]
    Crc {
        /// What the header holds.
        stored: u32,
        /// What the bytes have.
        computed: u32,
    },
}

/// One whole batch: its header parsed, its bytes a shared slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    header: BatchHeader,
    bytes: Bytes,
}

impl BatchView {
    /// Views the batch at the start of `bytes`; what follows it is not part of the view.
    pub fn parse(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_bytes();
        if needed > bytes.len() {
            return Err(BatchError::Truncated { needed, remaining: bytes.len() });
        }
        Ok(Self { header, bytes: bytes.slice(..needed) })
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records as they are stored, compressed or not.
    pub fn stored_records(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Checks the CRC.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc, crc_of(&self.bytes));
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }

    /// The records, decompressed into at most `decompressed_bytes_max` bytes.
    pub fn records(&self, decompressed_bytes_max: usize) -> Result<RecordIter, RecordError> {
        let compression = self.header.compression().map_err(RecordError::UnknownCompression)?;
        let data = compression.decompress(&self.stored_records(), decompressed_bytes_max)?;
        Ok(RecordIter::new(&self.header, data))
    }
}

/// The batches in `bytes`, one after the other. After an error there is nothing more.
pub fn batches(bytes: Bytes) -> BatchIter {
    BatchIter { rest: bytes }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct BatchIter {
    rest: Bytes,
}

impl BatchIter {
    /// What has not been viewed yet.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for BatchIter {
    type Item = Result<BatchView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let view = BatchView::parse(&self.rest);
        match &view {
            Ok(view) => drop(self.rest.split_to(view.bytes.len())),
            Err(_) => self.rest.clear(),
        }
        Some(view)
    }
}

impl std::iter::FusedIterator for BatchIter {}
