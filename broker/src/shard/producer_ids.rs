//! Producer ids: each core hands out of a block that the cluster group gave it.

use std::cell::Cell;

use heizer_runtime::cores;

use super::{ControlError, Shard};
use crate::metadata::{ClusterCommand, ClusterOutcome};

/// Ids taken from the cluster group at once; what a restart leaves of them is never used.
const BLOCK_IDS: u32 = 1_000;

/// What is left of this core's block.
#[derive(Default)]
pub(super) struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
}

impl Shard {
    /// A producer id that nobody had before.
    pub async fn next_producer_id(&self) -> Result<i64, ControlError> {
        loop {
            let next = self.producer_ids.next.get();
            if next < self.producer_ids.end.get() {
                self.producer_ids.next.set(next + 1);
                return Ok(next);
            }
            let outcome = cores::call(self.node.cluster_core(), || async {
                super::here().propose_cluster(ClusterCommand::AllocateProducerIds { count: BLOCK_IDS }).await
            })
            .await??;
            let ClusterOutcome::ProducerIds { first, count } = outcome else {
                return Err(ControlError::Unexpected("an allocation of producer ids"));
            };
            // Another request may have brought a block meanwhile; ids are plenty, and the newer block stands.
            self.producer_ids.next.set(first);
            self.producer_ids.end.set(first + i64::from(count));
        }
    }
}
