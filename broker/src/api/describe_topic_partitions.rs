//! DescribeTopicPartitions (75): topics and their partitions, a bounded number of them in each answer (KIP-966).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribeTopicPartitionsCursor, DescribeTopicPartitionsNextCursor, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use super::metadata::TOPIC_OPERATIONS;
use super::{Call, topics};
use crate::metadata::{MetadataImage, PartitionState, TopicImage, check_topic_name};
use crate::shard::wire_name;

pub(super) async fn handle(
    call: Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let named: BTreeSet<ByteString> = request.topics.into_iter().map(|topic| topic.name).collect();
    if let Some(cursor) = &request.cursor
        && (cursor.partition_index < 0 || !named.is_empty() && !named.contains(&cursor.topic_name))
    {
        // There is no place for the error but at topics.
        let topics = if named.is_empty() { BTreeSet::from([cursor.topic_name.clone()]) } else { named };
        let refused = topics.into_iter().map(|name| refusal(name, ErrorCode::InvalidRequest));
        return DescribeTopicPartitionsResponse { topics: refused.collect(), ..Default::default() };
    }
    let max = call.shard.config().request_partitions_max as i32;
    let limit = request.response_partition_limit.min(max).max(1);
    let image = call.shard.image();
    let mut page = Page { image: &image, left: limit as usize, topics: Vec::new(), next: None };
    match named.is_empty() {
        true => page.add_all(request.cursor),
        false => page.add_named(named, request.cursor),
    }
    let next_cursor = page.next.map(|(topic_name, partition_index)| DescribeTopicPartitionsNextCursor {
        topic_name,
        partition_index,
    });
    DescribeTopicPartitionsResponse { topics: page.topics, next_cursor, ..Default::default() }
}

/// An answer in the making.
struct Page<'a> {
    image: &'a MetadataImage,
    /// Partitions that still fit.
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Where the next answer has to begin.
    next: Option<(ByteString, i32)>,
}

impl Page<'_> {
    /// Every topic from the cursor on, in order of their names.
    fn add_all(&mut self, cursor: Option<DescribeTopicPartitionsCursor>) {
        let (from, first) = start(cursor);
        let mut topics: Vec<&Arc<TopicImage>> =
            self.image.topics().filter(|topic| *topic.record.name >= *from).collect();
        topics.sort_unstable_by(|one, other| one.record.name.cmp(&other.record.name));
        for topic in topics {
            let first = if *topic.record.name == *from { first } else { 0 };
            if !self.add(topic, first) {
                return;
            }
        }
    }

    /// These topics from the cursor on, in order of their names; those that are not there with an error.
    fn add_named(&mut self, named: BTreeSet<ByteString>, cursor: Option<DescribeTopicPartitionsCursor>) {
        let (from, first) = start(cursor);
        for name in named.into_iter().filter(|name| *name >= from) {
            let first = if name == from { first } else { 0 };
            let goes_on = match self.image.topic_named(&name) {
                Some(topic) => self.add(topic, first),
                None if self.left == 0 => {
                    self.next = Some((name, 0));
                    false
                }
                None => {
                    let code = match check_topic_name(&name) {
                        Ok(()) => ErrorCode::UnknownTopicOrPartition,
                        Err(_) => ErrorCode::InvalidTopicException,
                    };
                    self.topics.push(DescribeTopicPartitionsResponseTopic {
                        is_internal: topics::is_internal(&name),
                        topic_authorized_operations: TOPIC_OPERATIONS,
                        ..refusal(name, code)
                    });
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Adds a topic's partitions from `first` on, as far as they fit. Whether there may be more topics.
    fn add(&mut self, topic: &TopicImage, first: usize) -> bool {
        let name = wire_name(topic);
        if self.left == 0 {
            self.next = Some((name, 0));
            return false;
        }
        let count = topic.partitions.len();
        let end = count.min(first.saturating_add(self.left));
        let described = (first..end).map(|index| partition(self.image, topic, index));
        let partitions: Vec<_> = described.collect();
        self.left -= partitions.len();
        self.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(name.clone()),
            topic_id: topic.record.id,
            is_internal: topics::is_internal(&name),
            partitions,
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Default::default()
        });
        if end < count {
            self.next = Some((name, end as i32));
        }
        end >= count
    }
}

fn start(cursor: Option<DescribeTopicPartitionsCursor>) -> (ByteString, usize) {
    let DescribeTopicPartitionsCursor { topic_name, partition_index } = cursor.unwrap_or_default();
    (topic_name, usize::try_from(partition_index).unwrap_or(0))
}

fn refusal(name: ByteString, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic { error_code: code.into(), name: Some(name), ..Default::default() }
}

fn partition(
    image: &MetadataImage,
    topic: &TopicImage,
    index: usize,
) -> DescribeTopicPartitionsResponsePartition {
    let blank = DescribeTopicPartitionsResponsePartition {
        partition_index: index as i32,
        leader_id: -1,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    };
    let Some(state) = &topic.partitions[index] else {
        // About to be made.
        let replicas = topic.record.replicas[index].to_vec();
        return DescribeTopicPartitionsResponsePartition {
            isr_nodes: replicas.clone(),
            replica_nodes: replicas,
            ..blank
        };
    };
    let PartitionState { leader, leader_epoch, replicas, isr, elr, .. } = state;
    let is_known = |id: &&i32| image.broker(**id).is_some();
    DescribeTopicPartitionsResponsePartition {
        leader_id: if is_known(&leader) { *leader } else { -1 },
        leader_epoch: *leader_epoch,
        replica_nodes: replicas.to_vec(),
        isr_nodes: isr.to_vec(),
        eligible_leader_replicas: Some(elr.to_vec()),
        offline_replicas: replicas.iter().filter(|id| !is_known(id)).copied().collect(),
        ..blank
    }
}
