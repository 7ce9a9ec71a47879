//! Compaction on the simulated disk, and its pure parts.

mod batches;
mod cases;
mod model;

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use heizer_runtime::fs;
use heizer_wire::record_batch::{
    BatchHeader, BatchOptions, BatchView, Compression, Record, RecordBatchBuilder, batches,
};

use super::{CompactError, CompactLimits, CompactReport, Pace};
use crate::config::LogConfig;
use crate::context::{StorageContext, StorageLimits};
use crate::dir::LogDir;
use crate::log::{AppendInfo, AppendOrigin, Log, OpenMode, RecoveryReport};

const DATA: &str = "/data";
const NAME: &str = "table-0";
const DIR: &str = "/data/table-0";
const TOPIC_ID: [u8; 16] = [7; 16];
const MAP_BYTES: usize = 64 << 10;
const BYTES_MAX: usize = 1 << 20;

/// A key with its value; without one it is a tombstone.
type Pair<'a> = (&'a str, Option<&'a str>);

fn config() -> LogConfig {
    LogConfig {
        cleanup_compact: true,
        cleanup_delete: false,
        segment_bytes: 20_000,
        index_interval_bytes: 200,
        delete_retention_ms: 1_000,
        ..LogConfig::default()
    }
}

async fn home() -> Rc<LogDir> {
    let limits = StorageLimits { tail_cache_max: 64 << 10, index_cache_max: 2048, open_files_max: 3 };
    let home = LogDir::new(Path::new(DATA), StorageContext::new(limits));
    home.open_checkpoints().await.expect("checkpoints");
    home
}

async fn open(config: LogConfig, mode: OpenMode) -> (Rc<Log>, RecoveryReport) {
    Log::open(&home().await, NAME, TOPIC_ID, config, mode).await.expect("open")
}

async fn create(config: LogConfig) -> Rc<Log> {
    fs::create_dir_all(Path::new(DATA)).await.expect("a data directory");
    fs::sync_dir(Path::new("/")).await.expect("a root");
    open(config, OpenMode::Unclean).await.0
}

/// A batch of `pairs`, the i-th at `timestamp + i`.
fn batch(options: BatchOptions, timestamp: i64, pairs: &[Pair<'_>]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(options);
    for (at, (key, value)) in (0..).zip(pairs) {
        let headers: [(&[u8], Option<&[u8]>); 1] = [(b"name", Some(key.as_bytes()))];
        builder.append(timestamp + at, Some(key.as_bytes()), value.map(str::as_bytes), &headers);
    }
    builder.build()
}

fn compressed(compression: Compression) -> BatchOptions {
    BatchOptions { compression, ..BatchOptions::default() }
}

fn sequenced(producer_id: i64, base_sequence: i32) -> BatchOptions {
    BatchOptions { producer_id, producer_epoch: 0, base_sequence, ..BatchOptions::default() }
}

fn append(log: &Log, batch: &Bytes) -> AppendInfo {
    log.append(batch, 0, AppendOrigin::Client, 1_000).expect("append")
}

fn put(log: &Log, timestamp: i64, pairs: &[Pair<'_>]) -> AppendInfo {
    append(log, &batch(BatchOptions::default(), timestamp, pairs))
}

/// Rolls, so that everything so far can be cleaned, and waits until it is sealed.
async fn seal(log: &Log) {
    log.roll(1_000);
    put(log, 1_000, &[("last", Some("of all"))]);
    log.flush().await.expect("flush");
    assert!(log.segments().iter().rev().skip(1).all(|segment| segment.sealed));
}

fn limits(map_bytes: usize) -> CompactLimits {
    CompactLimits { map_bytes, pace: Pace::new(100, f64::INFINITY) }
}

async fn compact(log: &Log, now_ms: i64) -> CompactReport {
    let compacted = log.compact(now_ms, log.log_end(), &mut limits(MAP_BYTES)).await;
    compacted.expect("a round").expect("something is dirty")
}

/// Every batch from `from` on.
async fn read_batches(log: &Log, from: i64) -> Vec<BatchView> {
    let (mut at, end) = (from, log.log_end());
    let mut all = Vec::new();
    while at < end {
        let read = log.read(at, 5_000, end, true).await.expect("read");
        assert!(read.bytes > 0 && read.next_offset > at, "no progress at {at} of {end}");
        for batch in batches(read.parts.concat().into()) {
            let batch = batch.expect("whole batches");
            batch.verify_crc().expect("a right CRC");
            all.push(batch);
        }
        at = read.next_offset;
    }
    all
}

fn records(batches: &[BatchView]) -> Vec<Record> {
    let of =
        |batch: &BatchView| batch.records(BYTES_MAX).expect("records").map(|record| record.expect("sound"));
    batches.iter().flat_map(of).collect()
}

/// Offsets, keys and values of what the log holds, markers left out.
async fn contents(log: &Log) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let mut batches = read_batches(log, log.log_start()).await;
    batches.retain(|batch| !batch.header().is_control());
    let found = records(&batches);
    found
        .iter()
        .map(|record| {
            (record.offset, text(record.key.as_ref().expect("a key")), record.value.as_ref().map(text))
        })
        .collect()
}

async fn names() -> Vec<String> {
    // A log without data has no directory.
    let entries = fs::read_dir(Path::new(DIR)).await.unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn headers(batches: &[BatchView]) -> Vec<BatchHeader> {
    batches.iter().map(|batch| *batch.header()).collect()
}

fn is_damaged(error: &CompactError) -> bool {
    matches!(error, CompactError::Damaged { .. })
}
