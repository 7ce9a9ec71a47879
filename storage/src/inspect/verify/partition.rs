//! One partition: its segments with their indexes, one after the other, and its small files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::epoch::EpochCache;
use crate::error::StorageError;
use crate::inspect::batches::{BatchReader, Next, StoredBatch};
use crate::inspect::layout::{FileKind, PartitionDir, TXN_INDEX};
use crate::inspect::tables::{
    AbortedReader, Entry, OffsetEntry, TableReader, TimeEntry, read_small_if_there, read_snapshot,
};
use crate::inspect::verify::Verifier;
use crate::inspect::verify::indexes::{OffsetCheck, TimeCheck};
use crate::inspect::verify::segment::{LogState, SegmentCheck};
use crate::paths::{self, EPOCHS, INDEX, LOG, LOG_START, METADATA, SNAPSHOT, TIME_INDEX};

/// Kafka's own metadata log, the one topic without an id on the disk.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Checks everything in `dir`.
pub(super) async fn verify(verifier: &mut Verifier<'_>, dir: &PartitionDir) -> Result<(), StorageError> {
    names(verifier, dir);
    let segments = dir.segments();
    let holds_data = segments.iter().any(|&(_, bytes)| bytes > 0);
    metadata(verifier, dir, holds_data).await?;
    let log_start = log_start(verifier, dir).await?;
    let mut log = LogState::new(log_start, epochs(verifier, dir, holds_data).await?);
    for (at, &(base, bytes)) in segments.iter().enumerate() {
        let next_base = segments.get(at + 1).map(|&(next, _)| next);
        let path = paths::numbered(&dir.path, base, LOG);
        if let Some(end) = log.next_offset.filter(|&end| end < base) {
            let what =
                format!("offsets from {end} on are missing before this segment: compaction, or a loss");
            verifier.note(&path, None, Some(base), what);
        }
        let indexed = dir.is_indexed(base);
        let in_motion = dir.held_by.is_some() && (next_base.is_none() || !indexed);
        let place = Place { base, next_base, bytes, indexed, in_motion };
        segment(verifier, dir, &path, &place, &mut log).await?;
    }
    let log_end = log.next_offset.unwrap_or(0).max(segments.last().map_or(0, |&(base, _)| base));
    if log_start > log_end {
        let what = format!("the log starts at {log_start}, and ends at {log_end}");
        verifier.error(&dir.path, None, None, what);
    }
    for (epoch, start) in log.checkpoint.iter().flat_map(|epochs| epochs.entries()) {
        if start > log_end {
            let what = format!("epoch {epoch} starts there, beyond the log's end at {log_end}");
            verifier.note(&dir.path.join(EPOCHS), None, Some(start), what);
        }
    }
    small_files(verifier, dir, log_end).await
}

/// Names that mean nothing here, and files without their segment.
fn names(verifier: &mut Verifier<'_>, dir: &PartitionDir) {
    for file in &dir.files {
        let path = dir.path.join(&file.name);
        match FileKind::of(&file.name) {
            FileKind::Passing => verifier.note(&path, None, None, "left over from a replacement or removal"),
            FileKind::Other => verifier.note(&path, None, None, "belongs to no log"),
            FileKind::Index | FileKind::TimeIndex | FileKind::TxnIndex => {
                let base = FileKind::base_of(&file.name);
                if base.is_none_or(|base| !dir.has_numbered(base, LOG)) {
                    verifier.note(&path, None, None, "its segment is not there");
                }
            }
            _ => {}
        }
    }
}

async fn metadata(
    verifier: &mut Verifier<'_>,
    dir: &PartitionDir,
    holds_data: bool,
) -> Result<(), StorageError> {
    let path = dir.path.join(METADATA);
    match read_small_if_there(&path).await? {
        Some(text) if paths::decode_metadata(&text).is_none() => {
            verifier.error(&path, None, None, "is not of version 0 with a topic id");
        }
        None if holds_data && dir.name.as_ref().is_none_or(|(topic, _)| topic != METADATA_TOPIC) => {
            verifier.error(&path, None, None, "is missing: whose log this is cannot be told");
        }
        _ => {}
    }
    Ok(())
}

async fn log_start(verifier: &mut Verifier<'_>, dir: &PartitionDir) -> Result<i64, StorageError> {
    let path = dir.path.join(LOG_START);
    let own = match read_small_if_there(&path).await? {
        None => None,
        Some(text) => {
            let start = paths::decode_offset(&text);
            if start.is_none() {
                verifier.error(&path, None, None, "holds no offset");
            }
            start
        }
    };
    Ok(own.or(dir.checkpointed_start).unwrap_or(0))
}

async fn epochs(
    verifier: &mut Verifier<'_>,
    dir: &PartitionDir,
    holds_data: bool,
) -> Result<Option<EpochCache>, StorageError> {
    let path = dir.path.join(EPOCHS);
    let text = read_small_if_there(&path).await?;
    let epochs = text.as_deref().map(EpochCache::decode);
    match epochs {
        Some(None) => {
            verifier.error(&path, None, None, "is not a list of epochs and offsets that rise");
            Ok(None)
        }
        None if holds_data => {
            verifier.error(&path, None, None, "is missing, and the log has data");
            Ok(None)
        }
        epochs => Ok(epochs.flatten()),
    }
}

/// Where a segment is, and in which state.
struct Place {
    base: i64,
    next_base: Option<i64>,
    bytes: u64,
    /// Both its index files are there.
    indexed: bool,
    /// A broker may be writing it.
    in_motion: bool,
}

impl Place {
    /// Nothing is written to it any more.
    fn is_sealed(&self) -> bool {
        self.indexed && self.next_base.is_some()
    }
}

async fn segment(
    verifier: &mut Verifier<'_>,
    dir: &PartitionDir,
    path: &Path,
    place: &Place,
    log: &mut LogState,
) -> Result<(), StorageError> {
    let mut batches = match BatchReader::open(path).await {
        Err(error) if dir.held_by.is_some() && is_missing(&error) => {
            verifier.note(path, None, None, "was removed meanwhile");
            return Ok(());
        }
        batches => batches?,
    };
    verifier.summary.segments += 1;
    verifier.summary.bytes += place.bytes;
    if place.next_base.is_some() && !place.indexed && !place.in_motion {
        verifier.note(path, None, None, "an index file is missing: not sealed, recovery would scan it");
    }
    let mut offsets = Feed::<OffsetEntry>::open(dir, place.base, INDEX).await?;
    let mut times = Feed::<TimeEntry>::open(dir, place.base, TIME_INDEX).await?;
    let mut offset_check = OffsetCheck::new(place.base);
    let mut time_check = TimeCheck::new(place.base);
    let mut check = SegmentCheck::new(place.base, place.next_base);
    let readable = loop {
        let batch = match batches.next().await? {
            Next::Batch(batch) => batch,
            end => break end_of_segment(verifier, path, place, log, end),
        };
        let flaws = check.batch(log, &batch);
        verifier.find_all(path, flaws);
        offset_entries(verifier, offsets.as_mut(), &mut offset_check, &batch).await?;
        time_entries(verifier, times.as_mut(), &mut time_check, &batch).await?;
        (verifier.progress)(path, batch.size() as u64);
    };
    verifier.summary.batches += check.batches;
    verifier.summary.records += check.records;
    if let (gaps, Some(first)) = check.gaps {
        let what =
            format!("{gaps} runs of offsets are missing between batches from here on: compaction, or a loss");
        verifier.note(path, None, Some(first), what);
    }
    if check.legacy > 0 {
        let what =
            format!("{} messages of formats v0 and v1; their insides were not looked at", check.legacy);
        verifier.note(path, None, None, what);
    }
    if !readable || place.in_motion {
        // What the indexes say of the rest cannot be judged.
        return Ok(());
    }
    rest_of_offsets(verifier, offsets, &mut offset_check, place).await?;
    rest_of_times(verifier, times, &mut time_check, place).await
}

/// Judges what follows the last batch; `false` where batches may have become unreadable.
fn end_of_segment(
    verifier: &mut Verifier<'_>,
    path: &Path,
    place: &Place,
    log: &LogState,
    end: Next,
) -> bool {
    let offset = Some(log.next_offset.unwrap_or(place.base).max(place.base));
    match end {
        Next::Batch(_) => unreachable!("the caller took it"),
        Next::End => true,
        Next::Zeros { position, left, first_other: None } => {
            let what = format!("{left} bytes of zeros");
            if place.is_sealed() {
                verifier.error(
                    path,
                    Some(position),
                    offset,
                    format!("{what} at the end of a sealed segment"),
                );
            } else if !place.in_motion {
                verifier.note(path, Some(position), offset, format!("{what}: reserved space"));
            }
            true
        }
        Next::Zeros { position, first_other: Some(other), .. } => {
            let what = format!("zeros, and other bytes again from position {other} on");
            if place.indexed && !place.in_motion {
                verifier.error(path, Some(position), offset, what);
            } else {
                verifier.note(path, Some(position), offset, format!("{what}: not part of the log"));
            }
            false
        }
        Next::Bad { position, reason, left } => {
            if place.in_motion {
                let what = format!("{reason}; it may be in motion");
                verifier.note(path, Some(position), offset, what);
            } else {
                let what = format!("{reason}; the last {left} bytes cannot be read");
                verifier.error(path, Some(position), offset, what);
            }
            false
        }
    }
}

/// Checks the entries that point at or into `batch`.
async fn offset_entries(
    verifier: &mut Verifier<'_>,
    feed: Option<&mut Feed<OffsetEntry>>,
    check: &mut OffsetCheck,
    batch: &StoredBatch,
) -> Result<(), StorageError> {
    let Some(feed) = feed else { return Ok(()) };
    let end = batch.position() + batch.size() as u64;
    let mut flaws: Vec<_> = check.follows(batch).into_iter().collect();
    while let Some((at, entry)) = feed.peek().await? {
        if !feed.judged {
            feed.judged = true;
            if let Err(flaw) = check.rises(at, entry) {
                flaws.push(flaw);
                feed.advance();
                continue;
            }
        }
        if u64::from(entry.position) >= end {
            break;
        }
        flaws.extend(check.points_at(at, entry, batch));
        feed.advance();
    }
    verifier.find_all(&feed.path, flaws);
    Ok(())
}

/// Checks the entries whose offset `batch` reaches.
async fn time_entries(
    verifier: &mut Verifier<'_>,
    feed: Option<&mut Feed<TimeEntry>>,
    check: &mut TimeCheck,
    batch: &StoredBatch,
) -> Result<(), StorageError> {
    let Some(feed) = feed else { return Ok(()) };
    let mut flaws = Vec::new();
    while let Some((at, entry)) = feed.peek().await? {
        if !feed.judged {
            feed.judged = true;
            if let Err(flaw) = check.rises(at, entry) {
                flaws.push(flaw);
                feed.advance();
                continue;
            }
        }
        if feed.base + i64::from(entry.relative) > batch.last_offset() {
            break;
        }
        flaws.extend(check.holds(at, entry, batch));
        feed.advance();
    }
    check.take(batch);
    verifier.find_all(&feed.path, flaws);
    Ok(())
}

/// Entries of the offset index that no batch was met for.
async fn rest_of_offsets(
    verifier: &mut Verifier<'_>,
    feed: Option<Feed<OffsetEntry>>,
    check: &mut OffsetCheck,
    place: &Place,
) -> Result<(), StorageError> {
    let Some(mut feed) = feed else { return Ok(()) };
    verifier.find_all(&feed.path, check.end().into_iter().collect());
    while let Some((at, entry)) = feed.peek().await? {
        verifier.find_all(&feed.path, vec![check.beyond(at, entry)]);
        feed.advance();
    }
    behind_entries(verifier, feed, place).await
}

/// Entries of the time index that no batch reaches, and the last one.
async fn rest_of_times(
    verifier: &mut Verifier<'_>,
    feed: Option<Feed<TimeEntry>>,
    check: &mut TimeCheck,
    place: &Place,
) -> Result<(), StorageError> {
    let Some(mut feed) = feed else { return Ok(()) };
    let mut beyond = false;
    while let Some((at, entry)) = feed.peek().await? {
        verifier.find_all(&feed.path, vec![check.beyond(at, entry)]);
        beyond = true;
        feed.advance();
    }
    if !beyond {
        verifier.find_all(&feed.path, check.end(place.is_sealed()).into_iter().collect());
    }
    behind_entries(verifier, feed, place).await
}

/// What follows the last whole entry of an index.
async fn behind_entries<E: Entry + Copy>(
    verifier: &mut Verifier<'_>,
    mut feed: Feed<E>,
    place: &Place,
) -> Result<(), StorageError> {
    let (position, rest) = (Some(feed.reader.position()), feed.reader.rest());
    if rest == 0 {
        return Ok(());
    }
    if !feed.reader.rest_is_zeros().await? {
        verifier.error(&feed.path, position, None, format!("{rest} bytes are no whole entry"));
    } else if place.is_sealed() {
        verifier.error(
            &feed.path,
            position,
            None,
            format!("{rest} bytes of zeros in the index of a sealed segment"),
        );
    } else {
        verifier.note(&feed.path, position, None, format!("{rest} bytes of zeros: reserved space"));
    }
    Ok(())
}

/// Whether a file is not there: a broker at work may have removed it since its directory was listed.
fn is_missing(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Entries of an index, one looked at ahead of its use.
struct Feed<E> {
    reader: TableReader<E>,
    path: PathBuf,
    base: i64,
    next: Option<(u64, E)>,
    /// The next one was compared with the one before.
    judged: bool,
}

impl<E: Entry + Copy> Feed<E> {
    async fn open(dir: &PartitionDir, base: i64, suffix: &str) -> Result<Option<Self>, StorageError> {
        if !dir.has_numbered(base, suffix) {
            return Ok(None);
        }
        let path = paths::numbered(&dir.path, base, suffix);
        let reader = match TableReader::open(&path).await {
            // A broker at work removes the indexes of a segment that grows again.
            Err(error) if dir.held_by.is_some() && is_missing(&error) => return Ok(None),
            reader => reader?,
        };
        Ok(Some(Self { reader, path, base, next: None, judged: false }))
    }

    async fn peek(&mut self) -> Result<Option<(u64, E)>, StorageError> {
        if self.next.is_none() {
            let at = self.reader.position();
            self.next = self.reader.next().await?.map(|entry| (at, entry));
            self.judged = false;
        }
        Ok(self.next)
    }

    fn advance(&mut self) {
        self.next = None;
    }
}

/// Producer snapshots and Kafka's indexes of aborted transactions.
async fn small_files(
    verifier: &mut Verifier<'_>,
    dir: &PartitionDir,
    log_end: i64,
) -> Result<(), StorageError> {
    let numbered = dir.files.iter().filter(|file| !file.is_dir);
    for file in numbered {
        let path = dir.path.join(&file.name);
        match paths::parse_numbered(&file.name) {
            Some((offset, SNAPSHOT)) => snapshot(verifier, dir, &path, offset, log_end).await?,
            Some((_, TXN_INDEX)) => aborted(verifier, &path).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn snapshot(
    verifier: &mut Verifier<'_>,
    dir: &PartitionDir,
    path: &Path,
    offset: i64,
    log_end: i64,
) -> Result<(), StorageError> {
    if dir.held_by.is_some() && read_small_if_there(path).await?.is_none() {
        return Ok(());
    }
    let Some(producers) = read_snapshot(path).await? else {
        verifier.error(path, None, Some(offset), "cannot be decoded: its CRC, version or length is wrong");
        return Ok(());
    };
    if offset > log_end && dir.held_by.is_none() {
        let what = format!("was taken beyond the log's end at {log_end}");
        verifier.error(path, None, Some(offset), what);
    }
    if let Some(producer) = producers.iter().find(|producer| producer.last_offset >= offset) {
        let (id, last) = (producer.producer_id, producer.last_offset);
        let what = format!("says that producer {id} wrote at {last}, after it was taken");
        verifier.error(path, None, Some(offset), what);
    }
    Ok(())
}

async fn aborted(verifier: &mut Verifier<'_>, path: &Path) -> Result<(), StorageError> {
    let mut reader = AbortedReader::open(path).await?;
    let mut last = None;
    loop {
        let at = Some(reader.position());
        let Some(entry) = reader.next().await? else { break };
        let offset = Some(entry.last_offset);
        if entry.version != 0 {
            verifier.error(path, at, offset, format!("version {} is unknown", entry.version));
            return Ok(());
        }
        if entry.first_offset > entry.last_offset || last.is_some_and(|last| entry.last_offset <= last) {
            verifier.error(path, at, offset, "aborted transactions are out of order");
        }
        last = Some(entry.last_offset);
    }
    if reader.rest() > 0 {
        verifier.error(
            path,
            Some(reader.position()),
            None,
            format!("{} bytes are no whole entry", reader.rest()),
        );
    }
    Ok(())
}
