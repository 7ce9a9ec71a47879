//! The core's durable stream, as the host sees it: records with the positions they start at.

use bytes::Bytes;
use heizer_storage::stream::Stream;
use heizer_storage::{LogFailed, StorageContext, StorageError};
use std::path::Path;
use std::rc::Rc;

/// A replayed record and where it starts.
pub(crate) type Replayed = (u64, Bytes);

/// Owned by the host; one writer.
pub(crate) struct Journal {
    stream: Rc<Stream>,
}

impl Journal {
    pub(crate) async fn open(
        dir: &Path,
        ctx: &Rc<StorageContext>,
    ) -> Result<(Journal, Vec<Replayed>), StorageError> {
        let (stream, entries) = Stream::open(dir, ctx).await?;
        Ok((Journal { stream }, entries.into_iter().map(|e| (e.start, e.payload)).collect()))
    }

    /// Appends one record and returns where it starts. It becomes durable soon; `sync` waits for that.
    pub(crate) fn append(&self, record: &[u8]) -> Result<u64, LogFailed> {
        let start = self.stream.end();
        self.stream.append(record)?;
        Ok(start)
    }

    /// Waits until everything appended so far is durable.
    pub(crate) async fn sync(&self) -> Result<(), LogFailed> {
        self.stream.flush().await
    }

    pub(crate) fn truncate_before(&self, position: u64) {
        self.stream.truncate_before(position);
    }

    pub(crate) fn end(&self) -> u64 {
        self.stream.end()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.stream.bytes()
    }

    /// Waits no longer for a full disk: what waits fails.
    pub(crate) fn give_up_waiting(&self) {
        self.stream.give_up_waiting();
    }

    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        self.stream.close().await
    }
}
