//! Brokers, features, data directories.

use heizer_wire::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeLogDirsRequest, DescribeLogDirsResult,
};
use heizer_wire::{ApiKey, ErrorCode};

use super::{Admin, may_pass};
use crate::connection::software;
use crate::error::{ClientError, check};
use crate::metadata::host_port;

/// The cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: String,
    /// The broker that decides for all, or -1.
    pub controller_id: i32,
    /// Its brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// Where clients reach it: `host:port`.
    pub addr: String,
    /// Where it stands, if it says so.
    pub rack: Option<String>,
}

/// A feature whose level the cluster has agreed on (KIP-584).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The level in force.
    pub level: i16,
}

/// A data directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path there.
    pub path: String,
    /// Why nothing more is known of it, unless it is [`ErrorCode::None`].
    pub error: ErrorCode,
    /// The size of its file system, if known.
    pub total_bytes: Option<i64>,
    /// Of that, what can be written to, if known.
    pub usable_bytes: Option<i64>,
    /// What is in it.
    pub replicas: Vec<LogDirReplica>,
}

/// A partition's files in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirReplica {
    /// Its topic.
    pub topic: String,
    /// Its index.
    pub partition: i32,
    /// Its size.
    pub bytes: i64,
    /// By how much it is behind the high watermark, or behind the replica that it is to replace.
    pub offset_lag: i64,
    /// Whether it is on its way here from another directory.
    pub future: bool,
}

impl Admin {
    /// The cluster's id, controller and brokers.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        self.retrying("describing the cluster", may_pass, async || {
            let connection = self.any().await?;
            let response = connection.request(&DescribeClusterRequest::default()).await?;
            let subject = || "the cluster".to_owned();
            let message = response.error_message.as_deref();
            check(connection.addr(), ApiKey::DescribeCluster, subject, response.error_code, message)?;
            let brokers = response.brokers.into_iter().map(|broker| BrokerDescription {
                id: broker.broker_id,
                addr: host_port(&broker.host, broker.port),
                rack: broker.rack.map(|rack| rack.to_string()),
            });
            let mut brokers: Vec<BrokerDescription> = brokers.collect();
            brokers.sort_by_key(|broker| broker.id);
            Ok(ClusterDescription {
                cluster_id: response.cluster_id.to_string(),
                controller_id: response.controller_id,
                brokers,
            })
        })
        .await
    }

    /// The features that the cluster has agreed on; none where it knows of none.
    pub async fn features(&self) -> Result<Vec<Feature>, ClientError> {
        self.retrying("features", may_pass, async || {
            let connection = self.any().await?;
            let response = connection.request::<ApiVersionsRequest>(&software()).await?;
            let subject = || "the cluster".to_owned();
            check(connection.addr(), ApiKey::ApiVersions, subject, response.error_code, None)?;
            let features = response
                .finalized_features
                .into_iter()
                .map(|feature| Feature { name: feature.name.to_string(), level: feature.max_version_level });
            Ok(features.collect())
        })
        .await
    }

    /// A broker's data directories, with all that is in them.
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDir>, ClientError> {
        self.retrying(&format!("data directories of broker {broker}"), may_pass, async || {
            let connection = self.broker(broker).await?;
            let response = connection.request(&DescribeLogDirsRequest { topics: None }).await?;
            let subject = || format!("broker {broker}");
            check(connection.addr(), ApiKey::DescribeLogDirs, subject, response.error_code, None)?;
            Ok(response.results.into_iter().map(log_dir).collect())
        })
        .await
    }
}

fn log_dir(found: DescribeLogDirsResult) -> LogDir {
    let known = |bytes: i64| Some(bytes).filter(|&bytes| bytes >= 0);
    let mut replicas = Vec::new();
    for topic in found.topics {
        replicas.extend(topic.partitions.into_iter().map(|partition| LogDirReplica {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            bytes: partition.partition_size,
            offset_lag: partition.offset_lag,
            future: partition.is_future_key,
        }));
    }
    LogDir {
        path: found.log_dir.to_string(),
        error: ErrorCode::from_code(found.error_code),
        total_bytes: known(found.total_bytes),
        usable_bytes: known(found.usable_bytes),
        replicas,
    }
}
