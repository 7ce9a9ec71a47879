//! One behaviour a test.

use heizer_runtime::sim::{DiskFaults, Sim, block_on};
use heizer_runtime::{host, task, time};
use heizer_wire::record_batch::BatchView;
use std::cell::Cell;
use std::time::Duration;

use super::*;
use crate::config::{FLUSH_UNSET, Level};
use crate::error::{AppendError, ReadError, StorageError};

fn spec(value_bytes: usize) -> BatchSpec {
    BatchSpec { value: vec![b'v'; value_bytes], ..BatchSpec::default() }
}

async fn names() -> Vec<String> {
    let entries = fs::read_dir(Path::new(DIR)).await.expect("list");
    entries.into_iter().map(|entry| format!("{} {}", entry.name, entry.len)).collect()
}

/// contract F1
#[test]
fn a_read_gives_whole_batches_and_the_first_even_above_the_limit() {
    block_on(1, async {
        let log = create(small(100_000)).await;
        for _ in 0..4 {
            append(&log, &spec(10).records(3));
        }
        let size = spec(10).records(3).bytes().len();
        let table = [
            // offset, max bytes, max offset, min one → first offset, next offset, batches
            (0, 10_000, 12, true, (0, 12, 4)),
            (4, 10_000, 12, true, (3, 12, 3)),
            (0, 1, 12, true, (0, 3, 1)),
            (0, 1, 12, false, (0, 0, 0)),
            (0, 2 * size, 12, true, (0, 6, 2)),
            (0, 2 * size + 1, 12, false, (0, 6, 2)),
            (0, 10_000, 9, true, (0, 9, 3)),
            (0, 10_000, 8, true, (0, 6, 2)),
            (3, 10_000, 4, true, (3, 3, 0)),
            (12, 10_000, 12, true, (12, 12, 0)),
        ];
        for (offset, max_bytes, max_offset, min_one, (first, next, batches)) in table {
            let read = log.try_read_tail(offset, max_bytes, max_offset, min_one).expect("all in memory");
            assert_eq!(
                (read.first_offset, read.next_offset, read.bytes),
                (first, next, batches * size),
                "{offset}"
            );
            log.flush().await.expect("flush");
            assert_eq!(log.read(offset, max_bytes, max_offset, min_one).await.expect("read"), read);
        }
        for offset in [-1, 13] {
            let error = log.read(offset, 1, 12, true).await.expect_err("out of range");
            assert!(matches!(error, ReadError::OffsetOutOfRange { log_start: 0, log_end: 12, .. }));
        }
    });
}

/// contract F1: the same from the disk, where the batch is far larger than a read.
#[test]
fn a_batch_larger_than_any_limit_is_read_whole_from_the_disk() {
    block_on(2, async {
        let log = create(small(1_000_000)).await;
        append(&log, &spec(10));
        append(&log, &spec(300_000));
        append(&log, &spec(10));
        log.flush().await.expect("flush");
        log.home.context().sweep_idle();
        log.home.context().sweep_idle();
        assert_eq!(log.home.context().tail_cache_bytes(), 0, "idle logs hold no chunk");
        assert!(log.try_read_tail(1, 100, 3, true).is_none());
        let read = log.read(1, 100, 3, true).await.expect("read");
        assert_eq!(read.parts.concat(), stored(&spec(300_000), 1, 0));
        // The next append goes on in the partial block.
        append(&log, &spec(20));
        log.flush().await.expect("flush");
        let read = log.read(2, 100_000, 4, true).await.expect("read");
        assert_eq!(read.parts.concat(), [stored(&spec(10), 2, 0), stored(&spec(20), 3, 0)].concat());
    });
}

/// contract L6
#[test]
fn segments_roll_by_bytes_by_age_and_when_an_index_is_full() {
    block_on(3, async {
        let config = LogConfig { segment_ms: 5_000, segment_index_bytes: 64, ..small(4_000) };
        let log = create(config).await;
        append(&log, &spec(2_000));
        append(&log, &spec(2_000));
        assert_eq!(log.sizes().segments, 2, "by bytes");
        append(&log, &BatchSpec { timestamp: 6_000, ..spec(10) });
        assert_eq!(log.sizes().segments, 2, "not older than segment.ms");
        append(&log, &BatchSpec { timestamp: 6_001, ..spec(10) });
        assert_eq!(log.sizes().segments, 3, "by age");
        log.set_config(LogConfig { segment_index_bytes: 64, ..small(1_000_000) });
        for _ in 0..40 {
            append(&log, &BatchSpec { timestamp: 6_001 + log.log_end(), ..spec(300) });
        }
        assert!(log.sizes().segments > 4, "by a full index: {}", log.sizes().segments);
        log.flush().await.expect("flush");
        assert_eq!(read_all(&log, 5_000).await.len() as u64, log.sizes().bytes);
    });
}

/// contract L6
#[test]
fn retention_by_time_rolls_and_empties_a_log_and_a_future_timestamp_does_not_freeze_it() {
    block_on(4, async {
        let log = create(LogConfig { retention_ms: 1_000, ..small(1_000) }).await;
        append(&log, &BatchSpec { timestamp: i64::MAX / 2, ..spec(900) });
        append(&log, &BatchSpec { timestamp: 10_000, ..spec(900) });
        assert_eq!(
            log.apply_retention(20_000, 2).await.expect("retention"),
            0,
            "the future one counts from now"
        );
        assert_eq!(log.apply_retention(21_001, 1).await.expect("retention"), 1);
        assert_eq!((log.log_start(), log.log_end()), (1, 2), "only below the high watermark");
        assert_eq!(log.apply_retention(21_001, 2).await.expect("retention"), 1);
        assert_eq!((log.log_start(), log.log_end(), log.sizes().bytes), (2, 2, 0));
        let (log, report) = open(small(1_000), OpenMode::Unclean).await;
        assert_eq!((log.log_start(), log.log_end(), report.cut), (2, 2, None), "the end is not forgotten");
        assert_eq!(append(&log, &spec(1)).base_offset, 2);
    });
}

/// contract L1
#[test]
fn log_append_time_is_stamped_under_a_new_crc() {
    block_on(5, async {
        let log = create(LogConfig { log_append_time: true, ..small(100_000) }).await;
        let info = log.append(&spec(10).records(2).bytes(), 3, AppendOrigin::Client, 77_777).expect("append");
        assert_eq!((info.log_append_time, info.max_timestamp), (77_777, 77_777));
        let read = log.read(0, 1000, 2, true).await.expect("read");
        let batch = BatchView::parse(&read.parts.concat().into()).expect("a batch");
        batch.verify_crc().expect("a right CRC");
        assert_eq!((batch.header().max_timestamp, batch.header().partition_leader_epoch), (77_777, 3));
        let found = log.offset_for_timestamp(50_000, 2).await.expect("look up").expect("found");
        assert_eq!((found.timestamp, found.offset, found.leader_epoch), (77_777, 0, 3));
    });
}

/// contract R8
#[test]
fn a_replica_keeps_the_leaders_offsets_and_epochs() {
    block_on(6, async {
        let log = create(small(100_000)).await;
        let leaders = BatchSpec { leader_epoch: 4, ..spec(10) }.records(2).base_offset(10);
        log.append(&leaders.bytes(), -1, AppendOrigin::Replica, 0).expect("append");
        assert_eq!((log.log_end(), log.latest_epoch()), (12, Some(4)));
        let again = log.append(&leaders.bytes(), -1, AppendOrigin::Replica, 0);
        assert!(matches!(again, Err(AppendError::OffsetNotMonotonic { log_end: 12, got: 10 })));
        let older = BatchSpec { leader_epoch: 3, ..spec(10) }.base_offset(12);
        let older = log.append(&older.bytes(), -1, AppendOrigin::Replica, 0);
        assert!(matches!(older, Err(AppendError::EpochFell { current: 4, got: 3 })));
        log.flush().await.expect("flush");
        assert_eq!(read_all(&log, 1000).await, leaders.bytes());
        log.close().await.expect("close");
        let (log, _) = open(small(100_000), OpenMode::Unclean).await;
        assert_eq!((log.log_end(), log.latest_epoch()), (12, Some(4)), "a gap is no damage");
    });
}

#[test]
fn bytes_that_are_no_batches_are_refused_and_change_nothing() {
    block_on(7, async {
        let log = create(small(2_000)).await;
        let whole = spec(100).bytes();
        let mut magic_1 = whole.to_vec();
        magic_1[16] = 1;
        for bytes in [Bytes::new(), whole.slice(..60), whole.slice(..whole.len() - 1), magic_1.into()] {
            let refused = log.append(&bytes, 0, AppendOrigin::Client, 0);
            assert!(matches!(refused, Err(AppendError::Invalid(_))), "{refused:?}");
        }
        let large = log.append(&spec(3_000).bytes(), 0, AppendOrigin::Client, 0);
        assert!(matches!(large, Err(AppendError::TooLarge { max: 2_000, .. })));
        assert_eq!((log.log_end(), log.sizes().bytes), (0, 0));
    });
}

/// DESIGN §4: the levels.
#[test]
fn level_memory_is_written_lazily_and_level_written_synced_within_flush_ms() {
    block_on(8, async {
        let log = create(LogConfig { durability: Some(Level::Memory), ..small(100_000) }).await;
        append(&log, &spec(10));
        assert_eq!((log.end_at(Level::Memory), log.end_at(Level::Written)), (1, 0));
        time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!((log.end_at(Level::Written), log.end_at(Level::Durable)), (1, 0));
        append(&log, &spec(10));
        log.flush().await.expect("flush");
        assert_eq!(log.end_at(Level::Durable), 2);
        log.set_config(LogConfig { flush_ms: 300, flush_messages: FLUSH_UNSET, ..small(100_000) });
        append(&log, &spec(10));
        log.wait_end_at(Level::Written, 3).await.expect("written");
        assert_eq!(log.end_at(Level::Durable), 2);
        time::sleep(Duration::from_millis(400)).await;
        assert_eq!(log.end_at(Level::Durable), 3);
        log.set_config(LogConfig { durability: Some(Level::Written), ..small(100_000) });
        append(&log, &spec(10));
        log.wait_end_at(Level::Written, 4).await.expect("written");
        log.set_config(small(100_000));
        log.wait_end_at(Level::Durable, 4).await.expect("a higher level reaches what is there");
    });
}

/// DESIGN §4: `flush.messages` above one bounds how many messages a power cut may take.
#[test]
fn flush_messages_syncs_after_so_many_messages() {
    for level in [Level::Memory, Level::Written] {
        block_on(8, async move {
            let log =
                create(LogConfig { durability: Some(level), flush_messages: 3, ..small(100_000) }).await;
            append(&log, &spec(10));
            append(&log, &spec(10));
            time::sleep(Duration::from_secs(5)).await;
            assert_eq!((log.end_at(Level::Written), log.end_at(Level::Durable)), (2, 0), "{level}");
            append(&log, &spec(10));
            log.wait_end_at(Level::Durable, 3).await.expect("the third message");
            append(&log, &spec(10).records(3));
            log.wait_end_at(Level::Durable, 6).await.expect("three messages of one batch");
            append(&log, &spec(10));
            time::sleep(Duration::from_secs(5)).await;
            assert_eq!(log.end_at(Level::Durable), 6, "{level}");
        });
    }
}

#[test]
fn a_failed_write_is_final_and_what_is_durable_can_still_be_read() {
    let mut sim = Sim::new(9);
    let node = sim.node(1);
    let log = sim.run(node, async {
        let log = create(small(100_000)).await;
        append(&log, &spec(10));
        log.flush().await.expect("flush");
        log
    });
    sim.set_disk_faults(node, DiskFaults { write_error_ppm: 1_000_000, ..DiskFaults::default() });
    sim.run(node, async move {
        let info = append(&log, &spec(10));
        log.wait_end_at(Level::Durable, info.last_offset + 1).await.expect_err("the write failed");
        assert!(log.failed().is_some());
        let refused = log.append(&spec(10).bytes(), 0, AppendOrigin::Client, 0);
        assert!(matches!(refused, Err(AppendError::Failed(_))));
        assert_eq!(log.end_at(Level::Durable), 1);
        assert_eq!(log.read(0, 1000, 1, true).await.expect("read").bytes, spec(10).bytes().len());
        log.close().await.expect_err("nothing is sealed");
    });
}

#[test]
fn a_clean_close_leaves_exact_files_and_a_clean_open_scans_nothing() {
    block_on(10, async {
        let log = create(small(3_000)).await;
        for at in 0..6 {
            let spec = BatchSpec { producer_id: 1, producer_epoch: 0, base_sequence: at, ..spec(800) };
            append(&log, &spec);
        }
        log.close().await.expect("close");
        assert!(matches!(log.append(&spec(1).bytes(), 0, AppendOrigin::Client, 0), Err(AppendError::Closed)));
        let size = spec(800).bytes().len();
        let names = names().await;
        for name in [
            format!("00000000000000000000.log {}", 3 * size),
            "00000000000000000000.index 16".to_owned(),
            "00000000000000000000.timeindex 12".to_owned(),
            "00000000000000000003.snapshot 56".to_owned(),
            "00000000000000000006.snapshot 56".to_owned(),
            "leader-epoch-checkpoint 8".to_owned(),
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let (log, report) = open(small(3_000), OpenMode::Clean).await;
        assert_eq!((report.scanned_bytes, report.log_end, report.segments), (0, 6, 2));
        assert_eq!((log.producer_count(), log.topic_id()), (1, TOPIC_ID));
        let again = BatchSpec { producer_id: 1, producer_epoch: 0, base_sequence: 5, ..spec(800) };
        assert!(append(&log, &again).duplicate);
        let next = BatchSpec { base_sequence: 6, ..again };
        assert_eq!(append(&log, &next).base_offset, 6);
        log.flush().await.expect("flush");
        assert_eq!(read_all(&log, 10_000).await.len(), 7 * size);
    });
}

/// contract L8
#[test]
fn rot_after_an_unclean_stop_is_cut_with_all_that_follows() {
    let mut sim = Sim::new(11);
    let node = sim.node(1);
    sim.run(node, async {
        let log = create(small(100_000)).await;
        for _ in 0..5 {
            append(&log, &spec(100));
        }
        log.flush().await.expect("flush");
    });
    sim.kill(node);
    let size = spec(100).bytes().len() as u64;
    let path = Path::new(DIR).join("00000000000000000000.log");
    sim.flip_bit(node, &path, 3 * size + 70, 2).expect("flip");
    sim.run(node, async move {
        let (log, report) = open(small(100_000), OpenMode::Unclean).await;
        let cut = report.cut.expect("a cut");
        assert_eq!((cut.at_offset, cut.reason.as_str()), (3, "CRC does not match"));
        assert_eq!((log.log_end(), log.sizes().bytes), (3, 3 * size));
        assert!(names().await.contains(&format!("00000000000000000000.log {}", 3 * size)));
        let (_, report) = open(small(100_000), OpenMode::Unclean).await;
        assert_eq!((report.cut, report.log_end), (None, 3), "recovery is idempotent");
    });
}

#[test]
fn missing_and_damaged_indexes_are_rebuilt() {
    block_on(12, async {
        let log = create(small(3_000)).await;
        for at in 0..12 {
            append(&log, &BatchSpec { timestamp: at * 10, ..spec(800) });
        }
        log.close().await.expect("close");
        for name in ["00000000000000000000.index", "00000000000000000003.timeindex"] {
            fs::write_atomic(&Path::new(DIR).join(name), vec![1; 7]).await.expect("write");
        }
        let (log, _) = open(small(3_000), OpenMode::Clean).await;
        for at in 0..12 {
            let found = log.offset_for_timestamp(at * 10 - 5, 12).await.expect("look up").expect("found");
            assert_eq!((found.offset, found.timestamp), (at, at * 10));
            assert_eq!(log.read(at, 1, 12, true).await.expect("read").first_offset, at);
        }
        assert_eq!(log.offset_for_timestamp(111, 12).await.expect("look up"), None);
        let largest = log.max_timestamp(12).await.expect("look up").expect("found");
        assert_eq!((largest.timestamp, largest.offset), (110, 11));
    });
}

#[test]
fn a_log_restarted_at_an_offset_stays_there() {
    block_on(13, async {
        let log = create(small(3_000)).await;
        for _ in 0..6 {
            append(&log, &spec(800));
        }
        log.truncate_fully_and_start_at(1_000).await.expect("restart");
        assert_eq!((log.log_start(), log.log_end(), log.latest_epoch()), (1_000, 1_000, None));
        let (log, _) = open(small(3_000), OpenMode::Unclean).await;
        assert_eq!((log.log_start(), log.log_end()), (1_000, 1_000));
        assert_eq!(append(&log, &spec(10)).base_offset, 1_000);
    });
}

#[test]
fn a_log_that_is_deleted_late_leaves_alone_what_has_taken_its_place() {
    block_on(1, async {
        let (late, homes, id) = (create(small(100_000)).await, home(64 << 10), [8; 16]);
        let (log, _) = Log::open(&homes, NAME, id, small(100_000), OpenMode::Unclean).await.expect("open");
        append(&log, &spec(10));
        log.flush().await.expect("flush");
        late.delete().await.expect("delete");
        log.close().await.expect("close");
        let (log, _) = Log::open(&homes, NAME, id, small(100_000), OpenMode::Clean).await.expect("open");
        assert_eq!(log.log_end(), 1);
    });
}

#[test]
fn a_deleted_log_leaves_nothing_behind() {
    block_on(14, async {
        let log = create(small(3_000)).await;
        append(&log, &spec(800));
        log.delete().await.expect("delete");
        assert!(fs::read_dir(Path::new("/data")).await.expect("list").is_empty());
        let left = Path::new("/data/topic-1.0123-delete");
        fs::create_dir_all(left).await.expect("create");
        assert_eq!(crate::remove_deleted(Path::new("/data")).await.expect("remove"), 1);
        assert!(!fs::exists(left).await.expect("look"));
    });
}

/// contract L5
#[test]
fn an_epoch_assigned_at_the_log_end_answers_before_its_first_record() {
    block_on(15, async {
        let log = create(small(3_000)).await;
        log.assign_epoch(1);
        log.append(&spec(10).bytes(), 1, AppendOrigin::Client, 0).expect("append");
        log.assign_epoch(4);
        let end = |epoch| log.end_offset_for_epoch(epoch).map(|end| (end.epoch, end.end_offset));
        assert_eq!((end(1), end(3), end(4), end(5)), (Some((1, 1)), Some((1, 1)), Some((4, 1)), None));
        let stale = log.append(&spec(10).bytes(), 3, AppendOrigin::Client, 0);
        assert!(matches!(stale, Err(AppendError::EpochFell { current: 4, got: 3 })));
    });
}

/// Contract L5: an epoch is durable with its first data; until then it costs nothing.
#[test]
fn an_idle_log_writes_nothing_when_it_is_opened_and_led() {
    let mut sim = Sim::new(3);
    let node = sim.node(1);
    sim.run(node, async {
        let log = create(small(100_000)).await;
        log.assign_epoch(2);
        log.append(&spec(10).bytes(), 2, AppendOrigin::Client, 0).expect("append");
        log.close().await.expect("close");
    });
    let read_only = DiskFaults {
        write_error_ppm: 1_000_000,
        sync_error_ppm: 1_000_000,
        no_space_ppm: 1_000_000,
        ..DiskFaults::default()
    };
    sim.set_disk_faults(node, read_only);
    sim.run(node, async {
        for epoch in [2, 3] {
            let (log, _) = open(small(100_000), OpenMode::Clean).await;
            log.assign_epoch(epoch);
            time::sleep(Duration::from_secs(1)).await;
            assert!(log.failed().is_none(), "epoch {epoch}");
            assert_eq!(log.latest_epoch(), Some(epoch));
        }
    });
    sim.set_disk_faults(node, DiskFaults::default());
    let log = sim.run(node, async {
        let (log, _) = open(small(100_000), OpenMode::Clean).await;
        log.assign_epoch(7);
        log.append(&spec(10).bytes(), 7, AppendOrigin::Client, 0).expect("append");
        log.flush().await.expect("flush");
        log
    });
    sim.crash(node);
    drop(log);
    sim.run(node, async {
        let (log, _) = open(small(100_000), OpenMode::Unclean).await;
        assert_eq!((log.epoch_for_offset(0), log.epoch_for_offset(1)), (Some(2), Some(7)));
    });
}

#[test]
fn a_log_without_data_leaves_nothing_on_the_disk() {
    block_on(4, async {
        let log = create(small(100_000)).await;
        log.assign_epoch(1);
        assert_eq!(log.delete_records(0).await.expect("nothing to delete"), 0);
        assert_eq!(log.apply_retention(0, 0).await.expect("nothing to expire"), 0);
        log.close().await.expect("close");
        assert!(fs::read_dir(Path::new("/data")).await.expect("list").is_empty());
        let (log, _) = open(small(100_000), OpenMode::Clean).await;
        log.delete().await.expect("delete");
        assert!(fs::read_dir(Path::new("/data")).await.expect("list").is_empty());
        let (log, _) = open(small(100_000), OpenMode::Clean).await;
        log.truncate_fully_and_start_at(1_000).await.expect("restart");
        log.close().await.expect("close");
        let (_, report) = open(small(100_000), OpenMode::Clean).await;
        assert_eq!((report.log_start, report.log_end), (1_000, 1_000));
    });
}

#[test]
fn a_log_without_a_batch_comes_back_after_a_crash_and_one_with_a_batch_keeps_its_home() {
    let metadata = Path::new(DIR).join("partition.metadata");
    for torn in [None, Some(""), Some("version: 0\ntop")] {
        let mut sim = Sim::new(5);
        let node = sim.node(1);
        drop(sim.run(node, create(small(100_000))));
        sim.crash(node);
        let metadata = metadata.clone();
        let log = sim.run(node, async move {
            if let Some(torn) = torn {
                fs::create_dir_all(Path::new(DIR)).await.expect("a directory");
                fs::write_atomic(&metadata, torn.as_bytes().to_vec()).await.expect("written");
            }
            let (log, report) = open(small(100_000), OpenMode::Unclean).await;
            assert_eq!(report.log_end, 0);
            append(&log, &spec(10));
            log.flush().await.expect("flush");
            log
        });
        sim.crash(node);
        drop(log);
        sim.run(node, async {
            let (log, report) = open(small(100_000), OpenMode::Unclean).await;
            assert_eq!((report.log_end, report.cut, log.epoch_for_offset(0)), (1, None, Some(0)));
        });
    }
}

#[test]
fn a_directory_of_another_topic_or_data_without_metadata_are_refused() {
    block_on(9, async {
        let log = create(small(100_000)).await;
        let home = home(64 << 10);
        let other = || Log::open(&home, NAME, [8; 16], small(100_000), OpenMode::Clean);
        append(&log, &spec(10));
        log.close().await.expect("close");
        assert!(matches!(other().await, Err(StorageError::Corrupt { .. })));
        fs::remove_file(&Path::new(DIR).join("partition.metadata")).await.expect("removed");
        assert!(matches!(other().await, Err(StorageError::Corrupt { .. })));
    });
}

#[test]
fn records_can_be_deleted_before_any_has_come_to_the_disk() {
    block_on(15, async {
        let log = create(LogConfig { durability: Some(Level::Memory), ..small(100_000) }).await;
        for _ in 0..3 {
            append(&log, &spec(10));
        }
        assert_eq!(log.delete_records(2).await.expect("delete"), 2);
        let (log, _) = open(small(100_000), OpenMode::Unclean).await;
        assert_eq!((log.log_start(), log.log_end()), (2, 3));
    });
}

#[test]
fn of_deletions_at_once_the_furthest_counts_also_after_a_power_cut() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let log = sim.run(node, async {
            let log = create(small(100_000)).await;
            for _ in 0..10 {
                append(&log, &spec(10));
            }
            let ends = [3, 9, 6, 9, 1];
            let deleted = futures::future::join_all(ends.map(|end| log.delete_records(end))).await;
            for (end, start) in ends.into_iter().zip(deleted) {
                assert!(start.expect("deleted") >= end);
            }
            log
        });
        sim.crash(node);
        drop(log);
        sim.run(node, async move {
            let (log, _) = open(small(100_000), OpenMode::Unclean).await;
            assert_eq!((log.log_start(), log.log_end()), (9, 10), "seed {seed}");
        });
    }
}

/// Retention moves the log start before its segments have gone.
#[test]
fn a_deletion_that_retention_has_overtaken_is_durable_when_it_is_answered() {
    let mut answers = 0;
    for at in 1..60 {
        let mut sim = Sim::new(at);
        let node = sim.node(1);
        let log = sim.run(node, async {
            let log = create(LogConfig { retention_bytes: 0, ..small(3_000) }).await;
            for _ in 0..9 {
                append(&log, &spec(800));
            }
            log.flush().await.expect("flush");
            log
        });
        let answered = Rc::new(Cell::new(0));
        sim.crash_at_disk_operation(node, at);
        let (retained, answering) = (log.clone(), answered.clone());
        let ended = sim.run_until_down(node, async move {
            let retaining = retained.clone();
            let retention = task::spawn(async move { retaining.apply_retention(0, 9).await });
            loop {
                let advanced = retained.on_advance().listen();
                if retained.log_start() > 0 {
                    break;
                }
                advanced.await;
            }
            answering.set(retained.delete_records(retained.log_start()).await.expect("deleted"));
            // The power goes with the answer, wherever retention is.
            drop(retention);
        });
        answers += u32::from(ended.is_some());
        sim.cancel_end(node);
        sim.crash(node);
        drop(log);
        let start = sim.run(node, async { open(small(3_000), OpenMode::Unclean).await.0.log_start() });
        assert!(start >= answered.get(), "operation {at}: {} was answered, {start} it is", answered.get());
    }
    assert!(answers > 0, "no deletion was answered");
}

/// contract R7
#[test]
fn a_deletion_and_a_truncation_at_once_leave_a_start_within_the_log() {
    for seed in 0..20 {
        block_on(seed, async move {
            let log = create(small(3_000)).await;
            for _ in 0..9 {
                append(&log, &spec(800));
            }
            log.flush().await.expect("flush");
            let (truncation, deletion) = (log.truncate_to(3), log.delete_records(7));
            let (truncated, deleted) = if seed % 2 == 0 {
                futures::join!(truncation, deletion)
            } else {
                let (deleted, truncated) = futures::join!(deletion, truncation);
                (truncated, deleted)
            };
            truncated.expect("truncated");
            deleted.expect("deleted");
            assert_eq!((log.log_start(), log.log_end()), (3, 3));
            append(&log, &spec(10));
            log.flush().await.expect("flush");
            let (log, _) = open(small(3_000), OpenMode::Unclean).await;
            assert_eq!((log.log_start(), log.log_end()), (3, 4));
        });
    }
}

/// contract R7: a restart cut short leaves the old log as it was, as far as it is left, or an empty one.
#[test]
fn a_restart_cut_short_brings_nothing_back_and_keeps_no_producer_of_an_emptied_log() {
    let (mut old, mut new) = (0, 0);
    for at in 1..40 {
        let mut sim = Sim::new(at);
        let node = sim.node(1);
        let log = sim.run(node, async {
            let log = create(small(3_000)).await;
            for at in 0..9 {
                let spec = BatchSpec { producer_id: 1, producer_epoch: 0, base_sequence: at, ..spec(800) };
                append(&log, &spec);
            }
            log.flush().await.expect("flush");
            log.delete_records(5).await.expect("delete");
            log
        });
        sim.crash_at_disk_operation(node, at);
        let restarted = log.clone();
        sim.run_until_down(node, async move { restarted.truncate_fully_and_start_at(7).await });
        sim.crash(node);
        drop(log);
        let (start, end, producers) = sim.run(node, async {
            let (log, _) = open(small(3_000), OpenMode::Unclean).await;
            (log.log_start(), log.log_end(), log.producer_count())
        });
        assert!(start >= 5.min(end), "operation {at}: records below 5 are back in {start}..{end}");
        if start == end && producers == 0 {
            new += 1;
        } else {
            assert_eq!(producers, usize::from(end > 0), "operation {at}: {start}..{end}");
            old += 1;
        }
    }
    assert!(old > 3 && new > 3, "{old} times the old log, {new} times the new one");
}

/// contract F1: what retention removes while it is read is out of range, and no failure of the disk.
#[test]
fn a_read_that_retention_overtakes_finds_its_offset_out_of_range() {
    let mut overtaken = 0;
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        overtaken += sim.run(node, async {
            let log = create(LogConfig { retention_bytes: 0, ..small(3_000) }).await;
            for _ in 0..9 {
                append(&log, &spec(800));
            }
            log.close().await.expect("close");
            let (log, _) = open(LogConfig { retention_bytes: 0, ..small(3_000) }, OpenMode::Clean).await;
            let (read, removed) = futures::join!(log.read(0, 100, 9, true), log.apply_retention(0, 6));
            assert_eq!(removed.expect("retention"), 2);
            match read {
                Ok(read) => assert!(read.bytes == 0 || read.parts.concat() == stored(&spec(800), 0, 0)),
                Err(ReadError::OffsetOutOfRange { offset: 0, log_start: 6, .. }) => return 1,
                Err(error) => panic!("{error}"),
            }
            0
        });
    }
    assert!(overtaken > 3, "{overtaken} of 200");
}

/// DESIGN §4: a truncation syncs what stays, and does not call it durable before.
#[test]
fn a_truncation_cut_short_has_promised_nothing_that_is_lost() {
    let mut unsynced = 0;
    for at in 1..12 {
        for seed in 0..20 {
            let mut sim = Sim::new(seed);
            let node = sim.node(1);
            let log = sim.run(node, async {
                let log = create(LogConfig { durability: Some(Level::Written), ..small(100_000) }).await;
                for _ in 0..5 {
                    append(&log, &spec(800));
                }
                log.wait_end_at(Level::Written, 5).await.expect("written");
                log
            });
            sim.crash_at_disk_operation(node, at);
            let truncated = log.clone();
            sim.run_until_down(node, async move { truncated.truncate_to(3).await });
            sim.crash(node);
            let promised = log.end_at(Level::Durable);
            drop(log);
            let end = sim.run(node, async { open(small(100_000), OpenMode::Unclean).await.0.log_end() });
            assert!(end >= promised, "operation {at}, seed {seed}: {promised} was durable, {end} is left");
            unsynced += u32::from(end < 3);
        }
    }
    assert!(unsynced > 0, "no crash came in between");
}

/// contract R7: what is to be dropped may lie behind bytes that cannot be read; to keep it would be to invent it.
#[test]
fn a_truncation_that_cannot_find_its_place_fails() {
    let mut sim = Sim::new(16);
    let node = sim.node(1);
    let log = sim.run(node, async {
        let log = create(LogConfig { index_interval_bytes: 1 << 20, ..small(100_000) }).await;
        for _ in 0..5 {
            append(&log, &spec(100));
        }
        log.flush().await.expect("flush");
        log
    });
    let size = spec(100).bytes().len() as u64;
    let path = Path::new(DIR).join("00000000000000000000.log");
    // The magic of the second batch.
    sim.flip_bit(node, &path, size + 16, 0).expect("flip");
    sim.run(node, async move {
        let error = log.truncate_to(3).await.expect_err("it cannot be found");
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
        assert!(log.failed().is_some());
    });
}

/// contract L8, on the real file system: a log that nobody closed.
#[test]
fn a_log_on_real_files_is_recovered_whole() {
    let data_dir = tempfile::tempdir().expect("a directory");
    let (made, opened) = (data_dir.path().to_owned(), data_dir.path().to_owned());
    let config = || LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
    let append_all = move || {
        let dir = made.clone();
        async move {
            let home = LogDir::new(&dir, StorageContext::new(StorageLimits::default()));
            let log = Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("start").0;
            for at in 0..400 {
                let spec = BatchSpec { timestamp: at, producer_id: 9, producer_epoch: 0, ..spec(sizes(at)) };
                append(&log, &BatchSpec { base_sequence: i32::try_from(at).unwrap(), ..spec });
                if at % 3 == 0 {
                    log.flush().await.expect("flush");
                }
            }
            log.flush().await.expect("flush");
        }
    };
    let read_back = move || {
        let dir = opened.clone();
        async move {
            let home = LogDir::new(&dir, StorageContext::new(StorageLimits::default()));
            let (log, report) =
                Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
            assert_eq!((report.cut, report.log_end), (None, 400));
            let expected: usize = (0..400).map(|at| spec(sizes(at)).bytes().len()).sum();
            assert_eq!(read_all(&log, 200_000).await.len(), expected);
            let found = log.offset_for_timestamp(333, 400).await.expect("look up").expect("found");
            assert_eq!((found.offset, log.producer_count()), (333, 1));
            log.close().await.expect("close");
        }
    };
    host::block_on(append_all).expect("a core");
    host::block_on(read_back).expect("a core");
}

/// Sizes of values that make small, block-sized and large writes.
fn sizes(at: i64) -> usize {
    [10, 4_096, 70_000, 300, 20_000, 1, 900][usize::try_from(at).unwrap() % 7]
}
