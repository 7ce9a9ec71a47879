//! Files of entries of fixed size, and small files that are read whole.

use std::marker::PhantomData;
use std::path::Path;

use bytes::Bytes;

use crate::error::{IoContext, StorageError};
use crate::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use crate::inspect::source::Source;
use crate::producer::{ProducerEntry, ProducerState};
use heizer_runtime::fs;

/// A file read whole is no longer than this.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
const ABORTED_ENTRY_BYTES: usize = 34;

/// One entry of fixed size.
pub trait Entry: Sized {
    /// Bytes of one in the file.
    const BYTES: usize;

    /// The entry that `bytes`, of which there are [`Entry::BYTES`], hold.
    fn decode(bytes: &[u8]) -> Self;
}

/// An entry of a `.index` file: the batch at `position` ends with this offset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Less the segment's base.
    pub relative: u32,
    /// In the `.log` file.
    pub position: u32,
}

/// An entry of a `.timeindex` file: every record with a timestamp above lies after the offset (contract L7).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// In ms.
    pub timestamp: i64,
    /// Less the segment's base.
    pub relative: u32,
}

/// An entry of a `.txnindex` file: a transaction that was aborted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AbortedEntry {
    /// Of the format; 0 is the only one there is.
    pub version: i16,
    /// Whose transaction.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// The last stable offset once it was aborted.
    pub last_stable_offset: i64,
}

/// Reads a `.index` file.
pub type OffsetReader = TableReader<OffsetEntry>;
/// Reads a `.timeindex` file.
pub type TimeReader = TableReader<TimeEntry>;
/// Reads a `.txnindex` file.
pub type AbortedReader = TableReader<AbortedEntry>;

impl Entry for OffsetEntry {
    const BYTES: usize = OFFSET_ENTRY_BYTES;

    fn decode(bytes: &[u8]) -> Self {
        Self { relative: u32::from_be_bytes(field(bytes, 0)), position: u32::from_be_bytes(field(bytes, 4)) }
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = TIME_ENTRY_BYTES;

    fn decode(bytes: &[u8]) -> Self {
        Self { timestamp: i64::from_be_bytes(field(bytes, 0)), relative: u32::from_be_bytes(field(bytes, 8)) }
    }
}

impl Entry for AbortedEntry {
    const BYTES: usize = ABORTED_ENTRY_BYTES;

    fn decode(bytes: &[u8]) -> Self {
        Self {
            version: i16::from_be_bytes(field(bytes, 0)),
            producer_id: i64::from_be_bytes(field(bytes, 2)),
            first_offset: i64::from_be_bytes(field(bytes, 10)),
            last_offset: i64::from_be_bytes(field(bytes, 18)),
            last_stable_offset: i64::from_be_bytes(field(bytes, 26)),
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Reads a file of such entries from front to back. Zeros at the end, which Kafka reserves while a segment is active,
/// are no entries.
pub struct TableReader<E> {
    source: Source,
    position: u64,
    /// Where the next byte that is not zero lies, as far as that was looked up.
    other_at: Option<u64>,
    /// Nothing but zeros follow.
    ended: bool,
    entry: PhantomData<E>,
}

impl<E: Entry> TableReader<E> {
    /// Starts at the front of `path`.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            source: Source::open(path).await?,
            position: 0,
            other_at: None,
            ended: false,
            entry: PhantomData,
        })
    }

    /// Where the next entry starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; `None` behind the last whole one.
    pub async fn next(&mut self) -> Result<Option<E>, StorageError> {
        let bytes = self.source.bytes(self.position, E::BYTES as u64).await?;
        if bytes.len() < E::BYTES || self.ended {
            return Ok(None);
        }
        // Zeros are an entry, or the end: what follows tells, and it is looked up once for all zeros up to there.
        let zeros = bytes.iter().all(|&byte| byte == 0);
        if zeros && self.other_at.is_none_or(|other| other < self.position) {
            self.other_at = self.source.first_non_zero(self.position).await?;
            if self.other_at.is_none() {
                self.ended = true;
                return Ok(None);
            }
        }
        self.position += E::BYTES as u64;
        Ok(Some(E::decode(&bytes)))
    }

    /// Bytes behind the last whole entry: reserved zeros, or part of an entry.
    pub fn rest(&self) -> u64 {
        self.source.left(self.position)
    }

    /// Whether nothing but zeros follow.
    pub async fn rest_is_zeros(&mut self) -> Result<bool, StorageError> {
        Ok(self.source.first_non_zero(self.position).await?.is_none())
    }
}

/// The content of a file that should be small.
pub async fn read_small_file(path: &Path) -> Result<Bytes, StorageError> {
    let mut source = Source::open(path).await?;
    if source.len() > SMALL_FILE_BYTES_MAX {
        let reason = format!("{} bytes are too many, at most {SMALL_FILE_BYTES_MAX} are read", source.len());
        return Err(StorageError::Corrupt { path: path.to_owned(), reason });
    }
    source.bytes(0, source.len()).await
}

/// The producers in a `.snapshot` file by id; `None` if it is damaged.
pub async fn read_snapshot(path: &Path) -> Result<Option<Vec<ProducerEntry>>, StorageError> {
    let bytes = read_small_file(path).await?;
    Ok(ProducerState::decode(&bytes).map(|producers| producers.entries()))
}

/// The content of a small file, `None` if it is not there.
pub(super) async fn read_small_if_there(path: &Path) -> Result<Option<Bytes>, StorageError> {
    if !fs::exists(path).await.at(path, "look for")? {
        return Ok(None);
    }
    match read_small_file(path).await {
        Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        content => content.map(Some),
    }
}
