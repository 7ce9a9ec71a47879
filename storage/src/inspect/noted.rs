//! Where recovery starts, by the checkpoint logs of a data directory.

use std::path::Path;

use heizer_runtime::collections::HashMap;
use heizer_runtime::fs;

use crate::checkpoint::{Checkpoint, PartitionKey, ROOT, decode_entry};
use crate::error::{IoContext, StorageError};
use crate::inspect::frames::{FrameReader, NextFrame};
use crate::inspect::layout::streams_below;
use crate::paths;
use crate::producer::ProducerState;
use crate::stream::STREAM;

/// What logs have noted of themselves.
#[derive(Debug, Default)]
pub struct NotedLogs {
    by_key: HashMap<PartitionKey, Checkpoint>,
}

impl NotedLogs {
    /// Reads what the checkpoint logs in `data_dir` say; nothing where there are none.
    ///
    /// A start with another number of cores ignores them and scans more.
    pub async fn read(data_dir: &Path) -> Result<Self, StorageError> {
        let root = data_dir.join(ROOT);
        let mut noted = Self::default();
        if fs::exists(&root).await.at(&root, "look for")? {
            for core in streams_below(&root).await? {
                noted.read_stream(&core).await?;
            }
        }
        Ok(noted)
    }

    pub(super) fn get(&self, key: PartitionKey) -> Option<&Checkpoint> {
        self.by_key.get(&key)
    }

    /// Of one partition the last entry counts; an entry that does not hold ends the stream.
    async fn read_stream(&mut self, dir: &Path) -> Result<(), StorageError> {
        let listed = fs::read_dir(dir).await.at(dir, "list")?;
        let numbered = listed.iter().filter_map(|entry| paths::parse_numbered(&entry.name));
        let mut expected = None;
        // Listings are sorted, and so are numbers of twenty digits.
        for (base, _) in numbered.filter(|&(_, suffix)| suffix == STREAM) {
            if expected.is_some_and(|expected| expected != base) {
                return Ok(());
            }
            let path = paths::numbered(dir, base, STREAM);
            let mut frames = FrameReader::open(&path, base.unsigned_abs()).await?;
            let end = loop {
                match frames.next().await? {
                    NextFrame::Entry { payload, .. } => self.take(&payload),
                    NextFrame::End { position, .. } => break position,
                    NextFrame::Bad { .. } => return Ok(()),
                }
            };
            expected = base.checked_add_unsigned(end);
        }
        Ok(())
    }

    fn take(&mut self, entry: &[u8]) {
        match decode_entry(entry) {
            Some((key, Some(checkpoint))) => {
                // Producers can be many, and where a scan starts does not depend on them.
                let checkpoint = Checkpoint { producers: ProducerState::default(), ..checkpoint };
                self.by_key.insert(key, checkpoint);
            }
            Some((key, None)) => drop(self.by_key.remove(&key)),
            None => {}
        }
    }
}
