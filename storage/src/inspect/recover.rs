//! What opening a log after an unclean stop would do (contract L8), by the code that would do it.

use std::path::{Path, PathBuf};

use heizer_runtime::fs::{File, OpenOptions};

use crate::epoch::EpochCache;
use crate::error::{IoContext, StorageError};
use crate::inspect::Progress;
use crate::inspect::layout::PartitionDir;
use crate::inspect::tables::read_small_if_there;
use crate::log::{OpenMode, SEGMENT_FILE_BYTES_MAX, accept};
use crate::paths::{self, EPOCHS, LOG, METADATA};
use crate::segment::{Step, Walker};

/// Where a scan starts: what lies before needs none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ScanStart {
    /// The base offset of the segment, which names its file.
    pub base: i64,
    /// Where in the file; a batch starts there, or the file ends.
    pub position: u64,
    /// The offset expected there.
    pub offset: i64,
}

/// What recovery would do to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// Segments there are.
    pub segments: usize,
    /// Where it would start to scan; `None` if there is no segment.
    pub start: Option<ScanStart>,
    /// Bytes of files from there on.
    pub scan_bytes: u64,
    /// Bytes of batches that hold, of these.
    pub held_bytes: u64,
    /// Bytes of reserved space that would go without loss.
    pub reserved_bytes: u64,
    /// Where it would cut, if anywhere.
    pub cut: Option<PlannedCut>,
    /// The next offset of the log afterwards.
    pub log_end: i64,
    /// Why the log could not be opened at all, if so.
    pub refused: Option<String>,
}

/// Where recovery would cut, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCut {
    /// The segment that would be cut; those behind it would be removed.
    pub file: PathBuf,
    /// It would end here.
    pub position: u64,
    /// Bytes that would be cut off or removed, reserved space included.
    pub bytes: u64,
    /// Segments that would be removed whole.
    pub segments_removed: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Finds out what recovery would do to the partition in `dir`. It scans from `start` on, or from the first segment
/// that is not sealed.
pub async fn recover_dry_run(
    dir: &PartitionDir,
    start: Option<ScanStart>,
    progress: Progress<'_>,
) -> Result<DryRun, StorageError> {
    let segments = dir.segments();
    let text = read_small_if_there(&dir.path.join(EPOCHS)).await?;
    let epochs = text.and_then(|text| EpochCache::decode(&text));
    let first = first_scanned(dir, &segments, start, epochs.is_some());
    let mut run = DryRun {
        segments: segments.len(),
        start: None,
        scan_bytes: 0,
        held_bytes: 0,
        reserved_bytes: 0,
        cut: None,
        log_end: 0,
        refused: refusal(dir, &segments).await?,
    };
    let Some(&(base, _)) = segments.get(first) else { return Ok(run) };
    let start = start.filter(|start| start.base == base);
    let start = start.unwrap_or(ScanStart { base, position: 0, offset: base });
    (run.start, run.log_end) = (Some(start), start.offset);
    let mut epochs = epochs.unwrap_or_default();
    epochs.truncate_end(start.offset);
    run.scan_bytes = segments[first..].iter().map(|&(_, bytes)| bytes).sum::<u64>();
    run.scan_bytes = run.scan_bytes.saturating_sub(start.position);
    run.scan(&dir.path, &segments[first..], start, &mut epochs, progress).await?;
    Ok(run)
}

/// Which segment is the first to be scanned.
fn first_scanned(
    dir: &PartitionDir,
    segments: &[(i64, u64)],
    start: Option<ScanStart>,
    epochs_known: bool,
) -> usize {
    if let Some(start) = start {
        return segments.partition_point(|&(base, _)| base < start.base);
    }
    let bases = segments.iter().map(|&(base, _)| base);
    let indexed: Vec<i64> = bases.filter(|&base| dir.is_indexed(base)).collect();
    accept::trusted_segments(segments, &indexed, OpenMode::Unclean, epochs_known)
}

/// Why the log would not be opened, whatever its batches are.
async fn refusal(dir: &PartitionDir, segments: &[(i64, u64)]) -> Result<Option<String>, StorageError> {
    if let Some((base, bytes)) = segments.iter().find(|&&(_, bytes)| bytes > SEGMENT_FILE_BYTES_MAX) {
        let name = paths::numbered(Path::new(""), *base, LOG);
        return Ok(Some(format!("{}: {bytes} bytes are too many for a segment", name.display())));
    }
    if segments.iter().all(|&(_, bytes)| bytes == 0) {
        return Ok(None);
    }
    let reason = match read_small_if_there(&dir.path.join(METADATA)).await? {
        None => "is missing",
        Some(text) if paths::decode_metadata(&text).is_none() => "is not of version 0 with a topic id",
        Some(_) => return Ok(None),
    };
    Ok(Some(format!("{METADATA} {reason}")))
}

impl DryRun {
    /// Walks the segments as recovery does.
    async fn scan(
        &mut self,
        dir: &Path,
        segments: &[(i64, u64)],
        start: ScanStart,
        epochs: &mut EpochCache,
        progress: Progress<'_>,
    ) -> Result<(), StorageError> {
        for (at, &(base, file_bytes)) in segments.iter().enumerate() {
            let file = paths::numbered(dir, base, LOG);
            let (from, expected) = if at == 0 { (start.position, start.offset) } else { (0, base) };
            let (end, stop) =
                self.scan_segment(&file, base, from..file_bytes, expected, epochs, progress).await?;
            self.held_bytes += end - from.min(end);
            let later = &segments[at + 1..];
            let gap = accept::gap(self.log_end, later.first().map(|&(base, _)| base));
            if let Some(reason) = stop.or(gap) {
                let removed: u64 = later.iter().map(|&(_, bytes)| bytes).sum();
                let bytes = file_bytes - end + removed;
                let segments_removed = later.len();
                self.cut = Some(PlannedCut { file, position: end, bytes, segments_removed, reason });
                return Ok(());
            }
            self.reserved_bytes += file_bytes - end;
        }
        Ok(())
    }

    /// Where the batches of one file end, and why there unless that is its end.
    async fn scan_segment(
        &mut self,
        path: &Path,
        base: i64,
        range: std::ops::Range<u64>,
        expected: i64,
        epochs: &mut EpochCache,
        progress: Progress<'_>,
    ) -> Result<(u64, Option<String>), StorageError> {
        self.log_end = expected;
        let from = range.start.min(range.end);
        let options = OpenOptions { read: true, direct: true, ..OpenOptions::default() };
        let file = File::open(path, options).await.at(path, "open")?;
        // A running broker may have cut reserved space off since the directory was listed.
        let file_bytes = file.len().await.at(path, "look at")?.min(range.end).max(from);
        let mut walker = Walker::new(file, path, from, file_bytes);
        let mut held = from;
        loop {
            let (header, bytes) = match walker.next().await? {
                Step::Batch { header, bytes, .. } => (header, bytes),
                Step::End => return Ok((held, None)),
                Step::Bad(reason) => return Ok((held, Some(reason))),
            };
            if let Err(reason) = accept::acceptable(&header, &bytes, base, self.log_end, epochs.latest()) {
                return Ok((held, Some(reason)));
            }
            epochs.assign(header.partition_leader_epoch, header.base_offset);
            self.log_end = header.next_offset();
            held = walker.position();
            progress(path, bytes.len() as u64);
        }
    }
}
