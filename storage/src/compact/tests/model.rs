//! Random appends, rounds, readers and crashes against a plain list of records (contract L9).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use heizer_runtime::sim::Sim;
use heizer_runtime::{random, task, time};

use super::*;
use crate::config::Level;
use crate::error::ReadError;

const LIVES: u64 = 3;
const KEYS: u64 = 12;
const PRODUCERS: i64 = 3;

#[derive(Clone, Debug)]
struct Known {
    offset: i64,
    timestamp: i64,
    key: String,
    value: Option<String>,
}

/// What was appended. Nothing is ever taken out but by a crash.
#[derive(Default)]
struct Model {
    records: Vec<Known>,
    /// The last batch of each idempotent producer, with its base offset.
    sequenced: BTreeMap<i64, Vec<(i64, i32, Bytes)>>,
    acked: i64,
    now_ms: i64,
    rounds: u64,
    reads: u64,
    interrupted: u64,
}

type Shared = Rc<RefCell<Model>>;

impl Model {
    fn truncate(&mut self, end: i64) {
        self.records.retain(|record| record.offset < end);
        self.sequenced.values_mut().for_each(|batches| batches.retain(|(offset, ..)| *offset < end));
    }

    /// Checks what a log holds between two offsets: nothing but what was appended, in order, and whatever is missing has
    /// a successor below `end`, or is a tombstone.
    fn check(&self, found: &[Record], from: i64, to: i64, end: i64) {
        let mut found = found.iter().filter(|record| record.offset >= from).peekable();
        for known in self.records.iter().filter(|known| (from..to).contains(&known.offset)) {
            if let Some(record) = found.next_if(|record| record.offset == known.offset) {
                assert_eq!(record.timestamp, known.timestamp, "time of {}", known.offset);
                assert_eq!(record.key.as_deref(), Some(known.key.as_bytes()), "key of {}", known.offset);
                assert_eq!(record.value.as_deref(), known.value.as_ref().map(String::as_bytes));
                assert_eq!((record.headers.len(), &record.headers[0].key[..]), (1, &b"name"[..]));
                continue;
            }
            let successor = |later: &&Known| later.offset > known.offset && later.key == known.key;
            let superseded =
                self.records.iter().filter(|later| later.offset < end).any(|later| successor(&later));
            assert!(superseded || known.value.is_none(), "{known:?} is lost");
        }
        assert_eq!(found.next(), None, "nobody has appended this");
    }
}

fn chance(percent: u64) -> bool {
    random::below(100) < percent
}

fn append_one(log: &Rc<Log>, shared: &Shared) {
    let mut model = shared.borrow_mut();
    model.now_ms += i64::try_from(random::below(40)).unwrap();
    let now_ms = model.now_ms;
    let count = 1 + random::below(4);
    let pairs: Vec<(String, Option<String>)> = (0..count)
        .map(|_| {
            let value = "v".repeat(usize::try_from(random::below(300)).unwrap());
            let value = (!chance(20)).then(|| format!("{now_ms}-{value}"));
            (format!("key-{}", random::below(KEYS)), value)
        })
        .collect();
    let mut options = compressed(Compression::ALL[usize::try_from(random::below(5)).unwrap()]);
    let producer = i64::try_from(random::below(3 * PRODUCERS.unsigned_abs())).unwrap();
    if producer < PRODUCERS {
        let next = model.sequenced.get(&producer).and_then(|batches| batches.last()).map(|last| last.1);
        (options.producer_id, options.producer_epoch) = (producer, 0);
        options.base_sequence = next.unwrap_or(0);
    }
    let timestamp = now_ms - i64::try_from(random::below(60)).unwrap();
    let borrowed: Vec<Pair<'_>> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    let bytes = batch(options.clone(), timestamp, &borrowed);
    let info = log.append(&bytes, 0, AppendOrigin::Client, now_ms).expect("append");
    assert!(!info.duplicate);
    if options.producer_id >= 0 {
        let next = options.base_sequence + i32::try_from(count).unwrap();
        model.sequenced.entry(producer).or_default().push((info.base_offset, next, bytes));
    }
    for (at, (key, value)) in (0..).zip(pairs) {
        model.records.push(Known { offset: info.base_offset + at, timestamp: timestamp + at, key, value });
    }
    drop(model);
    let (log, shared) = (log.clone(), shared.clone());
    drop(task::spawn(async move {
        let end = info.last_offset + 1;
        if log.wait_end_at(Level::Durable, end).await.is_ok() {
            let acked = &mut shared.borrow_mut().acked;
            *acked = (*acked).max(end);
        }
    }));
}

async fn read_one(log: &Log, shared: &Shared) {
    let end = log.log_end();
    let offset = i64::try_from(random::below(end.unsigned_abs() + 1)).unwrap();
    let max_bytes = usize::try_from(random::below(10_000)).unwrap();
    let read = match log.read(offset, max_bytes, end, true).await {
        Ok(read) => read,
        Err(ReadError::OffsetOutOfRange { .. }) => panic!("every offset up to the end can be read"),
        Err(error) => panic!("read of {offset}: {error}"),
    };
    let found: Vec<BatchView> =
        batches(read.parts.concat().into()).map(|batch| batch.expect("whole")).collect();
    found.iter().for_each(|batch| batch.verify_crc().expect("a right CRC"));
    assert!(read.bytes > 0 || offset >= end, "the last batch stays: something is at or after {offset}");
    let mut model = shared.borrow_mut();
    model.reads += 1;
    model.check(&records(&found), offset, read.next_offset, log.log_end());
}

async fn look_up_one(log: &Log, shared: &Shared) {
    let timestamp = i64::try_from(random::below(shared.borrow().now_ms.unsigned_abs() + 100)).unwrap();
    let end = log.log_end();
    let Some(found) = log.offset_for_timestamp(timestamp, end).await.expect("look up") else {
        return;
    };
    let model = shared.borrow();
    let known = model.records.iter().find(|known| known.offset == found.offset).expect("appended");
    assert_eq!((known.timestamp, known.timestamp >= timestamp), (found.timestamp, true));
}

/// A round as the cleaner makes it, with a map of any size, up to what is acknowledged.
async fn clean_one(log: &Log, shared: &Shared) {
    let (now_ms, acked) = {
        let model = shared.borrow();
        (model.now_ms, model.acked)
    };
    let map_bytes = if chance(30) { 0 } else { MAP_BYTES };
    match log.compact(now_ms, acked, &mut limits(map_bytes)).await {
        Ok(None) => {}
        Ok(Some(report)) => {
            shared.borrow_mut().rounds += 1;
            assert!(report.clean_to <= acked && report.clean_to == log.first_dirty());
        }
        Err(CompactError::Interrupted) => shared.borrow_mut().interrupted += 1,
        Err(error) => panic!("{error}"),
    }
}

async fn live(log: Rc<Log>, shared: Shared) {
    let busy = Rc::new(Cell::new(false));
    loop {
        match random::below(100) {
            0..45 => append_one(&log, &shared),
            45..70 => read_one(&log, &shared).await,
            70..74 => look_up_one(&log, &shared).await,
            74..82 => log.roll(0),
            82..92 => {
                if !busy.replace(true) {
                    let (log, shared, busy) = (log.clone(), shared.clone(), busy.clone());
                    drop(task::spawn(async move {
                        clean_one(&log, &shared).await;
                        busy.set(false);
                    }));
                }
            }
            92..93 => {
                let (now_ms, acked) = (shared.borrow().now_ms, shared.borrow().acked);
                assert_eq!(log.apply_retention(now_ms, acked).await.expect("retention"), 0);
            }
            93..97 => time::sleep(Duration::from_micros(random::below(3000))).await,
            _ => task::yield_now().await,
        }
    }
}

/// A new life: everything that was acknowledged is there or superseded, and lookups agree with a linear scan.
async fn next_life(shared: Shared, mode: OpenMode, config: LogConfig) -> Rc<Log> {
    let (log, report) = open(config, mode).await;
    let end = log.log_end();
    {
        let mut model = shared.borrow_mut();
        assert!(end >= model.acked, "log end {end}, acknowledged {}: {report:?}", model.acked);
        assert_eq!(log.log_start(), 0, "compaction never moves the log start");
        model.truncate(end);
        model.acked = end;
    }
    assert!(names().await.iter().all(|name| !name.contains("cleaned") && !name.contains("swap")));
    let all = records(&read_batches(&log, 0).await);
    shared.borrow().check(&all, 0, end, end);
    for _ in 0..10 {
        let timestamp = i64::try_from(random::below(shared.borrow().now_ms.unsigned_abs() + 50)).unwrap();
        let found = log.offset_for_timestamp(timestamp, end).await.expect("look up");
        let expected = all.iter().find(|record| record.timestamp >= timestamp).map(|record| record.offset);
        assert_eq!(found.map(|found| found.offset), expected, "at {timestamp}");
    }
    let largest = log.max_timestamp(end).await.expect("look up").map(|found| found.timestamp);
    assert_eq!(largest, all.iter().map(|record| record.timestamp).max());
    for (producer, batches) in &shared.borrow().sequenced {
        let Some((offset, _, last)) = batches.last() else { continue };
        let again = log.append(last, 0, AppendOrigin::Client, 0).expect("the sequence is known");
        assert!(
            again.duplicate && again.base_offset == *offset,
            "contract T1: producer {producer}, batch at {offset} of {end}: {again:?}"
        );
    }
    log
}

/// contract L9: exactly the last value of each key, in offset order; no tombstone once horizons have passed.
async fn settle(log: Rc<Log>, shared: Shared) {
    let in_full = async |now_ms: i64| {
        log.roll(0);
        put(&log, now_ms, &[("filler", Some("x"))]);
        log.flush().await.expect("flush");
        while log.compact(now_ms, log.log_end(), &mut limits(MAP_BYTES)).await.expect("a round").is_some() {}
    };
    let now_ms = shared.borrow().now_ms;
    in_full(now_ms).await;
    in_full(now_ms + 2_000).await;
    let found = contents(&log).await;
    let mut expected: BTreeMap<&str, &Known> = BTreeMap::new();
    let model = shared.borrow();
    for known in &model.records {
        expected.insert(&known.key, known);
    }
    let mut expected: Vec<&Known> = expected.into_values().filter(|known| known.value.is_some()).collect();
    expected.sort_by_key(|known| known.offset);
    let found: Vec<_> = found.iter().filter(|(_, key, _)| key != "filler").collect();
    assert_eq!(found.len(), expected.len());
    for ((offset, key, value), known) in found.into_iter().zip(expected) {
        assert_eq!((offset, key, value), (&known.offset, &known.key, &known.value));
    }
}

fn run_seed(seed: u64, cut_power: bool) -> (u64, u64) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    let shared = Shared::default();
    shared.borrow_mut().now_ms = 10_000;
    let config =
        LogConfig { segment_bytes: 4_000 << (seed % 3), durability: Some(Level::Durable), ..super::config() };
    sim.run(node, async {
        fs::create_dir_all(Path::new(DATA)).await.expect("a data directory");
        fs::sync_dir(Path::new("/")).await.expect("a root");
    });
    for life in 0..LIVES {
        let log = sim.run(node, next_life(shared.clone(), OpenMode::Unclean, config.clone()));
        let cell = Rc::new(RefCell::new(Some(log)));
        let operated = shared.clone();
        sim.start(node, move || {
            let (log, shared) = (cell.borrow_mut().take(), operated.clone());
            async move {
                if let Some(log) = log {
                    live(log, shared).await;
                }
            }
        });
        if seed % 2 == 1 {
            // At one disk operation or another, and not at any time.
            let nth = 50 + seed * 7919 % 900;
            if cut_power {
                sim.crash_at_disk_operation(node, nth)
            } else {
                sim.kill_at_disk_operation(node, nth)
            }
        }
        sim.run_for(Duration::from_micros(10_000 + seed * 7919 % 70_000 + life * 1_000));
        if cut_power { sim.crash(node) } else { sim.kill(node) }
    }
    let log = sim.run(node, next_life(shared.clone(), OpenMode::Unclean, config.clone()));
    let settling = shared.clone();
    sim.run(node, async move {
        let again = log.clone();
        settle(log, settling).await;
        again.close().await.expect("close");
    });
    assert_eq!(sim.panics(), 0);
    let model = shared.borrow();
    (model.rounds, model.reads)
}

fn run_seeds(seeds: u64, cut_power: bool) {
    let only = std::env::var("HEIZER_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let (mut rounds, mut reads) = (0, 0);
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| run_seed(seed, cut_power));
        let Ok((cleaned, read)) = outcome else { panic!("HEIZER_SIM_SEED={seed}, power cut {cut_power}") };
        (rounds, reads) = (rounds + cleaned, reads + read);
    }
    assert!(only.is_some() || (rounds > 3 * seeds && reads > 20 * seeds), "{rounds} rounds, {reads} reads");
}

/// contract L9: the exchange of segments is idempotent under a crash at any time.
#[test]
fn power_cuts_during_rounds_lose_no_last_value() {
    run_seeds(120, true);
}

/// contract L9
#[test]
fn kills_during_rounds_lose_no_last_value() {
    run_seeds(60, false);
}

/// A log ready for one round of several groups, and what must be left of it: the last of each key.
async fn prepare(config: LogConfig) -> (Rc<Log>, Vec<(i64, String, Option<String>)>) {
    let log = create(config).await;
    for at in 0..30 {
        let value = format!("{at}-{}", "x".repeat(150));
        put(&log, at, &[(&format!("key-{}", at % 9), Some(&value))]);
    }
    seal(&log).await;
    let mut expected = contents(&log).await;
    expected.retain(|(offset, ..)| *offset >= 21);
    (log, expected)
}

/// How far a round had come that was cut short.
#[derive(Default)]
struct Seen {
    untouched: u32,
    partly: u32,
    whole: u32,
    half_swapped: u32,
}

/// One round, ended at its `nth` disk operation, and the recovery after it at another; then everything must be right.
/// `false`: the round was over before that.
fn end_round_at(seed: u64, nth: u64, cut_power: bool, seen: &mut Seen) -> bool {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    let config = LogConfig { segment_bytes: 2_000, ..super::config() };
    let (log, expected) = sim.run(node, prepare(config.clone()));
    let end_at = |sim: &mut Sim, nth| match cut_power {
        true => sim.crash_at_disk_operation(node, nth),
        false => sim.kill_at_disk_operation(node, nth),
    };
    end_at(&mut sim, nth);
    let (cell, over) = (Rc::new(RefCell::new(Some(log))), Rc::new(Cell::new(false)));
    let told = over.clone();
    sim.start(node, move || {
        let (log, over) = (cell.borrow_mut().take(), told.clone());
        async move {
            if let Some(log) = log {
                compact(&log, 1_000).await;
                over.set(true);
            }
        }
    });
    sim.run_for(Duration::from_millis(300));
    sim.crash(node);
    seen.half_swapped +=
        u32::from(sim.run(node, async { names().await.iter().any(|name| name.ends_with("swap")) }));
    sim.crash(node);
    end_at(&mut sim, 1 + nth * 7 % 23);
    let reopened = config.clone();
    sim.start(node, move || {
        let config = reopened.clone();
        async move { drop(open(config, OpenMode::Unclean).await) }
    });
    sim.run_for(Duration::from_millis(100));
    sim.crash(node);
    let found = sim.run(node, async move {
        let (log, report) = open(config.clone(), OpenMode::Unclean).await;
        assert_eq!((report.cut, log.log_start(), log.log_end()), (None, 0, 31));
        let found = contents(&log).await;
        let again = open(config, OpenMode::Unclean).await.0;
        assert_eq!(contents(&again).await, found, "opening twice finds the same");
        found
    });
    assert_eq!(sim.panics(), 0);
    let last: Vec<_> = found.iter().filter(|(offset, ..)| *offset >= 21).cloned().collect();
    assert_eq!(last, expected, "seed {seed}, operation {nth}, power cut {cut_power}");
    match found.len() {
        31 => seen.untouched += 1,
        10 => seen.whole += 1,
        _ => seen.partly += 1,
    }
    !over.get()
}

/// contract L9: the exchange is idempotent under a crash at any of its disk operations, and another one in recovery.
#[test]
fn a_round_can_be_cut_short_at_every_disk_operation() {
    const OPERATIONS_MAX: u64 = 1_000;
    let mut seen = Seen::default();
    for (seed, cut_power) in [(1, true), (2, true), (3, false)] {
        let ended = (1..OPERATIONS_MAX).find(|&nth| !end_round_at(seed, nth, cut_power, &mut seen));
        assert!(ended.is_some_and(|nth| nth > 40), "{ended:?}");
    }
    let Seen { untouched, partly, whole, half_swapped } = seen;
    let each = [untouched, partly, whole, half_swapped];
    assert!(each.iter().all(|&count| count > 8), "not before, during and after the round: {each:?}");
}
