//! What a core tells of itself when it is asked for metrics. Looking things up gives way to whatever else the core does.

use heizer_runtime::buf::{KEPT_BYTES_MAX, kept_bytes};
use heizer_runtime::task::Pacer;
use heizer_runtime::{fs, load};
use heizer_server::{MemoryBudget, ServerMetrics};

use super::Shard;
use crate::coordinator::group::ClassicState;
use crate::metrics::{
    Bounds, CoreFigures, GroupFigures, Holdings, PartitionFigures, Pool, PoolFigures, TopicCounts,
    TopicFigures,
};
use crate::partition::Partition;

/// Percent of the core that looking things up may take.
const SHARE: u32 = 50;
/// Groups with longer ids are not shown by name.
const GROUP_BYTES_MAX: usize = 255;

impl Shard {
    /// What can be told at once. Without a listener, while the broker starts or stops, its figures are missing.
    pub fn figures(&self, server: &ServerMetrics, requests: Option<&MemoryBudget>) -> CoreFigures {
        let metrics = &self.metrics;
        metrics.fetches_waiting.set(self.waiting_fetches() as u64);
        metrics.partitions_offline.set(self.offline_partitions() as u64);
        metrics.segments_damaged.set(self.storage.damaged_segments());
        metrics.log_dirs_offline.set(self.offline_dirs() as u64);
        CoreFigures {
            counted: metrics.snapshot(server),
            load: load::load(),
            file_operations: fs::operations_under_way(),
            pools: Pool::ALL.map(|pool| self.pool(pool, requests)),
            raft: self.raft.borrow().as_ref().map(|raft| raft.figures()),
        }
    }

    fn pool(&self, pool: Pool, requests: Option<&MemoryBudget>) -> PoolFigures {
        let limits = self.storage.limits();
        let held = |used: usize, limit: usize| PoolFigures {
            used: used as u64,
            limit: limit as u64,
            ..PoolFigures::default()
        };
        match pool {
            Pool::Requests => requests.map_or_else(PoolFigures::default, |budget| PoolFigures {
                waiting: budget.waiting() as u64,
                waits: budget.waits(),
                ..held(budget.used(), budget.total())
            }),
            Pool::Fetches => PoolFigures {
                waiting: self.fetch_budget.waiting() as u64,
                waits: self.fetch_budget.waits(),
                ..held(self.fetch_budget.used(), self.fetch_budget.total())
            },
            Pool::Tails => held(self.storage.tail_cache_bytes(), limits.tail_cache_max),
            Pool::Indexes => held(self.storage.index_cache_bytes(), limits.index_cache_max),
            Pool::Kept => held(kept_bytes(), KEPT_BYTES_MAX),
        }
    }

    /// What has to be looked up.
    pub async fn holdings(&self, bounds: Bounds) -> Holdings {
        let mut pacer = Pacer::new(SHARE);
        let dirs = self.log_dir_figures().await;
        let topics = self.topic_figures(&mut pacer).await;
        let holdings = Holdings { dirs, topics, ..Holdings::default() };
        self.add_groups(holdings, bounds, &mut pacer).await
    }

    /// Topics that have something on this core, or for which something was counted here.
    async fn topic_figures(&self, pacer: &mut Pacer) -> Vec<TopicFigures> {
        let image = self.image();
        let counters = &self.metrics.topics;
        if counters.len() > image.topic_count() {
            counters.retain(|id| image.topic(id).is_some());
        }
        let mut topics = Vec::new();
        for topic in image.topics() {
            let (id, name) = (topic.record.id, topic.record.name.clone());
            let (counts, partitions) = (counters.counts(id), Vec::new());
            let mut figures = TopicFigures { id, name, counts, partitions, offline: 0 };
            for index in 0..topic.partitions.len() as i32 {
                if self.node.owner(id, index) == self.core {
                    self.add_partition(&mut figures, index);
                }
                pacer.checkpoint().await;
            }
            let here = !figures.partitions.is_empty() || figures.offline > 0;
            if here || figures.counts != TopicCounts::default() {
                topics.push(figures);
            }
        }
        topics
    }

    fn add_partition(&self, topic: &mut TopicFigures, index: i32) {
        match self.partitions.borrow().get(&(topic.id, index)) {
            Some(partition) => topic.partitions.push(partition_figures(partition)),
            None if self.offline_reason(topic.id, index).is_some() => topic.offline += 1,
            // About to be opened, or to go.
            None => {}
        }
    }

    /// The groups of this core, a coordinator after the other and by their ids.
    async fn add_groups(&self, mut holdings: Holdings, bounds: Bounds, pacer: &mut Pacer) -> Holdings {
        let mut lags_left = bounds.lags;
        for partition in self.groups.partitions() {
            let mut last = None;
            while let Some(group) = self.groups.summary_after(partition, last.as_ref()) {
                pacer.checkpoint().await;
                last = Some(group.group.clone());
                holdings.group_states[place(group.state)] += 1;
                if holdings.groups.len() >= bounds.groups || group.group.len() > GROUP_BYTES_MAX {
                    continue;
                }
                let committed = (group.committed <= lags_left).then(|| {
                    lags_left -= group.committed;
                    self.groups.committed(partition, &group.group)
                });
                holdings.groups.push(GroupFigures {
                    partition,
                    group: group.group,
                    state: group.state,
                    members: group.members,
                    committed,
                    committed_count: group.committed,
                });
            }
        }
        holdings.coordinators_loading = self.groups.loading() as u64;
        holdings
    }
}

fn place(state: ClassicState) -> usize {
    let place = ClassicState::ALL.iter().position(|other| *other == state);
    place.expect("every state is one of all")
}

fn partition_figures(partition: &Partition) -> PartitionFigures {
    let log = partition.log();
    let sizes = log.sizes();
    PartitionFigures {
        index: partition.index(),
        log_start: log.log_start(),
        log_end: log.log_end(),
        high_watermark: partition.high_watermark(),
        bytes: sizes.bytes,
        segments: sizes.segments as u64,
    }
}
