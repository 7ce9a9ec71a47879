//! Where the readers of one sealed segment are, and what of it the page cache need not hold for them. No I/O.

use std::ops::Range;
use std::time::Duration;

use heizer_runtime::time::Instant;

/// A reader that has not come back for this long is gone.
const READER_IDLE_MAX: Duration = Duration::from_secs(30);
/// Readers of one segment that are told apart; beyond, the one that was silent longest counts as gone.
const READERS_MAX: usize = 64;
/// What is kept behind a reader: bytes on their way to it hold their pages, which cannot be dropped as long.
const BEHIND_BYTES: u64 = 8 << 20;
/// Another reader this close behind will need the pages too, and see to their end.
const NEAR_BYTES: u64 = 64 << 20;
/// Pages come and go in folios of up to this size, and whole ones alone are dropped.
const FOLIO_BYTES_MAX: u64 = 2 << 20;

/// The readers of one segment. Nobody says who reads: whoever goes on where another read has ended is the same reader.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    /// Where its next read will start.
    next: u64,
    /// What lies before this is no business of this reader any more.
    kept_from: u64,
    seen: Instant,
}

impl Readers {
    /// A reader takes `range` now, and so has received all before it. What nobody needs any more on its account.
    pub(crate) fn take(&mut self, range: Range<u64>, now: Instant) -> Option<Range<u64>> {
        self.expire(now);
        let upto = folio_floor(range.start.saturating_sub(BEHIND_BYTES));
        let at = match self.readers.iter().position(|reader| reader.next == range.start) {
            Some(at) => at,
            None => self.add(range.start, now),
        };
        let reader = &mut self.readers[at];
        reader.next = range.end;
        reader.seen = now;
        let unneeded = reader.kept_from..upto.max(reader.kept_from);
        reader.kept_from = unneeded.end;
        let wanted_behind = self.readers.iter().enumerate().any(|(other, reader)| {
            other != at && reader.next < unneeded.end && reader.next + NEAR_BYTES >= unneeded.start
        });
        (!unneeded.is_empty() && !wanted_behind).then_some(unneeded)
    }

    /// Whether all are gone.
    pub(crate) fn are_gone(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.readers.is_empty()
    }

    fn add(&mut self, start: u64, now: Instant) -> usize {
        let reader = Reader { next: start, kept_from: folio_floor(start), seen: now };
        if self.readers.len() < READERS_MAX {
            self.readers.push(reader);
            return self.readers.len() - 1;
        }
        let seen = |at: &usize| self.readers[*at].seen;
        let silent = (0..self.readers.len()).min_by_key(seen).expect("there are many");
        self.readers[silent] = reader;
        silent
    }

    fn expire(&mut self, now: Instant) {
        self.readers.retain(|reader| now.saturating_duration_since(reader.seen) < READER_IDLE_MAX);
    }
}

fn folio_floor(position: u64) -> u64 {
    position - position % FOLIO_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    /// What a reader that goes through the whole of `mib` by steps of one lets go of.
    fn walk(readers: &mut Readers, mib: Range<u64>, now: Instant) -> Vec<Range<u64>> {
        mib.filter_map(|at| readers.take(at * MIB..(at + 1) * MIB, now)).collect()
    }

    #[test]
    fn a_single_reader_drops_every_page_once_and_some_way_behind_itself() {
        let mut readers = Readers::default();
        let dropped = walk(&mut readers, 3..100, at(0));
        assert_eq!(dropped.first(), Some(&(2 * MIB..4 * MIB)), "from the folio on that it started in");
        assert!(dropped.windows(2).all(|pair| pair[0].end == pair[1].start), "{dropped:?}");
        assert_eq!(dropped.last().map(|range| range.end), Some(90 * MIB));
        assert_eq!(readers.readers.len(), 1);
    }

    #[test]
    fn a_reader_close_behind_keeps_the_pages_and_drops_them_itself() {
        let mut readers = Readers::default();
        assert_eq!(readers.take(0..MIB, at(0)), None);
        assert_eq!(readers.take(0..2 * MIB, at(0)), None, "another one, with other steps");
        // The first goes ahead, the second stays.
        let dropped = walk(&mut readers, 1..50, at(1));
        assert_eq!(dropped, vec![0..2 * MIB; 1], "what both have behind them");
        // The second follows.
        let dropped: Vec<_> =
            (1..25).filter_map(|at| readers.take(2 * at * MIB..2 * (at + 1) * MIB, self::at(2))).collect();
        assert_eq!(dropped.first().map(|range| range.start), Some(0));
        assert!(dropped.windows(2).all(|pair| pair[0].end == pair[1].start), "{dropped:?}");
        assert_eq!(dropped.last().map(|range| range.end), Some(40 * MIB));
    }

    #[test]
    fn a_reader_far_behind_or_long_silent_keeps_nothing() {
        let mut readers = Readers::default();
        assert_eq!(readers.take(0..MIB, at(0)), None);
        let far = walk(&mut readers, 200..220, at(1));
        assert_eq!(far.first().map(|range| range.start), Some(200 * MIB));
        assert_eq!(far.last().map(|range| range.end), Some(210 * MIB));
        let mut readers = Readers::default();
        assert_eq!(readers.take(0..MIB, at(0)), None);
        assert_eq!(readers.take(20 * MIB..30 * MIB, at(29)), None);
        assert_eq!(readers.take(30 * MIB..31 * MIB, at(29)), None, "the first may come back");
        assert_eq!(
            readers.take(31 * MIB..40 * MIB, at(30)),
            None,
            "what it left is no business of the second"
        );
        assert_eq!(readers.take(40 * MIB..41 * MIB, at(31)), Some(22 * MIB..32 * MIB));
        assert!(!readers.are_gone(at(60)));
        assert!(readers.are_gone(at(61)));
    }

    #[test]
    fn readers_are_bounded() {
        let mut readers = Readers::default();
        for reader in 0..2 * READERS_MAX as u64 {
            readers.take(reader * 7..reader * 7 + 3, at(reader / 32));
        }
        assert_eq!(readers.readers.len(), READERS_MAX);
        assert!(readers.readers.iter().all(|reader| reader.next >= 7 * READERS_MAX as u64));
    }
}
