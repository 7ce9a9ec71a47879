//! A small Kafka client on the runtime: for the command line, the bench, and later replication.
//!
//! Everything belongs to one core and speaks to any Kafka-compatible broker, at the highest version that both
//! sides know. Errors ([`ClientError`]) name the address and the API.
//!
//! The rooms:
//! - `connection`: [`Connection`]: one broker; versions, pipelining, answers by correlation id.
//! - `client`: [`Client`]: a cluster; bootstrap, metadata, connections by broker.
//! - `metadata`: [`Metadata`]: the picture of the cluster.
//! - `producer`: [`Producer`]: batches per partition, retries in order, idempotence. `partitioner`: where records go.
//! - `consumer`: [`Consumer`]: partitions assigned by hand, fetched as fast as they are polled.
//! - `group`: [`GroupConsumer`]: partitions assigned by a consumer group, offsets committed. `assignor`: who gets what.
//! - `offsets`: [`StartOffset`]: offsets by position or by time.
//! - `admin`: [`Admin`]: topics, settings, groups, and what the cluster consists of.
//! - `error`, `retry`, `address`, `pool`: what they share.

mod address;
mod admin;
mod assignor;
mod client;
mod connection;
mod consumer;
mod error;
mod group;
mod metadata;
mod offsets;
mod partitioner;
mod pool;
mod producer;
mod retry;

#[cfg(test)]
mod tests;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, CommittedOffset, ConfigChange, ConfigEntry, ConfigResource,
    Feature, GroupDescription, GroupListing, GroupMember, ListedOffset, LogDir, LogDirReplica, NewTopic,
    OffsetAt, PerPartition, TopicPartition,
};
pub use client::{Client, ClientConfig};
pub use connection::Connection;
pub use consumer::{ConsumedRecord, Consumer, ConsumerConfig};
pub use error::ClientError;
pub use group::{GroupConfig, GroupConsumer};
pub use heizer_wire::record_batch::{Compression, RecordHeader, TimestampType};
pub use metadata::{Metadata, PartitionMetadata, TopicMetadata};
pub use offsets::StartOffset;
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{Acks, Delivered, Delivery, Producer, ProducerConfig, ProducerRecord};
