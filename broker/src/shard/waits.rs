//! Fetches of this core that wait for news of partitions, here and on other cores.

use std::cell::{Cell, RefCell};

use futures::channel::oneshot;
use heizer_runtime::collections::HashMap;
use heizer_runtime::cores::{self, CoreId};
use uuid::Uuid;

use super::Shard;
use crate::partition::{Ends, Waiter};

/// One partition that a fetch waits for, and what it knows of it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The partition's core.
    pub owner: CoreId,
    /// Its topic.
    pub topic_id: Uuid,
    /// Its number.
    pub partition: i32,
    /// Its ends when it was last read.
    pub seen: Ends,
}

/// The waiting fetches of one core.
#[derive(Default)]
pub(super) struct Waits {
    waiting: RefCell<HashMap<u64, oneshot::Sender<()>>>,
    last: Cell<u64>,
}

impl Waits {
    /// How many fetches wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Ends the waiting of `ids`; those that have ended are passed over.
    fn wake(&self, ids: &[u64]) {
        for id in ids {
            if let Some(sender) = self.waiting.borrow_mut().remove(id) {
                let _ = sender.send(());
            }
        }
    }
}

/// Sends the waiters of a partition of this core word that there is news.
pub(super) fn wake(waiters: Vec<Waiter>) {
    let mut by_origin: Vec<(CoreId, Vec<u64>)> = Vec::new();
    for waiter in waiters {
        match by_origin.iter_mut().find(|(origin, _)| *origin == waiter.origin) {
            Some((_, ids)) => ids.push(waiter.id),
            None => by_origin.push((waiter.origin, vec![waiter.id])),
        }
    }
    for (origin, ids) in by_origin {
        cores::cast(origin, move || cores::room::<Shard>().waits.wake(&ids));
    }
}

/// A fetch's registration at the partitions' cores; dropping it withdraws it.
pub struct Wait {
    waiter: Waiter,
    watched: Vec<Watched>,
    news: oneshot::Receiver<()>,
}

impl Wait {
    /// Registers for news of `watched`. News that has come since `seen` ends the wait at once (contract F3).
    pub fn register(shard: &Shard, watched: Vec<Watched>) -> Wait {
        let id = shard.waits.last.get() + 1;
        shard.waits.last.set(id);
        let (sender, news) = oneshot::channel();
        shard.waits.waiting.borrow_mut().insert(id, sender);
        let wait = Wait { waiter: Waiter { origin: shard.core(), id }, watched, news };
        wait.on_owners(|shard, waiter, watched| match shard.partition(watched.topic_id, watched.partition) {
            Ok(partition) => partition.wait(waiter, watched.seen),
            Err(_) => wake(vec![waiter]),
        });
        wait
    }

    /// Resolves when there is news.
    pub async fn news(&mut self) {
        // A sender that is gone has told all the same.
        let _ = (&mut self.news).await;
    }

    /// Runs `act` for each partition at its core, one message a core.
    fn on_owners(&self, act: impl Fn(&Shard, Waiter, &Watched) + Copy + Send + 'static) {
        let mut owners: Vec<CoreId> = self.watched.iter().map(|watched| watched.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        let waiter = self.waiter;
        for owner in owners {
            let there: Vec<Watched> =
                self.watched.iter().filter(|watched| watched.owner == owner).cloned().collect();
            cores::cast(owner, move || {
                let Some(shard) = cores::try_room::<Shard>() else { return };
                there.iter().for_each(|watched| act(&shard, waiter, watched));
            });
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let shard = cores::room::<Shard>();
        let told = shard.waits.waiting.borrow_mut().remove(&self.waiter.id).is_none();
        if told && self.watched.len() == 1 {
            // Whoever told has forgotten it.
            return;
        }
        self.on_owners(|shard, waiter, watched| {
            if let Ok(partition) = shard.partition(watched.topic_id, watched.partition) {
                partition.stop_waiting(waiter);
            }
        });
    }
}
