//! What a core tells of itself when it is asked: plain figures, to be sent to the core that asks.

use std::sync::Arc;

use bytestring::ByteString;
use heizer_raft::HostFigures;
use heizer_runtime::load::CoreLoad;
use heizer_storage::{FlushCounts, WriteQueue};
use uuid::Uuid;

use super::core::CoreSnapshot;
use super::topics::TopicCounts;
use crate::config::BrokerConfig;
use crate::coordinator::group::ClassicState;

/// How much is shown of what there may be any number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `heizer.metrics.topics.max`.
    pub topics: usize,
    /// `heizer.metrics.partitions.max`.
    pub partitions: usize,
    /// `heizer.metrics.groups.max`.
    pub groups: usize,
    /// `heizer.metrics.lags.max`.
    pub lags: usize,
}

impl Bounds {
    /// As the broker's settings say.
    pub fn new(config: &BrokerConfig) -> Bounds {
        Bounds {
            topics: config.metrics_topics_max as usize,
            partitions: config.metrics_partitions_max as usize,
            groups: config.metrics_groups_max as usize,
            lags: config.metrics_lags_max as usize,
        }
    }
}

/// What a core can tell at once.
#[derive(Clone, Debug)]
pub struct CoreFigures {
    /// What it has counted.
    pub counted: CoreSnapshot,
    /// How busy it has been.
    pub load: CoreLoad,
    /// Operations on files under way.
    pub file_operations: usize,
    /// Its memory, in the order of [`Pool::ALL`].
    pub pools: [PoolFigures; Pool::ALL.len()],
    /// Its raft groups; none while the broker starts or stops.
    pub raft: Option<HostFigures>,
}

/// What a core keeps memory for, each within a bound of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Requests on their way in, until they are handled.
    Requests,
    /// Answers to fetches, until they have left.
    Fetches,
    /// The ends of logs, for tail readers and for what is not written yet.
    Tails,
    /// Indexes of sealed segments.
    Indexes,
    /// Freed buffers, for their next users.
    Kept,
}

impl Pool {
    /// Every pool.
    pub const ALL: [Pool; 5] = [Pool::Requests, Pool::Fetches, Pool::Tails, Pool::Indexes, Pool::Kept];

    /// A label for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Pool::Requests => "requests",
            Pool::Fetches => "fetches",
            Pool::Tails => "tails",
            Pool::Indexes => "indexes",
            Pool::Kept => "kept",
        }
    }
}

/// One pool of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are.
    pub limit: u64,
    /// Who waits for some, now.
    pub waiting: u64,
    /// How often somebody had to wait, so far.
    pub waits: u64,
}

/// What a core has to look up: what is on it, and what it sees of the disks.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// The data directories, in the order of `log.dirs`.
    pub dirs: Vec<LogDirFigures>,
    /// Topics with partitions here, or for which something was counted here.
    pub topics: Vec<TopicFigures>,
    /// Groups that are coordinated here, in the order in which they are shown; no more than [`Bounds::groups`].
    pub groups: Vec<GroupFigures>,
    /// All groups here, by their states in the order of [`ClassicState::ALL`].
    pub group_states: [u64; ClassicState::ALL.len()],
    /// Coordinators here that are still reading their logs.
    pub coordinators_loading: u64,
}

/// A data directory, as a core, or all of them, saw it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDirFigures {
    /// Where it is.
    pub dir: String,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Bytes of its file system.
    pub size_bytes: u64,
    /// Bytes that producers leave free.
    pub reserve_bytes: u64,
    /// Whether producers are refused for want of space.
    pub refusing: bool,
    /// Whether it has failed.
    pub offline: bool,
    /// Writes under way and waiting.
    pub writes: WriteQueue,
    /// How writes became durable.
    pub flushes: FlushCounts,
}

impl LogDirFigures {
    /// Takes in what another core sees of the same directory.
    pub(super) fn merge(&mut self, other: &LogDirFigures) {
        self.free_bytes = self.free_bytes.min(other.free_bytes);
        self.size_bytes = self.size_bytes.max(other.size_bytes);
        self.reserve_bytes = self.reserve_bytes.max(other.reserve_bytes);
        self.refusing |= other.refusing;
        self.offline |= other.offline;
        self.writes.under_way += other.writes.under_way;
        self.writes.bytes += other.writes.bytes;
        self.writes.waiting += other.writes.waiting;
        self.flushes.by_file += other.flushes.by_file;
        self.flushes.shared += other.flushes.shared;
        self.flushes.by_nothing += other.flushes.by_nothing;
        self.flushes.device_flushes += other.flushes.device_flushes;
    }
}

/// A core's part of a topic.
#[derive(Clone, Debug)]
pub struct TopicFigures {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// What was counted of it here.
    pub counts: TopicCounts,
    /// Its partitions here that are served.
    pub partitions: Vec<PartitionFigures>,
    /// Its partitions here that are not.
    pub offline: u64,
}

/// A partition that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFigures {
    /// Its number in the topic.
    pub index: i32,
    /// The first offset there is.
    pub log_start: i64,
    /// The offset of the next record.
    pub log_end: i64,
    /// What is committed ends here.
    pub high_watermark: i64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// How many these are.
    pub segments: u64,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    /// The partition of `__consumer_offsets` that it belongs to.
    pub partition: i32,
    /// Its id.
    pub group: ByteString,
    /// Where it stands.
    pub state: ClassicState,
    /// How many members it has.
    pub members: usize,
    /// What it has committed; none where that would have been more than [`Bounds::lags`] together with the groups
    /// before.
    pub committed: Option<Vec<Committed>>,
    /// How many partitions it has committed something for.
    pub committed_count: usize,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The topic's name.
    pub topic: ByteString,
    /// The partition's number.
    pub partition: i32,
    /// The next offset that the group reads.
    pub offset: i64,
}
