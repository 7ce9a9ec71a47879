//! Opening a log; recovery after an unclean stop (contract L8, DESIGN §5).
//!
//! A segment is *sealed* once both its index files are there: they are written last, after the file was cut to its
//! exact length and synced. Sealed segments are trusted; after an unclean stop everything from the first unsealed
//! one on (the active one always) is read and checked batch by batch.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use heizer_runtime::fs::{self, File, OpenOptions};
use heizer_runtime::sync::Event;
use heizer_runtime::time::wall_clock_ms;
use heizer_wire::record_batch::BatchHeader;

use crate::batch::{HEADER_BYTES, crc_matches, parse_header};
use crate::config::LogConfig;
use crate::context::StorageContext;
use crate::dir::LogDir;
use crate::epoch::EpochCache;
use crate::error::{IoContext, OpenError, StorageError};
use crate::index::Indexes;
use crate::log::{Log, Role, State, roll_jitter_ms};
use crate::paths::{self, EPOCHS, INDEX, LOG, LOG_START, METADATA, SNAPSHOT, TIME_INDEX};
use crate::producer::ProducerState;
use crate::segment::{Found, Segment, Step, Walker, read_if_there, read_index_files, remove_if_there};
use crate::tail::block_floor;

/// Positions in a segment fit the four bytes that the index has for them.
const SEGMENT_FILE_BYTES_MAX: u64 = u32::MAX as u64;

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
        Ok((Log::assemble(home.clone(), dir, topic_id, config, opened), report))
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
            written_end: log_end,
            durable_end: log_end,
            epochs_dirty: opened.epochs != opened.checkpointed,
            epochs: opened.epochs,
            checkpointed: opened.checkpointed,
            home_durable: opened.home_durable,
            producers: opened.producers,
            role: Role::Idle,
            exclusive_waiting: 0,
            forced_end: log_end,
            dirty_since: None,
            failed: None,
            closed: false,
        };
        Rc::new_cyclic(|me| Log {
            me: me.clone(),
            home,
            dir: dir.to_owned(),
            topic_id,
            state: RefCell::new(state),
            watch: Cell::default(),
            advance: Event::new(),
            work: Event::new(),
            idle: Event::new(),
        })
    }
}

/// What is in a partition's directory.
#[derive(Default)]
struct Listing {
    /// The small files that are there.
    metadata: bool,
    epochs: bool,
    log_start: bool,
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
        for entry in entries {
            if entry.name.ends_with(".tmp") || entry.name.ends_with(".deleted") {
                remove_if_there(&dir.join(&entry.name)).await?;
                continue;
            }
            match paths::parse_numbered(&entry.name) {
                Some((base, LOG)) => {
                    if entry.len > SEGMENT_FILE_BYTES_MAX {
                        let reason = format!("{} bytes are too many for a segment", entry.len);
                        return Err(StorageError::Corrupt { path: dir.join(&entry.name), reason });
                    }
                    listing.logs.insert(base, entry.len);
                }
                Some((base, INDEX | TIME_INDEX)) => *index_files.entry(base).or_default() += 1,
                Some((offset, SNAPSHOT)) => listing.snapshots.push(offset),
                Some(_) => {}
                None => match &*entry.name {
                    METADATA => listing.metadata = true,
                    EPOCHS => listing.epochs = true,
                    LOG_START => listing.log_start = true,
                    _ => {}
                },
            }
        }
        listing.indexed =
            index_files.into_iter().filter(|&(_, files)| files == 2).map(|(base, _)| base).collect();
        Ok(listing)
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
    epochs: EpochCache,
    checkpointed: EpochCache,
    home_durable: bool,
    producers: ProducerState,
    scanned_bytes: u64,
    cut: Option<Cut>,
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
        let checkpointed_start = start.and_then(|text| paths::decode_log_start(&text));
        let bases: Vec<(i64, u64)> = listing.logs.iter().map(|(&base, &bytes)| (base, bytes)).collect();
        let trusted = trusted_segments(&bases, listing, mode, on_disk.is_some());
        self.epochs = on_disk.clone().unwrap_or_default();
        for (at, &(base, bytes)) in bases[..trusted].iter().enumerate() {
            let next_offset = bases.get(at + 1).map_or(base, |&(next, _)| next);
            self.segments.push_back(Segment::sealed(dir, base, bytes, next_offset, ctx));
        }
        let mut scan_from = trusted;
        if trusted > 0 && trusted == bases.len() && !self.reopen_last(dir, ctx).await? {
            scan_from -= 1;
        }
        self.load_producers(dir, listing, bases.get(scan_from).map(|&(base, _)| base)).await?;
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
            fs::write_atomic(&path, paths::encode_log_start(log_end)).await.at(&path, "write")?;
        }
        self.settle_epochs(dir, on_disk.unwrap_or_default(), log_end).await?;
        self.drop_snapshots(dir, listing, log_end).await
    }

    /// Fits the epochs to the log. What the checkpoint has beyond that describes no data and goes with its next
    /// rewriting, which comes before the next data; only what it lacks is written now.
    async fn settle_epochs(
        &mut self,
        dir: &Path,
        on_disk: EpochCache,
        log_end: i64,
    ) -> Result<(), StorageError> {
        let fit = |epochs: &mut EpochCache| {
            epochs.truncate_end(log_end);
            epochs.truncate_start(self.log_start);
        };
        fit(&mut self.epochs);
        let mut described = on_disk.clone();
        fit(&mut described);
        self.checkpointed = on_disk;
        if described != self.epochs {
            let path = dir.join(EPOCHS);
            fs::write_atomic(&path, self.epochs.encode()).await.at(&path, "write")?;
            self.checkpointed = self.epochs.clone();
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
        let found = Found { bytes, head, next_offset, indexes, first_timestamp, index_files: true, now_ms };
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
        for (at, &(base, file_bytes)) in bases.iter().enumerate() {
            let mut scan = Scan::open(dir, base, file_bytes).await?;
            let stop = scan.run(&mut self.epochs, &mut self.producers, config).await?;
            self.scanned_bytes += scan.bytes;
            let index_files = listing.indexed.contains(&base);
            let (bytes, next_offset, file) = (scan.bytes, scan.next_offset, scan.file.clone());
            let segment = Segment::found(dir, base, scan.found(index_files).await?, ctx);
            segment.keep_open(file);
            segment.trim().await?;
            self.segments.push_back(segment.clone());
            let later = &bases[at + 1..];
            let gap = later.first().filter(|&&(next, _)| next != next_offset);
            let gap = gap.map(|(next, _)| format!("the next segment starts at {next}"));
            if let Some(reason) = stop.or(gap) {
                for &(base, _) in later.iter().rev() {
                    Segment::sealed(dir, base, 0, base, ctx).remove().await?;
                }
                fs::sync_dir(dir).await.at(dir, "sync")?;
                let lost = file_bytes - bytes + later.iter().map(|&(_, bytes)| bytes).sum::<u64>();
                self.cut = Some(Cut { bytes: lost, at_offset: next_offset, reason });
                return Ok(());
            }
            if !later.is_empty() {
                segment.set_snapshot(self.producers.encode());
                segment.seal().await?;
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

/// How many segments from the first on need no scan.
fn trusted_segments(bases: &[(i64, u64)], listing: &Listing, mode: OpenMode, epochs_known: bool) -> usize {
    if !epochs_known && bases.iter().any(|&(_, bytes)| bytes > 0) {
        return 0;
    }
    let last = bases.len().saturating_sub(1);
    let sealed = |at: usize, base: i64, bytes: u64| {
        let complete = listing.indexed.contains(&base) && (bytes > 0 || at == last);
        complete && (mode == OpenMode::Clean || at < last)
    };
    bases.iter().enumerate().take_while(|&(at, &(base, bytes))| sealed(at, base, bytes)).count()
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
            bytes: 0,
            next_offset: base,
            indexes: Indexes::default(),
            first_timestamp: None,
        })
    }

    /// Gives the reason why it does not go on, unless that is its end.
    async fn run(
        &mut self,
        epochs: &mut EpochCache,
        producers: &mut ProducerState,
        config: &LogConfig,
    ) -> Result<Option<String>, StorageError> {
        let now_ms = wall_clock_ms();
        let mut walker = Walker::new(self.file.clone(), &self.path, 0, self.file_bytes);
        loop {
            let (header, position, bytes) = match walker.next().await? {
                Step::Batch { header, position, bytes } => (header, position, bytes),
                Step::End => return Ok(None),
                Step::Bad(reason) => return Ok(Some(reason)),
            };
            if let Err(reason) = acceptable(&header, &bytes, self.base, self.next_offset, epochs.latest()) {
                return Ok(Some(reason));
            }
            let position = u32::try_from(position).expect("SEGMENT_FILE_BYTES_MAX");
            let relative = u32::try_from(header.last_offset() - self.base).expect("acceptable");
            self.indexes.add(
                relative,
                position,
                bytes.len(),
                header.max_timestamp,
                config.index_interval_bytes,
            );
            self.first_timestamp.get_or_insert(header.max_timestamp);
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
            now_ms: wall_clock_ms(),
        })
    }
}

/// Whether a batch found after an unclean stop belongs to the log (contract L8): at or above the expected offset,
/// whole by its CRC, of an epoch that does not fall. Anything else is torn or left over from before.
fn acceptable(
    header: &BatchHeader,
    bytes: &[u8],
    base: i64,
    expected: i64,
    epoch: Option<i32>,
) -> Result<(), String> {
    if header.base_offset < expected {
        return Err(format!("a batch at offset {} where {expected} is expected", header.base_offset));
    }
    if header.last_offset() - base > i64::from(i32::MAX) {
        return Err(format!("offset {} is out of reach of the segment", header.last_offset()));
    }
    if epoch.is_some_and(|epoch| header.partition_leader_epoch < epoch) {
        return Err(format!("leader epoch falls to {}", header.partition_leader_epoch));
    }
    if !crc_matches(header, bytes) {
        return Err("CRC does not match".to_owned());
    }
    Ok(())
}
