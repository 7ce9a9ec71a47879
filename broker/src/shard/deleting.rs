//! Records that are deleted on request (KIP-107): the log starts later at once, its segments below go before long.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use heizer_runtime::cores::CoreGone;
use heizer_runtime::sync::Event;
use heizer_runtime::task;
use uuid::Uuid;

use super::Shard;
use crate::error::PartitionError;
use crate::partition::Partition;

/// The partitions whose log start was moved and which retention has not looked at since, by topic and number.
#[derive(Default)]
pub(super) struct Deletions {
    waiting: RefCell<BTreeSet<(Uuid, i32)>>,
    news: Event,
}

impl Deletions {
    fn add(&self, partition: &Partition) {
        self.waiting.borrow_mut().insert((partition.topic_id(), partition.index()));
        self.news.notify_all();
    }

    /// Resolves when there is a partition to look at.
    pub(super) async fn wait(&self) {
        loop {
            let news = self.news.listen();
            if !self.waiting.borrow().is_empty() {
                return;
            }
            news.await;
        }
    }
}

impl Shard {
    /// Lets go of a partition's records below `below`, durably; below its high watermark where it is none. Returns the log
    /// start. Goes on where whoever has asked waits no more: half a deletion is none.
    pub async fn delete_records(
        self: &Rc<Self>,
        topic_id: Uuid,
        index: i32,
        below: Option<i64>,
    ) -> Result<i64, PartitionError> {
        let partition = self.partition(topic_id, index)?;
        let shard = self.clone();
        let deletion = task::spawn(async move {
            let before = partition.log_start_offset();
            let log_start = partition.delete_records(below).await?;
            if log_start > before {
                shard.deletions.add(&partition);
            }
            Ok::<_, PartitionError>(log_start)
        });
        deletion.await.unwrap_or(Err(CoreGone.into()))
    }

    /// The partitions that retention has to look at soon, each once.
    pub(super) fn take_deletions(&self) -> Vec<Rc<Partition>> {
        let waiting = self.deletions.waiting.take();
        let partitions = self.partitions.borrow();
        waiting.iter().filter_map(|key| partitions.get(key).cloned()).collect()
    }
}
