//! Offset and time index of one segment, in memory and in Kafka's file formats.

/// Bytes of one offset index entry: relative offset, position.
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of one time index entry: timestamp, relative offset.
pub(crate) const TIME_ENTRY_BYTES: usize = 12;

/// Sparse map from offset to file position. An entry says: the batch at `position` ends with this offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    /// `relative` is the last offset of the batch at `position`, less the segment's base. Both only grow.
    pub(crate) fn push(&mut self, relative: u32, position: u32) {
        if let Some(&(offset, at)) = self.entries.last() {
            assert!(relative > offset && position > at, "index entries grow");
        }
        self.entries.push((relative, position));
    }

    /// A position from which a scan finds every batch that ends at or after `relative`.
    pub(crate) fn lookup(&self, relative: u32) -> u32 {
        let after = self.entries.partition_point(|&(offset, _)| offset <= relative);
        after.checked_sub(1).map_or(0, |at| self.entries[at].1)
    }

    /// The largest known start of a batch at or below `position`.
    pub(crate) fn batch_start_at_or_below(&self, position: u32) -> u32 {
        let after = self.entries.partition_point(|&(_, at)| at <= position);
        after.checked_sub(1).map_or(0, |at| self.entries[at].1)
    }

    /// Drops what points at or beyond `position`.
    pub(crate) fn truncate(&mut self, position: u32) {
        let keep = self.entries.partition_point(|&(_, at)| at < position);
        self.entries.truncate(keep);
    }

    /// Position of the last entry, 0 without one.
    pub(crate) fn last_position(&self) -> u32 {
        self.entries.last().map_or(0, |&(_, position)| position)
    }

    /// Size of its file.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * OFFSET_ENTRY_BYTES
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for (offset, position) in &self.entries {
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(&position.to_be_bytes());
        }
        out
    }

    /// `None` unless the file makes sense for a segment of `segment_bytes`.
    pub(crate) fn decode(bytes: &[u8], segment_bytes: u64) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<OFFSET_ENTRY_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let entries: Vec<(u32, u32)> = entries
            .iter()
            .map(|&[a, b, c, d, e, f, g, h]| {
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            })
            .collect();
        let grows = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let inside = entries.last().is_none_or(|&(_, position)| u64::from(position) < segment_bytes);
        (grows && inside).then_some(Self { entries })
    }
}

/// Sparse map from time to offset. An entry `(t, o)` says: every record with a timestamp above `t` lies after `o`
/// (contract L7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    entries: Vec<(i64, u32)>,
}

impl TimeIndex {
    /// Adds an entry unless time did not advance since the last one.
    pub(crate) fn maybe_push(&mut self, timestamp: i64, relative: u32) {
        let advances =
            self.entries.last().is_none_or(|&(last, offset)| timestamp > last && relative >= offset);
        if timestamp >= 0 && advances {
            self.entries.push((timestamp, relative));
        }
    }

    /// A relative offset from which on the first record at or after `timestamp` is found.
    pub(crate) fn lookup(&self, timestamp: i64) -> u32 {
        let after = self.entries.partition_point(|&(at, _)| at <= timestamp);
        after.checked_sub(1).map_or(0, |at| self.entries[at].1)
    }

    /// Drops what points at or beyond `relative`.
    pub(crate) fn truncate(&mut self, relative: u32) {
        let keep = self.entries.partition_point(|&(_, offset)| offset < relative);
        self.entries.truncate(keep);
    }

    /// The largest timestamp indexed and the last offset of the batch that has it.
    pub(crate) fn last(&self) -> Option<(i64, u32)> {
        self.entries.last().copied()
    }

    /// Size of its file.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * TIME_ENTRY_BYTES
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for (timestamp, offset) in &self.entries {
            out.extend_from_slice(&timestamp.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
        out
    }

    /// `None` unless the file makes sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<TIME_ENTRY_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let entries: Vec<(i64, u32)> = entries
            .iter()
            .map(|&[a, b, c, d, e, f, g, h, i, j, k, l]| {
                (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
            })
            .collect();
        let grows = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        grows.then_some(Self { entries })
    }
}

/// Both indexes of a segment, and what is needed to go on appending to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Indexes {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// Largest timestamp of the segment so far and the last offset of the batch that has it.
    pub(crate) max_timestamp: i64,
    pub(crate) max_timestamp_relative: u32,
    bytes_since_entry: u64,
}

impl Default for Indexes {
    fn default() -> Self {
        Self {
            offsets: OffsetIndex::default(),
            times: TimeIndex::default(),
            max_timestamp: -1,
            max_timestamp_relative: 0,
            bytes_since_entry: 0,
        }
    }
}

impl Indexes {
    /// Takes in a batch at `position`, the next one of the segment.
    pub(crate) fn add(
        &mut self,
        last_relative: u32,
        position: u32,
        bytes: usize,
        max_timestamp: i64,
        interval: u32,
    ) {
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_timestamp_relative = last_relative;
        }
        if self.bytes_since_entry > u64::from(interval) {
            self.offsets.push(last_relative, position);
            self.times.maybe_push(self.max_timestamp, self.max_timestamp_relative);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += bytes as u64;
    }

    /// Puts `first`, the entries of all batches before, in front.
    pub(crate) fn prepend(&mut self, first: Indexes) {
        let rest = std::mem::replace(&mut self.offsets, first.offsets);
        self.offsets.entries.extend(rest.entries);
        let rest = std::mem::replace(&mut self.times, first.times);
        for (timestamp, relative) in rest.entries {
            self.times.maybe_push(timestamp, relative);
        }
    }

    /// Indexes that go on where a part of a segment with this largest timestamp ends.
    pub(crate) fn resumed(max_timestamp: i64, max_timestamp_relative: u32) -> Self {
        Self { max_timestamp, max_timestamp_relative, ..Self::default() }
    }

    /// The time index ends with the segment's largest timestamp once nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.times.maybe_push(self.max_timestamp, self.max_timestamp_relative);
    }

    /// Whether either index has no room for another entry within `max_bytes`.
    pub(crate) fn full(&self, max_bytes: u32) -> bool {
        let max_bytes = max_bytes as usize;
        self.offsets.bytes() + OFFSET_ENTRY_BYTES > max_bytes
            || self.times.bytes() + 2 * TIME_ENTRY_BYTES > max_bytes
    }

    /// Bytes of memory held, about.
    pub(crate) fn memory(&self) -> usize {
        self.offsets.bytes() + self.times.bytes() / 3 * 4
    }

    /// Both indexes from their files; `None` unless both make sense.
    pub(crate) fn decode(offsets: &[u8], times: &[u8], segment_bytes: u64) -> Option<Self> {
        let times = TimeIndex::decode(times)?;
        let offsets = OffsetIndex::decode(offsets, segment_bytes)?;
        let (max_timestamp, max_timestamp_relative) = times.last().unwrap_or((-1, 0));
        // The distance to the last entry is not known without a scan; the next batch may be indexed a little late.
        Some(Self { offsets, times, max_timestamp, max_timestamp_relative, bytes_since_entry: 0 })
    }

    /// Takes back everything at or beyond `position` and `relative`.
    ///
    /// Where the largest timestamp is among what goes, that of the last entry below stands in for it: the caller knows
    /// of the batches since.
    pub(crate) fn truncate(&mut self, position: u32, relative: u32) {
        self.offsets.truncate(position);
        self.times.truncate(relative);
        if self.max_timestamp_relative >= relative || position == 0 {
            let (max_timestamp, at) = self.times.last().unwrap_or((-1, 0));
            (self.max_timestamp, self.max_timestamp_relative) = (max_timestamp, at);
        }
        self.bytes_since_entry = u64::from(position.saturating_sub(self.offsets.last_position()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_gives_the_last_batch_that_ends_at_or_before_the_offset() {
        let mut index = OffsetIndex::default();
        for (offset, position) in [(9, 100), (19, 4200), (40, 9000)] {
            index.push(offset, position);
        }
        let table = [(0, 0), (8, 0), (9, 100), (18, 100), (19, 4200), (39, 4200), (40, 9000), (1000, 9000)];
        for (relative, position) in table {
            assert_eq!(index.lookup(relative), position, "{relative}");
        }
        for (position, start) in [(0, 0), (99, 0), (100, 100), (8999, 4200), (9000, 9000), (u32::MAX, 9000)] {
            assert_eq!(index.batch_start_at_or_below(position), start);
        }
        assert_eq!(OffsetIndex::decode(&index.encode(), 9001), Some(index.clone()));
        assert_eq!(OffsetIndex::decode(&index.encode(), 9000), None, "points beyond the segment");
        index.truncate(4200);
        assert_eq!(index.lookup(1000), 100);
    }

    #[test]
    fn damaged_index_files_are_refused() {
        assert_eq!(OffsetIndex::decode(&[0; 7], 100), None);
        assert_eq!(OffsetIndex::decode(&[0; 16], 100), None, "entries that do not grow");
        assert_eq!(TimeIndex::decode(&[0; 13]), None);
        assert_eq!(TimeIndex::decode(&[0; 24]), None);
        assert_eq!(OffsetIndex::decode(&[], 0), Some(OffsetIndex::default()));
    }

    /// contract L7: every record with a timestamp above t lies after o.
    #[test]
    fn records_above_an_entrys_timestamp_lie_after_its_offset() {
        let timestamps = [5_i64, 3, 9, 9, 2, 14, 1, 20, 20, 7];
        let mut indexes = Indexes::default();
        for (at, &timestamp) in timestamps.iter().enumerate() {
            let at = u32::try_from(at).unwrap();
            indexes.add(at, at * 100, 100, timestamp, 150);
        }
        indexes.finish();
        assert!(indexes.times.entries.len() > 2);
        for &(t, o) in &indexes.times.entries {
            for (at, &timestamp) in timestamps.iter().enumerate() {
                assert!(timestamp <= t || at > o as usize, "{timestamp} at {at} against ({t}, {o})");
            }
        }
        assert_eq!(indexes.times.last(), Some((20, 7)));
        for target in 0..22 {
            let first = timestamps.iter().position(|&timestamp| timestamp >= target);
            assert!(first.is_none_or(|first| indexes.times.lookup(target) as usize <= first));
        }
        assert_eq!(TimeIndex::decode(&indexes.times.encode()), Some(indexes.times));
    }

    #[test]
    fn an_index_is_full_one_entry_before_its_limit() {
        let mut indexes = Indexes::default();
        assert!(!indexes.full(24));
        indexes.add(0, 0, 10, 1, 0);
        indexes.add(1, 10, 10, 2, 0);
        assert!(indexes.full(24));
        assert!(!indexes.full(48));
    }
}
