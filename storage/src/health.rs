//! Whether a data directory still works: which errors tell that its device is gone, and who is told.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use heizer_runtime::fs::{self, File, OpenOptions, WriteSync};
use heizer_runtime::task;

use crate::error::StorageError;

/// Called once, with the reason, when the directory has failed. It must not block.
pub type OnFailure = Box<dyn Fn(Arc<str>)>;

/// What an error says of the directory that it came up in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: a full disk, a damaged file, a log that had failed before.
    Fine,
    /// One place may be bad, or everything: a look at the directory tells.
    Doubtful,
    /// The device does not take writes any more, or is not there.
    Gone,
}

/// A data directory's health, as one core sees it.
#[derive(Default)]
pub(crate) struct Health {
    failure: RefCell<Option<Arc<str>>>,
    on_failure: RefCell<Option<OnFailure>>,
    probing: Cell<bool>,
}

impl Health {
    /// Why the directory has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failure.borrow().clone()
    }

    pub(crate) fn on_failure(&self, tell: OnFailure) {
        *self.on_failure.borrow_mut() = Some(tell);
    }

    /// The directory has failed: the first reason counts.
    pub(crate) fn fail(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        if self.failure.borrow().is_some() {
            return;
        }
        *self.failure.borrow_mut() = Some(reason.clone());
        if let Some(tell) = &*self.on_failure.borrow() {
            tell(reason);
        }
    }

    /// Takes note of an error below `path`. Where it leaves doubts, a probe is written beside the caller.
    pub(crate) fn note(self: &Rc<Self>, path: &Path, error: &StorageError) {
        match judge(error) {
            Verdict::Fine => {}
            Verdict::Gone => self.fail(&error.to_string()),
            Verdict::Doubtful if self.failure.borrow().is_some() || self.probing.replace(true) => {}
            Verdict::Doubtful => {
                let (health, path) = (self.clone(), path.to_owned());
                task::spawn(async move {
                    if let Err(error) = probe(&path).await {
                        health.fail(&format!("{}: {error}", path.display()));
                    }
                    health.probing.set(false);
                });
            }
        }
    }
}

/// Linux's numbers, which `io::ErrorKind` has no stable names for.
mod errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENXIO: i32 = 6;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EROFS: i32 = 30;
    pub(super) const ENOTCONN: i32 = 107;
    pub(super) const ESHUTDOWN: i32 = 108;
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const EHOSTDOWN: i32 = 112;
    pub(super) const ESTALE: i32 = 116;
    pub(super) const EUCLEAN: i32 = 117;
    pub(super) const EREMOTEIO: i32 = 121;
    pub(super) const ENOMEDIUM: i32 = 123;
}

/// A read that fails with EIO may have met one bad sector; a write or sync that does has lost data, and the file system
/// under it can be trusted with no more.
fn judge(error: &StorageError) -> Verdict {
    let StorageError::Io { action, source, .. } = error else { return Verdict::Fine };
    let only_looks = matches!(*action, "read" | "open" | "list");
    match source.raw_os_error() {
        Some(errno::EIO) if only_looks => Verdict::Doubtful,
        Some(
            errno::EIO
            | errno::ENXIO
            | errno::ENODEV
            | errno::EROFS
            | errno::ENOTCONN
            | errno::ESHUTDOWN
            | errno::ETIMEDOUT
            | errno::EHOSTDOWN
            | errno::ESTALE
            | errno::EUCLEAN
            | errno::EREMOTEIO
            | errno::ENOMEDIUM,
        ) => Verdict::Gone,
        // What was there is gone or forbidden: as after an unmount.
        _ if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Verdict::Doubtful
        }
        _ => Verdict::Fine,
    }
}

/// Whether the directory can be listed, and written to durably. A full disk is no failure.
async fn probe(path: &Path) -> io::Result<()> {
    fs::read_dir(path).await?;
    let file = path.join(PROBE);
    let written = write_probe(&file).await;
    let removed = match fs::remove_file(&file).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    match written {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            removed
        }
        written => written.and(removed),
    }
}

async fn write_probe(path: &Path) -> io::Result<()> {
    let options = OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() };
    let file = File::open(path, options).await?;
    file.write_at(vec![Bytes::from_static(b"probe\n")], 0, WriteSync::None).await?;
    file.sync_all().await
}

/// Written and removed to see whether a directory works.
const PROBE: &str = ".heizer-probe";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use heizer_runtime::sim::Sim;
    use heizer_runtime::time;

    use super::*;

    fn error(action: &'static str, code: i32) -> StorageError {
        StorageError::Io { path: PathBuf::from("/d/f"), action, source: io::Error::from_raw_os_error(code) }
    }

    #[test]
    fn a_device_that_is_gone_is_told_from_a_bad_sector_a_full_disk_and_a_damaged_file() {
        let table = [
            (error("write", errno::EIO), Verdict::Gone),
            (error("sync", errno::EIO), Verdict::Gone),
            (error("read", errno::EIO), Verdict::Doubtful),
            (error("read", errno::ESTALE), Verdict::Gone),
            (error("create", errno::EROFS), Verdict::Gone),
            (error("open", errno::ENOTCONN), Verdict::Gone),
            (error("open", 2), Verdict::Doubtful),
            (error("create", 13), Verdict::Doubtful),
            // ENOSPC, EDQUOT, EMFILE
            (error("write", 28), Verdict::Fine),
            (error("write", 122), Verdict::Fine),
            (error("open", 24), Verdict::Fine),
            (StorageError::Corrupt { path: PathBuf::from("/d/f"), reason: "bad".to_owned() }, Verdict::Fine),
        ];
        for (error, expected) in table {
            assert_eq!(judge(&error), expected, "{error}");
        }
    }

    #[test]
    fn after_a_failed_read_a_probe_tells_whether_the_directory_is_gone() {
        for dead in [false, true] {
            let mut sim = Sim::new(3);
            let node = sim.node(1);
            sim.run(node, async { fs::create_dir_all(Path::new("/d")).await.expect("made") });
            if dead {
                sim.kill_device(node, Path::new("/d"));
            }
            let (failed, told, left) = sim.run(node, async {
                let health = Rc::new(Health::default());
                let told = Rc::new(Cell::new(0));
                let count = told.clone();
                health.on_failure(Box::new(move |_| count.set(count.get() + 1)));
                for _ in 0..3 {
                    health.note(Path::new("/d"), &error("read", errno::EIO));
                }
                time::sleep(Duration::from_secs(1)).await;
                let left = fs::read_dir(Path::new("/d")).await.map_or(0, |entries| entries.len());
                (health.failure().is_some(), told.get(), left)
            });
            assert_eq!((failed, told, left), (dead, u32::from(dead), 0));
        }
    }
}
