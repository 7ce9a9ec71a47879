//! Where partitions start and end, and deleting records: asked of the leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use heizer_wire::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsTopic,
};
use heizer_wire::{ApiKey, ErrorCode};

use super::{Admin, PerPartition, TopicPartition, may_pass};
use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::metadata::Metadata;
use crate::offsets::{CONSUMER_REPLICA_ID, TIMESTAMP_EARLIEST, TIMESTAMP_LATEST};

const TIMESTAMP_MAX: i64 = -3;
/// Instead of an offset: the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// An offset to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// Of the first record there is.
    Earliest,
    /// Behind the last record that consumers see.
    Latest,
    /// Of the record with the greatest timestamp.
    MaxTimestamp,
    /// Of the first record with at least this timestamp (ms since the epoch).
    Timestamp(i64),
}

impl OffsetAt {
    fn timestamp(self) -> i64 {
        match self {
            OffsetAt::Earliest => TIMESTAMP_EARLIEST,
            OffsetAt::Latest => TIMESTAMP_LATEST,
            OffsetAt::MaxTimestamp => TIMESTAMP_MAX,
            OffsetAt::Timestamp(timestamp) => timestamp,
        }
    }
}

/// An offset that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` when no record has such a timestamp.
    pub offset: Option<i64>,
    /// The record's timestamp, where a record was looked for.
    pub timestamp: Option<i64>,
}

impl Admin {
    /// Looks for an offset in each partition.
    pub async fn list_offsets(
        &self,
        wanted: &BTreeMap<TopicPartition, OffsetAt>,
    ) -> PerPartition<ListedOffset> {
        self.at_leaders("offsets", wanted, list_offsets).await
    }

    /// Looks for the same offset in several partitions.
    pub async fn list_offsets_at(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        at: OffsetAt,
    ) -> PerPartition<ListedOffset> {
        self.list_offsets(&partitions.into_iter().map(|partition| (partition, at)).collect()).await
    }

    /// Deletes the records below an offset of each partition (all that consumers see, when `None`); where each
    /// partition starts then.
    pub async fn delete_records(&self, below: &BTreeMap<TopicPartition, Option<i64>>) -> PerPartition<i64> {
        let timeout_ms = self.timeout_ms();
        self.at_leaders("deleting records", below, async |connection, asked| {
            delete_records(connection, asked, timeout_ms).await
        })
        .await
    }

    /// Asks the leaders of partitions, each once for all that it leads, until every partition has an answer that
    /// counts or `api_timeout` is over.
    async fn at_leaders<W: Copy, T>(
        &self,
        what: &str,
        wanted: &BTreeMap<TopicPartition, W>,
        ask: impl AsyncFn(&Connection, &[(TopicPartition, W)]) -> Result<PerPartition<T>, ClientError>,
    ) -> PerPartition<T> {
        let mut left = wanted.clone();
        let mut done = BTreeMap::new();
        let mut retry = self.client.retry();
        loop {
            let answers = self.ask_leaders(&left, &ask).await;
            let mut failed = None;
            for (partition, answer) in answers {
                match answer {
                    Err(error) if may_pass(&error) => {
                        // Once for all partitions of a topic: it copies what is known of all others.
                        if self.client.metadata().topics.contains_key(&partition.0) {
                            self.client.forget(&partition.0);
                        }
                        failed = Some(error);
                    }
                    answer => {
                        left.remove(&partition);
                        done.insert(partition, answer);
                    }
                }
            }
            let Some(error) = failed else { return done };
            if let Err(error) = retry.again(what, error).await {
                done.extend(left.into_keys().map(|partition| (partition, Err(error.clone()))));
                return done;
            }
        }
    }

    /// One round: an answer or an error for each partition.
    async fn ask_leaders<W: Copy, T>(
        &self,
        wanted: &BTreeMap<TopicPartition, W>,
        ask: &impl AsyncFn(&Connection, &[(TopicPartition, W)]) -> Result<PerPartition<T>, ClientError>,
    ) -> PerPartition<T> {
        let metadata = match self.know_leaders(wanted.keys()).await {
            Ok(metadata) => metadata,
            Err(error) => {
                let all = wanted.keys().cloned();
                return all.map(|partition| (partition, Err(error.clone()))).collect();
            }
        };
        let mut answers = BTreeMap::new();
        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, W)>> = BTreeMap::new();
        for (partition, &value) in wanted {
            match leader(&metadata, partition) {
                Ok(leader) => by_leader.entry(leader).or_default().push((partition.clone(), value)),
                Err(error) => drop(answers.insert(partition.clone(), Err(error))),
            }
        }
        let requests = by_leader.into_iter().map(|(leader, asked)| async move {
            let answered = match self.client.broker(leader).await {
                Ok(connection) => {
                    ask(&connection, &asked).await.map(|answered| (connection.addr().to_owned(), answered))
                }
                Err(error) => Err(error),
            };
            (asked, answered)
        });
        for (asked, answered) in join_all(requests).await {
            match answered {
                Ok((addr, mut answered)) => answers.extend(asked.into_iter().map(|(partition, _)| {
                    let missing = || Err(ClientError::incomplete(&addr, what_of(&partition)));
                    let answer = answered.remove(&partition).unwrap_or_else(missing);
                    (partition, answer)
                })),
                Err(error) => {
                    answers.extend(asked.into_iter().map(|(partition, _)| (partition, Err(error.clone()))));
                }
            }
        }
        answers
    }

    /// The metadata, with the topics of `partitions` in it.
    async fn know_leaders<'a>(
        &self,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<Rc<Metadata>, ClientError> {
        let known = self.client.metadata();
        let unknown: BTreeSet<&str> = partitions
            .map(|(topic, _)| topic.as_str())
            .filter(|topic| !known.topics.contains_key(*topic))
            .collect();
        if unknown.is_empty() {
            return Ok(known);
        }
        self.client.refresh(Some(&unknown.into_iter().collect::<Vec<_>>()), false).await
    }
}

/// Who leads a partition, or why nobody can be asked.
fn leader(metadata: &Metadata, partition: &TopicPartition) -> Result<i32, ClientError> {
    let (topic, index) = partition;
    if let Some(leader) = metadata.leader(topic, *index) {
        return Ok(leader);
    }
    Err(match metadata.topics.get(topic) {
        None => ClientError::NoLeader(what_of(partition)),
        Some(found) if found.error == ErrorCode::UnknownTopicOrPartition => {
            ClientError::UnknownTopic(topic.clone())
        }
        Some(found) if !found.error.is_none() => ClientError::Broker {
            addr: "the cluster".to_owned(),
            api: ApiKey::Metadata,
            subject: format!("topic {topic}"),
            code: found.error,
            message: None,
        },
        Some(found) if found.partitions.iter().any(|found| found.index == *index) => {
            ClientError::NoLeader(what_of(partition))
        }
        Some(found) => ClientError::UnknownPartition {
            topic: topic.clone(),
            partition: *index,
            count: found.partitions.len(),
        },
    })
}

fn what_of((topic, partition): &TopicPartition) -> String {
    format!("{topic}-{partition}")
}

async fn list_offsets(
    connection: &Connection,
    asked: &[(TopicPartition, OffsetAt)],
) -> Result<PerPartition<ListedOffset>, ClientError> {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for ((topic, partition), at) in asked {
        let wanted = ListOffsetsPartition {
            partition_index: *partition,
            timestamp: at.timestamp(),
            ..Default::default()
        };
        match topics.last_mut() {
            Some(last) if *last.name == **topic => last.partitions.push(wanted),
            _ => topics.push(ListOffsetsTopic { name: topic.as_str().into(), partitions: vec![wanted] }),
        }
    }
    let request = ListOffsetsRequest { replica_id: CONSUMER_REPLICA_ID, topics, ..Default::default() };
    let response = connection.request(&request).await?;
    let mut answers = BTreeMap::new();
    for topic in response.topics {
        for answer in topic.partitions {
            let partition = (topic.name.to_string(), answer.partition_index);
            let subject = || what_of(&partition);
            let checked = check(connection.addr(), ApiKey::ListOffsets, subject, answer.error_code, None);
            let known = |value: i64| Some(value).filter(|&value| value >= 0);
            let listed = ListedOffset { offset: known(answer.offset), timestamp: known(answer.timestamp) };
            answers.insert(partition, checked.map(|()| listed));
        }
    }
    Ok(answers)
}

async fn delete_records(
    connection: &Connection,
    asked: &[(TopicPartition, Option<i64>)],
    timeout_ms: i32,
) -> Result<PerPartition<i64>, ClientError> {
    let mut topics: Vec<DeleteRecordsTopic> = Vec::new();
    for ((topic, partition), below) in asked {
        let wanted =
            DeleteRecordsPartition { partition_index: *partition, offset: below.unwrap_or(HIGH_WATERMARK) };
        match topics.last_mut() {
            Some(last) if *last.name == **topic => last.partitions.push(wanted),
            _ => topics.push(DeleteRecordsTopic { name: topic.as_str().into(), partitions: vec![wanted] }),
        }
    }
    let request = DeleteRecordsRequest { topics, timeout_ms };
    let extra = Duration::from_millis(timeout_ms.unsigned_abs().into());
    let response = connection.request_with(&request, i16::MAX, extra).await?;
    let mut answers = BTreeMap::new();
    for topic in response.topics {
        for answer in topic.partitions {
            let partition = (topic.name.to_string(), answer.partition_index);
            let subject = || what_of(&partition);
            let checked = check(connection.addr(), ApiKey::DeleteRecords, subject, answer.error_code, None);
            answers.insert(partition, checked.map(|()| answer.low_watermark));
        }
    }
    Ok(answers)
}
