//! A partition on its owner core: its log, its leadership, and who waits for it.
//!
//! Owned by the core's [`crate::shard::Shard`], as an `Rc`; nothing of it leaves the core. With one replica the high
//! watermark is the log end at the topic's durability level.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use heizer_runtime::cores::CoreId;
use heizer_runtime::sync::Event;
use heizer_runtime::{task, time};
use heizer_storage::{
    AppendInfo, AppendOrigin, Level, Log, LogConfig, ReadError, ReadResult, Relocation, StorageError,
};
use uuid::Uuid;

use crate::error::PartitionError;
use crate::metrics::TopicCounters;

/// A fetch that waits for news of partitions here, by the core that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Where the fetch is answered.
    pub origin: CoreId,
    /// Its number there.
    pub id: u64,
}

/// Who has to be told of news: called on the partition's core with the waiters that it frees.
pub type Wake = Rc<dyn Fn(Vec<Waiter>)>;

/// One partition that this broker leads.
pub struct Partition {
    topic_id: Uuid,
    topic: ByteString,
    index: i32,
    /// Another one takes its place when the partition has moved to another directory.
    log: RefCell<Rc<Log>>,
    /// The move that is under way.
    relocation: RefCell<Option<Rc<Relocation>>>,
    relocated: Event,
    leader_epoch: Cell<i32>,
    counters: Rc<TopicCounters>,
    /// What was committed when the level was raised: the high watermark does not go back below it (contract R1).
    committed_before: Cell<i64>,
    waiters: RefCell<Vec<Waiter>>,
    /// A task tells the waiters; it exists only while there are any.
    telling: Cell<bool>,
    wake: Wake,
}

/// Where a log ends for the asker, as part of every answer to a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What is committed ends here, exclusive.
    pub high_watermark: i64,
    /// The first offset there is.
    pub log_start: i64,
}

impl Partition {
    /// A partition that leads from `leader_epoch` on, and counts what it takes with its topic's.
    pub fn new(
        topic_id: Uuid,
        topic: ByteString,
        index: i32,
        log: Rc<Log>,
        leader_epoch: i32,
        counters: Rc<TopicCounters>,
        wake: Wake,
    ) -> Rc<Partition> {
        log.assign_epoch(leader_epoch);
        Rc::new(Partition {
            topic_id,
            topic,
            index,
            log: RefCell::new(log),
            relocation: RefCell::default(),
            relocated: Event::default(),
            leader_epoch: Cell::new(leader_epoch),
            counters,
            committed_before: Cell::new(0),
            waiters: RefCell::default(),
            telling: Cell::new(false),
            wake,
        })
    }

    /// Its topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// Its topic's name.
    pub fn topic(&self) -> &ByteString {
        &self.topic
    }

    /// Its number in the topic.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The epoch of this leadership.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }

    /// Where its files are.
    pub fn directory(&self) -> PathBuf {
        self.log().dir()
    }

    /// Its log.
    pub fn log(&self) -> Rc<Log> {
        self.log.borrow().clone()
    }

    /// The log has moved, everything in it: this is it from now on.
    pub fn replace_log(&self, log: Rc<Log>) {
        log.assign_epoch(self.leader_epoch());
        // They may have changed while it was opened.
        let config = self.log().config();
        if log.config() != config {
            log.set_config(config);
        }
        let old = self.log.replace(log);
        // Whoever tells the waiters looks at the new one from here.
        old.on_advance().notify_all();
    }

    /// The move to another directory that is under way, or waits for its turn.
    pub fn relocation(&self) -> Option<Rc<Relocation>> {
        self.relocation.borrow().clone()
    }

    /// A move begins.
    pub fn start_relocation(&self, moving: Rc<Relocation>) {
        let before = self.relocation.replace(Some(moving));
        assert!(before.is_none(), "a partition moves to one place at a time");
    }

    /// The move is over, one way or the other.
    pub fn end_relocation(&self) {
        *self.relocation.borrow_mut() = None;
        self.relocated.notify_all();
    }

    /// Resolves when no move is under way.
    pub async fn relocation_ended(&self) {
        loop {
            let ended = self.relocated.listen();
            if self.relocation.borrow().is_none() {
                return;
            }
            ended.await;
        }
    }

    /// Ends a move that is under way, and waits for that.
    pub async fn stop_relocation(&self) {
        if let Some(moving) = self.relocation() {
            moving.cancel();
        }
        self.relocation_ended().await;
    }

    /// Puts other settings in force, unless they are the same. What is acknowledged from here on is at their level; what
    /// was committed stays so.
    pub fn set_config(&self, config: LogConfig) {
        let log = self.log();
        if log.config() != config {
            self.committed_before.set(self.high_watermark());
            log.set_config(config);
        }
    }

    /// Offsets below this are committed (contract R1, with one replica).
    pub fn high_watermark(&self) -> i64 {
        let log = self.log();
        log.end_at(log.level()).max(self.committed_before.get())
    }

    /// The first offset there is.
    pub fn log_start_offset(&self) -> i64 {
        self.log().log_start()
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        self.log().log_end()
    }

    /// High watermark and log start, as answers carry them.
    pub fn ends(&self) -> Ends {
        Ends { high_watermark: self.high_watermark(), log_start: self.log_start_offset() }
    }

    /// Compares the leader epoch that a client knows with ours (KIP-320, contract F4); -1 skips it.
    pub fn check_epoch(&self, known: i32) -> Result<(), PartitionError> {
        let current = self.leader_epoch();
        match known {
            -1 => Ok(()),
            known if known < current => Err(PartitionError::FencedEpoch { current }),
            known if known > current => Err(PartitionError::UnknownEpoch { current }),
            _ => Ok(()),
        }
    }

    /// Appends a client's checked batch.
    pub fn append(&self, batch: &Bytes) -> Result<AppendInfo, PartitionError> {
        self.append_as(batch, AppendOrigin::Client)
    }

    /// Appends a batch of the broker's own.
    pub fn append_records(&self, batch: &Bytes) -> Result<AppendInfo, PartitionError> {
        self.append_as(batch, AppendOrigin::Coordinator)
    }

    fn append_as(&self, batch: &Bytes, origin: AppendOrigin) -> Result<AppendInfo, PartitionError> {
        let info = self.log().append(batch, self.leader_epoch(), origin, time::wall_clock_ms())?;
        if !info.duplicate {
            let records = (info.last_offset - info.base_offset + 1).unsigned_abs();
            self.counters.count_append(info.bytes as u64, records);
        }
        Ok(info)
    }

    /// Resolves when everything below `end` is committed: what acks=all waits for.
    pub async fn committed(&self, end: i64) -> Result<(), PartitionError> {
        Ok(self.log().wait_end_at_own(Level::Durable, end).await?)
    }

    /// Resolves when the leader has everything below `end` as safe as acks=1 promises: written, or in memory where
    /// the topic asks for no more.
    pub async fn accepted(&self, end: i64) -> Result<(), PartitionError> {
        Ok(self.log().wait_end_at_own(Level::Written, end).await?)
    }

    /// Committed batches from `offset` on (contract F1).
    pub async fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<ReadResult, PartitionError> {
        loop {
            let (log, end) = (self.log(), self.high_watermark());
            if let Some(read) = log.try_read_tail(offset, bytes_max, end, at_least_one) {
                return Ok(read);
            }
            match log.read(offset, bytes_max, end, at_least_one).await {
                // Its files went while it was read: it has moved.
                Err(ReadError::Storage(_)) if !Rc::ptr_eq(&log, &self.log()) => {}
                Err(ReadError::Storage(error)) => {
                    log.home().note(&error);
                    return Err(error.into());
                }
                read => return Ok(read?),
            }
        }
    }

    /// Whole batches from `offset` up to the log end, in one piece: for replaying the partition at its opening.
    pub async fn read_for_load(&self, offset: i64, bytes_max: usize) -> Result<Bytes, PartitionError> {
        let log = self.log();
        let read = log.read(offset, bytes_max, log.log_end(), true).await?;
        let mut whole = BytesMut::with_capacity(read.bytes);
        read.parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    /// Lets go of what lies below `below`, durably; below the high watermark where it is none. Returns the log start,
    /// which readers go by from then on. To be polled to its end.
    pub async fn delete_records(&self, below: Option<i64>) -> Result<i64, PartitionError> {
        loop {
            let (log, end) = (self.log(), self.high_watermark());
            if !log.config().cleanup_delete {
                return Err(PartitionError::KeptByPolicy);
            }
            let below = below.unwrap_or(end);
            if !(0..=end).contains(&below) {
                let log_start = log.log_start();
                return Err(PartitionError::OffsetOutOfRange { offset: below, log_start, log_end: end });
            }
            match log.delete_records(below).await {
                // It has moved to another directory meanwhile.
                Err(StorageError::Closed { .. }) if !Rc::ptr_eq(&log, &self.log()) => {}
                deleted => return Ok(deleted?),
            }
        }
    }

    /// Registers a waiter for the next news; tells it at once where `seen` is out of date already (contract F3).
    pub fn wait(self: &Rc<Self>, waiter: Waiter, seen: Ends) {
        if self.ends() != seen || self.log().failed().is_some() {
            (self.wake)(vec![waiter]);
            return;
        }
        self.waiters.borrow_mut().push(waiter);
        if !self.telling.replace(true) {
            let partition = self.clone();
            task::spawn(async move { partition.tell_waiters(seen).await });
        }
    }

    /// A fetch has been answered otherwise.
    pub fn stop_waiting(&self, waiter: Waiter) {
        self.waiters.borrow_mut().retain(|other| *other != waiter);
        if self.waiters.borrow().is_empty() {
            // The task that tells them looks, and ends.
            self.log().on_advance().notify_all();
        }
    }

    async fn tell_waiters(&self, seen: Ends) {
        loop {
            let log = self.log();
            let advanced = log.on_advance().listen();
            let news = self.ends() != seen || log.failed().is_some();
            if news || self.waiters.borrow().is_empty() {
                self.telling.set(false);
                self.free_waiters();
                return;
            }
            advanced.await;
        }
    }

    /// Sends every waiter away, as when the partition goes.
    pub fn free_waiters(&self) {
        let waiters = self.waiters.take();
        if !waiters.is_empty() {
            (self.wake)(waiters);
        }
    }
}
