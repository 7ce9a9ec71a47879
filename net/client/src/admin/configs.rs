//! Settings of topics and brokers.

use std::fmt;

use heizer_wire::ApiKey;
use heizer_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterableConfig,
};

use super::{Admin, may_pass};
use crate::connection::Connection;
use crate::error::{ClientError, check};

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

/// What has settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic, by its name.
    Topic(String),
    /// A broker, by its id.
    Broker(i32),
    /// All brokers that have no setting of their own.
    Brokers,
}

impl ConfigResource {
    fn kind(&self) -> i8 {
        match self {
            ConfigResource::Topic(_) => RESOURCE_TOPIC,
            ConfigResource::Broker(_) | ConfigResource::Brokers => RESOURCE_BROKER,
        }
    }

    /// Its name in requests.
    fn name(&self) -> String {
        match self {
            ConfigResource::Topic(name) => name.clone(),
            ConfigResource::Broker(id) => id.to_string(),
            ConfigResource::Brokers => String::new(),
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(id) => write!(f, "broker {id}"),
            ConfigResource::Brokers => f.write_str("all brokers"),
        }
    }
}

/// One setting of a topic or a broker.
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

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its name.
    pub name: String,
    /// Its new value; `None` returns to the default.
    pub value: Option<String>,
}

impl Admin {
    /// The settings of a topic or a broker, all of them, in the broker's order.
    pub async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, ClientError> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name().as_str().into(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        self.retrying(&format!("settings of {resource}"), may_pass, async || {
            let connection = match resource {
                ConfigResource::Broker(id) => self.broker(*id).await?,
                ConfigResource::Topic(_) | ConfigResource::Brokers => self.any().await?,
            };
            let response = connection.request(&request).await?;
            let mut entries = Vec::new();
            for result in response.results {
                let subject = || resource.to_string();
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
        })
        .await
    }

    /// The settings of a topic, all of them.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        self.configs(&ConfigResource::Topic(name.to_owned())).await
    }

    /// Changes settings; those not named stay as they are. With `validate_only` the broker only says whether it would.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|change| IncrementalAlterableConfig {
            name: change.name.as_str().into(),
            config_operation: if change.value.is_some() { OPERATION_SET } else { OPERATION_DELETE },
            value: change.value.as_deref().map(Into::into),
        });
        let request = IncrementalAlterConfigsRequest {
            resources: vec![IncrementalAlterConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name().as_str().into(),
                configs: configs.collect(),
            }],
            validate_only,
        };
        self.retrying(&format!("settings of {resource}"), may_pass, async || {
            let connection = self.in_charge_of(resource).await?;
            let response = connection.request(&request).await?;
            for result in &response.responses {
                let subject = || resource.to_string();
                let message = result.error_message.as_deref();
                let api = ApiKey::IncrementalAlterConfigs;
                check(connection.addr(), api, subject, result.error_code, message)?;
            }
            Ok(())
        })
        .await
    }

    /// Who changes the settings: a broker its own, the controller all others.
    async fn in_charge_of(&self, resource: &ConfigResource) -> Result<Connection, ClientError> {
        match resource {
            ConfigResource::Broker(id) => self.broker(*id).await,
            ConfigResource::Topic(_) | ConfigResource::Brokers => self.controller().await,
        }
    }
}
