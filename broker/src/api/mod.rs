//! The Kafka APIs, one file per API key. This module tells what is served, decodes, dispatches and encodes; error
//! codes are made in `codes.rs` and nowhere else.

mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod codes;
mod configs;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;
mod topics;

use std::future::Future;
use std::rc::Rc;

use bytestring::ByteString;
use heizer_runtime::time;
use heizer_server::{ConnectionInfo, Reply, Request, Service};
use heizer_wire::{ApiKey, Reader, encode_response};

use crate::metrics::UnderWay;
use crate::shard::Shard;

pub use codes::error_code;

/// What is served, in order of the keys; ApiVersions tells clients just this.
const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::SyncGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::AlterReplicaLogDirs,
    ApiKey::DescribeLogDirs,
    ApiKey::CreatePartitions,
    ApiKey::DeleteGroups,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::OffsetDelete,
    ApiKey::DescribeCluster,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
];

/// Whether `version` of `key` is served.
fn is_served(key: ApiKey, version: i16) -> bool {
    SERVED.contains(&key) && key.valid_versions().contains(&version)
}

/// One request on its way through a handler.
pub(crate) struct Call {
    /// The core's room.
    pub(crate) shard: Rc<Shard>,
    /// The request's version.
    pub(crate) version: i16,
    /// The client's name for itself; empty for none.
    pub(crate) client_id: ByteString,
    /// Where it came from.
    pub(crate) connection: Rc<ConnectionInfo>,
}

/// What the server calls for each frame, on the connection's core.
pub struct Api {
    shard: Rc<Shard>,
}

impl Api {
    /// The APIs over a core's room.
    pub fn new(shard: Rc<Shard>) -> Rc<Api> {
        Rc::new(Api { shard })
    }
}

impl Service for Api {
    fn call(self: &Rc<Self>, request: Request) -> impl Future<Output = Reply> + 'static {
        let shard = self.shard.clone();
        async move { answer(shard, request).await }
    }
}

/// A frame that cannot be answered ends its connection (contract P3), once and at INFO.
fn refuse(connection: &ConnectionInfo, reason: &dyn std::fmt::Display) -> Reply {
    tracing::info!(peer = %connection.peer, %reason, "closing a connection");
    Reply::Close
}

async fn answer(shard: Rc<Shard>, request: Request) -> Reply {
    let started = time::now();
    let Request { header, body, connection, lease } = request;
    let Ok(key) = header.key() else {
        return refuse(&connection, &format_args!("api key {} is not served", header.api_key));
    };
    if key == ApiKey::ApiVersions && !key.valid_versions().contains(&header.api_version) {
        return api_versions::unsupported(header.correlation_id);
    }
    if !is_served(key, header.api_version) {
        let version = header.api_version;
        return refuse(&connection, &format_args!("{key} version {version} is not served"));
    }
    let under_way = UnderWay::new(&shard.metrics, key, started);
    let call = Call {
        shard,
        version: header.api_version,
        client_id: header.client_id.clone().unwrap_or_default(),
        connection: connection.clone(),
    };
    // What a request unfolds into may take as much as the largest frame.
    let array_bytes_max =
        usize::try_from(call.shard.config().memory_per_core_bytes / 4).unwrap_or(usize::MAX);
    let reader = Reader::with_array_bytes_max(body, array_bytes_max);
    let reply = dispatch(call, &under_way, header.correlation_id, reader).await;
    drop(lease);
    under_way.answered();
    reply.unwrap_or_else(|error| refuse(&connection, &format_args!("{key} request: {error}")))
}

async fn dispatch(
    call: Call,
    under_way: &UnderWay,
    correlation_id: i32,
    reader: Reader,
) -> Result<Reply, heizer_wire::DecodeError> {
    let key = under_way.api();
    /// Decodes the request of one API, has it handled, encodes the response.
    macro_rules! respond {
        ($handler:path) => {{
            let version = call.version;
            let mut reader = reader;
            let request = heizer_wire::Message::decode(&mut reader, version)?;
            let response = Box::pin($handler(call, request)).await;
            let mut tally = under_way.tally();
            heizer_wire::Message::error_codes(&response, |code| tally.error(code));
            Ok(Reply::send(encode_response(correlation_id, key, version, &response)))
        }};
    }
    // Every request takes as much memory as the largest of these, and is moved about: Produce's is to be the largest.
    match key {
        ApiKey::Produce => produce::handle(call, correlation_id, reader).await,
        ApiKey::Fetch => Box::pin(fetch::reply(call, correlation_id, reader)).await,
        ApiKey::ListOffsets => respond!(list_offsets::handle),
        ApiKey::Metadata => respond!(metadata::handle),
        ApiKey::OffsetCommit => respond!(offset_commit::handle),
        ApiKey::OffsetFetch => respond!(offset_fetch::handle),
        ApiKey::FindCoordinator => respond!(find_coordinator::handle),
        ApiKey::JoinGroup => respond!(join_group::handle),
        ApiKey::Heartbeat => respond!(heartbeat::handle),
        ApiKey::LeaveGroup => respond!(leave_group::handle),
        ApiKey::SyncGroup => respond!(sync_group::handle),
        ApiKey::DescribeGroups => respond!(describe_groups::handle),
        ApiKey::ListGroups => respond!(list_groups::handle),
        ApiKey::ApiVersions => respond!(api_versions::handle),
        ApiKey::CreateTopics => respond!(create_topics::handle),
        ApiKey::DeleteTopics => respond!(delete_topics::handle),
        ApiKey::DeleteRecords => respond!(delete_records::handle),
        ApiKey::InitProducerId => respond!(init_producer_id::handle),
        ApiKey::OffsetForLeaderEpoch => respond!(offset_for_leader_epoch::handle),
        ApiKey::DescribeConfigs => respond!(describe_configs::handle),
        ApiKey::AlterConfigs => respond!(alter_configs::handle),
        ApiKey::AlterReplicaLogDirs => respond!(alter_replica_log_dirs::handle),
        ApiKey::DescribeLogDirs => respond!(describe_log_dirs::handle),
        ApiKey::CreatePartitions => respond!(create_partitions::handle),
        ApiKey::IncrementalAlterConfigs => respond!(incremental_alter_configs::handle),
        ApiKey::DeleteGroups => respond!(delete_groups::handle),
        ApiKey::OffsetDelete => respond!(offset_delete::handle),
        ApiKey::DescribeCluster => respond!(describe_cluster::handle),
        ApiKey::ListConfigResources => respond!(list_config_resources::handle),
        ApiKey::DescribeTopicPartitions => respond!(describe_topic_partitions::handle),
    }
}
