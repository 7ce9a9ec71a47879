//! Files that serve again, and files made ahead (DESIGN §5).

use std::time::Duration;

use heizer_runtime::fs::DeviceSync;
use heizer_runtime::sim::{DiskFaults, Sim};
use heizer_runtime::{host, time};

use super::*;
use crate::config::Level;

const SEGMENT_BYTES: u32 = 100_000;

fn config() -> LogConfig {
    LogConfig { retention_bytes: 150_000, retention_ms: -1, ..small(SEGMENT_BYTES) }
}

fn spec(bytes: usize) -> BatchSpec {
    BatchSpec { value: vec![7; bytes], ..BatchSpec::default() }
}

async fn names(suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(DIR)).await.expect("list");
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
}

/// Appends `count` batches of a size that is no part of a block, and waits for each.
async fn fill(log: &Log, count: usize) {
    for _ in 0..count {
        let info = append(log, &spec(5_000));
        log.wait_end_at(Level::Durable, info.last_offset + 1).await.expect("durable");
    }
}

/// Fills segments until retention has made a spare, and none is in use yet.
async fn with_a_spare() -> Rc<Log> {
    let log = create(config()).await;
    fill(&log, 70).await;
    log.apply_retention(1000, log.log_end()).await.expect("retention");
    assert!(!names(".recycled").await.is_empty());
    log
}

#[test]
fn a_removed_segment_becomes_the_file_of_a_later_one_and_reads_as_that() {
    let mut sim = Sim::new(1);
    let node = sim.node(1);
    sim.set_device_sync(node, DeviceSync::SharedFlush);
    sim.run(node, async {
        let log = with_a_spare().await;
        let spares = names(".recycled").await;
        let before = log.segments().len();
        while log.segments().len() < before + 3 {
            fill(&log, 1).await;
        }
        time::sleep(Duration::from_millis(500)).await;
        assert!(spares.len() <= 2 && names(".recycled").await.is_empty(), "they are in use");
        let (from, to) = (log.log_start(), log.log_end());
        let size = spec(5_000).bytes().len();
        let read = read_all(&log, 30_000).await;
        assert_eq!(read.len(), usize::try_from(to - from).unwrap() * size);
        log.close().await.expect("close");
        let (log, report) = open(config(), OpenMode::Clean).await;
        assert_eq!((report.log_start, report.log_end, report.cut), (from, to, None));
        assert_eq!(read_all(&log, 30_000).await, read);
    });
}

/// contract L8: what a file held before it served its segment is no damage, wherever the log ends.
#[test]
fn old_bytes_behind_the_end_are_neither_records_nor_a_cut() {
    let mut recycled = 0;
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let (log, end, in_use) = sim.run(node, async move {
            let log = with_a_spare().await;
            let spares = names(".recycled").await.len();
            let before = log.segments().len();
            while log.segments().len() == before {
                fill(&log, 1).await;
            }
            // The log ends with a block, or close before one, every other time.
            let bytes = log.segments().last().expect("active").bytes;
            let overhead = spec(200).bytes().len() - 200;
            let rest = usize::try_from((bytes + 3_000).next_multiple_of(4096) - bytes).unwrap();
            let rest = rest - usize::try_from(seed / 2 % 3).unwrap() * 30;
            let info = append(&log, &spec(if seed % 2 == 0 { rest - overhead } else { 777 }));
            log.wait_end_at(Level::Durable, info.last_offset + 1).await.expect("durable");
            let in_use = names(".recycled").await.len() < spares;
            (log, info.last_offset + 1, in_use)
        });
        sim.crash(node);
        drop(log);
        sim.run(node, async move {
            let (log, report) = open(config(), OpenMode::Unclean).await;
            assert_eq!((report.log_end, &report.cut), (end, &None), "seed {seed}");
            assert!(names(".recycled").await.is_empty() && names(".spare").await.is_empty());
            fill(&log, 3).await;
            assert_eq!(log.log_end(), end + 3);
        });
        recycled += usize::from(in_use);
    }
    assert!(recycled > 30, "{recycled} of 40 wrote into a file that had served before");
}

/// DESIGN §5: a truncation gives offsets anew, and no file may hold bytes that lie above them.
#[test]
fn truncations_and_restarts_take_the_spares_with_them() {
    for full in [false, true] {
        sim_block_on(async move {
            let log = with_a_spare().await;
            match full {
                true => log.truncate_fully_and_start_at(5).await.expect("restart"),
                false => log.truncate_to(log.log_end() - 3).await.expect("truncate"),
            }
            assert!(names(".recycled").await.is_empty() && names(".spare").await.is_empty());
            fill(&log, 40).await;
            log.close().await.expect("close");
        });
    }
}

#[test]
fn a_log_that_is_no_longer_in_a_hurry_gives_its_spares_up() {
    sim_block_on(async {
        let log = with_a_spare().await;
        let later_ms = 3_600_000;
        log.apply_retention(later_ms, log.log_end()).await.expect("retention");
        assert!(names(".recycled").await.is_empty());
    });
}

#[test]
fn spares_are_given_up_where_space_is_short() {
    let mut sim = Sim::new(1);
    let node = sim.node(1);
    let log = sim.run(node, with_a_spare());
    sim.set_disk_faults(node, DiskFaults { capacity_bytes: 100 << 10, ..DiskFaults::default() });
    sim.run(node, async move {
        log.home.space().set_reserve(50 << 10).await.expect("a healthy disk");
        log.home.space().look().await.expect("a healthy disk");
        assert!(log.home.space().is_refusing());
        log.apply_retention(1000, log.log_end()).await.expect("retention");
        assert!(names(".recycled").await.is_empty() && names(".spare").await.is_empty());
    });
}

#[test]
fn a_compacted_log_keeps_no_spares() {
    sim_block_on(async {
        let log = create(LogConfig { cleanup_compact: true, ..config() }).await;
        fill(&log, 70).await;
        assert!(log.apply_retention(1000, log.log_end()).await.expect("retention") > 0);
        assert!(names(".recycled").await.is_empty());
    });
}

#[test]
fn the_file_of_the_next_segment_is_made_ahead_and_used() {
    sim_block_on(async {
        let log = create(LogConfig { retention_bytes: -1, ..config() }).await;
        // Spares are judged by the clock, so time has to be that of the appends.
        let now_ms = time::wall_clock_ms();
        let append =
            |log: &Log| log.append(&spec(5_000).bytes(), 0, AppendOrigin::Client, now_ms).expect("append");
        append(&log);
        log.flush().await.expect("flush");
        while names(".spare").await.is_empty() {
            assert_eq!(log.segments().len(), 1, "it comes before the roll");
            append(&log);
            log.flush().await.expect("flush");
            time::sleep(Duration::from_millis(20)).await;
        }
        assert!(log.segments()[0].bytes >= u64::from(SEGMENT_BYTES) / 4 * 3);
        while log.segments().len() == 1 {
            append(&log);
        }
        log.flush().await.expect("flush");
        assert!(names(".spare").await.is_empty(), "it has got its segment's name");
    });
}

/// A write waits for a seal only when too many segments are behind.
#[test]
fn writes_go_on_while_a_segment_is_sealed() {
    let mut overtaken = 0;
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        overtaken += sim.run(node, async {
            let log = create(config()).await;
            fill(&log, 10).await;
            log.roll(0);
            let info = append(&log, &spec(100));
            log.wait_end_at(Level::Durable, info.last_offset + 1).await.expect("durable");
            let ahead = u32::from(!log.segments()[0].sealed);
            log.close().await.expect("close");
            assert!(log.segments().iter().all(|segment| segment.sealed), "close waits for it");
            ahead
        });
    }
    assert!(overtaken > 0);
}

/// The same on real files, with whatever device there is under them.
#[test]
fn files_serve_again_on_a_real_disk() {
    let data_dir = tempfile::tempdir().expect("a directory");
    let dir = data_dir.path().to_owned();
    let outcome = host::block_on(move || {
        let dir = dir.clone();
        async move {
            let home = LogDir::new(&dir, StorageContext::new(StorageLimits::default()));
            let opened = Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await;
            let log = opened.expect("start").0;
            for _ in 0..15 {
                fill(&log, 20).await;
                log.apply_retention(1000, log.log_end()).await.expect("retention");
            }
            let (from, to) = (log.log_start(), log.log_end());
            let expected = usize::try_from(to - from).unwrap() * spec(5_000).bytes().len();
            assert_eq!(read_all(&log, 50_000).await.len(), expected);
            drop(log);
            let opened = Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await;
            let (log, report) = opened.expect("open");
            assert_eq!((report.log_start, report.log_end, report.cut), (from, to, None));
            assert_eq!(read_all(&log, 50_000).await.len(), expected);
            log.close().await.expect("close");
        }
    });
    outcome.expect("a core");
}

fn sim_block_on(future: impl Future<Output = ()> + 'static) {
    heizer_runtime::sim::block_on(7, future);
}
