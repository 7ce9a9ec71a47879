//! The free space of the data directories: the reserve is set at the start, looked after from then on, and what the
//! operator has to know is logged once for all cores, by the first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::{task, time};
use heizer_storage::{LogDir, SpaceStatus};

use super::Shard;
use crate::metrics::LogDirFigures;

/// How often the free space is looked at, for others use the disk as well.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The core that logs for all.
const TELLER: CoreId = CoreId(0);

/// Which cores refuse appends for want of space, by directory; on the core that logs.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_dir: BTreeMap<PathBuf, BTreeSet<CoreId>>,
}

/// What a directory as a whole has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The first core refuses.
    Full,
    /// The last core has stopped refusing.
    Recovered,
}

impl Refusals {
    /// A core has begun to refuse, or has stopped.
    fn told(&mut self, dir: &Path, core: CoreId, refusing: bool) -> Option<Turn> {
        let cores = self.by_dir.entry(dir.to_owned()).or_default();
        let before = cores.is_empty();
        match refusing {
            true => cores.insert(core),
            false => cores.remove(&core),
        };
        match (before, cores.is_empty()) {
            (true, false) => Some(Turn::Full),
            (false, true) => Some(Turn::Recovered),
            _ => None,
        }
    }
}

impl Shard {
    /// Sets the reserve of a data directory, on this core: producers are refused below it from here on.
    pub(super) async fn reserve_space(&self, dir: &LogDir) -> io::Result<()> {
        let space = dir.space();
        let (path, core) = (dir.path().to_owned(), self.core);
        space.on_turn(Rc::new(move |status| {
            let (path, status) = (path.clone(), status.clone());
            cores::cast(TELLER, move || tell(&path, core, &status));
        }));
        let reserve = space.set_reserve(self.node.config.disk_reserve(cores::count())).await?;
        if core == TELLER && reserve.bytes < reserve.wanted_bytes {
            tracing::info!(
                dir = %dir.path().display(),
                total_bytes = reserve.total_bytes,
                wanted_bytes = reserve.wanted_bytes,
                reserve_bytes = reserve.bytes,
                "the file system is small: a quarter of it is kept in reserve"
            );
        }
        Ok(())
    }

    /// Looks after the free space of a data directory, for ever, and after its reserve, which may be changed.
    pub(super) fn watch_space(self: &Rc<Self>, dir: &Rc<LogDir>) {
        let (shard, space) = (self.clone(), dir.space().clone());
        drop(task::spawn(async move {
            let mut reserve = shard.node.config.disk_reserve(cores::count());
            loop {
                time::sleep(LOOK_INTERVAL).await;
                let wanted = shard.config().disk_reserve(cores::count());
                let looked = if wanted == reserve {
                    space.look().await
                } else {
                    space.set_reserve(wanted).await.map(|_| reserve = wanted)
                };
                if let Err(error) = looked {
                    // A directory that is gone fails its logs, and they say so.
                    tracing::debug!(dir = %space.path().display(), %error, "the free space cannot be told");
                }
            }
        }));
    }

    /// The data directories as this core sees them, looked at anew.
    pub(super) async fn log_dir_figures(&self) -> Vec<LogDirFigures> {
        let mut figures = Vec::new();
        for dir in self.dirs() {
            let (log_dir, space) = (&dir.log_dir, dir.log_dir.space());
            if log_dir.failure().is_none()
                && let Err(error) = space.measure().await
            {
                tracing::debug!(dir = %space.path().display(), %error, "the free space cannot be told");
            }
            let SpaceStatus { free_bytes, total_bytes, reserve_bytes, refusing, .. } = space.status();
            figures.push(LogDirFigures {
                dir: log_dir.path().display().to_string(),
                free_bytes,
                size_bytes: total_bytes,
                reserve_bytes,
                refusing,
                offline: log_dir.failure().is_some(),
                writes: log_dir.write_queue(),
                flushes: log_dir.flush_counts(),
            });
        }
        figures
    }
}

/// On the core that logs: says what is news of the directory as a whole.
fn tell(dir: &Path, core: CoreId, status: &SpaceStatus) {
    let Some(shard) = cores::try_room::<Shard>() else { return };
    let turn = shard.refusals.borrow_mut().told(dir, core, status.refusing);
    let &SpaceStatus { free_bytes, reserve_bytes, missing_bytes, .. } = status;
    let dir = dir.display();
    match turn {
        Some(Turn::Full) => {
            let error = status.error.as_deref().unwrap_or("less than the reserve is free");
            tracing::warn!(%dir, free_bytes, missing_bytes, reserve_bytes, error, "the disk is full: appends are refused");
        }
        Some(Turn::Recovered) => {
            tracing::info!(%dir, free_bytes, "there is space again: appends are taken");
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_full_from_its_first_core_to_its_last() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let mut refusals = Refusals::default();
        let steps = [
            (a, 1, true, Some(Turn::Full)),
            (a, 0, true, None),
            (b, 0, true, Some(Turn::Full)),
            (a, 1, false, None),
            (a, 1, true, None),
            (a, 0, false, None),
            (a, 1, false, Some(Turn::Recovered)),
            (a, 1, true, Some(Turn::Full)),
            (b, 0, false, Some(Turn::Recovered)),
        ];
        for (dir, core, refusing, turn) in steps {
            assert_eq!(refusals.told(dir, CoreId(core), refusing), turn);
        }
    }
}
