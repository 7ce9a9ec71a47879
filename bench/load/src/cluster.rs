//! The broker's side of a workload: its topics, where their partitions are led, and their offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use bytestring::ByteString;
use heizer_client::{Admin, Client, ClientConfig, ClientError, Connection, NewTopic};
use heizer_runtime::time::{now, sleep};
use heizer_wire::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use heizer_wire::{ApiKey, ErrorCode};

use crate::failure::Failure;
use crate::workload::Topic;

const CLIENT_ID: &str = "heizer-load";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long new partitions may take until their leaders answer.
const LEADERS_WITHIN: Duration = Duration::from_secs(60);
const LEADERS_PAUSE: Duration = Duration::from_millis(50);
const TIMESTAMP_LATEST: i64 = -1;
const TIMESTAMP_EARLIEST: i64 = -2;
/// What clients ask with, which are no replicas.
pub(crate) const CONSUMER_REPLICA_ID: i32 = -1;
/// From the next version on ListOffsets has no leader epoch of -1 for unknown.
const LIST_OFFSETS_VERSION_MAX: i16 = 9;

/// A partition of one of the topics. They are numbered over all topics: the place's index.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: ByteString,
    pub(crate) partition: i32,
    /// Where its leader listens.
    pub(crate) leader: String,
}

/// Which end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    Earliest,
    Latest,
}

/// The topics of a workload on the brokers that lead them.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) places: Vec<Place>,
}

/// The client's settings, for everything that needs a client of its own.
pub(crate) fn client_config(bootstrap: &[String]) -> ClientConfig {
    ClientConfig {
        client_id: CLIENT_ID.to_owned(),
        request_timeout: REQUEST_TIMEOUT,
        ..ClientConfig::new(bootstrap)
    }
}

/// A connection of its own.
pub(crate) async fn connect(addr: &str) -> Result<Connection, Failure> {
    Ok(Connection::connect(addr, CLIENT_ID, REQUEST_TIMEOUT).await?)
}

impl Cluster {
    /// Creates what is missing, refuses what is otherwise than wanted, and waits until every leader answers.
    pub(crate) async fn prepare(bootstrap: &[String], topic: &Topic) -> Result<Cluster, Failure> {
        let client = Client::new(client_config(bootstrap));
        // Without retries: somebody who mistyped an address shall not wait for a minute to be told.
        client.any().await?;
        let names = topic_names(topic);
        for name in &names {
            prepare_topic(&client, name, topic).await?;
        }
        let mut cluster = Cluster { client, places: Vec::new() };
        let deadline = now() + LEADERS_WITHIN;
        loop {
            let error = match cluster.find_places(&names, topic.partitions).await {
                Ok(()) => match cluster.offsets(Edge::Latest).await {
                    Ok(_) => return Ok(cluster),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !error.retriable() || now() > deadline {
                return Err(error.into());
            }
            sleep(LEADERS_PAUSE).await;
        }
    }

    async fn find_places(&mut self, names: &[String], partitions: usize) -> Result<(), ClientError> {
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let metadata = self.client.refresh(Some(&wanted), false).await?;
        self.places.clear();
        for name in names {
            for partition in 0..partitions as i32 {
                let leader = metadata.leader(name, partition).and_then(|id| metadata.brokers.get(&id));
                let unknown = || ClientError::NoLeader(format!("{name}-{partition}"));
                let leader = leader.ok_or_else(unknown)?.clone();
                self.places.push(Place { topic: name.as_str().into(), partition, leader });
            }
        }
        Ok(())
    }

    /// One end of each place, in their order.
    pub(crate) async fn offsets(&self, edge: Edge) -> Result<Vec<i64>, ClientError> {
        let mut by_leader: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, place) in self.places.iter().enumerate() {
            by_leader.entry(&place.leader).or_default().push(index);
        }
        let mut offsets = vec![0; self.places.len()];
        for (leader, indexes) in by_leader {
            let connection = Connection::connect(leader, CLIENT_ID, REQUEST_TIMEOUT).await?;
            let request = self.list_offsets(edge, &indexes);
            let answer = connection.request_with(&request, LIST_OFFSETS_VERSION_MAX, Duration::ZERO).await?;
            let by_name: BTreeMap<(&str, i32), usize> = indexes
                .iter()
                .map(|&index| ((&*self.places[index].topic, self.places[index].partition), index))
                .collect();
            for topic in answer.topics {
                for partition in topic.partitions {
                    let subject = format!("{}-{}", topic.name, partition.partition_index);
                    let code = ErrorCode::from_code(partition.error_code);
                    if !code.is_none() {
                        let api = ApiKey::ListOffsets;
                        return Err(ClientError::Broker {
                            addr: leader.to_owned(),
                            api,
                            subject,
                            code,
                            message: None,
                        });
                    }
                    let index = by_name.get(&(&*topic.name, partition.partition_index));
                    offsets[*index.ok_or(ClientError::NoLeader(subject))?] = partition.offset;
                }
            }
        }
        Ok(offsets)
    }

    fn list_offsets(&self, edge: Edge, indexes: &[usize]) -> ListOffsetsRequest {
        let timestamp = match edge {
            Edge::Earliest => TIMESTAMP_EARLIEST,
            Edge::Latest => TIMESTAMP_LATEST,
        };
        let mut topics: Vec<ListOffsetsTopic> = Vec::new();
        for &index in indexes {
            let place = &self.places[index];
            let wanted =
                ListOffsetsPartition { partition_index: place.partition, timestamp, ..Default::default() };
            match topics.last_mut() {
                Some(last) if last.name == place.topic => last.partitions.push(wanted),
                _ => topics.push(ListOffsetsTopic { name: place.topic.clone(), partitions: vec![wanted] }),
            }
        }
        ListOffsetsRequest { replica_id: CONSUMER_REPLICA_ID, topics, ..Default::default() }
    }
}

/// The topics that a workload's `[topic]` stands for.
pub(crate) fn topic_names(topic: &Topic) -> Vec<String> {
    match topic.topics {
        1 => vec![topic.name.clone()],
        count => (0..count).map(|index| format!("{}-{index}", topic.name)).collect(),
    }
}

async fn prepare_topic(client: &Client, name: &str, topic: &Topic) -> Result<(), Failure> {
    let there = match client.partition_count(name, false).await {
        Ok(count) => Some(count),
        Err(ClientError::UnknownTopic(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match there {
        Some(count) if count == topic.partitions => Ok(()),
        Some(count) => Err(Failure::new(format!(
            "topic {name} has {count} partitions and the workload wants {}; delete it, or name another with --set \
             topic.name=NAME",
            topic.partitions
        ))),
        None => {
            let wanted = NewTopic {
                name: name.to_owned(),
                partitions: Some(topic.partitions as i32),
                replication_factor: Some(topic.replication_factor),
                configs: topic.config.clone(),
            };
            Ok(Admin::new(client).create_topic(&wanted, false).await?)
        }
    }
}
