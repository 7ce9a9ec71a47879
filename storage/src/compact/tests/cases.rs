//! One behaviour a test.

use std::time::Duration;

use heizer_runtime::sim::block_on;
use heizer_runtime::{task, time};

use super::*;
use crate::checkpoint::PartitionKey;
use crate::error::ReadError;
use crate::rate::Rate;

fn of(found: &[(i64, &str, Option<&str>)]) -> Vec<(i64, String, Option<String>)> {
    let owned = |&(offset, key, value): &(i64, &str, Option<&str>)| {
        (offset, key.to_owned(), value.map(str::to_owned))
    };
    found.iter().map(owned).collect()
}

const LAST: (i64, &str, Option<&str>) = (6, "last", Some("of all"));

/// Offsets 0 to 5 in two segments, and one more in the active one.
async fn two_segments() -> Rc<Log> {
    let log = create(config()).await;
    put(&log, 100, &[("a", Some("1")), ("b", Some("1"))]);
    put(&log, 200, &[("c", Some("1"))]);
    log.roll(0);
    put(&log, 300, &[("a", Some("2")), ("b", Some("2"))]);
    put(&log, 400, &[("d", Some("1"))]);
    seal(&log).await;
    log
}

/// contract L9
#[test]
fn a_round_leaves_the_last_value_of_each_key_and_moves_no_offset() {
    block_on(1, async {
        let log = two_segments().await;
        let before = log.sizes();
        let report = compact(&log, 1_000).await;
        assert_eq!((report.clean_to, report.records_removed, report.segments), (6, 2, (2, 1)));
        let rest = [(2, "c", Some("1")), (3, "a", Some("2")), (4, "b", Some("2")), (5, "d", Some("1")), LAST];
        assert_eq!(contents(&log).await, of(&rest));
        assert_eq!((log.log_start(), log.log_end(), log.first_dirty()), (0, 7, 6));
        let after = log.sizes();
        let files = read_batches(&log, 0).await.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>();
        assert_eq!((after.bytes, after.segments), (files, 2));
        assert!(after.bytes < before.bytes && report.bytes_written < report.bytes_read);
        assert!(
            log.compact(1_000, 7, &mut limits(MAP_BYTES)).await.expect("a round").is_none(),
            "all is clean"
        );
        // The same is found by a later opening, whatever the stop.
        for mode in [OpenMode::Clean, OpenMode::Unclean] {
            log.close().await.ok();
            let (log, opened) = open(config(), mode).await;
            assert_eq!((opened.cut, opened.log_end, log.first_dirty()), (None, 7, 6));
            assert_eq!(contents(&log).await, of(&rest));
        }
        let left: Vec<_> = names().await.into_iter().filter(|name| name.ends_with(".log")).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(names().await.iter().all(|name| !name.contains("cleaned") && !name.contains("swap")));
    });
}

/// contract F1, L7: reads and lookups in a log with gaps.
#[test]
fn every_offset_and_every_time_finds_the_first_record_at_or_after_it() {
    block_on(2, async {
        let log = create(config()).await;
        for at in 0..300_i64 {
            // Keys 0 to 9 come again and again, so that long gaps arise; others stay.
            let key = if at % 7 == 0 { format!("once-{at}") } else { format!("often-{}", at % 10) };
            let value = "v".repeat(1 + (at % 90) as usize);
            put(&log, 1_000 + at * 10 - (at % 4) * 25, &[(&key, Some(&value))]);
            if at % 80 == 79 {
                log.roll(0);
            }
        }
        seal(&log).await;
        compact(&log, 10_000).await;
        for mode in [None, Some(OpenMode::Clean), Some(OpenMode::Unclean)] {
            let log = match mode {
                None => log.clone(),
                Some(mode) => open(config(), mode).await.0,
            };
            let all = records(&read_batches(&log, 0).await);
            assert!(all.len() > 40 && all.len() < 80, "{}", all.len());
            let (batches, end) = (headers(&read_batches(&log, 0).await), log.log_end());
            for offset in 0..end {
                let read = log.read(offset, 1, end, true).await.expect("read");
                let expected =
                    batches.iter().find(|batch| batch.last_offset() >= offset).expect("the last stays");
                assert_eq!(read.first_offset, expected.base_offset, "read at {offset}");
            }
            for timestamp in (900..4_200).step_by(7) {
                let found = log.offset_for_timestamp(timestamp, end).await.expect("look up");
                let expected = all.iter().find(|record| record.timestamp >= timestamp);
                let both = (found.map(|found| found.offset), expected.map(|record| record.offset));
                assert_eq!(both.0, both.1, "at {timestamp}");
            }
            let largest = all.iter().map(|record| record.timestamp).max();
            let found = log.max_timestamp(end).await.expect("look up");
            assert_eq!(found.map(|found| found.timestamp), largest);
            if mode.is_none() {
                log.close().await.expect("close");
            }
        }
    });
}

/// contract L9: the last batch of a segment stays, even empty, and a segment of nothing else is as good as any.
#[test]
fn a_segment_that_loses_all_its_records_still_says_where_it_ends() {
    block_on(3, async {
        let config = || LogConfig { segment_bytes: 300, ..config() };
        let log = create(config()).await;
        for at in 0..12 {
            put(&log, 100 + at, &[("a", Some(&"x".repeat(200)))]);
        }
        seal(&log).await;
        let report = compact(&log, 10_000).await;
        assert_eq!((report.records_removed, report.segments), (11, (12, 12)));
        let batches = headers(&read_batches(&log, 0).await);
        assert_eq!(batches.iter().filter(|header| header.record_count == 0).count(), 11);
        let check = async |log: &Log| {
            assert_eq!((log.log_start(), log.log_end(), contents(log).await.len()), (0, 13, 2));
            let found = log.max_timestamp(12).await.expect("look up").expect("found");
            assert_eq!((found.timestamp, found.offset), (111, 11));
            let found = log.offset_for_timestamp(101, 13).await.expect("look up").expect("found");
            assert_eq!(found.offset, 11, "headers without records have no time");
            assert!(log.max_timestamp(11).await.expect("look up").is_none());
        };
        check(&log).await;
        log.close().await.expect("close");
        let (log, _) = open(config(), OpenMode::Clean).await;
        check(&log).await;
        log.close().await.expect("close");
        // Without their indexes they are scanned, and none is taken for the end of the log.
        for name in names().await.into_iter().filter(|name| name.ends_with("index")) {
            fs::remove_file(&Path::new(DIR).join(name)).await.expect("remove");
        }
        let (log, report) = open(config(), OpenMode::Unclean).await;
        assert_eq!(report.cut, None);
        check(&log).await;
    });
}

/// contract L9, T1: the last batch of each producer stays, even empty.
#[test]
fn a_producer_is_known_by_its_last_batch_after_its_records_are_gone() {
    block_on(4, async {
        let log = create(config()).await;
        let first = batch(sequenced(7, 0), 100, &[("a", Some("1")), ("b", Some("1"))]);
        let second = batch(sequenced(7, 2), 110, &[("a", Some("2"))]);
        append(&log, &first);
        append(&log, &second);
        put(&log, 120, &[("a", Some("3")), ("b", Some("3"))]);
        seal(&log).await;
        compact(&log, 1_000).await;
        let left = headers(&read_batches(&log, 0).await);
        assert_eq!((left[0].base_offset, left[0].record_count, left[0].base_sequence), (2, 0, 2));
        assert_eq!(left[1].base_offset, 3, "the first batch of the producer is gone altogether");
        log.close().await.expect("close");
        for name in names().await.into_iter().filter(|name| name.ends_with(".snapshot")) {
            fs::remove_file(&Path::new(DIR).join(name)).await.expect("remove");
        }
        let (log, _) = open(config(), OpenMode::Unclean).await;
        assert!(append(&log, &second).duplicate);
        let next = append(&log, &batch(sequenced(7, 3), 130, &[("a", Some("4"))]));
        assert_eq!((next.duplicate, next.base_offset), (false, 6));
    });
}

/// contract L9, KIP-534
#[test]
fn a_tombstone_outlives_the_values_it_deletes_and_goes_after_its_horizon() {
    block_on(5, async {
        let log = create(config()).await;
        put(&log, 100, &[("a", Some("1")), ("b", Some("1"))]);
        put(&log, 200, &[("a", None)]);
        seal(&log).await;
        compact(&log, 5_000).await;
        assert_eq!(
            contents(&log).await,
            of(&[(1, "b", Some("1")), (2, "a", None), (3, "last", Some("of all"))])
        );
        let stamped = headers(&read_batches(&log, 2).await)[0];
        assert_eq!(stamped.delete_horizon_ms(), Some(6_000));
        assert_eq!(records(&read_batches(&log, 2).await)[0].timestamp, 200);
        for (now_ms, there) in [(5_999, true), (6_000, false)] {
            // A round needs something new.
            seal(&log).await;
            compact(&log, now_ms).await;
            let tombstone = contents(&log).await.iter().any(|(offset, ..)| *offset == 2);
            assert_eq!(tombstone, there, "at {now_ms}");
        }
    });
}

/// contract L9: never past the high watermark, the active segment, the first open transaction, min.compaction.lag.ms.
#[test]
fn what_is_not_settled_is_not_cleaned() {
    block_on(6, async {
        let log = two_segments().await;
        let end = async |log: &Log, now_ms, high_watermark| {
            let found = log.cleanable(now_ms, high_watermark).await.expect("cleanable");
            found.map(|found| found.end)
        };
        assert_eq!(end(&log, 1_000, 7).await, Some(6), "the active segment");
        assert_eq!(end(&log, 1_000, 5).await, Some(3), "the high watermark");
        assert_eq!(end(&log, 1_000, 2).await, None);
        log.set_config(LogConfig { min_compaction_lag_ms: 700, ..config() });
        assert_eq!(end(&log, 1_000, 7).await, Some(3), "the lag");
        assert_eq!(end(&log, 1_101, 7).await, Some(6));
        log.set_config(config());
        let open = BatchOptions { transactional: true, ..sequenced(9, 0) };
        append(&log, &batch(open, 500, &[("t", Some("1"))]));
        seal(&log).await;
        assert_eq!(end(&log, 1_000, log.log_end()).await, Some(6), "the open transaction");
    });
}

fn marker(producer_id: i64, kind: u8) -> Bytes {
    let options = BatchOptions { transactional: true, control: true, ..sequenced(producer_id, -1) };
    let mut builder = RecordBatchBuilder::new(options);
    builder.append(700, Some(&[0, 0, 0, kind]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
    builder.build()
}

/// contract L9, T2
#[test]
fn aborted_data_goes_at_once_and_its_marker_when_the_horizon_has_passed() {
    block_on(7, async {
        let log = create(config()).await;
        let own = |batch: &Bytes| log.append(batch, 0, AppendOrigin::Coordinator, 0).expect("append");
        let data = |producer, sequence, value| {
            let options = BatchOptions { transactional: true, ..sequenced(producer, sequence) };
            batch(options, 300, &[("a", Some(value))])
        };
        put(&log, 100, &[("a", Some("0"))]);
        own(&data(1, 0, "committed"));
        own(&data(2, 0, "aborted"));
        own(&marker(1, 1));
        log.roll(0);
        own(&data(2, 1, "aborted as well"));
        own(&data(2, 2, "and this"));
        log.roll(0);
        own(&marker(2, 0));
        seal(&log).await;
        // A round that sees the data but not the marker, which the high watermark has not passed.
        let early = log.compact(1_000, 6, &mut limits(MAP_BYTES)).await.expect("a round");
        assert_eq!(early.map(|early| early.clean_to), Some(2), "up to the first batch that nobody can judge");
        compact(&log, 1_000).await;
        let found = contents(&log).await;
        assert_eq!(found, of(&[(1, "a", Some("committed")), (7, "last", Some("of all"))]));
        let kinds = |batches: &[BatchView]| {
            let of = |header: BatchHeader| (header.base_offset, header.is_control(), header.record_count);
            headers(batches).into_iter().map(of).collect::<Vec<_>>()
        };
        let left = kinds(&read_batches(&log, 0).await);
        assert!(left.contains(&(5, false, 0)), "the producer's last batch is a header: {left:?}");
        assert!(left.contains(&(3, true, 1)) && left.contains(&(6, true, 1)), "the markers stay: {left:?}");
        seal(&log).await;
        compact(&log, 2_000).await;
        let stamped = headers(&read_batches(&log, 6).await)[0];
        assert_eq!(stamped.delete_horizon_ms(), Some(3_000), "its data is gone: the horizon is stamped");
        seal(&log).await;
        compact(&log, 3_000).await;
        let left = kinds(&read_batches(&log, 0).await);
        assert!(!left.contains(&(6, true, 1)), "{left:?}");
        assert!(left.contains(&(3, true, 1)), "a committed record is there, and so is its marker: {left:?}");
        // What is left of the aborted producer opens no transaction that nothing would ever close.
        log.close().await.expect("close");
        for name in names().await.into_iter().filter(|name| name.ends_with(".snapshot")) {
            fs::remove_file(&Path::new(DIR).join(name)).await.expect("remove");
        }
        let (log, _) = open(config(), OpenMode::Unclean).await;
        seal(&log).await;
        assert!(log.cleanable(4_000, log.log_end()).await.expect("cleanable").is_some());
    });
}

#[test]
fn a_map_that_is_too_small_takes_several_rounds() {
    block_on(8, async {
        let log = create(config()).await;
        for at in 0..200 {
            put(&log, 100, &[(&format!("key-{}", at % 50), Some(&format!("{at}")))]);
        }
        seal(&log).await;
        let mut rounds = 0;
        while let Some(report) = log.compact(1_000, log.log_end(), &mut limits(0)).await.expect("a round") {
            rounds += 1;
            assert!(report.clean_to > 0 && rounds < 50, "{report:?}");
        }
        assert!(rounds > 5, "{rounds} rounds prove nothing");
        let found = contents(&log).await;
        let values: Vec<String> = found.iter().filter_map(|(_, _, value)| value.clone()).collect();
        let expected: Vec<String> =
            (150..200).map(|at| at.to_string()).chain(["of all".to_owned()]).collect();
        assert_eq!(values, expected);
    });
}

/// A damaged batch stops the round; everything is as it was.
#[test]
fn a_damaged_batch_ends_the_round_and_the_log_stays() {
    block_on(9, async {
        let log = two_segments().await;
        log.close().await.expect("close");
        let path = Path::new(DIR).join("00000000000000000003.log");
        let mut content = fs::read(&path).await.expect("read");
        content[70] ^= 1;
        fs::write_atomic(&path, content).await.expect("write");
        let (log, _) = open(config(), OpenMode::Clean).await;
        seal(&log).await;
        let error = log.compact(1_000, 8, &mut limits(MAP_BYTES)).await.expect_err("damaged");
        assert!(is_damaged(&error) && !error.is_passing(), "{error}");
        assert!(error.to_string().contains("00000000000000000003.log: at 0: CRC"), "{error}");
        assert_eq!((log.first_dirty(), log.sizes().segments), (0, 4));
        assert!(log.failed().is_none());
        let read = log.read(0, 10_000, 8, true).await.expect("read");
        assert_eq!(read.next_offset, 3);
        assert!(names().await.iter().all(|name| !name.contains("cleaned")));
    });
}

/// Whoever wants the log for himself gets it, and a round under way comes to nothing.
#[test]
fn a_round_gives_way_to_truncation_and_close() {
    block_on(10, async {
        let log = two_segments().await;
        let round = {
            let log = log.clone();
            task::spawn(async move { log.compact(1_000, 7, &mut limits(MAP_BYTES)).await })
        };
        task::yield_now().await;
        log.truncate_to(4).await.expect("truncate");
        let result = round.await.expect("no panic");
        assert!(matches!(result, Err(CompactError::Interrupted)), "{result:?}");
        assert_eq!(
            (log.log_end(), contents(&log).await.len()),
            (3, 3),
            "a batch that holds the offset goes whole"
        );
        // At one byte a second nothing would ever end by itself.
        seal(&log).await;
        let mut slow = CompactLimits { map_bytes: MAP_BYTES, pace: Pace::new(100, 1.0) };
        let round = {
            let log = log.clone();
            task::spawn(async move { log.compact(1_000, 4, &mut slow).await.map(drop) })
        };
        time::sleep(Duration::from_millis(300)).await;
        let asked = time::now();
        log.close().await.expect("close");
        assert!(time::now() - asked < Duration::from_millis(200));
        assert!(matches!(round.await.expect("no panic"), Err(CompactError::Interrupted)));
        let closed = log.compact(1_000, 4, &mut limits(MAP_BYTES)).await;
        assert!(closed.is_err_and(|error| error.is_passing()));
    });
}

/// contract L9: a log that is not compacted any more loses nothing to a round that was under way.
#[test]
fn a_round_ends_with_the_policy_and_keeps_to_a_new_pace_at_once() {
    block_on(10, async {
        let log = two_segments().await;
        let before = contents(&log).await;
        let round = |pace: Pace| {
            let (log, mut limits) = (log.clone(), CompactLimits { map_bytes: MAP_BYTES, pace });
            task::spawn(async move { log.compact(1_000, 7, &mut limits).await })
        };
        let endless = round(Pace::new(100, 1.0));
        time::sleep(Duration::from_millis(300)).await;
        log.set_config(LogConfig { cleanup_compact: false, ..config() });
        let ended = endless.await.expect("no panic");
        assert!(matches!(ended, Err(CompactError::Interrupted)), "{ended:?}");
        assert_eq!(contents(&log).await, before);
        log.set_config(config());
        let rate = Rate::new(1.0);
        let slow = round(Pace::new(100, rate.clone()));
        time::sleep(Duration::from_millis(300)).await;
        assert!(!slow.is_finished());
        rate.set(f64::INFINITY);
        let asked = time::now();
        slow.await.expect("no panic").expect("a round").expect("something is dirty");
        assert!(time::now() - asked < Duration::from_secs(1));
        assert!(contents(&log).await.len() < before.len());
    });
}

/// contract L9: a log cut below where it was clean is dirty from there on, and stays so after a crash.
#[test]
fn truncation_brings_the_first_dirty_offset_down() {
    block_on(11, async {
        let log = two_segments().await;
        compact(&log, 1_000).await;
        assert_eq!(log.first_dirty(), 6);
        // Offsets 0 and 1 are gone: this cuts into a gap.
        log.truncate_to(1).await.expect("truncate");
        assert_eq!((log.log_end(), log.first_dirty(), log.sizes().bytes), (0, 0, 0));
        let (again, _) = open(config(), OpenMode::Unclean).await;
        assert_eq!((again.log_end(), again.first_dirty()), (0, 0));
        let log = again;
        put(&log, 1, &[("a", Some("1"))]);
        put(&log, 1, &[("a", Some("2"))]);
        seal(&log).await;
        compact(&log, 1_000).await;
        assert_eq!(contents(&log).await, of(&[(1, "a", Some("2")), (2, "last", Some("of all"))]));
        log.truncate_fully_and_start_at(1).await.expect("truncate");
        assert_eq!((log.first_dirty(), open(config(), OpenMode::Unclean).await.0.first_dirty()), (1, 1));
    });
}

/// A log cut into a gap ends where its last batch does, so that what follows is found again by a scan.
#[test]
fn a_log_that_was_cut_into_a_gap_loses_nothing_of_what_comes_after() {
    block_on(12, async {
        let log = create(LogConfig { segment_bytes: 400, ..config() }).await;
        for base in [0, 10, 20] {
            let options = BatchOptions { base_offset: base, partition_leader_epoch: 0, ..Default::default() };
            let bytes = batch(options, 100, &[("a", Some(&"x".repeat(100)))]);
            log.append(&bytes, 0, AppendOrigin::Replica, 0).expect("append");
        }
        log.flush().await.expect("flush");
        log.truncate_to(15).await.expect("truncate");
        assert_eq!(log.log_end(), 11);
        let (reopened, _) = open(LogConfig { segment_bytes: 400, ..config() }, OpenMode::Unclean).await;
        assert_eq!(reopened.log_end(), 11, "an opening finds the same end");
    });
}

/// `delete_records` may pass the first dirty offset, and what is below the log start is retention's.
#[test]
fn the_log_start_takes_the_first_dirty_offset_along() {
    block_on(13, async {
        let log = two_segments().await;
        assert_eq!(log.delete_records(4).await.expect("delete"), 4);
        assert_eq!(log.first_dirty(), 4);
        let report = compact(&log, 1_000).await;
        assert_eq!((report.clean_to, report.segments), (6, (1, 1)), "the first segment is left to retention");
        assert_eq!(log.apply_retention(1_000, 7).await.expect("retention"), 1);
        assert_eq!((log.log_start(), log.sizes().segments), (4, 2));
        let below = log.read(3, 1, 7, true).await.expect_err("deleted");
        assert!(matches!(below, ReadError::OffsetOutOfRange { log_start: 4, .. }));
    });
}

/// KIP-354: records that have to be cleaned by then must not stay in the active segment.
#[test]
fn a_compacted_log_rolls_within_max_compaction_lag() {
    block_on(14, async {
        let log = create(LogConfig { max_compaction_lag_ms: 500, ..config() }).await;
        put(&log, 100, &[("a", Some("1"))]);
        put(&log, 600, &[("a", Some("2"))]);
        assert_eq!(log.sizes().segments, 1);
        put(&log, 601, &[("a", Some("3"))]);
        log.flush().await.expect("flush");
        assert_eq!(log.sizes().segments, 2);
        for (now_ms, overdue) in [(600, false), (601, true)] {
            let found = log.cleanable(now_ms, 3).await.expect("cleanable").expect("dirty");
            assert_eq!(found.overdue, overdue, "at {now_ms}");
        }
    });
}

/// The policy compact,delete: what compaction leaves is retention's in its time. Under compact alone it never is.
#[test]
fn retention_removes_cleaned_segments_where_the_policy_says_delete() {
    block_on(15, async {
        let log = two_segments().await;
        log.set_config(LogConfig { retention_ms: 500, ..config() });
        compact(&log, 600).await;
        assert_eq!(log.apply_retention(901, 7).await.expect("retention"), 0);
        log.set_config(LogConfig { retention_ms: 500, cleanup_delete: true, ..config() });
        assert_eq!(
            log.apply_retention(900, 7).await.expect("retention"),
            0,
            "the youngest record is from 400"
        );
        assert_eq!(log.apply_retention(901, 7).await.expect("retention"), 1);
        assert_eq!((log.log_start(), contents(&log).await), (6, of(&[LAST])));
        let (log, _) = open(config(), OpenMode::Unclean).await;
        assert_eq!((log.log_start(), log.first_dirty(), log.log_end()), (6, 6, 7));
    });
}

/// DESIGN §5: a checkpoint in a segment that is exchanged is not looked for in the new one.
#[test]
fn a_round_makes_the_log_forget_a_checkpoint_in_what_it_exchanges() {
    block_on(16, async {
        drop(create(config()).await);
        let home = home().await;
        let (log, _) = Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        let noted = || {
            let checkpoints = home.checkpoints().expect("they were opened");
            checkpoints.get(PartitionKey { topic_id: TOPIC_ID, partition: 0 }).map(|noted| noted.segment)
        };
        put(&log, 100, &[("a", Some("1"))]);
        put(&log, 100, &[("a", Some("2"))]);
        log.flush().await.expect("flush");
        time::sleep(Duration::from_secs(20)).await;
        assert_eq!(noted(), Some(0));
        seal(&log).await;
        compact(&log, 1_000).await;
        assert!(noted().is_none_or(|segment| segment == 2));
        time::sleep(Duration::from_secs(20)).await;
        assert_eq!(noted(), Some(2), "the active segment is noted in its place");
        let (log, report) =
            Log::open(&home, NAME, TOPIC_ID, config(), OpenMode::Unclean).await.expect("open");
        assert_eq!((report.cut, report.scanned_bytes, contents(&log).await.len()), (None, 0, 2));
    });
}
