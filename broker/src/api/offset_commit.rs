//! OffsetCommit (8).

use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};

use super::Call;
use super::groups::{ensure_offsets_topic, submit};
use crate::coordinator::Answer;
use crate::metadata::MetadataImage;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, mut request: OffsetCommitRequest) -> OffsetCommitResponse {
    let asked = request.topics.clone();
    let image = call.shard.image();
    // Partitions that do not exist are refused here; the coordinator sees the others alone.
    for topic in &mut request.topics {
        let name = topic.name.clone();
        topic.partitions.retain(|partition| exists(&image, &name, partition.partition_index));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    if request.topics.is_empty() && !asked.is_empty() {
        return merge(&image, &asked, Ok(OffsetCommitResponse::default()));
    }
    let group = request.group_id.clone();
    // A simple consumer commits without having looked for the coordinator's topic.
    let ensured = ensure_offsets_topic(&call).await;
    let answer = match ensured {
        Ok(()) => submit(&call, &group, GroupRequest::OffsetCommit(request, call.version)).await,
        Err(code) => Err(code),
    };
    match answer {
        Ok(Answer::OffsetCommit(response)) => merge(&image, &asked, Ok(response)),
        Ok(other) => unreachable!("the coordinator answered an OffsetCommit with {other:?}"),
        Err(code) => merge(&image, &asked, Err(code)),
    }
}

fn exists(image: &MetadataImage, topic: &str, partition: i32) -> bool {
    image
        .topic_named(topic)
        .is_some_and(|topic| usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len()))
}

/// A row for everything that was asked, in order.
fn merge(
    image: &MetadataImage,
    asked: &[OffsetCommitRequestTopic],
    answer: Result<OffsetCommitResponse, ErrorCode>,
) -> OffsetCommitResponse {
    let code = |topic: &str, partition: i32| -> i16 {
        if !exists(image, topic, partition) {
            return ErrorCode::UnknownTopicOrPartition.into();
        }
        match &answer {
            Err(code) => (*code).into(),
            Ok(response) => response
                .topics
                .iter()
                .filter(|row| *row.name == *topic)
                .flat_map(|row| &row.partitions)
                .find(|row| row.partition_index == partition)
                .map_or(ErrorCode::UnknownServerError.into(), |row| row.error_code),
        }
    };
    let topics = asked.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|row| OffsetCommitResponsePartition {
                partition_index: row.partition_index,
                error_code: code(&topic.name, row.partition_index),
            })
            .collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() }
}
