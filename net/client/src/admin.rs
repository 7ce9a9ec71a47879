//! Administration of a cluster.
//!
//! | file | what is in it |
//! |---|---|
//! | this one | topics, and what all requests share: whom to ask, and when to ask again |
//! | `configs.rs` | settings of topics and brokers |
//! | `groups.rs` | consumer groups and their offsets |
//! | `records.rs` | where partitions start and end; deleting records |
//! | `cluster.rs` | brokers, features, data directories |

mod cluster;
mod configs;
mod groups;
mod records;

use std::collections::BTreeMap;
use std::rc::Rc;

use heizer_wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreatePartitionsRequest, CreatePartitionsTopic,
    CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest,
};
use heizer_wire::{ApiKey, ErrorCode};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::metadata::Metadata;

pub use cluster::{BrokerDescription, ClusterDescription, Feature, LogDir, LogDirReplica};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource};
pub use groups::{CommittedOffset, GroupDescription, GroupListing, GroupMember};
pub use records::{ListedOffset, OffsetAt};

/// From version 6 on topics to delete are named in structs.
const DELETE_TOPICS_STATES: i16 = 6;

/// A topic's name and a partition's index.
pub type TopicPartition = (String, i32);

/// What became of each partition that a request named.
pub type PerPartition<T> = BTreeMap<TopicPartition, Result<T, ClientError>>;

/// A topic to create.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; the broker's default when `None`.
    pub partitions: Option<i32>,
    /// Number of replicas; the broker's default when `None`.
    pub replication_factor: Option<i16>,
    /// Settings that differ from the broker's.
    pub configs: BTreeMap<String, String>,
}

/// Administration of a cluster.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// An administrator that uses `client`.
    pub fn new(client: &Client) -> Admin {
        Admin { client: client.clone() }
    }

    /// Creates a topic.
    pub async fn create_topic(&self, topic: &NewTopic, validate_only: bool) -> Result<(), ClientError> {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.as_str().into(),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replication_factor.unwrap_or(-1),
                configs: topic.configs.iter().map(|(name, value)| creatable(name, value)).collect(),
                ..Default::default()
            }],
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let connection = self.controller().await?;
        let response = connection.request(&request).await?;
        for result in &response.topics {
            let subject = || format!("topic {}", result.name);
            let message = result.error_message.as_deref();
            check(connection.addr(), ApiKey::CreateTopics, subject, result.error_code, message)?;
        }
        self.client.forget(&topic.name);
        Ok(())
    }

    /// Gives a topic more partitions: `count` in all. A topic never has fewer than before.
    pub async fn create_partitions(
        &self,
        name: &str,
        count: i32,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: name.into(), count, assignments: None }],
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        self.retrying(&format!("partitions of {name}"), not_carried_out, async || {
            let connection = self.controller().await?;
            let response = connection.request(&request).await?;
            for result in &response.results {
                let subject = || format!("topic {name}");
                let message = result.error_message.as_deref();
                check(connection.addr(), ApiKey::CreatePartitions, subject, result.error_code, message)?;
            }
            Ok(())
        })
        .await?;
        self.client.forget(name);
        Ok(())
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let connection = self.controller().await?;
        let mut request = DeleteTopicsRequest { timeout_ms: self.timeout_ms(), ..Default::default() };
        if connection.version::<DeleteTopicsRequest>()? >= DELETE_TOPICS_STATES {
            request.topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
        } else {
            request.topic_names = vec![name.into()];
        }
        let response = connection.request(&request).await?;
        for result in &response.responses {
            let subject = || format!("topic {name}");
            let message = result.error_message.as_deref();
            check(connection.addr(), ApiKey::DeleteTopics, subject, result.error_code, message)?;
        }
        self.client.forget(name);
        Ok(())
    }

    /// Every topic of the cluster, with its partitions.
    pub async fn topics(&self) -> Result<Rc<Metadata>, ClientError> {
        self.refresh(None).await
    }

    /// One topic, with its partitions. Not created if it doesn't exist.
    pub async fn topic(&self, name: &str) -> Result<Rc<Metadata>, ClientError> {
        self.client.partition_count(name, false).await?;
        self.refresh(Some(&[name])).await
    }

    async fn refresh(&self, topics: Option<&[&str]>) -> Result<Rc<Metadata>, ClientError> {
        self.retrying("metadata", may_pass, async || self.client.refresh(topics, false).await).await
    }

    /// Makes attempts until one succeeds, one fails with what is not to be tried `again`, or `api_timeout` is over.
    async fn retrying<T>(
        &self,
        what: &str,
        again: fn(&ClientError) -> bool,
        attempt: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut retry = self.client.retry();
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) if again(&error) => retry.again(what, error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    async fn any(&self) -> Result<Connection, ClientError> {
        self.retrying("connecting", may_pass, async || self.client.any().await).await
    }

    async fn controller(&self) -> Result<Connection, ClientError> {
        self.retrying("finding the controller", may_pass, async || self.client.controller().await).await
    }

    async fn broker(&self, id: i32) -> Result<Connection, ClientError> {
        if !self.client.metadata().brokers.contains_key(&id) {
            self.refresh(Some(&[])).await?;
        }
        if !self.client.metadata().brokers.contains_key(&id) {
            return Err(ClientError::UnknownBroker(id));
        }
        self.client.broker(id).await
    }
}

/// Whether a request without effect, or with the same effect however often it is sent, is worth sending again. A topic
/// that isn't there won't be by waiting.
fn may_pass(error: &ClientError) -> bool {
    error.retriable() && error.code() != Some(ErrorCode::UnknownTopicOrPartition)
}

/// Whether a request that must not take effect twice can be sent again: it has had none.
fn not_carried_out(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::NoLeader(_) => true,
        ClientError::Broker { code, .. } => matches!(
            code,
            ErrorCode::NotController
                | ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::CoordinatorLoadInProgress
        ),
        _ => false,
    }
}

fn creatable(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig { name: name.into(), value: Some(value.into()) }
}
