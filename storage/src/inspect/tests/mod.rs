//! Looking at logs on a simulated disk.

mod damage;
mod recovery;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use heizer_runtime::fs;

use super::{Finding, PartitionDir, Severity, Summary, Target, Verifier};
use crate::config::LogConfig;
use crate::context::{StorageContext, StorageLimits};
use crate::dir::LogDir;
use crate::log::{AppendOrigin, Log, OpenMode, RecoveryReport};
use crate::testing::BatchSpec;

const DATA: &str = "/data";
const NAME: &str = "topic-0";
const DIR: &str = "/data/topic-0";
const TOPIC_ID: [u8; 16] = [7; 16];

async fn open(segment_bytes: u32) -> (Rc<Log>, RecoveryReport) {
    fs::create_dir_all(Path::new(DATA)).await.expect("a data directory");
    fs::sync_dir(Path::new("/")).await.expect("a root");
    let home = LogDir::new(Path::new(DATA), StorageContext::new(StorageLimits::default()));
    home.open_checkpoints().await.expect("a checkpoint log");
    let config = LogConfig { segment_bytes, index_interval_bytes: 500, ..LogConfig::default() };
    Log::open(&home, NAME, TOPIC_ID, config, OpenMode::Unclean).await.expect("open")
}

fn append(log: &Log, at: i64, epoch: i32) {
    let spec = BatchSpec {
        value: vec![b'v'; 300],
        timestamp: 1000 + at * 10 - (at % 3) * 15,
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: i32::try_from(at * 3).expect("small"),
        ..BatchSpec::default()
    };
    log.append(&spec.records(3).bytes(), epoch, AppendOrigin::Client, 1000).expect("append");
}

/// A closed log of several segments and two epochs, 60 batches of three records each.
async fn closed_log() {
    let (log, _) = open(10_000).await;
    for at in 0..60 {
        if at % 20 == 0 {
            log.assign_epoch(i32::try_from(at / 20).expect("small"));
        }
        append(&log, at, i32::try_from(at / 20).expect("small"));
    }
    log.flush().await.expect("flush");
    log.close().await.expect("close");
}

async fn partition() -> PartitionDir {
    match Target::find(Path::new(DIR)).await.expect("there") {
        Target::Partition(partition) => partition,
        other => panic!("{other:?}"),
    }
}

/// What is found in the directory, and what was looked at.
async fn verify() -> (Vec<Finding>, Summary) {
    let found = RefCell::new(Vec::new());
    let tell = |finding| found.borrow_mut().push(finding);
    let mut verifier = Verifier::new(&tell, &|_, _| ());
    verifier.partition(&partition().await).await.expect("readable");
    let summary = verifier.summary();
    (found.into_inner(), summary)
}

/// Only the errors.
async fn errors() -> Vec<Finding> {
    verify().await.0.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

async fn names(suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(DIR)).await.expect("listed");
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
}
