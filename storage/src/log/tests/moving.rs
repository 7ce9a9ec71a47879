//! Logs on their way to another data directory, with writers, power cuts and devices that die at any moment.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use heizer_runtime::sim::{NodeId, Sim};
use heizer_runtime::{random, task, time};

use super::*;
use crate::census::{DirListing, LogCopy, NoteKind, Whereabouts, remove_log, whereabouts};
use crate::config::Level;
use crate::error::AppendError;
use crate::log::{CopyBudget, Place, RelocateError, Relocation, remove_deleted};

const DIRS: [&str; 2] = ["/disk0", "/disk1"];
const UNLIMITED: u64 = u64::MAX;

fn id(at: usize) -> [u8; 16] {
    [u8::try_from(at).expect("small") + 1; 16]
}

fn homes() -> [Rc<LogDir>; 2] {
    let limits = StorageLimits { tail_cache_max: 64 << 10, index_cache_max: 2048, open_files_max: 3 };
    let ctx = StorageContext::new(limits);
    DIRS.map(|dir| LogDir::new(Path::new(dir), ctx.clone()))
}

async fn make_dirs() {
    for dir in DIRS {
        fs::create_dir_all(Path::new(dir)).await.expect("made");
    }
    fs::sync_dir(Path::new("/")).await.expect("synced");
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 500, ..LogConfig::default() }
}

/// What was appended, in order, and how far it was acknowledged as durable.
#[derive(Default)]
struct Model {
    /// End offset and bytes of each batch.
    batches: Vec<(i64, Bytes)>,
    acked: i64,
    sequence: i32,
}

type Shared = Rc<RefCell<Model>>;

/// The log that takes appends now.
type Current = Rc<RefCell<Rc<Log>>>;

/// Appends one batch of an idempotent producer; `Err` when the log takes none now.
fn append_one(log: &Rc<Log>, model: &Shared) -> Result<(), AppendError> {
    let (value, sequence) = (vec![7; random::below(3_000) as usize], model.borrow().sequence);
    let spec = BatchSpec {
        value,
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: sequence,
        ..BatchSpec::default()
    };
    let info = log.append(&spec.bytes(), 3, AppendOrigin::Client, 1000)?;
    let mut state = model.borrow_mut();
    assert_eq!(info.base_offset, state.batches.last().map_or(0, |(end, _)| *end), "offsets are continuous");
    let end = info.last_offset + 1;
    state.batches.push((end, stored(&spec, info.base_offset, 3)));
    state.sequence += 1;
    let (log, model) = (log.clone(), model.clone());
    task::spawn(async move {
        if log.wait_end_at(Level::Durable, end).await.is_ok() {
            let mut model = model.borrow_mut();
            model.acked = model.acked.max(end);
        }
    });
    Ok(())
}

/// Appends until told to stop or the log has failed.
async fn write(current: Current, model: Shared, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        let log = current.borrow().clone();
        match append_one(&log, &model) {
            Ok(()) | Err(AppendError::Closed) => {}
            Err(AppendError::Failed(_)) => return,
            Err(error) => panic!("{error}"),
        }
        time::sleep(Duration::from_micros(random::below(3_000))).await;
    }
}

fn move_to(log: &Rc<Log>, homes: &[Rc<LogDir>; 2], at: usize) -> Rc<Relocation> {
    assert!(Rc::ptr_eq(log.home(), &homes[1 - at]));
    Relocation::new(log, id(1 - at), Place { home: homes[at].clone(), id: id(at) })
}

async fn run(moving: &Relocation, current: &Current) -> Result<(), RelocateError> {
    let mut budget = CopyBudget::new(UNLIMITED);
    let current = current.clone();
    moving.run(&mut budget, move |log| *current.borrow_mut() = log).await
}

/// What a start does with the data directories that answer: which one has the log, all leftovers gone.
async fn recover(online: &[usize]) -> Whereabouts {
    let mut copies = Vec::new();
    for &at in online {
        let dir = Path::new(DIRS[at]);
        remove_deleted(dir).await.expect("removed");
        let listing = DirListing::read(dir).await.expect("listed");
        for future in &listing.futures {
            remove_log(dir, future).await.expect("removed");
        }
        if listing.logs.iter().any(|log| log == NAME) {
            let of_kind =
                |kind| listing.notes.iter().find(|note| note.kind == kind).map(|note| note.directory);
            let copy = LogCopy {
                directory: id(at),
                leaving_to: of_kind(NoteKind::Leaving),
                arriving_from: of_kind(NoteKind::Arriving),
            };
            copies.push((at, copy));
        }
    }
    let found: Vec<LogCopy> = copies.iter().map(|(_, copy)| copy.clone()).collect();
    let is_online = |directory: &[u8; 16]| online.iter().any(|at| id(*at) == *directory);
    let decided = match whereabouts(&found, is_online) {
        Whereabouts::At(winner) => Whereabouts::At(copies[winner].0),
        Whereabouts::Nowhere => Whereabouts::Nowhere,
        undecided => return undecided,
    };
    for (at, _) in copies.iter().filter(|(at, _)| decided != Whereabouts::At(*at)) {
        remove_log(Path::new(DIRS[*at]), NAME).await.expect("removed");
    }
    for &at in online {
        for note in DirListing::read(Path::new(DIRS[at])).await.expect("listed").notes {
            note.remove(Path::new(DIRS[at])).await.expect("removed");
        }
    }
    decided
}

/// Everything acknowledged is there, nothing else than what was appended, and producers go on where they were.
async fn check(log: &Rc<Log>, model: &Shared) {
    let end = log.log_end();
    let (expected, acked) = {
        let mut state = model.borrow_mut();
        state.batches.retain(|(batch_end, _)| *batch_end <= end);
        state.sequence = i32::try_from(state.batches.len()).expect("few");
        let expected: Vec<u8> = state.batches.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        (expected, state.acked)
    };
    assert!(end >= acked, "the log ends at {end}, and {acked} was acknowledged");
    assert!(read_all(log, 5_000).await == expected, "not what was appended");
    append_one(log, model).expect("the next sequence fits");
    log.flush().await.expect("flushed");
}

async fn dir_names(dir: &str) -> Vec<String> {
    fs::read_dir(Path::new(dir)).await.expect("listed").into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_log_moves_while_it_is_written_and_read_and_moves_back() {
    for seed in 0..10 {
        heizer_runtime::sim::block_on(seed, async {
            make_dirs().await;
            let homes = homes();
            let (log, _) =
                Log::open(&homes[0], NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
            log.assign_epoch(3);
            let (model, stop) = (Shared::default(), Rc::new(Cell::new(false)));
            for _ in 0..50 {
                append_one(&log, &model).expect("append");
            }
            let current: Current = Rc::new(RefCell::new(log));
            let writer = task::spawn(write(current.clone(), model.clone(), stop.clone()));
            for target in [1, 0] {
                let log = current.borrow().clone();
                run(&move_to(&log, &homes, target), &current).await.expect("moved");
                assert_eq!(dir_names(DIRS[1 - target]).await, Vec::<String>::new(), "nothing is left behind");
                assert_eq!(dir_names(DIRS[target]).await, [NAME]);
                assert!(!Rc::ptr_eq(&log, &current.borrow()) && !log.is_relocating());
                assert_eq!(current.borrow().latest_epoch(), Some(3));
            }
            stop.set(true);
            writer.await.expect("the writer ends");
            let log = current.borrow().clone();
            log.flush().await.expect("flushed");
            assert!(model.borrow().batches.len() > 60, "it was written meanwhile");
            check(&log, &model).await;
        });
    }
}

#[test]
fn what_is_no_batch_moves_too() {
    heizer_runtime::sim::block_on(1, async {
        make_dirs().await;
        let homes = homes();
        let open = async |at: usize, mode| {
            Log::open(&homes[at], NAME, TOPIC_ID, config(), mode).await.expect("open").0
        };
        let log = open(0, OpenMode::Unclean).await;
        log.assign_epoch(2);
        let silent =
            BatchSpec { producer_id: 9, producer_epoch: 1, base_sequence: 0, ..BatchSpec::default() };
        log.append(&silent.bytes(), 2, AppendOrigin::Client, 1000).expect("append");
        for _ in 0..40 {
            log.append(
                &BatchSpec { value: vec![1; 2_000], ..BatchSpec::default() }.records(3).bytes(),
                2,
                AppendOrigin::Client,
                1000,
            )
            .expect("append");
        }
        log.assign_epoch(8);
        log.flush().await.expect("flush");
        // In the middle of a batch, with the silent producer's only batch below it and gone.
        log.delete_records(60).await.expect("deleted");
        log.apply_retention(1000, log.log_end()).await.expect("retention");
        let (start, end, producers) = (log.log_start(), log.log_end(), log.producer_count());
        assert_eq!((start, producers), (60, 1));
        let current: Current = Rc::new(RefCell::new(log.clone()));
        run(&move_to(&log, &homes, 1), &current).await.expect("moved");
        let moved = current.borrow().clone();
        let checks = async |log: &Rc<Log>| {
            assert_eq!((log.log_start(), log.log_end()), (start, end));
            assert_eq!((log.producer_count(), log.latest_epoch()), (1, Some(8)));
            let duplicate = log.append(&silent.bytes(), 8, AppendOrigin::Client, 1000).expect("a duplicate");
            assert!(duplicate.duplicate);
            assert_eq!(log.end_offset_for_epoch(2).map(|found| found.end_offset), Some(end));
            assert!(log.read(60, 10_000, end, true).await.expect("read").bytes > 0);
        };
        checks(&moved).await;
        // The process dies: recovery finds the same.
        drop((moved, current));
        let again = open(1, OpenMode::Unclean).await;
        again.assign_epoch(8);
        checks(&again).await;
        // A log without any data moves as well.
        let (empty, _) =
            Log::open(&homes[0], "empty-0", TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        let current: Current = Rc::new(RefCell::new(empty.clone()));
        run(&move_to(&empty, &homes, 1), &current).await.expect("moved");
        assert_eq!(
            (current.borrow().log_end(), current.borrow().dir()),
            (0, PathBuf::from("/disk1/empty-0"))
        );
    });
}

/// Starts a log with some data and a writer on `/disk0`, and the move to `/disk1`, on a node that is then on its own.
fn start_moving(
    sim: &mut Sim,
    node: NodeId,
    model: &Shared,
    ended: &Rc<RefCell<Option<Result<(), RelocateError>>>>,
) {
    let (model, ended) = (model.clone(), ended.clone());
    sim.run(node, async move {
        make_dirs().await;
        let homes = homes();
        let (log, _) = Log::open(&homes[0], NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        log.assign_epoch(3);
        for _ in 0..random::below(40) {
            append_one(&log, &model).expect("append");
        }
        let current: Current = Rc::new(RefCell::new(log.clone()));
        task::spawn(write(current.clone(), model, Rc::default()));
        task::spawn(async move {
            let outcome = run(&move_to(&log, &homes, 1), &current).await;
            *ended.borrow_mut() = Some(outcome);
        });
    });
}

/// DESIGN: whatever was acknowledged survives, wherever a move is cut short.
#[test]
fn a_power_cut_during_a_move_loses_nothing() {
    let (mut at_source, mut at_target, mut cut_short) = (0, 0, 0);
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let (model, ended) = (Shared::default(), Rc::default());
        start_moving(&mut sim, node, &model, &ended);
        sim.run_for(Duration::from_micros(seed * 1_000));
        cut_short += u32::from(ended.borrow().is_none());
        if seed % 3 == 0 {
            sim.kill(node)
        } else {
            sim.crash(node)
        }
        // And again while the start cleans up.
        if seed % 4 == 0 {
            sim.start(node, || async {
                let _ = recover(&[0, 1]).await;
            });
            sim.run_for(Duration::from_micros(seed * 20));
            sim.crash(node);
        }
        let place = sim.run(node, async move {
            let found = recover(&[0, 1]).await;
            let at = match found {
                Whereabouts::At(at) => at,
                // Nothing was durable yet.
                Whereabouts::Nowhere if model.borrow().acked == 0 => 0,
                other => panic!("seed {seed}: {other:?}"),
            };
            let opened = Log::open(&homes()[at], NAME, TOPIC_ID, config(), OpenMode::Unclean).await;
            check(&opened.expect("open").0, &model).await;
            let other = dir_names(DIRS[1 - at]).await;
            assert!(other.is_empty(), "seed {seed}: {other:?}");
            at
        });
        if place == 0 { at_source += 1 } else { at_target += 1 }
    }
    assert!(at_source > 30 && at_target > 30 && cut_short > 30, "{at_source} {at_target} {cut_short}");
}

/// One of the two devices dies in the middle of a move; writers go on as far as they can. When both are back, all that
/// was acknowledged is there. While the other one is missing, nothing is served that may be stale.
#[test]
fn a_device_that_dies_during_a_move_takes_nothing_that_was_acknowledged() {
    let (mut kept, mut moved, mut withheld) = (0, 0, 0);
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let (model, ended) = (Shared::default(), Rc::default());
        start_moving(&mut sim, node, &model, &ended);
        sim.run_for(Duration::from_micros(seed * 1_000));
        let dying = (seed % 2) as usize;
        sim.kill_device(node, Path::new(DIRS[dying]));
        sim.run_for(Duration::from_millis(300));
        match ended.borrow_mut().take() {
            Some(Ok(())) => moved += 1,
            Some(Err(error)) => {
                assert!(matches!(error, RelocateError::Storage(_) | RelocateError::Append(_)), "{error}");
                kept += 1;
            }
            None => panic!("seed {seed}: the move hangs"),
        }
        sim.crash(node);
        // First a start without the device, which serves a log only if the one that is gone has none that is newer.
        let (survivor, seen) = (1 - dying, model.clone());
        let served = sim.run(node, async move {
            let found = recover(&[survivor]).await;
            if let Whereabouts::At(_) = found {
                let opened = Log::open(&homes()[survivor], NAME, TOPIC_ID, config(), OpenMode::Unclean).await;
                check(&opened.expect("open").0, &seen).await;
            }
            matches!(found, Whereabouts::At(_))
        });
        withheld += u32::from(!served);
        sim.crash(node);
        sim.revive_device(node, Path::new(DIRS[dying]));
        sim.run(node, async move {
            let at = match recover(&[0, 1]).await {
                Whereabouts::At(at) => at,
                Whereabouts::Nowhere if model.borrow().acked == 0 => 0,
                other => panic!("seed {seed}: {other:?}"),
            };
            let opened = Log::open(&homes()[at], NAME, TOPIC_ID, config(), OpenMode::Unclean).await;
            check(&opened.expect("open").0, &model).await;
        });
    }
    assert!(kept > 30 && moved > 30 && withheld > 30, "{kept} {moved} {withheld}");
}

#[test]
fn a_cancelled_move_leaves_the_log_where_it_is_and_nothing_behind() {
    heizer_runtime::sim::block_on(4, async {
        make_dirs().await;
        let homes = homes();
        let (log, _) = Log::open(&homes[0], NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        log.assign_epoch(3);
        let model = Shared::default();
        for _ in 0..50 {
            append_one(&log, &model).expect("append");
        }
        let moving = move_to(&log, &homes, 1);
        let mover = {
            let moving = moving.clone();
            // So slow that it never ends by itself.
            task::spawn(async move {
                moving.run(&mut CopyBudget::new(1_000), |_| panic!("it was cancelled")).await
            })
        };
        time::sleep(Duration::from_secs(5)).await;
        let (end, bytes) = moving.progress();
        assert!(log.is_relocating() && end > 0 && end < log.log_end() && bytes > 0);
        moving.cancel();
        let outcome = mover.await.expect("no panic");
        assert!(matches!(outcome, Err(RelocateError::Cancelled)), "{outcome:?}");
        assert_eq!(dir_names(DIRS[1]).await, Vec::<String>::new());
        assert!(!log.is_relocating());
        check(&log, &model).await;
    });
}

#[test]
fn a_copy_keeps_to_its_budget() {
    heizer_runtime::sim::block_on(5, async {
        make_dirs().await;
        let homes = homes();
        let (log, _) = Log::open(&homes[0], NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        log.assign_epoch(3);
        let model = Shared::default();
        for _ in 0..100 {
            append_one(&log, &model).expect("append");
        }
        log.flush().await.expect("flushed");
        let (bytes, started) = (log.sizes().bytes, time::now());
        let current: Current = Rc::new(RefCell::new(log.clone()));
        let (moving, place) = (move_to(&log, &homes, 1), current.clone());
        moving
            .run(&mut CopyBudget::new(bytes / 10), move |log| *place.borrow_mut() = log)
            .await
            .expect("moved");
        let took = time::now() - started;
        assert!((8.0..12.0).contains(&took.as_secs_f64()), "{took:?}");
        let log = current.borrow().clone();
        check(&log, &model).await;
    });
}

/// A damaged batch is not taken for the original: the move ends, and the log stays as it is.
#[test]
fn damage_is_found_and_not_carried_along() {
    let mut sim = Sim::new(6);
    let node = sim.node(1);
    sim.run(node, async {
        make_dirs().await;
        let (log, _) =
            Log::open(&homes()[0], NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        let model = Shared::default();
        log.assign_epoch(3);
        for _ in 0..50 {
            append_one(&log, &model).expect("append");
        }
        log.close().await.expect("closed");
    });
    let segment = Path::new("/disk0/topic-0/00000000000000000000.log");
    sim.flip_bit(node, segment, 100, 1).expect("flipped");
    sim.run(node, async {
        let homes = homes();
        let (log, _) = Log::open(&homes[0], NAME, TOPIC_ID, config(), OpenMode::Clean).await.expect("open");
        let current: Current = Rc::new(RefCell::new(log.clone()));
        let error = run(&move_to(&log, &homes, 1), &current).await.expect_err("damaged");
        assert!(error.to_string().contains("CRC does not match"), "{error}");
        assert_eq!(dir_names(DIRS[1]).await, Vec::<String>::new());
        assert!(Rc::ptr_eq(&log, &current.borrow()) && log.failed().is_none());
    });
}
