//! The data directories as this core sees them, what is offline, and what happens when a directory fails.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use heizer_runtime::collections::HashMap;
use heizer_runtime::cores;
use heizer_runtime::sync::Event;
use heizer_storage::{LogDir, OpenMode, StorageError};
use uuid::Uuid;

use super::{OFFSETS_TOPIC, Shard, here};
use crate::data_dir::{DirFacts, Place, Placer, Plan, free_bytes};
use crate::partition::Partition;

/// One data directory on one core.
pub struct ShardDir {
    /// What its logs share.
    pub log_dir: Rc<LogDir>,
    /// Its id.
    pub id: [u8; 16],
    /// How logs that were there at the start are opened.
    pub mode: OpenMode,
    /// It has held logs of this broker before.
    pub was_known: bool,
}

/// The data directories of one core, and what is not there.
#[derive(Default)]
pub(super) struct Dirs {
    all: RefCell<Vec<Rc<ShardDir>>>,
    /// Where partitions were found at the start.
    plan: RefCell<Arc<Plan>>,
    /// Partitions that cannot be served, and why.
    offline: RefCell<HashMap<(Uuid, i32), Arc<str>>>,
    /// On the cluster core alone.
    pub(super) placer: RefCell<Placer>,
    /// On the cluster core alone: the directories that have failed since the start.
    failed: RefCell<Vec<usize>>,
    /// On the cluster core alone: why the broker cannot go on.
    fatal: RefCell<Option<Arc<str>>>,
    fatal_event: Event,
}

impl Shard {
    /// Makes the data directories known to this core, before any log is opened, and reads what the core has noted of
    /// its logs in each.
    pub async fn set_dirs(&self, facts: &[DirFacts]) -> Result<(), StorageError> {
        let make = |(at, facts): (usize, &DirFacts)| {
            let log_dir = LogDir::new(&facts.path, self.storage.clone());
            if let Some(reason) = &facts.failure {
                log_dir.fail(reason);
            }
            log_dir.on_failure(Box::new(move |reason| {
                cores::cast(here().node.cluster_core(), move || here().dir_failed(at, reason));
            }));
            let DirFacts { id, mode, was_known, .. } = *facts;
            Rc::new(ShardDir { log_dir, id, mode, was_known })
        };
        *self.dirs.all.borrow_mut() = facts.iter().enumerate().map(make).collect();
        for (at, dir) in self.dirs().iter().enumerate() {
            if dir.log_dir.failure().is_some() {
                continue;
            }
            let opened = async {
                self.reserve_space(&dir.log_dir).await.map_err(|source| {
                    let path = dir.log_dir.path().to_owned();
                    StorageError::Io { path, action: "ask for space", source }
                })?;
                dir.log_dir.open_checkpoints().await
            };
            match opened.await {
                Err(error) if at == self.node.metadata_dir => return Err(error),
                Err(error) => dir.log_dir.fail(&error.to_string()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Makes known to this core where partitions are.
    pub fn set_plan(&self, plan: Arc<Plan>) {
        *self.dirs.plan.borrow_mut() = plan;
    }

    /// What chooses directories from now on; on the cluster core.
    pub fn set_placer(&self, placer: Placer) {
        *self.dirs.placer.borrow_mut() = placer;
    }

    /// The data directories, in the order of `log.dirs`.
    pub fn dirs(&self) -> Vec<Rc<ShardDir>> {
        self.dirs.all.borrow().clone()
    }

    /// The data directory with this place in `log.dirs`.
    pub fn dir(&self, at: usize) -> Rc<ShardDir> {
        self.dirs.all.borrow()[at].clone()
    }

    /// Why a partition cannot be served, if it cannot.
    pub fn offline_reason(&self, topic_id: Uuid, index: i32) -> Option<Arc<str>> {
        self.dirs.offline.borrow().get(&(topic_id, index)).cloned()
    }

    /// How many partitions of this core cannot be served.
    pub fn offline_partitions(&self) -> usize {
        self.dirs.offline.borrow().len()
    }

    /// How many directories have failed.
    pub fn offline_dirs(&self) -> usize {
        self.dirs.all.borrow().iter().filter(|dir| dir.log_dir.failure().is_some()).count()
    }

    pub(super) fn set_offline(&self, topic_id: Uuid, index: i32, reason: Arc<str>) {
        self.dirs.offline.borrow_mut().insert((topic_id, index), reason);
    }

    /// Forgets the offline partitions of a topic that goes; whether there were any.
    pub(super) fn forget_offline(&self, topic_id: Uuid) -> bool {
        let mut offline = self.dirs.offline.borrow_mut();
        let before = offline.len();
        offline.retain(|(id, _), _| *id != topic_id);
        offline.len() < before
    }

    /// Why a log that was not found may be somewhere all the same, if it may.
    pub(super) fn missing_dirs(&self) -> Option<Arc<str>> {
        self.dirs.plan.borrow().missing()
    }

    pub(super) fn planned(&self, topic_id: Uuid, index: i32) -> Option<Place> {
        self.dirs.plan.borrow().place(topic_id, index).cloned()
    }

    /// Places for partitions of a topic: where those are that were there at the start, and new ones for the others. On
    /// the cluster core.
    pub(super) async fn places(&self, topic_id: Uuid, partitions: &[i32]) -> Vec<(i32, Place)> {
        let dirs = self.dirs();
        let online = dirs.iter().map(|dir| (dir.log_dir.path(), dir.log_dir.failure().is_none()));
        let free = free_bytes(online).await;
        let nowhere = || Place::Offline("no data directory is online".into());
        let place = |index: &i32| {
            let known = self.planned(topic_id, *index);
            let place = known.unwrap_or_else(|| {
                self.dirs.placer.borrow_mut().choose(&free).map_or_else(nowhere, Place::In)
            });
            (*index, place)
        };
        partitions.iter().map(place).collect()
    }

    /// On the cluster core: a core has found that a directory fails. Once, with one line.
    fn dir_failed(&self, at: usize, reason: Arc<str>) {
        if self.dirs.failed.borrow().contains(&at) {
            return;
        }
        self.dirs.failed.borrow_mut().push(at);
        let path = self.node.dirs[at].path.display().to_string();
        if at == self.node.metadata_dir {
            self.cannot_go_on(format!(
                "data directory {path}, which holds the metadata, has failed: {reason}"
            ));
            return;
        }
        tracing::error!(directory = path, %reason, "a data directory has failed and is offline");
        for core in cores::all() {
            let reason = reason.clone();
            cores::cast(core, move || here().take_dir_offline(at, &reason));
        }
    }

    fn cannot_go_on(&self, reason: String) {
        let mut fatal = self.dirs.fatal.borrow_mut();
        if fatal.is_none() {
            tracing::error!(reason, "the broker cannot go on and stops");
            *fatal = Some(reason.into());
        }
        drop(fatal);
        self.dirs.fatal_event.notify_all();
    }

    /// Resolves with the reason when the broker cannot go on; on the cluster core.
    pub async fn fatal(&self) -> Arc<str> {
        loop {
            let told = self.dirs.fatal_event.listen();
            if let Some(reason) = self.fatal_reason() {
                return reason;
            }
            told.await;
        }
    }

    /// Why the broker cannot go on, if so; on the cluster core.
    pub fn fatal_reason(&self) -> Option<Arc<str>> {
        self.dirs.fatal.borrow().clone()
    }

    /// On every core: the partitions in a directory go offline, and whoever waits for them is told.
    fn take_dir_offline(&self, at: usize, reason: &Arc<str>) {
        let dir = self.dir(at);
        dir.log_dir.fail(reason);
        let gone: Vec<Rc<Partition>> = self.partitions();
        for partition in gone.into_iter().filter(|p| Rc::ptr_eq(p.log().home(), &dir.log_dir)) {
            self.take_partition_offline(&partition, reason);
        }
    }

    pub(super) fn take_partition_offline(&self, partition: &Rc<Partition>, reason: &Arc<str>) {
        let (topic_id, index) = (partition.topic_id(), partition.index());
        self.set_offline(topic_id, index, reason.clone());
        self.partitions.borrow_mut().remove(&(topic_id, index));
        if &**partition.topic() == OFFSETS_TOPIC {
            self.groups.close(index);
        }
        partition.log().abandon(reason);
        partition.free_waiters();
    }

    /// Raft's stream is in the directory with the metadata: where it has failed, that has.
    pub(super) async fn watch_raft(self: Rc<Self>) {
        loop {
            let Some(raft) = self.raft.borrow().clone() else { return };
            let progress = raft.progress();
            if raft.has_failed() {
                let at = self.node.metadata_dir;
                let reason: Arc<str> = "the raft stream cannot be written".into();
                cores::cast(self.node.cluster_core(), move || here().dir_failed(at, reason));
                return;
            }
            drop(raft);
            progress.await;
        }
    }

    /// The place in `log.dirs` of the directory at `path`.
    pub fn dir_at(&self, path: &Path) -> Option<usize> {
        self.node.dirs.iter().position(|dir| dir.path == path)
    }
}
