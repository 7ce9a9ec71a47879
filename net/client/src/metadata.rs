//! What the cluster looks like, as the last Metadata answers told.

use std::collections::BTreeMap;

use heizer_wire::ErrorCode;
use heizer_wire::messages::MetadataResponse;

/// A picture of the cluster; a newer one replaces it, it never changes.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The cluster's id, if it has one.
    pub cluster_id: Option<String>,
    /// The broker that takes requests for topics, or -1.
    pub controller_id: i32,
    /// `host:port` of each broker, by id.
    pub brokers: BTreeMap<i32, String>,
    /// The topics asked for so far, by name.
    pub topics: BTreeMap<String, TopicMetadata>,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Its id, where the broker tells (KIP-516).
    pub id: Option<[u8; 16]>,
    /// What the broker said about the topic as a whole.
    pub error: ErrorCode,
    /// Whether it is one of the cluster's own.
    pub internal: bool,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionMetadata {
    /// Its index.
    pub index: i32,
    /// What the broker said about it.
    pub error: ErrorCode,
    /// The leader's broker id, or -1.
    pub leader: i32,
    /// The leader's epoch, or -1.
    pub leader_epoch: i32,
    /// Brokers that hold a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Of these, the ones in sync.
    pub in_sync: Vec<i32>,
}

impl Metadata {
    /// The picture after `response`. Topics that it doesn't name stay as they were, unless it `covers_all`.
    pub(crate) fn updated(&self, response: MetadataResponse, covers_all: bool) -> Metadata {
        let mut topics = if covers_all { BTreeMap::new() } else { self.topics.clone() };
        for topic in response.topics {
            let Some(name) = topic.name else { continue };
            let mut partitions: Vec<PartitionMetadata> = topic
                .partitions
                .into_iter()
                .map(|partition| PartitionMetadata {
                    index: partition.partition_index,
                    error: ErrorCode::from_code(partition.error_code),
                    leader: partition.leader_id,
                    leader_epoch: partition.leader_epoch,
                    replicas: partition.replica_nodes,
                    in_sync: partition.isr_nodes,
                })
                .collect();
            partitions.sort_by_key(|partition| partition.index);
            let error = ErrorCode::from_code(topic.error_code);
            let id = Some(topic.topic_id.into_bytes()).filter(|id| *id != [0; 16]);
            let internal = topic.is_internal;
            topics.insert(name.to_string(), TopicMetadata { id, error, internal, partitions });
        }
        Metadata {
            cluster_id: response.cluster_id.map(|id| id.to_string()),
            controller_id: response.controller_id,
            brokers: response
                .brokers
                .into_iter()
                .map(|broker| (broker.node_id, host_port(&broker.host, broker.port)))
                .collect(),
            topics,
        }
    }

    /// A partition's leader, if it has one.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let partitions = &self.topics.get(topic)?.partitions;
        let found = partitions.iter().find(|candidate| candidate.index == partition)?;
        Some(found.leader).filter(|&leader| leader >= 0)
    }

    /// How many partitions a topic has; `None` when it isn't known to exist.
    pub fn partition_count(&self, topic: &str) -> Option<usize> {
        let topic = self.topics.get(topic)?;
        Some(topic.partitions.len()).filter(|&count| topic.error.is_none() && count > 0)
    }
}

pub(crate) fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
