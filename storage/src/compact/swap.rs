//! How a cleaned segment takes the place of those that it was made from, whatever crashes on the way (contract L9).
//!
//! 1. `BASE.log.cleaned` and its indexes are written and synced. A crash before the next step leaves the log as it was:
//!    names that end in `.cleaned` are removed when the log is opened.
//! 2. `BASE.log.cleaned` becomes `BASE.log.swap`, durably. From here on the new segment counts.
//! 3. The old segments but the first go, the new indexes take the place of the first one's, durably.
//! 4. `BASE.log.swap` becomes `BASE.log`, durably.
//!
//! A `.log.swap` that is found when a log is opened says that step 3 was not known to be over. It tells the range that
//! it covers by its own first and last batch: the last batch of every cleaned segment stays, even empty, so that
//! segments go on where those before end. All of step 3 is done again, then step 4.

use std::path::Path;

use heizer_runtime::fs::{self, File, OpenOptions};

use crate::batch::{crc_matches, index_timestamp};
use crate::error::{IoContext, StorageError};
use crate::index::Indexes;
use crate::paths::{self, INDEX, LOG, SNAPSHOT, TIME_INDEX};
use crate::segment::{Step, Walker, remove_if_there};

const CLEANED: &str = ".cleaned";
pub(super) const LOG_CLEANED: &str = "log.cleaned";
pub(super) const INDEX_CLEANED: &str = "index.cleaned";
pub(super) const TIME_INDEX_CLEANED: &str = "timeindex.cleaned";
/// What the name of a segment on its way in ends with, after its base offset.
pub(crate) const LOG_SWAP: &str = "log.swap";

/// The interval of indexes that are built anew, where the settings are not at hand.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// Whether a file of this name is of a round that did not come to its end.
pub(crate) fn is_cleaned(name: &str) -> bool {
    name.ends_with(CLEANED)
}

/// Removes what a round has written under `base`, if it came to nothing.
pub(crate) async fn remove_cleaned(dir: &Path, base: i64) -> Result<(), StorageError> {
    for suffix in [LOG_CLEANED, INDEX_CLEANED, TIME_INDEX_CLEANED] {
        remove_if_there(&paths::numbered(dir, base, suffix)).await?;
    }
    Ok(())
}

/// Steps 2 to 4 for the cleaned segment at `base`. `others` are the bases of the old segments after the first. After
/// an error from step 3 on the directory is half way, and only the next opening of the log sets that right.
pub(crate) async fn swap(dir: &Path, base: i64, others: &[i64]) -> Result<(), StorageError> {
    let rename = async |from: &str, to: &str| {
        let from = paths::numbered(dir, base, from);
        fs::rename(&from, &paths::numbered(dir, base, to)).await.at(&from, "rename")
    };
    rename(LOG_CLEANED, LOG_SWAP).await?;
    sync(dir).await?;
    for &other in others {
        for suffix in [INDEX, TIME_INDEX, SNAPSHOT, LOG] {
            remove_if_there(&paths::numbered(dir, other, suffix)).await?;
        }
    }
    rename(TIME_INDEX_CLEANED, TIME_INDEX).await?;
    rename(INDEX_CLEANED, INDEX).await?;
    sync(dir).await?;
    rename(LOG_SWAP, LOG).await?;
    sync(dir).await
}

/// Brings a swap to its end that a crash has cut short.
pub(crate) async fn finish_swap(dir: &Path, base: i64) -> Result<(), StorageError> {
    let path = paths::numbered(dir, base, LOG_SWAP);
    let (indexes, next_offset) = survey(&path, base).await?;
    for entry in fs::read_dir(dir).await.at(dir, "list")? {
        let replaced = paths::parse_numbered(&entry.name).filter(|&(of, suffix)| {
            base < of && of < next_offset && matches!(suffix, LOG | INDEX | TIME_INDEX | SNAPSHOT)
        });
        if replaced.is_some() {
            remove_if_there(&dir.join(&entry.name)).await?;
        }
    }
    for (suffix, content) in [(TIME_INDEX, indexes.times.encode()), (INDEX, indexes.offsets.encode())] {
        let index = paths::numbered(dir, base, suffix);
        fs::replace(&index, content).await.at(&index, "write")?;
    }
    sync(dir).await?;
    fs::rename(&path, &paths::numbered(dir, base, LOG)).await.at(&path, "rename")?;
    tracing::info!(dir = %dir.display(), base, next_offset, "finished taking in a cleaned segment");
    sync(dir).await
}

/// The indexes of the file at `path` and the offset after its last batch. It was synced before it got its name, so
/// anything but whole batches is damage of the disk.
async fn survey(path: &Path, base: i64) -> Result<(Indexes, i64), StorageError> {
    let corrupt = |position: u64, reason: &str| StorageError::Corrupt {
        path: path.to_owned(),
        reason: format!("at {position}: {reason}"),
    };
    let options = OpenOptions { read: true, direct: true, ..OpenOptions::default() };
    let file = File::open(path, options).await.at(path, "open")?;
    let bytes = file.len().await.at(path, "size")?;
    let mut walker = Walker::new(file, path, 0, bytes);
    let (mut indexes, mut next_offset) = (Indexes::default(), base);
    while walker.position() < bytes {
        let (header, position, batch) = match walker.next().await? {
            Step::Batch { header, position, bytes } => (header, position, bytes),
            Step::End => return Err(corrupt(walker.position(), "zeros")),
            Step::Bad(reason) => return Err(corrupt(walker.position(), &reason)),
        };
        let (Ok(relative), Ok(at)) = (u32::try_from(header.last_offset() - base), u32::try_from(position))
        else {
            return Err(corrupt(position, "out of reach of the segment"));
        };
        if header.base_offset < next_offset || !crc_matches(&header, &batch) {
            return Err(corrupt(position, "a batch that is damaged or out of order"));
        }
        indexes.add(relative, at, batch.len(), index_timestamp(&header), INDEX_INTERVAL_BYTES);
        next_offset = header.next_offset();
    }
    indexes.finish();
    Ok((indexes, next_offset))
}

async fn sync(dir: &Path) -> Result<(), StorageError> {
    fs::sync_dir(dir).await.at(dir, "sync")
}
