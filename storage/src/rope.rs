//! A run of file bytes that lies in several pieces of memory.

use std::ops::Range;

use bytes::Bytes;

use heizer_wire::record_batch::BatchHeader;

use crate::batch::{BadHeader, HEADER_BYTES, parse_header};

/// Consecutive bytes of a file, shared and not copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    /// File position of the first byte.
    start: u64,
    end: u64,
    parts: Vec<Bytes>,
}

impl Rope {
    pub(crate) fn new(start: u64, parts: Vec<Bytes>) -> Self {
        let end = start + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Self { start, end, parts }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes of `range`, which lies within.
    pub(crate) fn slice(&self, range: Range<u64>) -> Vec<Bytes> {
        assert!(
            self.start <= range.start && range.end <= self.end,
            "{range:?} of {}..{}",
            self.start,
            self.end
        );
        let mut out = Vec::with_capacity(2);
        let mut at = self.start;
        for part in &self.parts {
            let part_end = at + part.len() as u64;
            let (from, to) = (range.start.max(at), range.end.min(part_end));
            if from < to {
                out.push(part.slice(to_usize(from - at)..to_usize(to - at)));
            }
            at = part_end;
        }
        out
    }

    /// The header of the batch at `position`; `None` where the rope ends before it does.
    pub(crate) fn header_at(&self, position: u64) -> Option<Result<BatchHeader, BadHeader>> {
        let range = position..position + HEADER_BYTES as u64;
        if range.end > self.end {
            return None;
        }
        let mut bytes = [0; HEADER_BYTES];
        let mut filled = 0;
        for part in self.slice(range) {
            bytes[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
        }
        Some(parse_header(&bytes))
    }
}

/// A length of something that lies in memory.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("lengths in memory fit usize")
}

/// `parts` as one piece; copies only when there are several.
pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    parts.concat().into()
}
