//! DescribeLogDirs (35): the data directories and what is in them (KIP-113).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heizer_runtime::{cores, fs};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};

use super::Call;
use crate::shard::{Replica, ShardDir, here};

pub(super) async fn handle(call: Call, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted: Option<BTreeSet<(String, i32)>> = request.topics.map(|topics| {
        let named = topics.into_iter().flat_map(|topic| {
            topic.partitions.into_iter().map(move |partition| (topic.topic.to_string(), partition))
        });
        named.collect()
    });
    let wanted = Arc::new(wanted);
    let found = cores::call_all(move || {
        let wanted = wanted.clone();
        async move {
            here().replicas(|topic, partition| match &*wanted {
                None => true,
                Some(wanted) => wanted.contains(&(topic.to_owned(), partition)),
            })
        }
    });
    let Ok(found) = found.await else {
        let error_code = ErrorCode::UnknownServerError.into();
        return DescribeLogDirsResponse { error_code, ..DescribeLogDirsResponse::default() };
    };
    let replicas: Vec<Replica> = found.into_iter().flatten().collect();
    let mut results = Vec::new();
    for (at, dir) in call.shard.dirs().iter().enumerate() {
        results.push(describe(dir, replicas.iter().filter(|replica| replica.dir == at)).await);
    }
    DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() }
}

async fn describe(dir: &ShardDir, replicas: impl Iterator<Item = &Replica>) -> DescribeLogDirsResult {
    let path = dir.log_dir.path();
    let blank =
        DescribeLogDirsResult { log_dir: path.to_string_lossy().into_owned().into(), ..Default::default() };
    if dir.log_dir.failure().is_some() {
        return DescribeLogDirsResult { error_code: ErrorCode::KafkaStorageError.into(), ..blank };
    }
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in replicas {
        topics.entry(&replica.topic).or_default().push(DescribeLogDirsPartition {
            partition_index: replica.partition,
            partition_size: i64::try_from(replica.bytes).unwrap_or(i64::MAX),
            offset_lag: replica.offset_lag,
            is_future_key: replica.is_future,
        });
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name: name.into(), partitions }
    });
    // -1 where the file system does not say.
    let bytes = |asked: std::io::Result<u64>| asked.ok().and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
    DescribeLogDirsResult {
        topics: topics.collect(),
        total_bytes: bytes(fs::total_bytes(path).await),
        usable_bytes: bytes(fs::free_bytes(path).await),
        ..blank
    }
}
