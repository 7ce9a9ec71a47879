//! What the log should be: a plain list of batches, and what was promised about them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use heizer_wire::record_batch::BatchHeader;

use super::super::{AppendOrigin, stored};
use crate::batch::{HEADER_BYTES, crc_matches, parse_header};
use crate::epoch::EpochEnd;
use crate::testing::BatchSpec;

/// A batch whose checksum holds may differ from what was appended in these bytes, which no checksum covers (contract
/// L1): offset, length, leader epoch, magic, and the checksum itself.
const UNCHECKED: Range<usize> = 0..21;

/// One batch that was appended.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) base: i64,
    pub(super) last: i64,
    pub(super) epoch: i32,
    pub(super) bytes: Bytes,
    pub(super) spec: BatchSpec,
    /// What compaction would go by; none is never superseded.
    pub(super) key: Option<u32>,
}

impl Known {
    pub(super) fn new(spec: BatchSpec, base: i64, epoch: i32, key: Option<u32>) -> Known {
        let bytes = stored(&spec, base, epoch);
        Known { base, last: base + i64::from(spec.records) - 1, epoch, bytes, spec, key }
    }

    /// What whoever appends it sends.
    pub(super) fn request_bytes(&self, origin: AppendOrigin) -> Bytes {
        if origin == AppendOrigin::Replica { self.bytes.clone() } else { self.spec.bytes() }
    }

    /// Timestamps and offsets of its records.
    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        (0..i64::from(self.spec.records)).map(|at| (self.spec.timestamp + at, self.base + at))
    }
}

/// How the log came to its end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    PowerCut,
    Kill,
}

/// A removal that was asked for and not confirmed yet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Removal {
    /// Everything from this offset on, the base of a batch.
    From(i64),
    /// Everything; the log starts anew at this offset.
    All(i64),
}

/// What the log should be.
#[derive(Default)]
pub(super) struct Model {
    /// Without gaps, also those that the log may have lost at its start.
    batches: Vec<Known>,
    /// Those that were cut off, in whatever order.
    dropped: Vec<Known>,
    /// Where the log goes on without any.
    origin: i64,
    /// Everything below is said to survive the process, or the power.
    written: i64,
    durable: i64,
    removal: Option<Removal>,
    /// Records below were deleted on request: they never come back.
    deleted: i64,
    /// Offsets below may be gone, by request or by retention.
    start_max: i64,
    /// Below, of batches with the same key only the last one must be there.
    pub(super) cleaned_below: i64,
    /// The leader epoch of what is appended next.
    pub(super) epoch: i32,
    /// Batches made so far, no two of them alike.
    pub(super) made: u64,
}

impl Model {
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(self.origin, |batch| batch.last + 1)
    }

    pub(super) fn push(&mut self, batch: Known) {
        assert_eq!(batch.base, self.end(), "offsets are continuous");
        self.batches.push(batch);
    }

    /// The last batch of a producer.
    pub(super) fn last_of(&self, producer_id: i64) -> Option<&Known> {
        self.batches.iter().rev().find(|batch| batch.spec.producer_id == producer_id)
    }

    /// The batch that holds `offset`, or the next one.
    pub(super) fn at(&self, offset: i64) -> Option<&Known> {
        self.batches.get(self.batches.partition_point(|batch| batch.last < offset))
    }

    /// The batches that a reader from `from` to `to`, both at ends of batches, or from the middle of one, comes by.
    pub(super) fn between(&self, from: i64, to: i64) -> &[Known] {
        let first = self.batches.partition_point(|batch| batch.last < from);
        let after = self.batches.partition_point(|batch| batch.last < to);
        &self.batches[first..after.max(first)]
    }

    /// Whether compaction may have removed this batch: another one has its key and comes later.
    fn may_be_gone(&self, batch: &Known) -> bool {
        let later = |other: &Known| other.base > batch.base && other.last < self.cleaned_below;
        batch.key.is_some() && self.batches.iter().any(|other| other.key == batch.key && later(other))
    }

    /// The log has said how far it got.
    pub(super) fn promised(&mut self, written: i64, durable: i64) {
        // Nothing above a removal under way counts: the log has not got to it yet.
        let cap = match self.removal {
            None => i64::MAX,
            Some(Removal::From(offset)) => offset,
            Some(Removal::All(_)) => 0,
        };
        self.written = self.written.max(written.min(cap));
        self.durable = self.durable.max(durable.min(cap));
    }

    /// The log may not start later than this.
    pub(super) fn start_max(&self) -> i64 {
        self.start_max
    }

    /// Everything below may go from here on.
    pub(super) fn may_start_at(&mut self, offset: i64) {
        self.start_max = self.start_max.max(offset);
    }

    /// Records below are deleted for good.
    pub(super) fn deleted_below(&mut self, offset: i64) {
        self.deleted = self.deleted.max(offset);
        self.start_max = self.start_max.max(offset);
    }

    /// A truncation to `offset` begins. A batch goes whole.
    pub(super) fn truncating_to(&mut self, offset: i64) {
        let boundary = self.at(offset).map_or(self.end(), |batch| batch.base.min(offset));
        self.removal = Some(Removal::From(boundary));
        self.forget_promises_above(boundary);
        self.deleted = self.deleted.min(boundary);
    }

    /// Everything is being removed, and the log starts anew at `offset`.
    pub(super) fn restarting_at(&mut self, offset: i64) {
        self.removal = Some(Removal::All(offset));
        self.forget_promises_above(0);
    }

    /// Where the log ends once the removal under way is done.
    pub(super) fn end_after_removal(&self) -> i64 {
        match self.removal {
            Some(Removal::From(offset) | Removal::All(offset)) => offset,
            None => self.end(),
        }
    }

    /// The removal that was under way is confirmed.
    pub(super) fn removed(&mut self) {
        match self.removal.take().expect("a removal was under way") {
            Removal::From(boundary) => {
                self.truncate(boundary);
                self.start_max = self.start_max.min(boundary);
            }
            Removal::All(offset) => self.restart(offset),
        }
    }

    fn forget_promises_above(&mut self, offset: i64) {
        self.written = self.written.min(offset);
        self.durable = self.durable.min(offset);
    }

    fn truncate(&mut self, end: i64) {
        let kept = self.batches.partition_point(|batch| batch.last < end);
        self.dropped.extend(self.batches.drain(kept..));
        if self.batches.is_empty() {
            self.origin = end;
        }
        self.cleaned_below = self.cleaned_below.min(end);
    }

    fn restart(&mut self, offset: i64) {
        self.dropped.append(&mut self.batches);
        self.origin = offset;
        (self.deleted, self.start_max, self.cleaned_below) = (offset, offset, 0);
    }

    /// Everything below must be there after `ending`.
    pub(super) fn promise(&self, ending: Ending) -> i64 {
        match ending {
            Ending::PowerCut => self.durable,
            Ending::Kill => self.written,
        }
    }

    /// The log was opened after `ending` and goes from `start` to `end`: says whether that can be, and takes it for
    /// granted. `is_new`: it holds nothing and knows of nobody.
    pub(super) fn opened(&mut self, ending: Ending, start: i64, end: i64, is_new: bool) {
        let promised = self.promise(ending);
        match self.removal.take() {
            // The log was to be empty, and is, though it may not have come to say from where on.
            Some(Removal::All(_)) if is_new => self.restart(end),
            removal => {
                let what = format!("{start}..{end} after {ending:?} during {removal:?}");
                assert!(end >= promised, "{what}: everything below {promised} was acknowledged");
                assert!(end <= self.end(), "{what}: the last record appended was {}", self.end() - 1);
                assert!(start <= self.start_max.max(0), "{what}: nobody gave up {}..{start}", self.start_max);
                assert!(start >= self.deleted.min(end), "{what}: deleted below {}", self.deleted);
                assert!(
                    end == start || self.batches.iter().any(|batch| batch.last + 1 == end),
                    "{what}: the end is the end of a batch"
                );
                self.truncate(end);
                self.start_max = self.start_max.min(end);
                self.deleted = self.deleted.min(end);
            }
        }
        (self.written, self.durable) = (end, end);
    }

    /// Says how what was read from `from` to `to` differs from what was appended.
    pub(super) fn difference(&self, read: &Bytes, from: i64, to: i64) -> Option<String> {
        let mut rest = read.clone();
        for batch in self.between(from, to) {
            if rest.starts_with(&batch.bytes) {
                rest = rest.slice(batch.bytes.len()..);
            } else if !self.may_be_gone(batch) {
                let found = parse_header(&rest).map(|header| (header.base_offset, header.last_offset()));
                return Some(format!("batch {}..={} is expected, found {found:?}", batch.base, batch.last));
            }
        }
        (!rest.is_empty()).then(|| format!("{} bytes that nobody appended", rest.len()))
    }

    /// What a client makes of bytes from a disk that lies, up to the first thing that it refuses: says if any of it
    /// passes for a batch and is not what was appended. Gives the number of refused batches.
    ///
    /// With `stale`, a batch that was cut off may be back: a disk that loses writes leaves what lay there before, which
    /// no checksum tells from what should be there.
    pub(super) fn judge_untrusted(&self, read: &Bytes, stale: bool) -> Result<u32, String> {
        let mut rest = read.clone();
        while !rest.is_empty() {
            let Ok(header) = parse_header(&rest) else { return Ok(1) };
            if header.size_bytes() > rest.len() {
                return Ok(1);
            }
            let bytes = rest.split_to(header.size_bytes());
            if !crc_matches(&header, &bytes) {
                return Ok(1);
            }
            let is_back = || stale && self.dropped.iter().any(|batch| batch.bytes == bytes);
            if !self.is_appended(&header, &bytes) && !is_back() {
                return Err(format!("batch {}..={}", header.base_offset, header.last_offset()));
            }
        }
        Ok(0)
    }

    fn is_appended(&self, header: &BatchHeader, bytes: &[u8]) -> bool {
        assert!(bytes.len() >= HEADER_BYTES);
        let same = |batch: &Known| batch.bytes == bytes;
        if self.at(header.base_offset).is_some_and(same) {
            return true;
        }
        let same_content = |batch: &Known| batch.bytes.get(UNCHECKED.end..) == bytes.get(UNCHECKED.end..);
        let flipped = |batch: &Known| {
            let pairs = batch.bytes[UNCHECKED].iter().zip(&bytes[UNCHECKED]);
            pairs.map(|(one, other)| (one ^ other).count_ones()).sum::<u32>() == 1
        };
        self.batches.iter().any(|batch| same_content(batch) && flipped(batch))
    }

    /// The first record from `timestamp` on, by offset, as a scan finds it.
    pub(super) fn first_record(&self, timestamp: i64, start: i64, end: i64) -> Option<(i64, i64)> {
        let records = self.between(start, end).iter().flat_map(Known::records);
        records.into_iter().find(|&(at, offset)| at >= timestamp && offset >= start)
    }

    /// The largest timestamp, as a scan finds it. Only where `start` is the base of a batch: within a batch the log
    /// goes by its header.
    pub(super) fn largest_timestamp(&self, start: i64, end: i64) -> Option<i64> {
        self.between(start, end).iter().map(|batch| batch.spec.header().max_timestamp).max()
    }

    /// Where `epoch` ends in a log from `start` to `end` that is not empty, by the batches alone (contract L5).
    pub(super) fn end_of_epoch(&self, epoch: i32, start: i64, end: i64) -> Option<EpochEnd> {
        let batches = self.between(start, end);
        let latest = batches.last()?.epoch;
        if epoch >= latest {
            return (epoch == latest).then_some(EpochEnd { epoch, end_offset: end });
        }
        let higher = batches.iter().position(|batch| batch.epoch > epoch)?;
        let known = higher.checked_sub(1).map_or(epoch, |at| batches[at].epoch);
        Some(EpochEnd { epoch: known, end_offset: batches[higher].base.max(start) })
    }

    /// The last batch of each producer, and those just before it in the same producer epoch.
    pub(super) fn producers(&self) -> BTreeMap<i64, Vec<&Known>> {
        let mut producers: BTreeMap<i64, Vec<&Known>> = BTreeMap::new();
        for batch in self.batches.iter().filter(|batch| batch.spec.producer_id >= 0) {
            let known = producers.entry(batch.spec.producer_id).or_default();
            if known.last().is_some_and(|last| last.spec.producer_epoch != batch.spec.producer_epoch) {
                known.clear();
            }
            known.push(batch);
        }
        producers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(keys: &[Option<u32>]) -> Model {
        let mut model = Model::default();
        for (base, key) in (0..).zip(keys) {
            model.push(Known::new(BatchSpec { timestamp: base, ..BatchSpec::default() }, base, 0, *key));
        }
        model
    }

    fn read(model: &Model, offsets: &[usize]) -> Bytes {
        offsets.iter().flat_map(|&offset| model.batches[offset].bytes.to_vec()).collect::<Vec<u8>>().into()
    }

    /// contract L9: what compaction may take, and what not.
    #[test]
    fn only_what_a_cleaned_key_supersedes_may_be_gone() {
        let mut model = model(&[Some(1), Some(2), None, Some(1), Some(1)]);
        let differs =
            |model: &Model, offsets: &[usize]| model.difference(&read(model, offsets), 0, 5).is_some();
        assert!(!differs(&model, &[0, 1, 2, 3, 4]));
        assert!(differs(&model, &[1, 2, 3, 4]), "nothing is cleaned yet");
        model.cleaned_below = 4;
        assert!(!differs(&model, &[1, 2, 3, 4]) && !differs(&model, &[0, 1, 2, 3, 4]));
        assert!(differs(&model, &[1, 2, 4]), "3 is the last below 4");
        assert!(differs(&model, &[0, 2, 3, 4]) && differs(&model, &[0, 1, 3, 4]));
        assert!(differs(&model, &[1, 2, 3, 4, 4]), "one too many");
    }

    #[test]
    fn of_a_lying_disk_only_refused_or_unchecked_differences_pass() {
        let model = model(&[None, None]);
        let flip = |at: usize| {
            let mut bytes = read(&model, &[0, 1]).to_vec();
            bytes[at] ^= 1;
            model.judge_untrusted(&bytes.into(), false)
        };
        assert_eq!(model.judge_untrusted(&read(&model, &[0, 1]), false), Ok(0));
        assert_eq!(flip(7), Ok(0), "no checksum covers the offset");
        assert_eq!((flip(16), flip(30), flip(60)), (Ok(1), Ok(1), Ok(1)));
        let other = BatchSpec { value: b"other".to_vec(), ..BatchSpec::default() };
        assert!(model.judge_untrusted(&other.bytes(), true).is_err(), "nobody appended it");
        let mut shorter = model;
        shorter.truncate(1);
        let stale = shorter.dropped[0].bytes.clone();
        assert!(shorter.judge_untrusted(&stale, false).is_err());
        assert_eq!(shorter.judge_untrusted(&stale, true), Ok(0));
    }
}
