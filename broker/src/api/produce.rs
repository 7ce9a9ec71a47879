//! Produce (0): checked here, on the connection's core; appended and confirmed on the partitions' cores.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::time;
use heizer_server::Reply;
use heizer_storage::AppendInfo;
use heizer_wire::messages::{
    PartitionProduceData, PartitionProduceResponse, ProduceLeaderIdAndEpoch, ProduceNodeEndpoint,
    ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use heizer_wire::record_batch::{ProduceInfo, ProduceRules, rewrite_timestamps, validate_produce};
use heizer_wire::{ApiKey, DecodeError, ErrorCode, Message, Reader, encode_response};
use uuid::Uuid;

use super::codes::produce_code;
use super::{Call, error_code};
use crate::config::TopicConfig;
use crate::error::PartitionError;
use crate::metadata::{MetadataImage, TopicImage};
use crate::metrics::CoreMetrics;
use crate::partition::Partition;
use crate::shard::{by_owner, here};

/// What the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acks {
    None,
    Leader,
    All,
}

/// A client's timeout is for other replicas (Kafka); our own disk has at least this long, whatever the client says, for
/// a batch that is appended and yet answered with an error comes again.
pub(super) const OWN_WRITE_MIN: Duration = Duration::from_secs(1);

/// A checked batch on its way to its partition.
struct Item {
    topic_id: Uuid,
    partition: i32,
    batch: Bytes,
}

/// A refusal with the text that the client shows.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal { code, message: None }
    }
}

type Outcome = Result<AppendInfo, Refusal>;

pub(super) async fn handle(
    call: Call,
    correlation_id: i32,
    mut reader: Reader,
) -> Result<Reply, DecodeError> {
    let version = call.version;
    let request = ProduceRequest::decode(&mut reader, version)?;
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let image = call.shard.image();
    let outcomes = match acks {
        Some(acks) => produce(&call, &image, &request, acks).await,
        None => request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .map(|_| Err(ErrorCode::InvalidRequiredAcks.into()))
            .collect(),
    };
    if outcomes.iter().any(Result::is_err) {
        count_failures(&call, &image, &request, &outcomes);
    }
    if acks == Some(Acks::None) {
        // No answer can tell of an error; a closed connection has the client ask for metadata again, as in Kafka.
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        return Ok(match failed {
            Some(refusal) => {
                super::refuse(&call.connection, &format_args!("acks=0 produce: {:?}", refusal.code))
            }
            None => Reply::nothing(),
        });
    }
    let response = respond(&call, &image, &request, outcomes);
    Ok(Reply::send(encode_response(correlation_id, ApiKey::Produce, version, &response)))
}

/// Counts what was refused, by error and by topic.
fn count_failures(call: &Call, image: &MetadataImage, request: &ProduceRequest, outcomes: &[Outcome]) {
    let metrics = &call.shard.metrics;
    let mut tally = metrics.requests.tally(ApiKey::Produce);
    let mut outcomes = outcomes.iter();
    for topic in &request.topic_data {
        let mut failures = 0;
        for outcome in outcomes.by_ref().take(topic.partition_data.len()) {
            if let Err(refusal) = outcome {
                tally.error(refusal.code.into());
                failures += 1;
            }
        }
        if failures > 0
            && let Ok(found) = find(image, topic, call.version)
        {
            CoreMetrics::add(&metrics.topics.of(found.record.id).produce_failures, failures);
        }
    }
}

/// Outcomes in the order of the request's partitions.
async fn produce(call: &Call, image: &MetadataImage, request: &ProduceRequest, acks: Acks) -> Vec<Outcome> {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).max(OWN_WRITE_MIN);
    let mut outcomes = Vec::new();
    let mut items = Vec::new();
    let mut places = Vec::new();
    for topic in &request.topic_data {
        let found = find(image, topic, call.version);
        let config = found.as_ref().ok().map(|found| call.shard.topic_config(found));
        for partition in &topic.partition_data {
            let checked = match (&found, &config) {
                (Ok(found), Some(config)) => check(call, found, config, partition, acks),
                (Err(code), _) => Err((*code).into()),
                (Ok(_), None) => unreachable!("a topic that was found has settings"),
            };
            match checked {
                Ok(item) => {
                    places.push(outcomes.len());
                    items.push(item);
                    // Overwritten below, for each item has its answer.
                    outcomes.push(Err(ErrorCode::UnknownServerError.into()));
                }
                Err(refusal) => outcomes.push(Err(refusal)),
            }
        }
    }
    for (place, outcome) in places.into_iter().zip(append(call, items, acks, timeout).await) {
        outcomes[place] = outcome;
    }
    outcomes
}

fn find<'a>(
    image: &'a MetadataImage,
    topic: &TopicProduceData,
    version: i16,
) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    if version >= 13 {
        image.topic(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        image.topic_named(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// Everything that can be told without the partition (contract L3, L4).
fn check(
    call: &Call,
    topic: &TopicImage,
    config: &Rc<TopicConfig>,
    data: &PartitionProduceData,
    acks: Acks,
) -> Result<Item, Refusal> {
    let state = topic.partition(data.index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if state.leader != call.shard.node().id {
        return Err(ErrorCode::NotLeaderOrFollower.into());
    }
    // contract R5: with one replica the in-sync set is never below min(min.insync.replicas, replicas).
    let needed = (config.min_insync_replicas as usize).min(state.replicas.len());
    if acks == Acks::All && state.isr.len() < needed {
        return Err(ErrorCode::NotEnoughReplicas.into());
    }
    let records = data.records.as_ref().ok_or_else(|| refused(ErrorCode::InvalidRecord, "no records"))?;
    let rules =
        ProduceRules { batch_bytes_max: config.max_message_bytes as usize, zstd_allowed: call.version >= 7 };
    let (batch, info) = validate_produce(records, &rules)
        .map_err(|error| refused(produce_code(&error), &error.to_string()))?;
    let mut batch = batch.bytes().clone();
    if info.is_transactional {
        // As for InitProducerId: final for the client.
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return Err(refused(code, "transactions are not served"));
    }
    if config.cleanup_compact && info.walked.is_some_and(|walked| !walked.all_keyed) {
        return Err(refused(ErrorCode::InvalidRecord, "a compacted topic takes no record without a key"));
    }
    if config.cleanup_compact && info.walked.is_none() {
        keyed(&batch, config)?;
    }
    if !config.log_append_time {
        check_timestamps(config, &info)?;
        batch = with_true_timestamps(batch, &info);
    }
    Ok(Item { topic_id: topic.record.id, partition: data.index, batch })
}

fn refused(code: ErrorCode, message: &str) -> Refusal {
    Refusal { code, message: Some(message.to_owned()) }
}

/// Looks into a compressed batch for a compacted topic: every record needs a key.
fn keyed(batch: &Bytes, config: &TopicConfig) -> Result<(), Refusal> {
    /// What a batch may unfold into, for each byte that the topic allows it compressed.
    const UNFOLDING_MAX: usize = 64;
    let invalid = |message: String| refused(ErrorCode::InvalidRecord, &message);
    let view =
        heizer_wire::record_batch::BatchView::parse(batch).map_err(|error| invalid(error.to_string()))?;
    let bytes_max = (config.max_message_bytes as usize).saturating_mul(UNFOLDING_MAX);
    for record in view.records(bytes_max).map_err(|error| invalid(error.to_string()))? {
        if record.map_err(|error| invalid(error.to_string()))?.key.is_none() {
            return Err(refused(ErrorCode::InvalidRecord, "a compacted topic takes no record without a key"));
        }
    }
    Ok(())
}

/// `message.timestamp.before.max.ms` and `.after.max.ms` (contract L3). Of a compressed batch the header's greatest
/// timestamp counts.
fn check_timestamps(config: &TopicConfig, info: &ProduceInfo) -> Result<(), Refusal> {
    let now_ms = time::wall_clock_ms();
    let (min, max) = match info.walked {
        Some(walked) => (walked.timestamp_min, walked.timestamp_max),
        None => (info.max_timestamp, info.max_timestamp),
    };
    if max == -1 {
        return Ok(());
    }
    let too_old = now_ms.saturating_sub(min) > config.timestamp_before_max_ms;
    let too_new = max.saturating_sub(now_ms) > config.timestamp_after_max_ms;
    if too_old || too_new {
        let message = format!("timestamps from {min} to {max} are out of range at {now_ms}");
        return Err(refused(ErrorCode::InvalidTimestamp, &message));
    }
    Ok(())
}

/// A header whose greatest timestamp or timestamp type is not what its records say is corrected, as Kafka does.
fn with_true_timestamps(batch: Bytes, info: &ProduceInfo) -> Bytes {
    use heizer_wire::record_batch::TimestampType;
    let max = info.walked.map_or(info.max_timestamp, |walked| walked.timestamp_max);
    if max == info.max_timestamp && info.timestamp_type == TimestampType::CreateTime {
        return batch;
    }
    let mut rewritten = batch.to_vec();
    rewrite_timestamps(&mut rewritten, TimestampType::CreateTime, max);
    rewritten.into()
}

/// Appends on every owner core at once, one message a core; outcomes in the order of the items. The first poll sends
/// the messages, so that requests of one connection append in order.
async fn append(call: &Call, items: Vec<Item>, acks: Acks, timeout: Duration) -> Vec<Outcome> {
    let node = call.shard.node();
    let owners = by_owner(items.iter().map(|item| node.owner(item.topic_id, item.partition)));
    if let [(owner, _)] = owners.as_slice() {
        return append_at(*owner, items, acks, timeout).await;
    }
    let count = items.len();
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    let calls = owners.into_iter().map(|(owner, places)| {
        let there: Vec<Item> = places.iter().filter_map(|place| items[*place].take()).collect();
        let answer = append_at(owner, there, acks, timeout);
        async move { (places, answer.await) }
    });
    let mut outcomes: Vec<Outcome> = (0..count).map(|_| Err(ErrorCode::UnknownServerError.into())).collect();
    for (places, answers) in futures::future::join_all(calls).await {
        for (place, answer) in places.into_iter().zip(answers) {
            outcomes[place] = answer;
        }
    }
    outcomes
}

async fn append_at(owner: CoreId, items: Vec<Item>, acks: Acks, timeout: Duration) -> Vec<Outcome> {
    let count = items.len();
    let called = cores::call(owner, move || append_here(items, acks, timeout)).await;
    called.unwrap_or_else(|_| (0..count).map(|_| Err(ErrorCode::UnknownServerError.into())).collect())
}

/// On the owner core: appends everything first, in order, then waits for what `acks` promises.
async fn append_here(items: Vec<Item>, acks: Acks, timeout: Duration) -> Vec<Outcome> {
    let shard = here();
    let appended: Vec<Result<(Rc<Partition>, AppendInfo), PartitionError>> = items
        .into_iter()
        .map(|item| {
            let partition = shard.partition(item.topic_id, item.partition)?;
            let info = partition.append(&item.batch)?;
            if !info.duplicate {
                let records = info.last_offset - info.base_offset + 1;
                CoreMetrics::add(&shard.metrics.record_bytes_in, info.bytes as u64);
                CoreMetrics::add(&shard.metrics.records_in, records.unsigned_abs());
                CoreMetrics::add(&shard.metrics.log_appends, 1);
            }
            Ok((partition, info))
        })
        .collect();
    let deadline = time::now() + timeout;
    let mut outcomes = Vec::with_capacity(appended.len());
    for appended in appended {
        let outcome = match appended {
            Ok((partition, info)) => confirm(&partition, info, acks, deadline).await,
            Err(error) => Err(error),
        };
        outcomes.push(
            outcome.map_err(|error| Refusal { code: error_code(&error), message: Some(error.to_string()) }),
        );
    }
    outcomes
}

/// A duplicate is answered under its original's conditions.
async fn confirm(
    partition: &Partition,
    info: AppendInfo,
    acks: Acks,
    deadline: time::Instant,
) -> Result<AppendInfo, PartitionError> {
    let end = info.last_offset + 1;
    let rest = deadline.saturating_duration_since(time::now());
    let confirmed = match acks {
        // Nobody is told. But the request counts as in flight until its bytes are out of the way, so that a client
        // that waits for nothing is slowed down to what the disk takes.
        Acks::None => {
            let _ = partition.accepted(end).await;
            return Ok(info);
        }
        Acks::Leader => time::timeout(rest, partition.accepted(end)).await,
        Acks::All => time::timeout(rest, partition.committed(end)).await,
    };
    confirmed.map_err(|_| PartitionError::TimedOut)??;
    Ok(info)
}

fn respond(
    call: &Call,
    image: &MetadataImage,
    request: &ProduceRequest,
    outcomes: Vec<Outcome>,
) -> ProduceResponse {
    let mut outcomes = outcomes.into_iter();
    let mut moved = false;
    let responses = request.topic_data.iter().map(|topic| {
        let found = find(image, topic, call.version).ok();
        let partition_responses = topic.partition_data.iter().zip(&mut outcomes).map(|(data, outcome)| {
            let response = partition_response(data.index, outcome);
            if response.error_code == i16::from(ErrorCode::NotLeaderOrFollower) {
                moved = true;
                return with_leader(response, found.map(|found| &**found));
            }
            response
        });
        TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses: partition_responses.collect(),
        }
    });
    let responses = responses.collect();
    let node_endpoints = if moved { endpoints(image) } else { Vec::new() };
    ProduceResponse { responses, throttle_time_ms: 0, node_endpoints }
}

fn partition_response(index: i32, outcome: Outcome) -> PartitionProduceResponse {
    match outcome {
        Ok(info) => PartitionProduceResponse {
            index,
            base_offset: info.base_offset,
            log_append_time_ms: info.log_append_time,
            log_start_offset: info.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(refusal) => PartitionProduceResponse {
            index,
            error_code: refusal.code.into(),
            base_offset: -1,
            error_message: refusal.message.map(Into::into),
            ..PartitionProduceResponse::default()
        },
    }
}

/// Where to go instead (KIP-951).
fn with_leader(
    mut response: PartitionProduceResponse,
    topic: Option<&TopicImage>,
) -> PartitionProduceResponse {
    if let Some(state) = topic.and_then(|topic| topic.partition(response.index)) {
        response.current_leader =
            ProduceLeaderIdAndEpoch { leader_id: state.leader, leader_epoch: state.leader_epoch };
    }
    response
}

fn endpoints(image: &MetadataImage) -> Vec<ProduceNodeEndpoint> {
    let endpoint = |broker: &Arc<crate::metadata::BrokerRecord>| ProduceNodeEndpoint {
        node_id: broker.id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(Into::into),
    };
    image.brokers().map(endpoint).collect()
}
