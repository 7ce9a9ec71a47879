//! What a core does for its logs in the background: idle memory given back, retention, compaction.
//!
//! One task cleans, a log after the other and always the one that needs it most; another keeps house. Both keep to a
//! share of the core, and neither has anything of its own per partition.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::select;
use heizer_runtime::collections::HashSet;
use heizer_runtime::{cores, task, time};
use heizer_storage::{CompactError, CompactLimits, CompactReport, Pace, Rate, StorageError};
use uuid::Uuid;

use super::Shard;
use crate::config::BrokerConfig;
use crate::metrics::CoreMetrics;
use crate::partition::Partition;

/// How often idle append chunks are given back.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Percent of the core that retention may take.
const RETENTION_SHARE: u32 = 10;
/// Percent of the core that compaction may take.
const COMPACTION_SHARE: u32 = 20;
/// Of a core's memory its offset map takes no more than this part.
const MAP_MEMORY_PART: u64 = 8;

/// What the cleaner remembers from one look at the logs to the next.
struct Cleaner {
    limits: CompactLimits,
    /// Gives way while logs are looked at.
    pacer: task::Pacer,
    /// Logs with a batch that cannot be read, by topic and partition: left alone until the next start.
    uncleanable: HashSet<(Uuid, i32)>,
    /// Logs that had better be left alone for a while.
    later: HashSet<(Uuid, i32)>,
}

impl Cleaner {
    fn new(rate: Rate) -> Cleaner {
        let pace = Pace::new(COMPACTION_SHARE, rate);
        Cleaner {
            limits: CompactLimits { map_bytes: 0, pace },
            pacer: task::Pacer::new(COMPACTION_SHARE),
            uncleanable: HashSet::default(),
            later: HashSet::default(),
        }
    }

    /// Keeps to the settings in force, from the next round on; to their rate at once.
    fn follow(&mut self, config: &BrokerConfig) {
        let dedupe_bytes = config.cleaner_dedupe_buffer_bytes / cores::count().max(1) as u64;
        let map_bytes = dedupe_bytes.min(config.memory_per_core_bytes / MAP_MEMORY_PART);
        self.limits.map_bytes = usize::try_from(map_bytes).unwrap_or(usize::MAX);
    }
}

impl Shard {
    /// Gives idle memory back and applies retention, for ever: in turn, and at once where records were deleted.
    pub(super) async fn keep_house(self: Rc<Self>) {
        let retention_every = self.node.config.retention_check_interval;
        let sweep_every = SWEEP_INTERVAL.min(retention_every);
        let (mut sweep_due, mut retention_due) = (time::now() + sweep_every, time::now() + retention_every);
        loop {
            let rest = sweep_due.saturating_duration_since(time::now());
            if time::timeout(rest, self.deletions.wait()).await.is_ok() {
                self.apply_retention(self.take_deletions()).await;
            }
            if time::now() < sweep_due {
                continue;
            }
            sweep_due = time::now() + sweep_every;
            self.storage.sweep_idle();
            if time::now() >= retention_due {
                retention_due = time::now() + retention_every;
                self.apply_retention(self.partitions()).await;
            }
        }
    }

    /// Deletes what retention lets go of, a partition after the other, within the background's share.
    async fn apply_retention(&self, partitions: Vec<Rc<Partition>>) {
        let mut pacer = task::Pacer::new(RETENTION_SHARE);
        for partition in partitions {
            let log = partition.log();
            log.expire_producers(time::wall_clock_ms());
            match log.apply_retention(time::wall_clock_ms(), partition.high_watermark()).await {
                Ok(0) => {}
                Ok(segments) => {
                    let (topic, index) = (partition.topic(), partition.index());
                    tracing::info!(%topic, partition = index, segments, "deleted old segments");
                }
                // A partition that is going, or one whose failure has been logged where it happened.
                Err(StorageError::Closed { .. } | StorageError::Failed(_)) => {}
                Err(error) => tracing::warn!(%error, "retention could not be applied"),
            }
            pacer.checkpoint().await;
        }
    }

    /// Compacts logs as long as the broker serves (contract L9).
    pub(super) async fn keep_clean(self: Rc<Self>) {
        if !self.node.config.cleaner_enable {
            return;
        }
        let mut cleaner = Cleaner::new(self.settings.cleaner_rate.clone());
        while self.is_ready() {
            let changed = self.settings.changed.listen();
            cleaner.follow(&self.config());
            match self.neediest(&mut cleaner).await {
                Some(partition) => self.clean(&mut cleaner, &partition).await,
                None => {
                    cleaner.later.clear();
                    // Kafka lets it be 0; a look at every log costs something all the same.
                    let backoff = self.config().cleaner_backoff.max(Duration::from_millis(1));
                    select(pin!(time::sleep(backoff)), changed).await;
                }
            }
        }
    }

    /// The log with the highest dirty ratio among those in need of a round.
    async fn neediest(&self, cleaner: &mut Cleaner) -> Option<Rc<Partition>> {
        let partitions = self.partitions();
        cleaner.uncleanable.retain(|key| partitions.iter().any(|partition| of(partition) == *key));
        let mut ratio_max: f64 = 0.0;
        let mut neediest: Option<(f64, Rc<Partition>)> = None;
        for partition in partitions.into_iter().filter(|partition| partition.log().is_compacted()) {
            cleaner.pacer.checkpoint().await;
            if cleaner.uncleanable.contains(&of(&partition)) {
                continue;
            }
            let found = partition.log().cleanable(time::wall_clock_ms(), partition.high_watermark()).await;
            let cleanable = match found {
                Ok(Some(cleanable)) => cleanable,
                Ok(None) => continue,
                Err(error) => {
                    self.cannot_clean(cleaner, &partition, &error.into());
                    continue;
                }
            };
            let ratio = cleanable.ratio();
            ratio_max = ratio_max.max(ratio);
            let better = neediest.as_ref().is_none_or(|(best, _)| ratio > *best);
            if cleanable.wanted && better && !cleaner.later.contains(&of(&partition)) {
                neediest = Some((ratio, partition));
            }
        }
        self.metrics.cleaner_dirty_ratio_max.set(ratio_max);
        self.metrics.cleaner_uncleanable.set(cleaner.uncleanable.len() as u64);
        neediest.map(|(_, partition)| partition)
    }

    async fn clean(&self, cleaner: &mut Cleaner, partition: &Partition) {
        let (started, log) = (time::now(), partition.log());
        let first_dirty = log.first_dirty();
        let (now_ms, high_watermark) = (time::wall_clock_ms(), partition.high_watermark());
        match log.compact(now_ms, high_watermark, &mut cleaner.limits).await {
            Ok(Some(report)) if report.clean_to > first_dirty => {
                self.count_round(partition, &report, time::now() - started);
            }
            // Nothing came of it: somebody else was faster, or an open transaction is in the way.
            Ok(_) => drop(cleaner.later.insert(of(partition))),
            Err(error) => self.cannot_clean(cleaner, partition, &error),
        }
    }

    fn count_round(&self, partition: &Partition, report: &CompactReport, took: Duration) {
        let metrics = &self.metrics;
        CoreMetrics::add(&metrics.cleaner_rounds, 1);
        CoreMetrics::add(&metrics.cleaner_bytes_read, report.bytes_read);
        CoreMetrics::add(&metrics.cleaner_bytes_written, report.bytes_written);
        CoreMetrics::add(&metrics.cleaner_records_removed, report.records_removed);
        metrics.cleaner_last_round.set(took);
        let (topic, index) = (partition.topic(), partition.index());
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(%topic, partition = index, took_ms, ?report, "compacted");
    }

    /// A round that failed, or the look before it. What will not go away by itself is said once.
    fn cannot_clean(&self, cleaner: &mut Cleaner, partition: &Partition, error: &CompactError) {
        // A partition that is going, or one whose failure has been logged where it happened.
        let known = matches!(error, CompactError::Storage(StorageError::Failed(_)));
        if error.is_passing() {
            cleaner.later.insert(of(partition));
            if matches!(error, CompactError::Storage(StorageError::Io { .. })) {
                tracing::warn!(%error, "a log could not be compacted now");
            }
            return;
        }
        cleaner.uncleanable.insert(of(partition));
        CoreMetrics::add(&self.metrics.cleaner_failures, 1);
        if !known {
            let (topic, index) = (partition.topic(), partition.index());
            tracing::error!(%topic, partition = index, %error, "a log cannot be compacted and is left as it is until the next start");
        }
    }
}

fn of(partition: &Partition) -> (Uuid, i32) {
    (partition.topic_id(), partition.index())
}
