//! Several logs of one directory that are flushed at once, with power cuts at any moment (contract L8): whatever the
//! device is, what was acknowledged as durable is there afterwards.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::fs::DeviceSync;
use heizer_runtime::sim::{DiskFaults, Sim};
use heizer_runtime::{random, task, time};

use super::*;
use crate::config::Level;
use crate::flush::FlushCounts;

const LOGS: usize = 6;
const LIVES: u64 = 3;

/// One log's batches, and how many of them were acknowledged.
#[derive(Default)]
struct Known {
    batches: Vec<Bytes>,
    acked: usize,
    /// Batches below are gone by retention, or about to.
    kept_from: usize,
}

#[derive(Default)]
struct Shared {
    logs: [Known; LOGS],
    counts: FlushCounts,
}

type Model = Rc<RefCell<Shared>>;

fn config(seed: u64) -> LogConfig {
    let segment_bytes = [30_000, 200_000, 1 << 20][usize::try_from(seed / 3 % 3).unwrap()];
    LogConfig { segment_bytes, index_interval_bytes: 1000, retention_bytes: -1, ..LogConfig::default() }
}

async fn open_all(home: &Rc<LogDir>, seed: u64) -> Vec<Rc<Log>> {
    let mut logs = Vec::new();
    for at in 0..LOGS {
        let opened = Log::open(home, &format!("topic-{at}"), TOPIC_ID, config(seed), OpenMode::Unclean).await;
        logs.push(opened.expect("open").0);
    }
    logs
}

/// A batch of the `at`th of these and of any size, some of them such that the log ends with a block.
fn next_batch(log: &Log, at: usize) -> BatchSpec {
    let bytes = log.segments().last().map_or(0, |active| active.bytes);
    let overhead = BatchSpec { value: vec![0; 200], ..BatchSpec::default() }.bytes().len() - 200;
    let to_block = usize::try_from(bytes.next_multiple_of(4096) - bytes).unwrap();
    let len = match random::below(6) {
        0 if to_block > overhead + 200 => to_block - overhead,
        1 => usize::try_from(random::below(9_000)).unwrap(),
        _ => usize::try_from(random::below(900)).unwrap(),
    };
    let mut value = vec![u8::try_from(at % 251).unwrap(); len.max(8)];
    value[..8].copy_from_slice(&at.to_be_bytes());
    BatchSpec { value, ..BatchSpec::default() }
}

/// Appends and waits, for ever.
async fn append_for_ever(log: Rc<Log>, which: usize, model: Model) {
    loop {
        let at = model.borrow().logs[which].batches.len();
        let spec = next_batch(&log, at);
        let info = log.append(&spec.bytes(), 0, AppendOrigin::Client, 1000).expect("append");
        model.borrow_mut().logs[which].batches.push(stored(&spec, info.base_offset, 0));
        let end = info.last_offset + 1;
        if random::below(4) > 0 {
            log.wait_end_at(Level::Durable, end).await.expect("durable");
            let mut model = model.borrow_mut();
            let acked = &mut model.logs[which].acked;
            *acked = (*acked).max(usize::try_from(end).unwrap());
        }
        if random::below(30) == 0 {
            retain(&log, which, &model).await;
        }
        if random::below(8) == 0 {
            time::sleep(Duration::from_micros(random::below(3_000))).await;
        }
    }
}

async fn retain(log: &Log, which: usize, model: &Model) {
    let watermark = log.end_at(Level::Durable);
    model.borrow_mut().logs[which].kept_from = usize::try_from(watermark).unwrap();
    log.set_config(LogConfig { retention_bytes: 100_000, ..log.config() });
    log.apply_retention(0, watermark).await.expect("retention");
    model.borrow_mut().logs[which].kept_from = usize::try_from(log.log_start()).unwrap();
}

async fn live(seed: u64, model: Model) {
    let home = home(64 << 10);
    for (which, log) in open_all(&home, seed).await.into_iter().enumerate() {
        check(&log, which, &model).await;
        drop(task::spawn(append_for_ever(log, which, model.clone())));
    }
    loop {
        time::sleep(Duration::from_millis(1)).await;
        model.borrow_mut().counts = home.flush_counts();
    }
}

/// What was acknowledged is there, and nothing but what was appended.
async fn check(log: &Log, which: usize, model: &Model) {
    let (start, end) = (usize::try_from(log.log_start()).unwrap(), usize::try_from(log.log_end()).unwrap());
    {
        let mut model = model.borrow_mut();
        let known = &mut model.logs[which];
        assert!(end >= known.acked, "log {which} ends at {end}, acknowledged {}", known.acked);
        assert!(start <= known.kept_from, "log {which} starts at {start}");
        assert!(end <= known.batches.len());
        known.batches.truncate(end);
        (known.acked, known.kept_from) = (end, start);
    }
    let read = read_all(log, 50_000).await;
    assert_eq!(read, model.borrow().logs[which].batches[start..].concat(), "log {which}");
}

fn run_seed(seed: u64, device: DeviceSync) -> (u64, FlushCounts) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    sim.set_device_sync(node, device);
    sim.run(node, make_data_dir());
    let model = Model::default();
    let mut total = FlushCounts::default();
    for life in 0..LIVES {
        let lived = model.clone();
        sim.start(node, move || live(seed, lived.clone()));
        sim.run_for(Duration::from_micros(30_000 + seed * 7919 % 150_000 + life * 1000));
        sim.crash(node);
        let counts = std::mem::take(&mut model.borrow_mut().counts);
        total.by_file += counts.by_file;
        total.shared += counts.shared;
        total.by_nothing += counts.by_nothing;
        total.device_flushes += counts.device_flushes;
    }
    let last = model.clone();
    sim.run(node, async move {
        let home = home(64 << 10);
        for (which, log) in open_all(&home, seed).await.into_iter().enumerate() {
            check(&log, which, &last).await;
        }
    });
    assert_eq!(sim.panics(), 0);
    let acked = model.borrow().logs.iter().map(|log| log.acked as u64).sum();
    (acked, total)
}

fn run_seeds(seeds: u64, device: DeviceSync) -> FlushCounts {
    let (mut acked, mut counts) = (0, FlushCounts::default());
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run_seed(seed, device));
        let Ok((of_seed, made)) = outcome else { panic!("seed {seed}, {device:?}") };
        acked += of_seed;
        counts.by_file += made.by_file;
        counts.shared += made.shared;
        counts.by_nothing += made.by_nothing;
        counts.device_flushes += made.device_flushes;
    }
    assert!(acked > 100 * seeds, "{acked} acknowledged batches prove nothing");
    counts
}

/// contract L8, DESIGN §4
#[test]
fn what_shared_a_flush_survives_power_cuts() {
    let counts = run_seeds(60, DeviceSync::SharedFlush);
    assert!(counts.shared > counts.by_file, "{counts:?}");
    assert!(counts.device_flushes < counts.shared && counts.by_nothing == 0, "{counts:?}");
}

/// contract L8
#[test]
fn what_needed_no_flush_survives_power_cuts() {
    let counts = run_seeds(60, DeviceSync::NoCache);
    assert!(counts.by_nothing > counts.by_file && counts.device_flushes == 0, "{counts:?}");
}

/// contract L8
#[test]
fn what_each_file_synced_survives_power_cuts() {
    let counts = run_seeds(30, DeviceSync::PerFile);
    assert!(counts.by_file > 0 && counts.shared == 0 && counts.by_nothing == 0, "{counts:?}");
}

/// A failed sync is final for what it was to cover.
#[test]
fn a_failed_flush_of_the_device_fails_the_logs_that_joined_it() {
    let mut sim = Sim::new(3);
    let node = sim.node(1);
    sim.set_device_sync(node, DeviceSync::SharedFlush);
    sim.run(node, make_data_dir());
    let (home, logs) = sim.run(node, async {
        let home = home(64 << 10);
        let logs = open_all(&home, 6).await;
        for _ in 0..12 {
            for log in &logs {
                append(log, &BatchSpec::default());
            }
            for log in &logs {
                log.flush().await.expect("flush");
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        (home, logs)
    });
    let before = home.flush_counts();
    assert!(before.shared > 0, "{before:?}");
    sim.set_disk_faults(node, DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
    let failed = sim.run(node, async move {
        let ends: Vec<i64> =
            logs.iter().map(|log| append(log, &BatchSpec::default()).last_offset + 1).collect();
        let mut failed = 0;
        for (log, end) in logs.iter().zip(ends) {
            // Those that synced their own file are not concerned: its sync is part of the write.
            if log.wait_end_at(Level::Durable, end).await.is_err() {
                assert!(log.failed().is_some() && log.end_at(Level::Durable) < end);
                failed += 1;
            }
        }
        failed
    });
    assert_eq!(failed, home.flush_counts().shared - before.shared);
    assert!(failed > 0);
}
