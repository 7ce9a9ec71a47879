//! Partitions on their way to another data directory of this broker (KIP-113). One at a time moves on each core; the
//! others wait for their turn.

use std::rc::Rc;

use heizer_storage::{LogDir, Place, RelocateError, Relocation};
use uuid::Uuid;

use super::Shard;
use crate::error::PartitionError;
use crate::partition::Partition;

/// A copy of a partition in some data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its directory's place in `log.dirs`.
    pub dir: usize,
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Bytes of all segments.
    pub bytes: u64,
    /// How far a copy that a move fills is behind; 0 of any other.
    pub offset_lag: i64,
    /// A move is filling it.
    pub is_future: bool,
}

impl Shard {
    /// Has a partition of this core moved to the directory with the place `to` in `log.dirs`, in the background. One
    /// that is on its way elsewhere turns round; one that is there stays.
    pub async fn move_partition(
        self: &Rc<Self>,
        topic_id: Uuid,
        index: i32,
        to: usize,
    ) -> Result<(), PartitionError> {
        let target = self.dir(to);
        loop {
            let partition = self.partition(topic_id, index)?;
            if let Some(reason) = target.log_dir.failure() {
                return Err(PartitionError::Offline { reason });
            }
            match partition.relocation() {
                Some(moving) if Rc::ptr_eq(&moving.target().home, &target.log_dir) => return Ok(()),
                Some(moving) => {
                    moving.cancel();
                    partition.relocation_ended().await;
                }
                None if Rc::ptr_eq(partition.log().home(), &target.log_dir) => return Ok(()),
                None => {
                    self.start_move(&partition, Place { home: target.log_dir.clone(), id: target.id });
                    return Ok(());
                }
            }
        }
    }

    fn start_move(self: &Rc<Self>, partition: &Rc<Partition>, target: Place) {
        let log = partition.log();
        let source = self.dirs().into_iter().find(|dir| Rc::ptr_eq(&dir.log_dir, log.home()));
        let source_id = source.expect("every log is in one of the directories").id;
        let moving = Relocation::new(&log, source_id, target);
        partition.start_relocation(moving.clone());
        let (shard, partition) = (self.clone(), partition.clone());
        heizer_runtime::task::spawn(async move {
            shard.carry_out(&partition, &moving).await;
            partition.end_relocation();
        });
    }

    async fn carry_out(&self, partition: &Partition, moving: &Relocation) {
        let (topic, index) = (partition.topic(), partition.index());
        let to = moving.target().home.path().display();
        let outcome = {
            let mut budget = self.move_budget.lock().await;
            tracing::info!(%topic, partition = index, %to, "moving a partition to another directory");
            moving.run(&mut budget, |log| partition.replace_log(log)).await
        };
        match outcome {
            Ok(()) => {
                tracing::info!(%topic, partition = index, %to, "moved a partition to another directory")
            }
            Err(RelocateError::Cancelled) => {
                tracing::info!(%topic, partition = index, %to, "the move of a partition was cancelled");
            }
            Err(error) => {
                tracing::error!(%topic, partition = index, %to, %error, "a partition could not be moved");
            }
        }
    }

    /// The copies on this core, of the topics and partitions that `wanted` names.
    pub fn replicas(&self, wanted: impl Fn(&str, i32) -> bool) -> Vec<Replica> {
        let dirs = self.dirs();
        let place = |home: &Rc<LogDir>| dirs.iter().position(|dir| Rc::ptr_eq(&dir.log_dir, home));
        let mut replicas = Vec::new();
        for partition in self.partitions() {
            let (topic, index, log) = (partition.topic().to_string(), partition.index(), partition.log());
            let Some(dir) = place(log.home()).filter(|_| wanted(&topic, index)) else { continue };
            if let Some(moving) = partition.relocation()
                && let Some(dir) = place(&moving.target().home)
            {
                let (end, bytes) = moving.progress();
                let offset_lag = (log.log_end() - end).max(0);
                let topic = topic.clone();
                replicas.push(Replica { dir, topic, partition: index, bytes, offset_lag, is_future: true });
            }
            let bytes = log.sizes().bytes;
            // The high watermark of a leader never lies above its log end.
            replicas.push(Replica { dir, topic, partition: index, bytes, offset_lag: 0, is_future: false });
        }
        replicas
    }
}
