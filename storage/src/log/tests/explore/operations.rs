//! What is done to a log. A new kind of operation is a variant of [`Operation`], its share in
//! [`Operation::choose`], and its line in [`Operation::carry_out`].

use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::{task, time};

use super::super::{AppendOrigin, Log, OpenMode};
use super::model::Known;
use super::{Bench, Trouble};
use crate::config::{FLUSH_UNSET, Level, LogConfig};
use crate::error::{AppendError, ProducerError, ReadError};
use crate::exploring::Dice;
use crate::testing::BatchSpec;

/// Timestamps start here.
const FIRST_TIMESTAMP: i64 = 1_000;
/// And grow by about this much from batch to batch.
const TIMESTAMP_STEP: i64 = 10;
/// Producers that take part.
const PRODUCERS: u64 = 3;
/// Keys that compaction would go by.
const KEYS: u64 = 8;

/// One operation on the log. Places in the log are given per mille of it, since nobody knows beforehand how long it is.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Appends a request of one or more batches.
    Append {
        batches: Vec<Shape>,
        origin: AppendOrigin,
    },
    /// A producer sends its last batch again (contract T1).
    Repeat {
        producer_id: i64,
    },
    Roll,
    DeleteRecords {
        below: i64,
        /// Another call at the same time.
        also: Option<i64>,
        beside: bool,
    },
    Retain {
        kept: Kept,
        watermark: i64,
        beside: bool,
    },
    TruncateTo {
        offset: i64,
    },
    RestartAt {
        offset: i64,
    },
    Reopen {
        mode: OpenMode,
    },
    Flush,
    Configure {
        segment_bytes: u32,
        index_interval_bytes: u32,
        durability: Option<Level>,
        flush_ms: i64,
    },
    RaiseEpoch {
        assign: bool,
    },
    /// Forgets what is in memory, so that reads go to the disk.
    Evict,
    Read {
        offset: i64,
        max_offset: i64,
        max_bytes: usize,
        min_one_batch: bool,
    },
    LookUp {
        timestamp: i64,
    },
    /// The log is noted in the checkpoint log before long.
    Note,
    Pause {
        micros: u64,
    },
}

/// A batch to be made.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    value_bytes: usize,
    records: i32,
    /// How much older it claims to be than it is.
    lag_ms: i64,
    producer: Option<Producer>,
    key: u32,
}

#[derive(Copy, Clone, Debug)]
struct Producer {
    id: i64,
    /// It starts over under a new producer epoch.
    anew: bool,
}

/// What retention leaves, per mille.
#[derive(Copy, Clone, Debug)]
pub(super) enum Kept {
    Bytes(i64),
    Since(i64),
}

impl Operation {
    pub(super) fn choose(dice: &mut Dice) -> Operation {
        let mut per_mille = || i64::try_from(dice.below(1_001)).expect("small");
        let (one, other) = (per_mille(), per_mille());
        match dice.below(100) {
            0..45 => Operation::append(dice),
            45..49 => Operation::Repeat { producer_id: below(dice, PRODUCERS) },
            49..53 => Operation::Roll,
            53..56 => {
                let also = dice.chance(40).then_some(other);
                Operation::DeleteRecords { below: one, also, beside: dice.chance(50) }
            }
            56..61 => {
                let kept = if dice.chance(70) { Kept::Bytes(one) } else { Kept::Since(one) };
                Operation::Retain { kept, watermark: other, beside: dice.chance(50) }
            }
            61..65 => Operation::TruncateTo { offset: one },
            65..66 => Operation::RestartAt { offset: one },
            66..69 => Operation::Reopen { mode: dice.one_of(&[OpenMode::Clean, OpenMode::Unclean]) },
            69..73 => Operation::Flush,
            73..75 => {
                let config = config(dice);
                Operation::Configure {
                    segment_bytes: config.segment_bytes,
                    index_interval_bytes: config.index_interval_bytes,
                    durability: config.durability,
                    flush_ms: config.flush_ms,
                }
            }
            75..78 => Operation::RaiseEpoch { assign: dice.chance(60) },
            78..81 => Operation::Evict,
            81..90 => {
                let max_bytes = usize::try_from(dice.below(30_000)).expect("small");
                let min_one_batch = dice.chance(70);
                Operation::Read { offset: one, max_offset: other, max_bytes, min_one_batch }
            }
            90..93 => Operation::LookUp { timestamp: one },
            93..96 => Operation::Note,
            _ => Operation::Pause {
                micros: if dice.chance(90) { dice.below(2_000) } else { dice.below(300_000) },
            },
        }
    }

    pub(super) fn append(dice: &mut Dice) -> Operation {
        let count = if dice.chance(85) { 1 } else { 2 + dice.below(2) };
        let batches = (0..count).map(|_| Shape::choose(dice)).collect();
        let origin = match dice.below(10) {
            0 => AppendOrigin::Replica,
            1 => AppendOrigin::Coordinator,
            _ => AppendOrigin::Client,
        };
        Operation::Append { batches, origin }
    }

    /// After a failure of such an operation only opening the log says what there is.
    pub(super) fn wants_the_log_alone(&self) -> bool {
        use Operation::{Reopen, RestartAt, TruncateTo};
        matches!(self, TruncateTo { .. } | RestartAt { .. } | Reopen { .. })
    }

    pub(super) async fn carry_out(&self, bench: &Rc<Bench>) -> Result<(), Trouble> {
        let log = bench.log();
        match self {
            Operation::Append { batches, origin } => bench.append(&log, batches, *origin),
            Operation::Repeat { producer_id } => bench.repeat(&log, *producer_id),
            Operation::Roll => {
                log.roll(bench.now_ms());
                Ok(())
            }
            Operation::DeleteRecords { below, also, beside } => {
                let (below, also) = (*below, *also);
                let deletion = task::spawn({
                    let bench = bench.clone();
                    async move { bench.delete_records(&log, below, also).await }
                });
                bench.beside.borrow_mut().push(deletion);
                if *beside { Ok(()) } else { bench.settled().await }
            }
            Operation::Retain { kept, watermark, beside } => {
                let (kept, watermark) = (*kept, *watermark);
                let retention = task::spawn({
                    let bench = bench.clone();
                    async move { bench.retain(&log, kept, watermark).await }
                });
                bench.beside.borrow_mut().push(retention);
                if *beside { Ok(()) } else { bench.settled().await }
            }
            Operation::TruncateTo { offset } => bench.truncate_to(&log, *offset).await,
            Operation::RestartAt { offset } => bench.restart_at(&log, *offset).await,
            Operation::Reopen { mode } => bench.reopen(&log, *mode).await,
            Operation::Flush => Ok(log.flush().await?),
            Operation::Configure { segment_bytes, index_interval_bytes, durability, flush_ms } => {
                log.set_config(LogConfig {
                    segment_bytes: *segment_bytes,
                    index_interval_bytes: *index_interval_bytes,
                    durability: *durability,
                    flush_ms: *flush_ms,
                    ..log.config()
                });
                Ok(())
            }
            Operation::RaiseEpoch { assign } => {
                let mut model = bench.model.borrow_mut();
                model.epoch += 1;
                if *assign {
                    log.assign_epoch(model.epoch);
                }
                Ok(())
            }
            Operation::Evict => {
                (0..2).for_each(|_| log.home.context().sweep_idle());
                Ok(())
            }
            Operation::Read { offset, max_offset, max_bytes, min_one_batch } => {
                let (start, end) = (log.log_start(), log.log_end());
                let offset = start + share(end - start, *offset);
                let max_offset = offset + share(end - offset, *max_offset);
                bench.read(&log, offset, max_offset, *max_bytes, *min_one_batch).await
            }
            Operation::LookUp { timestamp } => {
                let timestamp = FIRST_TIMESTAMP - TIMESTAMP_STEP
                    + share(bench.now_ms() - FIRST_TIMESTAMP + 2 * TIMESTAMP_STEP, *timestamp);
                bench.look_up(&log, timestamp).await
            }
            Operation::Note => {
                log.home.checkpoints().iter().for_each(|checkpoints| checkpoints.hurry());
                Ok(())
            }
            Operation::Pause { micros } => {
                time::sleep(Duration::from_micros(*micros)).await;
                Ok(())
            }
        }
    }
}

impl Shape {
    fn choose(dice: &mut Dice) -> Shape {
        let value_bytes = match dice.below(100) {
            0..2 => 150_000 + dice.below(200_000),
            2..8 => dice.below(12_000),
            8..25 => dice.below(3_000),
            _ => dice.below(200),
        };
        Shape {
            value_bytes: usize::try_from(value_bytes).expect("small"),
            records: i32::try_from(1 + dice.below(4)).expect("small"),
            lag_ms: below(dice, 50),
            producer: dice.chance(50).then(|| Producer { id: below(dice, PRODUCERS), anew: dice.chance(10) }),
            key: u32::try_from(dice.below(KEYS)).expect("small"),
        }
    }
}

/// Settings of all kinds, and small segments.
pub(super) fn config(dice: &mut Dice) -> LogConfig {
    let segment_bytes = if dice.chance(10) { 4 << 20 } else { 5_000 << dice.below(5) };
    let levels = [None, Some(Level::Durable), Some(Level::Written), Some(Level::Memory)];
    LogConfig {
        segment_bytes,
        index_interval_bytes: 256 << dice.below(5),
        durability: dice.one_of(&levels),
        flush_ms: dice.one_of(&[FLUSH_UNSET, FLUSH_UNSET, 0, 3, 100]),
        retention_ms: -1,
        retention_bytes: -1,
        ..LogConfig::default()
    }
}

impl Bench {
    /// The time by the timestamps of what was appended.
    pub(super) fn now_ms(&self) -> i64 {
        FIRST_TIMESTAMP + i64::try_from(self.model.borrow().made).expect("small") * TIMESTAMP_STEP
    }

    fn append(&self, log: &Rc<Log>, shapes: &[Shape], origin: AppendOrigin) -> Result<(), Trouble> {
        let batches = self.make(shapes, origin);
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.request_bytes(origin)).collect();
        let (count, first) = (bytes.len(), batches[0].base);
        let epoch = self.model.borrow().epoch;
        match log.append(&bytes.into(), epoch, origin, self.now_ms()) {
            Err(AppendError::TooLarge { bytes, max }) => {
                assert!((bytes, max) == (count, log.config().segment_bytes as usize) && bytes > max);
            }
            Ok(info) => {
                assert!(!info.duplicate, "{batches:?}");
                let last = batches[batches.len() - 1].last;
                assert_eq!((info.base_offset, info.last_offset), (first, last), "offsets are continuous");
                batches.into_iter().for_each(|batch| self.model.borrow_mut().push(batch));
                self.count(|tally| tally.appends += 1);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Batches of these shapes as the log would hold them: each continues its producer.
    fn make(&self, shapes: &[Shape], origin: AppendOrigin) -> Vec<Known> {
        let mut model = self.model.borrow_mut();
        let (mut batches, mut next) = (Vec::<Known>::new(), model.end());
        for shape in shapes {
            model.made += 1;
            let made = i64::try_from(model.made).expect("small");
            let mut value = vec![u8::try_from(made % 251).expect("small"); shape.value_bytes];
            value.extend_from_slice(&made.to_be_bytes());
            let timestamp = FIRST_TIMESTAMP + made * TIMESTAMP_STEP - shape.lag_ms;
            let mut spec = BatchSpec { value, timestamp, ..BatchSpec::default() }.records(shape.records);
            if let Some(Producer { id, anew }) = shape.producer {
                let ahead = batches.iter().rev().find(|batch| batch.spec.producer_id == id);
                let last = ahead.or_else(|| model.last_of(id)).map(|batch| &batch.spec);
                spec.producer_id = id;
                (spec.producer_epoch, spec.base_sequence) = match last {
                    Some(last) if anew => (last.producer_epoch + 1, 0),
                    Some(last) => (last.producer_epoch, last.base_sequence + last.records),
                    None => (0, 0),
                };
            }
            if origin == AppendOrigin::Replica {
                spec.leader_epoch = model.epoch;
            }
            let batch = Known::new(spec, next, model.epoch, Some(shape.key));
            next = batch.last + 1;
            batches.push(batch);
        }
        batches
    }

    /// contract T1
    fn repeat(&self, log: &Log, producer_id: i64) -> Result<(), Trouble> {
        let model = self.model.borrow();
        // Sequences that a lying disk has had the log forget are not checked any more.
        let Some(last) = model.last_of(producer_id).filter(|_| !self.untrusted()) else { return Ok(()) };
        let epoch = model.epoch;
        let again = match log.append(&last.spec.bytes(), epoch, AppendOrigin::Client, self.now_ms()) {
            // Settings may have changed since.
            Err(AppendError::TooLarge { .. }) => return Ok(()),
            again => again?,
        };
        assert!(again.duplicate, "producer {producer_id} sequence {}", last.spec.base_sequence);
        assert_eq!((again.base_offset, again.last_offset), (last.base, last.last));
        Ok(())
    }

    async fn delete_records(&self, log: &Log, below: i64, also: Option<i64>) -> Result<(), Trouble> {
        let (start, end) = (log.log_start(), log.log_end());
        let to = |below| start + share(end - start, below);
        let (one, other) = (to(below), also.map(to));
        self.model.borrow_mut().may_start_at(other.map_or(one, |other| other.max(one)));
        let other = async {
            match other {
                Some(other) => self.delete_below(log, other).await,
                None => Ok(()),
            }
        };
        let (one, other) = futures::join!(self.delete_below(log, one), other);
        one.and(other)
    }

    /// Whatever becomes of others, and of retention beside: what is confirmed counts from then on.
    async fn delete_below(&self, log: &Log, to: i64) -> Result<(), Trouble> {
        let truncations = self.tally.get().truncations;
        let deleted = log.delete_records(to).await?;
        // One that a full disk has kept waiting for too long may find the log truncated.
        let is_whole = self.tally.get().truncations == truncations;
        assert!(!is_whole || deleted >= to, "{deleted} for {to}");
        self.model.borrow_mut().deleted_below(to.min(deleted));
        self.count(|tally| tally.deletions += 1);
        Ok(())
    }

    /// contract L6
    async fn retain(&self, log: &Log, kept: Kept, watermark: i64) -> Result<(), Trouble> {
        let (start, end) = (log.log_start(), log.log_end());
        let watermark = start + share(end - start, watermark);
        self.model.borrow_mut().may_start_at(watermark);
        let bytes = i64::try_from(log.sizes().bytes).expect("small");
        let now_ms = self.now_ms() + TIMESTAMP_STEP;
        let (retention_bytes, retention_ms) = match kept {
            Kept::Bytes(kept) => (share(bytes, kept), -1),
            Kept::Since(kept) => (-1, share(now_ms - FIRST_TIMESTAMP, kept)),
        };
        log.set_config(LogConfig { retention_bytes, retention_ms, ..log.config() });
        let removed = log.apply_retention(now_ms, watermark).await?;
        assert!(log.log_start() <= self.model.borrow().start_max(), "only below the high watermark");
        self.count(|tally| tally.retained += removed as u64);
        Ok(())
    }

    async fn truncate_to(&self, log: &Log, offset: i64) -> Result<(), Trouble> {
        self.settled().await?;
        log.check_open()?;
        // From somewhat below the log start on: a follower may have to go back behind it.
        let (start, end) = ((log.log_start() - 3).max(0), log.log_end());
        let offset = start + share(end - start, offset);
        let first = log.segments()[0].base_offset;
        if offset < first && offset < end {
            self.model.borrow_mut().restarting_at(offset);
        } else {
            self.model.borrow_mut().truncating_to(offset);
        }
        log.truncate_to(offset).await?;
        if self.untrusted() && log.log_end() != self.model.borrow().end_after_removal() {
            return Err(Trouble("misled about where batches start".to_owned()));
        }
        self.model.borrow_mut().removed();
        assert_eq!(log.log_end(), self.model.borrow().end());
        self.count(|tally| tally.truncations += 1);
        Ok(())
    }

    async fn restart_at(&self, log: &Log, offset: i64) -> Result<(), Trouble> {
        self.settled().await?;
        log.check_open()?;
        // As often below the end as above it.
        let offset = share(2 * log.log_end(), offset);
        self.model.borrow_mut().restarting_at(offset);
        log.truncate_fully_and_start_at(offset).await?;
        self.model.borrow_mut().removed();
        assert_eq!((log.log_start(), log.log_end()), (offset, offset));
        self.count(|tally| tally.truncations += 1);
        Ok(())
    }

    async fn reopen(self: &Rc<Self>, log: &Rc<Log>, mode: OpenMode) -> Result<(), Trouble> {
        self.settled().await?;
        if self.untrusted() {
            // What a lying disk makes of this is checked when the run is over.
            return Ok(());
        }
        let (start, end, config) = (log.log_start(), log.log_end(), log.config());
        log.close().await?;
        self.model.borrow_mut().promised(end, end);
        let report = self.open(config, mode).await?;
        let log = self.log();
        // What was deleted within a segment is noted beside it; where nothing is left, retention was the last to know.
        assert_eq!((log.log_start(), log.log_end()), (start, end), "a clean stop keeps everything");
        assert_eq!(report.cut, None);
        if mode == OpenMode::Clean {
            assert_eq!(report.scanned_bytes, 0, "nothing is scanned after a clean stop");
        }
        Ok(())
    }

    pub(super) async fn read(
        &self,
        log: &Log,
        offset: i64,
        max_offset: i64,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<(), Trouble> {
        // A high watermark lies between batches.
        let max_offset = self.model.borrow().at(max_offset).map_or(max_offset, |batch| batch.base);
        let read = match log.try_read_tail(offset, max_bytes, max_offset, min_one_batch) {
            Some(read) => read,
            None => match log.read(offset, max_bytes, max_offset, min_one_batch).await {
                // Retention went by.
                Err(ReadError::OffsetOutOfRange { .. }) if offset < log.log_start() => return Ok(()),
                read => read?,
            },
        };
        self.count(|tally| tally.reads += 1);
        if self.untrusted() {
            self.judge(&read);
            return Ok(());
        }
        let model = self.model.borrow();
        let bytes = read.parts.concat().into();
        let wrong = model.difference(&bytes, offset, read.next_offset);
        assert_eq!(wrong, None, "read of {offset} to {}", read.next_offset);
        assert!(read.next_offset <= max_offset.max(offset));
        let first = model.between(offset, max_offset).first();
        if read.bytes == 0 {
            // A batch may be refused for its size, never otherwise. Contract F1: not even so with min_one_batch.
            let refused = first.is_none_or(|first| !min_one_batch && first.bytes.len() > max_bytes);
            assert!(refused || offset < log.log_start(), "nothing read at {offset}");
        } else {
            let first = first.expect("something was read");
            assert_eq!(read.first_offset, first.base);
            assert!(read.bytes <= max_bytes || (min_one_batch && read.bytes == first.bytes.len()));
        }
        Ok(())
    }

    /// contract L7
    pub(super) async fn look_up(&self, log: &Log, timestamp: i64) -> Result<(), Trouble> {
        let (start, end) = (log.log_start(), log.log_end());
        let found = log.offset_for_timestamp(timestamp, end).await;
        let largest = log.max_timestamp(end).await;
        // Retention may have gone by.
        if log.log_start() != start {
            return Ok(());
        }
        let (found, largest) = (found?, largest?);
        if self.untrusted() {
            return Ok(());
        }
        let model = self.model.borrow();
        let expected = model.first_record(timestamp, start, end);
        assert_eq!(found.map(|found| (found.timestamp, found.offset)), expected, "first from {timestamp} on");
        if model.at(start).is_none_or(|batch| batch.base == start) {
            let expected = model.largest_timestamp(start, end);
            assert_eq!(largest.map(|found| found.timestamp), expected, "largest of {start}..{end}");
        }
        Ok(())
    }

    /// What the log knows of producers is what its batches say (contract T1).
    pub(super) fn check_producers(&self, log: &Log) {
        let (state, model) = (log.state.borrow(), self.model.borrow());
        for (id, batches) in model.producers() {
            let last = batches[batches.len() - 1];
            let check = |spec: &BatchSpec| state.producers.check(&spec.header());
            let original =
                crate::producer::Verdict::Duplicate { base_offset: last.base, last_offset: last.last };
            assert_eq!(check(&last.spec), Ok(original), "producer {id} sends its last batch again");
            let next = last.spec.base_sequence + last.spec.records;
            let next = BatchSpec { base_sequence: next, ..last.spec.clone() };
            assert_eq!(check(&next), Ok(crate::producer::Verdict::Append), "producer {id} goes on");
            let gap = BatchSpec { base_sequence: next.base_sequence + 1, ..next };
            let refused = matches!(check(&gap), Err(ProducerError::OutOfOrderSequence { .. }));
            assert!(refused, "producer {id} leaves a sequence out");
        }
    }
}

/// So many per mille of something.
fn share(whole: i64, per_mille: i64) -> i64 {
    whole.max(0) * per_mille / 1_000
}

fn below(dice: &mut Dice, bound: u64) -> i64 {
    i64::try_from(dice.below(bound)).expect("small")
}
