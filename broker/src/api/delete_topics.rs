//! DeleteTopics (20).

use std::collections::BTreeMap;

use bytestring::ByteString;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use uuid::Uuid;

use super::Call;
use super::codes::control_code;
use crate::shard::{here, wire_name};

pub(super) async fn handle(call: Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = request
        .topic_names
        .iter()
        .map(|name| DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::nil() });
    let image = call.shard.image();
    // A topic may be named by its name and by its id: what exists counts by its id.
    let key = |topic: &DeleteTopicState| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => match image.topic_named(name) {
            Some(found) => (None, found.record.id),
            None => (Some(name.clone()), Uuid::nil()),
        },
        name => (name.clone(), topic.topic_id),
    };
    let topics: Vec<DeleteTopicState> = named.chain(request.topics.iter().cloned()).collect();
    let mut times: BTreeMap<(Option<ByteString>, Uuid), u32> = BTreeMap::new();
    for topic in &topics {
        *times.entry(key(topic)).or_default() += 1;
    }
    let mut responses = Vec::new();
    for topic in topics {
        match times.get_mut(&key(&topic)) {
            Some(1) => responses.push(delete(&call, &topic).await),
            // Named more than once: refused once.
            Some(count @ 2..) => {
                *count = 0;
                let DeleteTopicState { name, topic_id } = topic;
                let message = Some("The topic is named more than once.".into());
                responses.push(result(name, topic_id, ErrorCode::InvalidRequest, message));
            }
            _ => {}
        }
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

async fn delete(call: &Call, topic: &DeleteTopicState) -> DeletableTopicResult {
    let image = call.shard.image();
    let found = match &topic.name {
        Some(_) if !topic.topic_id.is_nil() => {
            let message = "Topic name and topic ID can not both be specified.";
            return result(
                topic.name.clone(),
                topic.topic_id,
                ErrorCode::InvalidRequest,
                Some(message.into()),
            );
        }
        Some(name) => image.topic_named(name),
        None if topic.topic_id.is_nil() => {
            let message = "Neither topic name nor topic ID was specified.";
            return result(None, topic.topic_id, ErrorCode::InvalidRequest, Some(message.into()));
        }
        None => image.topic(topic.topic_id),
    };
    let Some(found) = found else {
        let (code, message) = match topic.name {
            Some(_) => (ErrorCode::UnknownTopicOrPartition, "There is no topic of this name."),
            None => (ErrorCode::UnknownTopicId, "There is no topic of this ID."),
        };
        return result(topic.name.clone(), topic.topic_id, code, Some(message.into()));
    };
    let (id, name) = (found.record.id, wire_name(found));
    let deleted =
        cores::call(call.shard.node().cluster_core(), move || async move { here().delete_topic(id).await });
    match deleted.await.map_err(Into::into).and_then(|outcome| outcome) {
        Ok(()) => result(Some(name), id, ErrorCode::None, None),
        Err(error) => match control_code(&error) {
            // Somebody else was faster.
            ErrorCode::UnknownTopicId if topic.name.is_some() => {
                result(Some(name), id, ErrorCode::UnknownTopicOrPartition, None)
            }
            code => result(Some(name), id, code, Some(error.to_string().into())),
        },
    }
}

fn result(
    name: Option<ByteString>,
    topic_id: Uuid,
    code: ErrorCode,
    error_message: Option<ByteString>,
) -> DeletableTopicResult {
    DeletableTopicResult { name, topic_id, error_code: code.into(), error_message }
}
