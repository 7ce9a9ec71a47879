//! What goes on beside the flush task, so that no write waits for it: sealing what was rolled, and the files of segments
//! to come.
//!
//! It is begun by the flush task, one thing at a time, and the flush task does not end before it: whoever has the log's
//! files for himself meets none of it.

use std::rc::Rc;

use heizer_runtime::fs::{self, File};
use heizer_runtime::task;
use heizer_runtime::time::wall_clock_ms;

use crate::error::{IoContext, LogFailed, StorageError};
use crate::log::{Log, State};
use crate::paths::{self, SPARE};
use crate::recycle::{Filling, Outgoing, SPARES_MAX, Spare, make_spare};
use crate::segment::{Segment, remove_if_there};

impl Log {
    /// Begins to seal `segment`. The error is that of the attempt before.
    pub(super) fn seal_aside(&self, segment: Rc<Segment>) -> Result<(), StorageError> {
        {
            let mut state = self.state.borrow_mut();
            if let Some(error) = state.aside_failed.take() {
                return Err(error);
            }
            state.aside = true;
        }
        let log = self.me();
        drop(task::spawn(async move {
            let result = log.seal(&segment).await;
            {
                let mut state = log.state.borrow_mut();
                state.aside = false;
                state.aside_failed = result.err();
            }
            if segment.is_sealed() {
                log.synced();
            }
            log.work.notify_all();
        }));
        Ok(())
    }

    /// Begins to make a file for the segment after `active`. That it cannot be made is no harm: the roll makes one.
    pub(super) fn make_spare_aside(&self, active: Rc<Segment>) {
        {
            let mut state = self.state.borrow_mut();
            state.spares.tried_after = Some(active.base());
            if !self.has_space_for(active.appetite().0) {
                return;
            }
            state.aside = true;
        }
        let log = self.me();
        drop(task::spawn(async move {
            let (allocate, zeroed) = active.appetite();
            let path = paths::numbered(&log.dir, active.base(), SPARE);
            let made = make_spare(&path, allocate, zeroed, log.home.context()).await;
            if let Ok(spare) = &made {
                log.home.space().take(spare.bytes);
            }
            {
                let mut state = log.state.borrow_mut();
                state.aside = false;
                match made {
                    Ok(spare) if spare.file.is_direct() && state.spares.len() < SPARES_MAX => {
                        state.spares.keep(spare);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "no file was made ahead for the next segment"),
                }
            }
            log.work.notify_all();
        }));
    }

    /// Waits until the segments that are not active by now are sealed.
    pub(super) async fn wait_rolled_sealed(&self) -> Result<(), LogFailed> {
        let active = self.state.borrow().active().base();
        loop {
            let advanced = self.advance.listen();
            {
                let state = self.state.borrow();
                let mut rolled = state.segments.iter().filter(|segment| segment.base() < active);
                if state.closed || rolled.all(|segment| segment.is_sealed()) {
                    return Ok(());
                }
                if let Some(failed) = &state.failed {
                    return Err(failed.clone());
                }
            }
            advanced.await;
        }
    }

    /// Waits until nothing goes on aside. Called by the flush task at its end.
    pub(super) async fn aside_ended(&self) {
        loop {
            let ended = self.work.listen();
            if !self.state.borrow().aside {
                return;
            }
            ended.await;
        }
    }

    /// The file to write `segment` to: a spare, where the segment has none yet and there is one.
    pub(super) async fn file_of(&self, segment: &Rc<Segment>) -> Result<File, StorageError> {
        if !segment.exists() && !segment.has_spare() {
            let spare = self.state.borrow_mut().spares.take();
            if let Some(spare) = spare {
                return Ok(segment.adopt(spare));
            }
        }
        segment.prepare().await
    }

    /// Takes the file of `segment`, which is off the list, for a spare, if it may be one; beside `more` that were taken
    /// before and not kept yet.
    pub(super) async fn retire(
        &self,
        segment: &Rc<Segment>,
        more: usize,
        now_ms: i64,
    ) -> Result<Option<Spare>, StorageError> {
        let fit = {
            let state = self.state.borrow();
            let outgoing = Outgoing {
                bytes: segment.bytes(),
                segment_bytes: state.config.segment_bytes.into(),
                sealed: segment.is_sealed() && !segment.is_damaged(),
                settled: segment.is_settled(),
                // What was handed out of the second descriptor may be on its way still, and holds no more than that.
                pinned: Rc::strong_count(segment) > 1 || segment.was_cached(),
                compacted: state.config.cleanup_compact || state.clean_to > segment.base(),
            };
            outgoing.may_serve_again(state.spares.len() + more, state.filling(now_ms))
        };
        if fit && self.has_space_for(0) { segment.take_out().await } else { Ok(None) }
    }

    /// Keeps `spares`, whose names are durable. Some may be too many by now.
    pub(super) async fn keep_spares(&self, spares: Vec<Spare>) -> Result<(), StorageError> {
        for spare in spares {
            let kept = {
                let mut state = self.state.borrow_mut();
                let room = state.spares.len() < SPARES_MAX && !state.closed;
                if room {
                    state.spares.keep(spare);
                    None
                } else {
                    Some(spare)
                }
            };
            if let Some(spare) = kept {
                remove_if_there(&spare.path).await?;
            }
        }
        Ok(())
    }

    /// Removes the spares: after a truncation offsets are given anew, and none of what a file holds may lie above them.
    pub(super) async fn drop_spares(&self) -> Result<(), StorageError> {
        let spares = self.state.borrow_mut().spares.take_all();
        if spares.is_empty() {
            return Ok(());
        }
        for spare in spares {
            remove_if_there(&spare.path).await?;
        }
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")
    }

    /// Whether the disk can spare so many bytes.
    fn has_space_for(&self, bytes: u64) -> bool {
        let space = self.home.space();
        !space.is_refusing() && !space.is_starving() && bytes <= space.ahead_max()
    }

    /// Removes the spares of a log that has no need of them for long, or on a disk that needs the space.
    pub(super) async fn drop_spares_unless_fast(&self, now_ms: i64) -> Result<(), StorageError> {
        let spares = {
            let mut state = self.state.borrow_mut();
            if state.filling(now_ms).is_fast() && self.has_space_for(0) {
                Vec::new()
            } else {
                state.spares.take_all()
            }
        };
        for spare in spares {
            remove_if_there(&spare.path).await?;
        }
        Ok(())
    }
}

impl State {
    fn filling(&self, now_ms: i64) -> Filling {
        let active = self.active();
        Filling {
            bytes: active.bytes(),
            segment_bytes: self.config.segment_bytes.into(),
            age_ms: now_ms.saturating_sub(active.created_ms()),
            last_fill_ms: self.spares.last_fill_ms,
        }
    }

    /// Whether the next segment is near enough to make its file now.
    pub(super) fn wants_spare(&self) -> bool {
        if self.spares.len() > 0 || self.closed || self.spares.tried_after == Some(self.active().base()) {
            return false;
        }
        let filling = self.filling(wall_clock_ms());
        self.active().exists() && filling.is_nearly_full() && filling.is_fast()
    }
}
