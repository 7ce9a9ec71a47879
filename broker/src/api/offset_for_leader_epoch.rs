//! OffsetForLeaderEpoch (23): where an epoch ends (KIP-101, contract L5).

use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

use super::{Call, error_code};
use crate::error::PartitionError;
use crate::metadata::TopicImage;
use crate::shard::here;

pub(super) async fn handle(call: Call, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let image = call.shard.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.topic_named(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            partitions.push(one(&call, found.map(|found| &**found), partition).await);
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

async fn one(call: &Call, topic: Option<&TopicImage>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let blank = EpochEndOffset { partition: asked.partition, ..EpochEndOffset::default() };
    let Some(topic) = topic else {
        return EpochEndOffset { error_code: ErrorCode::UnknownTopicOrPartition.into(), ..blank };
    };
    let (topic_id, index) = (topic.record.id, asked.partition);
    let (current, epoch) = (asked.current_leader_epoch, asked.leader_epoch);
    let owner = call.shard.node().owner(topic_id, index);
    let found = cores::call(owner, move || async move {
        let partition = here().partition(topic_id, index)?;
        partition.check_epoch(current)?;
        Ok::<_, PartitionError>(partition.log().end_offset_for_epoch(epoch))
    });
    match found.await.map_err(PartitionError::from).and_then(|found| found) {
        // Undefined: -1 and -1, which is no error.
        Ok(None) => blank,
        Ok(Some(end)) => EpochEndOffset { leader_epoch: end.epoch, end_offset: end.end_offset, ..blank },
        Err(error) => EpochEndOffset { error_code: error_code(&error).into(), ..blank },
    }
}
