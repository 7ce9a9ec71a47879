//! A cluster as one thing to talk to: bootstrap, metadata, and a connection for each broker.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::time::{Instant, now};
use heizer_wire::messages::{FindCoordinatorRequest, MetadataRequest, MetadataRequestTopic};
use heizer_wire::{ApiKey, ErrorCode, Request};

use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::metadata::{Metadata, host_port};
use crate::pool::Pool;
use crate::retry::Retry;

/// The name behind an id in Metadata came with version 12; asking by name works at every version up to here, and
/// this client knows topics by name.
const METADATA_VERSION_MAX: i16 = 12;
/// From version 4 on coordinators are asked for in batches (contract P8).
const FIND_COORDINATOR_BATCHED: i16 = 4;

/// Settings of a [`Client`], under Kafka's names where Kafka has them.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: `host:port` of some brokers.
    pub bootstrap: Vec<String>,
    /// `client.id`.
    pub client_id: String,
    /// `request.timeout.ms`: how long one request may take.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: how long an operation may take, with everything that it tries again.
    pub api_timeout: Duration,
    /// `retry.backoff.ms`: the first pause before trying again; it doubles.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`: the longest pause.
    pub retry_backoff_max: Duration,
    /// `metadata.max.age.ms`: older metadata is asked anew before it is used.
    pub metadata_age_max: Duration,
}

impl ClientConfig {
    /// Kafka's defaults.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "heizer".to_owned(),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
        }
    }
}

/// A cluster. Clones share its connections and metadata; all belong to one core.
#[derive(Clone)]
pub struct Client {
    inner: Rc<Inner>,
}

struct Inner {
    config: ClientConfig,
    metadata: RefCell<Rc<Metadata>>,
    /// When each topic was last answered for.
    refreshed: RefCell<BTreeMap<String, Instant>>,
    pool: Pool,
    next_bootstrap: Cell<usize>,
}

impl Client {
    /// A client; it connects when it is first used.
    pub fn new(config: ClientConfig) -> Client {
        Client {
            inner: Rc::new(Inner {
                pool: Pool::new(&config.client_id, config.request_timeout),
                config,
                metadata: RefCell::default(),
                refreshed: RefCell::default(),
                next_bootstrap: Cell::new(0),
            }),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// The current picture of the cluster, without asking.
    pub fn metadata(&self) -> Rc<Metadata> {
        Rc::clone(&self.inner.metadata.borrow())
    }

    pub(crate) fn retry(&self) -> Retry {
        self.retry_within(self.config().api_timeout)
    }

    pub(crate) fn retry_within(&self, within: Duration) -> Retry {
        Retry::new(within, self.config().retry_backoff, self.config().retry_backoff_max)
    }

    /// Asks for the metadata of `topics` (of all, when `None`) now.
    pub async fn refresh(&self, topics: Option<&[&str]>, create: bool) -> Result<Rc<Metadata>, ClientError> {
        let request = MetadataRequest {
            topics: topics.map(|topics| {
                let topic =
                    |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
                topics.iter().map(topic).collect()
            }),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let connection = self.any().await?;
        let response = connection.request_with(&request, METADATA_VERSION_MAX, Duration::ZERO).await?;
        let updated = Rc::new(self.metadata().updated(response, topics.is_none()));
        *self.inner.metadata.borrow_mut() = Rc::clone(&updated);
        let at = now();
        let mut refreshed = self.inner.refreshed.borrow_mut();
        match topics {
            Some(topics) => refreshed.extend(topics.iter().map(|topic| ((*topic).to_owned(), at))),
            None => *refreshed = updated.topics.keys().map(|topic| (topic.clone(), at)).collect(),
        }
        Ok(updated)
    }

    /// Makes sure that `topic` is known and its metadata fresh; returns its number of partitions. A topic that is
    /// being created is waited for.
    pub async fn partition_count(&self, topic: &str, create: bool) -> Result<usize, ClientError> {
        self.partition_count_within(topic, create, self.config().api_timeout).await
    }

    pub(crate) async fn partition_count_within(
        &self,
        topic: &str,
        create: bool,
        within: Duration,
    ) -> Result<usize, ClientError> {
        let mut retry = self.retry_within(within);
        loop {
            let fresh = self
                .inner
                .refreshed
                .borrow()
                .get(topic)
                .is_some_and(|&at| now().saturating_duration_since(at) < self.config().metadata_age_max);
            if fresh && let Some(count) = self.metadata().partition_count(topic) {
                return Ok(count);
            }
            let outcome = match self.refresh(Some(&[topic]), create).await {
                Ok(metadata) => match metadata.topics.get(topic) {
                    Some(found) if found.error.is_none() && !found.partitions.is_empty() => continue,
                    Some(found) if !found.error.is_none() => self.topic_error(topic, found.error, create),
                    _ => ClientError::NoLeader(topic.to_owned()),
                },
                Err(error) => error,
            };
            retry.after(&format!("metadata of {topic}"), outcome).await?;
        }
    }

    /// Without creation an unknown topic stays unknown: no use in trying again.
    fn topic_error(&self, topic: &str, code: ErrorCode, create: bool) -> ClientError {
        if create && code == ErrorCode::UnknownTopicOrPartition {
            return ClientError::NoLeader(topic.to_owned());
        }
        if !create && code == ErrorCode::UnknownTopicOrPartition {
            return ClientError::UnknownTopic(topic.to_owned());
        }
        ClientError::Broker {
            addr: self.config().bootstrap.join(","),
            api: ApiKey::Metadata,
            subject: topic.to_owned(),
            code,
            message: None,
        }
    }

    /// A connection to the leader of a partition, after asking for it when it isn't known.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Connection, ClientError> {
        let leader = match self.metadata().leader(topic, partition) {
            Some(leader) => leader,
            None => {
                let metadata = self.refresh(Some(&[topic]), false).await?;
                let unknown = || ClientError::NoLeader(format!("{topic}-{partition}"));
                metadata.leader(topic, partition).ok_or_else(unknown)?
            }
        };
        self.broker(leader).await
    }

    /// Forgets who leads what in `topic`, so that the next use asks anew.
    pub fn forget(&self, topic: &str) {
        self.inner.refreshed.borrow_mut().remove(topic);
        let mut metadata = Metadata::clone(&self.metadata());
        metadata.topics.remove(topic);
        *self.inner.metadata.borrow_mut() = Rc::new(metadata);
    }

    /// A connection to a broker by its id.
    pub async fn broker(&self, id: i32) -> Result<Connection, ClientError> {
        self.inner.pool.connect(&self.broker_addr(id)?).await
    }

    /// A connection to the broker at an address that was told.
    pub(crate) async fn at(&self, addr: &str) -> Result<Connection, ClientError> {
        self.inner.pool.connect(addr).await
    }

    pub(crate) fn broker_addr(&self, id: i32) -> Result<String, ClientError> {
        let unknown = || ClientError::NoLeader(format!("broker {id}"));
        self.metadata().brokers.get(&id).cloned().ok_or_else(unknown)
    }

    /// Connections apart from those that all share: for requests that wait at the broker.
    pub(crate) fn new_pool(&self) -> Pool {
        Pool::new(&self.config().client_id, self.config().request_timeout)
    }

    /// A connection to any broker: one that is open, else one that lets itself be reached.
    pub async fn any(&self) -> Result<Connection, ClientError> {
        if let Some(connection) = self.inner.pool.any_open() {
            return Ok(connection);
        }
        let metadata = self.metadata();
        let known: BTreeSet<&String> = metadata.brokers.values().collect();
        let candidates: Vec<&String> = known.into_iter().chain(&self.inner.config.bootstrap).collect();
        let first = self.inner.next_bootstrap.replace(self.inner.next_bootstrap.get().wrapping_add(1));
        let mut failed = ClientError::NoLeader("the cluster: no bootstrap address is configured".to_owned());
        for turn in 0..candidates.len() {
            match self.inner.pool.connect(candidates[(first + turn) % candidates.len()]).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// A connection to the controller, where the cluster names one.
    pub async fn controller(&self) -> Result<Connection, ClientError> {
        let metadata = self.refresh(Some(&[]), false).await?;
        if metadata.brokers.contains_key(&metadata.controller_id) {
            self.broker(metadata.controller_id).await
        } else {
            self.any().await
        }
    }

    /// Sends a request to any broker, trying again on failures of the connection until `api_timeout`.
    pub async fn request_any<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        let mut retry = self.retry();
        loop {
            let outcome = match self.any().await {
                Ok(connection) => connection.request(request).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(response) => return Ok(response),
                Err(error) => retry.after(R::KEY.name(), error).await?,
            }
        }
    }

    /// The address of a consumer group's coordinator.
    pub async fn group_coordinator(&self, group: &str) -> Result<String, ClientError> {
        let connection = self.any().await?;
        let api = ApiKey::FindCoordinator;
        let mut request = FindCoordinatorRequest::default();
        if connection.version::<FindCoordinatorRequest>()? >= FIND_COORDINATOR_BATCHED {
            request.coordinator_keys = vec![group.into()];
        } else {
            request.key = group.into();
        }
        let response = connection.request(&request).await?;
        let subject = || format!("group {group}");
        match response.coordinators.first() {
            Some(found) => {
                check(connection.addr(), api, subject, found.error_code, found.error_message.as_deref())?;
                Ok(host_port(&found.host, found.port))
            }
            None => {
                check(
                    connection.addr(),
                    api,
                    subject,
                    response.error_code,
                    response.error_message.as_deref(),
                )?;
                Ok(host_port(&response.host, response.port))
            }
        }
    }
}
