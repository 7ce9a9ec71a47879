//! The fate of a batch in pass 2: as it is, rewritten, or gone.

use bytes::Bytes;
use heizer_wire::record_batch::{BatchHeader, BatchView, RawRecord, RecordError, UnpackedBatch, empty_batch};

use super::{DECOMPRESSED_BYTES_MAX, OffsetMap};

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing changes: its bytes are copied.
    Copy,
    /// It has lost records, or got a delete horizon.
    Replace(Bytes),
    /// Nothing of it stays.
    Drop,
}

/// What a round removes. Borrowed from its state for one batch after the other.
pub(crate) struct Filter<'a> {
    pub(crate) map: &'a OffsetMap,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
}

/// How many records went.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) records: u64,
    pub(crate) keyless: u64,
}

impl Filter<'_> {
    /// A batch of records. `aborted`: its transaction was. `retain`: a header is left in any case, for what it says of
    /// its producer or of where the segment ends.
    pub(crate) fn data(
        &self,
        batch: &BatchView,
        aborted: bool,
        retain: bool,
    ) -> Result<(Fate, Removed), RecordError> {
        let header = batch.header();
        if header.record_count == 0 {
            return Ok((if retain { Fate::Copy } else { Fate::Drop }, Removed::default()));
        }
        if aborted {
            let removed = Removed { records: count(header), keyless: 0 };
            return Ok((emptied(header, retain), removed));
        }
        let unpacked = batch.unpack(DECOMPRESSED_BYTES_MAX)?;
        let horizon_ms = header.delete_horizon_ms();
        let (mut keep, mut removed, mut fresh_tombstone) = (Vec::new(), Removed::default(), false);
        for record in unpacked.records() {
            let record = record?;
            let stays = self.stays(&record, horizon_ms);
            keep.push(stays);
            removed.records += u64::from(!stays);
            removed.keyless += u64::from(!stays && record.key.is_none());
            let seen = record.offset <= self.map.latest();
            fresh_tombstone |= stays && seen && record.value.is_none() && horizon_ms.is_none();
        }
        let horizon = fresh_tombstone.then(|| self.new_horizon());
        let fate = match removed.records {
            0 if horizon.is_none() => Fate::Copy,
            all if all == keep.len() as u64 => emptied(header, retain),
            _ => Fate::Replace(unpacked.rebuild(&keep, horizon)?),
        };
        Ok((fate, removed))
    }

    /// A control batch. `done`: it is a marker, and nothing of its transaction is left.
    pub(crate) fn control(
        &self,
        header: &BatchHeader,
        unpacked: &UnpackedBatch,
        done: bool,
        retain: bool,
    ) -> Result<(Fate, Removed), RecordError> {
        if header.record_count == 0 {
            return Ok((if retain { Fate::Copy } else { Fate::Drop }, Removed::default()));
        }
        let fate = match header.delete_horizon_ms() {
            _ if !done => Fate::Copy,
            Some(horizon) if horizon <= self.now_ms => {
                let removed = Removed { records: count(header), keyless: 0 };
                return Ok((emptied(header, retain), removed));
            }
            Some(_) => Fate::Copy,
            None => {
                let all = vec![true; unpacked.records().count()];
                Fate::Replace(unpacked.rebuild(&all, Some(self.new_horizon()))?)
            }
        };
        Ok((fate, Removed::default()))
    }

    /// contract L9: the last of its key stays; a tombstone for as long as its batch's horizon says.
    fn stays(&self, record: &RawRecord<'_>, horizon_ms: Option<i64>) -> bool {
        if record.offset > self.map.latest() {
            return true;
        }
        let Some(key) = record.key else { return false };
        let last = self.map.get(key).is_none_or(|last| record.offset >= last);
        let kept_for_readers = horizon_ms.is_none_or(|horizon| self.now_ms < horizon);
        last && (record.value.is_some() || kept_for_readers)
    }

    fn new_horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

fn count(header: &BatchHeader) -> u64 {
    header.record_count.max(0).unsigned_abs().into()
}

fn emptied(header: &BatchHeader, retain: bool) -> Fate {
    if retain { Fate::Replace(empty_batch(header)) } else { Fate::Drop }
}
