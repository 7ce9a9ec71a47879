//! OffsetDelete (47): a group forgets what it has committed for partitions (KIP-496).

use std::collections::BTreeMap;

use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};

use super::Call;
use super::groups::submit;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, mut request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let asked = request.topics.clone();
    let image = call.shard.image();
    // Partitions that do not exist are refused here. The coordinator is asked even if no others are left: what is wrong
    // with the group is told first.
    for topic in &mut request.topics {
        let there = image.topic_named(&topic.name).map_or(0, |found| found.partitions.len());
        topic.partitions.retain(|row| usize::try_from(row.partition_index).is_ok_and(|index| index < there));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    let group = request.group_id.clone();
    match submit(&call, &group, GroupRequest::OffsetDelete(request)).await {
        Ok(Answer::OffsetDelete(response)) if response.error_code == 0 => merge(asked, &response),
        Ok(Answer::OffsetDelete(refused)) => refused,
        Ok(other) => unreachable!("the coordinator answered an OffsetDelete with {other:?}"),
        Err(code) => OffsetDeleteResponse { error_code: code.into(), ..OffsetDeleteResponse::default() },
    }
}

/// A row for everything that was asked, in order: the coordinator's, and others for what it was not asked.
fn merge(asked: Vec<OffsetDeleteRequestTopic>, response: &OffsetDeleteResponse) -> OffsetDeleteResponse {
    let mut codes = BTreeMap::new();
    for topic in &response.topics {
        for row in &topic.partitions {
            codes.insert((&topic.name, row.partition_index), row.error_code);
        }
    }
    let unknown: i16 = ErrorCode::UnknownTopicOrPartition.into();
    let topics = asked.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|row| {
            let partition_index = row.partition_index;
            let error_code = codes.get(&(&topic.name, partition_index)).copied().unwrap_or(unknown);
            OffsetDeleteResponsePartition { partition_index, error_code }
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic { name: topic.name, partitions }
    });
    OffsetDeleteResponse { topics: topics.collect(), ..OffsetDeleteResponse::default() }
}
