//! Reading partitions that were assigned by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use heizer_runtime::task::spawn;
use heizer_runtime::time::{Instant, now, sleep, timeout};
use heizer_wire::messages::{FetchPartition, FetchPartitionData, FetchRequest, FetchResponse, FetchTopic};
use heizer_wire::record_batch::{BatchError, BatchView, Record, RecordHeader, TimestampType, batches};
use heizer_wire::{ApiKey, ErrorCode};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::offsets::{CONSUMER_REPLICA_ID, StartOffset};
use crate::pool::Pool;

/// Later versions name topics by id.
const FETCH_VERSION_MAX: i16 = 12;
const NO_SESSION_EPOCH: i32 = -1;

/// Settings of a [`Consumer`], under Kafka's names where Kafka has them.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `fetch.min.bytes`: the broker waits for this many, or for `fetch_wait`.
    pub fetch_bytes_min: i32,
    /// `fetch.max.bytes`: of one answer.
    pub fetch_bytes_max: i32,
    /// `max.partition.fetch.bytes`.
    pub partition_bytes_max: i32,
    /// `fetch.max.wait.ms`.
    pub fetch_wait: Duration,
    /// `max.poll.records`.
    pub poll_records_max: usize,
    /// `check.crcs`.
    pub check_crcs: bool,
    /// `auto.offset.reset`: where to go on when a position is out of range; an error when `None`.
    pub offset_reset: Option<StartOffset>,
    /// A compressed batch may take this many bytes when decompressed.
    pub decompressed_bytes_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            fetch_bytes_min: 1,
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            fetch_wait: Duration::from_millis(500),
            poll_records_max: 500,
            check_crcs: true,
            offset_reset: Some(StartOffset::Latest),
            decompressed_bytes_max: 256 << 20,
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic.
    pub topic: Rc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since the epoch.
    pub timestamp: i64,
    /// Who gave it that.
    pub timestamp_type: TimestampType,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<RecordHeader>,
}

type Partition = (Rc<str>, i32);

/// Reads assigned partitions: while the application works on what it has, the next fetch is under way.
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    pool: Rc<Pool>,
    partitions: BTreeMap<Partition, Position>,
    ready: VecDeque<ConsumedRecord>,
    fetches: FuturesUnordered<LocalBoxFuture<'static, Fetched>>,
    /// Brokers with a fetch under way.
    busy: BTreeSet<i32>,
    not_before: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    /// The offset after the last record handed out.
    consumed: i64,
    /// The offset to fetch next.
    fetch: i64,
    /// Records in `ready`.
    ready: usize,
}

/// An answer, with what was asked.
struct Fetched {
    broker: i32,
    asked: BTreeMap<Partition, i64>,
    answer: Result<FetchResponse, ClientError>,
}

impl Consumer {
    /// A consumer that uses `client`, with nothing assigned.
    pub fn new(client: &Client, config: ConsumerConfig) -> Consumer {
        Consumer {
            client: client.clone(),
            pool: Rc::new(client.new_pool()),
            config,
            partitions: BTreeMap::new(),
            ready: VecDeque::new(),
            fetches: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            not_before: Instant::ZERO,
        }
    }

    /// Replaces the assignment: (topic, partition, start).
    pub async fn assign(&mut self, assignment: &[(&str, i32, StartOffset)]) -> Result<(), ClientError> {
        let mut partitions = BTreeMap::new();
        for &(topic, partition, start) in assignment {
            let offset = self.client.offset(topic, partition, start).await?;
            partitions.insert((Rc::from(topic), partition), Position::at(offset));
        }
        self.ready.clear();
        self.partitions = partitions;
        Ok(())
    }

    /// Assigns every partition of a topic, which has to exist.
    pub async fn assign_topic(&mut self, topic: &str, start: StartOffset) -> Result<(), ClientError> {
        let count = self.client.partition_count(topic, false).await?;
        let all: Vec<_> = (0..count as i32).map(|partition| (topic, partition, start)).collect();
        self.assign(&all).await
    }

    /// Continues an assigned partition elsewhere.
    pub async fn seek(&mut self, topic: &str, partition: i32, start: StartOffset) -> Result<(), ClientError> {
        let offset = self.client.offset(topic, partition, start).await?;
        if let Some(position) = self.partitions.get_mut(&(Rc::from(topic), partition)) {
            *position = Position::at(offset);
            self.ready.retain(|record| (&*record.topic, record.partition) != (topic, partition));
        }
        Ok(())
    }

    /// What is assigned, and the offset of the next record that [`Consumer::poll`] would give of each.
    pub fn positions(&self) -> impl Iterator<Item = (&Rc<str>, i32, i64)> {
        self.partitions.iter().map(|((topic, partition), position)| (topic, *partition, position.consumed))
    }

    /// Up to `poll_records_max` records; none when nothing comes within `wait`.
    ///
    /// An error that a retry can mend is retried; any other is given back, and the next call goes on with the
    /// other partitions.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = now() + wait;
        loop {
            if !self.ready.is_empty() {
                self.start_fetches();
                return Ok(self.hand_out());
            }
            let left = deadline.saturating_duration_since(now());
            let pause = self.not_before.saturating_duration_since(now());
            if !pause.is_zero() {
                sleep(pause.min(left)).await;
            }
            self.start_fetches();
            if self.fetches.is_empty() && self.not_before <= now() {
                self.find_leaders().await;
                self.start_fetches();
            }
            let left = deadline.saturating_duration_since(now());
            if self.fetches.is_empty() {
                if left.is_zero() {
                    return Ok(Vec::new());
                }
                if self.not_before <= now() {
                    self.not_before = now() + self.client.config().retry_backoff.min(left);
                }
                continue;
            }
            match timeout(left, self.fetches.next()).await {
                Ok(Some(fetched)) => self.take(fetched).await?,
                Ok(None) => {}
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    fn hand_out(&mut self) -> Vec<ConsumedRecord> {
        let count = self.ready.len().min(self.config.poll_records_max.max(1));
        let records: Vec<ConsumedRecord> = self.ready.drain(..count).collect();
        let mut at: Option<(Partition, &mut Position)> = None;
        for record in &records {
            let same = at.as_ref().is_some_and(|((topic, partition), _)| {
                Rc::ptr_eq(topic, &record.topic) && *partition == record.partition
            });
            if !same {
                let key = (Rc::clone(&record.topic), record.partition);
                at = self.partitions.get_mut(&key).map(|position| (key, position));
            }
            if let Some((_, position)) = &mut at {
                position.ready -= 1;
                // Behind the last record there may be batches without any, such as control batches.
                position.consumed = if position.ready == 0 { position.fetch } else { record.offset + 1 };
            }
        }
        records
    }

    /// Asks for the metadata of topics whose leaders aren't known.
    async fn find_leaders(&mut self) {
        let metadata = self.client.metadata();
        let unknown: BTreeSet<&str> = self
            .partitions
            .keys()
            .filter(|(topic, partition)| metadata.leader(topic, *partition).is_none())
            .map(|(topic, _)| &**topic)
            .collect();
        if unknown.is_empty() {
            return;
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        if let Err(error) = self.client.refresh(Some(&unknown), false).await {
            tracing::debug!(%error, "metadata for fetching");
        }
    }

    /// One fetch to each leader that has none under way.
    fn start_fetches(&mut self) {
        if now() < self.not_before || self.ready.len() > self.config.poll_records_max {
            return;
        }
        let metadata = self.client.metadata();
        let mut by_leader: BTreeMap<i32, BTreeMap<Partition, i64>> = BTreeMap::new();
        for (partition, position) in &self.partitions {
            if let Some(leader) = metadata.leader(&partition.0, partition.1)
                && !self.busy.contains(&leader)
            {
                by_leader.entry(leader).or_default().insert(partition.clone(), position.fetch);
            }
        }
        for (broker, asked) in by_leader {
            self.busy.insert(broker);
            let (pool, config) = (Rc::clone(&self.pool), self.config.clone());
            let addr = self.client.broker_addr(broker);
            let fetch = async move {
                let connected = async { pool.connect(&addr?).await };
                let answer = match connected.await {
                    Ok(connection) => fetch(&connection, &config, &asked).await,
                    Err(error) => Err(error),
                };
                Fetched { broker, asked, answer }
            };
            // A task of its own, so that it goes on while the application is busy with what it has.
            let task = spawn(fetch);
            self.fetches.push(async { task.await.expect("fetching never panics") }.boxed_local());
        }
    }

    async fn take(&mut self, fetched: Fetched) -> Result<(), ClientError> {
        let Fetched { broker, asked, answer } = fetched;
        self.busy.remove(&broker);
        let response = match answer {
            Ok(response) => response,
            Err(error) if error.retriable() => {
                tracing::debug!(%error, "fetching again");
                return self.start_over(asked.keys());
            }
            Err(error) => return Err(error),
        };
        if response.error_code != 0 {
            return self.start_over(asked.keys());
        }
        for topic in response.responses {
            for data in topic.partitions {
                let found = asked.get_key_value(&(Rc::from(&*topic.topic), data.partition_index));
                if let Some((partition, &offset)) = found {
                    self.take_partition(partition, offset, data).await?;
                }
            }
        }
        Ok(())
    }

    /// Forgets who leads these, and pauses before asking.
    fn start_over<'a>(&mut self, partitions: impl Iterator<Item = &'a Partition>) -> Result<(), ClientError> {
        partitions.for_each(|(topic, _)| self.client.forget(topic));
        self.not_before = now() + self.client.config().retry_backoff;
        Ok(())
    }

    async fn take_partition(
        &mut self,
        partition: &Partition,
        asked: i64,
        data: FetchPartitionData,
    ) -> Result<(), ClientError> {
        // Assigned anew or sought elsewhere meanwhile: the answer is to another question.
        if self.partitions.get(partition).is_none_or(|position| position.fetch != asked) {
            return Ok(());
        }
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange if self.config.offset_reset.is_some() => {
                let start = self.config.offset_reset.unwrap_or(StartOffset::Earliest);
                let offset = self.client.offset(&partition.0, partition.1, start).await?;
                tracing::debug!(topic = %partition.0, partition = partition.1, asked, offset, "offset reset");
                self.partitions.insert(partition.clone(), Position::at(offset));
                return Ok(());
            }
            code if code.retriable() => return self.start_over(std::iter::once(partition)),
            code => {
                return Err(ClientError::Broker {
                    addr: "the leader".to_owned(),
                    api: ApiKey::Fetch,
                    subject: format!("{}-{} at offset {asked}", partition.0, partition.1),
                    code,
                    message: None,
                });
            }
        }
        let records = data.records.unwrap_or_default().to_bytes();
        let (records, next) = decode(partition, asked, records, &self.config)?;
        if let Some(position) = self.partitions.get_mut(partition) {
            position.fetch = next;
            position.ready += records.len();
            if position.ready == 0 {
                position.consumed = next;
            }
        }
        self.ready.extend(records);
        Ok(())
    }
}

impl Position {
    fn at(offset: i64) -> Position {
        Position { consumed: offset, fetch: offset, ready: 0 }
    }
}

async fn fetch(
    connection: &Connection,
    config: &ConsumerConfig,
    asked: &BTreeMap<Partition, i64>,
) -> Result<FetchResponse, ClientError> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, partition), &fetch_offset) in asked {
        let wanted = FetchPartition {
            partition: *partition,
            fetch_offset,
            partition_max_bytes: config.partition_bytes_max,
            ..Default::default()
        };
        match topics.last_mut() {
            Some(last) if *last.topic == **topic => last.partitions.push(wanted),
            _ => {
                let topic = (&**topic).into();
                topics.push(FetchTopic { topic, partitions: vec![wanted], ..Default::default() });
            }
        }
    }
    let request = FetchRequest {
        replica_id: CONSUMER_REPLICA_ID,
        max_wait_ms: i32::try_from(config.fetch_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.fetch_bytes_min,
        max_bytes: config.fetch_bytes_max,
        session_epoch: NO_SESSION_EPOCH,
        topics,
        ..Default::default()
    };
    connection.request_with(&request, FETCH_VERSION_MAX, config.fetch_wait).await
}

/// The records from `asked` on, and the offset to fetch next.
fn decode(
    partition: &Partition,
    asked: i64,
    bytes: Bytes,
    config: &ConsumerConfig,
) -> Result<(Vec<ConsumedRecord>, i64), ClientError> {
    let malformed = |offset: i64, reason: String| ClientError::Batch {
        topic: partition.0.to_string(),
        partition: partition.1,
        offset,
        reason,
    };
    let mut records = Vec::new();
    let mut next = asked;
    for batch in batches(bytes) {
        let batch: BatchView = match batch {
            Ok(batch) => batch,
            // The rest of it comes with the next fetch.
            Err(BatchError::Truncated { .. }) if next > asked => break,
            Err(error) => return Err(malformed(next, error.to_string())),
        };
        if config.check_crcs {
            batch.verify_crc().map_err(|error| malformed(next, error.to_string()))?;
        }
        if !batch.header().is_control() {
            let decoded = batch.records(config.decompressed_bytes_max);
            for record in decoded.map_err(|error| malformed(next, error.to_string()))? {
                let Record { offset, timestamp, key, value, headers } =
                    record.map_err(|error| malformed(next, error.to_string()))?;
                // A fetch from within a batch brings the whole batch (contract F1).
                if offset >= asked {
                    records.push(ConsumedRecord {
                        topic: Rc::clone(&partition.0),
                        partition: partition.1,
                        offset,
                        timestamp,
                        timestamp_type: batch.header().timestamp_type(),
                        key,
                        value,
                        headers,
                    });
                }
            }
        }
        next = next.max(batch.header().next_offset());
    }
    Ok((records, next))
}
