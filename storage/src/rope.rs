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
        if position < self.start || position + HEADER_BYTES as u64 > self.end {
            return None;
        }
        let mut bytes = [0; HEADER_BYTES];
        let (mut filled, mut skip) = (0, to_usize(position - self.start));
        for part in &self.parts {
            let Some(part) = part.get(skip..) else {
                skip -= part.len();
                continue;
            };
            let count = part.len().min(HEADER_BYTES - filled);
            bytes[filled..filled + count].copy_from_slice(&part[..count]);
            filled += count;
            skip = 0;
            if filled == HEADER_BYTES {
                break;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchSpec;

    #[test]
    fn headers_and_slices_do_not_mind_where_the_pieces_are_cut() {
        let batch = BatchSpec::default().base_offset(42).bytes();
        let whole = Bytes::from([&[0; 10][..], &batch].concat());
        for cut in 0..whole.len() {
            for second in cut..whole.len() {
                let parts = vec![whole.slice(..cut), whole.slice(cut..second), whole.slice(second..)];
                let rope = Rope::new(100, parts);
                let header = rope.header_at(110).expect("within").expect("a header");
                assert_eq!((header.base_offset, header.size_bytes()), (42, batch.len()));
                assert_eq!(join(rope.slice(110..rope.end())), batch);
            }
        }
        let rope = Rope::new(100, vec![whole.slice(..70)]);
        assert!(rope.header_at(110).is_none() && rope.header_at(99).is_none());
    }
}
