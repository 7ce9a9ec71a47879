//! What opening a log after an unclean stop would do (contract L8), by the code that decides it then.

use std::path::{Path, PathBuf};

use heizer_runtime::fs::{File, OpenOptions};

use crate::checkpoint::{Checkpoint, PartitionKey};
use crate::epoch::EpochCache;
use crate::error::{IoContext, StorageError};
use crate::inspect::Progress;
use crate::inspect::layout::PartitionDir;
use crate::inspect::noted::NotedLogs;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DryRun {
    /// Why the log would not be opened at all, if so; then the rest says nothing.
    pub refused: Option<String>,
    /// Segments there are.
    pub segments: usize,
    /// Where it would start to scan; `None` if there is nothing to scan.
    pub start: Option<ScanStart>,
    /// Bytes of files from there on, reserved space included.
    pub scan_bytes: u64,
    /// Bytes of batches that hold, of these.
    pub held_bytes: u64,
    /// Bytes of reserved space that would go, without any loss.
    pub reserved_bytes: u64,
    /// Where it would cut, if anywhere.
    pub cut: Option<PlannedCut>,
    /// Segments damaged in the middle of the log, which would be kept and not read beyond the damage.
    pub damaged: Vec<Damaged>,
    /// The next offset of the log afterwards.
    pub log_end: i64,
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

/// A segment that is damaged where no crash can have torn it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The segment.
    pub file: PathBuf,
    /// Up to here it holds.
    pub position: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Finds out what recovery would do to the partition in `dir`, with or without what the logs have noted.
pub async fn recover_dry_run(
    dir: &PartitionDir,
    noted: &NotedLogs,
    progress: Progress<'_>,
) -> Result<DryRun, StorageError> {
    let segments = dir.segments();
    let mut run = DryRun { segments: segments.len(), ..DryRun::default() };
    let holds_data = segments.iter().any(|&(_, bytes)| bytes > 0);
    let topic_id = read_small_if_there(&dir.path.join(METADATA)).await?;
    let topic_id = topic_id.map(|text| paths::decode_metadata(&text));
    let key = key_of(dir, topic_id.flatten());
    let checkpoint = key.and_then(|key| noted.get(key));
    run.refused = refusal(&segments, topic_id, checkpoint).filter(|_| holds_data || checkpoint.is_some());
    if run.refused.is_some() {
        return Ok(run);
    }
    let checkpoint = checkpoint.filter(|noted| {
        segments.iter().any(|&(base, bytes)| base == noted.segment && bytes >= u64::from(noted.position))
    });
    let text = read_small_if_there(&dir.path.join(EPOCHS)).await?;
    let epochs = text.and_then(|text| EpochCache::decode(&text));
    let indexed: Vec<i64> =
        segments.iter().map(|&(base, _)| base).filter(|&base| dir.is_indexed(base)).collect();
    let first = accept::trusted_segments(&segments, &indexed, OpenMode::Unclean, epochs.is_some());
    let scanned = &segments[first..];
    let Some(&(base, _)) = scanned.first() else { return Ok(run) };
    let mut epochs = epochs.unwrap_or_default();
    epochs.truncate_end(base);
    let settled = indexed.last().copied().max(checkpoint.map(|noted| noted.next_offset));
    run.scan_bytes = scanned.iter().map(|&(base, bytes)| bytes - start_in(base, checkpoint).position).sum();
    run.start = Some(start_in(base, checkpoint));
    Scan { run: &mut run, dir: &dir.path, epochs, checkpoint, settled, progress }.run(scanned).await?;
    Ok(run)
}

fn key_of(dir: &PartitionDir, topic_id: Option<[u8; 16]>) -> Option<PartitionKey> {
    PartitionKey::of(topic_id?, dir.path.file_name()?.to_str()?)
}

/// Where the scan of the segment at `base` starts.
fn start_in(base: i64, checkpoint: Option<&Checkpoint>) -> ScanStart {
    let front = ScanStart { base, position: 0, offset: base };
    let noted = checkpoint.filter(|noted| noted.segment == base);
    noted.map_or(front, |noted| ScanStart {
        base,
        position: noted.position.into(),
        offset: noted.next_offset,
    })
}

/// Why the log would not be opened, whatever its batches are.
fn refusal(
    segments: &[(i64, u64)],
    topic_id: Option<Option<[u8; 16]>>,
    checkpoint: Option<&Checkpoint>,
) -> Option<String> {
    let name = |base| paths::numbered(Path::new(""), base, LOG).display().to_string();
    if let Some(&(base, bytes)) = segments.iter().find(|&&(_, bytes)| bytes > SEGMENT_FILE_BYTES_MAX) {
        return Some(format!("{}: {bytes} bytes are too many for a segment", name(base)));
    }
    match topic_id {
        None => return Some(format!("{METADATA} is missing")),
        Some(None) => return Some(format!("{METADATA} is not of version 0 with a topic id")),
        Some(Some(_)) => {}
    }
    let noted = checkpoint?;
    let lost = segments.iter().all(|&(base, _)| base < noted.segment);
    lost.then(|| format!("{} is missing, and the log was noted to have it", name(noted.segment)))
}

/// The scan of a log's segments.
struct Scan<'a> {
    run: &'a mut DryRun,
    dir: &'a Path,
    epochs: EpochCache,
    checkpoint: Option<&'a Checkpoint>,
    /// Nothing below this is the torn end of the log.
    settled: Option<i64>,
    progress: Progress<'a>,
}

impl Scan<'_> {
    /// Walks the segments as recovery does.
    async fn run(mut self, segments: &[(i64, u64)]) -> Result<(), StorageError> {
        for (at, &(base, file_bytes)) in segments.iter().enumerate() {
            let file = paths::numbered(self.dir, base, LOG);
            if let Some(noted) = self.checkpoint.filter(|noted| noted.segment == base) {
                for epoch in &noted.epochs {
                    self.epochs.assign(epoch.epoch, epoch.start);
                }
            }
            let (position, stop) = self.segment(&file, base, file_bytes).await?;
            let later = &segments[at + 1..];
            let gap = accept::gap(self.run.log_end, later.first().map(|&(base, _)| base));
            let Some(reason) = stop.or(gap) else {
                self.run.reserved_bytes += file_bytes - position;
                continue;
            };
            if !later.is_empty() && accept::is_settled(self.run.log_end, self.settled) {
                self.run.damaged.push(Damaged { file, position, reason });
                continue;
            }
            let removed: u64 = later.iter().map(|&(_, bytes)| bytes).sum();
            let (bytes, segments_removed) = (file_bytes - position + removed, later.len());
            self.run.cut = Some(PlannedCut { file, position, bytes, segments_removed, reason });
            return Ok(());
        }
        Ok(())
    }

    /// Where the batches of one file end, and why there unless that is its end.
    async fn segment(
        &mut self,
        path: &Path,
        base: i64,
        file_bytes: u64,
    ) -> Result<(u64, Option<String>), StorageError> {
        let start = start_in(base, self.checkpoint);
        self.run.log_end = start.offset;
        let options = OpenOptions { read: true, direct: true, ..OpenOptions::default() };
        let file = File::open(path, options).await.at(path, "open")?;
        // A broker at work may have cut reserved space off since the directory was listed.
        let end = file.len().await.at(path, "look at")?.min(file_bytes).max(start.position);
        let mut walker = Walker::new(file, path, start.position, end);
        let mut held = start.position;
        loop {
            let (header, bytes) = match walker.next().await? {
                Step::Batch { header, bytes, .. } => (header, bytes),
                Step::End => return Ok((held, None)),
                Step::Bad(reason) => return Ok((held, Some(reason))),
            };
            let (expected, epoch) = (self.run.log_end, self.epochs.latest());
            if let Err(reason) = accept::acceptable(&header, &bytes, base, expected, epoch) {
                return Ok((held, Some(reason)));
            }
            self.epochs.assign(header.partition_leader_epoch, header.base_offset);
            self.run.log_end = header.next_offset();
            self.run.held_bytes += bytes.len() as u64;
            held = walker.position();
            (self.progress)(path, bytes.len() as u64);
        }
    }
}
