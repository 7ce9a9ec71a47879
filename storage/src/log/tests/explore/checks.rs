//! What must hold of a log that was opened again.

use std::rc::Rc;

use super::super::Log;
use super::{Bench, Trouble};
use crate::epoch::EpochCache;
use crate::exploring::Dice;

/// How many lookups a check makes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Of every offset, and of every timestamp and the gap after it.
    All,
    /// A few of each.
    Samples,
}

/// A log as whoever opens it finds it: what must not change by opening it again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    ends: (i64, i64),
    segments: Vec<(i64, u64)>,
    epochs: EpochCache,
    producers: Vec<u8>,
}

impl Fingerprint {
    pub(super) fn of(log: &Log) -> Fingerprint {
        let state = log.state.borrow();
        Fingerprint {
            ends: (log.log_start(), log.log_end()),
            segments: log.segments().iter().map(|segment| (segment.base_offset, segment.bytes)).collect(),
            epochs: state.epochs.clone(),
            producers: without_times(&state.producers.encode()),
        }
    }
}

impl Bench {
    /// Everything that the model has is there, nothing else is, and all lookups agree with a scan.
    pub(super) async fn check(self: &Rc<Self>, dice: &mut Dice, depth: Depth) -> Result<(), Trouble> {
        let log = self.log();
        let (start, end) = (log.log_start(), log.log_end());
        let max_bytes = 1 + usize::try_from(dice.below(20_000)).expect("small");
        let (mut at, mut whole) = (start, Vec::new());
        while at < end {
            let read = log.read(at, max_bytes, end, true).await?;
            assert!(read.bytes > 0 && read.next_offset > at, "no progress at {at} of {end}");
            whole.extend(read.parts.concat());
            at = read.next_offset;
        }
        let wrong = self.model.borrow().difference(&whole.into(), start, end);
        assert_eq!(wrong, None, "the log from {start} to {end}");
        self.check_offsets(&log, dice, depth).await?;
        self.check_timestamps(&log, dice, depth).await?;
        self.check_epochs(&log);
        self.check_producers(&log);
        Ok(())
    }

    async fn check_offsets(&self, log: &Log, dice: &mut Dice, depth: Depth) -> Result<(), Trouble> {
        let (start, end) = (log.log_start(), log.log_end());
        let offsets: Vec<i64> = match depth {
            Depth::All => (start..end).collect(),
            Depth::Samples => (0..4).map(|_| between(dice, start, end)).collect(),
        };
        for offset in offsets.into_iter().filter(|offset| (start..end).contains(offset)) {
            self.read(log, offset, end, 1, true).await?;
        }
        Ok(())
    }

    async fn check_timestamps(&self, log: &Log, dice: &mut Dice, depth: Depth) -> Result<(), Trouble> {
        let (start, end) = (log.log_start(), log.log_end());
        let mut timestamps: Vec<i64> = {
            let model = self.model.borrow();
            let largest = model.between(start, end).iter().map(|batch| batch.spec.header().max_timestamp);
            largest.flat_map(|at| [at - 1, at, at + 1]).collect()
        };
        timestamps.sort_unstable();
        timestamps.dedup();
        let few = 4 * 1_000 / (timestamps.len() + 1);
        timestamps.retain(|_| depth == Depth::All || dice.below(1_000) < few as u64);
        for timestamp in timestamps {
            self.look_up(log, timestamp).await?;
        }
        Ok(())
    }

    /// contract L5
    fn check_epochs(&self, log: &Log) {
        let (start, end) = (log.log_start(), log.log_end());
        let model = self.model.borrow();
        for batch in model.between(start, end) {
            let offset = batch.base.max(start);
            assert_eq!(log.epoch_for_offset(offset), Some(batch.epoch), "epoch of {offset}");
        }
        for epoch in (0..model.epoch + 2).filter(|_| start < end) {
            let expected = model.end_of_epoch(epoch, start, end);
            assert_eq!(log.end_offset_for_epoch(epoch), expected, "end of epoch {epoch} in {start}..{end}");
        }
    }
}

/// A producer snapshot less its checksum and the times when producers were last seen, which is when they are replayed.
fn without_times(snapshot: &[u8]) -> Vec<u8> {
    const PREFIX_BYTES: usize = 10;
    const ENTRY_BYTES: usize = 46;
    let entries = snapshot[PREFIX_BYTES..].as_chunks::<ENTRY_BYTES>().0;
    entries.iter().flat_map(|entry| [&entry[..26], &entry[34..]].concat()).collect()
}

fn between(dice: &mut Dice, start: i64, end: i64) -> i64 {
    start + i64::try_from(dice.below((end - start).unsigned_abs())).expect("small")
}
