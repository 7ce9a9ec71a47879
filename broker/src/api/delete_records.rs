//! DeleteRecords (21): from an offset on, what lies below it is gone (KIP-107).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use heizer_runtime::{cores, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use uuid::Uuid;

use super::produce::OWN_WRITE_MIN;
use super::topics::is_internal;
use super::{Call, error_code};
use crate::error::PartitionError;
use crate::metadata::TopicImage;
use crate::shard::{by_owner, here};

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark beside an error.
const NO_LOW_WATERMARK: i64 = -1;
/// Logs of one core whose start moves at the same time: each one writes and syncs a file.
const AT_ONCE: usize = 32;

/// One partition's part, on its way to the owner core.
#[derive(Clone, Copy)]
struct Deletion {
    topic_id: Uuid,
    partition: i32,
    /// None for the high watermark.
    below: Option<i64>,
}

/// The low watermark from then on: with one replica the log start.
type Outcome = Result<i64, ErrorCode>;

pub(super) async fn handle(call: Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).max(OWN_WRITE_MIN);
    let image = call.shard.image();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut places, mut deletions) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let found = image.topic_named(&topic.name);
        for partition in &topic.partitions {
            match check(&call, found, partition) {
                Ok(deletion) => {
                    places.push(outcomes.len());
                    deletions.push(deletion);
                    // Overwritten below, for each deletion has its answer.
                    outcomes.push(Err(ErrorCode::UnknownServerError));
                }
                Err(code) => outcomes.push(Err(code)),
            }
        }
    }
    for (place, outcome) in places.into_iter().zip(delete(&call, deletions, time::now() + timeout).await) {
        outcomes[place] = outcome;
    }
    let mut outcomes = outcomes.into_iter();
    // A topic of which nothing was asked is not told of, as in Kafka.
    let asked = request.topics.into_iter().filter(|topic| !topic.partitions.is_empty());
    let topics = asked.map(|topic| {
        let rows = topic.partitions.iter().zip(&mut outcomes);
        let partitions =
            rows.map(|(partition, outcome)| answer(partition.partition_index, outcome)).collect();
        DeleteRecordsTopicResult { name: topic.name, partitions }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}

/// What can be told without the partition.
fn check(
    call: &Call,
    topic: Option<&Arc<TopicImage>>,
    asked: &DeleteRecordsPartition,
) -> Result<Deletion, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = asked.partition_index;
    if usize::try_from(partition).map_or(true, |at| at >= topic.partitions.len()) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    if is_internal(&topic.record.name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let leads = topic.partition(partition).is_some_and(|state| state.leader == call.shard.node().id);
    if !leads {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let below = Some(asked.offset).filter(|offset| *offset != HIGH_WATERMARK);
    Ok(Deletion { topic_id: topic.record.id, partition, below })
}

/// Asks each owner core once; outcomes in the order of the deletions.
async fn delete(call: &Call, deletions: Vec<Deletion>, deadline: time::Instant) -> Vec<Outcome> {
    let node = call.shard.node();
    let owners = by_owner(deletions.iter().map(|deletion| node.owner(deletion.topic_id, deletion.partition)));
    let mut outcomes = vec![Err(ErrorCode::UnknownServerError); deletions.len()];
    let calls = owners.into_iter().map(|(owner, places)| {
        let there: Vec<Deletion> = places.iter().map(|place| deletions[*place]).collect();
        async move { (places, cores::call(owner, move || delete_here(there, deadline)).await) }
    });
    for (places, found) in futures::future::join_all(calls).await {
        for (place, outcome) in places.into_iter().zip(found.into_iter().flatten()) {
            outcomes[place] = outcome;
        }
    }
    outcomes
}

/// On the owner core.
async fn delete_here(deletions: Vec<Deletion>, deadline: time::Instant) -> Vec<Outcome> {
    let deletions = deletions.into_iter().map(|deletion| async move {
        delete_one(deletion, deadline).await.map_err(|error| error_code(&error))
    });
    stream::iter(deletions).buffered(AT_ONCE).collect().await
}

async fn delete_one(deletion: Deletion, deadline: time::Instant) -> Result<i64, PartitionError> {
    let Deletion { topic_id, partition, below } = deletion;
    let shard = here();
    let deleted = shard.delete_records(topic_id, partition, below);
    let rest = deadline.saturating_duration_since(time::now());
    time::timeout(rest, deleted).await.unwrap_or(Err(PartitionError::TimedOut))
}

fn answer(partition_index: i32, outcome: Outcome) -> DeleteRecordsPartitionResult {
    let (code, low_watermark) = match outcome {
        Ok(low_watermark) => (ErrorCode::None, low_watermark),
        Err(code) => (code, NO_LOW_WATERMARK),
    };
    DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: code.into() }
}
