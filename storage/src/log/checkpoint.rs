//! What a log notes of itself for its recovery (DESIGN §5).

use std::rc::Rc;

use crate::checkpoint::{Checkpoint, HURRY_BYTES, PartitionKey};
use crate::config::Level;
use crate::error::StorageError;
use crate::log::{Log, Role, State};

/// How far the log has grown beyond its checkpoint.
#[derive(Default)]
pub(super) struct Growth {
    /// Bytes appended since the log was opened, those found by its recovery included.
    pub(super) appended: u64,
    /// Of these, those below the checkpoint.
    noted: u64,
    /// The offset after them.
    noted_end: i64,
    /// The log waits for its turn to be noted.
    listed: bool,
    /// Taken at the log's end, and waiting for that to become durable; with `appended` as of then.
    pending: Option<Box<(Checkpoint, u64)>>,
}

impl Growth {
    /// Of a log that was opened with a checkpoint that ends at `noted_end` (0 without one), and `scanned` bytes after it.
    pub(super) fn after_open(noted_end: i64, scanned: u64) -> Self {
        Self { appended: scanned, noted_end, ..Self::default() }
    }
}

impl Log {
    /// Which partition this is; none where the directory's name says that it is not in service.
    pub(crate) fn key(&self) -> Option<PartitionKey> {
        let name = self.dir.file_name()?.to_str()?;
        PartitionKey::of(self.topic_id, name)
    }

    /// More is durable: the log is noted before long.
    pub(super) fn note_growth(&self) {
        let Some(checkpoints) = self.home.checkpoints() else { return };
        let mut state = self.state.borrow_mut();
        if state.durable_end <= state.growth.noted_end {
            return;
        }
        let hurry = state.growth.appended - state.growth.noted >= HURRY_BYTES;
        if !std::mem::replace(&mut state.growth.listed, true) {
            drop(state);
            checkpoints.has_grown(Rc::downgrade(&self.me()), hurry);
        } else if hurry {
            checkpoints.hurry();
        }
    }

    /// A checkpoint that holds now, if there is a later one than the last, and the bytes appended in between. The log is
    /// off the list of those that wait.
    pub(crate) fn take_checkpoint(&self) -> Option<(Checkpoint, u64)> {
        let mut state = self.state.borrow_mut();
        state.growth.listed = false;
        // A truncation has the checkpoint forgotten before it changes anything: what is there until then must not be
        // noted behind it.
        if state.closed || state.failed.is_some() || state.role == Role::Exclusive {
            state.growth.pending = None;
            return None;
        }
        if state.growth.pending.is_none() {
            let taken = state.capture()?;
            state.growth.pending = Some(Box::new(taken));
        }
        let durable_end = state.durable_end;
        let (checkpoint, appended) =
            *state.growth.pending.take_if(|pending| pending.0.next_offset <= durable_end)?;
        Some((checkpoint, appended - state.growth.noted))
    }

    /// `checkpoint`, the last one taken, is on its way to the disk.
    pub(crate) fn was_noted(&self, checkpoint: &Checkpoint, grown_bytes: u64) {
        let growth = &mut self.state.borrow_mut().growth;
        growth.noted += grown_bytes;
        growth.noted_end = checkpoint.next_offset;
    }

    /// Whether the log should be asked again soon: what it has taken becomes durable by itself.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let wants =
            state.growth.pending.is_some() && state.config.level() == Level::Durable && !state.growth.listed;
        state.growth.listed |= wants;
        wants
    }

    /// Bytes below the checkpoint are about to change: it must not hold any more, whatever crashes.
    pub(super) async fn forget_checkpoint(&self) -> Result<(), StorageError> {
        {
            let growth = &mut self.state.borrow_mut().growth;
            growth.pending = None;
            growth.noted_end = 0;
        }
        let (Some(checkpoints), Some(key)) = (self.home.checkpoints(), self.key()) else { return Ok(()) };
        Ok(checkpoints.forget(key).await?)
    }

    /// Sealed segments that end at `end` are about to be exchanged for another one: a checkpoint taken while one of them
    /// was growing must not be looked for in that.
    pub(super) async fn forget_checkpoint_up_to(&self, end: i64) -> Result<(), StorageError> {
        let concerned = {
            let growth = &self.state.borrow().growth;
            let pending = growth.pending.as_ref().is_some_and(|pending| pending.0.next_offset <= end);
            pending || (growth.noted_end > 0 && growth.noted_end <= end)
        };
        if concerned {
            self.forget_checkpoint().await?;
            self.note_growth();
        }
        Ok(())
    }
}

impl State {
    /// The log's end as it is now; none where the checkpoint there is says the same, or nothing is in the active segment.
    fn capture(&self) -> Option<(Checkpoint, u64)> {
        let active = self.active();
        if active.bytes() == 0 || active.next_offset() <= self.growth.noted_end {
            return None;
        }
        let (max_timestamp, max_timestamp_relative) = active.largest_timestamp();
        let checkpoint = Checkpoint {
            segment: active.base(),
            position: u32::try_from(active.bytes()).expect("segment.bytes fits u32"),
            next_offset: active.next_offset(),
            first_timestamp: active.first_timestamp(),
            max_timestamp,
            max_timestamp_relative,
            epochs: self.epochs.since(active.base()),
            producers: self.producers.clone(),
        };
        Some((checkpoint, self.growth.appended))
    }
}
