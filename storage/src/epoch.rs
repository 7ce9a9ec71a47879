//! The leader epoch cache: where each leader epoch's offsets start (KIP-101, contract L5).

use std::fmt::Write as _;

/// One epoch and its first offset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    pub(crate) epoch: i32,
    pub(crate) start: i64,
}

/// An epoch and the offset after its last record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch answered for: the largest one known that is not above the one asked for.
    pub epoch: i32,
    /// Where it ends, exclusive.
    pub end_offset: i64,
}

/// Epochs with their start offsets, strictly increasing in epoch and in offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochCache {
    entries: Vec<EpochStart>,
}

impl EpochCache {
    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Notes that `epoch` starts at `start`. Returns whether that is news.
    ///
    /// An epoch that is not above the latest is none. One that starts where (or before) later entries start
    /// supersedes them: those epochs left no record behind.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| epoch <= latest) {
            return false;
        }
        while self.entries.pop_if(|last| last.start >= start).is_some() {}
        self.entries.push(EpochStart { epoch, start });
        true
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// contract L5: latest → log end; unknown and higher → undefined; else the start of the next higher epoch.
    pub(crate) fn end_of(&self, epoch: i32, log_end: i64) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if epoch == latest {
            return Some(EpochEnd { epoch, end_offset: log_end });
        }
        if epoch < 0 || epoch > latest {
            return None;
        }
        let higher = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries[higher].start;
        let known = higher.checked_sub(1).map_or(epoch, |at| self.entries[at].epoch);
        Some(EpochEnd { epoch: known, end_offset })
    }

    /// Drops epochs that start at or after `end`. Returns whether any did.
    pub(crate) fn truncate_end(&mut self, end: i64) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start < end);
        let drops = keep < self.entries.len();
        self.entries.truncate(keep);
        drops
    }

    /// Drops epochs that end at or before `start`; the one that covers it now starts there. Returns whether
    /// anything changed.
    pub(crate) fn truncate_start(&mut self, start: i64) -> bool {
        let after = self.entries.partition_point(|entry| entry.start <= start);
        let Some(covering) = after.checked_sub(1) else { return false };
        if self.entries[covering].start == start && covering == 0 {
            return false;
        }
        self.entries.drain(..covering);
        self.entries[0].start = start;
        true
    }

    /// Epochs and their start offsets, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (i32, i64)> {
        self.entries.iter().map(|entry| (entry.epoch, entry.start))
    }

    /// The epochs from `offset` on; the one that covers it as if it started there.
    pub(crate) fn since(&self, offset: i64) -> Vec<EpochStart> {
        let covering = self.epoch_of(offset).map(|epoch| EpochStart { epoch, start: offset });
        let later = self.entries.iter().copied().filter(|entry| entry.start > offset);
        covering.into_iter().chain(later).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The text of a `leader-epoch-checkpoint` file: version, count, then one line an entry.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("0\n{}\n", self.entries.len());
        for EpochStart { epoch, start } in &self.entries {
            let _ = writeln!(text, "{epoch} {start}");
        }
        text.into_bytes()
    }

    /// `None` unless the text is a whole checkpoint in order.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let entries = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (epoch, start) = line.split_once(' ')?;
                Some(EpochStart { epoch: epoch.parse().ok()?, start: start.parse().ok()? })
            })
            .collect::<Option<Vec<_>>>()?;
        let grows =
            entries.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
        (grows && entries.len() == count).then_some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for &(epoch, start) in entries {
            assert!(cache.assign(epoch, start));
        }
        cache
    }

    fn end(cache: &EpochCache, epoch: i32) -> Option<(i32, i64)> {
        cache.end_of(epoch, 100).map(|end| (end.epoch, end.end_offset))
    }

    /// KIP-101, contract L5
    #[test]
    fn an_epoch_ends_where_the_next_higher_one_starts() {
        let cache = cache(&[(2, 10), (4, 20), (7, 50)]);
        let table = [
            (7, Some((7, 100))),
            (8, None),
            (-1, None),
            (6, Some((4, 50))),
            (4, Some((4, 50))),
            (3, Some((2, 20))),
            (2, Some((2, 20))),
            (1, Some((1, 10))),
        ];
        for (epoch, expected) in table {
            assert_eq!(end(&cache, epoch), expected, "epoch {epoch}");
        }
        assert_eq!(end(&EpochCache::default(), 0), None);
    }

    /// contract L5
    #[test]
    fn entries_grow_strictly_in_epoch_and_offset() {
        let mut cache = cache(&[(1, 0), (2, 10)]);
        assert!(!cache.assign(2, 30) && !cache.assign(1, 30) && !cache.assign(-1, 30));
        assert!(cache.assign(5, 10), "epoch 2 left no record, 5 takes its place");
        assert_eq!(
            cache,
            EpochCache {
                entries: vec![EpochStart { epoch: 1, start: 0 }, EpochStart { epoch: 5, start: 10 }]
            }
        );
    }

    #[test]
    fn truncation_from_either_end_keeps_what_covers_the_rest() {
        let full = cache(&[(1, 0), (2, 10), (3, 20)]);
        let mut cut = full.clone();
        assert!(cut.truncate_end(20) && cut == cache(&[(1, 0), (2, 10)]));
        assert!(!cut.truncate_end(11));
        let mut cut = full.clone();
        assert!(cut.truncate_start(15) && cut == cache(&[(2, 15), (3, 20)]));
        assert!(!cut.truncate_start(15));
        assert_eq!((cut.epoch_of(14), cut.epoch_of(15), cut.epoch_of(99)), (None, Some(2), Some(3)));
    }

    #[test]
    fn the_checkpoint_text_round_trips_and_a_damaged_one_is_refused() {
        let full = cache(&[(1, 0), (2, 10)]);
        assert_eq!(full.encode(), b"0\n2\n1 0\n2 10\n");
        assert_eq!(EpochCache::decode(&full.encode()), Some(full));
        for text in ["", "0\n", "1\n0\n", "0\n2\n1 0\n", "0\n2\n2 0\n1 10\n", "0\n1\nx 0\n"] {
            assert_eq!(EpochCache::decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
