//! A disk that fills up: refused early where there is a reserve, waited for where there is none, and nothing lost,
//! doubled or out of order either way.

use std::cell::RefCell;
use std::time::Duration;

use heizer_runtime::sim::{DiskFaults, NodeId, Sim};
use heizer_runtime::{random, task, time};

use super::*;
use crate::config::Level;
use crate::error::{AppendError, StorageError};

const KIB: u64 = 1 << 10;

fn capacity(sim: &mut Sim, node: NodeId, capacity_bytes: u64) {
    sim.set_disk_faults(node, DiskFaults { capacity_bytes, ..DiskFaults::default() });
}

/// What a test has appended, in order, and how much of it was durable at some time.
#[derive(Default)]
struct Model {
    values: Vec<Vec<u8>>,
    durable: usize,
    refused: usize,
}

type Shared = Rc<RefCell<Model>>;

impl Model {
    /// The next batch of an idempotent producer, one record a batch.
    fn next(&self) -> BatchSpec {
        let number = self.values.len();
        let mut value = number.to_le_bytes().to_vec();
        value.resize(100 + number * 37 % 3_000, b'v');
        BatchSpec {
            producer_id: 5,
            producer_epoch: 0,
            base_sequence: i32::try_from(number).expect("a test's worth"),
            value,
            ..BatchSpec::default()
        }
    }

    /// The log holds this much of what was appended, byte by byte.
    async fn check(model: &Shared, log: &Log) {
        let end = usize::try_from(log.log_end()).expect("offsets are not negative");
        let bytes = Bytes::from(read_all(log, 5_000).await);
        let mut model = model.borrow_mut();
        assert!(end >= model.durable, "{end} of {} durable records are left", model.durable);
        assert!(end <= model.values.len());
        model.values.truncate(end);
        let mut found = Vec::new();
        if bytes.is_empty() {
            assert_eq!(log.log_start(), log.log_end());
            return;
        }
        for (header, range) in crate::batch::split(&bytes).expect("whole batches") {
            assert!(crate::batch::crc_matches(&header, &bytes[range.clone()]));
            found.push((header.base_offset, header.base_sequence, bytes.slice(range)));
        }
        let first = usize::try_from(log.log_start()).expect("offsets are not negative");
        assert_eq!(found.len(), end - first);
        for (at, (offset, sequence, batch)) in (first..).zip(found) {
            assert_eq!((offset, sequence), (at as i64, at as i32), "nothing lost, doubled or out of order");
            let value = &model.values[at];
            assert!(batch.windows(value.len()).any(|window| window == value), "record {at} is another's");
        }
    }
}

/// Appends one batch after the other until the log refuses, and notes what becomes durable. Not all at once: what may
/// be in memory is bounded by who appends.
async fn fill(log: &Rc<Log>, model: &Shared) {
    const UNWRITTEN_MAX: usize = 30;
    loop {
        while model.borrow().values.len() - model.borrow().durable > UNWRITTEN_MAX
            && !log.home.space().is_refusing()
        {
            time::sleep(Duration::from_micros(100)).await;
        }
        let spec = model.borrow().next();
        match log.append(&spec.bytes(), 0, AppendOrigin::Client, 1000) {
            Ok(info) => {
                assert_eq!(info.base_offset, model.borrow().values.len() as i64);
                model.borrow_mut().values.push(spec.value);
                note_durable(log, model, info.last_offset + 1);
            }
            Err(AppendError::NoSpace) => {
                model.borrow_mut().refused += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        }
        time::sleep(Duration::from_micros(random::below(400))).await;
    }
}

/// As a request with acks=all does.
fn note_durable(log: &Rc<Log>, model: &Shared, end: i64) {
    let (log, model) = (log.clone(), model.clone());
    drop(task::spawn(async move {
        if log.wait_end_at(Level::Durable, end).await.is_ok() {
            let mut model = model.borrow_mut();
            model.durable = model.durable.max(usize::try_from(end).expect("not negative"));
        }
    }));
}

async fn taken_again(log: &Log) {
    let deadline = time::now() + Duration::from_secs(120);
    while log.home.space().is_refusing() {
        assert!(time::now() < deadline, "still refusing: {:?}", log.home.space().status());
        time::sleep(Duration::from_millis(10)).await;
    }
}

async fn open_with_reserve(reserve: Option<u64>) -> Rc<Log> {
    make_data_dir().await;
    let home = home(64 << 10);
    if let Some(reserve) = reserve {
        home.space().set_reserve(reserve).await.expect("a healthy disk");
    }
    let opened = Log::open(&home, NAME, TOPIC_ID, small(50_000), OpenMode::Unclean).await;
    opened.expect("open").0
}

#[test]
fn a_log_on_a_full_disk_waits_and_goes_on_without_being_opened_again() {
    for seed in 0..6 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Shared::default();
        capacity(&mut sim, node, 300 * KIB);
        let (log, filling) = sim.run(node, {
            let model = model.clone();
            async move {
                let log = open_with_reserve(None).await;
                fill(&log, &model).await;
                assert!(log.home.space().is_starving() && log.failed().is_none());
                (log, model)
            }
        });
        for more in 1..4 {
            let (written, held) = (filling.borrow().durable, filling.borrow().values.len());
            assert!(written < held, "seed {seed}: what the disk did not take waits in memory");
            sim.run_for(Duration::from_secs(5));
            assert_eq!(filling.borrow().durable, written, "no space, no progress");
            capacity(&mut sim, node, (300 + 1_600 * more) * KIB);
            let (log, model) = (log.clone(), model.clone());
            sim.run(node, async move {
                log.flush().await.expect("there is space");
                assert_eq!(log.end_at(Level::Durable), held as i64);
                taken_again(&log).await;
                fill(&log, &model).await;
            });
        }
        capacity(&mut sim, node, 1 << 30);
        let model = model.clone();
        sim.run(node, async move {
            log.flush().await.expect("there is space");
            assert_eq!(log.log_end(), model.borrow().values.len() as i64);
            assert!(log.sizes().segments > 50 && model.borrow().refused == 4);
            Model::check(&model, &log).await;
            log.close().await.expect("closed in good order");
            let (log, report) = open(small(50_000), OpenMode::Clean).await;
            assert_eq!((report.cut, report.scanned_bytes), (None, 0));
            Model::check(&model, &log).await;
            assert_eq!(log.producer_count(), 1);
            let next = model.borrow().next();
            assert_eq!(append(&log, &next).base_offset, model.borrow().values.len() as i64);
        });
        assert_eq!(sim.panics(), 0);
    }
}

#[test]
fn nothing_durable_is_lost_when_power_or_process_go_on_a_full_disk() {
    let mut durable = 0;
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Shared::default();
        // Half of the runs are refused before the disk is full.
        let reserve = (seed % 2 == 0).then_some(100 * KIB);
        for life in 0..4 {
            capacity(&mut sim, node, (400 + 400 * life) * KIB);
            let (model, start) = (model.clone(), Rc::new(RefCell::new(Some(model.clone()))));
            sim.run(node, async move {
                let log = open_with_reserve(reserve).await;
                Model::check(&model, &log).await;
            });
            sim.kill(node);
            sim.start(node, move || {
                let model = start.borrow_mut().take();
                async move {
                    let Some(model) = model else { return };
                    let log = open_with_reserve(reserve).await;
                    loop {
                        fill(&log, &model).await;
                        time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
            sim.run_for(Duration::from_millis(100 + seed * 7919 % 3_000));
            if seed % 3 == 0 { sim.kill(node) } else { sim.crash(node) }
        }
        durable += model.borrow().durable;
        assert!(model.borrow().refused > 0, "seed {seed}: the disk was never full");
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
    assert!(durable > 5_000, "{durable} records prove nothing");
}

#[test]
fn writes_refused_at_random_are_tried_again_step_by_step() {
    for seed in 0..30 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Shared::default();
        let log = sim.run(node, open_with_reserve(None));
        let faults = DiskFaults { no_space_ppm: 150_000, ..DiskFaults::default() };
        sim.set_disk_faults(node, faults);
        sim.run(node, {
            let (log, model) = (log.clone(), model.clone());
            async move {
                for _ in 0..30 {
                    fill(&log, &model).await;
                    if random::below(4) == 0 {
                        log.roll(2_000);
                    }
                    taken_again(&log).await;
                }
                log.flush().await.expect("in the end");
            }
        });
        sim.set_disk_faults(node, DiskFaults::default());
        sim.run(node, async move {
            Model::check(&model, &log).await;
            log.close().await.expect("closed in good order");
            let left = fs::read_dir(Path::new(DIR)).await.expect("list");
            assert!(left.iter().all(|entry| !entry.name.ends_with(".tmp")), "{left:?}");
            let count = |suffix| left.iter().filter(|entry| entry.name.ends_with(suffix)).count();
            let sealed = log.segments().len();
            assert_eq!([count(".log"), count(".index"), count(".timeindex")], [sealed; 3]);
            // One of an empty segment has the name of the one before.
            let ends = log.segments().iter().filter(|segment| segment.bytes > 0).count();
            assert_eq!(count(".snapshot"), ends, "a seal tried again has its snapshot");
            let (log, report) = open(small(50_000), OpenMode::Clean).await;
            assert_eq!((report.cut, report.scanned_bytes), (None, 0));
            Model::check(&model, &log).await;
        });
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
}

#[test]
fn below_the_reserve_clients_are_refused_and_the_broker_itself_may_use_half_of_it() {
    let mut sim = Sim::new(7);
    let node = sim.node(1);
    capacity(&mut sim, node, 4_096 * KIB);
    let model = Shared::default();
    sim.run(node, async move {
        let log = open_with_reserve(Some(1_024 * KIB)).await;
        let space = log.home.space().clone();
        fill(&log, &model).await;
        log.flush().await.expect("nothing is at its end");
        space.look().await.expect("a healthy disk");
        let free = space.status().free_bytes;
        assert!((900 * KIB..1_100 * KIB).contains(&free), "{free} bytes are left");
        // What is in the log already is told, for it needs no space (contract T1).
        let end = model.borrow().values.len();
        let mut again = model.borrow().next();
        (again.base_sequence, again.value) = (end as i32 - 1, model.borrow().values[end - 1].clone());
        assert!(append(&log, &again).duplicate);
        let own = |bytes: usize| {
            let spec = BatchSpec { value: vec![b'o'; bytes], ..BatchSpec::default() };
            log.append(&spec.bytes(), 0, AppendOrigin::Coordinator, 0).map(|_| ())
        };
        let mut appended = 0;
        while own(10_000).is_ok() {
            appended += 10_000;
            log.flush().await.expect("nothing is at its end");
        }
        assert!((300_000..600_000).contains(&appended), "{appended} bytes of half a reserve");
        // Deleting goes on, and brings back who was refused.
        log.delete_records(log.log_end()).await.expect("a few bytes");
        log.apply_retention(2_000, log.log_end()).await.expect("retention");
        taken_again(&log).await;
        append(&log, &BatchSpec::default());
    });
}

#[test]
fn what_is_appended_at_once_leaves_the_reserve_too() {
    let mut sim = Sim::new(10);
    let node = sim.node(1);
    capacity(&mut sim, node, 4_096 * KIB);
    sim.run(node, async move {
        let log = open_with_reserve(Some(1_024 * KIB)).await;
        let spec = BatchSpec { value: vec![b'v'; 10_000], ..BatchSpec::default() };
        let mut appended = 0;
        while log.append(&spec.bytes(), 0, AppendOrigin::Client, 0).is_ok() {
            appended += spec.bytes().len() as u64;
        }
        assert!((2_500 * KIB..3_072 * KIB).contains(&appended), "{appended} bytes without a look");
        log.flush().await.expect("all of it has room");
    });
}

#[test]
fn the_reserve_is_no_more_than_a_quarter_of_the_file_system() {
    let mut sim = Sim::new(8);
    let node = sim.node(1);
    capacity(&mut sim, node, 1_000 * KIB);
    sim.run(node, async {
        make_data_dir().await;
        let reserve = home(0).space().set_reserve(u64::MAX).await.expect("a healthy disk");
        assert_eq!((reserve.bytes, reserve.total_bytes), (250 * KIB, 1_000 * KIB));
    });
}

#[test]
fn while_appends_are_refused_no_space_is_reserved_ahead() {
    let mut sim = Sim::new(9);
    let node = sim.node(1);
    capacity(&mut sim, node, 8_192 * KIB);
    let log = sim.run(node, async {
        make_data_dir().await;
        let home = home(64 << 10);
        home.space().set_reserve(1_024 * KIB).await.expect("a healthy disk");
        let opened = Log::open(&home, NAME, TOPIC_ID, small(1 << 30), OpenMode::Unclean).await;
        let log = opened.expect("open").0;
        for _ in 0..100 {
            append(&log, &BatchSpec { value: vec![b'v'; 5_000], ..BatchSpec::default() });
            log.flush().await.expect("flush");
        }
        let file = fs::read_dir(Path::new(DIR)).await.expect("list").remove(0);
        assert!(file.len > log.sizes().bytes + 100 * KIB, "reserved ahead: {file:?}");
        log
    });
    // Somebody else takes what there is.
    capacity(&mut sim, node, 1_500 * KIB);
    sim.run(node, async move {
        log.home.space().look().await.expect("a healthy disk");
        assert!(log.home.space().is_refusing());
        time::sleep(Duration::from_millis(100)).await;
        let file = fs::read_dir(Path::new(DIR)).await.expect("list").remove(0);
        assert_eq!(file.len, log.sizes().bytes.next_multiple_of(4096), "an idle log gives back");
        assert_eq!(read_all(&log, 10_000).await.len() as u64, log.sizes().bytes);
    });
}

/// contract L6
#[test]
fn retention_frees_a_disk_that_is_full_to_the_brim() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Shared::default();
        capacity(&mut sim, node, 500 * KIB);
        sim.run(node, async move {
            let log = open_with_reserve(None).await;
            fill(&log, &model).await;
            assert!(log.home.space().is_starving());
            log.set_config(LogConfig { retention_bytes: 60_000, ..small(50_000) });
            let freed = log.apply_retention(1_000, log.end_at(Level::Durable)).await.expect("retention");
            assert!(freed > 0, "{freed} segments");
            log.flush().await.expect("there is space");
            taken_again_or_small(&log).await;
            model.borrow_mut().durable = 0;
            Model::check(&model, &log).await;
        });
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
}

/// A disk as small as these is not taken again by the hysteresis of a megabyte.
async fn taken_again_or_small(log: &Log) {
    assert!(!log.home.space().is_starving(), "what was refused is written");
}

#[test]
fn the_last_trace_of_the_log_end_stays_while_there_is_no_space_for_another() {
    let mut sim = Sim::new(11);
    let node = sim.node(1);
    let log = sim.run(node, async {
        let log = create(small(50_000)).await;
        for _ in 0..10 {
            append(&log, &BatchSpec { value: vec![b'v'; 30_000], ..BatchSpec::default() });
        }
        log.flush().await.expect("flush");
        log
    });
    sim.set_disk_faults(node, DiskFaults { no_space_ppm: 1_000_000, ..DiskFaults::default() });
    sim.run(node, async move {
        log.set_config(LogConfig { retention_ms: 0, ..small(50_000) });
        assert_eq!(log.apply_retention(1 << 40, 10).await.expect("retention"), 9, "all but the last file");
        assert_eq!((log.log_start(), log.log_end()), (9, 10));
    });
    sim.crash(node);
    sim.set_disk_faults(node, DiskFaults::default());
    sim.run(node, async {
        let (log, _) = open(small(50_000), OpenMode::Unclean).await;
        assert_eq!(log.log_end(), 10, "the log end is known");
    });
}

#[test]
fn deleting_and_closing_do_not_wait_for_space() {
    for closed in [false, true] {
        let mut sim = Sim::new(12);
        let node = sim.node(1);
        let model = Shared::default();
        capacity(&mut sim, node, 300 * KIB);
        sim.run(node, async move {
            let log = open_with_reserve(None).await;
            fill(&log, &model).await;
            let ended = async {
                if closed {
                    let error = log.close().await.expect_err("not all is written");
                    assert!(matches!(error, StorageError::Full { .. }), "{error}");
                } else {
                    log.delete().await.expect("deleted");
                    assert!(!fs::exists(Path::new(DIR)).await.expect("known"));
                }
            };
            time::timeout(Duration::from_secs(1), ended).await.expect("at once");
            if closed {
                // As after a crash.
                let (log, _) = open(small(50_000), OpenMode::Unclean).await;
                Model::check(&model, &log).await;
            }
        });
        assert_eq!(sim.panics(), 0);
    }
}

#[test]
fn a_failed_sync_is_final_even_when_it_says_that_there_is_no_space() {
    let no_space = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = |action| StorageError::Io { path: DIR.into(), action, source: no_space() };
    assert!(error("write").is_no_space() && error("create").is_no_space());
    assert!(!error("sync").is_no_space() && !error("flush the device of").is_no_space());
}

#[test]
fn the_same_seed_gives_the_same_schedule_on_a_full_disk() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Shared::default();
        capacity(&mut sim, node, 300 * KIB);
        let log = sim.run(node, async move {
            let log = open_with_reserve(Some(50 * KIB)).await;
            fill(&log, &model).await;
            log
        });
        sim.run_for(Duration::from_secs(3));
        capacity(&mut sim, node, 10_000 * KIB);
        sim.run(node, async move { taken_again(&log).await });
        sim.schedule_hash()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
