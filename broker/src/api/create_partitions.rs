//! CreatePartitions (37): topics grow.

use std::collections::BTreeMap;

use bytestring::ByteString;
use futures::StreamExt;
use futures::future::{Either, ready};
use futures::stream;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

use super::Call;
use super::codes::control_code;
use crate::metadata::Growth;
use crate::shard::here;

/// Topics of one request that grow at the same time.
const TOPICS_AT_ONCE: usize = 32;

pub(super) async fn handle(call: Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut times: BTreeMap<&ByteString, u32> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let results = request.topics.iter().filter_map(|topic| match times.get_mut(&topic.name) {
        Some(1) => Some(Either::Left(grow(&call, topic, request.validate_only))),
        // Named more than once: refused once.
        Some(count @ 2..) => {
            *count = 0;
            let message = "Duplicate topic name.".to_owned();
            Some(Either::Right(ready(result(topic, ErrorCode::InvalidRequest, Some(message)))))
        }
        _ => None,
    });
    let results = stream::iter(results).buffered(TOPICS_AT_ONCE).collect().await;
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

async fn grow(
    call: &Call,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> CreatePartitionsTopicResult {
    let assignments = topic.assignments.as_ref();
    let growth = Growth {
        topic: topic.name.to_string(),
        total: topic.count,
        assignments: assignments.map(|all| all.iter().map(|one| one.broker_ids.clone()).collect()),
    };
    let grown = cores::call(call.shard.node().cluster_core(), move || async move {
        here().grow_topic(growth, validate_only).await
    });
    match grown.await.map_err(Into::into).and_then(|outcome| outcome) {
        Ok(()) => result(topic, ErrorCode::None, None),
        Err(error) => result(topic, control_code(&error), Some(error.to_string())),
    }
}

fn result(
    topic: &CreatePartitionsTopic,
    code: ErrorCode,
    message: Option<String>,
) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult {
        name: topic.name.clone(),
        error_code: code.into(),
        error_message: message.map(ByteString::from),
    }
}
