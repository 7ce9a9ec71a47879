//! One segment of a log: its files, its place in memory, its indexes.

mod cached;
mod walk;
mod write;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::fs::{self, File, OpenOptions};
use heizer_runtime::sync::Event;

use crate::batch::{HEADER_BYTES, index_timestamp, parse_header};
use crate::compact::Cleaned;
use crate::context::{Charge, StorageContext};
use crate::error::{IoContext, StorageError};
use crate::index::Indexes;
use crate::paths::{self, INDEX, LOG, SNAPSHOT, TIME_INDEX};
use crate::rope::to_usize;
use crate::space::Space;
use crate::tail::{Tail, block_ceil, block_floor};

pub(crate) use walk::{Step, Walker};

/// Where the indexes of a segment are.
enum IndexPlace {
    /// In memory alone: the segment is not sealed.
    Growing(Indexes),
    /// In their files, and in memory while the core's budget lets them.
    Sealed(Option<(Rc<Indexes>, Charge)>),
}

/// What is known of the `.log` file.
#[derive(Default)]
struct FileState {
    open: Option<File>,
    exists: bool,
    /// The index files of a segment that grows again must go before its first write.
    stale_indexes: bool,
    /// Recovery has left the file longer than what holds: it is cut before its first write, so that nothing beyond can
    /// come back (DESIGN §5).
    uncut: bool,
    /// Space reserved up to here.
    allocated: u64,
    allocation_step: u64,
    /// Blocks written at least once up to here.
    zeroed: u64,
    /// Blocks that are the file's on stable storage, by a write and sync of their own or of the whole file, within the
    /// length that is there, too: see [`heizer_runtime::fs::DeviceSync`]. What is not synced never moves it.
    settled: Range<u64>,
    /// This process has written the file from here on. What is before may read well after a crash and still have no
    /// place on stable storage: space that was only reserved reads as zeros, and so do some batches.
    own_from: u64,
    zeroing_step: u64,
    zeroing: Option<Range<u64>>,
    /// Small durable writes so far.
    small_writes: u32,
    /// Blocks from the end up to here may hold what the file held before it was this segment's.
    stale: u64,
    /// The file still has a spare's name.
    spare: Option<PathBuf>,
    /// Something was written without being synced.
    unsynced: bool,
}

/// A run of consecutive batches in one file. The last segment of a log is the active one, the only one that grows;
/// those before it are sealed in order. Lives on the log's core; its log says who may write.
pub(crate) struct Segment {
    base: i64,
    dir: PathBuf,
    path: PathBuf,
    ctx: Rc<StorageContext>,
    space: Rc<Space>,
    /// Bytes that are appended beyond what is reserved, as the space knows them.
    owed: Cell<u64>,
    /// So much is kept reserved ahead, even when appends are refused.
    headroom: Cell<u64>,
    tail: Rc<RefCell<Tail>>,
    indexes: RefCell<IndexPlace>,
    file: RefCell<FileState>,
    /// The same file through the page cache, once it is sealed.
    cached: RefCell<cached::Cached>,
    zeroing_done: Event,
    /// The offset after the last batch.
    next_offset: Cell<i64>,
    /// Known for every segment that grew in this process or whose time index was read; -1 without timestamps.
    max_timestamp: Cell<Option<i64>>,
    /// When the first batch came, by its own timestamp where it has one.
    first_timestamp: Cell<Option<i64>>,
    created_ms: Cell<i64>,
    /// When retention first saw a segment whose timestamps say nothing of its age.
    judged_ms: Cell<Option<i64>>,
    roll_jitter_ms: Cell<i64>,
    /// Batches below this position are not in the growing index: recovery has not looked at them.
    unindexed: Cell<u32>,
    damaged: Cell<bool>,
    was_cached: Cell<bool>,
    /// The open file was used since somebody asked last.
    used: Cell<bool>,
    /// The producer snapshot at its end, from the roll until it is written.
    snapshot: RefCell<Option<Vec<u8>>>,
    /// Another segment takes the place of its files: what is open stays open, and nothing is found by name any more.
    retired: Cell<bool>,
    /// Index files are being written anew.
    rewriting_indexes: Cell<bool>,
    indexes_rewritten: Event,
}

impl Segment {
    /// A segment that is not on the disk yet.
    pub(crate) fn fresh(dir: &Path, base: i64, now_ms: i64, ctx: &Rc<StorageContext>) -> Rc<Self> {
        Self::new(dir, base, Tail::new(0, Vec::new()), IndexPlace::Growing(Indexes::default()), ctx, now_ms)
    }

    /// A sealed segment of `bytes` bytes that ends before `next_offset`.
    pub(crate) fn sealed(
        dir: &Path,
        base: i64,
        bytes: u64,
        next_offset: i64,
        ctx: &Rc<StorageContext>,
    ) -> Rc<Self> {
        // Nothing is ever appended, so the partial block need not be right.
        let tail = Tail::new(bytes, vec![0; to_usize(bytes - block_floor(bytes))]);
        let segment = Self::new(dir, base, tail, IndexPlace::Sealed(None), ctx, 0);
        segment.next_offset.set(next_offset);
        segment.file.borrow_mut().exists = true;
        segment
    }

    /// A segment that compaction has made. Its file has its right name by now.
    pub(crate) fn cleaned(
        dir: &Path,
        cleaned: Cleaned,
        replaced: &Segment,
        ctx: &Rc<StorageContext>,
    ) -> Rc<Self> {
        let segment = Self::sealed(dir, cleaned.base, cleaned.bytes, cleaned.next_offset, ctx);
        segment.max_timestamp.set(Some(cleaned.indexes.max_timestamp));
        segment.first_timestamp.set(Some(cleaned.first_timestamp.unwrap_or(-1)));
        // Retention by time goes on counting where the timestamps say nothing.
        segment.judged_ms.set(replaced.judged_ms.get());
        segment.keep_open(cleaned.file);
        segment.keep_indexes(cleaned.indexes);
        segment
    }

    /// The active segment as found on the disk, cut to its exact length. `head` is what its partial last block holds.
    pub(crate) fn found(dir: &Path, base: i64, found: Found, ctx: &Rc<StorageContext>) -> Rc<Self> {
        let max_timestamp = found.indexes.max_timestamp;
        let tail = Tail::new(found.bytes, found.head);
        let segment = Self::new(dir, base, tail, IndexPlace::Growing(found.indexes), ctx, found.now_ms);
        segment.next_offset.set(found.next_offset);
        segment.max_timestamp.set((max_timestamp >= 0).then_some(max_timestamp));
        segment.first_timestamp.set(found.first_timestamp);
        segment.unindexed.set(found.unindexed);
        segment.mark_existing(found.bytes);
        segment.file.borrow_mut().stale_indexes = found.index_files;
        segment
    }

    /// A file of a stream, not on the disk yet. It has no indexes and no batches; its offsets are byte positions.
    pub(crate) fn stream(dir: &Path, suffix: &str, base: i64, ctx: &Rc<StorageContext>) -> Rc<Self> {
        let growing = IndexPlace::Growing(Indexes::default());
        let path = paths::numbered(dir, base, suffix);
        let segment = Self::with_path(path, dir, base, Tail::new(0, Vec::new()), growing, ctx, 0);
        segment.headroom.set(STREAM_HEADROOM);
        segment
    }

    /// A file of a stream as found on the disk, with `bytes` bytes that hold.
    pub(crate) fn stream_found(
        dir: &Path,
        suffix: &str,
        base: i64,
        bytes: u64,
        head: Vec<u8>,
        ctx: &Rc<StorageContext>,
    ) -> Rc<Self> {
        let (path, growing) = (paths::numbered(dir, base, suffix), IndexPlace::Growing(Indexes::default()));
        let segment = Self::with_path(path, dir, base, Tail::new(bytes, head), growing, ctx, 0);
        segment.headroom.set(STREAM_HEADROOM);
        segment.next_offset.set(base + i64::try_from(bytes).expect("a file's length"));
        segment.mark_existing(bytes);
        segment
    }

    fn mark_existing(&self, bytes: u64) {
        let mut file = self.file.borrow_mut();
        file.exists = true;
        file.allocated = bytes;
        file.zeroed = block_ceil(bytes);
        file.own_from = block_floor(bytes);
    }

    fn new(
        dir: &Path,
        base: i64,
        tail: Tail,
        indexes: IndexPlace,
        ctx: &Rc<StorageContext>,
        now_ms: i64,
    ) -> Rc<Self> {
        Self::with_path(paths::numbered(dir, base, LOG), dir, base, tail, indexes, ctx, now_ms)
    }

    fn with_path(
        path: PathBuf,
        dir: &Path,
        base: i64,
        tail: Tail,
        indexes: IndexPlace,
        ctx: &Rc<StorageContext>,
        now_ms: i64,
    ) -> Rc<Self> {
        Rc::new(Self {
            base,
            dir: dir.to_owned(),
            path,
            ctx: ctx.clone(),
            space: ctx.space_of(dir),
            owed: Cell::new(0),
            headroom: Cell::new(0),
            tail: Rc::new(RefCell::new(tail)),
            indexes: RefCell::new(indexes),
            file: RefCell::default(),
            cached: RefCell::default(),
            zeroing_done: Event::new(),
            next_offset: Cell::new(base),
            max_timestamp: Cell::new(None),
            first_timestamp: Cell::new(None),
            created_ms: Cell::new(now_ms),
            judged_ms: Cell::new(None),
            roll_jitter_ms: Cell::new(0),
            unindexed: Cell::new(0),
            damaged: Cell::new(false),
            was_cached: Cell::new(false),
            used: Cell::new(false),
            snapshot: RefCell::new(None),
            retired: Cell::new(false),
            rewriting_indexes: Cell::new(false),
            indexes_rewritten: Event::new(),
        })
    }

    pub(crate) fn base(&self) -> i64 {
        self.base
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tail(&self) -> &Rc<RefCell<Tail>> {
        &self.tail
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tail.borrow().end()
    }

    pub(crate) fn unwritten(&self) -> u64 {
        self.tail.borrow().unwritten()
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset.get()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(*self.indexes.borrow(), IndexPlace::Sealed(_))
    }

    pub(crate) fn exists(&self) -> bool {
        self.file.borrow().exists
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.file.borrow().unsynced
    }

    /// When its first batch came.
    pub(crate) fn created_ms(&self) -> i64 {
        self.created_ms.get()
    }

    pub(crate) fn max_timestamp(&self) -> Option<i64> {
        self.max_timestamp.get()
    }

    /// The timestamp of the first batch, where it has one.
    pub(crate) fn first_timestamp(&self) -> Option<i64> {
        self.first_timestamp.get()
    }

    /// The largest timestamp of a growing segment, -1 without any, and the relative offset of the batch that has it.
    pub(crate) fn largest_timestamp(&self) -> (i64, u32) {
        match &*self.indexes.borrow() {
            IndexPlace::Growing(indexes) => (indexes.max_timestamp, indexes.max_timestamp_relative),
            IndexPlace::Sealed(_) => (self.max_timestamp.get().unwrap_or(-1), 0),
        }
    }

    /// Whether a part of the file was found damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.get()
    }

    /// Takes note that the file is damaged, and gives the error that its readers get. It stays where it is: what can
    /// be read of it is read, and retention removes it in its time. Said and counted once.
    pub(crate) fn quarantine(&self, reason: &str) -> StorageError {
        if !self.damaged.replace(true) {
            self.ctx.count_damaged_segment();
            tracing::error!(segment = %self.path.display(), reason, "a segment is damaged; its records from there on cannot be read");
        }
        StorageError::Corrupt { path: self.path.clone(), reason: reason.to_owned() }
    }

    pub(crate) fn set_roll_jitter(&self, jitter_ms: i64) {
        self.roll_jitter_ms.set(jitter_ms);
    }

    pub(crate) fn set_snapshot(&self, snapshot: Vec<u8>) {
        *self.snapshot.borrow_mut() = Some(snapshot);
    }

    /// An offset of this segment, relative to its base.
    pub(crate) fn relative(&self, offset: i64) -> u32 {
        u32::try_from((offset - self.base).max(0)).unwrap_or(u32::MAX)
    }

    /// Whether the segment is older than `segment_ms` by the time the next batch comes (contract L6): by the
    /// distance of their timestamps, or by the clock where there are none.
    pub(crate) fn is_past(&self, segment_ms: i64, next_timestamp: i64, now_ms: i64) -> bool {
        let age_ms = match self.first_timestamp.get() {
            Some(first) if next_timestamp >= 0 => next_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms.get()),
        };
        self.bytes() > 0 && age_ms > segment_ms.saturating_sub(self.roll_jitter_ms.get())
    }

    /// Whether retention by time is over (contract L6). A timestamp in the future, or none, must not keep a segment
    /// for ever: then the time counts from when this was first asked.
    pub(crate) fn is_expired(&self, retention_ms: i64, now_ms: i64) -> bool {
        let since_ms = match self.max_timestamp.get() {
            Some(largest) if (0..=now_ms).contains(&largest) => largest,
            _ => self.judged_ms.get().unwrap_or_else(|| {
                self.judged_ms.set(Some(now_ms));
                now_ms
            }),
        };
        now_ms.saturating_sub(since_ms) > retention_ms
    }

    /// Whether an index of the active segment takes no more within `max_bytes`.
    pub(crate) fn indexes_full(&self, max_bytes: u32) -> bool {
        match &*self.indexes.borrow() {
            IndexPlace::Growing(indexes) => indexes.full(max_bytes),
            IndexPlace::Sealed(_) => true,
        }
    }

    /// Adds one batch at the end, in memory.
    pub(crate) fn push(&self, batch: &Batch<'_>, now_ms: i64, index_interval_bytes: u32) {
        let mut tail = self.tail.borrow_mut();
        let position = u32::try_from(tail.end()).expect("segment.bytes fits u32");
        let bytes = batch.header.len() + batch.body.len();
        tail.start_batch(&self.tail, batch.base_offset, bytes, now_ms, &self.ctx);
        tail.append(&self.tail, batch.header, now_ms, &self.ctx);
        tail.append(&self.tail, batch.body, now_ms, &self.ctx);
        drop(tail);
        self.settle_owed();
        if self.first_timestamp.get().is_none() {
            self.first_timestamp.set((batch.max_timestamp >= 0).then_some(batch.max_timestamp));
            self.created_ms.set(now_ms);
        }
        let largest = self.max_timestamp.get().unwrap_or(-1).max(batch.max_timestamp);
        self.max_timestamp.set(Some(largest));
        self.next_offset.set(batch.last_offset + 1);
        let relative = self.relative(batch.last_offset);
        match &mut *self.indexes.borrow_mut() {
            IndexPlace::Growing(indexes) => {
                indexes.add(relative, position, bytes, batch.max_timestamp, index_interval_bytes);
            }
            IndexPlace::Sealed(_) => unreachable!("a sealed segment does not grow"),
        }
    }

    /// Adds bytes that are no batch at the end, in memory; the segment then ends at `next_offset`.
    pub(crate) fn push_raw<'a>(&self, parts: impl Iterator<Item = &'a [u8]>, next_offset: i64, now_ms: i64) {
        let mut tail = self.tail.borrow_mut();
        for part in parts {
            tail.append(&self.tail, part, now_ms, &self.ctx);
        }
        drop(tail);
        self.settle_owed();
        self.next_offset.set(next_offset);
    }

    /// Tells the space what is appended beyond what is reserved.
    fn settle_owed(&self) {
        let reserved = block_ceil(self.file.borrow().allocated);
        let owed = block_ceil(self.bytes()).saturating_sub(reserved);
        self.space.owe(self.owed.replace(owed), owed);
    }

    /// Nothing is added any more.
    pub(crate) fn mark_finished(&self) {
        *self.indexes.borrow_mut() = IndexPlace::Sealed(None);
    }

    /// Asks the indexes, where they are in memory.
    pub(crate) fn with_indexes<T>(&self, ask: impl FnOnce(&Indexes) -> T) -> Option<T> {
        match &*self.indexes.borrow() {
            IndexPlace::Growing(indexes) => (self.unindexed.get() == 0).then(|| ask(indexes)),
            IndexPlace::Sealed(cached) => cached.as_ref().map(|(indexes, _)| ask(indexes)),
        }
    }

    /// Reads the indexes of a sealed segment into memory if they are not there; rebuilds files that are missing or
    /// damaged, and what recovery has left out of a growing index.
    pub(crate) async fn load_indexes(self: &Rc<Self>) -> Result<(), StorageError> {
        if self.with_indexes(|_| ()).is_some() {
            return Ok(());
        }
        if !self.is_sealed() {
            return self.complete_indexes().await;
        }
        let read = self.read_index_files().await;
        if self.retired.get() && self.with_indexes(|_| ()).is_some() {
            // What was read may be another segment's; this one's are in memory since before that.
            return Ok(());
        }
        let indexes = match read? {
            Some(indexes) => indexes,
            None => {
                tracing::warn!(segment = %self.path.display(), "rebuilding missing or damaged indexes");
                let (mut indexes, damage) = self.index_up_to(self.bytes()).await?;
                indexes.finish();
                match damage {
                    None => match self.rewrite_indexes(&indexes).await {
                        // They serve from memory, and are written some other time.
                        Err(error) if error.is_no_space() => {}
                        written => written?,
                    },
                    // What can be read of it is found by these; its files would say that it is whole.
                    Some(reason) => drop(self.quarantine(&reason)),
                }
                indexes
            }
        };
        if self.max_timestamp.get().is_none() {
            self.max_timestamp.set(Some(indexes.max_timestamp));
        }
        self.keep_indexes(indexes);
        Ok(())
    }

    /// Writes the index files, unless they are those of another segment by now.
    async fn rewrite_indexes(&self, indexes: &Indexes) -> Result<(), StorageError> {
        if self.retired.get() || self.rewriting_indexes.replace(true) {
            return Ok(());
        }
        let written = self.write_indexes(indexes).await;
        self.rewriting_indexes.set(false);
        self.indexes_rewritten.notify_all();
        written
    }

    /// Holds the indexes of a sealed segment in memory, within the core's budget.
    fn keep_indexes(self: &Rc<Self>, indexes: Indexes) {
        let charge = self.ctx.charge_index(self, indexes.memory());
        if let IndexPlace::Sealed(cached) = &mut *self.indexes.borrow_mut()
            && (cached.is_none() || !self.retired.get())
        {
            *cached = Some((Rc::new(indexes), charge));
        }
    }

    /// Gets the segment ready to lose its files to another one: what its readers may need of them is open or in memory
    /// from here on, and stays.
    pub(crate) async fn retire(self: &Rc<Self>) -> Result<(), StorageError> {
        self.retired.set(true);
        loop {
            let rewritten = self.indexes_rewritten.listen();
            if !self.rewriting_indexes.get() {
                break;
            }
            rewritten.await;
        }
        self.open_file().await?;
        self.load_indexes().await
    }

    /// The segment keeps its files after all.
    pub(crate) fn reinstate(&self) {
        self.retired.set(false);
    }

    /// The timestamp of the first batch of a sealed segment, -1 without one.
    pub(crate) async fn load_first_timestamp(self: &Rc<Self>) -> Result<i64, StorageError> {
        if let Some(first) = self.first_timestamp.get() {
            return Ok(first);
        }
        let header = self.read(0..self.bytes().min(HEADER_BYTES as u64)).await?;
        let first = parse_header(&header).map_or(-1, |header| index_timestamp(&header));
        self.first_timestamp.set(Some(first));
        Ok(first)
    }

    pub(crate) fn drop_cached_indexes(&self) {
        if self.retired.get() {
            return;
        }
        if let IndexPlace::Sealed(cached) = &mut *self.indexes.borrow_mut() {
            *cached = None;
        }
    }

    async fn read_index_files(&self) -> Result<Option<Indexes>, StorageError> {
        read_index_files(&self.dir, self.base, self.bytes()).await
    }

    async fn complete_indexes(self: &Rc<Self>) -> Result<(), StorageError> {
        let (first, damage) = self.index_up_to(self.unindexed.get().into()).await?;
        if let Some(reason) = damage {
            drop(self.quarantine(&reason));
        }
        // Somebody else may have done the same meanwhile.
        if self.unindexed.replace(0) > 0
            && let IndexPlace::Growing(rest) = &mut *self.indexes.borrow_mut()
        {
            rest.prepend(first);
        }
        Ok(())
    }

    /// Indexes the batches below `end`, where one ends; and says why it could not come that far, if so.
    async fn index_up_to(self: &Rc<Self>, end: u64) -> Result<(Indexes, Option<String>), StorageError> {
        let mut walker = Walker::new(self.open_file().await?, &self.path, 0, end);
        let mut indexes = Indexes::default();
        while walker.position() < end {
            let (header, position) = match walker.next().await? {
                Step::Batch { header, position, .. } => (header, position),
                Step::End => return Ok((indexes, Some(format!("zeros at {}", walker.position())))),
                Step::Bad(reason) => {
                    return Ok((indexes, Some(format!("at {}: {reason}", walker.position()))));
                }
            };
            let position = u32::try_from(position).expect("segment.bytes fits u32");
            let relative = self.relative(header.last_offset());
            indexes.add(
                relative,
                position,
                header.size_bytes(),
                index_timestamp(&header),
                DEFAULT_INDEX_INTERVAL_BYTES,
            );
        }
        Ok((indexes, None))
    }

    /// The `.log` file, opened if it is not.
    pub(crate) async fn open_file(self: &Rc<Self>) -> Result<File, StorageError> {
        if let Some(file) = self.file.borrow().open.clone() {
            self.used.set(true);
            return Ok(file);
        }
        let options = OpenOptions { read: true, write: true, direct: true, ..OpenOptions::default() };
        let opened = File::open(&self.path, options).await;
        if self.retired.get()
            && let Some(file) = self.file.borrow().open.clone()
        {
            // By now the name may be another segment's; this one's file is open since before that.
            return Ok(file);
        }
        Ok(self.keep_open(opened.at(&self.path, "open")?))
    }

    /// Uses `file`, opened for reading and direct writing, from here on.
    pub(crate) fn keep_open(self: &Rc<Self>, file: File) -> File {
        self.file.borrow_mut().open = Some(file.clone());
        self.ctx.note_open_file(self);
        file
    }

    /// Whether the open file was used since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.take()
    }

    #[cfg(test)]
    pub(crate) fn has_open_file(&self) -> bool {
        self.file.borrow().open.is_some()
    }

    /// Leaves cutting the file to its length to whoever writes to it.
    pub(crate) fn cut_later(&self) {
        self.file.borrow_mut().uncut = true;
    }

    /// Lets go of the file; operations under way keep it open until they are done.
    pub(crate) fn close_file(&self) {
        if self.retired.get() {
            return;
        }
        self.file.borrow_mut().open = None;
        cached::close(&self.cached);
    }

    /// Reads the bytes of `range`, all of which are written.
    pub(crate) async fn read(self: &Rc<Self>, range: Range<u64>) -> Result<bytes::Bytes, StorageError> {
        let file = self.open_file().await?;
        read_range(&file, &self.path, range).await
    }

    /// Removes the segment's files. Readers that have them open go on.
    pub(crate) async fn remove(&self) -> Result<(), StorageError> {
        self.close_file();
        self.zeroing_ended().await;
        remove_if_there(&self.path).await?;
        self.remove_companions().await
    }

    /// Removes the files beside the `.log` file.
    async fn remove_companions(&self) -> Result<(), StorageError> {
        for suffix in [INDEX, TIME_INDEX, SNAPSHOT] {
            remove_if_there(&paths::numbered(&self.dir, self.base, suffix)).await?;
        }
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.space.forget(self.owed.get());
    }
}

/// One batch on its way into a segment.
pub(crate) struct Batch<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
}

/// What opening found out about the active segment.
pub(crate) struct Found {
    pub(crate) bytes: u64,
    pub(crate) head: Vec<u8>,
    pub(crate) next_offset: i64,
    pub(crate) indexes: Indexes,
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) index_files: bool,
    /// The indexes say nothing of what is below this position.
    pub(crate) unindexed: u32,
    pub(crate) now_ms: i64,
}

/// What a stream keeps reserved ahead of its end: a disk that others have filled to the brim still takes the entries
/// that delete a topic.
const STREAM_HEADROOM: u64 = 256 << 10;

/// The interval used where a segment is indexed anew without its log's settings at hand.
const DEFAULT_INDEX_INTERVAL_BYTES: u32 = 4096;

/// Both index files of a segment; `None` when one is missing or makes no sense.
pub(crate) async fn read_index_files(
    dir: &Path,
    base: i64,
    bytes: u64,
) -> Result<Option<Indexes>, StorageError> {
    let Some(offsets) = read_if_there(&paths::numbered(dir, base, INDEX)).await? else { return Ok(None) };
    let Some(times) = read_if_there(&paths::numbered(dir, base, TIME_INDEX)).await? else { return Ok(None) };
    Ok(Indexes::decode(&offsets, &times, bytes))
}

/// A small file's content.
pub(crate) async fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at(path, "read"),
    }
}

pub(crate) async fn remove_if_there(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(path, "remove"),
        _ => Ok(()),
    }
}

/// Reads the bytes of `range`, block by block, as a direct file wants it.
pub(crate) async fn read_range(
    file: &File,
    path: &Path,
    range: Range<u64>,
) -> Result<bytes::Bytes, StorageError> {
    let (from, to) = (block_floor(range.start), block_ceil(range.end));
    let (read, buf) = file.read_at(AlignedBuf::for_reading(to_usize(to - from)), from).await;
    let read = read.at(path, "read")?;
    let inside = to_usize(range.start - from)..to_usize(range.end - from);
    if read < inside.end {
        let reason = format!("{read} bytes at {from}, where {} should be", inside.end);
        return Err(StorageError::Corrupt { path: path.to_owned(), reason });
    }
    Ok(buf.freeze().slice(inside))
}
