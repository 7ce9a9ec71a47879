//! A data directory, as one core uses it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::context::StorageContext;
use crate::error::StorageError;
use crate::health::{Health, OnFailure};

/// One data directory (`log.dirs` may name several) as the logs of one core share it. Lives on that core, as long as
/// any of its logs.
pub struct LogDir {
    path: PathBuf,
    ctx: Rc<StorageContext>,
    health: Rc<Health>,
}

impl LogDir {
    /// The directory at `path`, which is there.
    pub fn new(path: &Path, ctx: Rc<StorageContext>) -> Rc<LogDir> {
        Rc::new(LogDir { path: path.to_owned(), ctx, health: Rc::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What all logs of the core share.
    pub fn context(&self) -> &Rc<StorageContext> {
        &self.ctx
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
}
