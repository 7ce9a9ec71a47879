//! The offset and the time index of a segment against its batches. No I/O.

use crate::inspect::batches::StoredBatch;
use crate::inspect::tables::{OffsetEntry, TimeEntry};
use crate::inspect::verify::Flaw;

/// The check of an offset index: its entries rise, and each says where a batch starts and with which offset it ends.
#[derive(Debug)]
pub(super) struct OffsetCheck {
    base: i64,
    last: Option<OffsetEntry>,
    /// Points at a batch that ends before the entry's offset. Kafka's brokers before 4.0 wrote the last offset of
    /// several batches that came together: then a batch that follows ends with it.
    open: Option<(u64, OffsetEntry)>,
}

impl OffsetCheck {
    pub(super) fn new(base: i64) -> Self {
        Self { base, last: None, open: None }
    }

    /// Takes the entry at `at` of the file. `Err`: it makes no sense after the one before, and is to be left out.
    pub(super) fn rises(&mut self, at: u64, entry: OffsetEntry) -> Result<(), Flaw> {
        let before = self.last.replace(entry);
        match before {
            Some(before) if entry.relative <= before.relative || entry.position <= before.position => {
                // The greater of the two is what the next is measured by.
                self.last = Some(if entry.position > before.position { entry } else { before });
                let what = format!("does not rise: position {} after {}", entry.position, before.position);
                Err(Flaw::error(at, self.base + i64::from(entry.relative), what))
            }
            _ => Ok(()),
        }
    }

    /// Checks an entry that points at or into `batch`.
    pub(super) fn points_at(&mut self, at: u64, entry: OffsetEntry, batch: &StoredBatch) -> Option<Flaw> {
        let (position, offset) = (u64::from(entry.position), self.base + i64::from(entry.relative));
        if position != batch.position() {
            let what = format!("points at position {position}, inside the batch at {}", batch.position());
            return Some(Flaw::error(at, offset, what));
        }
        if offset < batch.last_offset() {
            return Some(self.mismatch(at, entry, batch.last_offset()));
        }
        if offset > batch.last_offset() {
            self.open = Some((at, entry));
        }
        None
    }

    /// Looks whether `batch`, behind the one pointed at, ends with the entry's offset.
    pub(super) fn follows(&mut self, batch: &StoredBatch) -> Option<Flaw> {
        let (at, entry) = self.open?;
        let offset = self.base + i64::from(entry.relative);
        if batch.last_offset() < offset {
            return None;
        }
        self.open = None;
        (batch.last_offset() != offset).then(|| self.mismatch(at, entry, batch.last_offset()))
    }

    /// No batch follows any more.
    pub(super) fn end(&mut self) -> Option<Flaw> {
        let (at, entry) = self.open.take()?;
        Some(self.beyond(at, entry))
    }

    /// An entry that no batch was met for.
    pub(super) fn beyond(&self, at: u64, entry: OffsetEntry) -> Flaw {
        let what = format!("points at position {}, beyond the last batch or its offset", entry.position);
        Flaw::error(at, self.base + i64::from(entry.relative), what)
    }

    fn mismatch(&self, at: u64, entry: OffsetEntry, last_offset: i64) -> Flaw {
        let what = format!(
            "points at position {}, and no batch ends with it: the next end is {last_offset}",
            entry.position
        );
        Flaw::error(at, self.base + i64::from(entry.relative), what)
    }
}

/// The check of a time index (contract L7): every record with a timestamp above an entry's lies after its offset.
#[derive(Debug)]
pub(super) struct TimeCheck {
    base: i64,
    last: Option<(u64, TimeEntry)>,
    /// The greatest timestamp of the batches so far.
    seen: i64,
}

impl TimeCheck {
    pub(super) fn new(base: i64) -> Self {
        Self { base, last: None, seen: -1 }
    }

    /// Takes the entry at `at` of the file. `Err`: it makes no sense after the one before, and is to be left out.
    pub(super) fn rises(&mut self, at: u64, entry: TimeEntry) -> Result<(), Flaw> {
        match self.last {
            Some((_, before)) if entry.timestamp <= before.timestamp || entry.relative < before.relative => {
                let (time, earlier) = (entry.timestamp, before.timestamp);
                Err(Flaw::error(
                    at,
                    self.offset(entry),
                    format!("does not rise: timestamp {time} after {earlier}"),
                ))
            }
            _ => {
                self.last = Some((at, entry));
                Ok(())
            }
        }
    }

    /// Checks an entry whose offset is not above `batch`, which was not taken in yet.
    pub(super) fn holds(&self, at: u64, entry: TimeEntry, batch: &StoredBatch) -> Option<Flaw> {
        let offset = self.offset(entry);
        let within = if offset < batch.base_offset() {
            -1
        } else if offset >= batch.last_offset() || batch.max_timestamp() <= entry.timestamp {
            batch.max_timestamp()
        } else {
            // In mid-batch the records tell. Those that cannot be read are somebody else's finding.
            let records = batch.records().ok().into_iter().flatten().flatten();
            records
                .take_while(|record| record.offset <= offset)
                .map(|record| record.timestamp)
                .max()
                .unwrap_or(-1)
        };
        let seen = self.seen.max(within);
        let what =
            format!("says that timestamps above {} lie after it, and {seen} does not", entry.timestamp);
        (seen > entry.timestamp).then(|| Flaw::error(at, offset, what))
    }

    /// Takes a batch in.
    pub(super) fn take(&mut self, batch: &StoredBatch) {
        self.seen = self.seen.max(batch.max_timestamp());
    }

    /// Checks the last entry, after the last batch. Of a sealed segment it has the greatest timestamp there is.
    pub(super) fn end(&self, sealed: bool) -> Option<Flaw> {
        let Some((at, entry)) = self.last else {
            let what = "has no entry, and the segment has timestamps";
            return (sealed && self.seen >= 0).then(|| Flaw::error(0, self.base, what));
        };
        if entry.timestamp > self.seen {
            let what = format!("has timestamp {}, the segment's greatest is {}", entry.timestamp, self.seen);
            return Some(Flaw::error(at, self.offset(entry), what));
        }
        let what =
            format!("ends with timestamp {}, the segment's greatest is {}", entry.timestamp, self.seen);
        (sealed && entry.timestamp < self.seen).then(|| Flaw::error(at, self.offset(entry), what))
    }

    /// An entry whose offset no batch reaches.
    pub(super) fn beyond(&self, at: u64, entry: TimeEntry) -> Flaw {
        Flaw::error(at, self.offset(entry), "lies beyond the last batch")
    }

    fn offset(&self, entry: TimeEntry) -> i64 {
        self.base + i64::from(entry.relative)
    }
}
