//! Kafka's requests in the few words that tests need.

use std::time::Duration;

use bytes::Bytes;
use heizer_client::Connection;
use heizer_runtime::time;
use heizer_wire::messages::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest, CreatableTopic,
    CreatableTopicConfig, CreatableTopicResult, CreateTopicsRequest, DeletableTopicResult,
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, DeleteTopicState, DeleteTopicsRequest,
    DescribeLogDirsRequest, DescribeLogDirsResult, EpochEndOffset, FetchPartition, FetchPartitionData,
    FetchRequest, FetchResponse, FetchTopic, InitProducerIdRequest, ListOffsetsPartition,
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest,
    MetadataRequestTopic, MetadataResponseTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
    OffsetForLeaderTopic, PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use heizer_wire::record_batch::{BatchOptions, RecordBatchBuilder, batches};
use heizer_wire::{ErrorCode, Records, Request};

/// The last versions that name topics, not ids.
const FETCH_BY_NAME: i16 = 12;
const PRODUCE_BY_NAME: i16 = 12;

pub(crate) use heizer_wire::messages::FetchPartitionData as Data;

pub(crate) const ALL: i16 = -1;
pub(crate) const LATEST: i64 = -1;
pub(crate) const EARLIEST: i64 = -2;

/// The answer to a request at the newest version.
pub(crate) async fn ask<R: Request>(connection: &Connection, request: &R) -> R::Response {
    ask_at(connection, i16::MAX, request).await
}

/// The answer to a request at `version` or below.
pub(crate) async fn ask_at<R: Request>(connection: &Connection, version: i16, request: &R) -> R::Response {
    let answer = connection.request_with(request, version, Duration::from_secs(600)).await;
    answer.unwrap_or_else(|error| panic!("{}: {error}", R::NAME))
}

#[track_caller]
pub(crate) fn assert_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_code(code), expected);
}

/// A batch of records of now with these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_with(BatchOptions::default(), values)
}

/// A batch of records of now with these values.
pub(crate) fn batch_with(options: BatchOptions, values: &[&str]) -> Bytes {
    let now_ms = time::wall_clock_ms();
    let mut builder = RecordBatchBuilder::new(options);
    for value in values {
        builder.append(now_ms, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// A batch of one record with this timestamp.
pub(crate) fn batch_at(timestamp: i64, value: &str) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions::default());
    builder.append(timestamp, Some(b"k"), Some(value.as_bytes()), &[]);
    builder.build()
}

/// A batch of an idempotent producer.
pub(crate) fn sequenced(producer_id: i64, producer_epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    batch_with(BatchOptions { producer_id, producer_epoch, base_sequence, ..BatchOptions::default() }, values)
}

pub(crate) async fn producer_id(connection: &Connection) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let answer = ask(connection, &request).await;
    assert_code(answer.error_code, ErrorCode::None);
    (answer.producer_id, answer.producer_epoch)
}

pub(crate) fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: partition, records: Some(records) };
    let topic =
        TopicProduceData { name: topic.into(), partition_data: vec![partition], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

pub(crate) async fn produce(
    connection: &Connection,
    topic: &str,
    partition: i32,
    acks: i16,
    records: Bytes,
) -> PartitionProduceResponse {
    let request = produce_request(topic, partition, acks, records);
    let mut answer = ask_at(connection, PRODUCE_BY_NAME, &request).await;
    answer.responses.remove(0).partition_responses.remove(0)
}

/// Produces with acks=all; the base offset.
pub(crate) async fn produced(connection: &Connection, topic: &str, partition: i32, records: Bytes) -> i64 {
    let answer = produce(connection, topic, partition, ALL, records).await;
    assert_eq!(ErrorCode::from_code(answer.error_code), ErrorCode::None, "{:?}", answer.error_message);
    answer.base_offset
}

/// A sessionless fetch of partitions of one topic, from (partition, offset) on, that does not wait.
pub(crate) fn fetch_request(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |&(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let partitions = partitions.iter().map(partition).collect();
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![FetchTopic { topic: topic.into(), partitions, ..Default::default() }],
        ..Default::default()
    }
}

pub(crate) async fn fetch(connection: &Connection, request: &FetchRequest) -> FetchResponse {
    ask_at(connection, FETCH_BY_NAME, request).await
}

/// What a fetch of one partition finds.
pub(crate) async fn fetch_one(
    connection: &Connection,
    topic: &str,
    partition: i32,
    offset: i64,
) -> FetchPartitionData {
    let mut answer = fetch(connection, &fetch_request(topic, &[(partition, offset)])).await;
    answer.responses.remove(0).partitions.remove(0)
}

/// Offsets and values of all records in `records`, whose batches have to be whole and sound.
pub(crate) fn decoded(records: &Option<Records>) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in batches(records.as_ref().map(Records::to_bytes).unwrap_or_default()) {
        let batch = batch.expect("a whole batch");
        batch.verify_crc().expect("a sound batch");
        for record in batch.records(64 << 20).expect("known compression") {
            let record = record.expect("a sound record");
            let value = record.value.expect("tests write values");
            found.push((record.offset, String::from_utf8(value.to_vec()).expect("tests write text")));
        }
    }
    found
}

/// Every record of a partition from the earliest on.
pub(crate) async fn read_all(connection: &Connection, topic: &str, partition: i32) -> Vec<(i64, String)> {
    let mut offset = list_offset(connection, topic, partition, EARLIEST).await.offset;
    let mut all = Vec::new();
    loop {
        let data = fetch_one(connection, topic, partition, offset).await;
        assert_code(data.error_code, ErrorCode::None);
        let records = decoded(&data.records);
        let Some((last, _)) = records.last() else {
            assert_eq!(data.high_watermark, offset, "nothing is left out");
            return all;
        };
        offset = last + 1;
        all.extend(records);
    }
}

pub(crate) async fn list_offset(
    connection: &Connection,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> ListOffsetsPartitionResponse {
    list_offset_in(connection, topic, partition, timestamp, -1).await
}

pub(crate) async fn list_offset_in(
    connection: &Connection,
    topic: &str,
    partition: i32,
    timestamp: i64,
    current_leader_epoch: i32,
) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { partition_index: partition, current_leader_epoch, timestamp };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    ask(connection, &request).await.topics.remove(0).partitions.remove(0)
}

/// Where the log of a leader epoch ends.
pub(crate) async fn epoch_end(
    connection: &Connection,
    topic: &str,
    partition: i32,
    current_leader_epoch: i32,
    leader_epoch: i32,
) -> EpochEndOffset {
    let partition = OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch };
    let topic = OffsetForLeaderTopic { topic: topic.into(), partitions: vec![partition] };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    ask(connection, &request).await.topics.remove(0).partitions.remove(0)
}

/// What Metadata says of a topic, without creating it.
pub(crate) async fn describe(connection: &Connection, topic: &str) -> MetadataResponseTopic {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(topic.into()), ..Default::default() }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    ask(connection, &request).await.topics.remove(0)
}

pub(crate) async fn leader_epoch(connection: &Connection, topic: &str, partition: usize) -> i32 {
    let described = describe(connection, topic).await;
    assert_code(described.error_code, ErrorCode::None);
    described.partitions[partition].leader_epoch
}

pub(crate) fn new_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let config =
        |&(name, value): &(&str, &str)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    }
}

pub(crate) async fn create_topics(
    connection: &Connection,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<CreatableTopicResult> {
    ask(connection, &CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only }).await.topics
}

/// Creates a topic, which has to work.
pub(crate) async fn create(connection: &Connection, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let result = create_topics(connection, vec![new_topic(name, partitions, configs)], false).await.remove(0);
    assert_eq!(ErrorCode::from_code(result.error_code), ErrorCode::None, "{:?}", result.error_message);
}

pub(crate) async fn delete(connection: &Connection, name: &str) -> DeletableTopicResult {
    let topic = DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    ask(connection, &request).await.responses.remove(0)
}

/// Asks for partitions of a topic to be moved to a data directory; the code of each.
pub(crate) async fn ask_to_move(
    connection: &Connection,
    path: &str,
    topic: &str,
    partitions: &[i32],
) -> Vec<ErrorCode> {
    let topic = AlterReplicaLogDirTopic { name: topic.into(), partitions: partitions.to_vec() };
    let dirs = vec![AlterReplicaLogDir { path: path.into(), topics: vec![topic] }];
    let mut answer = ask(connection, &AlterReplicaLogDirsRequest { dirs }).await;
    let partitions = answer.results.remove(0).partitions;
    partitions.iter().map(|partition| ErrorCode::from_code(partition.error_code)).collect()
}

/// Moves partitions of a topic to a data directory; resolves when they are there.
pub(crate) async fn move_to(connection: &Connection, path: &str, topic: &str, partitions: &[i32]) {
    let codes = ask_to_move(connection, path, topic, partitions).await;
    assert!(codes.iter().all(|code| *code == ErrorCode::None), "{codes:?}");
    let deadline = time::now() + Duration::from_secs(60);
    loop {
        let found = describe_log_dirs(connection).await;
        let of_topic =
            |result: &DescribeLogDirsResult| result.topics.iter().find(|t| &*t.name == topic).cloned();
        let there = found.iter().find(|result| &*result.log_dir == path).and_then(of_topic);
        let settled = |index: &i32| {
            there.iter().flat_map(|t| &t.partitions).any(|p| p.partition_index == *index && !p.is_future_key)
        };
        if partitions.iter().all(settled) {
            return;
        }
        assert!(time::now() < deadline, "the move does not end: {found:?}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every data directory with all that is in it.
pub(crate) async fn describe_log_dirs(connection: &Connection) -> Vec<DescribeLogDirsResult> {
    let answer = ask(connection, &DescribeLogDirsRequest { topics: None }).await;
    assert_code(answer.error_code, ErrorCode::None);
    answer.results
}

/// What asks for records of a topic to be deleted: partitions, and below which offsets.
pub(crate) fn delete_records_request(topic: &str, below: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition =
        |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition { partition_index, offset };
    let partitions = below.iter().map(partition).collect();
    let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
    DeleteRecordsRequest { topics, timeout_ms: 30_000 }
}

/// Deletes records; code and low watermark of each partition.
pub(crate) async fn delete_records(
    connection: &Connection,
    topic: &str,
    below: &[(i32, i64)],
) -> Vec<(ErrorCode, i64)> {
    let mut answer = ask(connection, &delete_records_request(topic, below)).await;
    let rows = answer.topics.remove(0).partitions;
    assert_eq!(rows.len(), below.len());
    rows.iter().map(|row| (ErrorCode::from_code(row.error_code), row.low_watermark)).collect()
}
