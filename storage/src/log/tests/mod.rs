//! The log on a simulated disk.

mod cases;
mod checkpoints;
mod explore;
mod full_disk;
mod moving;
mod recycling;
mod region;
mod settings;
mod shared;

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use heizer_runtime::fs;
use heizer_wire::record_batch::{set_base_offset, set_partition_leader_epoch};

use super::{AppendInfo, AppendOrigin, Log, OpenMode, RecoveryReport};
use crate::config::LogConfig;
use crate::context::{StorageContext, StorageLimits};
use crate::dir::LogDir;
use crate::testing::BatchSpec;

const DATA: &str = "/data";
const NAME: &str = "topic-0";
const DIR: &str = "/data/topic-0";
const TOPIC_ID: [u8; 16] = [7; 16];

fn home(tail_cache_max: usize) -> Rc<LogDir> {
    let limits = StorageLimits { tail_cache_max, index_cache_max: 2048, open_files_max: 3 };
    LogDir::new(Path::new(DATA), StorageContext::new(limits))
}

/// A home with a checkpoint log.
async fn noting_home(tail_cache_max: usize) -> Rc<LogDir> {
    let home = home(tail_cache_max);
    home.open_checkpoints().await.expect("a checkpoint log");
    home
}

async fn make_data_dir() {
    fs::create_dir_all(Path::new("/data")).await.expect("a data directory");
    fs::sync_dir(Path::new("/")).await.expect("a root");
}

async fn create(config: LogConfig) -> Rc<Log> {
    make_data_dir().await;
    open(config, OpenMode::Unclean).await.0
}

async fn open(config: LogConfig, mode: OpenMode) -> (Rc<Log>, RecoveryReport) {
    Log::open(&home(64 << 10), NAME, TOPIC_ID, config, mode).await.expect("open")
}

fn small(segment_bytes: u32) -> LogConfig {
    LogConfig { segment_bytes, index_interval_bytes: 500, ..LogConfig::default() }
}

fn append(log: &Log, spec: &BatchSpec) -> AppendInfo {
    log.append(&spec.bytes(), 0, AppendOrigin::Client, 1000).expect("append")
}

/// What the log holds for `spec` once it was appended at `base_offset` in epoch `leader_epoch`.
fn stored(spec: &BatchSpec, base_offset: i64, leader_epoch: i32) -> Bytes {
    let mut bytes = spec.bytes().to_vec();
    set_base_offset(&mut bytes, base_offset);
    set_partition_leader_epoch(&mut bytes, leader_epoch);
    bytes.into()
}

async fn read_all(log: &Log, max_bytes: usize) -> Vec<u8> {
    let (mut at, end) = (log.log_start(), log.log_end());
    let mut all = Vec::new();
    while at < end {
        let read = log.read(at, max_bytes, end, true).await.expect("read");
        assert!(read.bytes > 0 && read.next_offset > at, "no progress at {at} of {end}");
        all.extend(read.parts.concat());
        at = read.next_offset;
    }
    all
}
