//! A data directory, as one core uses it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use crate::context::StorageContext;
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
}

impl LogDir {
    /// The directory at `path`, which is there.
    pub fn new(path: &Path, ctx: Rc<StorageContext>) -> Rc<LogDir> {
        let space = ctx.add_space(path);
        Rc::new_cyclic(|me: &Weak<LogDir>| {
            let me = me.clone();
            space.on_turn(Rc::new(move |status| {
                if let Some(dir) = me.upgrade().filter(|_| status.refusing) {
                    dir.give_back();
                }
            }));
            LogDir { path: path.to_owned(), ctx, space, logs: RefCell::default() }
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

    /// Has every log give back the space that it has reserved ahead.
    fn give_back(&self) {
        let logs: Vec<Rc<Log>> = self.logs.borrow().iter().filter_map(Weak::upgrade).collect();
        logs.iter().for_each(|log| log.start_flush());
    }
}
