//! The flush task: brings what was appended to the log's level, in order, in groups.
//!
//! It is spawned by the first append that finds none, and ends when there is nothing left to do. While one flush is
//! in flight everything that arrives joins the next.

use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use heizer_runtime::fs::{self, File, OpenOptions, WriteSync};
use heizer_runtime::task;
use heizer_runtime::time::{self, Instant};

use crate::config::Level;
use crate::error::{IoContext, LogFailed, StorageError};
use crate::log::{Log, Role, State};
use crate::paths::{self, EPOCHS, METADATA};
use crate::segment::Segment;
use crate::space::Starving;

/// At level memory, data is written when there is this much of it, or after this time.
const LAZY_BYTES: u64 = 1 << 20;
const LAZY_MS: u64 = 1000;

/// So many segments that were rolled may wait to be sealed, which goes on beside the writes into later ones: their
/// indexes and snapshots are in memory, and recovery has to read them.
const UNSEALED_MAX: usize = 4;

/// What the flush task does next.
enum Job {
    /// Make durable what the first data, that of this segment, stands on: the directory.
    Ground(Rc<Segment>),
    /// Write what is appended to this segment.
    Write { segment: Rc<Segment>, sync: WriteSync, segment_bytes: u32 },
    /// Begin to seal a segment that was rolled.
    Seal(Rc<Segment>),
    /// Begin to make the file for the segment after this.
    Spare(Rc<Segment>),
    /// Create the file of the active segment.
    Create(Rc<Segment>),
    /// Sync what was written without.
    Sync { segments: Vec<Rc<Segment>>, end: i64 },
    /// Nothing before this, unless something new comes.
    Wait(Instant),
}

impl Log {
    /// Brings everything appended so far to level durable, and seals what was rolled.
    pub async fn flush(&self) -> Result<(), LogFailed> {
        let end = {
            let mut state = self.state.borrow_mut();
            state.forced_end = state.forced_end.max(state.log_end());
            state.log_end()
        };
        self.start_flush();
        self.wait_end_at(Level::Durable, end).await?;
        self.wait_rolled_sealed().await
    }

    /// Sees to it that a flush task runs if there is something to do.
    pub(crate) fn start_flush(&self) {
        {
            let mut state = self.state.borrow_mut();
            match state.role {
                Role::Flushing => {
                    drop(state);
                    self.work.notify_all();
                    return;
                }
                Role::Exclusive => return,
                Role::Idle => {}
            }
            let nothing = state.next_job().is_none() && self.spare_space(&state).is_none();
            if state.failed.is_some() || state.closed || nothing {
                return;
            }
            state.role = Role::Flushing;
        }
        let log = self.me();
        drop(task::spawn(async move {
            let result = log.run_flush().await;
            if let Err(error) = result {
                log.fail(&error);
            }
            log.aside_ended().await;
            log.state.borrow_mut().role = Role::Idle;
            log.idle.notify_all();
        }));
    }

    /// Carries out jobs until there is none. Between the last look and the role going idle nothing is awaited.
    ///
    /// What the disk has no space for is tried again until it has, or until somebody wants the files for himself.
    pub(super) async fn run_flush(&self) -> Result<(), StorageError> {
        let mut starving: Option<Starving> = None;
        loop {
            let work = self.work.listen();
            let (job, spare) = {
                let state = self.state.borrow();
                (state.next_job(), self.spare_space(&state))
            };
            let done = match (job, spare) {
                (Some(Job::Wait(until)), None) => {
                    // A truncation or close that waits for the role must not wait for the time.
                    if let Either::Left(_) = future::select(pin!(time::sleep_until(until)), work).await {
                        continue;
                    }
                    Ok(())
                }
                (None | Some(Job::Wait(_)), Some(active)) => {
                    active.give_back().await;
                    Ok(())
                }
                (Some(job), _) => self.carry_out(job).await,
                (None, None) => return Ok(()),
            };
            match done {
                Ok(()) => starving = None,
                Err(error) if error.is_no_space() => {
                    let space = self.home.space();
                    starving.get_or_insert_with(|| space.starve(&error));
                    // Retention takes what it can.
                    self.advance.notify_all();
                    let work = self.work.listen();
                    if self.state.borrow().exclusive_waiting > 0 {
                        return Ok(());
                    }
                    future::select(pin!(space.retry_due()), work).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The active segment, if it has reserved space that is wanted back: ahead of its end, while appends are refused.
    fn spare_space(&self, state: &State) -> Option<Rc<Segment>> {
        let active = state.active();
        (self.home.space().is_refusing() && active.reserves_ahead()).then(|| active.clone())
    }

    async fn carry_out(&self, job: Job) -> Result<(), StorageError> {
        match job {
            Job::Ground(first) => self.settle_home(Some(&first)).await?,
            Job::Write { segment, sync, segment_bytes } => {
                let file = self.file_of(&segment).await?;
                let end = segment.flush(&file, sync, segment_bytes, Some(self.home.flush())).await?;
                self.state.borrow_mut().wrote(end, sync);
                self.advanced();
                self.home.context().enforce();
            }
            Job::Seal(segment) => self.seal_aside(segment)?,
            Job::Spare(active) => self.make_spare_aside(active),
            Job::Create(segment) => {
                drop(self.file_of(&segment).await?);
                drop(segment.prepare().await?);
                self.advance.notify_all();
            }
            Job::Sync { segments, end } => {
                for segment in segments {
                    segment.sync().await?;
                }
                let mut state = self.state.borrow_mut();
                state.durable_end = state.durable_end.max(end);
                state.dirty_since = Some(time::now());
                state.settle();
                drop(state);
                self.advanced();
            }
            Job::Wait(_) => unreachable!("waited for by the caller"),
        }
        Ok(())
    }

    /// An end has moved.
    fn advanced(&self) {
        self.note_growth();
        self.advance.notify_all();
    }

    /// Seals a segment, its epochs durable before (contract L5): recovery takes them from the checkpoint alone.
    pub(super) async fn seal(&self, segment: &Rc<Segment>) -> Result<(), StorageError> {
        self.write_epochs().await?;
        segment.seal().await
    }

    /// Makes the directory with its metadata, and the file of its first segment, on stable storage, unless that is
    /// done.
    pub(super) async fn settle_home(&self, first: Option<&Rc<Segment>>) -> Result<(), StorageError> {
        if self.state.borrow().home_durable {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).await.at(&self.dir, "create")?;
        let first = first.filter(|first| !first.exists());
        let file = async {
            match first {
                Some(first) => first.make_file().await,
                None => Ok(()),
            }
        };
        // Each to its end: should one fail, nothing of the other may meet what is tried again.
        let (metadata, file) = future::join(self.write_metadata(), file).await;
        metadata?;
        file?;
        let parent = self.dir.parent().unwrap_or(Path::new("."));
        let sync = async |dir| fs::sync_dir(dir).await.at(dir, "sync");
        future::try_join(sync(&self.dir), sync(parent)).await?;
        if let Some(first) = first {
            first.mark_made();
        }
        self.state.borrow_mut().home_durable = true;
        Ok(())
    }

    async fn write_metadata(&self) -> Result<(), StorageError> {
        let path = self.dir.join(METADATA);
        let options = OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() };
        let file = File::open(&path, options).await.at(&path, "create")?;
        let text = Bytes::from(paths::encode_metadata(self.topic_id));
        file.write_at(vec![text], 0, WriteSync::None).await.at(&path, "write")?;
        file.sync_all().await.at(&path, "sync")
    }

    /// Brings the epoch checkpoint up to date, unless it is.
    pub(super) async fn write_epochs(&self) -> Result<(), StorageError> {
        let epochs = {
            let state = self.state.borrow();
            if state.epochs == state.checkpointed {
                return Ok(());
            }
            state.epochs.clone()
        };
        let path = self.dir.join(EPOCHS);
        fs::write_atomic(&path, epochs.encode()).await.at(&path, "write")?;
        self.state.borrow_mut().checkpointed = epochs;
        Ok(())
    }

    /// Brings to stable storage what was found at the opening, the directory's entries included.
    pub(crate) async fn sync_found(&self) -> Result<(), StorageError> {
        for segment in self.unsynced() {
            segment.sync().await?;
        }
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
        self.found_is_durable();
        Ok(())
    }

    /// Somebody else has.
    pub(crate) fn found_is_durable(&self) {
        self.unsynced().iter().for_each(|segment| segment.mark_synced());
        self.synced();
        // What was rolled is sealed.
        self.start_flush();
    }

    fn unsynced(&self) -> Vec<Rc<Segment>> {
        let state = self.state.borrow();
        state.segments.iter().filter(|segment| segment.exists() && segment.is_unsynced()).cloned().collect()
    }

    /// A segment was synced: where nothing before is unsynced, the durable end follows.
    pub(super) fn synced(&self) {
        let mut state = self.state.borrow_mut();
        let first_unsynced =
            state.segments.iter().find(|segment| segment.is_unsynced() || segment.unwritten() > 0);
        let end = first_unsynced.map_or(state.written_end, |segment| segment.base().min(state.written_end));
        state.durable_end = state.durable_end.max(end);
        state.settle();
        drop(state);
        self.advanced();
    }
}

impl State {
    /// Notes that everything below `end` is written.
    fn wrote(&mut self, end: i64, sync: WriteSync) {
        if sync == WriteSync::Data && self.durable_end == self.written_end {
            self.durable_end = end;
        }
        self.written_end = end;
        if self.config.sync_within_ms().is_none() {
            self.dirty_since = Some(time::now());
        }
        self.settle();
    }

    /// Forgets since when the log is dirty once it is not.
    pub(super) fn settle(&mut self) {
        let reached = match self.config.sync_within_ms() {
            Some(_) => self.durable_end,
            None => self.written_end,
        };
        if reached >= self.log_end() {
            self.dirty_since = None;
        }
    }

    /// The next thing to do, oldest first; `None` when all is as the log's level wants it.
    fn next_job(&self) -> Option<Job> {
        if !self.home_durable
            && let Some(first) = self.segments.iter().find(|segment| segment.unwritten() > 0)
        {
            return Some(Job::Ground(first.clone()));
        }
        let level = self.config.level();
        let forced =
            self.durable_end < self.forced_end || self.exclusive_waiting > 0 || self.too_many_unsynced();
        let sync = if level == Level::Durable || forced { WriteSync::Data } else { WriteSync::None };
        let last = self.segments.len() - 1;
        let mut sealing = false;
        for (at, segment) in self.segments.iter().enumerate() {
            if segment.unwritten() > 0 {
                let lazy =
                    level == Level::Memory && !forced && at == last && segment.unwritten() < LAZY_BYTES;
                if let Some(until) = lazy.then(|| self.deadline(LAZY_MS)).filter(|&until| time::now() < until)
                {
                    return Some(Job::Wait(until));
                }
                let segment_bytes = self.config.segment_bytes;
                return Some(Job::Write { segment: segment.clone(), sync, segment_bytes });
            }
            if at < last && !segment.is_sealed() && !sealing {
                if !self.aside {
                    return Some(Job::Seal(segment.clone()));
                }
                sealing = true;
                if last - at > UNSEALED_MAX {
                    return Some(self.wait_for_aside());
                }
            }
            if at == last && at > 0 && !segment.exists() {
                return Some(Job::Create(segment.clone()));
            }
        }
        if !self.aside && self.exclusive_waiting == 0 && self.wants_spare() {
            return Some(Job::Spare(self.active().clone()));
        }
        if self.durable_end == self.written_end {
            return self.aside.then(|| self.wait_for_aside());
        }
        let due = match self.config.sync_within_ms() {
            _ if forced || level == Level::Durable => time::now(),
            Some(within) => self.deadline(within),
            None => return self.aside.then(|| self.wait_for_aside()),
        };
        if time::now() < due {
            return Some(Job::Wait(due));
        }
        let segments = self.segments.iter().filter(|segment| segment.is_unsynced()).cloned().collect();
        Some(Job::Sync { segments, end: self.written_end })
    }

    /// `flush.messages`: so many messages are not on stable storage that they must be brought there now.
    fn too_many_unsynced(&self) -> bool {
        let messages = self.config.sync_after_messages();
        messages.is_some_and(|messages| self.log_end() - self.durable_end >= messages)
    }

    /// What goes on aside tells the flush task when it has ended.
    fn wait_for_aside(&self) -> Job {
        Job::Wait(time::now() + Duration::from_millis(LAZY_MS))
    }

    fn deadline(&self, within_ms: u64) -> Instant {
        self.dirty_since.unwrap_or_else(time::now) + Duration::from_millis(within_ms)
    }
}
