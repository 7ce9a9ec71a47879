//! What the parts of a log cost, through the crate's public API on real files.
//!
//!     cargo bench -p heizer-storage --bench logs [-- NAME]
//!
//! Files go below `HEIZER_BENCH_DIR`, or the system's temporary directory; on a memory file system the flushes say
//! nothing. Each subject is a function, listed at the end of the file.

#![expect(missing_docs, reason = "what criterion generates has none")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use heizer_runtime::{fs, host, time};
use heizer_storage::{AppendOrigin, Level, Log, LogConfig, LogDir, OpenMode, StorageContext, StorageLimits};
use heizer_wire::record_batch::{BatchOptions, RecordBatchBuilder};

const NAME: &str = "bench-0";
const TOPIC_ID: [u8; 16] = [7; 16];
const BATCH_SIZES: [(&str, usize); 2] = [("1 KiB", 1 << 10), ("64 KiB", 64 << 10)];
/// What is appended in memory is written before it is more than this; the time for that does not count.
const UNWRITTEN_BYTES_MAX: usize = 8 << 20;
/// The log that is recovered and looked up in.
const LOG_BYTES: usize = 64 << 20;
const LOG_BATCH_BYTES: usize = 4 << 10;

/// One record, `bytes` long with everything.
fn batch(bytes: usize, timestamp: i64) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions::default());
    builder.append(timestamp, None, Some(&vec![b'v'; bytes - 80]), &[]);
    builder.build()
}

async fn open(dir: &Path, level: Level, segment_bytes: u32) -> Rc<Log> {
    let home = LogDir::new(dir, StorageContext::new(StorageLimits::default()));
    let config = LogConfig { durability: Some(level), segment_bytes, ..LogConfig::default() };
    Log::open(&home, NAME, TOPIC_ID, config, OpenMode::Unclean).await.expect("open").0
}

fn append_one(log: &Log, batch: &Bytes) {
    log.append(batch, 0, AppendOrigin::Client, 1000).expect("append");
}

/// A directory that goes when it is dropped.
fn directory() -> tempfile::TempDir {
    match std::env::var_os("HEIZER_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).expect("a directory"),
        None => tempfile::tempdir().expect("a directory"),
    }
}

/// Runs `work` on a real core and gives the time that it took by its own account.
fn timed<F, Fut>(work: F) -> Duration
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = Duration> + 'static,
{
    host::block_on(work).expect("a core")
}

fn appends_in_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append in memory");
    for (name, bytes) in BATCH_SIZES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let dir = directory();
                let path = dir.path().to_owned();
                timed(move || append_in_memory(path.clone(), bytes, iterations))
            });
        });
    }
}

async fn append_in_memory(dir: PathBuf, bytes: usize, iterations: u64) -> Duration {
    let log = open(&dir, Level::Memory, 1 << 30).await;
    let batch = batch(bytes, 1000);
    let (mut took, mut left) = (Duration::ZERO, iterations);
    while left > 0 {
        let round = left.min((UNWRITTEN_BYTES_MAX / bytes) as u64);
        let start = time::now();
        (0..round).for_each(|_| append_one(&log, &batch));
        took += time::now().saturating_duration_since(start);
        left -= round;
        log.flush().await.expect("flush");
    }
    log.delete().await.expect("delete");
    took
}

fn durable_appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append and flush");
    for (name, bytes) in BATCH_SIZES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let dir = directory();
                let path = dir.path().to_owned();
                timed(move || append_durably(path.clone(), bytes, iterations))
            });
        });
    }
}

async fn append_durably(dir: PathBuf, bytes: usize, iterations: u64) -> Duration {
    let log = open(&dir, Level::Durable, 1 << 30).await;
    let batch = batch(bytes, 1000);
    // The first write makes the file.
    append_one(&log, &batch);
    log.flush().await.expect("flush");
    let start = time::now();
    for _ in 0..iterations {
        append_one(&log, &batch);
        log.flush().await.expect("flush");
    }
    let took = time::now().saturating_duration_since(start);
    log.delete().await.expect("delete");
    took
}

/// A log of [`LOG_BYTES`], left as a crash would leave it, or closed; a batch each 10 ms.
fn make_log(dir: &Path, segment_bytes: u32, close: bool) {
    let dir = dir.to_owned();
    let make = move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, Level::Written, segment_bytes).await;
            for at in 0..LOG_BYTES / LOG_BATCH_BYTES {
                append_one(&log, &batch(LOG_BATCH_BYTES, 10 * at as i64));
                if at % 1024 == 1023 {
                    log.flush().await.expect("flush");
                }
            }
            log.flush().await.expect("flush");
            if close {
                log.close().await.expect("close");
            }
        }
    };
    host::block_on(make).expect("a core");
}

fn recovery(criterion: &mut Criterion) {
    let dir = directory();
    make_log(dir.path(), 1 << 30, false);
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Bytes(LOG_BYTES as u64));
    group.bench_function("scan of an unsealed segment", |bencher| {
        bencher.iter_custom(|iterations| {
            let path = dir.path().to_owned();
            timed(move || recover(path.clone(), iterations))
        });
    });
}

async fn recover(dir: PathBuf, iterations: u64) -> Duration {
    let start = time::now();
    for _ in 0..iterations {
        let log = open(&dir, Level::Durable, 1 << 30).await;
        assert_eq!(log.log_end(), (LOG_BYTES / LOG_BATCH_BYTES) as i64, "nothing was cut");
    }
    time::now().saturating_duration_since(start)
}

fn lookups(criterion: &mut Criterion) {
    let dir = directory();
    make_log(dir.path(), 16 << 20, true);
    let mut group = criterion.benchmark_group("look up");
    group.bench_function("offset, and read its batch from the disk", |bencher| {
        bencher.iter_custom(|iterations| {
            let path = dir.path().to_owned();
            timed(move || look_up(path.clone(), iterations, false))
        });
    });
    group.bench_function("timestamp", |bencher| {
        bencher.iter_custom(|iterations| {
            let path = dir.path().to_owned();
            timed(move || look_up(path.clone(), iterations, true))
        });
    });
}

async fn look_up(dir: PathBuf, iterations: u64, by_time: bool) -> Duration {
    let log = open(&dir, Level::Durable, 16 << 20).await;
    let end = log.log_end();
    // Spread over the log, without two neighbours in a row.
    let offset = |at: u64| (at.wrapping_mul(7_919) % end.unsigned_abs()).cast_signed();
    // The indexes come into memory with their first use.
    log.max_timestamp(end).await.expect("look up");
    let start = time::now();
    for at in 0..iterations {
        let wanted = offset(at);
        if by_time {
            let found = log.offset_for_timestamp(10 * wanted, end).await.expect("look up");
            assert_eq!(found.map(|found| found.offset), Some(wanted));
        } else {
            let read = log.read(wanted, 1, end, true).await.expect("read");
            assert_eq!(read.first_offset, wanted);
        }
    }
    let took = time::now().saturating_duration_since(start);
    // As it was, for the next one.
    fs::sync_dir(&dir).await.expect("sync");
    log.close().await.expect("close");
    took
}

fn few_samples() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

// Each subject is a function above; a new one, such as compaction, is named here.
criterion_group! {
    name = logs;
    config = few_samples();
    targets = appends_in_memory, durable_appends, recovery, lookups
}
criterion_main!(logs);
