//! What the logs of one core share: budgets for memory and open files.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::time;

use crate::segment::Segment;
use crate::space::Space;
use crate::tail::Tail;

/// Length of the block of zeros that files are zeroed from.
pub(crate) const ZEROS_BYTES: usize = 64 << 10;

/// Bounds for one core.
#[derive(Copy, Clone, Debug)]
pub struct StorageLimits {
    /// Bytes of append chunks kept for tail readers. What is not written yet is kept in any case: the bound on that
    /// is the admission of produce requests.
    pub tail_cache_max: usize,
    /// Bytes of indexes of sealed segments kept in memory.
    pub index_cache_max: usize,
    /// Segment files kept open.
    pub open_files_max: usize,
}

impl Default for StorageLimits {
    fn default() -> Self {
        Self { tail_cache_max: 16 << 20, index_cache_max: 4 << 20, open_files_max: 8192 }
    }
}

/// One per core, shared by its logs and streams; outlives them.
pub struct StorageContext {
    limits: StorageLimits,
    chunk_bytes: Rc<Cell<usize>>,
    index_bytes: Rc<Cell<usize>>,
    /// Every chunk in order of its birth, by its tail and file position.
    chunks: RefCell<VecDeque<(Weak<RefCell<Tail>>, u64)>>,
    indexes: RefCell<VecDeque<Weak<Segment>>>,
    /// Segments with an open file, in the order in which they were opened or last looked at.
    files: RefCell<VecDeque<Weak<Segment>>>,
    /// Segments that have been open through the page cache since the last sweep.
    cached: RefCell<Vec<Weak<Segment>>>,
    zeros: Bytes,
    /// One per data directory.
    spaces: RefCell<Vec<Rc<Space>>>,
    damaged_segments: Cell<u64>,
}

impl StorageContext {
    /// A context with nothing in it.
    pub fn new(limits: StorageLimits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            chunk_bytes: Rc::default(),
            index_bytes: Rc::default(),
            chunks: RefCell::default(),
            indexes: RefCell::default(),
            files: RefCell::default(),
            cached: RefCell::default(),
            zeros: AlignedBuf::zeroed(ZEROS_BYTES).freeze(),
            spaces: RefCell::default(),
            damaged_segments: Cell::new(0),
        })
    }

    /// Bytes of append chunks now held.
    pub fn tail_cache_bytes(&self) -> usize {
        self.chunk_bytes.get()
    }

    /// Bytes of indexes of sealed segments now held.
    pub fn index_cache_bytes(&self) -> usize {
        self.index_bytes.get()
    }

    /// The bounds.
    pub fn limits(&self) -> StorageLimits {
        self.limits
    }

    /// Segments found damaged since the start.
    pub fn damaged_segments(&self) -> u64 {
        self.damaged_segments.get()
    }

    pub(crate) fn count_damaged_segment(&self) {
        self.damaged_segments.set(self.damaged_segments.get() + 1);
    }

    /// Takes the chunks back from files without an append since the last sweep, and the page cache from segments
    /// without readers. For the core's housekeeping, every ten seconds or so.
    pub fn sweep_idle(&self) {
        self.sweep_cached();
        let mut chunks = self.chunks.borrow_mut();
        let mut swept: Vec<Rc<RefCell<Tail>>> = Vec::new();
        for tail in chunks.iter().filter_map(|(tail, _)| tail.upgrade()) {
            if swept.last().is_none_or(|last| !Rc::ptr_eq(last, &tail)) {
                swept.push(tail);
            }
        }
        swept.sort_by_key(|tail| Rc::as_ptr(tail).addr());
        swept.dedup_by(|a, b| Rc::ptr_eq(a, b));
        for tail in &swept {
            let mut tail = tail.borrow_mut();
            if !tail.take_touched() {
                tail.evict_all();
            }
        }
        chunks.retain(|(tail, start)| tail.upgrade().is_some_and(|tail| tail.borrow().holds(*start)));
    }

    fn sweep_cached(&self) {
        let cached = self.cached.take();
        if cached.is_empty() {
            return;
        }
        let now = time::now();
        let open =
            |segment: &Weak<Segment>| segment.upgrade().is_some_and(|segment| segment.sweep_cached(now));
        self.cached.borrow_mut().extend(cached.into_iter().filter(open));
    }

    /// Evicts the oldest chunks until the budget holds or nothing can go. Called with no tail borrowed.
    pub(crate) fn enforce(&self) {
        if self.chunk_bytes.get() <= self.limits.tail_cache_max {
            return;
        }
        let mut chunks = self.chunks.borrow_mut();
        for _ in 0..chunks.len() {
            if self.chunk_bytes.get() <= self.limits.tail_cache_max {
                return;
            }
            let Some((weak, start)) = chunks.pop_front() else { return };
            let Some(tail) = weak.upgrade() else { continue };
            let mut tail = tail.borrow_mut();
            if tail.holds(start) && !tail.evict_oldest() {
                chunks.push_back((weak, start));
            }
        }
    }

    /// The space of the data directory at `path`, from here on that of everything below it.
    pub(crate) fn add_space(&self, path: &Path) -> Rc<Space> {
        let known = self.spaces.borrow().iter().find(|space| space.path() == path).cloned();
        known.unwrap_or_else(|| {
            let space = Space::new(path);
            self.spaces.borrow_mut().push(space.clone());
            space
        })
    }

    /// The space of the data directory that `path` lies in; of its own where it lies in none.
    pub(crate) fn space_of(&self, path: &Path) -> Rc<Space> {
        let spaces = self.spaces.borrow();
        let around = spaces.iter().filter(|space| path.starts_with(space.path()));
        let nearest = around.max_by_key(|space| space.path().components().count()).cloned();
        nearest.unwrap_or_else(|| Space::new(path))
    }

    pub(crate) fn charge_chunk(&self, tail: &Rc<RefCell<Tail>>, start: u64, bytes: usize) -> Charge {
        self.chunks.borrow_mut().push_back((Rc::downgrade(tail), start));
        Charge::new(&self.chunk_bytes, bytes)
    }

    /// Takes note that `segment`, which is sealed, holds its indexes in memory; drops others' for it.
    pub(crate) fn charge_index(&self, segment: &Rc<Segment>, bytes: usize) -> Charge {
        let charge = Charge::new(&self.index_bytes, bytes);
        let mut indexes = self.indexes.borrow_mut();
        indexes.push_back(Rc::downgrade(segment));
        while self.index_bytes.get() > self.limits.index_cache_max && indexes.len() > 1 {
            if let Some(oldest) = indexes.pop_front().and_then(|weak| weak.upgrade()) {
                oldest.drop_cached_indexes();
            }
        }
        charge
    }

    /// Takes note that `segment` has its file open; closes others' for it, those first that nobody has used since they
    /// were last looked at (the clock algorithm, which comes close to least recently used).
    pub(crate) fn note_open_file(&self, segment: &Rc<Segment>) {
        let mut files = self.files.borrow_mut();
        files.push_back(Rc::downgrade(segment));
        while files.len() > self.limits.open_files_max {
            let Some(candidate) = files.pop_front().and_then(|weak| weak.upgrade()) else { continue };
            if candidate.take_used() {
                files.push_back(Rc::downgrade(&candidate));
            } else {
                candidate.close_file();
            }
        }
    }

    /// Takes note that `segment` has its file open through the page cache.
    pub(crate) fn note_cached(&self, segment: &Rc<Segment>) {
        let mut cached = self.cached.borrow_mut();
        if !cached.iter().any(|other| other.as_ptr() == Rc::as_ptr(segment)) {
            cached.push(Rc::downgrade(segment));
        }
    }

    /// `bytes` of zeros, a multiple of the block size, in parts fit for a direct write.
    pub(crate) fn zeros(&self, mut bytes: usize) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(bytes.div_ceil(ZEROS_BYTES));
        while bytes > 0 {
            let part = bytes.min(ZEROS_BYTES);
            parts.push(self.zeros.slice(..part));
            bytes -= part;
        }
        parts
    }
}

/// Bytes counted against a budget until this is dropped.
pub(crate) struct Charge {
    account: Rc<Cell<usize>>,
    bytes: usize,
}

impl Charge {
    fn new(account: &Rc<Cell<usize>>, bytes: usize) -> Self {
        account.set(account.get() + bytes);
        Self { account: account.clone(), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.set(self.account.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use heizer_runtime::fs;

    use super::*;

    #[test]
    fn files_that_are_in_use_stay_open_and_the_others_are_closed_in_turn() {
        heizer_runtime::sim::block_on(1, async {
            let limits = StorageLimits { open_files_max: 3, ..StorageLimits::default() };
            let ctx = StorageContext::new(limits);
            let dir = Path::new("/d");
            fs::create_dir_all(dir).await.expect("made");
            let segments: Vec<_> = (0..5).map(|base| Segment::fresh(dir, base, 0, &ctx)).collect();
            for segment in &segments {
                segment.make_file().await.expect("made");
                // The first is read all the time.
                segments[0].open_file().await.expect("open");
            }
            let open: Vec<bool> = segments.iter().map(|segment| segment.has_open_file()).collect();
            assert_eq!(open, [true, false, false, true, true]);
        });
    }
}
