//! A file read in windows, from front to back.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::fs::{File, OpenOptions};

use crate::error::{IoContext, StorageError};
use crate::rope::to_usize;
use crate::tail::{block_ceil, block_floor};

/// Bytes read at once, unless one thing is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// A file open for reading only. Whoever writes it meanwhile may make it shorter, which is no error: then it ends
/// earlier.
pub(super) struct Source {
    file: File,
    path: PathBuf,
    len: u64,
    window: Bytes,
    window_start: u64,
}

impl Source {
    /// Opens `path` past the page cache where that can be done, so that a look at all data displaces none of it.
    pub(super) async fn open(path: &Path) -> Result<Self, StorageError> {
        let options = OpenOptions { read: true, direct: true, ..OpenOptions::default() };
        let file = File::open(path, options).await.at(path, "open")?;
        let len = file.len().await.at(path, "look at")?;
        Ok(Self { file, path: path.to_owned(), len, window: Bytes::new(), window_start: 0 })
    }

    /// The length, as far as is known.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes from `position` to the end.
    pub(super) fn left(&self, position: u64) -> u64 {
        self.len.saturating_sub(position)
    }

    /// `count` bytes from `position` on; fewer only where the file ends.
    pub(super) async fn bytes(&mut self, position: u64, count: u64) -> Result<Bytes, StorageError> {
        let end = (position + count).min(self.len);
        if position >= end {
            return Ok(Bytes::new());
        }
        let window_end = self.window_start + self.window.len() as u64;
        if position < self.window_start || end > window_end {
            self.fill(position, (end - position).max(WINDOW_BYTES)).await?;
        }
        let from = to_usize(position - self.window_start).min(self.window.len());
        let to = to_usize(end - self.window_start).min(self.window.len());
        Ok(self.window.slice(from..to))
    }

    /// The first position from `position` on that does not hold a zero; `None` if only zeros follow.
    pub(super) async fn first_non_zero(&mut self, position: u64) -> Result<Option<u64>, StorageError> {
        let mut at = position;
        loop {
            let piece = self.bytes(at, WINDOW_BYTES).await?;
            if piece.is_empty() {
                return Ok(None);
            }
            if let Some(found) = piece.iter().position(|&byte| byte != 0) {
                return Ok(Some(at + found as u64));
            }
            at += piece.len() as u64;
        }
    }

    async fn fill(&mut self, position: u64, count: u64) -> Result<(), StorageError> {
        let from = block_floor(position);
        let to = block_ceil((position + count).min(self.len));
        self.window = Bytes::new();
        let (read, mut buf) = self.file.read_at(AlignedBuf::for_reading(to_usize(to - from)), from).await;
        let read = read.at(&self.path, "read")?;
        buf.truncate(read);
        (self.window, self.window_start) = (buf.freeze(), from);
        if from + (read as u64) < to.min(self.len) {
            self.len = from + read as u64;
        }
        Ok(())
    }
}
