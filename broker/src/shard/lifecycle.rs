//! A core's room comes up and goes down: raft first, then what raft says is here, then the logs.
//!
//! The cluster core leads: see [`crate::serve`] for the order over all cores.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use heizer_raft::{GroupId, GroupImage, NodeId, RaftConfig, RaftHost, StateMachine};
use heizer_runtime::collections::HashMap;
use heizer_runtime::{cores, task, time};
use heizer_storage::{
    CopyBudget, Log, OpenMode, RecoveryReport, StorageContext, StorageError, StorageLimits,
};
use uuid::Uuid;

use super::CodeOf;
use super::control::ControlError;
use super::settings::Settings;
use super::waits::{Waits, wake};
use super::{Groups, Node, OFFSETS_TOPIC, Shard, ShardDir, producer_ids};
use crate::coordinator::group::GroupConfig;
use crate::data_dir::Place;
use crate::fetch_budget::FetchBudget;
use crate::fetch_session::FetchSessions;
use crate::metadata::{
    CLUSTER_GROUP, ClusterState, ImageBuilder, ImageChange, MetadataImage, ShardCommand, ShardState,
    TopicRecord,
};
use crate::metrics::CoreMetrics;
use crate::partition::Partition;

/// Logs of one core opened or closed at the same time.
const LOGS_AT_ONCE: usize = 32;

/// The room could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Raft's stream.
    #[error("the metadata cannot be read: {0}")]
    Raft(#[from] heizer_raft::OpenError),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A log.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a core found when it opened its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// Partitions that it serves.
    pub partitions: usize,
    /// Bytes that had to be checked batch by batch.
    pub scanned_bytes: u64,
    /// Logs whose end was cut off.
    pub cut: usize,
    /// Partitions that it cannot serve.
    pub offline: usize,
}

/// How a core has closed what it had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Data directories, by their places in `log.dirs`, in which logs were not closed in good order.
    pub badly_closed: Vec<usize>,
    /// Raft's stream has failed.
    pub raft_failed: bool,
}

impl Shard {
    /// Makes this core's room, without anything in it.
    /// `code_of` says with which error code a coordinator answers when its partition fails it.
    pub fn install(node: Arc<Node>, code_of: CodeOf) -> Rc<Shard> {
        let config = &node.config;
        let group_config = GroupConfig {
            session_timeout_ms_min: config.group_min_session_timeout_ms,
            session_timeout_ms_max: config.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            members_max: config.group_max_size as usize,
            offset_metadata_max: config.offset_metadata_max_bytes as usize,
            offsets_retention_ms: config.offsets_retention_ms,
            offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
            ..GroupConfig::default()
        };
        let memory = usize::try_from(config.memory_per_core_bytes).unwrap_or(usize::MAX);
        let limits = StorageLimits { tail_cache_max: memory / 4, ..StorageLimits::default() };
        let storage = StorageContext::new(limits);
        let move_budget = CopyBudget::new(config.move_bytes_per_s);
        let cores = cores::count().max(1);
        let shard = Rc::new(Shard {
            core: cores::current(),
            image: Default::default(),
            partitions: Default::default(),
            topic_configs: Default::default(),
            raft: Default::default(),
            states: Default::default(),
            cluster: Default::default(),
            builder: ImageBuilder::new().into(),
            dirs: Default::default(),
            settings: Settings::new(config, move_budget.rate()),
            move_budget: move_budget.into(),
            storage,
            refusals: Default::default(),
            deletions: Default::default(),
            waits: Waits::default(),
            producer_ids: producer_ids::ProducerIds::default(),
            ready: false.into(),
            ended: false.into(),
            end: Default::default(),
            groups: Rc::new(Groups::new(group_config, code_of)),
            sessions: FetchSessions::new((config.fetch_sessions_max as usize).div_ceil(cores)).into(),
            fetch_budget: FetchBudget::new(memory / 4),
            metrics: Rc::new(CoreMetrics::default()),
            node,
        });
        cores::set_room(shard.clone());
        shard
    }

    /// Opens the raft groups of this core from its stream in `directory`, with `imports` of groups that lived on
    /// other cores before; then what they say goes to the image.
    pub async fn open_raft(&self, directory: &Path, imports: Vec<GroupImage>) -> Result<(), StartError> {
        let mut machines: Vec<(GroupId, Box<dyn StateMachine>)> = Vec::new();
        for group in self.node.layout.raft_groups_of(self.core.0) {
            if group == CLUSTER_GROUP {
                let state = Rc::new(ClusterState::new().into());
                *self.cluster.borrow_mut() = Some(Rc::clone(&state));
                machines.push((group, Box::new(state)));
            } else {
                let state = Rc::new(ShardState::new().into());
                self.states.borrow_mut().insert(group, Rc::clone(&state));
                machines.push((group, Box::new(state)));
            }
        }
        let me = NodeId(u64::from(self.node.id.unsigned_abs()) + 1);
        let raft = RaftHost::open_importing(
            directory,
            &self.storage,
            me,
            RaftConfig::default(),
            machines,
            &[me],
            imports,
        )
        .await?;
        *self.raft.borrow_mut() = Some(Rc::new(raft));
        self.tell_all_changes();
        self.raft().on_apply(|applied| super::here().applied(applied));
        Ok(())
    }

    /// What replaying the logs has changed, all of it.
    fn tell_all_changes(&self) {
        let mut changes = Vec::new();
        if let Some(cluster) = &*self.cluster.borrow() {
            changes.append(&mut cluster.borrow_mut().take_changes());
            changes.push(ImageChange::Controller(Some(self.node.id)));
        }
        for state in self.states.borrow().values() {
            changes.append(&mut state.borrow_mut().take_changes());
        }
        self.tell_builder(changes);
    }

    /// Finishes deletions that a crash has cut short: topics that the cluster group does not have any more lose their
    /// directories, then the shard groups let go of them. `image` is complete.
    pub async fn drop_strangers(&self, image: Arc<MetadataImage>) -> Result<(), StartError> {
        let mut strangers: Vec<(GroupId, Uuid)> = Vec::new();
        for (group, state) in self.states.borrow().iter() {
            let gone = state.borrow().topics().filter(|id| image.topic(*id).is_none()).collect::<Vec<_>>();
            strangers.extend(gone.into_iter().map(|id| (*group, id)));
        }
        if strangers.is_empty() {
            return Ok(());
        }
        let is_gone = |topic_id, partition| {
            let topic_id = Uuid::from_bytes(topic_id);
            self.node.owner(topic_id, partition) == self.core
                && strangers.iter().any(|(_, id)| *id == topic_id)
        };
        for dir in self.dirs().iter().filter(|dir| dir.log_dir.failure().is_none()) {
            // What cannot be removed now goes when the directory is back.
            if let Err(error) = heizer_storage::remove_logs(dir.log_dir.path(), is_gone).await {
                tracing::warn!(%error, "the logs of a deleted topic could not be removed");
                dir.log_dir.note(&error);
            }
        }
        for (group, topic_id) in strangers {
            let command = ShardCommand::Remove { topic_id };
            self.raft().propose(group, command.encode()).await.map_err(ControlError::from)?;
        }
        Ok(())
    }

    /// Opens every partition that this core's groups govern, those first that were written to last.
    pub async fn open_partitions(self: &Rc<Self>) -> StartReport {
        let image = self.image();
        let mut report = StartReport::default();
        let mut wanted = Vec::new();
        for topic in image.topics() {
            // Some are open already, where a crash had left a topic half made.
            for index in self.indexes_here(&topic.record) {
                if !self.is_settled(topic.record.id, index)
                    && let Some(place) = self.planned(topic.record.id, index)
                {
                    wanted.push((topic.record.clone(), index, place));
                }
            }
        }
        let total = wanted.len();
        wanted.sort_by_cached_key(|(record, index, place)| {
            let Place::In(at) = place else { return std::cmp::Reverse(0) };
            std::cmp::Reverse(self.dir(*at).log_dir.recency(*record.id.as_bytes(), *index))
        });
        let dirs = self.dirs();
        dirs.iter().for_each(|dir| dir.log_dir.begin_recovery());
        let mut wanted = wanted.into_iter();
        let mut opening = FuturesUnordered::new();
        let mut told = time::now();
        loop {
            while opening.len() < LOGS_AT_ONCE
                && let Some((record, index, place)) = wanted.next()
            {
                opening.push(self.clone().open_partition(record, index, place, None));
            }
            let Some(opened) = opening.next().await else { break };
            report.partitions += opened.partitions;
            report.offline += opened.offline;
            report.scanned_bytes += opened.scanned_bytes;
            report.cut += opened.cut;
            if time::now() - told > Duration::from_secs(1) {
                told = time::now();
                tracing::info!(core = self.core.0, opened = report.partitions, total, "opening partitions");
            }
        }
        for dir in &dirs {
            dir.log_dir.end_recovery().await;
        }
        report
    }

    /// Whether a partition is open, or known to be offline.
    fn is_settled(&self, topic_id: Uuid, index: i32) -> bool {
        self.partitions.borrow().contains_key(&(topic_id, index))
            || self.offline_reason(topic_id, index).is_some()
    }

    /// After an unclean stop: a new leader epoch for every partition here, committed before the first append, so that
    /// what a lost end held can be told from what takes its place (contract R7).
    pub async fn bump_leader_epochs(&self) -> Result<(), StartError> {
        let mut by_group: HashMap<GroupId, Vec<(Uuid, i32)>> = HashMap::default();
        for (group, state) in self.states.borrow().iter() {
            let partitions: Vec<_> = state.borrow().partitions().map(|(id, index, _)| (id, index)).collect();
            if !partitions.is_empty() {
                by_group.insert(*group, partitions);
            }
        }
        let raft = self.raft();
        let proposals = by_group.into_iter().map(|(group, partitions)| {
            raft.propose(group, ShardCommand::BumpLeaderEpoch { partitions }.encode())
        });
        futures::future::try_join_all(proposals).await.map_err(ControlError::from)?;
        Ok(())
    }

    /// Opens partitions of a topic that have just been adopted here, each in its place.
    pub(super) async fn open_partitions_of(self: &Rc<Self>, record: &TopicRecord, places: Vec<(i32, Place)>) {
        let record = Arc::new(record.clone());
        let mut opening = FuturesUnordered::new();
        for (index, place) in places {
            if !self.is_settled(record.id, index) {
                let unclean = Some(OpenMode::Unclean);
                opening.push(self.clone().open_partition(record.clone(), index, place, unclean));
            }
        }
        while opening.next().await.is_some() {}
    }

    /// The partitions of a topic that live on this core.
    fn indexes_here(&self, record: &TopicRecord) -> Vec<i32> {
        let all = 0..record.replicas.len() as i32;
        all.filter(|index| self.node.owner(record.id, *index) == self.core).collect()
    }

    /// Opens a partition's log, in its directory's mode unless another one is given. A log that cannot be opened takes
    /// down its partition and no other.
    async fn open_partition(
        self: Rc<Self>,
        record: Arc<TopicRecord>,
        index: i32,
        place: Place,
        mode: Option<OpenMode>,
    ) -> StartReport {
        let at = match place {
            Place::In(at) => at,
            Place::Offline(reason) => {
                tracing::error!(topic = &*record.name, partition = index, %reason, "a partition is offline");
                self.set_offline(record.id, index, reason);
                return StartReport { offline: 1, ..StartReport::default() };
            }
        };
        let dir = self.dir(at);
        let mode = mode.unwrap_or(dir.mode);
        let mut opened = self.open_log(&dir, &record, index, mode).await;
        if opened.is_err() && self.remove_left_over(&dir, &record, index).await {
            if let Some(reason) = self.missing_dirs() {
                let missing = Place::Offline(reason);
                return Box::pin(self.open_partition(record, index, missing, Some(mode))).await;
            }
            opened = self.open_log(&dir, &record, index, mode).await;
        }
        // A failed directory has had its line.
        let reason = match (opened, dir.log_dir.failure()) {
            (Ok((log, found)), None) => {
                self.take_partition(&record, index, log);
                let cut = usize::from(found.cut.is_some());
                return StartReport { partitions: 1, scanned_bytes: found.scanned_bytes, cut, offline: 0 };
            }
            (_, Some(reason)) => reason,
            (Err(error), None) => {
                dir.log_dir.note(&error);
                if dir.log_dir.failure().is_none() {
                    let topic = &*record.name;
                    tracing::error!(topic, partition = index, %error, "a log cannot be opened: its partition is offline");
                }
                error.to_string().into()
            }
        };
        self.set_offline(record.id, index, reason);
        StartReport { offline: 1, ..StartReport::default() }
    }

    /// Where the log of a topic of the same name stands in the way, which was deleted while its directory was away,
    /// removes it. Whether it did.
    async fn remove_left_over(&self, dir: &ShardDir, record: &TopicRecord, index: i32) -> bool {
        let (path, name) = (dir.log_dir.path(), partition_directory(&record.name, index));
        let Ok(Some(id)) = heizer_storage::topic_id_of(path, &name).await else { return false };
        let id = Uuid::from_bytes(id);
        if !dir.was_known || id == record.id || self.image().topic(id).is_some() {
            return false;
        }
        tracing::info!(directory = %path.display(), log = name, "removing a log whose topic was deleted");
        match heizer_storage::remove_log(path, &name).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the log of a deleted topic could not be removed");
                dir.log_dir.note(&error);
                false
            }
        }
    }

    async fn open_log(
        &self,
        dir: &ShardDir,
        record: &TopicRecord,
        index: i32,
        mode: OpenMode,
    ) -> Result<(Rc<Log>, RecoveryReport), StorageError> {
        let name = partition_directory(&record.name, index);
        let config = self.typed(&record.configs, &record.name).log_config();
        let topic_id = *record.id.as_bytes();
        Log::open(&dir.log_dir, &name, topic_id, config, mode).await
    }

    fn take_partition(&self, record: &TopicRecord, index: i32, log: Rc<Log>) {
        let epoch = self
            .states
            .borrow()
            .get(&self.node.layout.group_of_partition(record.id, index).raft_group())
            .and_then(|state| state.borrow().partition(record.id, index).map(|state| state.leader_epoch))
            .unwrap_or(0);
        let name = ByteString::from(&*record.name);
        let counters = self.metrics.topics.of(record.id);
        let partition = Partition::new(record.id, name, index, log, epoch, counters, Rc::new(wake));
        // They may have changed while the log was opened.
        if let Some(topic) = self.image().topic(record.id) {
            partition.set_config(self.topic_config(topic).log_config());
        }
        self.partitions.borrow_mut().insert((record.id, index), partition.clone());
        if &*record.name == OFFSETS_TOPIC {
            self.groups.open(partition);
        }
    }

    /// Starts what runs beside requests: timers of groups, retention, compaction, housekeeping.
    pub fn start_background(self: &Rc<Self>) {
        task::spawn(self.groups.clone().keep_time());
        task::spawn(self.clone().keep_house());
        for dir in self.dirs() {
            self.watch_space(&dir.log_dir);
        }
        task::spawn(self.clone().watch_raft());
        self.ready.set(true);
        task::spawn(self.clone().keep_clean());
    }

    /// No more requests are taken for good: `is_ready` is false from here.
    pub fn stop_serving(&self) {
        self.ready.set(false);
        self.groups.close_all();
        for partition in self.partitions() {
            partition.free_waiters();
            if let Some(moving) = partition.relocation() {
                moving.cancel();
            }
        }
    }

    /// Seals every log and stops raft.
    pub async fn close(&self) -> CloseReport {
        let partitions: Vec<Rc<Partition>> =
            self.partitions.borrow_mut().drain().map(|(_, partition)| partition).collect();
        let mut partitions = partitions.into_iter();
        let mut closing = FuturesUnordered::new();
        let mut report = CloseReport::default();
        let dirs = self.dirs();
        loop {
            while closing.len() < LOGS_AT_ONCE
                && let Some(partition) = partitions.next()
            {
                closing.push(async move {
                    partition.stop_relocation().await;
                    let log = partition.log();
                    log.close().await.map_err(|error| (log, error))
                });
            }
            match closing.next().await {
                None => break,
                Some(Ok(())) => {}
                Some(Err((log, error))) => {
                    report
                        .badly_closed
                        .extend(dirs.iter().position(|dir| Rc::ptr_eq(&dir.log_dir, log.home())));
                    tracing::warn!(%error, "a log was not closed in good order");
                }
            }
        }
        for (at, dir) in dirs.iter().enumerate().filter(|(_, dir)| dir.log_dir.failure().is_none()) {
            if let Err(error) = dir.log_dir.close_checkpoints().await {
                report.badly_closed.push(at);
                tracing::warn!(%error, "the checkpoint log was not closed in good order");
            }
        }
        let raft = self.raft.borrow_mut().take();
        if let Some(raft) = raft {
            raft.shutdown().await;
            report.raft_failed = raft.has_failed();
        }
        report
    }

    /// Adopts what a crash has left between the cluster group and the shard groups, new topics and new partitions of
    /// others; on the cluster core. The number of topics concerned.
    pub async fn finish_adoptions(&self) -> Result<usize, StartError> {
        let image = self.builder.borrow().image();
        let mut finished = 0;
        for topic in image.topics().filter(|topic| !topic.is_complete()) {
            let states = (0..).zip(&topic.partitions);
            let missing = states.filter(|(_, state)| state.is_none()).map(|(index, _)| index).collect();
            self.adopt_everywhere(topic.record.clone(), missing).await?;
            finished += 1;
        }
        Ok(finished)
    }

    /// The image that its writer has now; on the cluster core.
    pub fn built_image(&self) -> Arc<MetadataImage> {
        self.builder.borrow().image()
    }
}

/// The directory of a partition's files in its data directory: Kafka's own naming.
fn partition_directory(topic: &str, index: i32) -> String {
    format!("{topic}-{index}")
}
