//! ListOffsets (2): where a partition starts and ends, and what came when (contract L7).

use std::collections::BTreeMap;

use bytestring::ByteString;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use uuid::Uuid;

use super::{Call, error_code};
use crate::error::PartitionError;
use crate::shard::{by_owner, here};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The first version that knows a special timestamp; later Kafkas have more of them.
fn known_from(timestamp: i64) -> i16 {
    match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        i64::MIN..LATEST_TIERED => i16::MAX,
        _ => 0,
    }
}

/// One question to an owner core.
#[derive(Clone, Copy)]
struct Question {
    topic_id: Uuid,
    partition: i32,
    current_leader_epoch: i32,
    timestamp: i64,
}

/// Timestamp, offset and leader epoch; -1 each for "none".
#[derive(Clone, Copy)]
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

const NONE: Found = Found { timestamp: -1, offset: -1, leader_epoch: -1 };

pub(super) async fn handle(call: Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = call.shard.image();
    let mut rows: Vec<Vec<ListOffsetsPartitionResponse>> = Vec::with_capacity(request.topics.len());
    let mut questions = Vec::new();
    let mut places = Vec::new();
    let mut times: BTreeMap<(&ByteString, i32), u32> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *times.entry((&topic.name, partition.partition_index)).or_default() += 1;
        }
    }
    for topic in &request.topics {
        let found = image.topic_named(&topic.name);
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let leads = found.and_then(|topic| topic.partition(partition.partition_index));
            answers.push(match (found, leads) {
                _ if times[&(&topic.name, partition.partition_index)] > 1 => {
                    answer(partition.partition_index, Err(ErrorCode::InvalidRequest))
                }
                _ if call.version < known_from(partition.timestamp) => {
                    answer(partition.partition_index, Err(ErrorCode::UnsupportedVersion))
                }
                (Some(found), Some(_)) => {
                    places.push((rows.len(), answers.len()));
                    questions.push(question(found.record.id, partition));
                    answer(partition.partition_index, Ok(NONE))
                }
                (Some(found), None) if (partition.partition_index as usize) < found.partitions.len() => {
                    answer(partition.partition_index, Err(ErrorCode::LeaderNotAvailable))
                }
                _ => answer(partition.partition_index, Err(ErrorCode::UnknownTopicOrPartition)),
            });
        }
        rows.push(answers);
    }
    for ((topic, at), found) in places.into_iter().zip(ask(&call, questions).await) {
        let index = rows[topic][at].partition_index;
        rows[topic][at] = answer(index, found);
    }
    let topics = request.topics.into_iter().zip(rows);
    let topics = topics.map(|(topic, partitions)| ListOffsetsTopicResponse { name: topic.name, partitions });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}

fn question(topic_id: Uuid, partition: &ListOffsetsPartition) -> Question {
    Question {
        topic_id,
        partition: partition.partition_index,
        current_leader_epoch: partition.current_leader_epoch,
        timestamp: partition.timestamp,
    }
}

fn answer(partition_index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let (code, Found { timestamp, offset, leader_epoch }) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(code) => (code, NONE),
    };
    ListOffsetsPartitionResponse { partition_index, error_code: code.into(), timestamp, offset, leader_epoch }
}

/// Asks each owner core once; answers in the order of the questions.
async fn ask(call: &Call, questions: Vec<Question>) -> Vec<Result<Found, ErrorCode>> {
    let node = call.shard.node();
    let owners = by_owner(questions.iter().map(|question| node.owner(question.topic_id, question.partition)));
    let mut answers = vec![Err(ErrorCode::UnknownServerError); questions.len()];
    let calls = owners.into_iter().map(|(owner, places)| {
        let there: Vec<Question> = places.iter().map(|place| questions[*place]).collect();
        async move { (places, cores::call(owner, move || look_all(there)).await) }
    });
    for (places, found) in futures::future::join_all(calls).await {
        for (place, found) in places.into_iter().zip(found.into_iter().flatten()) {
            answers[place] = found;
        }
    }
    answers
}

/// On the owner core.
async fn look_all(questions: Vec<Question>) -> Vec<Result<Found, ErrorCode>> {
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        answers.push(look(question).await.map_err(|error| error_code(&error)));
    }
    answers
}

async fn look(question: Question) -> Result<Found, PartitionError> {
    let partition = here().partition(question.topic_id, question.partition)?;
    partition.check_epoch(question.current_leader_epoch)?;
    let log = partition.log();
    let end = partition.high_watermark();
    let by_time = match question.timestamp {
        LATEST => {
            let leader_epoch = partition.leader_epoch();
            return Ok(Found { timestamp: -1, offset: end, leader_epoch });
        }
        EARLIEST | EARLIEST_LOCAL => {
            let offset = partition.log_start_offset();
            let leader_epoch = log.epoch_for_offset(offset).unwrap_or(-1);
            return Ok(Found { timestamp: -1, offset, leader_epoch });
        }
        // Nothing is kept in another tier.
        LATEST_TIERED => return Ok(NONE),
        MAX_TIMESTAMP => log.max_timestamp(end).await?,
        timestamp => log.offset_for_timestamp(timestamp, end).await?,
    };
    Ok(by_time.map_or(NONE, |found| Found {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: found.leader_epoch,
    }))
}
