//! A data directory, as one core uses it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::context::StorageContext;

/// One data directory (`log.dirs` may name several) as the logs of one core share it. Lives on that core, as long as
/// any of its logs.
pub struct LogDir {
    path: PathBuf,
    ctx: Rc<StorageContext>,
}

impl LogDir {
    /// The directory at `path`, which is there.
    pub fn new(path: &Path, ctx: Rc<StorageContext>) -> Rc<LogDir> {
        Rc::new(LogDir { path: path.to_owned(), ctx })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What all logs of the core share.
    pub fn context(&self) -> &Rc<StorageContext> {
        &self.ctx
    }
}
