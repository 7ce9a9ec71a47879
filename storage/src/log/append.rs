//! Appending: checks first, all of them; then offsets, stamps and the one copy. Nothing is awaited.

use std::ops::Range;

use bytes::Bytes;
use heizer_wire::record_batch::BatchHeader;

use crate::batch::{HEADER_BYTES, index_timestamp, split, stamp_append_time};
use crate::config::{Level, LogConfig};
use crate::error::AppendError;
use crate::log::{Log, Role, State};
use crate::producer::{ProducerState, Verdict};
use crate::segment::Batch;
use crate::space::Claim;

/// Where appended batches come from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client's produce request: producer sequences are checked (contract T1).
    Client,
    /// This broker itself.
    Coordinator,
    /// The partition's leader: offsets, epochs and bytes stay as they are (contract R8).
    Replica,
}

/// What an append did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The time stamped on the records, -1 when they keep their own.
    pub log_append_time: i64,
    /// The log's first offset.
    pub log_start_offset: i64,
    /// The batch was here already, under these offsets; nothing was appended.
    pub duplicate: bool,
    /// Bytes appended.
    pub bytes: usize,
    /// The largest timestamp among the batches.
    pub max_timestamp: i64,
}

/// One batch that passed the checks, with the header it will have.
struct Planned {
    header: BatchHeader,
    body: Range<usize>,
}

impl Log {
    /// Appends `batches`, whole and validated v2 batches (CRC and records are the caller's business), in memory.
    /// They advance the ends of the higher levels as the flush gets there: see [`wait_end_at`](Self::wait_end_at).
    ///
    /// Leader-side origins get offsets from the log end on and `leader_epoch`; a replica's batches keep theirs.
    pub fn append(
        &self,
        batches: &Bytes,
        leader_epoch: i32,
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        let (info, level) = {
            let mut state = self.state.borrow_mut();
            let info = state.append(self, batches, leader_epoch, origin, now_ms)?;
            (info, state.config.level())
        };
        if !info.duplicate {
            self.start_flush();
            self.home.context().enforce();
            if level == Level::Memory {
                self.advance.notify_all();
            }
        }
        Ok(info)
    }
}

impl State {
    fn append(
        &mut self,
        log: &Log,
        batches: &Bytes,
        leader_epoch: i32,
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone().into());
        }
        if self.closed || self.role == Role::Exclusive || self.exclusive_waiting > 0 {
            return Err(AppendError::Closed);
        }
        let found = split(batches).map_err(AppendError::Invalid)?;
        let max = self.config.segment_bytes as usize;
        if batches.len() > max {
            return Err(AppendError::TooLarge { bytes: batches.len(), max });
        }
        if origin == AppendOrigin::Client
            && let Some((base_offset, last_offset)) = self.check_producers(&found, now_ms)?
        {
            return Ok(self.duplicate(base_offset, last_offset));
        }
        // After the duplicates: what is in the log already needs no space.
        let claim = if origin == AppendOrigin::Client { Claim::Client } else { Claim::Own };
        if !log.home.space().admits(claim) {
            return Err(AppendError::NoSpace);
        }
        let stamp = self.config.log_append_time && origin != AppendOrigin::Replica;
        let plan = match origin {
            AppendOrigin::Replica => self.plan_replica(found)?,
            AppendOrigin::Client | AppendOrigin::Coordinator => {
                self.plan_leader(found, leader_epoch, batches, stamp.then_some(now_ms))?
            }
        };
        self.roll_if_due(log, &plan, batches.len(), now_ms)?;
        let seen_ms = |header: &BatchHeader| header.max_timestamp.max(now_ms);
        for Planned { header, body } in &plan {
            self.push(header, &batches[body.clone()], now_ms);
            self.producers.take(header, seen_ms(header));
        }
        self.dirty_since.get_or_insert_with(heizer_runtime::time::now);
        Ok(AppendInfo {
            base_offset: plan.first().map_or(-1, |first| first.header.base_offset),
            last_offset: self.log_end() - 1,
            log_append_time: if stamp { now_ms } else { -1 },
            log_start_offset: self.log_start,
            duplicate: false,
            bytes: batches.len(),
            max_timestamp: plan.iter().map(|planned| planned.header.max_timestamp).max().unwrap_or(-1),
        })
    }

    fn duplicate(&self, base_offset: i64, last_offset: i64) -> AppendInfo {
        AppendInfo {
            base_offset,
            last_offset,
            log_append_time: -1,
            log_start_offset: self.log_start,
            duplicate: true,
            bytes: 0,
            max_timestamp: -1,
        }
    }

    /// contract T1. Gives the original's offsets if a batch is a duplicate.
    fn check_producers(
        &self,
        found: &[(BatchHeader, Range<usize>)],
        now_ms: i64,
    ) -> Result<Option<(i64, i64)>, AppendError> {
        // Of several batches in one request each continues those before it.
        let mut ahead: Option<ProducerState> = None;
        for (at, (header, _)) in found.iter().enumerate() {
            match ahead.as_ref().unwrap_or(&self.producers).check(header)? {
                Verdict::Append => {}
                Verdict::Duplicate { base_offset, last_offset } => {
                    return Ok(Some((base_offset, last_offset)));
                }
            }
            if at + 1 < found.len() {
                ahead
                    .get_or_insert_with(|| {
                        self.producers.only(found.iter().map(|(header, _)| header.producer_id))
                    })
                    .take(header, now_ms);
            }
        }
        Ok(None)
    }

    fn plan_leader(
        &self,
        found: Vec<(BatchHeader, Range<usize>)>,
        leader_epoch: i32,
        batches: &Bytes,
        stamp_ms: Option<i64>,
    ) -> Result<Vec<Planned>, AppendError> {
        if let Some(current) = self.epochs.latest().filter(|&current| leader_epoch < current) {
            return Err(AppendError::EpochFell { current, got: leader_epoch });
        }
        let mut next = self.log_end();
        let mut plan = Vec::with_capacity(found.len());
        for (mut header, range) in found {
            let body = range.start + HEADER_BYTES..range.end;
            header.base_offset = next;
            header.partition_leader_epoch = leader_epoch;
            next = next
                .checked_add(i64::from(header.last_offset_delta) + 1)
                .ok_or_else(|| AppendError::Invalid("the log has run out of offsets".to_owned()))?;
            if let Some(now_ms) = stamp_ms {
                stamp_append_time(&mut header, &batches[body.clone()], now_ms);
            }
            plan.push(Planned { header, body });
        }
        Ok(plan)
    }

    fn plan_replica(&self, found: Vec<(BatchHeader, Range<usize>)>) -> Result<Vec<Planned>, AppendError> {
        let mut next = self.log_end();
        let mut epoch = self.epochs.latest().unwrap_or(-1);
        let mut plan = Vec::with_capacity(found.len());
        for (header, range) in found {
            if header.base_offset < next {
                return Err(AppendError::OffsetNotMonotonic { log_end: next, got: header.base_offset });
            }
            if header.partition_leader_epoch < epoch {
                return Err(AppendError::EpochFell { current: epoch, got: header.partition_leader_epoch });
            }
            next = header.next_offset();
            epoch = header.partition_leader_epoch;
            plan.push(Planned { header, body: range.start + HEADER_BYTES..range.end });
        }
        Ok(plan)
    }

    /// contract L6
    fn roll_if_due(
        &mut self,
        log: &Log,
        plan: &[Planned],
        bytes: usize,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let LogConfig { segment_bytes, segment_index_bytes, .. } = self.config;
        let active = self.active();
        let last_offset = plan.last().map_or(-1, |last| last.header.last_offset());
        let overflows = last_offset - active.base() > i64::from(i32::MAX);
        if active.bytes() == 0 {
            return match overflows {
                true => {
                    Err(AppendError::Invalid(format!("offset {last_offset} is out of reach of an empty log")))
                }
                false => Ok(()),
            };
        }
        let timestamp = plan.iter().map(|planned| planned.header.max_timestamp).max().unwrap_or(-1);
        let due = overflows
            || active.is_sealed()
            || active.bytes() + bytes as u64 > u64::from(segment_bytes)
            || active.is_past(self.config.roll_ms(), timestamp, now_ms)
            || active.indexes_full(segment_index_bytes);
        if due {
            self.roll(log, now_ms);
        }
        Ok(())
    }

    fn push(&mut self, header: &BatchHeader, body: &[u8], now_ms: i64) {
        self.assign_epoch(header.partition_leader_epoch, header.base_offset);
        let batch = Batch {
            header: &header.encode(),
            body,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: index_timestamp(header),
        };
        self.active().push(&batch, now_ms, self.config.index_interval_bytes);
        self.growth.appended += (HEADER_BYTES + body.len()) as u64;
    }
}
