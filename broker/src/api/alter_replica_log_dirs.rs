//! AlterReplicaLogDirs (34): partitions move to other data directories of this broker (KIP-113).

use std::path::Path;

use bytestring::ByteString;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};

use super::{Call, error_code};
use crate::error::PartitionError;
use crate::shard::here;

pub(super) async fn handle(call: Call, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for dir in &request.dirs {
        for topic in &dir.topics {
            for partition_index in &topic.partitions {
                let moved = move_one(&call, &dir.path, &topic.name, *partition_index).await;
                let error_code = moved.err().unwrap_or(ErrorCode::None).into();
                let result =
                    AlterReplicaLogDirPartitionResult { partition_index: *partition_index, error_code };
                match results.iter_mut().find(|answer| answer.topic_name == topic.name) {
                    Some(answer) => answer.partitions.push(result),
                    None => results.push(AlterReplicaLogDirTopicResult {
                        topic_name: topic.name.clone(),
                        partitions: vec![result],
                    }),
                }
            }
        }
    }
    AlterReplicaLogDirsResponse { results, ..AlterReplicaLogDirsResponse::default() }
}

/// Has the move begin; whether it ends well DescribeLogDirs tells.
async fn move_one(call: &Call, path: &ByteString, topic: &ByteString, index: i32) -> Result<(), ErrorCode> {
    let shard = &call.shard;
    if !heizer_storage::can_be_moved(&format!("{topic}-{index}")) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let to = shard.dir_at(Path::new(&**path)).ok_or(ErrorCode::LogDirNotFound)?;
    if shard.dir(to).log_dir.failure().is_some() {
        return Err(ErrorCode::KafkaStorageError);
    }
    let image = shard.image();
    let known = image
        .topic_named(topic)
        .filter(|topic| usize::try_from(index).is_ok_and(|at| at < topic.partitions.len()));
    let topic_id = known.ok_or(ErrorCode::UnknownTopicOrPartition)?.record.id;
    let owner = shard.node().owner(topic_id, index);
    let called =
        cores::call(owner, move || async move { here().move_partition(topic_id, index, to).await }).await;
    match called.map_err(PartitionError::from).and_then(|moved| moved) {
        Ok(()) => Ok(()),
        // Kafka's name for a partition that is not open here, in this API.
        Err(PartitionError::NotLeader) => Err(ErrorCode::ReplicaNotAvailable),
        Err(error) => Err(error_code(&error)),
    }
}
