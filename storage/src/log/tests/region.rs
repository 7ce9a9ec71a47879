//! Parts of files instead of bytes, against what reads of bytes give.

use std::ops::Range;
use std::time::Duration;

use heizer_runtime::fs::FileRegion;
use heizer_runtime::sim::block_on;
use heizer_runtime::{random, time};

use super::*;
use crate::batch::split;

const SEGMENT_BYTES: u32 = 1_000_000;
const REGION_BYTES_MIN: usize = 64 << 10;

fn spec(value_bytes: usize) -> BatchSpec {
    BatchSpec { value: vec![b'v'; value_bytes], ..BatchSpec::default() }
}

fn below(bound: usize) -> usize {
    (random::u64() % bound as u64) as usize
}

/// A log of at least `segments` segments, nothing of which is in memory.
async fn filled(segments: usize) -> Rc<Log> {
    let log = create(small(SEGMENT_BYTES)).await;
    while log.sizes().segments < segments {
        let value_bytes = [50, 700, 9_000, 120_000][below(4)];
        append(&log, &spec(1 + below(value_bytes)).records(1 + below(3) as i32));
    }
    settle(&log).await;
    log
}

/// Everything flushed, sealed as far as it will be, and out of memory.
async fn settle(log: &Log) {
    log.flush().await.expect("flush");
    while log.segments().iter().rev().skip(1).any(|segment| !segment.sealed) {
        time::sleep(Duration::from_millis(10)).await;
    }
    log.home.context().sweep_idle();
    log.home.context().sweep_idle();
    assert_eq!(log.home.context().tail_cache_bytes(), 0);
}

/// What the file holds there. The region's segment is the one of `offset`.
async fn content(log: &Log, offset: i64, range: Range<u64>) -> Vec<u8> {
    let segments = log.segments();
    let segment = segments.iter().rfind(|segment| segment.base_offset <= offset).expect("there is one");
    let path = Path::new(DIR).join(format!("{:020}.log", segment.base_offset));
    fs::read(&path).await.expect("read")[range.start as usize..range.end as usize].to_vec()
}

/// Simulated systems are not up to it half of the time, and a segment remembers that.
async fn region_of_some_log(max_bytes: usize, min_one: bool) -> Option<FileRegion> {
    for _ in 0..20 {
        fs::remove_dir_all(Path::new(DIR)).await.expect("removed");
        let log = create(small(SEGMENT_BYTES)).await;
        append(&log, &spec(10));
        append(&log, &spec(300_000));
        while log.sizes().segments < 2 {
            append(&log, &spec(200_000));
        }
        settle(&log).await;
        if log.find_region(0, SEGMENT_BYTES as usize, 2, true).await.is_some() {
            panic!("not all of the segment is below the largest offset");
        }
        let region = log.find_region(1, max_bytes, log.log_end(), min_one).await;
        if region.is_some() {
            return region;
        }
    }
    None
}

/// contract F1
#[test]
fn a_region_is_the_whole_batches_that_a_read_would_give() {
    let (mut found, mut unsuited) = (0, 0);
    for seed in 0..12 {
        let (regions, without) = block_on(seed, async {
            let log = filled(4).await;
            let segments = log.segments();
            let sealed_end = segments.last().expect("an active one").base_offset;
            let (mut regions, mut without) = (0, 0);
            for _ in 0..150 {
                let offset = below(log.log_end() as usize) as i64;
                let max_bytes = below(600_000);
                let max_offset = [log.log_end(), sealed_end, offset + 1][below(3)];
                let min_one = below(2) == 0;
                let Some(region) = log.find_region(offset, max_bytes, max_offset, min_one).await else {
                    without +=
                        usize::from(max_bytes > 300_000 && max_offset >= sealed_end && offset < sealed_end);
                    continue;
                };
                regions += 1;
                assert!(offset < sealed_end, "the active segment is written to");
                let bytes = content(&log, offset, region.range()).await;
                let batches = split(&bytes.clone().into()).expect("whole batches");
                let (first, last) = (&batches[0].0, &batches[batches.len() - 1].0);
                assert!(
                    first.base_offset <= offset && offset <= first.last_offset(),
                    "it starts with the right one"
                );
                assert!(last.last_offset() < max_offset, "nothing beyond what may be seen");
                assert!(
                    region.len() <= max_bytes || (min_one && batches.len() == 1),
                    "{} of {max_bytes}",
                    region.len()
                );
                assert!(region.len() >= REGION_BYTES_MIN);
                let read = log.read(offset, region.len(), max_offset, false).await.expect("read");
                assert!(
                    read.bytes > 0 && bytes.starts_with(&read.parts.concat()),
                    "the bytes that a read gives"
                );
                let more = log.read(offset, max_bytes, max_offset, min_one).await.expect("read");
                let missed = more.bytes.saturating_sub(region.len());
                assert!(missed < 122_000 * 3 + 500, "{missed} bytes less than there are");
            }
            (regions, without)
        });
        found += regions;
        unsuited += without;
    }
    assert!(found > 100 && unsuited > 10, "{found} regions, {unsuited} systems not up to it");
}

/// contract F1
#[test]
fn a_batch_larger_than_the_limit_is_a_region_where_one_is_wanted_whatever_its_size() {
    block_on(1, async {
        make_data_dir().await;
        let batch = spec(300_000).bytes().len();
        let region = region_of_some_log(70_000, true).await.expect("some system is up to it");
        let small = spec(10).bytes().len() as u64;
        assert_eq!(region.range(), small..small + batch as u64);
        assert!(region_of_some_log(70_000, false).await.is_none());
        assert!(region_of_some_log(REGION_BYTES_MIN - 1, true).await.is_none(), "too little to be worth it");
    });
}

#[test]
fn a_log_that_was_cut_and_has_grown_again_gives_regions_of_what_it_holds_now() {
    let mut found = 0;
    for seed in 0..10 {
        found += block_on(seed, async {
            let log = filled(3).await;
            let before = log.find_region(0, 500_000, log.log_end(), true).await;
            let cut = log.segments()[1].base_offset / 2;
            log.truncate_to(cut).await.expect("cut");
            assert!(log.find_region(0, 500_000, cut, true).await.is_none(), "it is written to again");
            while log.sizes().segments < 2 {
                append(&log, &BatchSpec { value: vec![b'w'; 70_000], ..BatchSpec::default() });
            }
            settle(&log).await;
            let Some(after) = log.find_region(0, 900_000, log.log_end(), true).await else { return 0 };
            let read = log.read(0, after.len(), log.log_end(), false).await.expect("read");
            assert!(content(&log, 0, after.range()).await == read.parts.concat());
            usize::from(before.is_some())
        });
    }
    assert!(found > 0, "regions before and after a cut");
}

#[test]
fn descriptors_for_regions_are_closed_when_nobody_reads_and_when_there_are_too_many() {
    let mut swept = 0;
    for seed in 0..10 {
        swept += block_on(seed, async {
            let log = filled(6).await;
            let cached = || {
                let state = log.state.borrow();
                state.segments.iter().filter(|segment| segment.is_cached()).count()
            };
            for segment in &log.segments()[..5] {
                log.find_region(segment.base_offset, 800_000, log.log_end(), true).await;
                // The tests' context keeps three files open, and each segment here has one for each way.
                assert!(cached() <= 3);
            }
            let open = cached();
            log.home.context().sweep_idle();
            assert_eq!(cached(), open, "readers may come back");
            time::sleep(Duration::from_secs(31)).await;
            log.home.context().sweep_idle();
            assert_eq!(cached(), 0);
            open
        });
    }
    assert!(swept > 0, "some were open");
}
