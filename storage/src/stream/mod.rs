//! A durable stream of opaque entries in segment files: what a core's Raft groups stand on (DESIGN §7).
//!
//! Appending is synchronous and in memory; a flush task, which exists only while there is something to do, writes in
//! groups with `RWF_DSYNC`. Whole old files go when their entries are no longer needed.

pub(crate) mod frame;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use futures::future;
use heizer_runtime::fs::{self, WriteSync};
use heizer_runtime::sync::Event;
use heizer_runtime::task;
use heizer_runtime::time::wall_clock_ms;

use crate::context::StorageContext;
use crate::error::{IoContext, LogFailed, OpenError, StorageError};
use crate::paths;
use crate::segment::Segment;
use crate::space::{Space, Starving};
use crate::tail::block_floor;

use frame::{Frame, PREFIX_BYTES};

/// Suffix of the files' names, which are the positions they start at.
pub(crate) const STREAM: &str = "stream";
/// A file of Raft's stream that has reached this size is followed by a new one.
const SEGMENT_BYTES: u32 = 16 << 20;
/// The largest entry.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;

/// A file is no longer than this: it was below [`SEGMENT_BYTES`] when its last entry came.
const FILE_BYTES_MAX: u64 = SEGMENT_BYTES as u64 + ENTRY_BYTES_MAX as u64 + (1 << 20);

/// One entry, as replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it starts: [`Stream::truncate_before`] this position keeps it.
    pub start: u64,
    /// Where it ends: durable once [`Stream::durable`] is here.
    pub end: u64,
    /// What was appended.
    pub payload: Bytes,
}

struct State {
    /// In order, never empty; the last one grows.
    segments: VecDeque<Rc<Segment>>,
    /// Off the list, not yet off the disk; oldest first, each with the end that the stream had when it came here.
    doomed: VecDeque<(Rc<Segment>, u64)>,
    durable: u64,
    flushing: bool,
    failed: Option<LogFailed>,
    closed: bool,
    /// A full disk is an error like any other from here on.
    gives_up: bool,
}

impl State {
    fn active(&self) -> &Rc<Segment> {
        self.segments.back().expect("a stream has an active segment")
    }

    fn end(&self) -> u64 {
        position(self.active().next_offset())
    }
}

/// A stream of one core. Dropping it abandons what is not flushed.
pub struct Stream {
    me: Weak<Stream>,
    dir: PathBuf,
    /// A file that has reached this size is followed by a new one.
    file_bytes: u32,
    ctx: Rc<StorageContext>,
    space: Rc<Space>,
    state: RefCell<State>,
    /// The durable end has advanced, the stream has failed, or it waits for space no longer.
    durable: Event,
}

/// What the flush task does next.
enum Job {
    Write(Rc<Segment>),
    Trim(Rc<Segment>),
    Remove(Rc<Segment>),
}

impl Stream {
    /// Opens the stream in `dir` (makes it, if it is missing) and replays what it holds. An entry that is torn ends
    /// it: what follows is cut off, durably.
    pub async fn open(dir: &Path, ctx: &Rc<StorageContext>) -> Result<(Rc<Stream>, Vec<Entry>), OpenError> {
        Stream::open_with_file_bytes(dir, SEGMENT_BYTES, ctx).await
    }

    /// Like [`open`](Self::open), with files of another size, at most the usual one.
    pub(crate) async fn open_with_file_bytes(
        dir: &Path,
        file_bytes: u32,
        ctx: &Rc<StorageContext>,
    ) -> Result<(Rc<Stream>, Vec<Entry>), OpenError> {
        assert!(file_bytes <= SEGMENT_BYTES);
        fs::create_dir_all(dir).await.at(dir, "create")?;
        let parent = dir.parent().unwrap_or(Path::new("."));
        fs::sync_dir(parent).await.at(parent, "sync")?;
        let mut entries = Vec::new();
        let mut segments = replay(dir, ctx, &mut entries).await?;
        if segments.is_empty() {
            segments.push_back(Segment::stream(dir, STREAM, 0, ctx));
        }
        let durable = position(segments[segments.len() - 1].next_offset());
        let state = State {
            segments,
            doomed: VecDeque::new(),
            durable,
            flushing: false,
            failed: None,
            closed: false,
            gives_up: false,
        };
        let stream = Rc::new_cyclic(|me| Stream {
            me: me.clone(),
            dir: dir.to_owned(),
            file_bytes,
            ctx: ctx.clone(),
            space: ctx.space_of(dir),
            state: RefCell::new(state),
            durable: Event::new(),
        });
        Ok((stream, entries))
    }

    /// Appends one entry and returns its end, for [`wait_durable`](Self::wait_durable).
    ///
    /// # Panics
    /// When the payload is empty or larger than [`ENTRY_BYTES_MAX`].
    pub fn append(&self, payload: &[u8]) -> Result<u64, LogFailed> {
        self.append_parts(&[payload])
    }

    /// Appends one entry that consists of `parts`, one after the other. See [`append`](Self::append).
    pub fn append_parts(&self, parts: &[&[u8]]) -> Result<u64, LogFailed> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!((1..=ENTRY_BYTES_MAX).contains(&bytes), "an entry of {bytes} bytes");
        let end = {
            let mut state = self.state.borrow_mut();
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            if state.closed {
                return Err(LogFailed { reason: "the stream is closed".into() });
            }
            let start = state.end();
            if state.active().bytes() >= u64::from(self.file_bytes) {
                let segment = Segment::stream(&self.dir, STREAM, offset(start), &self.ctx);
                state.segments.push_back(segment);
            }
            let end = start + (PREFIX_BYTES + bytes) as u64;
            let prefix = frame::prefix(start, parts);
            let framed = std::iter::once(&prefix[..]).chain(parts.iter().copied());
            state.active().push_raw(framed, offset(end), wall_clock_ms());
            end
        };
        self.start_flush();
        Ok(end)
    }

    /// Everything below is on stable storage.
    pub fn durable(&self) -> u64 {
        self.state.borrow().durable
    }

    /// Where the next entry starts.
    pub fn end(&self) -> u64 {
        self.state.borrow().end()
    }

    /// Where the oldest file starts.
    pub fn oldest(&self) -> u64 {
        position(self.state.borrow().segments[0].base())
    }

    /// Bytes of entries on the disk.
    pub fn bytes(&self) -> u64 {
        self.end() - self.oldest()
    }

    /// Announced when [`durable`](Self::durable) advances or the stream fails.
    pub fn on_durable(&self) -> Event {
        self.durable.clone()
    }

    /// Waits until everything below `position` is on stable storage.
    pub async fn wait_durable(&self, position: u64) -> Result<(), LogFailed> {
        loop {
            let advanced = self.durable.listen();
            {
                let state = self.state.borrow();
                if state.durable >= position {
                    return Ok(());
                }
                if let Some(failed) = &state.failed {
                    return Err(failed.clone());
                }
            }
            advanced.await;
        }
    }

    /// Waits until everything appended so far is on stable storage.
    pub async fn flush(&self) -> Result<(), LogFailed> {
        self.wait_durable(self.end()).await
    }

    /// Entries that start below `position` are no longer needed: files that hold no others are removed in the
    /// background.
    pub fn truncate_before(&self, position: u64) {
        {
            let mut state = self.state.borrow_mut();
            let end = state.end();
            while state.segments.len() > 1 && state.segments[1].base() <= offset(position) {
                let segment = state.segments.pop_front().expect("there are two");
                state.doomed.push_back((segment, end));
            }
        }
        self.start_flush();
    }

    /// Waits for space no more: where the disk is full, the stream fails. For the end of the process, which must not
    /// wait for ever.
    pub fn give_up_waiting(&self) {
        self.state.borrow_mut().gives_up = true;
        self.durable.notify_all();
    }

    /// Flushes, cuts the last file to its length, and takes nothing any more. Does not wait for space.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.state.borrow_mut().closed = true;
        self.give_up_waiting();
        loop {
            let advanced = self.durable.listen();
            {
                let state = self.state.borrow();
                if let Some(failed) = &state.failed {
                    return Err(failed.clone().into());
                }
                if !state.flushing {
                    break;
                }
            }
            advanced.await;
        }
        let active = self.state.borrow().active().clone();
        if active.exists() { active.trim().await } else { Ok(()) }
    }

    fn start_flush(&self) {
        {
            let mut state = self.state.borrow_mut();
            if state.flushing || state.failed.is_some() || state.next_job(false).is_none() {
                return;
            }
            state.flushing = true;
        }
        let stream = self.me.upgrade().expect("called through an Rc");
        drop(task::spawn(async move {
            let result = stream.run_flush().await;
            {
                let mut state = stream.state.borrow_mut();
                state.flushing = false;
                if let Err(error) = result {
                    tracing::error!(stream = %stream.dir.display(), %error, "the stream has failed and takes no more");
                    state.failed = Some(LogFailed::new(&error));
                }
            }
            stream.durable.notify_all();
        }));
    }

    /// Carries out jobs until there is none. What the disk has no space for is tried again until it has.
    async fn run_flush(&self) -> Result<(), StorageError> {
        let mut starving: Option<Starving> = None;
        loop {
            let Some(job) = self.state.borrow().next_job(starving.is_some()) else { return Ok(()) };
            match self.carry_out(job).await {
                Ok(()) => starving = None,
                Err(error) if error.is_no_space() => {
                    let given_up = self.durable.listen();
                    if self.state.borrow().gives_up {
                        return Err(error);
                    }
                    starving.get_or_insert_with(|| self.space.starve(&error));
                    future::select(pin!(self.space.retry_due()), given_up).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn carry_out(&self, job: Job) -> Result<(), StorageError> {
        match job {
            Job::Write(segment) => {
                let file = segment.prepare().await?;
                let end = segment.flush(&file, WriteSync::Data, self.file_bytes, None).await?;
                segment.tail().borrow_mut().evict_written();
                self.state.borrow_mut().durable = position(end);
                self.durable.notify_all();
            }
            Job::Trim(segment) => {
                segment.trim().await?;
                segment.tail().borrow_mut().evict_all();
                segment.close_file();
                segment.mark_finished();
            }
            Job::Remove(segment) => {
                segment.remove().await?;
                fs::sync_dir(&self.dir).await.at(&self.dir, "sync")?;
                self.state.borrow_mut().doomed.pop_front();
            }
        }
        Ok(())
    }
}

impl State {
    /// Oldest first. A file goes only after all before it, so that what is left has no hole.
    fn next_job(&self, starving: bool) -> Option<Job> {
        let last = self.segments.len() - 1;
        // What took its place came before it was doomed, and has to be durable. What came later need not: on a full
        // disk it may be waiting for just this space.
        let oldest = self.doomed.front().filter(|(_, end)| starving && *end <= self.durable);
        if let Some((oldest, _)) = oldest {
            return Some(Job::Remove(oldest.clone()));
        }
        // Doomed ones may still have to be written: their entries count as durable only then.
        let doomed = self.doomed.iter().map(|(segment, _)| segment);
        for segment in doomed.chain(&self.segments) {
            if segment.unwritten() > 0 {
                return Some(Job::Write(segment.clone()));
            }
        }
        if let Some((oldest, _)) = self.doomed.front() {
            return Some(Job::Remove(oldest.clone()));
        }
        let rolled = self.segments.range(..last).find(|segment| !segment.is_sealed());
        rolled.map(|segment| Job::Trim(segment.clone()))
    }
}

/// Reads all entries of the files in `dir`; cuts at the first that does not hold.
async fn replay(
    dir: &Path,
    ctx: &Rc<StorageContext>,
    entries: &mut Vec<Entry>,
) -> Result<VecDeque<Rc<Segment>>, StorageError> {
    let listed = fs::read_dir(dir).await.at(dir, "list")?;
    let mut files: Vec<(i64, u64)> = listed
        .iter()
        .filter_map(|entry| Some((paths::parse_numbered(&entry.name)?, entry.len)))
        .filter(|&((_, suffix), _)| suffix == STREAM)
        .map(|((base, _), bytes)| (base, bytes))
        .collect();
    files.sort_unstable();
    let mut segments: VecDeque<Rc<Segment>> = VecDeque::new();
    for (at, &(base, file_bytes)) in files.iter().enumerate() {
        let (mut lost, mut gone) = (files[at..].iter().map(|&(_, bytes)| bytes).sum::<u64>(), at);
        let follows = segments.back().is_none_or(|before| before.next_offset() == base);
        let mut stop = (!follows).then_some("a gap between files");
        if follows {
            let (segment, bytes, bad) = replay_file(dir, base, file_bytes, ctx, entries).await?;
            segments.push_back(segment);
            lost -= bytes;
            gone += 1;
            stop = bad;
        }
        if let Some(reason) = stop {
            for &(base, _) in files[gone..].iter().rev() {
                Segment::stream(dir, STREAM, base, ctx).remove().await?;
            }
            fs::sync_dir(dir).await.at(dir, "sync")?;
            tracing::warn!(stream = %dir.display(), bytes = lost, reason, "cut the end off a stream after an unclean stop");
            break;
        }
    }
    Ok(segments)
}

/// Reads the entries of one file and cuts it behind the last.
async fn replay_file(
    dir: &Path,
    base: i64,
    file_bytes: u64,
    ctx: &Rc<StorageContext>,
    entries: &mut Vec<Entry>,
) -> Result<(Rc<Segment>, u64, Option<&'static str>), StorageError> {
    let path = paths::numbered(dir, base, STREAM);
    if file_bytes > FILE_BYTES_MAX {
        let reason = format!("{file_bytes} bytes are too many for a file of a stream");
        return Err(StorageError::Corrupt { path, reason });
    }
    let options = fs::OpenOptions { read: true, direct: true, ..fs::OpenOptions::default() };
    let file = fs::File::open(&path, options).await.at(&path, "open")?;
    let content = crate::segment::read_range(&file, &path, 0..file_bytes).await?;
    let mut at = 0;
    let stop = loop {
        let start = position(base) + at as u64;
        match frame::parse(start, &content.slice(at..)) {
            Frame::Entry(payload) => {
                at += PREFIX_BYTES + payload.len();
                let end = position(base) + at as u64;
                // A copy, so that an entry doesn't keep the whole file in memory.
                entries.push(Entry { start, end, payload: Bytes::copy_from_slice(&payload) });
            }
            Frame::End => break None,
            Frame::Bad(reason) => break Some(reason),
        }
    };
    let bytes = at as u64;
    let head = content[crate::rope::to_usize(block_floor(bytes))..at].to_vec();
    let segment = Segment::stream_found(dir, STREAM, base, bytes, head, ctx);
    if file_bytes != bytes {
        segment.trim().await?;
    }
    Ok((segment, bytes, stop))
}

fn position(offset: i64) -> u64 {
    u64::try_from(offset).expect("positions are not negative")
}

fn offset(position: u64) -> i64 {
    i64::try_from(position).expect("positions stay below 2^63")
}
