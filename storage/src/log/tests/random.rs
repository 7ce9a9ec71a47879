//! Random operations against a plain list of batches, with power cuts and kills at any moment (contract L8).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::sim::Sim;
use heizer_runtime::{random, task, time};

use super::*;
use crate::config::Level;
use crate::error::ReadError;

const LIVES: u64 = 4;

#[derive(Clone)]
struct Known {
    base: i64,
    last: i64,
    bytes: Bytes,
    max_timestamp: i64,
    spec: BatchSpec,
}

/// What the log should be.
#[derive(Default)]
struct Model {
    batches: Vec<Known>,
    /// Everything below was acknowledged at the log's level.
    acked: i64,
    /// A truncation to here is under way: nothing above counts as acknowledged.
    truncating_to: Option<i64>,
    /// Records below were deleted on request: they never come back.
    deleted: i64,
    /// Offsets below may be gone by retention.
    retained_from: i64,
    epoch: i32,
    counter: u64,
    appended: u64,
    checked_reads: u64,
}

impl Model {
    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.last + 1)
    }

    fn truncate(&mut self, end: i64) {
        self.batches.retain(|batch| batch.last < end);
    }

    /// The log may lose what is below.
    fn may_start_at(&mut self, offset: i64) {
        self.retained_from = self.retained_from.max(offset);
    }

    /// Timestamp and offset of the first record from `timestamp` on.
    fn first_record(&self, timestamp: i64, start: i64, end: i64) -> Option<(i64, i64)> {
        let live = self.batches.iter().filter(|batch| batch.last >= start && batch.last < end);
        let records = live.flat_map(|batch| {
            (0..i64::from(batch.spec.records)).map(|at| (batch.spec.timestamp + at, batch.base + at))
        });
        records.into_iter().find(|&(at, offset)| at >= timestamp && offset >= start)
    }

    fn range(&self, from: i64, to: i64) -> Vec<u8> {
        let inside = self.batches.iter().filter(|batch| batch.last >= from && batch.last < to);
        inside.flat_map(|batch| batch.bytes.to_vec()).collect()
    }
}

type Shared = Rc<RefCell<Model>>;

fn chance(percent: u64) -> bool {
    random::below(100) < percent
}

fn below(n: i64) -> i64 {
    i64::try_from(random::below(n.max(1).unsigned_abs())).unwrap()
}

fn config(seed: u64, level: Level) -> LogConfig {
    LogConfig {
        segment_bytes: 20_000 << (seed % 4),
        index_interval_bytes: 256 << (seed % 5),
        durability: Some(level),
        ..LogConfig::default()
    }
}

fn next_spec(model: &mut Model) -> BatchSpec {
    model.counter += 1;
    let size = match random::below(20) {
        0 => random::below(4_500),
        1..4 => random::below(3_000),
        _ => random::below(200),
    };
    let mut value = vec![u8::try_from(model.counter % 251).unwrap(); usize::try_from(size).unwrap()];
    value.extend_from_slice(&model.counter.to_be_bytes());
    let timestamp = 1000 + i64::try_from(model.counter).unwrap() * 10 - below(50);
    let records = i32::try_from(1 + random::below(4)).unwrap();
    let mut spec = BatchSpec { value, timestamp, ..BatchSpec::default() }.records(records);
    if chance(40) {
        spec.producer_id = below(3);
        spec.producer_epoch = 0;
        let last = model.batches.iter().rev().find(|batch| batch.spec.producer_id == spec.producer_id);
        spec.base_sequence = last.map_or(0, |batch| batch.spec.base_sequence + batch.spec.records);
    }
    spec
}

fn append_one(log: &Rc<Log>, shared: &Shared, promise: Level) {
    let (spec, epoch) = {
        let mut model = shared.borrow_mut();
        (next_spec(&mut model), model.epoch)
    };
    let info = log.append(&spec.bytes(), epoch, AppendOrigin::Client, spec.timestamp).expect("append");
    assert!(!info.duplicate);
    {
        let mut model = shared.borrow_mut();
        assert_eq!(info.base_offset, model.end(), "offsets are continuous");
        let bytes = stored(&spec, info.base_offset, epoch);
        let max_timestamp = spec.header().max_timestamp;
        model.batches.push(Known {
            base: info.base_offset,
            last: info.last_offset,
            bytes,
            max_timestamp,
            spec,
        });
        model.appended += 1;
    }
    let (log, shared) = (log.clone(), shared.clone());
    drop(task::spawn(async move {
        let end = info.last_offset + 1;
        if log.wait_end_at(promise, end).await.is_ok() {
            let mut model = shared.borrow_mut();
            // A truncation meanwhile has taken it back.
            if model.batches.iter().any(|batch| batch.last + 1 == end) {
                model.acked = model.acked.max(end.min(model.truncating_to.unwrap_or(end)));
            }
        }
    }));
}

fn duplicate_one(log: &Log, shared: &Shared) {
    let model = shared.borrow();
    let producer_id = below(3);
    if let Some(last) = model.batches.iter().rev().find(|batch| batch.spec.producer_id == producer_id) {
        let again = log.append(&last.spec.bytes(), model.epoch, AppendOrigin::Client, 0).expect("append");
        assert!(again.duplicate, "producer {producer_id} sequence {}", last.spec.base_sequence);
        assert_eq!((again.base_offset, again.last_offset), (last.base, last.last));
    }
}

async fn read_one(log: &Log, shared: &Shared) {
    let (start, end) = (log.log_start(), log.log_end());
    let offset = start + below(end - start + 1);
    let max_offset = if chance(50) { end } else { offset + below(end - offset + 1) };
    // A high watermark lies between batches.
    let max_offset = {
        let model = shared.borrow();
        model.batches.iter().find(|batch| batch.last >= max_offset).map_or(end, |batch| batch.base)
    };
    let max_bytes = usize::try_from(random::below(30_000)).unwrap();
    let min_one = chance(70);
    let read = match log.try_read_tail(offset, max_bytes, max_offset, min_one) {
        Some(read) => read,
        None => match log.read(offset, max_bytes, max_offset, min_one).await {
            Ok(read) => read,
            Err(ReadError::OffsetOutOfRange { .. }) if offset < log.log_start() => return,
            Err(error) => panic!("read of {offset}: {error}"),
        },
    };
    let mut model = shared.borrow_mut();
    model.checked_reads += 1;
    let bytes = read.parts.concat();
    assert_eq!(bytes, model.range(offset, read.next_offset), "read of {offset} to {}", read.next_offset);
    assert!(read.next_offset <= max_offset.max(offset));
    if read.bytes == 0 {
        let first = model.batches.iter().find(|batch| batch.last >= offset && batch.last < max_offset);
        // A batch may be refused for its size, never otherwise. Contract F1: not even so with min_one_batch.
        assert!(
            first.is_none_or(|first| !min_one && first.bytes.len() > max_bytes),
            "nothing read at {offset}"
        );
    } else {
        let first = model.batches.iter().find(|batch| batch.last >= offset).expect("something was read");
        assert_eq!(read.first_offset, first.base);
        assert!(read.bytes <= max_bytes || (min_one && read.bytes == first.bytes.len()));
    }
}

async fn look_up_one(log: &Log, shared: &Shared) {
    let timestamp = 900 + below(i64::try_from(shared.borrow().counter).unwrap() * 10 + 200);
    let (start, end) = (log.log_start(), log.log_end());
    let Ok(found) = log.offset_for_timestamp(timestamp, end).await else { return };
    if log.log_start() != start {
        return;
    }
    let expected = shared.borrow().first_record(timestamp, start, end);
    assert_eq!(found.map(|found| (found.timestamp, found.offset)), expected, "first at {timestamp} or later");
    let Ok(largest) = log.max_timestamp(end).await else { return };
    let model = shared.borrow();
    let live = model.batches.iter().filter(|batch| batch.base >= start && batch.last < end);
    let expected = live.map(|batch| batch.max_timestamp).max();
    if log.log_start() == start && model.batches.iter().any(|batch| batch.base == start) {
        assert_eq!(largest.map(|found| found.timestamp), expected);
    }
}

async fn truncate_one(log: &Log, shared: &Shared) {
    let start = log.log_start();
    let offset = start + below(log.log_end() - start + 1);
    {
        let mut model = shared.borrow_mut();
        let boundary =
            model.batches.iter().find(|batch| batch.last >= offset).map_or(offset, |batch| batch.base);
        model.acked = model.acked.min(boundary);
        model.truncating_to = Some(boundary);
        model.deleted = model.deleted.min(boundary);
    }
    log.truncate_to(offset).await.expect("truncate");
    let mut model = shared.borrow_mut();
    model.truncate(offset);
    model.truncating_to = None;
    if model.batches.is_empty() || log.log_end() <= log.log_start() {
        // The model cannot say where an empty log goes on.
        assert!(log.log_end() <= offset);
    }
    model.deleted = model.deleted.min(log.log_end());
    model.retained_from = model.retained_from.min(log.log_end());
}

async fn retain_one(log: &Log, shared: &Shared) {
    let watermark = below(log.log_end() + 1);
    let (bytes, start) = (log.sizes().bytes, log.log_start());
    let keep = below(i64::try_from(bytes).unwrap() + 1);
    shared.borrow_mut().may_start_at(watermark);
    log.set_config(LogConfig { retention_bytes: keep, retention_ms: -1, ..log.config() });
    log.apply_retention(0, watermark).await.expect("retention");
    assert!(log.log_start() <= watermark.max(start), "contract L6: only below the high watermark");
}

/// Operates on the log until the power goes.
async fn live(log: Rc<Log>, shared: Shared, promise: Level) {
    loop {
        match random::below(100) {
            0..55 => append_one(&log, &shared, promise),
            55..60 => duplicate_one(&log, &shared),
            60..78 => read_one(&log, &shared).await,
            78..82 => look_up_one(&log, &shared).await,
            82..84 => log.roll(0),
            84..87 => retain_one(&log, &shared).await,
            87..88 => truncate_one(&log, &shared).await,
            88..90 => {
                let below_acked = below(shared.borrow().acked + 1);
                shared.borrow_mut().may_start_at(below_acked);
                let to = log.delete_records(below_acked).await.expect("delete records");
                shared.borrow_mut().deleted = to;
            }
            90..92 => shared.borrow_mut().epoch += 1,
            92..95 => time::sleep(Duration::from_micros(random::below(2000))).await,
            95 => log.home.checkpoints().iter().for_each(|noting| noting.hurry()),
            _ => task::yield_now().await,
        }
        if shared.borrow().batches.is_empty() && log.log_end() > 0 {
            return;
        }
    }
}

/// What was acknowledged is there, nothing else is, and the lookups agree with it.
async fn check(log: &Log, shared: &Shared) {
    let (start, end) = (log.log_start(), log.log_end());
    {
        let mut model = shared.borrow_mut();
        assert!(end >= model.acked, "log end {end}, acknowledged {}", model.acked);
        assert!(end <= model.end().max(start), "log end {end} beyond the model's {}", model.end());
        assert!(start <= model.retained_from, "log start {start}");
        assert!(start >= model.deleted.min(end), "log start {start}, deleted below {}", model.deleted);
        model.truncate(end);
        model.truncating_to = None;
        model.acked = model.acked.min(end);
    }
    let whole = read_all(log, 1 + usize::try_from(random::below(20_000)).unwrap()).await;
    let first = log.read(start, 0, end, true).await.expect("read").first_offset;
    assert_eq!(whole, shared.borrow().range(first, end));
    let model = shared.borrow();
    for batch in model.batches.iter().filter(|batch| batch.base >= start) {
        let epoch = i32::from_be_bytes(*batch.bytes[12..].first_chunk().unwrap());
        assert_eq!(log.epoch_for_offset(batch.base), Some(epoch), "epoch of {}", batch.base);
    }
}

async fn next_life(shared: Shared, mode: OpenMode, config: LogConfig) -> Rc<Log> {
    let home = if config.segment_bytes < 160_000 { noting_home(30_000).await } else { home(30_000) };
    let (log, report) = Log::open(&home, NAME, TOPIC_ID, config, mode).await.expect("open");
    assert_eq!(report.log_end, log.log_end());
    if mode == OpenMode::Clean {
        assert_eq!((report.scanned_bytes, &report.cut), (0, &None));
    }
    check(&log, &shared).await;
    shared.borrow_mut().epoch += 1;
    log
}

fn run_seed(seed: u64, cut_power: bool, level: Level, promise: Level) -> (u64, u64) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    let shared = Shared::default();
    let config = config(seed, level);
    sim.run(node, make_data_dir());
    let created = config.clone();
    sim.run(node, async move {
        Log::open(&home(30_000), NAME, TOPIC_ID, created, OpenMode::Unclean).await.expect("start");
    });
    let mut mode = OpenMode::Unclean;
    for life in 0..LIVES {
        let log = sim.run(node, next_life(shared.clone(), mode, config.clone()));
        if life % 4 == 3 {
            // A clean stop instead.
            mode = OpenMode::Clean;
            let shared = shared.clone();
            sim.run(node, async move {
                for _ in 0..20 {
                    append_one(&log, &shared, promise);
                    task::yield_now().await;
                }
                log.close().await.expect("close");
                let mut model = shared.borrow_mut();
                model.acked = model.end();
            });
            sim.crash(node);
            continue;
        }
        mode = OpenMode::Unclean;
        let operated = shared.clone();
        let cell = Rc::new(RefCell::new(Some(log)));
        sim.start(node, move || {
            let (log, shared) = (cell.borrow_mut().take(), operated.clone());
            async move {
                if let Some(log) = log {
                    live(log, shared, promise).await;
                }
            }
        });
        sim.run_for(Duration::from_micros(seed * 7919 % 20_000 + life * 1000));
        if cut_power { sim.crash(node) } else { sim.kill(node) }
    }
    // Opening twice finds the same (recovery is idempotent).
    let before = sim.run(node, next_life(shared.clone(), mode, config.clone())).log_end();
    if cut_power {
        sim.crash(node)
    } else {
        sim.kill(node)
    }
    let after = sim.run(node, next_life(shared.clone(), OpenMode::Unclean, config)).log_end();
    assert_eq!(before, after);
    assert_eq!(sim.panics(), 0);
    let model = shared.borrow();
    (model.appended, model.checked_reads)
}

fn run_seeds(seeds: u64, cut_power: bool, level: Level, promise: Level) {
    let (mut appended, mut reads) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run_seed(seed, cut_power, level, promise));
        let Ok((a, r)) = outcome else { panic!("seed {seed}, power cut {cut_power}, level {level}") };
        (appended, reads) = (appended + a, reads + r);
    }
    assert!(appended > 20 * seeds && reads > 5 * seeds, "{appended} appends and {reads} reads prove nothing");
}

/// contract L8: what was acknowledged at level durable is never what is cut.
#[test]
fn what_was_acknowledged_as_durable_survives_power_cuts() {
    run_seeds(300, true, Level::Durable, Level::Durable);
}

/// DESIGN §4: level written survives the process.
#[test]
fn what_was_acknowledged_as_written_survives_kills() {
    run_seeds(300, false, Level::Written, Level::Written);
}

/// contract L8: below level durable a power cut may take the end, but what is left is a prefix.
#[test]
fn without_durability_a_power_cut_leaves_a_prefix_and_all_that_was_synced() {
    run_seeds(100, true, Level::Written, Level::Durable);
    run_seeds(100, true, Level::Memory, Level::Durable);
}
