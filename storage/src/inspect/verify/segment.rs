//! The batches and records of one segment, in the order in which they lie there. No I/O.

use heizer_wire::record_batch::BatchHeader;

use crate::epoch::EpochCache;
use crate::inspect::batches::StoredBatch;
use crate::inspect::verify::Flaw;

/// What the batches of a log so far say of those to come.
#[derive(Debug)]
pub(super) struct LogState {
    /// The offset after the last batch; `None` before the first one.
    pub(super) next_offset: Option<i64>,
    /// The leader epoch of the last batch.
    epoch: Option<i32>,
    /// Where the log starts: what lies below was deleted, and its epochs are forgotten.
    log_start: i64,
    /// What `leader-epoch-checkpoint` says, if it can be read.
    pub(super) checkpoint: Option<EpochCache>,
    /// The last disagreement with it that was told: the batch's epoch, and the checkpoint's.
    told: Option<(i32, Option<i32>)>,
}

/// The check of one segment.
#[derive(Debug)]
pub(super) struct SegmentCheck {
    base: i64,
    next_base: Option<i64>,
    /// Batches so far.
    pub(super) batches: u64,
    /// Records so far.
    pub(super) records: u64,
    /// Messages of older formats.
    pub(super) legacy: u64,
    /// Runs of offsets that are missing between its batches, and the first of these offsets.
    pub(super) gaps: (u64, Option<i64>),
    /// The greatest timestamp of its headers, -1 without one.
    pub(super) max_timestamp: i64,
}

impl SegmentCheck {
    /// A segment that starts at `base`, before one that starts at `next_base`.
    pub(super) fn new(base: i64, next_base: Option<i64>) -> Self {
        Self { base, next_base, batches: 0, records: 0, legacy: 0, gaps: (0, None), max_timestamp: -1 }
    }

    /// Checks the next batch.
    pub(super) fn batch(&mut self, log: &mut LogState, batch: &StoredBatch) -> Vec<Flaw> {
        let mut flaws = self.offsets(log, batch);
        let (at, base) = (batch.position(), batch.base_offset());
        let sound = batch.crc_matches();
        if !sound {
            flaws.push(Flaw::error(at, base, format!("CRC is not {:08x}, as the batch says", batch.crc())));
        }
        match batch.header() {
            Some(header) => {
                flaws.extend(log.epoch(header, at));
                // What records say is worth nothing where the CRC says that they were changed.
                if sound {
                    flaws.extend(self.records(batch, header));
                }
            }
            None => {
                self.legacy += 1;
                self.records += 1;
            }
        }
        self.batches += 1;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
        log.next_offset = Some(log.next_offset.unwrap_or(0).max(batch.last_offset().saturating_add(1)));
        flaws
    }

    /// Offsets rise, from the segment's base to before the next one's.
    fn offsets(&mut self, log: &LogState, batch: &StoredBatch) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let (at, base, last) = (batch.position(), batch.base_offset(), batch.last_offset());
        let expected = log.next_offset.unwrap_or(self.base).max(self.base);
        if base < self.base {
            flaws.push(Flaw::error(at, base, format!("lies below the segment's base {}", self.base)));
        } else if base < expected {
            flaws.push(Flaw::error(
                at,
                base,
                format!("offsets do not rise: {expected} is the least possible"),
            ));
        } else if base > expected && self.batches > 0 {
            self.gaps.0 += 1;
            self.gaps.1.get_or_insert(expected);
        }
        if let Some(next) = self.next_base.filter(|&next| last >= next) {
            let what = format!("reaches to offset {last}, and the next segment starts at {next}");
            flaws.push(Flaw::error(at, base, what));
        } else if last.saturating_sub(self.base) > i64::from(i32::MAX) {
            // contract L6
            let what = format!("offset {last} is out of reach of the segment's base {}", self.base);
            flaws.push(Flaw::error(at, base, what));
        }
        flaws
    }

    /// The records: they can be read, there are as many as the header says, and their offsets rise within the batch.
    fn records(&mut self, batch: &StoredBatch, header: &BatchHeader) -> Vec<Flaw> {
        let (at, base) = (batch.position(), header.base_offset);
        let (count, delta) = (header.record_count, header.last_offset_delta);
        if count < 0 || i64::from(count) > i64::from(delta) + 1 {
            let what = format!("says {count} records, with a last offset delta of {delta}");
            return vec![Flaw::error(at, base, what)];
        }
        let mut flaws = Vec::new();
        let mut expected = base;
        let mut above = None;
        let records = match batch.records() {
            Ok(records) => records,
            Err(error) => return vec![Flaw::error(at, base, format!("its records cannot be read: {error}"))],
        };
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    flaws.push(Flaw::error(at, expected, format!("a record cannot be read: {error}")));
                    return flaws;
                }
            };
            if record.offset < expected || record.offset > header.last_offset() {
                let what =
                    format!("a record in the batch from {base} to {} is out of order", header.last_offset());
                flaws.push(Flaw::error(at, record.offset, what));
                return flaws;
            }
            if record.timestamp > header.max_timestamp {
                above.get_or_insert(record.offset);
            }
            expected = record.offset.saturating_add(1);
            self.records += 1;
        }
        if let Some(offset) = above {
            // A client's doing, not damage: compressed batches are stored as they came.
            let what = format!("a timestamp above the batch's greatest, {}", header.max_timestamp);
            flaws.push(Flaw::note(at, offset, what));
        }
        flaws
    }
}

impl LogState {
    /// Before the first batch of a log that starts at `log_start`.
    pub(super) fn new(log_start: i64, checkpoint: Option<EpochCache>) -> Self {
        Self { next_offset: None, epoch: None, log_start, checkpoint, told: None }
    }

    /// Leader epochs do not fall, and the checkpoint agrees (contract L5).
    fn epoch(&mut self, header: &BatchHeader, position: u64) -> Vec<Flaw> {
        let (epoch, base) = (header.partition_leader_epoch, header.base_offset);
        let mut flaws = Vec::new();
        if let Some(before) = self.epoch.filter(|&before| epoch < before) {
            flaws.push(Flaw::error(position, base, format!("leader epoch falls from {before} to {epoch}")));
        }
        self.epoch = Some(epoch);
        if epoch < 0 || base < self.log_start {
            return flaws;
        }
        if let Some(checkpoint) = &self.checkpoint {
            let known = checkpoint.epoch_of(base);
            if known != Some(epoch) && self.told != Some((epoch, known)) {
                self.told = Some((epoch, known));
                let says = known.map_or("knows none here".to_owned(), |known| format!("says {known}"));
                let what = format!("leader epoch {epoch}, and leader-epoch-checkpoint {says}");
                flaws.push(Flaw::error(position, base, what));
            }
        }
        flaws
    }
}
