//! raft-rs's view of one group's log: the entries since the last compaction, in memory.

use crate::record::GroupImage;
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Owned by the group's raft-rs node.
pub(crate) struct Store {
    hard_state: HardState,
    conf_state: ConfState,
    /// (index, term) of the entry before the first one held.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// A snapshot for followers that need what is no longer held; made when one asks (`wanted`).
    prepared: Option<Snapshot>,
    wanted: Cell<bool>,
}

impl Store {
    pub(crate) fn new(image: &GroupImage) -> Store {
        let meta = image.snapshot.get_metadata();
        Store {
            hard_state: image.hard_state.clone(),
            conf_state: meta.get_conf_state().clone(),
            before: (meta.index, meta.term),
            entries: image.entries.iter().cloned().collect(),
            prepared: None,
            wanted: Cell::new(false),
        }
    }

    pub(crate) fn voters(&self) -> &[u64] {
        &self.conf_state.voters
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hs: HardState) {
        self.hard_state = hs;
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Adds entries; the first one replaces its index and all that followed.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.before.0, "entry {} is compacted (up to {})", first.index, self.before.0);
        assert!(first.index <= self.last() + 1, "gap: entry {} after {}", first.index, self.last());
        self.entries.truncate((first.index - self.before.0 - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Starts anew from a leader's snapshot.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.before = (meta.index, meta.term);
        self.conf_state = meta.get_conf_state().clone();
        self.entries.clear();
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.prepared = None;
    }

    /// Forgets entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        if index <= self.before.0 {
            return;
        }
        assert!(index <= self.last());
        let n = (index - self.before.0) as usize;
        self.before = (index, self.entries[n - 1].term);
        self.entries.drain(..n);
    }

    /// The entries after `index`, none of which may be compacted.
    pub(crate) fn entries_after(&self, index: u64) -> Vec<Entry> {
        assert!(index >= self.before.0);
        self.entries.iter().skip((index - self.before.0) as usize).cloned().collect()
    }

    /// A snapshot of the group at `index` (held or just compacted), around the state machine's bytes.
    pub(crate) fn snapshot_at(&self, index: u64, data: Bytes) -> Snapshot {
        let mut s = Snapshot::default();
        s.mut_metadata().index = index;
        s.mut_metadata().term = self.term(index).expect("the applied entry's term is held");
        s.mut_metadata().set_conf_state(self.conf_state.clone());
        s.data = data;
        s
    }

    /// Whether a follower waits for a snapshot that isn't made yet.
    pub(crate) fn snapshot_wanted(&self) -> bool {
        self.wanted.get()
    }

    pub(crate) fn set_prepared(&mut self, snapshot: Option<Snapshot>) {
        self.wanted.set(false);
        self.prepared = snapshot;
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked for, {} is the last", self.last());
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let (skip, count) = ((low - self.before.0 - 1) as usize, high.saturating_sub(low) as usize);
        let mut bytes = 0;
        let mut out = Vec::new();
        for e in self.entries.iter().skip(skip).take(count) {
            bytes += e.data.len() as u64 + 16;
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        let entry = self.entries.get((index - self.before.0 - 1) as usize);
        entry.map(|e| e.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        // Entries from the snapshot's index on must still be held, or the follower could never catch up.
        let usable = |s: &&Snapshot| s.get_metadata().index >= request_index.max(self.before.0);
        if let Some(s) = self.prepared.as_ref().filter(usable) {
            return Ok(s.clone());
        }
        self.wanted.set(true);
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
