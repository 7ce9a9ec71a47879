//! Moving a log to another data directory of the broker while it is served (KIP-113).
//!
//! The target gets a log of its own, the *future* one, that takes the source's batches as a follower does, within a
//! budget of bytes. Once it has caught up, the source is held for the rest, milliseconds as a rule, and the two change
//! places. Which of the two counts after a crash is told by notes beside them (`census.rs`):
//!
//! | after | source | target | what counts |
//! |---|---|---|---|
//! | the start | `T-N` | note *arriving*, `T-N.<id>-future` | the source |
//! | the rest is copied, and closed | + note *leaving* | | the source |
//! | the future log has its name | | note, `T-N` | the target |
//! | the target is settled | | `T-N` | the target |
//! | the end | nothing | `T-N` | the target |
//!
//! Each row is on stable storage before the next begins. A start after a crash throws future logs away: a move that
//! was cut short is asked for again.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::select;
use heizer_runtime::sync::Event;
use heizer_runtime::{fs, random, task, time};

use crate::batch::{crc_matches, split};
use crate::census::{Note, NoteKind, future_name, split_log_name};
use crate::config::{FLUSH_UNSET, Level, LogConfig};
use crate::dir::LogDir;
use crate::error::{AppendError, IoContext, LogFailed, ReadError, StorageError};
use crate::log::maintain::{remove_directory, retire_directory};
use crate::log::{AppendOrigin, Exclusive, Log, OpenMode};
use crate::paths::{self, SNAPSHOT};
use crate::rate::{Rate, Spending};

/// Copied at once: bounds the memory of a move, and what goes over the budget at once. No less than the minimum, however
/// small the budget is.
const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// A chunk is what the budget has for this part of a second, within those bounds.
const CHUNKS_PER_S: f64 = 8.0;
/// Longest sleep at once: the budget may grow meanwhile.
const NAP_MAX: Duration = Duration::from_secs(1);
/// So often the copy is brought up to date and synced before the source is held, each time over a shorter rest.
const ROUNDS_BEFORE_SWAP: usize = 3;

/// Why a log was not moved. It is where it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// Somebody changed their mind, or the log goes.
    #[error("the move was cancelled")]
    Cancelled,
    /// The disk refused, or a file is damaged, in one of the two directories.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The copy did not take a batch.
    #[error("the copy refused a batch: {0}")]
    Append(#[from] AppendError),
}

impl From<LogFailed> for RelocateError {
    fn from(failed: LogFailed) -> RelocateError {
        RelocateError::Storage(failed.into())
    }
}

/// One end of a move.
#[derive(Clone)]
pub struct Place {
    /// The data directory.
    pub home: Rc<LogDir>,
    /// Its id (`directory.id`).
    pub id: [u8; 16],
}

/// How many bytes copies of one core may write.
#[derive(Debug)]
pub struct CopyBudget {
    spending: Spending,
}

impl CopyBudget {
    /// So many bytes a second, which is at least one.
    pub fn new(bytes_per_s: u64) -> CopyBudget {
        CopyBudget { spending: Spending::new(Rate::new(bytes_per_s.max(1) as f64)) }
    }

    /// The bytes per second, which may be changed while a copy is made.
    pub fn rate(&self) -> Rate {
        self.spending.rate().clone()
    }

    fn chunk_bytes(&self) -> usize {
        // Saturates, as it should.
        let share = (self.spending.rate().get() / CHUNKS_PER_S) as usize;
        share.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
    }

    /// Takes note of `bytes` copied.
    fn spend(&mut self, bytes: usize) {
        self.spending.start();
        self.spending.spend(bytes as u64);
    }

    /// How long until the next may follow.
    fn ahead(&mut self) -> Duration {
        self.spending.ahead()
    }
}

/// Whether a log is being moved.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    No,
    Copying,
    /// The log was truncated under the copy, which has to begin again.
    Spoiled,
}

/// The move of one log. Lives on the log's core.
pub struct Relocation {
    source: Rc<Log>,
    source_id: [u8; 16],
    target: Place,
    name: String,
    future_name: String,
    future: RefCell<Option<Rc<Log>>>,
    /// From here on the target may have a directory of the log's own name that is ours.
    installed: Cell<bool>,
    cancelled: Cell<bool>,
    cancel: Event,
}

/// What a step of copying did.
struct Step {
    bytes: usize,
    /// All that the source had when the step began is copied.
    caught_up: bool,
}

impl Relocation {
    /// The move of `source`, which is in the directory with the id `source_id`, to `target`, another one.
    pub fn new(source: &Rc<Log>, source_id: [u8; 16], target: Place) -> Rc<Relocation> {
        let name = source.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let future_name = future_name(&name, random::bytes());
        Rc::new(Relocation {
            source: source.clone(),
            source_id,
            target,
            name,
            future_name,
            future: RefCell::default(),
            installed: Cell::new(false),
            cancelled: Cell::new(false),
            cancel: Event::new(),
        })
    }

    /// Where it goes.
    pub fn target(&self) -> &Place {
        &self.target
    }

    /// Log end and bytes of the copy so far.
    pub fn progress(&self) -> (i64, u64) {
        self.future.borrow().as_ref().map_or((0, 0), |future| (future.log_end(), future.sizes().bytes))
    }

    /// Ends the move at the next opportunity; one whose logs have changed places goes on.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        self.cancel.notify_all();
    }

    /// Moves the log. `swapped` gets the log that takes the source's place as soon as it has: what is appended from
    /// then on has to go there. One call.
    pub async fn run(
        &self,
        budget: &mut CopyBudget,
        swapped: impl FnOnce(Rc<Log>),
    ) -> Result<(), RelocateError> {
        self.source.watch.set(Watch::Copying);
        let moved = self.run_to_swap(budget, swapped).await;
        self.source.watch.set(Watch::No);
        match moved {
            Ok(()) => self.leave().await,
            Err(error) => {
                // A move that was cancelled because its log goes finds nothing to clean up at the source.
                if let Err(left) = self.discard().await {
                    self.target.home.note(&left);
                    tracing::debug!(log = self.name, error = %left, "what a move has left stays until the next start");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn run_to_swap(
        &self,
        budget: &mut CopyBudget,
        swapped: impl FnOnce(Rc<Log>),
    ) -> Result<(), RelocateError> {
        let future = self.prepare().await?;
        for _ in 0..ROUNDS_BEFORE_SWAP {
            self.catch_up(&future, budget).await?;
            future.flush().await?;
        }
        let held = self.source.take_exclusive().await;
        self.check()?;
        while !self.copy_some(&future, CHUNK_BYTES_MAX).await?.caught_up {}
        self.complete(&future).await?;
        let log = self.change_places(&held).await?;
        self.source.mark_closed();
        swapped(log);
        Ok(())
    }

    fn check(&self) -> Result<(), RelocateError> {
        if self.cancelled.get() {
            return Err(RelocateError::Cancelled);
        }
        Ok(self.source.check_open()?)
    }

    fn partition(&self) -> i32 {
        split_log_name(&self.name).map_or(-1, |(_, partition)| partition)
    }

    fn arriving(&self) -> Note {
        Note { log: self.name.clone(), kind: NoteKind::Arriving, directory: self.source_id }
    }

    fn leaving(&self) -> Note {
        Note { log: self.name.clone(), kind: NoteKind::Leaving, directory: self.target.id }
    }

    /// The note in the target, then an empty future log.
    async fn prepare(&self) -> Result<Rc<Log>, RelocateError> {
        self.check()?;
        let home = &self.target.home;
        let taken = home.path().join(&self.name);
        if fs::exists(&taken).await.at(&taken, "look at")? {
            let reason = "a log of this name is there already".to_owned();
            return Err(StorageError::Corrupt { path: taken, reason }.into());
        }
        // Of an earlier stay.
        home.forget_checkpoint(self.source.topic_id, self.partition()).await?;
        self.arriving().write(home.path()).await?;
        let config = copy_config(self.source.config());
        let opened = Log::open(home, &self.future_name, self.source.topic_id, config, OpenMode::Unclean);
        let (future, _) = opened.await?;
        *self.future.borrow_mut() = Some(future.clone());
        self.restart(&future, self.source.log_start()).await?;
        Ok(future)
    }

    /// Empties the copy, which then begins at `offset`. Producers that the source knows by batches long gone are noted
    /// there: those with batches that stay are learnt from them.
    async fn restart(&self, future: &Rc<Log>, offset: i64) -> Result<(), RelocateError> {
        future.truncate_fully_and_start_at(offset).await?;
        let known = self.source.state.borrow().producers.clone();
        future.state.borrow_mut().producers = known.clone();
        if known.len() > 0 {
            let known = known.encode();
            let path = paths::numbered(&future.dir, offset, SNAPSHOT);
            fs::write_atomic(&path, known).await.at(&path, "write")?;
        }
        Ok(())
    }

    /// Copies until nothing is left but what came meanwhile, within the budget.
    async fn catch_up(&self, future: &Rc<Log>, budget: &mut CopyBudget) -> Result<(), RelocateError> {
        loop {
            self.check()?;
            let Step { bytes, caught_up } = self.copy_some(future, budget.chunk_bytes()).await?;
            if caught_up {
                return Ok(());
            }
            budget.spend(bytes);
            loop {
                let (ahead, cancel) = (budget.ahead(), self.cancel.listen());
                if self.cancelled.get() || ahead.is_zero() {
                    break;
                }
                select(pin!(time::sleep(ahead.min(NAP_MAX))), cancel).await;
            }
            task::yield_now().await;
        }
    }

    /// Copies the next few batches.
    async fn copy_some(&self, future: &Rc<Log>, bytes_max: usize) -> Result<Step, RelocateError> {
        if self.source.watch.replace(Watch::Copying) == Watch::Spoiled {
            self.restart(future, self.source.log_start()).await?;
        }
        let (offset, end) = (future.log_end(), self.source.log_end());
        if offset >= end {
            return Ok(Step { bytes: 0, caught_up: true });
        }
        let bytes_max = bytes_max.min(self.source.config().segment_bytes as usize);
        let read = match self.source.read(offset, bytes_max, end, true).await {
            // Retention was faster.
            Err(ReadError::OffsetOutOfRange { log_start, .. }) => {
                self.restart(future, log_start).await?;
                return Ok(Step { bytes: 0, caught_up: false });
            }
            Err(ReadError::Storage(error)) => {
                self.source.home.note(&error);
                return Err(error.into());
            }
            Ok(read) => read,
        };
        if read.bytes == 0 {
            // What was there has been compacted away.
            return Ok(Step { bytes: 0, caught_up: true });
        }
        if read.first_offset < offset {
            // The log start lies inside a batch, which is copied whole.
            self.restart(future, read.first_offset).await?;
        }
        let mut batches = BytesMut::with_capacity(read.bytes);
        read.parts.iter().for_each(|part| batches.extend_from_slice(part));
        let batches = batches.freeze();
        self.verify(&batches)?;
        if batches.len() > future.config().segment_bytes as usize {
            let segment_bytes = u32::try_from(batches.len()).expect("bounded by the largest batch");
            future.set_config(LogConfig { segment_bytes, ..future.config() });
        }
        future.append(&batches, 0, AppendOrigin::Replica, time::wall_clock_ms())?;
        future.wait_end_at(Level::Written, future.log_end()).await?;
        Ok(Step { bytes: batches.len(), caught_up: read.next_offset >= end })
    }

    /// What the disk has damaged must not be taken for the original.
    fn verify(&self, batches: &Bytes) -> Result<(), StorageError> {
        let corrupt = |reason| StorageError::Corrupt { path: self.source.dir.clone(), reason };
        for (header, range) in split(batches).map_err(corrupt)? {
            if !crc_matches(&header, &batches[range]) {
                return Err(corrupt(format!("CRC does not match at offset {}", header.base_offset)));
            }
        }
        Ok(())
    }

    /// Makes the copy the same as the source, which is held, in all that is not batches, and closes it.
    async fn complete(&self, future: &Rc<Log>) -> Result<(), RelocateError> {
        let held = future.take_exclusive().await;
        future.settle_home(None).await?;
        future.extend_to(self.source.log_end()).await?;
        {
            let source = self.source.state.borrow();
            let mut copy = future.state.borrow_mut();
            copy.producers = source.producers.clone();
            copy.epochs = source.epochs.clone();
        }
        future.write_epochs().await?;
        drop(held);
        future.delete_records(self.source.log_start()).await?;
        assert_eq!((future.log_start(), future.log_end()), (self.source.log_start(), self.source.log_end()));
        future.flush().await?;
        Ok(future.close().await?)
    }

    /// Has the target's log take the source's place, on the disk. If it cannot, the source keeps it.
    async fn change_places(&self, _held: &Exclusive) -> Result<Rc<Log>, RelocateError> {
        self.check()?;
        let source_dir = self.source.home.path();
        let left = self.leaving().write(source_dir).await;
        let installed = match left {
            Ok(()) => self.install().await,
            Err(error) => {
                self.source.home.note(&error);
                Err(error)
            }
        };
        match installed {
            Ok(log) => Ok(log),
            Err(error) => {
                // As long as the source says that it is leaving, nothing may be appended to it: the target may have
                // got there.
                if let Err(stuck) = self.leaving().remove(source_dir).await {
                    self.source.fail(&stuck);
                }
                Err(error.into())
            }
        }
    }

    async fn install(&self) -> Result<Rc<Log>, StorageError> {
        let target_dir = self.target.home.path();
        let (from, to) = (target_dir.join(&self.future_name), target_dir.join(&self.name));
        self.installed.set(true);
        let installed = async {
            fs::rename(&from, &to).await.at(&from, "rename")?;
            fs::sync_dir(target_dir).await.at(target_dir, "sync")?;
            let config = self.source.config();
            let topic_id = self.source.topic_id;
            let (log, _) =
                Log::open(&self.target.home, &self.name, topic_id, config, OpenMode::Clean).await?;
            if let Some(epoch) = self.source.latest_epoch() {
                // One without a batch is not on the disk.
                log.assign_epoch(epoch);
            }
            Ok(log)
        };
        match installed.await {
            Ok(log) => Ok(log),
            Err(error) => {
                self.target.home.note(&error);
                Err(error)
            }
        }
    }

    /// After the change: the target is settled, the source's files go. What cannot be done is done by the next start.
    async fn leave(&self) {
        if let Err(error) = self.arriving().remove(self.target.home.path()).await {
            self.target.home.note(&error);
            tracing::warn!(log = self.name, %error, "a log was moved, and its note could not be removed");
        }
        if let Err(error) = self.remove_source().await {
            self.source.home.note(&error);
            tracing::warn!(log = self.name, %error, "a log was moved, and its old files could not be removed");
        }
    }

    async fn remove_source(&self) -> Result<(), StorageError> {
        let gone: Option<PathBuf> = retire_directory(&self.source.dir).await?;
        self.source.home.forget_checkpoint(self.source.topic_id, self.partition()).await?;
        self.leaving().remove(self.source.home.path()).await?;
        match gone {
            Some(gone) => fs::remove_dir_all(&gone).await.at(&gone, "remove"),
            None => Ok(()),
        }
    }

    /// Removes what an abandoned move has left in the target, the note last: while any of it is there it has to say
    /// that it does not count.
    async fn discard(&self) -> Result<(), StorageError> {
        let future = self.future.borrow_mut().take();
        if let Some(future) = future {
            future.delete().await?;
        }
        let target_dir = self.target.home.path();
        if self.installed.get() {
            remove_directory(&target_dir.join(&self.name)).await?;
        }
        self.arriving().remove(target_dir).await
    }
}

/// A copy is synced by the swap, and rolls and keeps what its source does.
fn copy_config(config: LogConfig) -> LogConfig {
    LogConfig {
        durability: Some(Level::Written),
        flush_messages: FLUSH_UNSET,
        flush_ms: FLUSH_UNSET,
        log_append_time: false,
        ..config
    }
}

impl Log {
    /// Whether the log is being moved to another directory: what rewrites its segments has to wait, since the copy
    /// has read some of them.
    pub fn is_relocating(&self) -> bool {
        self.watch.get() != Watch::No
    }

    /// The log was truncated: a copy of it begins again.
    pub(super) fn spoil_copy(&self) {
        if self.is_relocating() {
            self.watch.set(Watch::Spoiled);
        }
    }

    /// Ends the log, which the caller holds, at `end` without a batch: what was there before was compacted away.
    async fn extend_to(&self, end: i64) -> Result<(), StorageError> {
        if self.log_end() >= end {
            return Ok(());
        }
        let segment = {
            let mut state = self.state.borrow_mut();
            let config = state.config.clone();
            let segment = self.fresh_segment(end, time::wall_clock_ms(), &config);
            if state.active().bytes() == 0 {
                state.segments.pop_back();
            }
            state.segments.push_back(segment.clone());
            state.written_end = end;
            state.durable_end = end;
            state.forced_end = end;
            segment
        };
        segment.prepare().await.map(drop)
    }
}
