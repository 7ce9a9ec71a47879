//! Retention, deleting records, rolling by hand, closing, deleting.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use heizer_runtime::{fs, random};

use crate::error::{IoContext, StorageError};
use crate::log::{Log, State};
use crate::paths::{self, LOG_START, METADATA};
use crate::segment::{Segment, read_if_there};

/// What the name of a directory on its way out ends with.
const DELETE_SUFFIX: &str = "-delete";

impl Log {
    /// Removes segments that are wholly below `high_watermark`, oldest first (contract L6): those below the log
    /// start, and where the cleanup policy says delete, those past retention by time or size. Returns how many.
    ///
    /// Appends and reads go on. Does nothing while the log is compacted, truncated or closed.
    pub async fn apply_retention(&self, now_ms: i64, high_watermark: i64) -> Result<usize, StorageError> {
        let removed = self.remove_expired(now_ms, high_watermark).await;
        removed.inspect_err(|error| self.home.note(error))
    }

    async fn remove_expired(&self, now_ms: i64, high_watermark: i64) -> Result<usize, StorageError> {
        self.check_open()?;
        let Some(_maintenance) = self.maintain() else { return Ok(0) };
        let segments: Vec<_> = self.state.borrow().segments.iter().cloned().collect();
        for segment in
            segments.iter().filter(|segment| segment.max_timestamp().is_none() && segment.is_sealed())
        {
            match segment.load_indexes().await {
                // Its age is unknown then, and counts from now.
                Err(_) if segment.is_damaged() => {}
                loaded => loaded?,
            }
        }
        let doomed = {
            let mut state = self.state.borrow_mut();
            let count = state.past_retention(now_ms, high_watermark);
            if count == state.segments.len() {
                state.roll(self, now_ms);
            }
            state.segments.range(..count).cloned().collect::<Vec<_>>()
        };
        drop(segments);
        self.drop_spares_unless_fast(now_ms).await?;
        if doomed.is_empty() {
            return Ok(0);
        }
        self.start_flush();
        let doomed = &doomed[..self.wait_sealed(&doomed).await?];
        if doomed.is_empty() {
            return Ok(0);
        }
        {
            let mut state = self.state.borrow_mut();
            state.segments.drain(..doomed.len());
            let first = state.segments[0].base();
            state.advance_start(first);
        }
        self.start_flush();
        self.advance.notify_all();
        let removed = doomed.len();
        let mut spares = Vec::new();
        for segment in doomed {
            match self.retire(segment, spares.len(), now_ms).await? {
                Some(spare) => spares.push(spare),
                None => segment.remove().await?,
            }
        }
        fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
        self.keep_spares(spares).await?;
        Ok(removed)
    }

    /// Waits until `segments` are sealed and the active one has its file: with their files goes the last trace of
    /// where the log ends. Returns how many of them may go, all of them unless the disk is full: then nothing waits
    /// for space, and those go that can.
    async fn wait_sealed(&self, segments: &[Rc<Segment>]) -> Result<usize, StorageError> {
        loop {
            let advanced = self.advance.listen();
            self.check_open()?;
            let sealed = segments.iter().take_while(|segment| segment.is_sealed()).count();
            if sealed == segments.len() && self.state.borrow().active().exists() {
                return Ok(sealed);
            }
            if self.home.space().is_starving() {
                let state = self.state.borrow();
                let end_stays = state.segments.range(sealed..).any(|segment| segment.exists());
                return Ok(if end_stays { sealed } else { sealed.saturating_sub(1) });
            }
            advanced.await;
        }
    }

    /// Moves the log start up to `new_start` (at most the log end), durably, and returns it. The segments below go
    /// with the next [`apply_retention`](Self::apply_retention). Calls come one after the other; one that has begun has
    /// to be polled to its end.
    pub async fn delete_records(&self, new_start: i64) -> Result<i64, StorageError> {
        let moved = self.move_start(new_start).await;
        moved.inspect_err(|error| self.home.note(error))
    }

    async fn move_start(&self, new_start: i64) -> Result<i64, StorageError> {
        self.check_open()?;
        if self.start_to_note(new_start).is_none() {
            return Ok(self.log_start());
        }
        if !self.state.borrow().home_durable {
            // The directory comes with the first data. Before the turn: a full disk may keep this waiting.
            self.flush().await?;
        }
        let _turn = self.take_start().await;
        self.check_open()?;
        // Somebody else may have deleted as much meanwhile, or the log may have been truncated.
        let Some(start) = self.start_to_note(new_start) else { return Ok(self.log_start()) };
        let path = self.dir.join(LOG_START);
        fs::write_atomic(&path, paths::encode_offset(start)).await.at(&path, "write")?;
        {
            let mut state = self.state.borrow_mut();
            state.noted_start = start;
            state.advance_start(start);
        }
        self.start_flush();
        self.advance.notify_all();
        Ok(self.log_start())
    }

    /// The log start to note so that nothing below `new_start` ever comes back; none where that is certain already. It is
    /// not where retention alone has moved the start: its segments may still be there.
    fn start_to_note(&self, new_start: i64) -> Option<i64> {
        let state = self.state.borrow();
        let new_start = new_start.min(state.log_end());
        (new_start > state.noted_start).then(|| new_start.max(state.log_start))
    }

    /// Starts a new segment, if the active one holds anything.
    pub fn roll(&self, now_ms: i64) {
        {
            let mut state = self.state.borrow_mut();
            if state.active().bytes() == 0 || state.closed || state.failed.is_some() {
                return;
            }
            state.roll(self, now_ms);
        }
        self.start_flush();
    }

    /// Flushes, seals the active segment and closes the log; a later open in mode clean scans nothing. Does not wait
    /// for space: on a full disk what is not written is given up, with an error, as in a crash.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.check_open()?;
        let exclusive = self.take_exclusive().await;
        self.check_open()?;
        let settled = self.check_settled();
        if settled.is_err() {
            self.mark_closed();
            return settled;
        }
        let active = {
            let state = self.state.borrow();
            let active = state.active().clone();
            if active.exists() && !active.is_sealed() {
                active.set_snapshot(state.producers.encode());
            }
            active
        };
        self.drop_spares().await?;
        // One that nobody has written to since an earlier close has all its files.
        let changed = active.exists() && !active.is_as_sealed_before();
        let result = if changed { self.seal(&active).await } else { Ok(()) };
        self.mark_closed();
        drop(exclusive);
        result
    }

    /// Closes the log and removes its directory, unless that has become another's: a log without data needs none, and a
    /// topic of the same name may have come since. After a crash on the way, [`remove_deleted`] finishes.
    pub async fn delete(&self) -> Result<(), StorageError> {
        let exclusive = self.take_exclusive().await;
        self.mark_closed();
        let metadata = read_if_there(&self.dir.join(METADATA)).await?;
        let owner = metadata.and_then(|text| paths::decode_metadata(&text));
        if owner.is_none_or(|id| id == self.topic_id) {
            remove_directory(&self.dir).await?;
        }
        drop(exclusive);
        Ok(())
    }

    pub(super) fn mark_closed(&self) {
        let segments = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            state.segments.clone()
        };
        for segment in segments {
            segment.tail().borrow_mut().evict_all();
            segment.close_file();
        }
        self.advance.notify_all();
    }
}

impl State {
    /// How many of the oldest segments may go.
    fn past_retention(&self, now_ms: i64, high_watermark: i64) -> usize {
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes()).sum();
        let mut count = 0;
        for segment in &self.segments {
            // An empty active segment stays: it says where the log ends.
            if segment.bytes() == 0 || segment.next_offset() > high_watermark {
                break;
            }
            let by_start = segment.next_offset() <= self.log_start;
            let past_time =
                self.config.retention_ms >= 0 && segment.is_expired(self.config.retention_ms, now_ms);
            let kept_bytes = u64::try_from(self.config.retention_bytes).unwrap_or(u64::MAX);
            let past_size = bytes.saturating_sub(segment.bytes()) >= kept_bytes;
            if !by_start && !(self.config.cleanup_delete && (past_time || past_size)) {
                break;
            }
            bytes -= segment.bytes();
            count += 1;
        }
        count
    }

    pub(super) fn advance_start(&mut self, start: i64) {
        self.log_start = self.log_start.max(start);
        self.epochs.truncate_start(self.log_start);
    }
}

/// Kafka's name for a partition directory on its way out: `<name>.<32 hex digits>-delete`, a long name cut short so that
/// the file system takes it.
fn deleted_name(dir: &Path, id: [u8; 16]) -> PathBuf {
    const FILE_NAME_BYTES_MAX: usize = 255;
    let suffix = format!(".{:032x}{DELETE_SUFFIX}", u128::from_be_bytes(id));
    let mut name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    while name.len() + suffix.len() > FILE_NAME_BYTES_MAX {
        name.pop();
    }
    dir.with_file_name(name + &suffix)
}

/// Renames before it removes, so that a crash on the way leaves no half a log that could be taken for one.
pub(crate) async fn remove_directory(dir: &Path) -> Result<(), StorageError> {
    match retire_directory(dir).await? {
        Some(gone) => fs::remove_dir_all(&gone).await.at(&gone, "remove"),
        // The log has never held any data.
        None => Ok(()),
    }
}

/// Gives the directory, if there is one, a name that the next start removes, durably; the new name.
pub(crate) async fn retire_directory(dir: &Path) -> Result<Option<PathBuf>, StorageError> {
    let gone = deleted_name(dir, random::bytes());
    match fs::rename(dir, &gone).await.at(dir, "rename") {
        // The log has never held any data.
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.is_no_space() => {
            // The longer name may want a block. The metadata stays: by them a start that comes after a crash knows
            // whose files the others were.
            for entry in fs::read_dir(dir).await.at(dir, "list")? {
                if entry.name != METADATA {
                    let path = dir.join(&entry.name);
                    fs::remove_file(&path).await.at(&path, "remove")?;
                }
            }
            fs::rename(dir, &gone).await.at(dir, "rename")?;
        }
        renamed => renamed?,
    }
    let parent = gone.parent().unwrap_or(Path::new("."));
    fs::sync_dir(parent).await.at(parent, "sync")?;
    Ok(Some(gone))
}

/// Removes the closed logs in a data directory that `is_gone` names, by topic id and partition: those of deletions
/// that a crash has cut short before they came to the files. Returns how many there were.
pub async fn remove_logs(
    data_dir: &Path,
    is_gone: impl Fn([u8; 16], i32) -> bool,
) -> Result<usize, StorageError> {
    let mut removed = 0;
    for entry in fs::read_dir(data_dir).await.at(data_dir, "list")? {
        let Some((_, Ok(partition))) =
            entry.name.rsplit_once('-').map(|(topic, n)| (topic, n.parse::<i32>()))
        else {
            continue;
        };
        let dir = data_dir.join(&entry.name);
        let metadata = read_if_there(&dir.join(METADATA)).await?;
        let topic_id = metadata.and_then(|text| paths::decode_metadata(&text));
        if topic_id.is_some_and(|id| is_gone(id, partition)) {
            remove_directory(&dir).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes what deletions cut short by a crash have left in a data directory. Returns how many there were.
pub async fn remove_deleted(data_dir: &Path) -> Result<usize, StorageError> {
    let mut removed = 0;
    for entry in fs::read_dir(data_dir).await.at(data_dir, "list")? {
        if entry.is_dir && entry.name.ends_with(DELETE_SUFFIX) {
            let path = data_dir.join(&entry.name);
            fs::remove_dir_all(&path).await.at(&path, "remove")?;
            removed += 1;
        }
    }
    Ok(removed)
}
