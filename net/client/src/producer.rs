//! Sending records: batched by partition, retried in order, each told where it went.
//!
//! Each partition has a queue, and a task while the queue isn't empty. The task sends one batch at a time, so that
//! order and sequence numbers hold across retries by themselves; what arrives meanwhile makes the next batch.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::select;
use heizer_runtime::collections::HashMap;
use heizer_runtime::sync::Event;
use heizer_runtime::task::spawn;
use heizer_runtime::time::{Instant, now, sleep_until, wall_clock_ms};
use heizer_wire::messages::{InitProducerIdRequest, PartitionProduceData, ProduceRequest, TopicProduceData};
use heizer_wire::record_batch::{BatchOptions, Compression, HEADER_BYTES, RecordBatchBuilder, RecordHeader};
use heizer_wire::{ApiKey, ErrorCode};

use crate::client::Client;
use crate::error::{ClientError, check};
use crate::partitioner::Partitioner;

/// Later versions name topics by id.
const PRODUCE_VERSION_MAX: i16 = 12;
/// What a record takes in a batch beside its key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// How many replicas have to have a record before it counts as sent (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0: the broker doesn't answer.
    None,
    /// 1: the leader alone.
    Leader,
    /// -1: all in-sync replicas.
    All,
}

/// Settings of a [`Producer`], under Kafka's names where Kafka has them.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`.
    pub acks: Acks,
    /// `linger.ms`: how long a batch waits for more records.
    pub linger: Duration,
    /// `batch.size`: a batch of this many bytes waits no longer.
    pub batch_bytes: usize,
    /// `compression.type`.
    pub compression: Compression,
    /// `enable.idempotence`: the broker drops what a retry doubles. Needs [`Acks::All`].
    pub idempotence: bool,
    /// `delivery.timeout.ms`: a record is sent by then, or fails.
    pub delivery_timeout: Duration,
    /// `buffer.memory`: bytes of records not yet sent.
    pub buffer_bytes_max: usize,
    /// `max.request.size`: a larger record is refused.
    pub request_bytes_max: usize,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            linger: Duration::from_millis(5),
            batch_bytes: 16 << 10,
            compression: Compression::None,
            idempotence: true,
            delivery_timeout: Duration::from_secs(120),
            buffer_bytes_max: 32 << 20,
            request_bytes_max: 1 << 20,
        }
    }
}

/// A record to send.
#[derive(Clone, Debug, Default)]
pub struct ProducerRecord {
    /// The topic; created if the broker does such things.
    pub topic: String,
    /// The partition; chosen by the key, or at random, when `None`.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<RecordHeader>,
    /// Its timestamp in ms since the epoch; now, when `None`.
    pub timestamp: Option<i64>,
}

impl ProducerRecord {
    /// A record for `topic`.
    pub fn new(topic: impl Into<String>, key: Option<Bytes>, value: Option<Bytes>) -> ProducerRecord {
        ProducerRecord { topic: topic.into(), key, value, ..ProducerRecord::default() }
    }

    fn size_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize =
            self.headers.iter().map(|header| 10 + header.key.len() + length(&header.value)).sum();
        RECORD_OVERHEAD_BYTES + length(&self.key) + length(&self.value) + headers
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset; -1 when the broker doesn't tell (acks=0, or a retry that it had already).
    pub offset: i64,
}

/// Resolves when a record has been sent, or has failed. Dropping it changes nothing for the record.
#[derive(Debug)]
pub struct Delivery {
    receiver: oneshot::Receiver<Result<Delivered, ClientError>>,
}

impl Future for Delivery {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.receiver.poll_unpin(cx).map(|sent| sent.unwrap_or(Err(ClientError::Closed)))
    }
}

/// Sends records to a cluster. Clones share its queues; all belong to one core.
#[derive(Clone)]
pub struct Producer {
    inner: Rc<Inner>,
}

struct Inner {
    client: Client,
    config: ProducerConfig,
    topics: RefCell<HashMap<String, Topic>>,
    partitioner: RefCell<Partitioner>,
    identity: RefCell<Option<Identity>>,
    identifying: Cell<bool>,
    /// Bytes and records accepted and not yet settled.
    buffered_bytes: Cell<usize>,
    unsettled: Cell<usize>,
    flushes: Cell<usize>,
    /// Announces settled records, new flushes and a new identity.
    changed: Event,
}

/// What the producer knows of a topic.
#[derive(Default)]
struct Topic {
    partition_count: Option<usize>,
    /// Records that wait for the partition count.
    unplaced: Vec<Entry>,
    queues: HashMap<i32, Rc<Queue>>,
}

struct Entry {
    record: ProducerRecord,
    timestamp: i64,
    bytes: usize,
    sender: oneshot::Sender<Result<Delivered, ClientError>>,
}

/// The records of one partition that wait, in order.
struct Queue {
    topic: String,
    partition: i32,
    entries: RefCell<VecDeque<Entry>>,
    bytes: Cell<usize>,
    waiting_since: Cell<Instant>,
    running: Cell<bool>,
    filled: Event,
    /// The identity that the next sequence number belongs to, and that number.
    sequence: Cell<(Identity, i32)>,
}

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    id: i64,
    epoch: i16,
}

const NO_IDENTITY: Identity = Identity { id: -1, epoch: -1 };

impl Producer {
    /// A producer that uses `client`.
    ///
    /// # Panics
    /// When idempotence is asked for without [`Acks::All`].
    pub fn new(client: &Client, config: ProducerConfig) -> Producer {
        assert!(!config.idempotence || config.acks == Acks::All, "idempotence needs acks=all");
        Producer {
            inner: Rc::new(Inner {
                client: client.clone(),
                partitioner: RefCell::new(Partitioner::new(config.batch_bytes)),
                config,
                topics: RefCell::default(),
                identity: RefCell::default(),
                identifying: Cell::new(false),
                buffered_bytes: Cell::new(0),
                unsettled: Cell::new(0),
                flushes: Cell::new(0),
                changed: Event::default(),
            }),
        }
    }

    /// Queues a record. Its delivery resolves to an error at once when the buffer is full (await
    /// [`Producer::ready`] to avoid that) or the record too large.
    pub fn send(&self, record: ProducerRecord) -> Delivery {
        let inner = &self.inner;
        let (sender, receiver) = oneshot::channel();
        let bytes = record.size_bytes();
        let refused = if bytes > inner.config.request_bytes_max {
            Some(ClientError::RecordTooLarge { bytes, max: inner.config.request_bytes_max })
        } else if inner.unsettled.get() > 0
            && inner.buffered_bytes.get() + bytes > inner.config.buffer_bytes_max
        {
            Some(ClientError::BufferFull(inner.config.buffer_bytes_max))
        } else {
            None
        };
        if let Some(error) = refused {
            // The receiver is right here.
            let _ = sender.send(Err(error));
            return Delivery { receiver };
        }
        inner.buffered_bytes.set(inner.buffered_bytes.get() + bytes);
        inner.unsettled.set(inner.unsettled.get() + 1);
        let timestamp = record.timestamp.unwrap_or_else(wall_clock_ms);
        inner.place(Entry { record, timestamp, bytes, sender });
        Delivery { receiver }
    }

    /// Resolves when the buffer has room for another record of usual size.
    pub async fn ready(&self) {
        let inner = &self.inner;
        let enough = inner.config.buffer_bytes_max.saturating_sub(inner.config.request_bytes_max);
        inner.until(|| inner.unsettled.get() == 0 || inner.buffered_bytes.get() <= enough).await;
    }

    /// Sends what waits without lingering, and resolves when every record sent before is settled.
    pub async fn flush(&self) {
        let inner = &self.inner;
        inner.flushes.set(inner.flushes.get() + 1);
        let _end = FlushEnd(inner);
        let queues: Vec<Rc<Queue>> =
            inner.topics.borrow().values().flat_map(|topic| topic.queues.values().map(Rc::clone)).collect();
        queues.iter().for_each(|queue| queue.filled.notify_all());
        inner.until(|| inner.unsettled.get() == 0).await;
    }

    /// Bytes of records not yet settled.
    pub fn buffered_bytes(&self) -> usize {
        self.inner.buffered_bytes.get()
    }
}

struct FlushEnd<'a>(&'a Inner);

impl Drop for FlushEnd<'_> {
    fn drop(&mut self) {
        self.0.flushes.set(self.0.flushes.get() - 1);
    }
}

impl Inner {
    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let changed = self.changed.listen();
            if condition() {
                return;
            }
            changed.await;
        }
    }

    /// Puts a record into its partition's queue, or into the line before the metadata.
    fn place(self: &Rc<Self>, entry: Entry) {
        let mut topics = self.topics.borrow_mut();
        let topic = match topics.get_mut(&entry.record.topic) {
            Some(topic) => topic,
            None => topics.entry(entry.record.topic.clone()).or_default(),
        };
        let Some(count) = topic.partition_count else {
            let name = topic.unplaced.is_empty().then(|| entry.record.topic.clone());
            topic.unplaced.push(entry);
            // What the client knows already is learnt before `spawn` returns.
            drop(topics);
            if let Some(name) = name {
                drop(spawn(Rc::clone(self).learn_partitions(name)));
            }
            return;
        };
        let partition = self.choose_partition(&entry, count);
        let queue = topic.queues.entry(partition).or_insert_with(|| Rc::new(Queue::new(&entry, partition)));
        let queue = Rc::clone(queue);
        drop(topics);
        self.enqueue(queue, entry);
    }

    fn choose_partition(&self, entry: &Entry, count: usize) -> i32 {
        entry.record.partition.unwrap_or_else(|| {
            let key = entry.record.key.as_deref();
            let mut partitioner = self.partitioner.borrow_mut();
            partitioner.choose(&entry.record.topic, key, entry.bytes, count, heizer_runtime::random::u64)
        })
    }

    async fn learn_partitions(self: Rc<Self>, topic: String) {
        let learned = self.client.partition_count(&topic, true).await;
        let unplaced = {
            let mut topics = self.topics.borrow_mut();
            let known = topics.entry(topic).or_default();
            known.partition_count = learned.as_ref().ok().copied();
            std::mem::take(&mut known.unplaced)
        };
        for entry in unplaced {
            match &learned {
                Ok(_) => self.place(entry),
                Err(error) => self.settle(entry, Err(error.clone())),
            }
        }
    }

    fn enqueue(self: &Rc<Self>, queue: Rc<Queue>, entry: Entry) {
        let mut entries = queue.entries.borrow_mut();
        if entries.is_empty() {
            queue.waiting_since.set(now());
        }
        queue.bytes.set(queue.bytes.get() + entry.bytes);
        entries.push_back(entry);
        drop(entries);
        if !queue.running.replace(true) {
            drop(spawn(Rc::clone(self).run_queue(queue)));
        } else if queue.bytes.get() >= self.config.batch_bytes {
            queue.filled.notify_all();
        }
    }

    /// Sends a queue's batches, one after the other, until it is empty.
    async fn run_queue(self: Rc<Self>, queue: Rc<Queue>) {
        while !queue.entries.borrow().is_empty() {
            self.linger(&queue).await;
            let batch = queue.take_batch(self.config.batch_bytes);
            let outcome = self.deliver(&queue, &batch).await;
            for (at, entry) in batch.into_iter().enumerate() {
                let delivered = |base: i64| Delivered {
                    partition: queue.partition,
                    offset: if base < 0 { -1 } else { base + at as i64 },
                };
                let outcome = outcome.as_ref().map(|&base| delivered(base)).map_err(ClientError::clone);
                self.settle(entry, outcome);
            }
        }
        queue.running.set(false);
    }

    async fn linger(&self, queue: &Queue) {
        let deadline = queue.waiting_since.get() + self.config.linger;
        loop {
            let filled = queue.filled.listen();
            let full = queue.bytes.get() >= self.config.batch_bytes;
            if full || self.flushes.get() > 0 || now() >= deadline {
                return;
            }
            select(filled, sleep_until(deadline)).await;
        }
    }

    fn settle(&self, entry: Entry, outcome: Result<Delivered, ClientError>) {
        self.buffered_bytes.set(self.buffered_bytes.get() - entry.bytes);
        self.unsettled.set(self.unsettled.get() - 1);
        // Nobody may care.
        let _ = entry.sender.send(outcome);
        self.changed.notify_all();
    }

    /// Sends one batch until it is there; returns its base offset.
    async fn deliver(&self, queue: &Queue, batch: &[Entry]) -> Result<i64, ClientError> {
        let mut retry = self.client.retry_within(self.config.delivery_timeout);
        let what = format!("sending to {}-{}", queue.topic, queue.partition);
        let (identity, sequence) = loop {
            match self.sequence(queue).await {
                Ok(stamp) => break stamp,
                Err(error) => retry.after(&what, error).await?,
            }
        };
        let records = build(batch, self.config.compression, identity, sequence);
        loop {
            let error = match self.produce(queue, records.clone()).await {
                Ok(base) => {
                    queue.advance(identity, sequence, batch.len());
                    return Ok(base);
                }
                Err(error) => error,
            };
            // The broker has it from an earlier try whose answer was lost (contract T1).
            if error.code() == Some(ErrorCode::DuplicateSequenceNumber) {
                queue.advance(identity, sequence, batch.len());
                return Ok(-1);
            }
            if error.retriable() {
                self.client.forget(&queue.topic);
            }
            if let Err(given_up) = retry.after(&what, error).await {
                // Whether the broker has the batch is unknown: only a new identity makes the next sequence certain.
                self.identity.borrow_mut().take_if(|current| *current == identity);
                return Err(given_up);
            }
        }
    }

    async fn produce(&self, queue: &Queue, records: Bytes) -> Result<i64, ClientError> {
        let connection = self.client.leader(&queue.topic, queue.partition).await?;
        let request_timeout = self.client.config().request_timeout;
        let acks = match self.config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let partition = PartitionProduceData { index: queue.partition, records: Some(records) };
        let topic = TopicProduceData {
            name: queue.topic.as_str().into(),
            partition_data: vec![partition],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks,
            timeout_ms: i32::try_from(request_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![topic],
            ..Default::default()
        };
        if self.config.acks == Acks::None {
            connection.send_only(&request, PRODUCE_VERSION_MAX)?;
            return Ok(-1);
        }
        let response = connection.request_with(&request, PRODUCE_VERSION_MAX, Duration::ZERO).await?;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let subject = || format!("{}-{}", queue.topic, queue.partition);
        let (code, message) = match answer {
            Some(answer) => (answer.error_code, answer.error_message.as_deref()),
            None => (ErrorCode::UnknownServerError.code(), Some("the answer names no partition")),
        };
        check(connection.addr(), ApiKey::Produce, subject, code, message)?;
        Ok(answer.map_or(-1, |answer| answer.base_offset))
    }

    /// The identity and first sequence number for a queue's next batch; none without idempotence.
    async fn sequence(&self, queue: &Queue) -> Result<(Identity, i32), ClientError> {
        if !self.config.idempotence {
            return Ok((NO_IDENTITY, -1));
        }
        let identity = self.identity().await?;
        let (last, next) = queue.sequence.get();
        Ok((identity, if last == identity { next } else { 0 }))
    }

    /// The current producer id, asked for once, however many batches wait for it.
    async fn identity(&self) -> Result<Identity, ClientError> {
        self.until(|| !self.identifying.get()).await;
        if let Some(identity) = *self.identity.borrow() {
            return Ok(identity);
        }
        self.identifying.set(true);
        let _end = Identifying(self);
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..Default::default()
        };
        let connection = self.client.any().await?;
        let response = connection.request(&request).await?;
        let subject = || "an idempotent producer".to_owned();
        check(connection.addr(), ApiKey::InitProducerId, subject, response.error_code, None)?;
        let identity = Identity { id: response.producer_id, epoch: response.producer_epoch };
        *self.identity.borrow_mut() = Some(identity);
        Ok(identity)
    }
}

struct Identifying<'a>(&'a Inner);

impl Drop for Identifying<'_> {
    fn drop(&mut self) {
        self.0.identifying.set(false);
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn new(first: &Entry, partition: i32) -> Queue {
        Queue {
            topic: first.record.topic.clone(),
            partition,
            entries: RefCell::default(),
            bytes: Cell::new(0),
            waiting_since: Cell::new(now()),
            running: Cell::new(false),
            filled: Event::default(),
            sequence: Cell::new((NO_IDENTITY, 0)),
        }
    }

    /// The records of the next batch, at least one.
    fn take_batch(&self, batch_bytes: usize) -> Vec<Entry> {
        let mut entries = self.entries.borrow_mut();
        let mut batch = Vec::new();
        let mut bytes = HEADER_BYTES;
        while let Some(entry) = entries.front() {
            if !batch.is_empty() && bytes + entry.bytes > batch_bytes {
                break;
            }
            bytes += entry.bytes;
            self.bytes.set(self.bytes.get() - entry.bytes);
            batch.extend(entries.pop_front());
        }
        // What is left has waited as long as what was taken, or nearly.
        batch
    }

    /// Sequences wrap at int32 (contract T1).
    fn advance(&self, identity: Identity, sequence: i32, count: usize) {
        self.sequence.set((identity, (sequence.wrapping_add(count as i32)) & i32::MAX));
    }
}

fn build(batch: &[Entry], compression: Compression, identity: Identity, sequence: i32) -> Bytes {
    let options = BatchOptions {
        compression,
        producer_id: identity.id,
        producer_epoch: identity.epoch,
        base_sequence: sequence,
        ..BatchOptions::default()
    };
    let mut builder = RecordBatchBuilder::new(options);
    for entry in batch {
        let ProducerRecord { key, value, headers, .. } = &entry.record;
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            headers.iter().map(|header| (&header.key[..], header.value.as_deref())).collect();
        builder.append(entry.timestamp, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build()
}
