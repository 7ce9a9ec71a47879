//! A partition's log: segments in Kafka's format, appended in memory, flushed in groups, read from both.
//!
//! A [`Log`] lives on its partition's owner core. Appending is synchronous; a flush task exists only while there is
//! something to flush. Reads run beside both. Truncation, closing and deleting want the log to themselves and wait
//! for the flush to end.

pub(crate) mod accept;
mod append;
mod aside;
mod checkpoint;
mod compact;
mod flush;
mod lookup;
mod maintain;
mod open;
mod read;
mod region;
mod relocate;
#[cfg(test)]
mod tests;
mod truncate;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use heizer_runtime::random;
use heizer_runtime::sync::Event;
use heizer_runtime::time::{self, Instant};

use crate::config::{Level, LogConfig};
use crate::dir::LogDir;
use crate::epoch::{EpochCache, EpochEnd};
use crate::error::{LogFailed, StorageError};
use crate::producer::ProducerState;
use crate::recycle::Spares;
use crate::segment::Segment;
use checkpoint::Growth;

pub(crate) use open::SEGMENT_FILE_BYTES_MAX;

pub use append::{AppendInfo, AppendOrigin};
pub use lookup::TimestampOffset;
pub(crate) use maintain::remove_directory;
pub use maintain::{remove_deleted, remove_logs};
pub use open::{Cut, OpenMode, RecoveryReport};
pub use read::ReadResult;
pub use relocate::{CopyBudget, Place, RelocateError, Relocation};

/// Bytes and number of segments of a log.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSizes {
    /// Bytes of all segments, without reserved space.
    pub bytes: u64,
    /// How many segments there are, the active one included.
    pub segments: usize,
}

/// One segment, described.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first possible offset, and its file's name.
    pub base_offset: i64,
    /// Bytes of batches in it.
    pub bytes: u64,
    /// The largest timestamp in it, where it is known without reading the disk.
    pub max_timestamp: Option<i64>,
    /// Whether it is complete on the disk, indexes and all.
    pub sealed: bool,
}

/// Who may write to the log's files.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Role {
    /// Nobody at the moment.
    Idle,
    /// The flush task.
    Flushing,
    /// A truncation, close or delete.
    Exclusive,
}

/// Everything that changes. Never borrowed across an await.
struct State {
    config: LogConfig,
    /// In order, never empty; the last one is active.
    segments: VecDeque<Rc<Segment>>,
    log_start: i64,
    /// A log start of this much is known to be on stable storage.
    noted_start: i64,
    written_end: i64,
    durable_end: i64,
    epochs: EpochCache,
    /// What the epoch checkpoint on the disk says. It is brought up to date before a segment is sealed; the epochs of
    /// what is not sealed are in its batches.
    checkpointed: EpochCache,
    /// The directory and its metadata are on stable storage, as they must be before the first data. Until then
    /// they need not even be there.
    home_durable: bool,
    producers: ProducerState,
    role: Role,
    /// Retention or compaction is at work on sealed segments.
    maintained: bool,
    /// A new log start is on its way to its checkpoint.
    start_moving: bool,
    /// Compaction has cleaned everything below, as far as there is anything.
    clean_to: i64,
    /// How many wait for the role to become exclusive: nothing is appended meanwhile.
    exclusive_waiting: usize,
    /// Somebody waits for durability up to here, whatever the level.
    forced_end: i64,
    /// Since when something is appended but not at its final level.
    dirty_since: Option<Instant>,
    growth: Growth,
    spares: Spares,
    /// A task of its own seals a segment or makes a spare. It may write to the log's files as the flush task may.
    aside: bool,
    /// Why it could not; the flush task answers for it.
    aside_failed: Option<StorageError>,
    failed: Option<LogFailed>,
    closed: bool,
}

impl State {
    fn active(&self) -> &Rc<Segment> {
        self.segments.back().expect("a log has an active segment")
    }

    fn log_end(&self) -> i64 {
        self.active().next_offset()
    }

    /// Whether everything is written and every segment but the active one sealed, as it is when the flush task has
    /// done its work. On a full disk it gives way before that to who wants the files.
    fn is_settled(&self) -> bool {
        let last = self.segments.len() - 1;
        self.segments.iter().all(|segment| segment.unwritten() == 0)
            && self.segments.range(..last).all(|segment| segment.is_sealed())
    }

    /// Index of the segment that `offset` belongs to, if it is in any.
    fn segment_at(&self, offset: i64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base() <= offset).checked_sub(1)
    }

    /// Notes that `epoch` starts at `start`, if that is news.
    fn assign_epoch(&mut self, epoch: i32, start: i64) {
        self.epochs.assign(epoch, start);
    }

    /// Starts a new active segment at the log end. The flush task seals the old one and creates the new file.
    fn roll(&mut self, log: &Log, now_ms: i64) {
        let end = self.log_end();
        assert!(self.active().bytes() > 0, "an empty segment is not rolled");
        self.active().set_snapshot(self.producers.encode());
        self.spares.last_fill_ms = Some(now_ms.saturating_sub(self.active().created_ms()));
        let segment = log.fresh_segment(end, now_ms, &self.config);
        self.segments.push_back(segment);
    }
}

/// One partition's log. See the module for who does what when.
pub struct Log {
    me: Weak<Log>,
    home: Rc<LogDir>,
    dir: PathBuf,
    topic_id: [u8; 16],
    state: RefCell<State>,
    /// Whether the log is being moved.
    watch: Cell<relocate::Watch>,
    /// An end, the log start or the failure changed.
    advance: Event,
    /// The flush task has something new to look at.
    work: Event,
    /// The role became idle.
    idle: Event,
}

impl Log {
    /// The partition's directory.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The data directory that it is in.
    pub fn home(&self) -> &Rc<LogDir> {
        &self.home
    }

    /// The topic id out of `partition.metadata`.
    pub fn topic_id(&self) -> [u8; 16] {
        self.topic_id
    }

    /// The settings in force.
    pub fn config(&self) -> LogConfig {
        self.state.borrow().config.clone()
    }

    /// The level that appends are flushed to.
    pub fn level(&self) -> Level {
        self.state.borrow().config.level()
    }

    /// Puts other settings in force, from the next append and flush on. What is appended already is brought to the new
    /// level; a write or a round of compaction that is under way ends as it began, except that a log which is not
    /// compacted any more loses no further segment to it.
    pub fn set_config(&self, config: LogConfig) {
        {
            let mut state = self.state.borrow_mut();
            state.config = config;
            // What no bound counted before counts from now on, if it does under these settings.
            state.dirty_since.get_or_insert_with(time::now);
            state.settle();
        }
        // Under a lower level there may be more to see.
        self.advance.notify_all();
        self.start_flush();
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> i64 {
        self.state.borrow().log_start
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> i64 {
        self.state.borrow().log_end()
    }

    /// The log end as far as it has reached `level`; falls with the level.
    pub fn end_at(&self, level: Level) -> i64 {
        let state = self.state.borrow();
        match level {
            Level::Memory => state.log_end(),
            Level::Written => state.written_end,
            Level::Durable => state.durable_end,
        }
    }

    /// Announced when an end at some level, the log start or the failure changed. (Level memory advances with
    /// [`append`](Self::append) itself, and is announced only where it is the log's level.)
    pub fn on_advance(&self) -> Event {
        self.advance.clone()
    }

    /// Why the log takes nothing any more, if so.
    pub fn failed(&self) -> Option<LogFailed> {
        self.state.borrow().failed.clone()
    }

    /// Waits until [`end_at`](Self::end_at) the level has reached `end`. It only gets there on its own at the log's
    /// own level; for more, ask [`flush`](Self::flush).
    pub async fn wait_end_at(&self, level: Level, end: i64) -> Result<(), LogFailed> {
        self.wait_end(end, || level).await
    }

    /// Waits until everything below `end` is at the log's own level, or at `level_max` where that is less. The level
    /// counts as it is then: what waits when it is raised waits for the higher one.
    pub async fn wait_end_at_own(&self, level_max: Level, end: i64) -> Result<(), LogFailed> {
        self.wait_end(end, || self.level().min(level_max)).await
    }

    async fn wait_end(&self, end: i64, level: impl Fn() -> Level) -> Result<(), LogFailed> {
        loop {
            let advanced = self.advance.listen();
            if self.end_at(level()) >= end {
                return Ok(());
            }
            if let Some(failed) = self.failed() {
                return Err(failed);
            }
            if self.state.borrow().closed {
                return Err(LogFailed { reason: "the log is closed".into() });
            }
            advanced.await;
        }
    }

    /// The latest leader epoch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.state.borrow().epochs.latest()
    }

    /// The leader epoch of the record at `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.state.borrow().epochs.epoch_of(offset)
    }

    /// Where `epoch` ends (contract L5). `None`: undefined.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        let state = self.state.borrow();
        state.epochs.end_of(epoch, state.log_end())
    }

    /// Becoming leader: `epoch` starts at the log end. Its first batch is what makes that durable (contract L5).
    pub fn assign_epoch(&self, epoch: i32) {
        let mut state = self.state.borrow_mut();
        let end = state.log_end();
        state.assign_epoch(epoch, end);
    }

    /// How many producer ids are known.
    pub fn producer_count(&self) -> usize {
        self.state.borrow().producers.len()
    }

    /// Forgets producer ids that were silent for `producer.id.expiration.ms`; returns how many.
    pub fn expire_producers(&self, now_ms: i64) -> usize {
        let mut state = self.state.borrow_mut();
        let expiration_ms = state.config.producer_expiration_ms;
        state.producers.expire(now_ms, expiration_ms)
    }

    /// Bytes and segments.
    pub fn sizes(&self) -> LogSizes {
        let state = self.state.borrow();
        LogSizes {
            bytes: state.segments.iter().map(|segment| segment.bytes()).sum(),
            segments: state.segments.len(),
        }
    }

    /// The segments in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.state.borrow();
        let describe = |segment: &Rc<Segment>| SegmentInfo {
            base_offset: segment.base(),
            bytes: segment.bytes(),
            max_timestamp: segment.max_timestamp().filter(|&largest| largest >= 0),
            sealed: segment.is_sealed(),
        };
        state.segments.iter().map(describe).collect()
    }

    fn me(&self) -> Rc<Log> {
        self.me.upgrade().expect("called through an Rc")
    }

    fn fresh_segment(&self, base: i64, now_ms: i64, config: &LogConfig) -> Rc<Segment> {
        let segment = Segment::fresh(&self.dir, base, now_ms, self.home.context());
        segment.set_roll_jitter(roll_jitter_ms(config));
        segment
    }

    fn check_open(&self) -> Result<(), StorageError> {
        let state = self.state.borrow();
        match &state.failed {
            Some(failed) => Err(failed.clone().into()),
            None if state.closed => Err(StorageError::Closed { path: self.dir.clone() }),
            None => Ok(()),
        }
    }

    fn check_settled(&self) -> Result<(), StorageError> {
        match self.state.borrow().is_settled() {
            true => Ok(()),
            false => Err(StorageError::Full { path: self.dir.clone() }),
        }
    }

    /// Logs the first failure and tells everybody who waits.
    pub(crate) fn fail(&self, error: &StorageError) -> LogFailed {
        self.home.note(error);
        let failed = {
            let mut state = self.state.borrow_mut();
            // Of a directory that has failed, its one line tells.
            if state.failed.is_none() && self.home.failure().is_none() {
                tracing::error!(log = %self.dir.display(), %error, "the log has failed and takes no more");
            }
            state.failed.get_or_insert_with(|| LogFailed::new(error)).clone()
        };
        self.advance.notify_all();
        failed
    }

    /// The data directory has failed as a whole: the log takes nothing more, lets go of its files, and whoever waits
    /// for it is told.
    pub fn abandon(&self, reason: &str) {
        let segments = {
            let mut state = self.state.borrow_mut();
            state.failed.get_or_insert_with(|| LogFailed { reason: reason.into() });
            state.segments.clone()
        };
        for segment in segments {
            segment.tail().borrow_mut().evict_all();
            segment.close_file();
        }
        self.advance.notify_all();
        self.work.notify_all();
    }

    /// Takes the sealed segments for retention or compaction; none while somebody else has them or wants the whole log.
    fn maintain(&self) -> Option<Maintenance> {
        let mut state = self.state.borrow_mut();
        let taken = state.maintained || state.role == Role::Exclusive || state.exclusive_waiting > 0;
        if taken || state.closed {
            return None;
        }
        state.maintained = true;
        Some(Maintenance { log: self.me() })
    }

    /// Waits until nobody else moves the log start, and nobody has the files for himself or waits for that.
    async fn take_start(&self) -> StartMove {
        loop {
            let idle = self.idle.listen();
            {
                let mut state = self.state.borrow_mut();
                let wanted = state.role == Role::Exclusive || state.exclusive_waiting > 0;
                if !wanted && !state.start_moving {
                    state.start_moving = true;
                    return StartMove { log: self.me() };
                }
            }
            idle.await;
        }
    }

    /// Waits until nobody writes and takes the files for the caller, who gives them back with `release`.
    async fn take_exclusive(&self) -> Exclusive {
        let _waiting = Waiting::new(self);
        loop {
            let idle = self.idle.listen();
            {
                let mut state = self.state.borrow_mut();
                if state.role == Role::Idle && !state.maintained && !state.start_moving {
                    state.role = Role::Exclusive;
                    return Exclusive { log: self.me() };
                }
            }
            idle.await;
        }
    }
}

/// One who waits for the exclusive role; the flush task hurries for it.
struct Waiting<'a> {
    log: &'a Log,
}

impl<'a> Waiting<'a> {
    fn new(log: &'a Log) -> Self {
        log.state.borrow_mut().exclusive_waiting += 1;
        log.work.notify_all();
        Self { log }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.log.state.borrow_mut().exclusive_waiting -= 1;
        // The flush task may have given way, with something left to write; so may whoever moves the log start.
        self.log.start_flush();
        self.log.idle.notify_all();
    }
}

/// The right to remove and exchange sealed segments beside appends, given back when dropped.
struct Maintenance {
    log: Rc<Log>,
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.log.state.borrow_mut().maintained = false;
        self.log.idle.notify_all();
    }
}

/// The right to write the log start's checkpoint beside everything else, given back when dropped.
struct StartMove {
    log: Rc<Log>,
}

impl Drop for StartMove {
    fn drop(&mut self) {
        self.log.state.borrow_mut().start_moving = false;
        self.log.idle.notify_all();
    }
}

/// The right to write to a log's files, given back when dropped.
struct Exclusive {
    log: Rc<Log>,
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.log.state.borrow_mut().role = Role::Idle;
        self.log.idle.notify_all();
        self.log.start_flush();
    }
}

fn roll_jitter_ms(config: &LogConfig) -> i64 {
    let jitter = config.segment_jitter_ms.min(config.segment_ms).max(0).unsigned_abs();
    if jitter == 0 { 0 } else { i64::try_from(random::below(jitter)).unwrap_or(0) }
}
