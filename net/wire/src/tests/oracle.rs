//! Differential test: the `kafka-protocol` crate, generated from Kafka's own schemas, must read what we write
//! and write it back identically, over random messages of every API and every version both sides have.
//!
//! Known defects of the oracle, which this test steers around: it preallocates from unchecked lengths (so it
//! never sees hostile bytes), it keeps record headers in a map (duplicate names are lost), and it copies.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as kp;
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};

use super::random::{Gen, Random};
use crate::messages::*;
use crate::{Message, Reader, Writer};

/// Random messages of each type and version.
const ROUNDS: u64 = 60;

fn encoded<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version);
    w.finish_contiguous()
}

fn decoded<M: Message>(bytes: Bytes, version: i16) -> M {
    let mut r = Reader::new(bytes);
    let message =
        M::decode(&mut r, version).unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    assert_eq!(r.remaining(), 0, "{} v{version} left bytes", M::NAME);
    message
}

/// Round trip through our own codec.
fn round_trip<M: Message + Random>(version: i16, seed: u64) -> (M, Bytes) {
    let message = M::random(&mut Gen::new(seed), version);
    let bytes = encoded(&message, version);
    assert_eq!(decoded::<M>(bytes.clone(), version), message, "{} v{version} seed {seed}", M::NAME);
    (message, bytes)
}

fn compare<M: Message + Random, O: Encodable + Decodable + OracleMessage + Default>() {
    let mut versions_compared = 0;
    for version in M::VERSIONS {
        if O::VERSIONS.min > version || version > O::VERSIONS.max {
            continue;
        }
        versions_compared += 1;
        let mut defaults = BytesMut::new();
        if O::default().encode(&mut defaults, version).is_ok() {
            let at = format!("default {} v{version}", M::NAME);
            assert_eq!(encoded(&M::default(), version), defaults.freeze(), "{at}");
        }
        for seed in 0..ROUNDS {
            let at = format!("{} v{version} seed {seed}", M::NAME);
            let (message, ours) = round_trip::<M>(version, seed);
            let mut unread = ours.clone();
            let oracle = O::decode(&mut unread, version).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(unread.is_empty(), "{at}: the oracle left {} bytes", unread.len());
            let mut theirs = BytesMut::new();
            oracle.encode(&mut theirs, version).unwrap_or_else(|error| panic!("{at}: {error}\n{message:?}"));
            let theirs = theirs.freeze();
            assert_eq!(theirs, ours, "{at}: {message:?}");
            assert_eq!(decoded::<M>(theirs, version), message, "{at}");
        }
    }
    assert_eq!(versions_compared, M::VERSIONS.count(), "{}: the oracle lacks versions", M::NAME);
}

macro_rules! same_as_oracle {
    ($($test:ident: $($message:ident),+;)*) => {
        $(#[test]
        fn $test() {
            $(compare::<$message, kp::$message>();)+
        })*
    };
}

same_as_oracle! {
    produce: ProduceRequest, ProduceResponse;
    fetch: FetchRequest, FetchResponse;
    list_offsets: ListOffsetsRequest, ListOffsetsResponse;
    metadata: MetadataRequest, MetadataResponse;
    offset_commit: OffsetCommitRequest, OffsetCommitResponse;
    offset_fetch: OffsetFetchRequest, OffsetFetchResponse;
    find_coordinator: FindCoordinatorRequest, FindCoordinatorResponse;
    join_group: JoinGroupRequest, JoinGroupResponse;
    heartbeat: HeartbeatRequest, HeartbeatResponse;
    leave_group: LeaveGroupRequest, LeaveGroupResponse;
    sync_group: SyncGroupRequest, SyncGroupResponse;
    describe_groups: DescribeGroupsRequest, DescribeGroupsResponse;
    list_groups: ListGroupsRequest, ListGroupsResponse;
    api_versions: ApiVersionsRequest, ApiVersionsResponse;
    create_topics: CreateTopicsRequest, CreateTopicsResponse;
    delete_topics: DeleteTopicsRequest, DeleteTopicsResponse;
    delete_records: DeleteRecordsRequest, DeleteRecordsResponse;
    init_producer_id: InitProducerIdRequest, InitProducerIdResponse;
    offset_for_leader_epoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    describe_configs: DescribeConfigsRequest, DescribeConfigsResponse;
    alter_replica_log_dirs: AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse;
    describe_log_dirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
    create_partitions: CreatePartitionsRequest, CreatePartitionsResponse;
    delete_groups: DeleteGroupsRequest, DeleteGroupsResponse;
    incremental_alter_configs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    alter_configs: AlterConfigsRequest, AlterConfigsResponse;
    list_config_resources: ListConfigResourcesRequest, ListConfigResourcesResponse;
    describe_topic_partitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
    offset_delete: OffsetDeleteRequest, OffsetDeleteResponse;
    describe_cluster: DescribeClusterRequest, DescribeClusterResponse;
    consumer_protocol: ConsumerProtocolSubscription, ConsumerProtocolAssignment;
}

/// Also what the oracle lacks: the `__consumer_offsets` records (`framing` holds bytes of those) and our own.
#[test]
fn every_version_of_every_message_round_trips() {
    fn all<M: Message + Random>() {
        for version in M::VERSIONS {
            (0..ROUNDS).for_each(|seed| drop(round_trip::<M>(version, seed)));
        }
    }
    macro_rules! api {
        ($key:ident, $request:ident, $response:ident) => {
            all::<$request>();
            all::<$response>();
        };
    }
    macro_rules! data {
        ($message:ident) => {
            all::<$message>();
        };
    }
    for_each_api!(api);
    for_each_data!(data);
}
