//! Offsets by timestamp (contract L7).

use std::rc::Rc;

use heizer_wire::record_batch::{BatchView, batches};

use crate::batch::index_timestamp;
use crate::error::{ReadError, StorageError};
use crate::log::Log;
use crate::rope::join;
use crate::segment::Segment;

/// Bytes read at once while looking for a timestamp.
const LOOK_BYTES: usize = 128 << 10;
/// Records of one batch are decompressed into at most this much.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// A record found by its timestamp.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The record's timestamp.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

impl Log {
    /// The first record below `max_offset` with a timestamp of at least `timestamp`.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        max_offset: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut from = self.log_start();
        loop {
            let next = {
                let state = self.state.borrow();
                let at = state.segment_at(from.max(state.log_start)).unwrap_or(0);
                state.segments.range(at..).find(|segment| segment.next_offset() > from).cloned()
            };
            let Some(segment) = next.filter(|segment| segment.base() < max_offset) else { return Ok(None) };
            segment.load_indexes().await?;
            if segment.max_timestamp().is_some_and(|largest| largest >= timestamp) {
                let found = self.find_in(&segment, timestamp, from, max_offset).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            from = segment.next_offset();
        }
    }

    /// The record with the largest timestamp below `max_offset`; the first of several.
    pub async fn max_timestamp(&self, max_offset: i64) -> Result<Option<TimestampOffset>, ReadError> {
        let segments: Vec<_> = self.state.borrow().segments.iter().cloned().collect();
        let mut largest: Option<i64> = None;
        for segment in segments.iter().filter(|segment| segment.base() < max_offset) {
            segment.load_indexes().await?;
            if segment.next_offset() <= max_offset && segment.base() >= self.log_start() {
                largest = largest.max(segment.max_timestamp());
            } else {
                // Only a part of it counts.
                largest = largest.max(self.largest_between(segment, max_offset).await?);
            }
        }
        match largest.filter(|&largest| largest >= 0) {
            Some(largest) => self.offset_for_timestamp(largest, max_offset).await,
            None => Ok(None),
        }
    }

    /// The largest timestamp of the batches of `segment` between the log start and `max_offset`.
    async fn largest_between(
        &self,
        segment: &Rc<Segment>,
        max_offset: i64,
    ) -> Result<Option<i64>, ReadError> {
        let mut from = segment.base().max(self.log_start());
        let mut largest = None;
        loop {
            let read = self.read(from, LOOK_BYTES, max_offset.min(segment.next_offset()), true).await?;
            if read.bytes == 0 {
                return Ok(largest);
            }
            for batch in batches(join(read.parts)) {
                let batch = batch.map_err(|error| damaged(segment, &error.to_string()))?;
                largest = largest.max(Some(index_timestamp(batch.header())));
            }
            from = read.next_offset;
        }
    }

    async fn find_in(
        &self,
        segment: &Rc<Segment>,
        timestamp: i64,
        from: i64,
        max_offset: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let relative = segment.with_indexes(|indexes| indexes.times.lookup(timestamp)).unwrap_or(0);
        let mut at = from.max(segment.base() + i64::from(relative)).max(self.log_start());
        loop {
            let read = self.read(at, LOOK_BYTES, max_offset.min(segment.next_offset()), true).await?;
            if read.bytes == 0 {
                return Ok(None);
            }
            for batch in batches(join(read.parts)) {
                let batch = batch.map_err(|error| damaged(segment, &error.to_string()))?;
                let found =
                    find_record(&batch, timestamp, from).map_err(|reason| damaged(segment, &reason))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            at = read.next_offset;
        }
    }
}

fn find_record(batch: &BatchView, timestamp: i64, from: i64) -> Result<Option<TimestampOffset>, String> {
    let header = batch.header();
    if header.max_timestamp < timestamp {
        return Ok(None);
    }
    for record in batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        if record.timestamp >= timestamp && record.offset >= from {
            let leader_epoch = header.partition_leader_epoch;
            return Ok(Some(TimestampOffset {
                timestamp: record.timestamp,
                offset: record.offset,
                leader_epoch,
            }));
        }
    }
    Ok(None)
}

fn damaged(segment: &Segment, reason: &str) -> StorageError {
    StorageError::Corrupt { path: segment.path().to_owned(), reason: reason.to_owned() }
}
