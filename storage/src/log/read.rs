//! Reading whole batches: the tail from memory without a copy, everything else from the disk (DESIGN §6).

use std::rc::Rc;

use bytes::Bytes;
use heizer_wire::record_batch::BatchHeader;

use crate::batch::{BadHeader, HEADER_BYTES};
use crate::error::{ReadError, StorageError};
use crate::log::{Log, State};
use crate::rope::{Rope, to_usize};
use crate::segment::Segment;

/// One disk read takes no more than this, unless a single batch is larger.
const DISK_READ_BYTES_MAX: usize = 8 << 20;
/// A disk read starts at an index entry and may have to go this far to the batch that is wanted.
const INDEX_GAP_BYTES: u64 = 8 << 10;

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadResult {
    /// Whole batches, cut at arbitrary places: one after the other they are the bytes of the log.
    pub parts: Vec<Bytes>,
    /// Bytes in all parts.
    pub bytes: usize,
    /// Base offset of the first batch; the offset asked for when there is none.
    pub first_offset: i64,
    /// Where the next read should start: after the last batch, or the offset asked for when there is none.
    pub next_offset: i64,
}

impl ReadResult {
    fn empty(offset: i64) -> Self {
        Self { parts: Vec::new(), bytes: 0, first_offset: offset, next_offset: offset }
    }
}

/// What a read asks for.
#[derive(Copy, Clone)]
struct Wanted {
    offset: i64,
    max_bytes: usize,
    max_offset: i64,
    min_one_batch: bool,
}

/// How far a look into a rope got.
enum Found {
    /// Batches, or none because the limits forbid.
    Batches(ReadResult),
    /// The segment holds nothing at or after the offset (compaction leaves such gaps).
    PastEnd,
    /// The rope must go on to this position.
    NeedsUpTo { start: u64, end: u64 },
}

/// Where to look for an offset.
enum Place {
    Memory {
        segment: Rc<Segment>,
        rope: Rope,
        start: u64,
    },
    /// Read this much of the segment from the disk; the rope continues it, if there is more in memory.
    Disk {
        segment: Rc<Segment>,
        start: u64,
        disk_end: u64,
        rest: Vec<Bytes>,
    },
    /// The segment's indexes must be read first.
    Unindexed(Rc<Segment>),
}

impl Log {
    /// Reads from memory, if the batches are there. `None`: use [`read`](Self::read), which also has the errors.
    pub fn try_read_tail(
        &self,
        offset: i64,
        max_bytes: usize,
        max_offset: i64,
        min_one_batch: bool,
    ) -> Option<ReadResult> {
        let wanted = Wanted { offset, max_bytes, max_offset, min_one_batch };
        let state = self.state.borrow();
        state.check_range(offset).ok()?;
        if offset >= max_offset.min(state.log_end()) {
            return Some(ReadResult::empty(offset));
        }
        let segment = &state.segments[state.segment_at(offset)?];
        let (rope, start) = in_memory(segment, offset)?;
        match look(&rope, start, segment, wanted) {
            Ok(Found::Batches(result)) => Some(result),
            _ => None,
        }
    }

    /// Reads whole batches from the one that holds `offset` on, as long as they end below `max_offset` and fit
    /// `max_bytes`; with `min_one_batch` the first one even if it does not fit (contract F1). Never crosses a
    /// segment, so less than `max_bytes` is not the end.
    pub async fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        max_offset: i64,
        min_one_batch: bool,
    ) -> Result<ReadResult, ReadError> {
        let wanted = Wanted { offset, max_bytes, max_offset, min_one_batch };
        let read = self.read_in_range(wanted).await;
        if read.is_err() {
            // Where retention has removed the segment meanwhile, a file that is gone is no failure of the disk.
            self.state.borrow().check_range(offset)?;
        }
        read
    }

    async fn read_in_range(&self, wanted: Wanted) -> Result<ReadResult, ReadError> {
        let Wanted { offset, max_offset, .. } = wanted;
        let mut skip = 0;
        loop {
            let place = {
                let state = self.state.borrow();
                // In every round: what retention has removed meanwhile is not skipped silently.
                state.check_range(offset)?;
                if offset >= max_offset.min(state.log_end()) {
                    return Ok(ReadResult::empty(offset));
                }
                // Deleted meanwhile, if there is no such segment: nothing, and the next read has the error.
                let at = state.segment_at(offset).unwrap_or(0) + skip;
                let Some(segment) = state.segments.get(at) else { return Ok(ReadResult::empty(offset)) };
                locate(segment, wanted)
            };
            let (found, segment) = match place {
                Place::Unindexed(segment) => {
                    segment.load_indexes().await?;
                    continue;
                }
                Place::Memory { segment, rope, start } => (look(&rope, start, &segment, wanted), segment),
                Place::Disk { segment, start, disk_end, rest } => {
                    let found = read_disk(&segment, start, disk_end, rest, wanted).await?;
                    (found, segment)
                }
            };
            match found {
                Ok(Found::Batches(result)) => return Ok(result),
                Ok(Found::PastEnd) => skip += 1,
                Ok(Found::NeedsUpTo { start, .. }) => {
                    return Err(corrupt(&segment, start, "a batch beyond the end").into());
                }
                Err((position, bad)) => return Err(corrupt(&segment, position, &bad.to_string()).into()),
            }
        }
    }
}

impl State {
    /// contract F1
    fn check_range(&self, offset: i64) -> Result<(), ReadError> {
        let (log_start, log_end) = (self.log_start, self.log_end());
        if (log_start..=log_end).contains(&offset) {
            return Ok(());
        }
        Err(ReadError::OffsetOutOfRange { offset, log_start, log_end })
    }
}

/// The segment is damaged here, which is told once; its readers get the error.
fn corrupt(segment: &Segment, position: u64, reason: &str) -> StorageError {
    segment.quarantine(&format!("at position {position}: {reason}"))
}

/// The cached bytes from a batch start at or before `offset` to the end, if they are cached.
pub(super) fn in_memory(segment: &Segment, offset: i64) -> Option<(Rope, u64)> {
    let tail = segment.tail().borrow();
    let cached_from = tail.cached_from()?;
    let indexed = segment.with_indexes(|indexes| u64::from(indexes.offsets.lookup(segment.relative(offset))));
    let start = tail.batch_start_for(offset).max(indexed).filter(|&start| start >= cached_from)?;
    Some((Rope::new(start, tail.slices(start..tail.end())), start))
}

fn locate(segment: &Rc<Segment>, wanted: Wanted) -> Place {
    if let Some((rope, start)) = in_memory(segment, wanted.offset) {
        return Place::Memory { segment: segment.clone(), rope, start };
    }
    let indexed =
        segment.with_indexes(|indexes| u64::from(indexes.offsets.lookup(segment.relative(wanted.offset))));
    let Some(start) = indexed else { return Place::Unindexed(segment.clone()) };
    let bytes = wanted.max_bytes.clamp(HEADER_BYTES, DISK_READ_BYTES_MAX) as u64;
    let tail = segment.tail().borrow();
    let end = (start + INDEX_GAP_BYTES + bytes).min(tail.end());
    let disk_end = tail.cached_from().map_or(end, |cached_from| end.min(cached_from));
    // Taken now: by the time the disk has answered they may be evicted.
    let rest = if disk_end < end { tail.slices(disk_end..tail.end()) } else { Vec::new() };
    Place::Disk { segment: segment.clone(), start, disk_end, rest }
}

type Look = Result<Found, (u64, BadHeader)>;

async fn read_disk(
    segment: &Rc<Segment>,
    start: u64,
    disk_end: u64,
    rest: Vec<Bytes>,
    wanted: Wanted,
) -> Result<Look, StorageError> {
    let mut parts = vec![segment.read(start..disk_end).await?];
    parts.extend(rest);
    let mut found = look(&Rope::new(start, parts), start, segment, wanted);
    // At most a few rounds: on to the batch, then to its end.
    while let Ok(Found::NeedsUpTo { start, end }) = found {
        let (disk_end, rest) = {
            let tail = segment.tail().borrow();
            let end = end.min(tail.end());
            let disk_end = tail.cached_from().map_or(end, |cached_from| end.min(cached_from.max(start)));
            (disk_end, tail.slices(disk_end..end))
        };
        let mut parts = Vec::with_capacity(1 + rest.len());
        if start < disk_end {
            parts.push(segment.read(start..disk_end).await?);
        }
        parts.extend(rest);
        let rope = Rope::new(start, parts);
        if rope.end() < end {
            return Ok(Ok(Found::NeedsUpTo { start, end }));
        }
        found = look(&rope, start, segment, wanted);
    }
    Ok(found)
}

/// Finds the batches wanted in `rope`, in which one starts at `start`.
fn look(rope: &Rope, start: u64, segment: &Segment, wanted: Wanted) -> Look {
    let segment_end = segment.bytes();
    let mut position = start;
    let first = loop {
        if position >= segment_end {
            return Ok(Found::PastEnd);
        }
        let Some(header) = rope.header_at(position) else {
            let end = (position + INDEX_GAP_BYTES + wanted.max_bytes.min(DISK_READ_BYTES_MAX) as u64)
                .min(segment_end);
            return Ok(Found::NeedsUpTo { start: position, end: end.max(position + HEADER_BYTES as u64) });
        };
        let header = header.map_err(|bad| (position, bad))?;
        if header.last_offset() >= wanted.offset {
            break header;
        }
        position += header.size_bytes() as u64;
    };
    let size = first.size_bytes();
    if first.last_offset() >= wanted.max_offset || (size > wanted.max_bytes && !wanted.min_one_batch) {
        return Ok(Found::Batches(ReadResult::empty(wanted.offset)));
    }
    if position + size as u64 > rope.end() {
        let end = position + (size.max(wanted.max_bytes.min(DISK_READ_BYTES_MAX))) as u64;
        // A batch that fits nothing is an error of the file, not a reason to ask for ever more.
        let end = end.min(segment_end).max(position + size as u64);
        return Ok(Found::NeedsUpTo { start: position, end });
    }
    let (end, next_offset) = extend(rope, position, &first, segment, wanted)?;
    let parts = rope.slice(position..end);
    let bytes = to_usize(end - position);
    Ok(Found::Batches(ReadResult { parts, bytes, first_offset: first.base_offset, next_offset }))
}

/// The end of the batches that follow `first`, at `start`, within the limits, and the offset after them.
fn extend(
    rope: &Rope,
    start: u64,
    first: &BatchHeader,
    segment: &Segment,
    wanted: Wanted,
) -> Result<(u64, i64), (u64, BadHeader)> {
    let limit = (start + wanted.max_bytes as u64).min(rope.end());
    let mut end = start + first.size_bytes() as u64;
    let mut next_offset = first.next_offset();
    // The index knows a batch start near the end: no need to look at all the headers before it.
    let jump = segment.with_indexes(|indexes| {
        let by_bytes = indexes.offsets.batch_start_at_or_below(u32::try_from(limit).unwrap_or(u32::MAX));
        let by_offset = indexes.offsets.lookup(segment.relative(wanted.max_offset - 1));
        u64::from(by_bytes.min(by_offset))
    });
    if let Some(jump) = jump.filter(|&jump| jump > end && jump <= limit)
        && let Some(header) = rope.header_at(jump)
    {
        next_offset = header.map_err(|bad| (jump, bad))?.base_offset;
        end = jump;
    }
    while end < limit {
        let Some(header) = rope.header_at(end) else { break };
        let header = header.map_err(|bad| (end, bad))?;
        let batch_end = end + header.size_bytes() as u64;
        if batch_end > limit || header.last_offset() >= wanted.max_offset {
            break;
        }
        (end, next_offset) = (batch_end, header.next_offset());
    }
    Ok((end, next_offset))
}
