//! Finding offsets by position or by time.

use std::time::Duration;

use heizer_wire::ApiKey;
use heizer_wire::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use crate::client::Client;
use crate::error::{ClientError, check};

pub(crate) const TIMESTAMP_LATEST: i64 = -1;
pub(crate) const TIMESTAMP_EARLIEST: i64 = -2;
/// What this client asks with: it is no replica.
pub(crate) const CONSUMER_REPLICA_ID: i32 = -1;

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// At this offset.
    At(i64),
    /// At the first record with at least this timestamp (ms since the epoch), or behind the last.
    Timestamp(i64),
}

impl Client {
    /// The offset that `start` stands for now.
    pub async fn offset(&self, topic: &str, partition: i32, start: StartOffset) -> Result<i64, ClientError> {
        let found = match start {
            StartOffset::At(offset) => return Ok(offset),
            StartOffset::Earliest => self.list_offset(topic, partition, TIMESTAMP_EARLIEST).await?,
            StartOffset::Latest => self.list_offset(topic, partition, TIMESTAMP_LATEST).await?,
            StartOffset::Timestamp(timestamp) => self.list_offset(topic, partition, timestamp).await?,
        };
        // None found is an offset of -1 without an error (contract L7).
        if found < 0 { self.list_offset(topic, partition, TIMESTAMP_LATEST).await } else { Ok(found) }
    }

    async fn list_offset(&self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, ClientError> {
        let mut retry = self.retry();
        loop {
            let error = match self.try_list_offset(topic, partition, timestamp).await {
                Ok(offset) => return Ok(offset),
                Err(error) => error,
            };
            if error.retriable() {
                self.forget(topic);
            }
            retry.after(&format!("offsets of {topic}-{partition}"), error).await?;
        }
    }

    async fn try_list_offset(&self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, ClientError> {
        let connection = self.leader(topic, partition).await?;
        let wanted = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let request = ListOffsetsRequest {
            replica_id: CONSUMER_REPLICA_ID,
            topics: vec![ListOffsetsTopic { name: topic.into(), partitions: vec![wanted] }],
            ..Default::default()
        };
        let response = connection.request_with(&request, i16::MAX, Duration::ZERO).await?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(answer) = answer else { return Err(ClientError::NoLeader(format!("{topic}-{partition}"))) };
        let subject = || format!("{topic}-{partition}");
        check(connection.addr(), ApiKey::ListOffsets, subject, answer.error_code, None)?;
        Ok(answer.offset)
    }
}
