//! What of a log may be cleaned, how much it is in need of it, and which segments become one. No I/O.

use crate::config::LogConfig;

/// What planning asks of a sealed segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base: i64,
    pub(crate) next_offset: i64,
    pub(crate) bytes: u64,
    /// Bytes of its index files.
    pub(crate) index_bytes: u64,
    pub(crate) time_index_bytes: u64,
    /// -1 without timestamps.
    pub(crate) max_timestamp: i64,
    /// Of its first batch; -1 without.
    pub(crate) first_timestamp: i64,
}

/// What could be cleaned of a log now.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Cleanable {
    /// The first offset that no round has looked at.
    pub first_dirty: i64,
    /// The first offset that this round must not look at.
    pub end: i64,
    /// Bytes of segments that are clean.
    pub clean_bytes: u64,
    /// Bytes of segments from the first dirty offset to the end.
    pub dirty_bytes: u64,
    /// `max.compaction.lag.ms` has passed for a record.
    pub overdue: bool,
    /// Whether the log is in need of a round: it is overdue, or its ratio is above `min.cleanable.dirty.ratio`.
    pub wanted: bool,
}

impl Cleanable {
    /// The dirty part of the bytes that could be cleaned, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            total => self.dirty_bytes as f64 / total as f64,
        }
    }
}

/// Judges the sealed `segments` of a log, all wholly below its last stable offset (contract L9).
pub(crate) fn cleanable(
    segments: &[SegmentFacts],
    first_dirty: i64,
    now_ms: i64,
    config: &LogConfig,
) -> Option<Cleanable> {
    let young_ms = now_ms.saturating_sub(config.min_compaction_lag_ms);
    let dirty = segments.iter().filter(|segment| segment.next_offset > first_dirty);
    let too_young =
        |segment: &&SegmentFacts| config.min_compaction_lag_ms > 0 && segment.max_timestamp > young_ms;
    let dirty: Vec<&SegmentFacts> = dirty.take_while(|segment| !too_young(segment)).collect();
    let end = dirty.last()?.next_offset;
    let clean = segments.iter().take_while(|segment| segment.next_offset <= first_dirty);
    let first_timestamps = dirty.iter().map(|segment| segment.first_timestamp);
    let earliest = first_timestamps.filter(|&timestamp| timestamp > 0).min();
    let overdue = earliest
        .is_some_and(|earliest| earliest < now_ms.saturating_sub(config.max_compaction_lag_ms.max(0)));
    let mut found = Cleanable {
        first_dirty,
        end,
        clean_bytes: clean.map(|segment| segment.bytes).sum(),
        dirty_bytes: dirty.iter().map(|segment| segment.bytes).sum(),
        overdue,
        wanted: false,
    };
    found.wanted = found.dirty_bytes > 0 && (overdue || found.ratio() > config.min_cleanable_dirty_ratio);
    Some(found)
}

/// Cuts `segments` into runs that each become one segment: together not larger than a segment or its indexes may be,
/// and with offsets that fit relative to the first. Gives the length of each run.
pub(crate) fn group(segments: &[SegmentFacts], config: &LogConfig) -> Vec<usize> {
    let mut groups: Vec<usize> = Vec::new();
    let mut first = 0;
    let fits = |run: &[SegmentFacts]| {
        let sum = |of: fn(&SegmentFacts) -> u64| run.iter().map(of).sum::<u64>();
        let reach = run[run.len() - 1].next_offset - 1 - run[0].base;
        sum(|segment| segment.bytes) <= u64::from(config.segment_bytes)
            && sum(|segment| segment.index_bytes) <= u64::from(config.segment_index_bytes)
            && sum(|segment| segment.time_index_bytes) <= u64::from(config.segment_index_bytes)
            && reach <= i64::from(i32::MAX)
    };
    for at in 0..segments.len() {
        match groups.last_mut() {
            Some(length) if fits(&segments[first..=at]) => *length += 1,
            _ => {
                first = at;
                groups.push(1);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base: i64, next_offset: i64, bytes: u64, times: (i64, i64)) -> SegmentFacts {
        let (first_timestamp, max_timestamp) = times;
        let (index_bytes, time_index_bytes) = (bytes / 100, bytes / 100);
        SegmentFacts {
            base,
            next_offset,
            bytes,
            index_bytes,
            time_index_bytes,
            max_timestamp,
            first_timestamp,
        }
    }

    fn three() -> [SegmentFacts; 3] {
        [
            segment(0, 10, 100, (1_000, 2_000)),
            segment(10, 20, 200, (2_000, 3_000)),
            segment(20, 30, 100, (3_000, 4_000)),
        ]
    }

    fn config() -> LogConfig {
        LogConfig {
            cleanup_compact: true,
            segment_bytes: 300,
            segment_index_bytes: 100,
            ..LogConfig::default()
        }
    }

    /// contract L9: the ratio, and what is younger than min.compaction.lag.ms.
    #[test]
    fn the_dirty_ratio_counts_what_may_be_cleaned() {
        let table = [
            // first dirty, lag → end, clean, dirty, wanted
            (0, 0, Some((30, 0, 400, true))),
            (10, 0, Some((30, 100, 300, true))),
            (15, 0, Some((30, 100, 300, true))),
            (20, 0, Some((30, 300, 100, false))),
            (30, 0, None),
            (0, 6_500, Some((20, 0, 300, true))),
            (10, 7_500, None),
            (0, 7_500, Some((10, 0, 100, true))),
            (0, 9_500, None),
        ];
        for (first_dirty, min_compaction_lag_ms, expected) in table {
            let config = LogConfig { min_compaction_lag_ms, ..config() };
            let found = cleanable(&three(), first_dirty, 10_000, &config);
            let found = found.map(|found| (found.end, found.clean_bytes, found.dirty_bytes, found.wanted));
            assert_eq!(found, expected, "from {first_dirty} with lag {min_compaction_lag_ms}");
        }
    }

    /// KIP-354
    #[test]
    fn max_compaction_lag_forces_a_round_whatever_the_ratio() {
        for (max_compaction_lag_ms, wanted) in [(i64::MAX, false), (7_000, false), (6_999, true), (0, true)] {
            let config = LogConfig { max_compaction_lag_ms, ..config() };
            let found = cleanable(&three(), 20, 10_000, &config).expect("dirty");
            assert_eq!((found.overdue, found.wanted), (wanted, wanted), "{max_compaction_lag_ms}");
        }
        let untimed = [segment(0, 10, 100, (-1, -1))];
        let config = LogConfig { max_compaction_lag_ms: 1, ..config() };
        assert!(!cleanable(&untimed, 0, 10_000, &config).expect("dirty").overdue);
    }

    #[test]
    fn groups_fit_a_segment_its_indexes_and_its_relative_offsets() {
        assert_eq!(group(&three(), &config()), [2, 1], "by bytes");
        let small_index = LogConfig { segment_index_bytes: 2, segment_bytes: 1_000, ..config() };
        assert_eq!(group(&three(), &small_index), [1, 1, 1], "by index");
        let far = [segment(0, 10, 1, (1, 1)), segment(10, i64::from(i32::MAX) + 2, 1, (1, 1))];
        assert_eq!(group(&far, &config()), [1, 1], "by reach");
        let large = [segment(0, 10, 900, (1, 1)), segment(10, 20, 1, (1, 1))];
        assert_eq!(group(&large, &config()), [1, 1], "one that is too large is by itself");
        assert!(group(&[], &config()).is_empty());
    }
}
