//! Metadata (3): brokers, topics and who leads their partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use uuid::Uuid;

use super::{Call, topics};
use crate::metadata::{MetadataImage, PartitionState, TopicImage};
use crate::shard::wire_name;

/// What everybody may do while authorisation is off, as Kafka's set of bits: read, write, create, delete, alter,
/// describe, describe configs, alter configs.
pub(super) const TOPIC_OPERATIONS: i32 = 0x0df8;
/// The same for the cluster: create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = 0x1fa0;

pub(super) async fn handle(call: Call, request: MetadataRequest) -> MetadataResponse {
    let version = call.version;
    let everything = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let topics = if everything {
        call.shard.image().topics().map(|topic| describe(topic, &request)).collect()
    } else {
        let mut answers = Vec::new();
        // A topic is described once, however often it is named: the answer is bounded by what there is.
        let mut asked = BTreeSet::new();
        for topic in request.topics.iter().flatten() {
            if asked.insert((topic.topic_id, &topic.name)) {
                answers.push(one(&call, &request, topic).await);
            }
        }
        answers
    };
    let image = call.shard.image();
    let mut response = MetadataResponse {
        brokers: brokers(&image),
        cluster_id: image.cluster_id().map(ByteString::from),
        controller_id: image.controller_id().unwrap_or(-1),
        topics,
        ..MetadataResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

fn brokers(image: &MetadataImage) -> Vec<MetadataResponseBroker> {
    let broker = |record: &Arc<crate::metadata::BrokerRecord>| MetadataResponseBroker {
        node_id: record.id,
        host: record.host.as_str().into(),
        port: i32::from(record.port),
        rack: record.rack.as_deref().map(ByteString::from),
    };
    image.brokers().map(broker).collect()
}

/// One topic, by id or by name; a name that is unknown may come into being (contract P7).
async fn one(call: &Call, request: &MetadataRequest, topic: &MetadataRequestTopic) -> MetadataResponseTopic {
    if !topic.topic_id.is_nil() {
        return match call.shard.image().topic(topic.topic_id) {
            Some(found) => describe(found, request),
            None => refusal(None, topic.topic_id, ErrorCode::UnknownTopicId),
        };
    }
    let Some(name) = &topic.name else {
        return refusal(None, Uuid::nil(), ErrorCode::InvalidRequest);
    };
    if let Some(found) = call.shard.image().topic_named(name) {
        return describe(found, request);
    }
    let may_create =
        (call.version < 4 || request.allow_auto_topic_creation) && call.shard.config().auto_create_topics;
    if !may_create {
        let code = match crate::metadata::check_topic_name(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(_) => ErrorCode::InvalidTopicException,
        };
        return refusal(Some(name), Uuid::nil(), code);
    }
    match topics::auto_create(&call.shard, name).await {
        Ok(_) => match call.shard.image().topic_named(name) {
            Some(found) => describe(found, request),
            None => refusal(Some(name), Uuid::nil(), ErrorCode::UnknownTopicOrPartition),
        },
        Err(code) => refusal(Some(name), Uuid::nil(), code),
    }
}

fn refusal(name: Option<&ByteString>, topic_id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: code.into(),
        name: name.cloned(),
        topic_id,
        ..MetadataResponseTopic::default()
    }
}

fn describe(topic: &Arc<TopicImage>, request: &MetadataRequest) -> MetadataResponseTopic {
    let mut described = MetadataResponseTopic {
        name: Some(wire_name(topic)),
        topic_id: topic.record.id,
        is_internal: topics::is_internal(&topic.record.name),
        partitions: (0..)
            .zip(&topic.partitions)
            .map(|(index, state)| partition(topic, index, state))
            .collect(),
        ..MetadataResponseTopic::default()
    };
    if request.include_topic_authorized_operations {
        described.topic_authorized_operations = TOPIC_OPERATIONS;
    }
    described
}

fn partition(topic: &TopicImage, index: i32, state: &Option<PartitionState>) -> MetadataResponsePartition {
    let Some(state) = state else {
        let replicas = topic.record.replicas[index as usize].to_vec();
        return MetadataResponsePartition {
            error_code: ErrorCode::LeaderNotAvailable.into(),
            partition_index: index,
            leader_id: -1,
            isr_nodes: replicas.clone(),
            replica_nodes: replicas,
            ..MetadataResponsePartition::default()
        };
    };
    let code = if state.leader < 0 { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
    MetadataResponsePartition {
        error_code: code.into(),
        partition_index: index,
        leader_id: state.leader,
        leader_epoch: state.leader_epoch,
        replica_nodes: state.replicas.to_vec(),
        isr_nodes: state.isr.to_vec(),
        ..MetadataResponsePartition::default()
    }
}
