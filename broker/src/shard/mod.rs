//! One core's room: the partitions it owns, the raft groups that govern them, the coordinators on top, and the fetches
//! of its connections. Everything here runs on that core; other cores reach it by messages to [`Shard`], their room.

mod cleaning;
mod control;
mod deleting;
mod dirs;
mod figures;
mod groups;
mod lifecycle;
mod moving;
mod producer_ids;
mod settings;
mod space;
mod waits;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytestring::ByteString;
use futures::lock::Mutex;
use heizer_raft::{GroupId, RaftHost};
use heizer_runtime::collections::HashMap;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::sync::Event;
use heizer_storage::{CopyBudget, StorageContext};
use uuid::Uuid;

use crate::config::{BrokerConfig, TopicConfig};
use crate::error::PartitionError;
use crate::fetch_budget::FetchBudget;
use crate::fetch_session::FetchSessions;
use crate::metadata::{ClusterState, Configs, ImageBuilder, Layout, MetadataImage, ShardState, TopicImage};
use crate::metrics::CoreMetrics;
use crate::partition::Partition;

pub use control::{ControlError, TopicPlan};
pub use dirs::ShardDir;
pub use groups::{CodeOf, GroupRequest, Groups};
pub use lifecycle::{CloseReport, StartError, StartReport};
pub use moving::Replica;
pub use settings::{AlterConfig, ConfigTarget};
pub use waits::{Wait, Watched};

/// The topic that group coordinators keep their state in.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What all cores of a broker know from its start on.
#[derive(Debug)]
pub struct Node {
    /// `node.id`.
    pub id: i32,
    /// The data directories, in the order of `log.dirs`.
    pub dirs: Vec<NodeDir>,
    /// The one of them that holds the metadata.
    pub metadata_dir: usize,
    /// The settings that the broker was started with: see [`Shard::config`] for those in force.
    pub config: BrokerConfig,
    /// Which core governs which group.
    pub layout: Layout,
}

/// A data directory as it was when the process began.
#[derive(Clone, Debug)]
pub struct NodeDir {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Why it cannot be used, if it cannot.
    pub failure: Option<String>,
}

impl Node {
    /// The broker that `config` describes, on so many cores; `failures` has the reasons why directories cannot be used.
    pub fn new(config: BrokerConfig, cores: u16, failures: Vec<Option<String>>) -> Node {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let dirs = config.log_dirs.iter().map(absolute).zip(failures);
        Node {
            id: config.node_id,
            dirs: dirs.map(|(path, failure)| NodeDir { path, failure }).collect(),
            metadata_dir: config.metadata_log_dir,
            layout: Layout::compute(config.raft_groups, cores),
            config,
        }
    }

    /// Where the metadata is kept.
    pub fn metadata_path(&self) -> &Path {
        &self.dirs[self.metadata_dir].path
    }

    /// The core that owns a partition.
    pub fn owner(&self, topic_id: Uuid, partition: i32) -> CoreId {
        CoreId(self.layout.core_of_partition(topic_id, partition))
    }

    /// The core of the cluster group.
    pub fn cluster_core(&self) -> CoreId {
        CoreId(self.layout.cluster_core())
    }
}

/// One core's room.
pub struct Shard {
    core: CoreId,
    node: Arc<Node>,
    image: RefCell<Arc<MetadataImage>>,
    partitions: RefCell<HashMap<(Uuid, i32), Rc<Partition>>>,
    /// Typed settings of topics, as long as their configs are the same.
    topic_configs: RefCell<HashMap<Uuid, (Configs, Rc<TopicConfig>)>>,
    raft: RefCell<Option<Rc<RaftHost>>>,
    states: RefCell<HashMap<GroupId, Rc<RefCell<ShardState>>>>,
    /// On the cluster core alone.
    cluster: RefCell<Option<Rc<RefCell<ClusterState>>>>,
    /// On the cluster core alone: the single writer of the image.
    builder: RefCell<ImageBuilder>,
    storage: Rc<StorageContext>,
    dirs: dirs::Dirs,
    /// What copies of partitions may write; held by the one that is being made.
    move_budget: Mutex<CopyBudget>,
    refusals: RefCell<space::Refusals>,
    deletions: deleting::Deletions,
    settings: settings::Settings,
    waits: waits::Waits,
    producer_ids: producer_ids::ProducerIds,
    ready: Cell<bool>,
    /// The broker has stopped, and this core may.
    ended: Cell<bool>,
    end: Event,
    /// The group coordinators of this core.
    pub groups: Rc<Groups>,
    /// The fetch sessions of this core's connections.
    pub sessions: RefCell<FetchSessions>,
    /// What answers to fetches may hold.
    pub fetch_budget: Rc<FetchBudget>,
    /// What this core counts.
    pub metrics: Rc<CoreMetrics>,
}

impl Shard {
    /// Which core this is.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The broker.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What exists, as of now.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// What the logs of this core share.
    pub fn storage(&self) -> &Rc<StorageContext> {
        &self.storage
    }

    /// Whether the broker serves clients.
    pub fn is_ready(&self) -> bool {
        self.ready.get()
    }

    /// A partition of this core.
    pub fn partition(&self, topic_id: Uuid, partition: i32) -> Result<Rc<Partition>, PartitionError> {
        if let Some(reason) = self.offline_reason(topic_id, partition) {
            return Err(PartitionError::Offline { reason });
        }
        match self.partitions.borrow().get(&(topic_id, partition)) {
            Some(partition) => Ok(partition.clone()),
            // Placement is checked again at the owner: the topic may be gone, or about to be opened.
            None => match self.image.borrow().topic(topic_id) {
                Some(topic) if usize::try_from(partition).is_ok_and(|at| at < topic.partitions.len()) => {
                    Err(PartitionError::NotLeader)
                }
                _ => Err(PartitionError::Unknown),
            },
        }
    }

    /// Every partition of this core.
    pub fn partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// How many fetches of this core's connections wait for news.
    pub fn waiting_fetches(&self) -> usize {
        self.waits.len()
    }

    /// A topic's settings, typed. What the image holds was checked when it was set.
    pub fn topic_config(&self, topic: &TopicImage) -> Rc<TopicConfig> {
        let configs = &topic.record.configs;
        if let Some((known, typed)) = self.topic_configs.borrow().get(&topic.record.id)
            && Arc::ptr_eq(known, configs)
        {
            return typed.clone();
        }
        let typed = Rc::new(self.typed(configs, &topic.record.name));
        self.topic_configs.borrow_mut().insert(topic.record.id, (configs.clone(), typed.clone()));
        typed
    }

    fn typed(&self, configs: &Configs, name: &str) -> TopicConfig {
        let pairs = configs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let (config, refused) = TopicConfig::effective(&self.config(), pairs);
        for error in refused {
            // Another version of the broker accepted it: the topic is served by the default.
            tracing::warn!(topic = name, %error, "a setting of a topic is left out");
        }
        config
    }

    /// Resolves when the broker has stopped.
    pub async fn ended(&self) {
        loop {
            let ended = self.end.listen();
            if self.ended.get() {
                return;
            }
            ended.await;
        }
    }

    /// The broker has stopped.
    pub fn end(&self) {
        self.ended.set(true);
        self.end.notify_all();
    }

    /// A random (version 4) uuid's bytes.
    pub fn random_uuid(&self) -> [u8; 16] {
        control::random_uuid()
    }

    fn raft(&self) -> Rc<RaftHost> {
        self.raft.borrow().clone().expect("raft is opened before anything else")
    }

    /// Swaps in a newer image, and puts in force what it says of settings; topics that are gone lose their typed ones.
    fn set_image(&self, image: Arc<MetadataImage>) {
        if image.version() < self.image.borrow().version() {
            return;
        }
        self.topic_configs.borrow_mut().retain(|id, _| image.topic(*id).is_some());
        let before = self.image.replace(image.clone());
        self.follow_settings(&before, &image);
    }
}

/// The owner cores of partitions, each once, with the positions of its items: one message a core.
pub fn by_owner(owners: impl Iterator<Item = CoreId>) -> Vec<(CoreId, Vec<usize>)> {
    let mut grouped: Vec<(CoreId, Vec<usize>)> = Vec::new();
    for (at, owner) in owners.enumerate() {
        match grouped.iter_mut().find(|(core, _)| *core == owner) {
            Some((_, places)) => places.push(at),
            None => grouped.push((owner, vec![at])),
        }
    }
    grouped
}

/// The name of a topic as messages carry it.
pub fn wire_name(topic: &TopicImage) -> ByteString {
    ByteString::from(&*topic.record.name)
}

/// This core's room.
pub fn here() -> Rc<Shard> {
    cores::room::<Shard>()
}
