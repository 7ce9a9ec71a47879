//! Metadata: what exists and who is responsible for it.
//!
//! Two state machines are replicated by raft: the cluster group's [`ClusterState`] (topics, configs, brokers with what
//! is set for them, id blocks) and, per shard group, [`ShardState`] (leader, epochs and in-sync replicas of the partitions it
//! governs). [`placement`] says which group and core a partition belongs to. What both say together is the
//! [`MetadataImage`] that requests are answered from. Nothing here does I/O or reads a clock.

pub mod cluster;
pub mod command;
pub mod growth;
pub mod image;
pub mod names;
pub mod outcome;
pub mod placement;
pub mod shard;

pub use cluster::{
    BrokerConfigs, BrokerRecord, ClusterState, Configs, PARTITIONS_PER_TOPIC_MAX, TopicRecord,
};
pub use command::{ClusterCommand, NewTopic, PartitionAssignment, ShardCommand};
pub use growth::{Growth, GrowthError};
pub use image::{ImageBuilder, ImageChange, MetadataImage, TopicImage};
pub use names::{TopicNameError, check_topic_name};
pub use outcome::{ClusterError, ClusterOutcome, Epochs, ShardOutcome};
pub use placement::{
    CLUSTER_GROUP, GROUPS_DEFAULT, Layout, SLOTS, ShardGroup, assign_replicas, group_of, slot_of,
};
pub use shard::{PartitionState, ShardState};

#[cfg(test)]
mod tests;
