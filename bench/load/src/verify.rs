//! Whether what was read is what was written: every record once, in order, unchanged.
//!
//! A [`Track`] follows one partition as one reader (or one consumer group) sees it: the offsets, and the sequence
//! numbers of each producer. What is wrong it adds to the run's [`Verdict`].

use std::ops::Range;

use bytes::Bytes;
use heizer_wire::record_batch::{BatchHeader, BatchView, batches};
use serde::Serialize;

use crate::tally::Tally;
use crate::value::{Pattern, Stamp, Unreadable};

/// A compressed batch may take this many bytes when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// Gaps that are remembered, so that a record which comes late is told from one that comes twice.
const GAPS_MAX: usize = 1_024;
/// The sequence of a producer whose records before were not looked at.
const UNKNOWN: u64 = u64::MAX;

/// What all readers have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Records of this run that were looked at.
    pub(crate) records: u64,
    /// With a wrong CRC, header or filler.
    pub(crate) corrupt: u64,
    /// Behind their successors, or in batches whose offsets do not follow each other.
    pub(crate) out_of_order: u64,
    /// Seen before.
    pub(crate) duplicates: u64,
    /// Left out, while their successors came.
    pub(crate) missing: u64,
    /// Acknowledged, and not there to be read in the end.
    pub(crate) unread: u64,
}

impl Verdict {
    /// What is wrong, in words; none when nothing is.
    pub(crate) fn faults(&self) -> Option<String> {
        let faults = [
            ("corrupt", self.corrupt),
            ("out of order", self.out_of_order),
            ("duplicate", self.duplicates),
            ("missing", self.missing),
            ("acknowledged and never read", self.unread),
        ];
        let found: Vec<String> = faults
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        (!found.is_empty()).then(|| found.join(", "))
    }
}

/// What is the same for all tracks of a run.
pub(crate) struct Rules {
    pub(crate) run: u32,
    pub(crate) pattern: Pattern,
    /// Compaction takes records out: then offsets and sequences have gaps that mean nothing.
    pub(crate) compacted: bool,
}

/// One partition, as one reader sees it.
pub(crate) struct Track {
    /// The offset of the next batch, once one was seen.
    next_offset: Option<i64>,
    /// The sequence that comes next of each producer, by its number.
    expected: Vec<u64>,
    /// What `expected` holds for a producer that was not seen before.
    first: u64,
    gaps: Vec<(u32, Range<u64>)>,
    advanced: u64,
}

/// What was in one partition's share of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) records: u64,
    /// Of values.
    pub(crate) bytes: u64,
}

impl Track {
    /// A track of a reader that starts before this run's first record.
    pub(crate) fn from_the_start() -> Track {
        Track { next_offset: None, expected: Vec::new(), first: 0, gaps: Vec::new(), advanced: 0 }
    }

    /// A track of a reader that starts anywhere.
    pub(crate) fn from_anywhere() -> Track {
        Track { first: UNKNOWN, ..Track::from_the_start() }
    }

    /// The reader goes on elsewhere.
    pub(crate) fn jump(&mut self) {
        *self = Track { advanced: self.advanced, ..Track::from_anywhere() };
    }

    /// How many of this run's records the partition must have had up to here.
    pub(crate) fn advanced(&self) -> u64 {
        self.advanced
    }

    /// Looks at all whole batches of an answer to a fetch from `position` on; earlier records of the first batch are
    /// passed over. They arrived at `now_ns`.
    pub(crate) fn examine(
        &mut self,
        records: Bytes,
        position: i64,
        now_ns: u64,
        rules: &Rules,
        tally: &mut Tally,
        verdict: &mut Verdict,
    ) -> Found {
        let mut found = Found::default();
        // A batch that is cut at the end comes whole with the next fetch.
        for batch in batches(records).map_while(Result::ok) {
            let header = batch.header();
            if header.next_offset() <= position {
                continue;
            }
            self.follow(header, position, rules, verdict);
            if header.is_control() {
                continue;
            }
            if !self.look_into(&batch, position, now_ns, rules, tally, verdict, &mut found) {
                verdict.corrupt += u64::try_from(header.record_count).unwrap_or(0).max(1);
            }
        }
        found
    }

    /// contract L1: without compaction batches follow each other without a gap.
    fn follow(&mut self, header: &BatchHeader, position: i64, rules: &Rules, verdict: &mut Verdict) {
        let follows = match self.next_offset {
            None => header.base_offset <= position,
            Some(next) => header.base_offset == next,
        };
        let has_gaps = header.record_count != header.last_offset_delta.wrapping_add(1);
        if !rules.compacted && (has_gaps || !follows) {
            verdict.out_of_order += 1;
        }
        self.next_offset = Some(header.next_offset());
    }

    /// As [`Track::examine`] does with batches, for a record whose batch somebody else has read.
    pub(crate) fn follow_record(&mut self, offset: i64, rules: &Rules, verdict: &mut Verdict) {
        if !rules.compacted && self.next_offset.is_some_and(|next| next != offset) {
            verdict.out_of_order += 1;
        }
        self.next_offset = Some(offset + 1);
    }

    /// Whether the batch's CRC and records are sound; their values are looked at one by one.
    #[allow(clippy::too_many_arguments, reason = "the parts of one answer, each owned by somebody else")]
    fn look_into(
        &mut self,
        batch: &BatchView,
        position: i64,
        now_ns: u64,
        rules: &Rules,
        tally: &mut Tally,
        verdict: &mut Verdict,
        found: &mut Found,
    ) -> bool {
        if batch.verify_crc().is_err() {
            return false;
        }
        let Ok(unpacked) = batch.unpack(DECOMPRESSED_BYTES_MAX) else { return false };
        // Records that were due together arrive together: one entry for all.
        let (mut due_ns, mut due_together) = (0, 0);
        for record in unpacked.records() {
            let Ok(record) = record else { return false };
            if record.offset < position {
                continue;
            }
            let value = record.value.unwrap_or_default();
            found.records += 1;
            found.bytes += value.len() as u64;
            let Some(stamp) = self.check(value, rules, verdict) else { continue };
            if stamp.due_ns != due_ns && due_together > 0 {
                tally.add_arrival(now_ns, due_ns, due_together);
                due_together = 0;
            }
            due_ns = stamp.due_ns;
            due_together += 1;
        }
        if due_together > 0 {
            tally.add_arrival(now_ns, due_ns, due_together);
        }
        true
    }

    /// Checks one value; its header, if it is sound and of this run.
    pub(crate) fn check(&mut self, value: &[u8], rules: &Rules, verdict: &mut Verdict) -> Option<Stamp> {
        match Stamp::read(value, &rules.pattern) {
            Err(Unreadable::Corrupt) => {
                verdict.corrupt += 1;
                None
            }
            Ok(stamp) if stamp.run == rules.run => {
                verdict.records += 1;
                self.count(stamp.producer, stamp.sequence, rules, verdict);
                Some(stamp)
            }
            // Somebody else's, or an earlier run's.
            Ok(_) | Err(Unreadable::Foreign) => None,
        }
    }

    fn count(&mut self, producer: u32, sequence: u64, rules: &Rules, verdict: &mut Verdict) {
        let at = producer as usize;
        if self.expected.len() <= at {
            self.expected.resize(at + 1, self.first);
        }
        let expected = self.expected[at];
        if expected == UNKNOWN || sequence >= expected {
            let known = if expected == UNKNOWN { sequence } else { expected };
            if sequence > known && !rules.compacted {
                verdict.missing += sequence - known;
                if self.gaps.len() < GAPS_MAX {
                    self.gaps.push((producer, known..sequence));
                }
            }
            self.advanced += sequence + 1 - if expected == UNKNOWN { 0 } else { expected };
            self.expected[at] = sequence + 1;
        } else if self.fill_gap(producer, sequence) {
            verdict.missing -= 1;
            verdict.out_of_order += 1;
        } else {
            verdict.duplicates += 1;
        }
    }

    /// Whether `sequence` was left out before; from now on it no longer is.
    fn fill_gap(&mut self, producer: u32, sequence: u64) -> bool {
        let of_it = |(of, gap): &(u32, Range<u64>)| *of == producer && gap.contains(&sequence);
        let Some(at) = self.gaps.iter().position(of_it) else { return false };
        let (_, gap) = self.gaps.swap_remove(at);
        let parts = [gap.start..sequence, sequence + 1..gap.end];
        self.gaps.extend(parts.into_iter().filter(|part| !part.is_empty()).map(|part| (producer, part)));
        true
    }
}

/// The offset behind the last whole batch of an answer to a fetch from `position` on.
pub(crate) fn next_position(records: &Bytes, position: i64) -> i64 {
    let mut rest = &records[..];
    let mut next = position;
    while let Ok(header) = BatchHeader::parse(rest) {
        let Some(after) = rest.get(header.size_bytes()..) else { break };
        next = next.max(header.next_offset());
        rest = after;
    }
    next
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
