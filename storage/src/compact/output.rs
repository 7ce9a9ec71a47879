//! The new segment of a round while it is written, in pieces and past the page cache.

use std::path::{Path, PathBuf};

use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::fs::{self, File, OpenOptions, WriteSync};
use heizer_wire::record_batch::BatchHeader;

use crate::batch::index_timestamp;
use crate::error::{IoContext, StorageError};
use crate::index::Indexes;
use crate::paths;
use crate::rope::to_usize;
use crate::tail::block_ceil;

use super::swap::{INDEX_CLEANED, LOG_CLEANED, TIME_INDEX_CLEANED};

/// Bytes written at once.
const PIECE_BYTES: usize = 256 << 10;

/// Writes one `.log.cleaned`.
pub(crate) struct CleanedWriter {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    base: i64,
    index_interval_bytes: u32,
    piece: AlignedBuf,
    filled: usize,
    /// Where `piece` goes in the file.
    offset: u64,
    indexes: Indexes,
    next_offset: i64,
    first_timestamp: Option<i64>,
}

/// A new segment, whole and on stable storage under names that recovery throws away.
pub(crate) struct Cleaned {
    pub(crate) base: i64,
    pub(crate) bytes: u64,
    pub(crate) next_offset: i64,
    pub(crate) indexes: Indexes,
    pub(crate) first_timestamp: Option<i64>,
    /// Open for reading and direct writing, whatever its name becomes.
    pub(crate) file: File,
}

impl CleanedWriter {
    pub(crate) async fn create(
        dir: &Path,
        base: i64,
        index_interval_bytes: u32,
    ) -> Result<Self, StorageError> {
        let path = paths::numbered(dir, base, LOG_CLEANED);
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            truncate: true,
            direct: true,
            ..OpenOptions::default()
        };
        let file = File::open(&path, options).await.at(&path, "create")?;
        Ok(Self {
            dir: dir.to_owned(),
            path,
            file,
            base,
            index_interval_bytes,
            piece: AlignedBuf::zeroed(PIECE_BYTES),
            filled: 0,
            offset: 0,
            indexes: Indexes::default(),
            next_offset: base,
            first_timestamp: None,
        })
    }

    /// Adds a batch, whose header is `header`.
    pub(crate) async fn push(&mut self, header: &BatchHeader, mut bytes: &[u8]) -> Result<(), StorageError> {
        assert!(header.base_offset >= self.next_offset, "batches come in order");
        let position = self.offset + self.filled as u64;
        let Ok(position) = u32::try_from(position) else {
            // New delete horizons take some bytes a record; a segment near the limit has no room for them.
            let reason = "the cleaned segment would be larger than a segment can be".to_owned();
            return Err(StorageError::Corrupt { path: self.path.clone(), reason });
        };
        let relative = u32::try_from(header.last_offset() - self.base).expect("a group's reach");
        let timestamp = index_timestamp(header);
        self.indexes.add(relative, position, bytes.len(), timestamp, self.index_interval_bytes);
        self.first_timestamp = self.first_timestamp.or((timestamp >= 0).then_some(timestamp));
        self.next_offset = header.next_offset();
        while !bytes.is_empty() {
            let count = bytes.len().min(PIECE_BYTES - self.filled);
            self.piece[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == PIECE_BYTES {
                self.write_piece(PIECE_BYTES).await?;
            }
        }
        Ok(())
    }

    async fn write_piece(&mut self, len: usize) -> Result<(), StorageError> {
        let mut piece = std::mem::replace(&mut self.piece, AlignedBuf::zeroed(PIECE_BYTES));
        piece.truncate(len);
        let (offset, filled) = (self.offset, std::mem::take(&mut self.filled));
        self.offset += filled as u64;
        self.file.write_at(vec![piece.freeze()], offset, WriteSync::None).await.at(&self.path, "write")
    }

    /// Writes the rest and the indexes, and puts all of it on stable storage.
    pub(crate) async fn finish(mut self) -> Result<Cleaned, StorageError> {
        let bytes = self.offset + self.filled as u64;
        if self.filled > 0 {
            let whole_blocks = to_usize(block_ceil(self.filled as u64));
            self.write_piece(whole_blocks).await?;
        }
        self.file.set_len(bytes).await.at(&self.path, "truncate")?;
        self.file.sync_all().await.at(&self.path, "sync")?;
        self.indexes.finish();
        self.write_index(TIME_INDEX_CLEANED, self.indexes.times.encode()).await?;
        self.write_index(INDEX_CLEANED, self.indexes.offsets.encode()).await?;
        Ok(Cleaned {
            base: self.base,
            bytes,
            next_offset: self.next_offset,
            indexes: self.indexes,
            first_timestamp: self.first_timestamp,
            file: self.file,
        })
    }

    async fn write_index(&self, suffix: &str, content: Vec<u8>) -> Result<(), StorageError> {
        let path = paths::numbered(&self.dir, self.base, suffix);
        fs::replace(&path, content).await.at(&path, "write")
    }
}
