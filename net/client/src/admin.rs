//! Topics and their settings.

use std::collections::BTreeMap;
use std::rc::Rc;

use heizer_wire::ApiKey;
use heizer_wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeConfigsResource, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterableConfig,
};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::metadata::Metadata;

const RESOURCE_TOPIC: i8 = 2;
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;
/// From version 6 on topics to delete are named in structs.
const DELETE_TOPICS_STATES: i16 = 6;

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

/// One setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value, unless it is secret.
    pub value: Option<String>,
    /// Where the value comes from: Kafka's number (1 topic, 5 default, …).
    pub source: i8,
    /// Whether it can't be changed.
    pub read_only: bool,
    /// Whether the value is secret.
    pub sensitive: bool,
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
        let mut retry = self.client.retry();
        loop {
            match self.client.refresh(topics, false).await {
                Ok(metadata) => return Ok(metadata),
                Err(error) => retry.after("metadata", error).await?,
            }
        }
    }

    /// The settings of a topic, all of them.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.into(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let connection = self.any().await?;
        let response = connection.request(&request).await?;
        let mut entries = Vec::new();
        for result in response.results {
            let subject = || format!("topic {name}");
            let message = result.error_message.as_deref();
            check(connection.addr(), ApiKey::DescribeConfigs, subject, result.error_code, message)?;
            entries.extend(result.configs.into_iter().map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
                source: config.config_source,
                read_only: config.read_only,
                sensitive: config.is_sensitive,
            }));
        }
        Ok(entries)
    }

    /// Changes settings of a topic: a value sets, `None` returns to the default.
    pub async fn alter_topic_configs(
        &self,
        name: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|(name, value)| IncrementalAlterableConfig {
            name: name.as_str().into(),
            config_operation: if value.is_some() { OPERATION_SET } else { OPERATION_DELETE },
            value: value.as_deref().map(Into::into),
        });
        let request = IncrementalAlterConfigsRequest {
            resources: vec![IncrementalAlterConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.into(),
                configs: configs.collect(),
            }],
            validate_only: false,
        };
        let connection = self.controller().await?;
        let response = connection.request(&request).await?;
        for result in &response.responses {
            let subject = || format!("topic {name}");
            let message = result.error_message.as_deref();
            check(connection.addr(), ApiKey::IncrementalAlterConfigs, subject, result.error_code, message)?;
        }
        Ok(())
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    async fn any(&self) -> Result<Connection, ClientError> {
        let mut retry = self.client.retry();
        loop {
            match self.client.any().await {
                Ok(connection) => return Ok(connection),
                Err(error) => retry.after("connecting", error).await?,
            }
        }
    }

    async fn controller(&self) -> Result<Connection, ClientError> {
        let mut retry = self.client.retry();
        loop {
            match self.client.controller().await {
                Ok(connection) => return Ok(connection),
                Err(error) => retry.after("finding the controller", error).await?,
            }
        }
    }
}

fn creatable(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig { name: name.into(), value: Some(value.into()) }
}
