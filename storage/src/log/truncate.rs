//! Truncation: a follower drops what its leader does not have (contract R7).

use std::rc::Rc;

use heizer_runtime::fs;
use heizer_runtime::time::wall_clock_ms;

use crate::batch::index_timestamp;
use crate::error::{IoContext, StorageError};
use crate::index::Indexes;
use crate::log::open::{newest_snapshot, replay_producers};
use crate::log::{Exclusive, Log};
use crate::paths::{self, LOG_START, SNAPSHOT};
use crate::segment::{Found, Segment, Step, Walker, remove_if_there};
use crate::tail::block_floor;

impl Log {
    /// Drops everything at and above `offset`, durably. A batch that holds `offset` in its middle goes whole. Appends
    /// are refused meanwhile.
    pub async fn truncate_to(&self, offset: i64) -> Result<(), StorageError> {
        self.check_open()?;
        let exclusive = self.take_exclusive().await;
        self.check_open()?;
        if offset >= self.log_end() {
            return Ok(());
        }
        self.check_settled()?;
        let inside = self.state.borrow().segment_at(offset);
        let result = match inside {
            Some(at) => self.truncate_inside(at, offset, &exclusive).await,
            None => self.restart_at(offset, &exclusive).await,
        };
        self.after_truncation(result)
    }

    /// Drops everything; the log is empty and starts at `offset`.
    pub async fn truncate_fully_and_start_at(&self, offset: i64) -> Result<(), StorageError> {
        self.check_open()?;
        let exclusive = self.take_exclusive().await;
        self.check_open()?;
        let result = self.restart_at(offset, &exclusive).await;
        self.after_truncation(result)
    }

    /// A truncation that failed half way leaves memory and disk apart: that is the end of this log object.
    fn after_truncation(&self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if let Err(error) = &result {
            self.fail(error);
        }
        self.spoil_copy();
        self.advance.notify_all();
        result
    }

    async fn truncate_inside(
        &self,
        at: usize,
        offset: i64,
        _exclusive: &Exclusive,
    ) -> Result<(), StorageError> {
        self.forget_checkpoint().await?;
        self.drop_spares().await?;
        let segment = self.state.borrow().segments[at].clone();
        segment.load_indexes().await?;
        let found = self.find_cut(&segment, offset).await?;
        let (bytes, end) = (found.bytes, found.next_offset);
        self.lower_clean_to(end).await?;
        let shorter = Segment::found(&self.dir, segment.base(), found, self.home.context());
        let later: Vec<Rc<Segment>> = {
            let mut state = self.state.borrow_mut();
            let later = state.segments.split_off(at + 1);
            state.segments[at] = shorter.clone();
            state.written_end = state.written_end.min(end);
            state.durable_end = state.durable_end.min(end);
            state.forced_end = state.forced_end.min(end);
            state.log_start = state.log_start.min(end);
            state.noted_start = state.noted_start.min(end);
            state.epochs.truncate_end(end);
            later.into()
        };
        // Newest first: a crash on the way leaves a log without a hole.
        for segment in later.iter().rev() {
            segment.remove().await?;
        }
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
        segment.zeroing_ended().await;
        segment.close_file();
        shorter.trim().await?;
        assert_eq!(shorter.bytes(), bytes);
        self.synced();
        self.write_epochs().await?;
        if self.log_start() == end {
            // The checkpoint may say more, and would bite once the log has grown again.
            let path = self.dir.join(LOG_START);
            fs::write_atomic(&path, paths::encode_offset(end)).await.at(&path, "write")?;
        }
        self.reload_producers(end).await
    }

    /// What is left of `segment` below `offset`.
    async fn find_cut(&self, segment: &Rc<Segment>, offset: i64) -> Result<Found, StorageError> {
        // The last entry that stays: the walk then sees all batches that stay and came after it.
        let before = segment.relative(offset).checked_sub(1);
        let near = |indexes: &Indexes| before.map_or(0, |before| indexes.offsets.lookup(before));
        let (near, mut indexes) =
            segment.with_indexes(|indexes| (near(indexes), indexes.clone())).unwrap_or_default();
        let file = segment.open_file().await?;
        let mut walker = Walker::new(file, segment.path(), near.into(), segment.bytes());
        // In a log with gaps the end is where the last batch that stays ends: a later opening finds no other.
        let (mut bytes, mut next_offset) = (segment.bytes(), segment.base());
        let mut since_entry: Option<(i64, i64)> = None;
        while walker.position() < segment.bytes() {
            let (header, position) = match walker.next().await? {
                Step::Batch { header, position, .. } => (header, position),
                // What is to be dropped may lie beyond: to go on would keep it.
                Step::End => return Err(unreadable(segment, "zeros where a batch should be")),
                Step::Bad(reason) => return Err(unreadable(segment, &reason)),
            };
            if header.last_offset() >= offset {
                bytes = position;
                break;
            }
            next_offset = header.next_offset();
            let timestamp = index_timestamp(&header);
            if since_entry.is_none_or(|(largest, _)| timestamp > largest) {
                since_entry = Some((timestamp, header.last_offset()));
            }
        }
        let position = u32::try_from(bytes).expect("segment.bytes fits u32");
        indexes.truncate(position, segment.relative(next_offset));
        if let Some((largest, offset)) = since_entry.filter(|&(largest, _)| largest > indexes.max_timestamp) {
            (indexes.max_timestamp, indexes.max_timestamp_relative) = (largest, segment.relative(offset));
        }
        let head = segment.read(block_floor(bytes)..bytes).await?.to_vec();
        let now_ms = wall_clock_ms();
        Ok(Found {
            bytes,
            head,
            next_offset,
            indexes,
            first_timestamp: None,
            index_files: true,
            unindexed: 0,
            now_ms,
        })
    }

    async fn restart_at(&self, offset: i64, _exclusive: &Exclusive) -> Result<(), StorageError> {
        self.forget_checkpoint().await?;
        self.drop_spares().await?;
        self.settle_home(None).await?;
        self.lower_clean_to(offset).await?;
        let fresh = {
            let config = self.config();
            self.fresh_segment(offset, wall_clock_ms(), &config)
        };
        let old: Vec<Rc<Segment>> = {
            let mut state = self.state.borrow_mut();
            let old = std::mem::take(&mut state.segments);
            state.segments.push_back(fresh.clone());
            state.log_start = offset;
            state.noted_start = 0;
            state.written_end = offset;
            state.durable_end = offset;
            state.forced_end = offset;
            state.epochs.clear();
            state.producers.clear();
            old.into()
        };
        for segment in old.iter().rev() {
            segment.remove().await?;
        }
        // After the segments, which need them should a crash leave some, and before the new one, which must not find any.
        self.drop_snapshots_above(-1).await?;
        fresh.prepare().await?;
        self.write_epochs().await?;
        // Last: where a crash leaves some of the old log, what was deleted of it stays deleted.
        remove_if_there(&self.dir.join(LOG_START)).await?;
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")
    }

    async fn reload_producers(&self, end: i64) -> Result<(), StorageError> {
        self.drop_snapshots_above(end).await?;
        let offsets = self.snapshot_offsets().await?;
        let (mut producers, from) = newest_snapshot(&self.dir, &offsets, end).await?;
        let segments = self.state.borrow().segments.clone();
        replay_producers(&mut producers, &segments, from, end).await?;
        self.state.borrow_mut().producers = producers;
        Ok(())
    }

    async fn snapshot_offsets(&self) -> Result<Vec<i64>, StorageError> {
        let entries = fs::read_dir(&self.dir).await.at(&self.dir, "list")?;
        let numbered = entries.iter().filter_map(|entry| paths::parse_numbered(&entry.name));
        Ok(numbered.filter(|&(_, suffix)| suffix == SNAPSHOT).map(|(offset, _)| offset).collect())
    }

    async fn drop_snapshots_above(&self, end: i64) -> Result<(), StorageError> {
        for offset in self.snapshot_offsets().await? {
            if offset > end {
                remove_if_there(&paths::numbered(&self.dir, offset, SNAPSHOT)).await?;
            }
        }
        // Once the log has grown again, a snapshot come back from before the cut would pass for a true one.
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")
    }
}

fn unreadable(segment: &Segment, reason: &str) -> StorageError {
    StorageError::Corrupt { path: segment.path().to_owned(), reason: reason.to_owned() }
}
