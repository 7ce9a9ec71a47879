//! Opening a log; recovery after an unclean stop (contract L8, DESIGN §5).
//!
//! A segment is *sealed* once both its index files are there: they are written last, after the file was cut to its
//! exact length and synced. Sealed segments are trusted; after an unclean stop everything from the first unsealed
//! one on (the active one always) is read and checked batch by batch, or from the log's checkpoint on, if it lies
//! within.
//!
//! What is behind the last batch that holds is cut off where it may be the torn end of the log. Below the checkpoint,
//! or with a sealed segment after it, it cannot be: then it is damage, and the segment is quarantined, not cut.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use heizer_runtime::fs::{self, File, OpenOptions};
use heizer_runtime::sync::Event;
use heizer_runtime::time::wall_clock_ms;

use crate::batch::{HEADER_BYTES, index_timestamp, parse_header};
use crate::checkpoint::{Checkpoint, PartitionKey};
use crate::compact::{LOG_SWAP, finish_swap, is_cleaned};
use crate::config::{Level, LogConfig};
use crate::context::StorageContext;
use crate::dir::LogDir;
use crate::epoch::EpochCache;
use crate::error::{IoContext, OpenError, StorageError};
use crate::index::Indexes;
use crate::log::checkpoint::Growth;
use crate::log::{Log, Role, State, accept, roll_jitter_ms};
use crate::paths::{
    self, CLEANER_OFFSET, EPOCHS, INDEX, LOG, LOG_START, METADATA, RECYCLED, SNAPSHOT, SPARE, TIME_INDEX,
};
use crate::producer::ProducerState;
use crate::recycle::{self, Spares};
use crate::segment::{Found, Segment, Step, Walker, read_if_there, read_index_files, remove_if_there};
use crate::tail::block_floor;

/// Positions in a segment fit the four bytes that the index has for them.
pub(crate) const SEGMENT_FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// Whether the broker stopped in good order, by the marker in its data directory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Every log was closed: files are trusted as far as they fit together.
    Clean,
    /// Anything after the last sealed segment may be torn.
    Unclean,
}

/// What opening a log found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments there are now.
    pub segments: usize,
    /// Bytes that were checked batch by batch.
    pub scanned_bytes: u64,
    /// What was cut off, if anything.
    pub cut: Option<Cut>,
    /// The first offset.
    pub log_start: i64,
    /// The next offset.
    pub log_end: i64,
}

/// The end of a log that was not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of files cut off or removed, reserved space included.
    pub bytes: u64,
    /// The log ends here now.
    pub at_offset: i64,
    /// What was wrong.
    pub reason: String,
}

impl Log {
    /// Opens the log in the directory `name` of `home`, or starts one where there is none.
    ///
    /// The caller knows that there is such a partition, from a source that outlives a crash. So a log without data
    /// needs nothing on the disk: its directory and `partition.metadata` are made, durably, with its first data.
    pub async fn open(
        home: &Rc<LogDir>,
        name: &str,
        topic_id: [u8; 16],
        config: LogConfig,
        mode: OpenMode,
    ) -> Result<(Rc<Log>, RecoveryReport), OpenError> {
        let dir = &home.path().join(name);
        let listing = Listing::read(dir).await?;
        check_owner(dir, topic_id, &listing).await?;
        let mut opened = Opened { home_durable: listing.holds_data(), ..Opened::default() };
        if let Some((checkpoints, key)) = home.checkpoints().zip(PartitionKey::of(topic_id, name)) {
            opened.checkpoint = checkpoints.get(key);
        }
        opened.open(dir, &listing, mode, &config, home.context()).await?;
        let report = RecoveryReport {
            segments: opened.segments.len(),
            scanned_bytes: opened.scanned_bytes,
            cut: opened.cut.take(),
            log_start: opened.log_start,
            log_end: opened.segments.back().map_or(0, |active| active.next_offset()),
        };
        if let Some(Cut { bytes, at_offset, reason }) = &report.cut {
            tracing::warn!(log = %dir.display(), bytes, at_offset, reason, "cut the end off a log after an unclean stop");
        }
        let log = Log::assemble(home.clone(), dir, topic_id, config, opened);
        if log.end_at(Level::Durable) < report.log_end
            || mode == OpenMode::Unclean && listing.is_empty_directory()
        {
            home.make_durable(&log).await?;
        } else {
            log.note_growth();
        }
        Ok((log, report))
    }

    fn assemble(
        home: Rc<LogDir>,
        dir: &Path,
        topic_id: [u8; 16],
        config: LogConfig,
        opened: Opened,
    ) -> Rc<Log> {
        let active = opened.segments.back().expect("opening leaves an active segment");
        active.set_roll_jitter(roll_jitter_ms(&config));
        let log_end = active.next_offset();
        let state = State {
            config,
            segments: opened.segments,
            log_start: opened.log_start,
            // The process before may have ended between a change of the directory and its sync.
            noted_start: 0,
            written_end: log_end,
            durable_end: opened.unsynced_from.unwrap_or(log_end),
            epochs: opened.epochs,
            checkpointed: opened.checkpointed,
            home_durable: opened.home_durable,
            producers: opened.producers,
            role: Role::Idle,
            maintained: false,
            start_moving: false,
            clean_to: opened.clean_to,
            exclusive_waiting: 0,
            forced_end: log_end,
            dirty_since: None,
            growth: Growth::after_open(
                opened.checkpoint.map_or(0, |checkpoint| checkpoint.next_offset),
                opened.scanned_bytes,
            ),
            spares: Spares::default(),
            aside: false,
            aside_failed: None,
            failed: None,
            closed: false,
        };
        let log = Rc::new_cyclic(|me| Log {
            me: me.clone(),
            home: home.clone(),
            dir: dir.to_owned(),
            topic_id,
            state: RefCell::new(state),
            watch: Cell::default(),
            advance: Event::new(),
            work: Event::new(),
            idle: Event::new(),
        });
        home.add_log(&log);
        log
    }
}

/// What is in a partition's directory.
#[derive(Default)]
struct Listing {
    /// The small files that are there.
    metadata: bool,
    epochs: bool,
    log_start: bool,
    cleaner_offset: bool,
    /// Segment files: base offset to length.
    logs: BTreeMap<i64, u64>,
    /// Bases with both index files.
    indexed: Vec<i64>,
    snapshots: Vec<i64>,
}

impl Listing {
    /// Lists `dir`, which need not be there, and removes what a crash has left of files about to be replaced or
    /// removed.
    async fn read(dir: &Path) -> Result<Self, StorageError> {
        let mut listing = Self::default();
        let entries = match fs::read_dir(dir).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            entries => entries.at(dir, "list")?,
        };
        let mut index_files: BTreeMap<i64, u32> = BTreeMap::new();
        let mut swaps = Vec::new();
        for entry in entries {
            if entry.name.ends_with(".tmp") || entry.name.ends_with(".deleted") || is_cleaned(&entry.name) {
                remove_if_there(&dir.join(&entry.name)).await?;
                continue;
            }
            match paths::parse_numbered(&entry.name) {
                Some((_, RECYCLED | SPARE)) => remove_if_there(&dir.join(&entry.name)).await?,
                Some((base, LOG)) => {
                    if entry.len > SEGMENT_FILE_BYTES_MAX {
                        let reason = format!("{} bytes are too many for a segment", entry.len);
                        return Err(StorageError::Corrupt { path: dir.join(&entry.name), reason });
                    }
                    listing.logs.insert(base, entry.len);
                }
                Some((base, INDEX | TIME_INDEX)) => *index_files.entry(base).or_default() += 1,
                Some((offset, SNAPSHOT)) => listing.snapshots.push(offset),
                Some((base, LOG_SWAP)) => swaps.push(base),
                Some(_) => {}
                None => match &*entry.name {
                    METADATA => listing.metadata = true,
                    EPOCHS => listing.epochs = true,
                    LOG_START => listing.log_start = true,
                    CLEANER_OFFSET => listing.cleaner_offset = true,
                    _ => {}
                },
            }
        }
        if !swaps.is_empty() {
            for base in swaps {
                finish_swap(dir, base).await?;
            }
            return Box::pin(Self::read(dir)).await;
        }
        listing.indexed =
            index_files.into_iter().filter(|&(_, files)| files == 2).map(|(base, _)| base).collect();
        Ok(listing)
    }

    /// Whether there is a directory, or may be, and no segment in it.
    fn is_empty_directory(&self) -> bool {
        self.logs.is_empty() && (self.metadata || self.epochs || self.log_start)
    }

    /// Whether there is a batch, or was: then directory and metadata are on stable storage.
    fn holds_data(&self) -> bool {
        self.logs.values().any(|&bytes| bytes > 0)
    }
}

/// Sees to it that what is in `dir` belongs to the topic. Without data the metadata may be missing, or torn where a
/// crash came between: they are written with the first data.
async fn check_owner(dir: &Path, topic_id: [u8; 16], listing: &Listing) -> Result<(), StorageError> {
    let path = dir.join(METADATA);
    let text = if listing.metadata { read_if_there(&path).await? } else { None };
    let reason = match text.as_deref().map(paths::decode_metadata) {
        Some(Some(found)) if found == topic_id => return Ok(()),
        Some(Some(found)) => {
            let (found, wanted) = (paths::encode_id(found), paths::encode_id(topic_id));
            format!("belongs to topic {found}, and not to {wanted}")
        }
        None | Some(None) if !listing.holds_data() => return Ok(()),
        Some(None) => "not a partition.metadata of version 0".to_owned(),
        None => "missing".to_owned(),
    };
    Err(StorageError::Corrupt { path, reason })
}

/// The state of a log while and after it is opened.
#[derive(Default)]
struct Opened {
    segments: VecDeque<Rc<Segment>>,
    log_start: i64,
    clean_to: i64,
    epochs: EpochCache,
    checkpointed: EpochCache,
    home_durable: bool,
    producers: ProducerState,
    scanned_bytes: u64,
    cut: Option<Cut>,
    /// What the log has noted of itself last, as long as it may be of use.
    checkpoint: Option<Checkpoint>,
    /// From here on batches were found that may not be on stable storage: the process ended, and nobody has said so.
    unsynced_from: Option<i64>,
}

impl Opened {
    async fn open(
        &mut self,
        dir: &Path,
        listing: &Listing,
        mode: OpenMode,
        config: &LogConfig,
        ctx: &Rc<StorageContext>,
    ) -> Result<(), StorageError> {
        let epochs = if listing.epochs { read_if_there(&dir.join(EPOCHS)).await? } else { None };
        let on_disk = epochs.and_then(|text| EpochCache::decode(&text));
        let start = if listing.log_start { read_if_there(&dir.join(LOG_START)).await? } else { None };
        let checkpointed_start = start.and_then(|text| paths::decode_offset(&text));
        let bases: Vec<(i64, u64)> = listing.logs.iter().map(|(&base, &bytes)| (base, bytes)).collect();
        self.check_checkpoint(dir, listing)?;
        let trusted = accept::trusted_segments(&bases, &listing.indexed, mode, on_disk.is_some());
        self.epochs = on_disk.clone().unwrap_or_default();
        self.checkpointed = self.epochs.clone();
        for (at, &(base, bytes)) in bases[..trusted].iter().enumerate() {
            let next_offset = bases.get(at + 1).map_or(base, |&(next, _)| next);
            self.segments.push_back(Segment::sealed(dir, base, bytes, next_offset, ctx));
        }
        let mut scan_from = trusted;
        if trusted > 0 && trusted == bases.len() && !self.reopen_last(dir, ctx).await? {
            scan_from -= 1;
        }
        let scan_base = bases.get(scan_from).map(|&(base, _)| base);
        if scan_base.is_none() || self.checkpoint.as_ref().map(|noted| noted.segment) != scan_base {
            self.load_producers(dir, listing, scan_base).await?;
        }
        self.scan(dir, &bases[scan_from..], listing, config, ctx).await?;
        if self.segments.is_empty() {
            let start = checkpointed_start.unwrap_or(0);
            self.segments.push_back(Segment::fresh(dir, start, wall_clock_ms(), ctx));
        }
        let (first, log_end) =
            (self.segments[0].base(), self.segments[self.segments.len() - 1].next_offset());
        self.log_start = checkpointed_start.unwrap_or(0).max(first).min(log_end);
        if checkpointed_start.is_some_and(|start| start > log_end) {
            // It would bite once the log has grown again.
            let path = dir.join(LOG_START);
            fs::write_atomic(&path, paths::encode_offset(log_end)).await.at(&path, "write")?;
        }
        if listing.cleaner_offset {
            self.clean_to = read_clean_to(dir, log_end).await?;
        }
        // What the file has beyond the log's end describes no data, and goes when it is written next.
        self.epochs.truncate_end(log_end);
        self.epochs.truncate_start(self.log_start);
        self.drop_snapshots(dir, listing, log_end).await
    }

    /// A checkpoint that the files cannot follow is no use. But if nothing of what it speaks of is there any more, then
    /// files are lost, and the log must not begin anew as if there had never been any.
    fn check_checkpoint(&mut self, dir: &Path, listing: &Listing) -> Result<(), StorageError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        if listing.logs.range(checkpoint.segment..).next().is_none() {
            let (path, reason) = (paths::numbered(dir, checkpoint.segment, LOG), "missing".to_owned());
            return Err(StorageError::Corrupt { path, reason });
        }
        let there = listing.logs.get(&checkpoint.segment);
        if there.is_some_and(|&bytes| bytes < u64::from(checkpoint.position)) {
            tracing::error!(
                segment = %paths::numbered(dir, checkpoint.segment, LOG).display(),
                bytes = there,
                noted = checkpoint.position,
                "a segment is shorter than it was; records that were acknowledged may be lost"
            );
        }
        if there.is_none_or(|&bytes| bytes < u64::from(checkpoint.position)) {
            self.checkpoint = None;
        }
        Ok(())
    }

    /// Makes the last segment, sealed by a clean close, the active one again. `false`: it is not what a clean
    /// close leaves behind; it was taken off the list and wants a scan.
    async fn reopen_last(&mut self, dir: &Path, ctx: &Rc<StorageContext>) -> Result<bool, StorageError> {
        let segment = self.segments.pop_back().expect("the caller has seen one");
        let Some(indexes) = read_index_files(dir, segment.base(), segment.bytes()).await? else {
            return Ok(false);
        };
        let (bytes, mut next_offset, mut first_timestamp) = (segment.bytes(), segment.base(), None);
        if bytes > 0 {
            let mut walker = Walker::new(
                segment.open_file().await?,
                segment.path(),
                indexes.offsets.last_position().into(),
                bytes,
            );
            while walker.position() < bytes {
                match walker.next().await? {
                    Step::Batch { header, .. } => next_offset = header.next_offset(),
                    Step::End | Step::Bad(_) => return Ok(false),
                }
            }
            let first = parse_header(&segment.read(0..HEADER_BYTES as u64).await?);
            first_timestamp =
                first.ok().map(|header| header.max_timestamp).filter(|&timestamp| timestamp >= 0);
        }
        let head = segment.read(block_floor(bytes)..bytes).await?.to_vec();
        let now_ms = wall_clock_ms();
        let (index_files, unindexed) = (true, 0);
        let found =
            Found { bytes, head, next_offset, indexes, first_timestamp, index_files, unindexed, now_ms };
        self.segments.push_back(Segment::found(dir, segment.base(), found, ctx));
        Ok(true)
    }

    /// The producer state at the start of the scan, or at the log end without one: the newest snapshot before, and
    /// the batches since.
    async fn load_producers(
        &mut self,
        dir: &Path,
        listing: &Listing,
        scan_base: Option<i64>,
    ) -> Result<(), StorageError> {
        let end = scan_base.unwrap_or_else(|| self.segments.back().map_or(0, |active| active.next_offset()));
        let (producers, from) = newest_snapshot(dir, &listing.snapshots, end).await?;
        self.producers = producers;
        replay_producers(&mut self.producers, &self.segments, from, end).await
    }

    /// Checks segments batch by batch, keeps what holds, cuts the rest.
    async fn scan(
        &mut self,
        dir: &Path,
        bases: &[(i64, u64)],
        listing: &Listing,
        config: &LogConfig,
        ctx: &Rc<StorageContext>,
    ) -> Result<(), StorageError> {
        let Some(&(first, _)) = bases.first() else { return Ok(()) };
        self.epochs.truncate_end(first);
        // Nothing below this is the torn end of the log.
        let settled =
            listing.indexed.last().copied().max(self.checkpoint.as_ref().map(|noted| noted.next_offset));
        for (at, &(base, file_bytes)) in bases.iter().enumerate() {
            let mut scan = Scan::open(dir, base, file_bytes).await?;
            if let Some(noted) = self.checkpoint.as_ref().filter(|noted| noted.segment == base) {
                for epoch in &noted.epochs {
                    self.epochs.assign(epoch.epoch, epoch.start);
                }
                self.producers = noted.producers.clone();
                scan.resume(noted);
            }
            let stop = scan.run(&mut self.epochs, &mut self.producers, config).await?;
            self.scanned_bytes += scan.scanned();
            let index_files = listing.indexed.contains(&base);
            let (bytes, next_offset, file) = (scan.bytes, scan.next_offset, scan.file.clone());
            let later = &bases[at + 1..];
            let gap = accept::gap(next_offset, later.first().map(|&(base, _)| base));
            let stop = stop.or(gap);
            if let (Some(reason), Some(&(next, _))) = (&stop, later.first())
                && accept::is_settled(next_offset, settled)
            {
                let segment = Segment::sealed(dir, base, file_bytes, next, ctx);
                drop(segment.quarantine(&format!("at {bytes}: {reason}")));
                self.segments.push_back(segment);
                continue;
            }
            let untouched = stop.is_none() && later.is_empty() && scan.ends_as_noted();
            let segment = Segment::found(dir, base, scan.found(index_files).await?, ctx);
            segment.keep_open(file);
            if file_bytes == 0 {
                // The process may have ended before the directory was synced.
                segment.make_again();
            } else if stop.is_some() {
                segment.trim().await?;
            } else {
                segment.cut_later();
            }
            if !untouched {
                self.unsynced_from.get_or_insert(base);
                segment.mark_unsynced();
            }
            self.segments.push_back(segment.clone());
            if let Some(reason) = stop {
                for &(base, _) in later.iter().rev() {
                    Segment::sealed(dir, base, 0, base, ctx).remove().await?;
                }
                fs::sync_dir(dir).await.at(dir, "sync")?;
                let lost = file_bytes - bytes + later.iter().map(|&(_, bytes)| bytes).sum::<u64>();
                self.cut = Some(Cut { bytes: lost, at_offset: next_offset, reason });
                return Ok(());
            }
            if !later.is_empty() {
                // The flush task seals it.
                segment.set_snapshot(self.producers.encode());
            }
        }
        Ok(())
    }

    /// Removes snapshots that no later recovery starts from.
    async fn drop_snapshots(&self, dir: &Path, listing: &Listing, log_end: i64) -> Result<(), StorageError> {
        let newest = listing.snapshots.iter().copied().filter(|&offset| offset <= log_end).max();
        let mut removed = false;
        for &offset in &listing.snapshots {
            let starts_segment = self.segments.iter().any(|segment| segment.base() == offset);
            if Some(offset) != newest && !starts_segment {
                remove_if_there(&paths::numbered(dir, offset, SNAPSHOT)).await?;
                removed = true;
            }
        }
        // One from beyond the log end must not come back once the log has grown again.
        if removed { fs::sync_dir(dir).await.at(dir, "sync") } else { Ok(()) }
    }
}

/// Where compaction goes on. What is appended to a log that has lost its end is not clean because what was there before
/// it had been: the checkpoint is brought down before that.
async fn read_clean_to(dir: &Path, log_end: i64) -> Result<i64, StorageError> {
    let path = dir.join(CLEANER_OFFSET);
    let clean_to = read_if_there(&path).await?.and_then(|text| paths::decode_offset(&text)).unwrap_or(0);
    if clean_to > log_end {
        fs::write_atomic(&path, paths::encode_offset(log_end)).await.at(&path, "write")?;
    }
    Ok(clean_to.min(log_end))
}

/// The newest whole snapshot at or below `end`, and where it was taken; an empty one at 0 if there is none.
pub(super) async fn newest_snapshot(
    dir: &Path,
    offsets: &[i64],
    end: i64,
) -> Result<(ProducerState, i64), StorageError> {
    let mut offsets: Vec<i64> = offsets.iter().copied().filter(|&offset| offset <= end).collect();
    offsets.sort_unstable();
    for offset in offsets.into_iter().rev() {
        let path = paths::numbered(dir, offset, SNAPSHOT);
        match read_if_there(&path).await?.and_then(|bytes| ProducerState::decode(&bytes)) {
            Some(producers) => return Ok((producers, offset)),
            None => remove_if_there(&path).await?,
        }
    }
    Ok((ProducerState::default(), 0))
}

/// Takes in the batches from offset `from` to `end`, which are on the disk.
pub(super) async fn replay_producers(
    producers: &mut ProducerState,
    segments: &VecDeque<Rc<Segment>>,
    from: i64,
    end: i64,
) -> Result<(), StorageError> {
    let now_ms = wall_clock_ms();
    for segment in segments.iter().filter(|segment| segment.next_offset() > from && segment.base() < end) {
        segment.load_indexes().await?;
        let position =
            segment.with_indexes(|indexes| indexes.offsets.lookup(segment.relative(from))).unwrap_or(0);
        let mut walker =
            Walker::new(segment.open_file().await?, segment.path(), position.into(), segment.bytes());
        while let Step::Batch { header, .. } = walker.next().await? {
            if header.base_offset >= end {
                break;
            }
            if header.base_offset >= from {
                producers.take(&header, now_ms);
            }
        }
    }
    Ok(())
}

/// The check of one segment.
struct Scan {
    path: PathBuf,
    file: File,
    base: i64,
    file_bytes: u64,
    /// Where the checkpoint lets it start; 0 without one.
    from: u32,
    /// Bytes that hold.
    bytes: u64,
    next_offset: i64,
    indexes: Indexes,
    first_timestamp: Option<i64>,
}

impl Scan {
    /// The file is opened as its segment wants it afterwards.
    async fn open(dir: &Path, base: i64, file_bytes: u64) -> Result<Self, StorageError> {
        let path = paths::numbered(dir, base, LOG);
        let options = OpenOptions { read: true, write: true, direct: true, ..OpenOptions::default() };
        let file = File::open(&path, options).await.at(&path, "open")?;
        Ok(Self {
            path,
            file,
            base,
            file_bytes,
            from: 0,
            bytes: 0,
            next_offset: base,
            indexes: Indexes::default(),
            first_timestamp: None,
        })
    }

    /// Starts where the log has noted that everything before holds.
    fn resume(&mut self, noted: &Checkpoint) {
        self.from = noted.position;
        self.bytes = noted.position.into();
        self.next_offset = noted.next_offset;
        self.first_timestamp = noted.first_timestamp;
        self.indexes = Indexes::resumed(noted.max_timestamp, noted.max_timestamp_relative);
    }

    /// Bytes found to hold, without those that were noted.
    fn scanned(&self) -> u64 {
        self.bytes - u64::from(self.from)
    }

    /// Whether the segment is as it was noted: all of it is on stable storage.
    fn ends_as_noted(&self) -> bool {
        self.from > 0 && self.scanned() == 0
    }

    /// Gives the reason why it does not go on, unless that is its end.
    async fn run(
        &mut self,
        epochs: &mut EpochCache,
        producers: &mut ProducerState,
        config: &LogConfig,
    ) -> Result<Option<String>, StorageError> {
        let now_ms = wall_clock_ms();
        let mut walker = Walker::new(self.file.clone(), &self.path, self.bytes, self.file_bytes);
        loop {
            let (header, position, bytes) = match walker.next().await? {
                Step::Batch { header, position, bytes } => (header, position, bytes),
                Step::End => return Ok(None),
                Step::Bad(reason) => return Ok(Some(reason)),
            };
            if recycle::is_left_over(&header, position, self.base) {
                return Ok(None);
            }
            if let Err(reason) =
                accept::acceptable(&header, &bytes, self.base, self.next_offset, epochs.latest())
            {
                return Ok(Some(reason));
            }
            let position = u32::try_from(position).expect("SEGMENT_FILE_BYTES_MAX");
            let relative = u32::try_from(header.last_offset() - self.base).expect("acceptable");
            self.indexes.add(
                relative,
                position,
                bytes.len(),
                index_timestamp(&header),
                config.index_interval_bytes,
            );
            self.first_timestamp.get_or_insert(index_timestamp(&header));
            epochs.assign(header.partition_leader_epoch, header.base_offset);
            producers.take(&header, now_ms);
            self.next_offset = header.next_offset();
            self.bytes = walker.position();
        }
    }

    async fn found(self, index_files: bool) -> Result<Found, StorageError> {
        let tail = block_floor(self.bytes)..self.bytes;
        let head = crate::segment::read_range(&self.file, &self.path, tail).await?.to_vec();
        Ok(Found {
            bytes: self.bytes,
            head,
            next_offset: self.next_offset,
            indexes: self.indexes,
            first_timestamp: self.first_timestamp.filter(|&timestamp| timestamp >= 0),
            index_files,
            unindexed: self.from,
            now_ms: wall_clock_ms(),
        })
    }
}
