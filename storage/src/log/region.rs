//! Finding whole batches in a sealed segment without reading them: for readers that are far behind (DESIGN §6).

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::fs::{CachedFile, FileRegion};
use heizer_wire::record_batch::BatchHeader;

use super::read::in_memory;
use crate::batch::{HEADER_BYTES, parse_header};
use crate::log::Log;
use crate::rope::to_usize;
use crate::segment::Segment;

/// Less than this is read and sent: a region costs several system calls.
const REGION_BYTES_MIN: usize = 64 << 10;
/// What is read at once of the headers between an index entry and the batch that is wanted.
const LOOK_BYTES: usize = 8 << 10;

impl Log {
    /// The batches from the one that holds `offset` on as a part of a file, as long as they fit `max_bytes`; with
    /// `min_one_batch` the first one even if it does not (contract F1). Ends where the index knows a batch to start,
    /// so it may be shorter than it could by about `index.interval.bytes`.
    ///
    /// `None` where [`read`](Self::read) has to do, which also has the errors: what is in memory, not sealed, at or
    /// above `max_offset` in part, or too little to be worth it.
    pub async fn find_region(
        &self,
        offset: i64,
        max_bytes: usize,
        max_offset: i64,
        min_one_batch: bool,
    ) -> Option<FileRegion> {
        if max_bytes < REGION_BYTES_MIN {
            return None;
        }
        let segment = self.sealed_segment(offset, max_offset)?;
        segment.load_indexes().await.ok()?;
        let file = segment.open_cached().await.ok()??;
        let range = locate(&file, &segment, offset, max_bytes, min_one_batch).await?;
        // Not if it was cut or deleted meanwhile.
        let still = self.sealed_segment(offset, max_offset)?;
        if !Rc::ptr_eq(&still, &segment) {
            return None;
        }
        segment.note_reader(range.clone());
        Some(file.region(range))
    }

    /// The segment of `offset` if it is sealed, wholly below `max_offset`, and its bytes from there on are not in
    /// memory.
    fn sealed_segment(&self, offset: i64, max_offset: i64) -> Option<Rc<Segment>> {
        let state = self.state.borrow();
        if !(state.log_start..state.log_end()).contains(&offset) {
            return None;
        }
        let at = state.segment_at(offset)?;
        let segment = &state.segments[at];
        let sealed = at + 1 < state.segments.len() && segment.is_sealed() && !segment.is_damaged();
        let fits = segment.next_offset() <= max_offset && offset < segment.next_offset();
        (sealed && fits && in_memory(segment, offset).is_none()).then(|| segment.clone())
    }
}

/// Where the wanted batches lie in the segment's file.
async fn locate(
    file: &CachedFile,
    segment: &Segment,
    offset: i64,
    max_bytes: usize,
    min_one_batch: bool,
) -> Option<Range<u64>> {
    let segment_bytes = segment.bytes();
    let relative = segment.relative(offset);
    let mut position = u64::from(segment.with_indexes(|indexes| indexes.offsets.lookup(relative))?);
    let mut window = Window { start: 0, bytes: Bytes::new() };
    let first = loop {
        let header = window.header_at(file, position).await?;
        if position + header.size_bytes() as u64 > segment_bytes {
            return None;
        }
        if header.last_offset() >= offset {
            break header;
        }
        position += header.size_bytes() as u64;
    };
    let limit = (position + max_bytes as u64).min(segment_bytes);
    let end = if limit == segment_bytes {
        limit
    } else {
        let limit = u32::try_from(limit).ok()?;
        u64::from(segment.with_indexes(|indexes| indexes.offsets.batch_start_at_or_below(limit))?)
    };
    let size = first.size_bytes();
    let end = if end > position {
        end
    } else if size <= max_bytes || min_one_batch {
        position + size as u64
    } else {
        return None;
    };
    (to_usize(end - position) >= REGION_BYTES_MIN).then_some(position..end)
}

/// The bytes that were looked at last.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// The header at `position`, if there is one.
    async fn header_at(&mut self, file: &CachedFile, position: u64) -> Option<BatchHeader> {
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + HEADER_BYTES as u64 > end {
            let (read, mut buf) = file.read_at(AlignedBuf::for_reading(LOOK_BYTES), position).await;
            buf.truncate(read.ok()?);
            *self = Window { start: position, bytes: buf.freeze() };
        }
        let bytes = self.bytes.get(to_usize(position - self.start)..)?;
        parse_header(bytes).ok()
    }
}
