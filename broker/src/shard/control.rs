//! The control plane: topics come and go through the cluster group, their partitions through the shard groups, and
//! the image tells every core. Runs on the cluster core unless it says otherwise.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::try_join_all;
use heizer_raft::{Applied, GroupId, ProposeError};
use heizer_runtime::cores::{self, CoreGone, CoreId};
use heizer_runtime::random;
use heizer_storage::StorageError;
use uuid::Uuid;

use super::{OFFSETS_TOPIC, Shard, here};
use crate::config::AlterError;
use crate::data_dir::Place;
use crate::metadata::{
    CLUSTER_GROUP, ClusterCommand, ClusterError, ClusterOutcome, Growth, GrowthError, ImageChange,
    MetadataImage, NewTopic, PARTITIONS_PER_TOPIC_MAX, PartitionAssignment, ShardCommand, TopicRecord,
    assign_replicas,
};

/// Why the control plane did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The cluster's state refused.
    #[error(transparent)]
    Rejected(#[from] ClusterError),
    /// Raft did not commit it.
    #[error(transparent)]
    Raft(#[from] ProposeError),
    /// A core did not answer.
    #[error(transparent)]
    CoreGone(#[from] CoreGone),
    /// A partition's files could not be made or removed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// More replicas were asked for than there are brokers.
    #[error("replication factor {factor} is larger than the number of brokers, {brokers}")]
    TooFewBrokers {
        /// Replicas asked for.
        factor: i16,
        /// Brokers there are.
        brokers: usize,
    },
    /// No topic of this name.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The name.
        topic: String,
    },
    /// A topic does not grow so.
    #[error(transparent)]
    Growth(#[from] GrowthError),
    /// Settings cannot be altered so.
    #[error(transparent)]
    Settings(#[from] AlterError),
    /// A state machine answered something else than was asked.
    #[error("an answer that does not fit {0}")]
    Unexpected(&'static str),
}

/// A topic to be created, its numbers resolved and its configs checked.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each.
    pub replication_factor: i16,
    /// Replicas named by the client, instead of the two numbers.
    pub assignments: Option<Vec<Vec<i32>>>,
    /// What differs from the defaults.
    pub configs: Vec<(String, String)>,
}

impl Shard {
    /// Has the cluster group decide; on the cluster core.
    pub async fn propose_cluster(&self, command: ClusterCommand) -> Result<ClusterOutcome, ControlError> {
        let (_, result) = self.raft().propose(CLUSTER_GROUP, command.encode()).await?;
        match ClusterOutcome::decode(&result) {
            Ok(ClusterOutcome::Rejected(error)) => Err(error.into()),
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(ControlError::Unexpected("a cluster command")),
        }
    }

    /// Creates a topic and resolves to its id when every core knows it and every partition is open.
    pub async fn create_topic(&self, plan: TopicPlan, validate_only: bool) -> Result<Uuid, ControlError> {
        if plan.partitions as usize > PARTITIONS_PER_TOPIC_MAX {
            // Before anything is made in proportion to the number.
            return Err(ClusterError::InvalidPartitions.into());
        }
        let topic = self.new_topic(plan)?;
        // What is refused now is not worth an entry in the log; what passes is judged again when it is applied.
        self.cluster_state().borrow().check_create(&topic)?;
        if validate_only {
            return Ok(Uuid::nil());
        }
        let (id, partitions) = (topic.id, topic.replicas.len() as i32);
        self.propose_cluster(ClusterCommand::CreateTopic(topic)).await?;
        self.adopt_new(id, 0..partitions).await?;
        self.share_image().await?;
        Ok(id)
    }

    /// Adds partitions to a topic and resolves when every core knows them and every one is open.
    pub async fn grow_topic(&self, growth: Growth, validate_only: bool) -> Result<(), ControlError> {
        // What is refused now is not worth an entry in the log; what passes is judged again when it is applied.
        let before = self.cluster_state().borrow().check_growth(&growth)?;
        if *growth.topic == *OFFSETS_TOPIC {
            return Err(GrowthError::Fixed { topic: growth.topic }.into());
        }
        let (first, total) = (before.replicas.len() as u32, growth.total.unsigned_abs());
        let replicas = match growth.assignments {
            Some(assignments) => assignments,
            None => self.assign(first, total - first, before.replicas[0].len() as i16)?,
        };
        if validate_only {
            return Ok(());
        }
        let id = before.id;
        match self.propose_cluster(ClusterCommand::CreatePartitions { id, total, replicas }).await {
            Err(ControlError::Rejected(ClusterError::UnknownTopicId)) => {
                return Err(ControlError::UnknownTopic { topic: growth.topic });
            }
            // Somebody else was faster: it has grown, or what is to be added is another number by now.
            Err(ControlError::Rejected(error)) => {
                let now = Growth { topic: growth.topic, total: growth.total, assignments: None };
                self.cluster_state().borrow().check_growth(&now)?;
                return Err(error.into());
            }
            outcome => outcome?,
        };
        self.adopt_new(id, first as i32..growth.total).await?;
        self.share_image().await
    }

    /// Replicas of `count` partitions from `first` on, over all brokers.
    fn assign(&self, first: u32, count: u32, factor: i16) -> Result<Vec<Vec<i32>>, ControlError> {
        let brokers: Vec<i32> = self.cluster_state().borrow().brokers().map(|b| b.id).collect();
        let replicas = u16::try_from(factor).unwrap_or(0);
        assign_replicas(&brokers, first, count, replicas, random::u64())
            .ok_or(ControlError::TooFewBrokers { factor, brokers: brokers.len() })
    }

    /// Has partitions that were just added to a topic taken over and opened. Nobody else opens them meanwhile.
    async fn adopt_new(&self, id: Uuid, partitions: Range<i32>) -> Result<(), ControlError> {
        let record = self.cluster_state().borrow().topic(id).cloned();
        // Deleted again in the same breath: that is somebody else's wish.
        let Some(record) = record else { return Ok(()) };
        let name = record.name.clone();
        self.adopt_everywhere(record, partitions.collect()).await?;
        let is_gone = self.cluster_state().borrow().topic(id).is_none();
        if is_gone {
            // Deleted meanwhile: what was opened behind the deletion goes as well.
            self.drop_everywhere(id, name).await?;
        }
        Ok(())
    }

    fn new_topic(&self, plan: TopicPlan) -> Result<NewTopic, ControlError> {
        let replicas = match plan.assignments {
            Some(assignments) => assignments,
            None => self.assign(0, plan.partitions, plan.replication_factor)?,
        };
        let id = Uuid::from_bytes(random_uuid());
        Ok(NewTopic { name: plan.name, id, replicas, configs: plan.configs })
    }

    /// Deletes a topic; resolves when no core knows it any more and its files are gone.
    pub async fn delete_topic(&self, id: Uuid) -> Result<(), ControlError> {
        let record = self.cluster_state().borrow().topic(id).cloned();
        self.propose_cluster(ClusterCommand::DeleteTopic { id }).await?;
        self.share_image().await?;
        self.drop_everywhere(id, record.map_or_else(|| Arc::from(""), |record| record.name.clone())).await
    }

    /// Has every core let go of a topic's partitions, and remove their files.
    async fn drop_everywhere(&self, id: Uuid, name: Arc<str>) -> Result<(), ControlError> {
        let dropped = cores::call_all(move || {
            let name = name.clone();
            async move { here().drop_topic(id, &name).await }
        });
        dropped.await?.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }

    /// Has the shard groups on every core take over these partitions of a topic, and opens them. Idempotent.
    pub(super) async fn adopt_everywhere(
        &self,
        record: Arc<TopicRecord>,
        partitions: Vec<i32>,
    ) -> Result<(), ControlError> {
        let mut by_core: BTreeMap<CoreId, Vec<(i32, Place)>> = BTreeMap::new();
        for (partition, place) in self.places(record.id, &partitions).await {
            by_core.entry(self.node.owner(record.id, partition)).or_default().push((partition, place));
        }
        let calls = by_core.into_iter().map(|(core, places)| {
            let record = record.clone();
            async move { cores::call(core, move || async move { here().adopt(&record, places).await }).await? }
        });
        try_join_all(calls).await?;
        Ok(())
    }

    /// On an owner core: its shard groups take over partitions of a topic, then the logs are opened, each in its place.
    async fn adopt(
        self: &Rc<Self>,
        record: &TopicRecord,
        places: Vec<(i32, Place)>,
    ) -> Result<(), ControlError> {
        let mut by_group: BTreeMap<GroupId, Vec<PartitionAssignment>> = BTreeMap::new();
        for (partition, _) in &places {
            let group = self.node.layout.group_of_partition(record.id, *partition).raft_group();
            let (partition, replicas) = (*partition, record.replicas[*partition as usize].to_vec());
            by_group.entry(group).or_default().push(PartitionAssignment { partition, replicas });
        }
        let raft = self.raft();
        let proposals = by_group.into_iter().map(|(group, partitions)| {
            let command = ShardCommand::Adopt { topic_id: record.id, partitions };
            raft.propose(group, command.encode())
        });
        try_join_all(proposals).await?;
        self.open_partitions_of(record, places).await;
        Ok(())
    }

    /// On every core: closes a topic's partitions, removes their files and has the shard groups let go.
    async fn drop_topic(self: &Rc<Self>, id: Uuid, name: &str) -> Result<(), ControlError> {
        let gone: Vec<_> = self.partitions().into_iter().filter(|p| p.topic_id() == id).collect();
        for partition in &gone {
            self.partitions.borrow_mut().remove(&(id, partition.index()));
            if &**partition.topic() == super::OFFSETS_TOPIC {
                self.groups.close(partition.index());
            }
            partition.free_waiters();
        }
        for partition in &gone {
            partition.stop_relocation().await;
            let log = partition.log();
            if let Err(error) = log.delete().await {
                tracing::warn!(%error, "the files of a deleted partition stay until the next start");
                log.home().note(&error);
            }
        }
        if self.forget_offline(id) {
            self.remove_files_of(id).await;
        }
        let groups: Vec<GroupId> = self
            .states
            .borrow()
            .iter()
            .filter(|(_, state)| state.borrow().topics().any(|topic| topic == id))
            .map(|(group, _)| *group)
            .collect();
        let raft = self.raft();
        let command = ShardCommand::Remove { topic_id: id }.encode();
        try_join_all(groups.into_iter().map(|group| raft.propose(group, command.clone()))).await?;
        self.groups.topic_deleted(name);
        self.metrics.topics.forget(id);
        Ok(())
    }

    /// Removes what partitions of a topic that could not be opened have in the directories that answer; the others are
    /// cleaned when they are back.
    async fn remove_files_of(&self, id: Uuid) {
        let is_gone =
            |topic_id, partition| topic_id == *id.as_bytes() && self.node.owner(id, partition) == self.core;
        for dir in self.dirs().iter().filter(|dir| dir.log_dir.failure().is_none()) {
            if let Err(error) = heizer_storage::remove_logs(dir.log_dir.path(), is_gone).await {
                tracing::warn!(%error, "the files of a deleted partition stay until the next start");
                dir.log_dir.note(&error);
            }
        }
    }

    pub(super) fn cluster_state(&self) -> Rc<std::cell::RefCell<crate::metadata::ClusterState>> {
        self.cluster.borrow().clone().expect("called on the cluster core")
    }

    /// After every applied command: what it changed goes to the image's writer, in order.
    pub(super) fn applied(&self, applied: &Applied) {
        let (Applied::Command { group, .. } | Applied::Restored { group, .. }) = applied;
        let changes = if *group == CLUSTER_GROUP {
            self.cluster_state().borrow_mut().take_changes()
        } else {
            match self.states.borrow().get(group) {
                Some(state) => state.borrow_mut().take_changes(),
                None => return,
            }
        };
        self.tell_builder(changes);
    }

    pub(super) fn tell_builder(&self, changes: Vec<ImageChange>) {
        if changes.is_empty() {
            return;
        }
        cores::cast(self.node.cluster_core(), move || {
            let shard = here();
            let image = shard.builder.borrow_mut().apply(changes);
            publish(&image);
        });
    }

    /// Resolves when every core has the image as it is now; on the cluster core. Changes that other cores sent
    /// before their answers are in it.
    pub async fn share_image(&self) -> Result<(), ControlError> {
        let image = self.builder.borrow().image();
        cores::call_all(move || {
            let image = image.clone();
            async move { here().set_image(image) }
        })
        .await?;
        Ok(())
    }
}

/// Sends the image to every core.
fn publish(image: &Arc<MetadataImage>) {
    for core in cores::all() {
        let image = image.clone();
        cores::cast(core, move || {
            if let Some(shard) = cores::try_room::<Shard>() {
                shard.set_image(image);
            }
        });
    }
}

/// A random (version 4) uuid's bytes.
pub(super) fn random_uuid() -> [u8; 16] {
    let mut bytes = random::bytes::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
