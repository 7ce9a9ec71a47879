//! Writing a segment: creation, space, group-committed blocks, zeros ahead, the seal.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use futures::future;
use heizer_runtime::fs::{self, File, OpenOptions, WriteSync};
use heizer_runtime::task;

use crate::error::{IoContext, StorageError};
use crate::flush::{Means, SharedFlush, Turn};
use crate::index::Indexes;
use crate::paths::{self, INDEX, RECYCLED, SNAPSHOT, TIME_INDEX};
use crate::recycle::{Spare, wants_terminator};
use crate::rope::{Rope, to_usize};
use crate::segment::{IndexPlace, Segment, remove_if_there};
use crate::tail::{BLOCK, WritePlan, block_ceil, block_floor};

/// Space is reserved in steps that start here and double up to the segment's size (DESIGN §4).
const ALLOCATION_STEP_MIN: u64 = 64 << 10;
/// Blocks are zeroed ahead in steps that start and end here, so that an idle partition claims little and a busy one
/// is rarely held up: each step costs a sync of its own.
const ZEROING_STEP_MIN: u64 = 64 << 10;
const ZEROING_STEP_GROWTH: u64 = 4;
const ZEROING_STEP_MAX: u64 = 1 << 20;
/// Writes up to this size profit from blocks written before; larger ones cost more to write twice.
const SMALL_WRITE_MAX: u64 = 64 << 10;
/// So many small durable writes, and a segment counts as one of small writes.
const SMALL_WRITES_BEFORE_ZEROING: u32 = 4;
/// A large range is written in pieces of at least this, and at most so many at a time.
const PIECE_BYTES_MIN: u64 = 128 << 10;
const PIECES_MAX: u64 = 8;

impl Segment {
    /// Makes sure that the file exists, durably, and may be written: created if it is new, without the index files
    /// of an earlier seal.
    pub(crate) async fn prepare(self: &Rc<Self>) -> Result<File, StorageError> {
        let (exists, stale_indexes, uncut) = {
            let file = self.file.borrow();
            (file.exists, file.stale_indexes, file.uncut)
        };
        if !exists && self.has_spare() {
            self.name_spare().await?;
        } else if !exists {
            self.make_file().await?;
            fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
            self.mark_made();
        }
        if stale_indexes {
            remove_if_there(&paths::numbered(&self.dir, self.base, INDEX)).await?;
            remove_if_there(&paths::numbered(&self.dir, self.base, TIME_INDEX)).await?;
            fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
            self.file.borrow_mut().stale_indexes = false;
        }
        if uncut {
            self.cut().await?;
        }
        self.open_file().await
    }

    /// Creates the file. It is there durably, and [`mark_made`](Self::mark_made) may say so, when the directory has
    /// been synced.
    pub(crate) async fn make_file(self: &Rc<Self>) -> Result<(), StorageError> {
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            truncate: true,
            direct: true,
            ..OpenOptions::default()
        };
        let file = File::open(&self.path, options).await.at(&self.path, "create")?;
        file.sync_all().await.at(&self.path, "sync")?;
        self.keep_open(file);
        Ok(())
    }

    /// Takes `spare` for its file, which gets the segment's name with the first [`flush`](Self::flush), or with
    /// [`prepare`](Self::prepare).
    pub(crate) fn adopt(self: &Rc<Self>, spare: Spare) -> File {
        {
            let mut state = self.file.borrow_mut();
            assert!(!state.exists && state.spare.is_none(), "a segment with a file of its own");
            // Only whole blocks within the length are settled: a write into another one moves the end.
            let whole = block_floor(spare.bytes);
            state.spare = Some(spare.path);
            state.allocated = whole;
            state.zeroed = spare.written.min(whole);
            state.settled = 0..state.zeroed;
            state.stale = if spare.recycled { block_ceil(spare.bytes) } else { 0 };
        }
        self.keep_open(spare.file)
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.file.borrow().spare.is_some()
    }

    /// Gives a spare that serves as the file the segment's name, durably; nothing to do without one.
    async fn name_spare(&self) -> Result<(), StorageError> {
        let Some(spare) = self.file.borrow().spare.clone() else { return Ok(()) };
        match fs::rename(&spare, &self.path).await {
            // Renamed by an attempt whose sync failed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.at(&spare, "rename")?,
        }
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
        let mut state = self.file.borrow_mut();
        state.spare = None;
        state.exists = true;
        Ok(())
    }

    /// Whether all blocks of the sealed file are on stable storage, as far as this process knows.
    pub(crate) fn is_settled(&self) -> bool {
        let settled = &self.file.borrow().settled;
        settled.start == 0 && settled.end >= block_floor(self.bytes())
    }

    /// Takes the file out of the log, under a name that no segment has, as a spare; none where it does not go past the page
    /// cache. The name is durable when the directory has been synced.
    pub(crate) async fn take_out(self: &Rc<Self>) -> Result<Option<Spare>, StorageError> {
        let file = self.open_file().await?;
        if !file.is_direct() {
            return Ok(None);
        }
        self.close_file();
        let path = paths::numbered(&self.dir, self.base, RECYCLED);
        fs::rename(&self.path, &path).await.at(&self.path, "rename")?;
        self.remove_companions().await?;
        let bytes = self.bytes();
        Ok(Some(Spare { path, file, bytes, written: block_floor(bytes), recycled: true }))
    }

    /// How much space, and how much of it zeroed, the segment would have liked to have from the beginning.
    pub(crate) fn appetite(&self) -> (u64, u64) {
        let state = self.file.borrow();
        let zeroed = if state.zeroing_step > 0 { state.zeroing_step.min(ZEROING_STEP_MAX) } else { 0 };
        (state.allocation_step.max(ALLOCATION_STEP_MIN), zeroed)
    }

    pub(crate) fn mark_made(&self) {
        self.file.borrow_mut().exists = true;
    }

    /// What recovery has found here may not be on stable storage.
    pub(crate) fn mark_unsynced(&self) {
        self.file.borrow_mut().unsynced = true;
    }

    /// All that was found is on stable storage, by other means than [`sync`](Self::sync).
    pub(crate) fn mark_synced(&self) {
        self.file.borrow_mut().unsynced = false;
    }

    /// The file is there and empty, but perhaps not durably: it is made as if it were not there.
    pub(crate) fn make_again(&self) {
        assert_eq!(self.bytes(), 0, "only an empty file is made again");
        self.file.borrow_mut().exists = false;
    }

    /// Whether the segment is as an earlier process has sealed it, in its files and in memory.
    pub(crate) fn is_as_sealed_before(&self) -> bool {
        self.file.borrow().stale_indexes
    }

    /// Writes what is appended when its turn comes and returns the offset after it. One call at a time. Durable writes
    /// may share a flush with others that know of `shared`.
    pub(crate) async fn flush(
        self: &Rc<Self>,
        file: &File,
        sync: WriteSync,
        segment_bytes: u32,
        shared: Option<&Rc<SharedFlush>>,
    ) -> Result<i64, StorageError> {
        let turn = match shared {
            Some(shared) => Some(shared.turn(self.unwritten()).await),
            None => None,
        };
        let (mut plan, next_offset) = (self.tail.borrow().plan(), self.next_offset());
        let (end, bytes) = (plan.end, plan.bytes());
        if wants_terminator(end, self.file.borrow().stale) {
            plan.terminator = self.ctx.zeros(to_usize(BLOCK)).pop();
        }
        let blocks = plan.offset..plan.offset + plan.bytes();
        self.reserve(file, blocks.end, u64::from(segment_bytes)).await?;
        self.zeroing_out_of(blocks.clone()).await;
        let write = async {
            match sync {
                WriteSync::None => {
                    self.file.borrow_mut().unsynced = true;
                    write_blocks(file, &self.path, plan, sync).await
                }
                WriteSync::Data => self.write_durably(file, plan, turn, shared).await,
            }
        };
        // Both to their ends, so that what fails can be done again.
        let (written, named) = future::join(write, self.name_spare()).await;
        written.and(named)?;
        self.tail.borrow_mut().mark_written(end);
        let small = {
            let mut state = self.file.borrow_mut();
            state.zeroed = state.zeroed.max(blocks.end);
            let small = bytes <= SMALL_WRITE_MAX && sync == WriteSync::Data;
            state.small_writes = if small { state.small_writes + 1 } else { 0 };
            state.small_writes >= SMALL_WRITES_BEFORE_ZEROING
        };
        if small {
            self.zero_ahead(file, u64::from(segment_bytes), shared).await?;
        }
        Ok(next_offset)
    }

    /// Carries out `plan` so that it is on stable storage. The turn ends with the write.
    async fn write_durably(
        &self,
        file: &File,
        plan: WritePlan,
        turn: Option<Turn>,
        shared: Option<&Rc<SharedFlush>>,
    ) -> Result<(), StorageError> {
        let blocks = plan.offset..plan.offset + plan.bytes();
        let Some(shared) = shared else {
            write_blocks(file, &self.path, plan, WriteSync::Data).await?;
            self.settle(blocks);
            return Ok(());
        };
        let settled = {
            let settled = &self.file.borrow().settled;
            file.is_direct() && settled.start <= blocks.start && blocks.end <= settled.end
        };
        let pieces = pieces(plan.bytes());
        let (means, write) = shared.begin(settled, pieces).await;
        let alone = means == Means::File && pieces == 1;
        let sync = if alone { WriteSync::Data } else { WriteSync::None };
        write_blocks(file, &self.path, plan, sync).await?;
        if means == Means::File && !alone {
            // One commit of the journal and one flush in place of one for each piece.
            file.sync_data().await.at(&self.path, "sync")?;
        }
        drop(turn);
        match means {
            Means::File => self.settle(blocks),
            Means::Shared => shared.join(write).await.at(&self.path, "flush the device of")?,
            Means::Nothing => {}
        }
        Ok(())
    }

    /// Takes note that `blocks` were written and synced. What lies before them and is apart from them is forgotten: nothing
    /// is written there any more.
    fn settle(&self, blocks: Range<u64>) {
        let settled = &mut self.file.borrow_mut().settled;
        let touches = blocks.start <= settled.end && settled.start <= blocks.end;
        *settled = match touches {
            true => settled.start.min(blocks.start)..settled.end.max(blocks.end),
            false => blocks,
        };
    }

    /// Puts on stable storage what was written without that.
    pub(crate) async fn sync(self: &Rc<Self>) -> Result<(), StorageError> {
        let file = self.open_file().await?;
        let written = block_floor(self.tail.borrow().written());
        file.sync_data().await.at(&self.path, "sync")?;
        // Not before: whoever seals another segment meanwhile looks at what is unsynced.
        self.file.borrow_mut().unsynced = false;
        let own = self.file.borrow().own_from;
        if own < written {
            self.settle(own..written);
        }
        Ok(())
    }

    /// Reserves space up to `end` and a step beyond, within the segment's size and what the disk has to spare.
    async fn reserve(&self, file: &File, end: u64, segment_bytes: u64) -> Result<(), StorageError> {
        let (from, to, step) = {
            let state = self.file.borrow();
            let needless = if self.space.is_refusing() { end } else { end + self.headroom.get() };
            if needless <= state.allocated {
                return Ok(());
            }
            let step = state.allocation_step.max(ALLOCATION_STEP_MIN);
            let spare = end.saturating_add(block_floor(self.space.ahead_max()));
            let ahead = (state.allocated + step).min(block_ceil(segment_bytes)).min(spare);
            (state.allocated, needless.max(block_ceil(ahead)), step)
        };
        let reserved = match self.allocate(file, from..to).await {
            Err(error) if error.is_no_space() && end < to => {
                // No room for the step: what is needed may still fit, once what was got of it is given back.
                file.set_len(from).await.at(&self.path, "give back space")?;
                if end <= from {
                    return Ok(());
                }
                self.allocate(file, from..end).await.map(|()| end)?
            }
            allocated => allocated.map(|()| to)?,
        };
        let mut state = self.file.borrow_mut();
        state.allocated = reserved;
        state.allocation_step = (step * 2).min(segment_bytes.max(ALLOCATION_STEP_MIN));
        drop(state);
        self.space.take(reserved.saturating_sub(from));
        self.settle_owed();
        Ok(())
    }

    async fn allocate(&self, file: &File, range: Range<u64>) -> Result<(), StorageError> {
        file.allocate(range.start, range.end - range.start).await.at(&self.path, "reserve space")
    }

    /// Whether more space is reserved than what is appended takes.
    pub(crate) fn reserves_ahead(&self) -> bool {
        let file = self.file.borrow();
        file.exists && file.allocated > block_ceil(self.bytes())
    }

    /// Gives back the space that is reserved ahead of the end. Not beside a [`flush`](Self::flush).
    pub(crate) async fn give_back(self: &Rc<Self>) {
        self.zeroing_ended().await;
        let end = block_ceil(self.bytes());
        let cut = async {
            let file = self.open_file().await?;
            file.set_len(end).await.at(&self.path, "give back space")
        };
        if let Err(error) = cut.await {
            // Nothing depends on it, the next reservation included.
            tracing::debug!(%error, "space was not given back");
        }
        let mut state = self.file.borrow_mut();
        state.allocated = state.allocated.min(end);
        state.zeroed = state.zeroed.min(end);
        // What comes there next has to find its place on the disk anew.
        state.settled.end = state.settled.end.min(block_floor(self.tail.borrow().written()));
        state.settled.start = state.settled.start.min(state.settled.end);
        drop(state);
        self.settle_owed();
    }

    /// Starts writing zeros ahead of the end, if too little is left of those from before: a durable write into a
    /// block written once needs no journal.
    async fn zero_ahead(
        self: &Rc<Self>,
        file: &File,
        segment_bytes: u64,
        shared: Option<&Rc<SharedFlush>>,
    ) -> Result<(), StorageError> {
        if self.space.is_refusing() {
            return Ok(());
        }
        let (range, leave) = {
            let mut state = self.file.borrow_mut();
            let written = block_ceil(self.tail.borrow().written());
            let step = state.zeroing_step.clamp(ZEROING_STEP_MIN, ZEROING_STEP_MAX);
            let from = state.zeroed.max(written);
            let to = (from + step).min(block_ceil(segment_bytes));
            if state.zeroing.is_some() || from - written > step / 2 || from >= to {
                return Ok(());
            }
            let leave = shared.map(|shared| shared.may_zero());
            if matches!(leave, Some(None)) {
                // Others are at it: the next write asks again.
                return Ok(());
            }
            state.zeroing_step = step * ZEROING_STEP_GROWTH;
            (from..to, leave)
        };
        match self.reserve(file, range.end, segment_bytes).await {
            // The data are written; only zeros are not.
            Err(error) if error.is_no_space() => return Ok(()),
            reserved => reserved?,
        }
        self.file.borrow_mut().zeroing = Some(range.clone());
        let (segment, file) = (self.clone(), file.clone());
        drop(task::spawn(async move {
            let zeros = segment.ctx.zeros(to_usize(range.end - range.start));
            let result = file.write_at(zeros, range.start, WriteSync::Data).await;
            drop(leave);
            segment.file.borrow_mut().zeroing = None;
            match result {
                Ok(()) => {
                    segment.file.borrow_mut().zeroed = range.end;
                    segment.settle(range);
                }
                // Not fatal: the data's own write to these blocks will tell.
                Err(error) => {
                    tracing::debug!(segment = %segment.path.display(), %error, "zeroing ahead failed")
                }
            }
            segment.zeroing_done.notify_all();
        }));
        Ok(())
    }

    async fn zeroing_out_of(&self, range: Range<u64>) {
        loop {
            let done = self.zeroing_done.listen();
            let overlaps = match &self.file.borrow().zeroing {
                Some(zeroing) => zeroing.start < range.end && range.start < zeroing.end,
                None => false,
            };
            if !overlaps {
                return;
            }
            done.await;
        }
    }

    /// Waits for zeros under way.
    pub(crate) async fn zeroing_ended(&self) {
        self.zeroing_out_of(0..u64::MAX).await;
    }

    /// Cuts the file to its exact length, everything in it on stable storage.
    pub(crate) async fn trim(self: &Rc<Self>) -> Result<(), StorageError> {
        self.prepare().await?;
        self.zeroing_ended().await;
        self.cut().await
    }

    async fn cut(self: &Rc<Self>) -> Result<(), StorageError> {
        let file = self.open_file().await?;
        // What was appended meanwhile is not written yet.
        let end = self.tail.borrow().written();
        file.set_len(end).await.at(&self.path, "truncate")?;
        file.sync_all().await.at(&self.path, "sync")?;
        let mut state = self.file.borrow_mut();
        state.unsynced = false;
        state.uncut = false;
        state.allocated = end;
        state.zeroed = block_ceil(end);
        // The last block, if it is a part of one, ends beyond the file's length.
        state.settled = state.own_from..block_floor(end).max(state.own_from);
        state.stale = 0;
        state.allocation_step = 0;
        drop(state);
        self.settle_owed();
        Ok(())
    }

    /// Seals the segment: exact length, then both index files, whose presence says so (recovery relies on it), and
    /// the producer snapshot, which recovery can do without.
    pub(crate) async fn seal(self: &Rc<Self>) -> Result<(), StorageError> {
        assert_eq!(self.unwritten(), 0, "sealing a segment with unwritten bytes");
        self.trim().await?;
        if !self.is_sealed() {
            self.load_indexes().await?;
        }
        let snapshot = self.snapshot.borrow().clone();
        let mut indexes = match &*self.indexes.borrow() {
            IndexPlace::Growing(indexes) => indexes.clone(),
            IndexPlace::Sealed(_) => return Ok(()),
        };
        indexes.finish();
        // Before the indexes: once the segment counts as sealed and is removed in its time, what its snapshot says is nowhere
        // else.
        if let Some(snapshot) = snapshot {
            let path = paths::numbered(&self.dir, self.next_offset(), SNAPSHOT);
            fs::replace(&path, snapshot).await.at(&path, "write")?;
        }
        self.replace_indexes(&indexes).await?;
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
        *self.snapshot.borrow_mut() = None;
        let charge = self.ctx.charge_index(self, indexes.memory());
        *self.indexes.borrow_mut() = IndexPlace::Sealed(Some((Rc::new(indexes), charge)));
        Ok(())
    }

    pub(crate) async fn write_indexes(&self, indexes: &Indexes) -> Result<(), StorageError> {
        self.replace_indexes(indexes).await?;
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")
    }

    /// Writes both index files; they are there durably when the directory has been synced.
    async fn replace_indexes(&self, indexes: &Indexes) -> Result<(), StorageError> {
        let replace = async |suffix, content| {
            let path = paths::numbered(&self.dir, self.base, suffix);
            fs::replace(&path, content).await.at(&path, "write")
        };
        let times = replace(TIME_INDEX, indexes.times.encode());
        let offsets = replace(INDEX, indexes.offsets.encode());
        let (times, offsets) = future::join(times, offsets).await;
        times.and(offsets)
    }
}

/// Carries out `plan`: small ones as one write, large ones as several at a time.
pub(crate) async fn write_blocks(
    file: &File,
    path: &Path,
    plan: WritePlan,
    sync: WriteSync,
) -> Result<(), StorageError> {
    let total = plan.bytes();
    let mut parts: Vec<Bytes> = plan.blocks;
    parts.extend(plan.last);
    parts.extend(plan.terminator);
    if pieces(total) == 1 {
        return file.write_at(parts, plan.offset, sync).await.at(path, "write");
    }
    let rope = Rope::new(plan.offset, parts);
    let piece = piece_bytes(total);
    let pieces = (0..total.div_ceil(piece)).map(|at| {
        let from = plan.offset + at * piece;
        let to = (from + piece).min(rope.end());
        file.write_at(rope.slice(from..to), from, sync)
    });
    let results = future::join_all(pieces).await;
    results.into_iter().collect::<std::io::Result<()>>().at(path, "write")
}

fn piece_bytes(total: u64) -> u64 {
    if total < 2 * PIECE_BYTES_MIN {
        return total;
    }
    block_ceil(total.div_ceil(PIECES_MAX)).max(PIECE_BYTES_MIN)
}

/// In how many pieces so many bytes are written.
fn pieces(total: u64) -> u64 {
    total.div_ceil(piece_bytes(total))
}
