//! CreateTopics (19).

use std::collections::BTreeMap;

use bytestring::ByteString;
use futures::StreamExt;
use futures::future::{Either, ready};
use futures::stream;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use uuid::Uuid;

use super::codes::control_code;
use super::configs::Refusal;
use super::{Call, topics};
use crate::config::TopicConfig;
use crate::shard::TopicPlan;

/// Topics of one request that are made at the same time.
const TOPICS_AT_ONCE: usize = 32;

pub(super) async fn handle(call: Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut times: BTreeMap<&ByteString, u32> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let results = request.topics.iter().filter_map(|topic| match times.get_mut(&topic.name) {
        Some(1) => Some(Either::Left(create(&call, topic, request.validate_only))),
        // Named more than once: refused once.
        Some(count @ 2..) => {
            *count = 0;
            let message = "Duplicate topic name.".to_owned();
            Some(Either::Right(ready(refused(topic, (ErrorCode::InvalidRequest, message)))))
        }
        _ => None,
    });
    // Together they share the durable writes of the groups that they go through.
    let topics = stream::iter(results).buffered(TOPICS_AT_ONCE).collect().await;
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

async fn create(call: &Call, topic: &CreatableTopic, validate_only: bool) -> CreatableTopicResult {
    let plan = match plan(call, topic) {
        Ok(plan) => plan,
        Err(refusal) => return refused(topic, refusal),
    };
    let shape = match &plan.assignments {
        Some(assignments) => (assignments.len() as i32, assignments[0].len() as i16),
        None => (plan.partitions as i32, plan.replication_factor),
    };
    let overrides = plan.configs.clone();
    match topics::create(&call.shard, plan, validate_only).await {
        Ok(topic_id) => created(call, topic, topic_id, shape, &overrides),
        Err(error) => refused(topic, (control_code(&error), error.to_string())),
    }
}

fn created(
    call: &Call,
    topic: &CreatableTopic,
    topic_id: Uuid,
    (num_partitions, replication_factor): (i32, i16),
    overrides: &[(String, String)],
) -> CreatableTopicResult {
    let pairs = overrides.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // Checked before the topic was created.
    let rows = call.shard.config().describe_topic(pairs).unwrap_or_default();
    let configs = rows.into_iter().map(|row| CreatableTopicConfigs {
        name: row.name.into(),
        value: row.value.map(ByteString::from),
        read_only: row.read_only,
        config_source: row.source as i8,
        is_sensitive: row.sensitive,
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id,
        error_message: None,
        num_partitions,
        replication_factor,
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}

fn refused(topic: &CreatableTopic, (code, message): Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name: topic.name.clone(),
        error_code: code.into(),
        error_message: Some(message.into()),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

/// Resolves defaults and checks what can be checked without the cluster's state.
fn plan(call: &Call, topic: &CreatableTopic) -> Result<TopicPlan, Refusal> {
    /// Kafka keeps its metadata under this name; its tools would take a topic of that name for it.
    const METADATA_TOPIC: &str = "__cluster_metadata";
    if *topic.name == *METADATA_TOPIC {
        return Err((ErrorCode::InvalidRequest, format!("{METADATA_TOPIC} cannot be created by clients.")));
    }
    let config = call.shard.config();
    let mut configs = Vec::with_capacity(topic.configs.len());
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            return Err((
                ErrorCode::InvalidConfig,
                format!("Null value not supported for topic configs: {}", entry.name),
            ));
        };
        configs.push((entry.name.to_string(), value.to_string()));
    }
    let pairs = configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    TopicConfig::parse(&config, pairs).map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    let assignments = assignments(topic)?;
    let partitions = match topic.num_partitions {
        -1 => config.num_partitions,
        count => u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            let message = "Number of partitions was set to an invalid non-positive value.";
            (ErrorCode::InvalidPartitions, message.to_owned())
        })?,
    };
    let replication_factor = match topic.replication_factor {
        -1 => config.default_replication_factor,
        factor if factor > 0 => factor,
        _ => {
            let message = "Replication factor must be larger than 0.".to_owned();
            return Err((ErrorCode::InvalidReplicationFactor, message));
        }
    };
    Ok(TopicPlan { name: topic.name.to_string(), partitions, replication_factor, assignments, configs })
}

/// Replicas that the client names itself: partitions from 0 without gaps, none empty, all alike, and neither number
/// beside them.
fn assignments(topic: &CreatableTopic) -> Result<Option<Vec<Vec<i32>>>, Refusal> {
    if topic.assignments.is_empty() {
        return Ok(None);
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.";
        return Err((ErrorCode::InvalidRequest, message.to_owned()));
    }
    let by_index: BTreeMap<i32, &Vec<i32>> =
        topic.assignments.iter().map(|entry| (entry.partition_index, &entry.broker_ids)).collect();
    let consecutive =
        by_index.len() == topic.assignments.len() && by_index.keys().copied().eq(0..by_index.len() as i32);
    if !consecutive || by_index.values().any(|brokers| brokers.is_empty()) {
        let message = "Partitions should be a consecutive 0-based integer sequence, each with replicas.";
        return Err((ErrorCode::InvalidReplicaAssignment, message.to_owned()));
    }
    Ok(Some(by_index.into_values().cloned().collect()))
}
