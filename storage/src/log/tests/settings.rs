//! Settings that change while a log is open, beside appends, flushes and compaction.

use std::time::Duration;

use heizer_runtime::sim::{Sim, block_on};
use heizer_runtime::{task, time};

use super::*;
use crate::config::{FLUSH_UNSET, Level};

fn spec(value_bytes: usize) -> BatchSpec {
    BatchSpec { value: vec![b'v'; value_bytes], ..BatchSpec::default() }
}

fn at_level(level: Level) -> LogConfig {
    LogConfig { durability: Some(level), ..small(100_000) }
}

/// contract L8: nothing is acknowledged at a lower level than the one in force.
#[test]
fn who_waits_while_the_level_is_raised_waits_for_the_higher_one() {
    let mut raised_in_time = 0;
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let (waited, durable) = sim.run(node, async {
            let log = create(at_level(Level::Written)).await;
            append(&log, &spec(10));
            log.wait_end_at_own(Level::Durable, 1).await.expect("written");
            append(&log, &spec(10));
            let waiting = {
                let log = log.clone();
                task::spawn(async move { log.wait_end_at_own(Level::Durable, 2).await })
            };
            task::yield_now().await;
            let waits = log.end_at(Level::Written) < 2;
            log.set_config(at_level(Level::Durable));
            waiting.await.expect("no panic").expect("at its level");
            let durable = log.end_at(Level::Durable);
            // What asks for less than the log's level does not wait for that.
            append(&log, &spec(10));
            log.wait_end_at_own(Level::Written, 3).await.expect("written");
            (waits, durable)
        });
        assert!(durable == 2 || !waited, "seed {seed}: acknowledged with {durable} of 2 durable");
        raised_in_time += u32::from(waited);
        sim.crash(node);
        let end = sim.run(node, async { open(small(100_000), OpenMode::Unclean).await.0.log_end() });
        assert!(end >= durable, "seed {seed}: {end} of {durable} are left");
    }
    assert!(raised_in_time > 0, "the write was never under way");
}

#[test]
fn who_waits_while_the_level_is_lowered_is_answered_at_the_lower_one() {
    block_on(2, async {
        let log = create(at_level(Level::Written)).await;
        append(&log, &spec(10));
        log.wait_end_at(Level::Written, 1).await.expect("written");
        let waiting = {
            let log = log.clone();
            task::spawn(async move { log.wait_end_at_own(Level::Durable, 2).await })
        };
        task::yield_now().await;
        append(&log, &spec(10));
        log.set_config(at_level(Level::Memory));
        waiting.await.expect("no panic").expect("in memory");
        assert_eq!((log.level(), log.end_at(Level::Durable)), (Level::Memory, 0));
    });
}

#[test]
fn flush_ms_that_comes_later_bounds_what_is_unsynced_already() {
    block_on(3, async {
        let log = create(at_level(Level::Written)).await;
        append(&log, &spec(10));
        log.wait_end_at(Level::Written, 1).await.expect("written");
        time::sleep(Duration::from_secs(5)).await;
        assert_eq!(log.end_at(Level::Durable), 0, "nothing bounds it");
        log.set_config(LogConfig { flush_ms: 300, ..at_level(Level::Written) });
        time::sleep(Duration::from_millis(400)).await;
        assert_eq!(log.end_at(Level::Durable), 1);
        // And none is left behind when the bound goes again.
        log.set_config(LogConfig { flush_ms: FLUSH_UNSET, ..at_level(Level::Written) });
        append(&log, &spec(10));
        log.wait_end_at(Level::Written, 2).await.expect("written");
        time::sleep(Duration::from_secs(5)).await;
        assert_eq!(log.end_at(Level::Durable), 1);
    });
}

/// contract L6
#[test]
fn a_smaller_segment_size_holds_from_the_next_append_on_and_loses_nothing() {
    block_on(4, async {
        let log = create(small(100_000)).await;
        for _ in 0..10 {
            append(&log, &spec(3_000));
        }
        log.flush().await.expect("flush");
        append(&log, &spec(3_000));
        // In the middle of a flush.
        log.set_config(small(5_000));
        for _ in 0..4 {
            append(&log, &spec(3_000));
        }
        log.flush().await.expect("flush");
        let bytes: Vec<u64> = log.segments().iter().map(|segment| segment.bytes).collect();
        assert_eq!(bytes.len(), 5, "{bytes:?}");
        assert!(bytes[1..].iter().all(|bytes| *bytes <= 5_000), "{bytes:?}");
        log.set_config(small(1_000_000));
        append(&log, &spec(3_000));
        log.flush().await.expect("flush");
        assert_eq!(log.sizes().segments, 5, "and a larger one as well");
        assert_eq!(read_all(&log, 5_000).await.len() as u64, log.sizes().bytes);
        log.close().await.expect("close");
        let (log, report) = open(small(2_000), OpenMode::Clean).await;
        assert_eq!((log.log_end(), report.scanned_bytes), (16, 0));
        assert_eq!(read_all(&log, 5_000).await.len() as u64, log.sizes().bytes);
    });
}
