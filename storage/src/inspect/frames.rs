//! Entries out of a file of a stream.

use std::path::Path;

use bytes::Bytes;

use crate::error::StorageError;
use crate::inspect::source::Source;
use crate::stream::ENTRY_BYTES_MAX;
use crate::stream::frame::{self, Frame, PREFIX_BYTES};

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum NextFrame {
    /// An entry whose CRC holds.
    Entry {
        /// Where it starts in the file.
        position: u64,
        /// Where it ends.
        end: u64,
        /// What was appended.
        payload: Bytes,
    },
    /// Nothing more, but for so many bytes of reserved space.
    End {
        /// Where the entries end.
        position: u64,
        /// Bytes from there to the file's end.
        left: u64,
    },
    /// What follows is no entry; nothing beyond can be read.
    Bad {
        /// Where it starts.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a `.stream` file entry by entry; after the end, or something bad, it stays there.
pub struct FrameReader {
    source: Source,
    base: u64,
    position: u64,
}

impl FrameReader {
    /// Starts at the front of `path`, which starts at `base` of its stream.
    pub async fn open(path: &Path, base: u64) -> Result<Self, StorageError> {
        Ok(Self { source: Source::open(path).await?, base, position: 0 })
    }

    /// The file's length in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.source.len()
    }

    /// The next entry, or why there is none.
    pub async fn next(&mut self) -> Result<NextFrame, StorageError> {
        let (position, left) = (self.position, self.source.left(self.position));
        let prefix = self.source.bytes(position, PREFIX_BYTES as u64).await?;
        let length = prefix.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if length > ENTRY_BYTES_MAX {
            let reason = format!("an entry of {length} bytes, at most {ENTRY_BYTES_MAX} are possible");
            return Ok(NextFrame::Bad { position, reason });
        }
        let bytes = self.source.bytes(position, (PREFIX_BYTES + length) as u64).await?;
        Ok(match frame::parse(self.base.wrapping_add(position), &bytes) {
            Frame::Entry(payload) => {
                self.position += bytes.len() as u64;
                NextFrame::Entry { position, end: self.position, payload }
            }
            Frame::End => NextFrame::End { position, left },
            Frame::Bad(reason) => NextFrame::Bad { position, reason: reason.to_owned() },
        })
    }
}
