//! Recovery from the checkpoint log (DESIGN §5).

use std::time::Duration;

use heizer_runtime::sim::Sim;
use heizer_runtime::time;

use super::*;
use crate::error::StorageError;

fn spec(at: i64) -> BatchSpec {
    BatchSpec { value: vec![b'v'; 1000], timestamp: 1000 + at, ..BatchSpec::default() }
}

async fn reopen(config: LogConfig) -> (Rc<Log>, RecoveryReport) {
    let home = noting_home(64 << 10).await;
    Log::open(&home, NAME, TOPIC_ID, config, OpenMode::Unclean).await.expect("open")
}

/// Appends `count` batches durably from `at` on.
async fn append_some(log: &Log, at: i64, count: i64) {
    for at in at..at + count {
        log.append(&spec(at).bytes(), 3, AppendOrigin::Client, 1000).expect("append");
    }
    log.flush().await.expect("flush");
}

/// Long enough for a log that has grown to be noted.
async fn let_it_be_noted() {
    time::sleep(Duration::from_secs(12)).await;
}

#[test]
fn a_recovery_scans_only_what_came_after_the_checkpoint() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        sim.run(node, async {
            make_data_dir().await;
            let (log, _) = reopen(small(1 << 20)).await;
            append_some(&log, 0, 300).await;
            let_it_be_noted().await;
            append_some(&log, 300, 2).await;
        });
        sim.crash(node);
        sim.run(node, async {
            let (log, report) = reopen(small(1 << 20)).await;
            assert_eq!((log.log_end(), report.cut), (302, None));
            let batch = spec(0).bytes().len() as u64;
            assert_eq!(report.scanned_bytes, 2 * batch, "the rest was noted");
            assert_eq!(log.end_offset_for_epoch(3).expect("known").end_offset, 302);
            assert_eq!(log.epoch_for_offset(0), Some(3));
            let expected: Vec<u8> = (0..302).flat_map(|at| stored(&spec(at), at, 3).to_vec()).collect();
            assert_eq!(read_all(&log, 50_000).await, expected);
            for at in [0, 7, 150, 299, 301] {
                let found = log.offset_for_timestamp(1000 + at, 302).await.expect("look up").expect("there");
                assert_eq!((found.offset, found.timestamp), (at, 1000 + at));
            }
            let_it_be_noted().await;
        });
        sim.crash(node);
        let scanned = sim.run(node, async { reopen(small(1 << 20)).await.1.scanned_bytes });
        assert_eq!(scanned, 0, "nothing came since");
    }
}

/// What recovery did not look at is indexed when somebody asks, or when the segment is sealed.
#[test]
fn a_segment_recovered_from_its_middle_is_sealed_with_whole_indexes() {
    let mut sim = Sim::new(3);
    let node = sim.node(1);
    sim.run(node, async {
        make_data_dir().await;
        let (log, _) = reopen(small(1 << 20)).await;
        append_some(&log, 0, 200).await;
        let_it_be_noted().await;
    });
    sim.kill(node);
    sim.run(node, async {
        let (log, _) = reopen(small(1 << 20)).await;
        append_some(&log, 200, 100).await;
        log.roll(2000);
        append_some(&log, 300, 1).await;
        log.close().await.expect("close");
        let index = fs::read(&Path::new(DIR).join("00000000000000000000.index")).await.expect("sealed");
        assert!(index.len() > 8 * 120, "entries from both parts, {} bytes", index.len());
    });
    sim.kill(node);
    sim.run(node, async {
        let (log, _) = open(small(1 << 20), OpenMode::Clean).await;
        for at in 0..301 {
            let read = log.read(at, 10, 301, true).await.expect("read");
            assert_eq!((read.first_offset, read.next_offset), (at, at + 1));
        }
        assert_eq!(log.max_timestamp(301).await.expect("look up").expect("there").offset, 300);
    });
}

/// A duplicate is recognised among the last five batches, also when recovery did not see them (contract T1).
#[test]
fn producers_are_known_from_the_checkpoint_with_all_their_batches() {
    let mut sim = Sim::new(4);
    let node = sim.node(1);
    let batch =
        |sequence| BatchSpec { producer_id: 7, producer_epoch: 0, base_sequence: sequence, ..spec(0) };
    sim.run(node, async move {
        make_data_dir().await;
        let (log, _) = reopen(small(1 << 20)).await;
        for sequence in 0..60 {
            append(&log, &batch(sequence));
        }
        log.flush().await.expect("flush");
        let_it_be_noted().await;
    });
    sim.crash(node);
    sim.run(node, async move {
        let (log, report) = reopen(small(1 << 20)).await;
        assert_eq!(report.scanned_bytes, 0);
        for sequence in 55..60 {
            let again = append(&log, &batch(sequence));
            assert!(again.duplicate);
            assert_eq!(again.base_offset, i64::from(sequence));
        }
        assert_eq!(append(&log, &batch(60)).base_offset, 60);
    });
}

/// The same offsets hold other batches after a truncation: what was noted of those before must not come back.
#[test]
fn a_truncation_is_not_undone_by_an_older_checkpoint() {
    for seed in 0..100 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        sim.run(node, async move {
            make_data_dir().await;
            let (log, _) = reopen(small(1 << 20)).await;
            append_some(&log, 0, 100).await;
            let_it_be_noted().await;
            log.truncate_to(40).await.expect("truncate");
            for at in 40..130 {
                log.append(&spec(5000 + at).bytes(), 4, AppendOrigin::Client, 1000).expect("append");
            }
            if seed % 2 == 0 {
                log.flush().await.expect("flush");
            }
        });
        sim.crash(node);
        sim.run(node, async move {
            let (log, _) = reopen(small(1 << 20)).await;
            let end = log.log_end();
            assert!(end >= if seed % 2 == 0 { 130 } else { 40 });
            let before = (0..40).map(|at| stored(&spec(at), at, 3));
            let after = (40..end).map(|at| stored(&spec(5000 + at), at, 4));
            let expected: Vec<u8> = before.chain(after).flat_map(|batch| batch.to_vec()).collect();
            assert_eq!(read_all(&log, 50_000).await, expected);
        });
    }
}

/// A log whose files are gone does not begin anew as if there had never been any.
#[test]
fn a_log_that_was_noted_and_has_no_files_is_refused() {
    let mut sim = Sim::new(5);
    let node = sim.node(1);
    sim.run(node, async {
        make_data_dir().await;
        let (log, _) = reopen(small(1 << 20)).await;
        append_some(&log, 0, 100).await;
        let_it_be_noted().await;
        fs::remove_dir_all(Path::new(DIR)).await.expect("removed");
        fs::sync_dir(Path::new(DATA)).await.expect("synced");
    });
    sim.crash(node);
    sim.run(node, async {
        let home = noting_home(64 << 10).await;
        let opened = Log::open(&home, NAME, TOPIC_ID, small(1 << 20), OpenMode::Unclean).await;
        let error = opened.err().expect("refused").to_string();
        assert!(error.contains("00000000000000000000.log: missing"), "{error}");
    });
}

/// Checkpoints belong to a layout of cores: under another one partitions live elsewhere, and grow there.
#[test]
fn checkpoints_of_another_number_of_cores_are_not_used() {
    let mut sim = Sim::new(6);
    let node = sim.node(1);
    sim.run(node, async {
        make_data_dir().await;
        let (log, _) = reopen(small(1 << 20)).await;
        append_some(&log, 0, 100).await;
        let_it_be_noted().await;
        let (from, to) = (Path::new("/data/checkpoints/1-cores"), Path::new("/data/checkpoints/4-cores"));
        fs::rename(from, to).await.expect("renamed");
        fs::sync_dir(Path::new("/data/checkpoints")).await.expect("synced");
    });
    sim.crash(node);
    sim.run(node, async {
        let (log, report) = reopen(small(1 << 20)).await;
        assert_eq!((log.log_end(), report.cut), (100, None));
        assert!(report.scanned_bytes > 100_000, "all of it");
        assert!(!fs::exists(Path::new("/data/checkpoints/4-cores")).await.expect("looked up"));
    });
}

/// Damage below what was noted, or with a sealed segment after it, is not the torn end of a log: nothing is cut, the
/// records before and after stay.
#[test]
fn a_damaged_segment_in_the_middle_is_quarantined_and_not_cut() {
    let mut sim = Sim::new(7);
    let node = sim.node(1);
    sim.run(node, async {
        make_data_dir().await;
        let (log, _) = reopen(small(30_000)).await;
        append_some(&log, 0, 100).await;
        let_it_be_noted().await;
        let first = Path::new(DIR).join("00000000000000000000.index");
        fs::remove_file(&first).await.expect("removed");
        fs::sync_dir(Path::new(DIR)).await.expect("synced");
    });
    sim.crash(node);
    let segment = Path::new(DIR).join("00000000000000000000.log");
    sim.flip_bit(node, &segment, 10 * 1072 + 100, 3).expect("there");
    sim.run(node, async {
        let home = noting_home(64 << 10).await;
        let (log, report) =
            Log::open(&home, NAME, TOPIC_ID, small(30_000), OpenMode::Unclean).await.expect("open");
        assert_eq!((report.cut, log.log_end(), log.log_start()), (None, 100, 0));
        assert_eq!(home.context().damaged_segments(), 1);
        let after = log.segments()[1].base_offset;
        let read = log.read(after, 50_000, 100, true).await.expect("the next segment is whole");
        assert_eq!(read.first_offset, after);
        append_some(&log, 100, 3).await;
        // Retention lets go of it like of any other.
        log.set_config(LogConfig { retention_bytes: 1, ..small(30_000) });
        log.apply_retention(0, 103).await.expect("retention");
        assert!(log.log_start() >= after);
    });
}

/// Whoever reads damage gets an error, the segment is counted once, and what is whole around it is served.
#[test]
fn damage_found_by_a_reader_is_told_once_and_served_by_nobody() {
    let mut sim = Sim::new(8);
    let node = sim.node(1);
    sim.run(node, async {
        make_data_dir().await;
        let (log, _) = reopen(small(30_000)).await;
        append_some(&log, 0, 100).await;
        log.close().await.expect("close");
    });
    sim.kill(node);
    let batch = spec(0).bytes().len() as u64;
    // The magic byte of the eleventh batch.
    let segment = Path::new(DIR).join("00000000000000000000.log");
    sim.flip_bit(node, &segment, 10 * batch + 16, 4).expect("there");
    sim.run(node, async {
        let home = noting_home(64 << 10).await;
        let (log, _) = Log::open(&home, NAME, TOPIC_ID, small(30_000), OpenMode::Clean).await.expect("open");
        for _ in 0..2 {
            let error = log.read(10, 10, 100, true).await.expect_err("damaged");
            assert!(
                matches!(error, crate::error::ReadError::Storage(StorageError::Corrupt { .. })),
                "{error}"
            );
        }
        assert_eq!(home.context().damaged_segments(), 1);
        let after = log.segments()[1].base_offset;
        for at in [0, 9, after, 99] {
            let read = log.read(at, 10, 100, true).await.expect("whole");
            assert_eq!((read.first_offset, read.next_offset), (at, at + 1));
        }
    });
}
