//! Walking the batches of a segment file, from a disk that is not to be trusted.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use heizer_runtime::fs::File;
use heizer_wire::record_batch::BatchHeader;

use crate::batch::{BadHeader, HEADER_BYTES, parse_header};
use crate::error::StorageError;
use crate::rope::to_usize;
use crate::segment::read_range;

/// Bytes read at once: little at first, for there may be no more, then twice as much each time.
const WINDOW_BYTES_MIN: u64 = 16 << 10;
const WINDOW_BYTES_MAX: u64 = 256 << 10;

/// What comes next in the file.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch that is whole by its length; nobody has looked at its CRC.
    Batch {
        header: BatchHeader,
        /// Where it starts.
        position: u64,
        bytes: Bytes,
    },
    /// The file ends here, or nothing but zeros follow as far as a header reaches.
    End,
    /// What follows is no batch.
    Bad(String),
}

/// Reads a file batch by batch.
pub(crate) struct Walker {
    file: File,
    path: PathBuf,
    position: u64,
    end: u64,
    window: Bytes,
    window_start: u64,
    window_bytes: u64,
}

impl Walker {
    /// From `position`, which starts a batch, up to `end`.
    pub(crate) fn new(file: File, path: &Path, position: u64, end: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            position,
            end,
            window: Bytes::new(),
            window_start: position,
            window_bytes: WINDOW_BYTES_MIN,
        }
    }

    /// Where the next step starts.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.position == self.end
    }

    pub(crate) async fn next(&mut self) -> Result<Step, StorageError> {
        let left = self.end - self.position;
        if left == 0 {
            return Ok(Step::End);
        }
        let look = self.look(left.min(HEADER_BYTES as u64)).await?;
        if look.len() < HEADER_BYTES {
            let zeros = look.iter().all(|&byte| byte == 0);
            return Ok(if zeros { Step::End } else { Step::Bad(format!("{left} bytes are no batch")) });
        }
        let header = match parse_header(&look) {
            Ok(header) => header,
            Err(BadHeader::Zeros) => return Ok(Step::End),
            Err(bad) => return Ok(Step::Bad(bad.to_string())),
        };
        let size = header.size_bytes() as u64;
        if size > left {
            return Ok(Step::Bad(format!("a batch of {size} bytes where {left} are left")));
        }
        let bytes = self.look(size).await?;
        let position = self.position;
        self.position += size;
        Ok(Step::Batch { header, position, bytes })
    }

    /// The next `count` bytes, of which there are that many.
    async fn look(&mut self, count: u64) -> Result<Bytes, StorageError> {
        let window_end = self.window_start + self.window.len() as u64;
        if self.position + count > window_end || self.position < self.window_start {
            let to = (self.position + count.max(self.window_bytes)).min(self.end);
            self.window_bytes = (self.window_bytes * 2).min(WINDOW_BYTES_MAX);
            self.window = read_range(&self.file, &self.path, self.position..to).await?;
            self.window_start = self.position;
        }
        let from = to_usize(self.position - self.window_start);
        Ok(self.window.slice(from..from + to_usize(count)))
    }
}
