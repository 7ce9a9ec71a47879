//! A data directory, as one core uses it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::fs;

use crate::checkpoint::{self, Checkpoints, PartitionKey};
use crate::context::StorageContext;
use crate::error::{LogFailed, StorageError};
use crate::flush::{FlushCounts, SharedFlush, WriteQueue};
use crate::health::{Health, OnFailure};
use crate::log::Log;
use crate::space::Space;

/// One data directory (`log.dirs` may name several) as the logs of one core share it. Lives on that core, as long as
/// any of its logs.
pub struct LogDir {
    path: PathBuf,
    ctx: Rc<StorageContext>,
    space: Rc<Space>,
    /// Those that are open, and some that were.
    logs: RefCell<Vec<Weak<Log>>>,
    checkpoints: RefCell<Option<Rc<Checkpoints>>>,
    flush: Rc<SharedFlush>,
    health: Rc<Health>,
    /// Logs that were opened and wait to be made durable, as long as a start opens many.
    recovered: RefCell<Option<Vec<Rc<Log>>>>,
}

impl LogDir {
    /// The directory at `path`, which is there.
    pub fn new(path: &Path, ctx: Rc<StorageContext>) -> Rc<LogDir> {
        let space = ctx.add_space(path);
        let flush = SharedFlush::new(path);
        Rc::new_cyclic(|me: &Weak<LogDir>| {
            let me = me.clone();
            space.on_turn(Rc::new(move |status| {
                if let Some(dir) = me.upgrade().filter(|_| status.refusing) {
                    dir.give_back();
                }
            }));
            LogDir {
                path: path.to_owned(),
                ctx,
                space,
                logs: RefCell::default(),
                checkpoints: RefCell::default(),
                flush,
                health: Rc::default(),
                recovered: RefCell::default(),
            }
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What all logs of the core share.
    pub fn context(&self) -> &Rc<StorageContext> {
        &self.ctx
    }

    /// How much space its file system has left.
    pub fn space(&self) -> &Rc<Space> {
        &self.space
    }

    pub(crate) fn add_log(&self, log: &Rc<Log>) {
        let mut logs = self.logs.borrow_mut();
        if logs.len() == logs.capacity() {
            logs.retain(|log| log.strong_count() > 0);
        }
        logs.push(Rc::downgrade(log));
    }

    /// From here on until [`end_recovery`](Self::end_recovery), what logs are found to hold when they are opened counts as
    /// on stable storage only at the end, for all of them at once.
    pub fn begin_recovery(&self) {
        *self.recovered.borrow_mut() = Some(Vec::new());
    }

    /// Brings what was found to stable storage: many logs by one sync of the file system, a few by their own. A log for
    /// which that fails has failed.
    pub async fn end_recovery(&self) {
        /// A sync of the file system also writes what other programs have not synced: a few logs are done sooner alone.
        const ALONE_MAX: usize = 16;
        let logs = self.recovered.borrow_mut().take().unwrap_or_default();
        let together = logs.len() > ALONE_MAX && fs::sync_file_system(&self.path).await.is_ok();
        for log in logs {
            if together {
                log.found_is_durable();
            } else if let Err(error) = log.sync_found().await {
                log.fail(&error);
            }
        }
    }

    /// Sees to it that what was found in `log` is on stable storage, now or with the others.
    pub(crate) async fn make_durable(&self, log: &Rc<Log>) -> Result<(), StorageError> {
        if let Some(recovered) = &mut *self.recovered.borrow_mut() {
            recovered.push(log.clone());
            return Ok(());
        }
        log.sync_found().await
    }

    /// Has every log give back the space that it has reserved ahead.
    fn give_back(&self) {
        let logs: Vec<Rc<Log>> = self.logs.borrow().iter().filter_map(Weak::upgrade).collect();
        logs.iter().for_each(|log| log.start_flush());
    }

    /// Reads this core's checkpoint log in here, before any log is opened. Without it, recovery scans more. One that
    /// cannot be read is an error of the directory, not of its logs.
    pub async fn open_checkpoints(&self) -> Result<(), StorageError> {
        let (count, core) = (cores::count(), cores::current());
        if core == CoreId(0) {
            checkpoint::remove_other_layouts(&self.path, count).await?;
        }
        let directory = checkpoint::directory(&self.path, count, core.0);
        let checkpoints = Checkpoints::open(&directory, &self.ctx).await?;
        *self.checkpoints.borrow_mut() = Some(checkpoints);
        Ok(())
    }

    /// Closes the checkpoint log, after all logs.
    pub async fn close_checkpoints(&self) -> Result<(), StorageError> {
        let checkpoints = self.checkpoints.borrow().clone();
        match checkpoints {
            Some(checkpoints) => checkpoints.close().await,
            None => Ok(()),
        }
    }

    /// How recently a partition's log in here was written to, as far as the checkpoints know: the larger the later, 0
    /// for never. Recovery takes the most recent first.
    pub fn recency(&self, topic_id: [u8; 16], partition: i32) -> u64 {
        let key = PartitionKey { topic_id, partition };
        self.checkpoints().map_or(0, |checkpoints| checkpoints.recency(key))
    }

    /// The partition's log has left this directory: should it come back, nothing that was noted here holds.
    pub async fn forget_checkpoint(&self, topic_id: [u8; 16], partition: i32) -> Result<(), LogFailed> {
        match self.checkpoints() {
            Some(checkpoints) => checkpoints.forget(PartitionKey { topic_id, partition }).await,
            None => Ok(()),
        }
    }

    /// Why the directory has failed as a whole, if it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.health.failure()
    }

    /// `tell` is called, once, when an operation in here has failed in a way that means the whole directory.
    pub fn on_failure(&self, tell: OnFailure) {
        self.health.on_failure(tell);
    }

    /// The directory has failed, as somebody else found out.
    pub fn fail(&self, reason: &str) {
        self.health.fail(reason);
    }

    /// Takes note of an error in here: one of the device fails the directory.
    pub fn note(&self, error: &StorageError) {
        self.health.note(&self.path, error);
    }

    /// How this core's durable writes in here got onto stable storage.
    pub fn flush_counts(&self) -> FlushCounts {
        self.flush.counts()
    }

    /// This core's writes in here that are under way, or wait for their turn.
    pub fn write_queue(&self) -> WriteQueue {
        self.flush.queue()
    }

    pub(crate) fn flush(&self) -> &Rc<SharedFlush> {
        &self.flush
    }

    pub(crate) fn checkpoints(&self) -> Option<Rc<Checkpoints>> {
        self.checkpoints.borrow().clone()
    }
}
