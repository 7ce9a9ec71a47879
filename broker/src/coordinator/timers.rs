//! Named deadlines of one shard.

use std::collections::{BTreeMap, BTreeSet};

use super::result::Millis;

/// Deadlines by name, at most one a name. Setting one again replaces it.
#[derive(Debug)]
pub(super) struct Timers<K> {
    at: BTreeMap<K, Millis>,
    queue: BTreeSet<(Millis, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    pub(super) fn set(&mut self, key: K, at: Millis) {
        if let Some(old) = self.at.insert(key.clone(), at) {
            if old == at {
                return;
            }
            let was_queued = self.queue.remove(&(old, key.clone()));
            assert!(was_queued, "every deadline is queued");
        }
        self.queue.insert((at, key));
    }

    pub(super) fn cancel(&mut self, key: &K) {
        if let Some((key, at)) = self.at.remove_entry(key) {
            let was_queued = self.queue.remove(&(at, key));
            assert!(was_queued, "every deadline is queued");
        }
    }

    pub(super) fn is_set(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that `now` has reached.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Millis, Timers};

    #[test]
    fn deadlines_come_due_in_order_and_a_new_one_replaces_the_old() {
        let mut timers = Timers::default();
        timers.set("join", Millis(30));
        timers.set("sync", Millis(20));
        timers.set("join", Millis(10));
        timers.set("gone", Millis(5));
        timers.cancel(&"gone");
        assert_eq!(timers.next(), Some(Millis(10)));
        assert_eq!(timers.pop_due(Millis(9)), None);
        assert_eq!(timers.pop_due(Millis(25)), Some("join"));
        assert_eq!(timers.pop_due(Millis(25)), Some("sync"));
        assert_eq!(timers.pop_due(Millis(25)), None);
        assert_eq!(timers.next(), None);
    }
}
