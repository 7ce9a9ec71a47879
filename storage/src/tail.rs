//! The end of a growing file in memory: the append chunks, which are at once the source of its disk writes and the
//! cache that tail readers are served from (DESIGN §4).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use heizer_runtime::buf::{AlignedBuf, BLOCK_BYTES, Chunk};

use crate::context::{Charge, StorageContext};

pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;
const CHUNK_BYTES_MIN: usize = 16 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A chunk that fills up within this time is followed by one twice its size; one that took longer than eight
/// times this, by one of half its size.
const CHUNK_FILL_MS: i64 = 500;

pub(crate) fn block_floor(position: u64) -> u64 {
    position - position % BLOCK
}

pub(crate) fn block_ceil(position: u64) -> u64 {
    position.next_multiple_of(BLOCK)
}

/// One chunk and where in the file it lies.
struct Piece {
    start: u64,
    chunk: Chunk,
    opened_ms: i64,
    /// Offset and position of the first batch that starts in it.
    first_batch: Option<(i64, u64)>,
    _charge: Charge,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.chunk.len() as u64
    }
}

/// What one flush writes: whole blocks, from `offset` on, that bring the file up to `end`.
pub(crate) struct WritePlan {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// Full blocks, straight from the chunks.
    pub(crate) blocks: Vec<Bytes>,
    /// The partial last block, in a private copy padded with zeros, so that memory under DMA never changes.
    pub(crate) last: Option<Bytes>,
    /// Zeros after that, where the file holds something else and it matters.
    pub(crate) terminator: Option<Bytes>,
}

impl WritePlan {
    /// Bytes that go to the disk.
    pub(crate) fn bytes(&self) -> u64 {
        let terminator = self.terminator.as_ref().map_or(0, |zeros| zeros.len() as u64);
        block_ceil(self.end) + terminator - self.offset
    }
}

/// Memory of the end of one file. Lives on the log's core; the appender adds, one flusher at a time marks written.
///
/// Holds: `written <= end`; pieces are consecutive and, when there are any, end at `end`; everything from the block
/// of `written` on is in the pieces while `written < end`; without a piece to append to, `head` has the bytes of the
/// last, partial block.
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    head: Vec<u8>,
    end: u64,
    written: u64,
    next_chunk_bytes: usize,
    touched: bool,
}

impl Tail {
    /// A file that ends at `end`; `head` is what its last, partial block holds.
    pub(crate) fn new(end: u64, head: Vec<u8>) -> Self {
        assert_eq!(head.len() as u64, end % BLOCK, "the partial last block");
        Self {
            pieces: VecDeque::new(),
            head,
            end,
            written: end,
            next_chunk_bytes: CHUNK_BYTES_MIN,
            touched: false,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn unwritten(&self) -> u64 {
        self.end - self.written
    }

    /// Announces that the next bytes appended start a batch.
    pub(crate) fn start_batch(
        &mut self,
        this: &Rc<RefCell<Tail>>,
        offset: i64,
        bytes: usize,
        now_ms: i64,
        ctx: &StorageContext,
    ) {
        let end = self.end;
        let piece = self.open_piece(this, bytes, now_ms, ctx);
        piece.first_batch.get_or_insert((offset, end));
    }

    /// Copies `bytes` to the end.
    pub(crate) fn append(
        &mut self,
        this: &Rc<RefCell<Tail>>,
        mut bytes: &[u8],
        now_ms: i64,
        ctx: &StorageContext,
    ) {
        self.touched = true;
        while !bytes.is_empty() {
            let copied = self.open_piece(this, bytes.len(), now_ms, ctx).chunk.append(bytes);
            self.end += copied as u64;
            bytes = &bytes[copied..];
        }
    }

    /// The piece with room at the end; a new one of a size that suits `bytes` and the rate, if there is none.
    fn open_piece(
        &mut self,
        this: &Rc<RefCell<Tail>>,
        bytes: usize,
        now_ms: i64,
        ctx: &StorageContext,
    ) -> &mut Piece {
        if self.pieces.back().is_none_or(|piece| piece.chunk.remaining() == 0) {
            if let Some(full) = self.pieces.back() {
                let took_ms = now_ms - full.opened_ms;
                if took_ms < CHUNK_FILL_MS {
                    self.next_chunk_bytes = (self.next_chunk_bytes * 2).min(CHUNK_BYTES_MAX);
                } else if took_ms > 8 * CHUNK_FILL_MS {
                    self.next_chunk_bytes = (self.next_chunk_bytes / 2).max(CHUNK_BYTES_MIN);
                }
            }
            let wanted = (self.head.len() + bytes).next_multiple_of(BLOCK_BYTES).min(CHUNK_BYTES_MAX);
            let mut chunk = Chunk::new(self.next_chunk_bytes.max(wanted));
            chunk.append(&self.head);
            self.head = Vec::new();
            let start = block_floor(self.end);
            let charge = ctx.charge_chunk(this, start, chunk.capacity());
            self.pieces.push_back(Piece {
                start,
                chunk,
                opened_ms: now_ms,
                first_batch: None,
                _charge: charge,
            });
        }
        self.pieces.back_mut().expect("there is one now")
    }

    /// Where memory begins, if there is any.
    pub(crate) fn cached_from(&self) -> Option<u64> {
        self.pieces.front().map(|piece| piece.start)
    }

    /// The last position known to start a batch at or below `offset`.
    pub(crate) fn batch_start_for(&self, offset: i64) -> Option<u64> {
        let starts = self.pieces.iter().rev().filter_map(|piece| piece.first_batch);
        starts.into_iter().find(|&(first, _)| first <= offset).map(|(_, position)| position)
    }

    /// The bytes of `range`, which lies within what is cached.
    pub(crate) fn slices(&self, range: Range<u64>) -> Vec<Bytes> {
        let mut out = Vec::with_capacity(2);
        for piece in &self.pieces {
            let (from, to) = (range.start.max(piece.start), range.end.min(piece.end()));
            if from < to {
                let inside = |position: u64| crate::rope::to_usize(position - piece.start);
                out.push(piece.chunk.slice(inside(from)..inside(to)));
            }
        }
        out
    }

    /// What to write to bring the file up to date.
    pub(crate) fn plan(&self) -> WritePlan {
        let (offset, full) = (block_floor(self.written), block_floor(self.end));
        let last = (full < self.end).then(|| {
            let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
            let mut filled = 0;
            for part in self.slices(full..self.end) {
                block[filled..filled + part.len()].copy_from_slice(&part);
                filled += part.len();
            }
            assert_eq!(filled as u64, self.end - full, "unwritten bytes are never evicted");
            block.freeze()
        });
        let blocks = self.slices(offset..full);
        let planned: u64 = blocks.iter().map(|block| block.len() as u64).sum();
        assert_eq!(planned, full - offset, "unwritten bytes are never evicted");
        WritePlan { offset, end: self.end, blocks, last, terminator: None }
    }

    pub(crate) fn mark_written(&mut self, end: u64) {
        assert!(self.written <= end && end <= self.end);
        self.written = end;
    }

    /// Gives back the oldest chunk, unless it holds something unwritten. Returns whether it did.
    pub(crate) fn evict_oldest(&mut self) -> bool {
        let Some(oldest) = self.pieces.front().filter(|piece| piece.end() <= self.written) else {
            return false;
        };
        if oldest.end() == self.end {
            return self.evict_all();
        }
        self.pieces.pop_front();
        true
    }

    /// Gives back everything but the partial last block, unless something is unwritten. Returns whether it did.
    pub(crate) fn evict_all(&mut self) -> bool {
        if self.written < self.end || self.pieces.is_empty() {
            return false;
        }
        let head = self.slices(block_floor(self.end)..self.end).concat();
        self.head = head;
        self.pieces.clear();
        true
    }

    /// Gives back the chunks that are written and full.
    pub(crate) fn evict_written(&mut self) {
        while self.pieces.front().is_some_and(|piece| piece.end() <= self.written && piece.end() < self.end) {
            self.pieces.pop_front();
        }
    }

    /// Whether something was appended since the last time this was asked.
    pub(crate) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    /// Whether the chunk at `start` is still there.
    pub(crate) fn holds(&self, start: u64) -> bool {
        self.pieces.iter().any(|piece| piece.start == start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::StorageLimits;

    fn tail(end: u64, head: &[u8]) -> (Rc<RefCell<Tail>>, Rc<StorageContext>) {
        let limits = StorageLimits { tail_cache_max: 64 << 10, ..StorageLimits::default() };
        (Rc::new(RefCell::new(Tail::new(end, head.to_vec()))), StorageContext::new(limits))
    }

    fn append(tail: &Rc<RefCell<Tail>>, bytes: &[u8], ctx: &StorageContext) {
        tail.borrow_mut().append(tail, bytes, 0, ctx);
    }

    #[test]
    fn a_plan_rewrites_the_partial_block_with_its_old_bytes_and_pads_the_last() {
        let (tail, ctx) = tail(4100, b"abcd");
        append(&tail, &[7; 5000], &ctx);
        let plan = tail.borrow().plan();
        assert_eq!((plan.offset, plan.end, plan.bytes()), (4096, 9100, 8192));
        let blocks = plan.blocks.concat();
        assert_eq!((blocks.len(), &blocks[..5]), (4096, &b"abcd\x07"[..]));
        let last = plan.last.expect("there is a partial block");
        assert_eq!(last.len(), BLOCK_BYTES);
        assert!(last[..908].iter().all(|&byte| byte == 7) && last[908..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_unwritten_is_never_evicted_and_the_partial_block_survives_eviction() {
        let (tail, ctx) = tail(0, b"");
        append(&tail, &[1; 100_000], &ctx);
        ctx.enforce();
        assert!(ctx.tail_cache_bytes() >= 100_000, "nothing could go");
        tail.borrow_mut().mark_written(100_000);
        ctx.enforce();
        assert!(ctx.tail_cache_bytes() <= 64 << 10);
        tail.borrow_mut().evict_all();
        assert_eq!(ctx.tail_cache_bytes(), 0);
        append(&tail, &[2; 10], &ctx);
        let plan = tail.borrow().plan();
        assert_eq!((plan.offset, plan.end), (98_304, 100_010));
        let last = plan.last.expect("there is a partial block");
        assert!(last[..1696].iter().all(|&byte| byte == 1) && last[1696..1706] == [2; 10]);
    }

    #[test]
    fn an_idle_file_gives_its_chunks_back_at_the_second_sweep() {
        let (tail, ctx) = tail(0, b"");
        append(&tail, &[1; 10], &ctx);
        tail.borrow_mut().mark_written(10);
        ctx.sweep_idle();
        assert!(ctx.tail_cache_bytes() > 0);
        ctx.sweep_idle();
        assert_eq!(ctx.tail_cache_bytes(), 0);
    }
}
