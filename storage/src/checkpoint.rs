//! The checkpoint log of one core and data directory: where each log stood when it was last noted (DESIGN §5).
//!
//! After an unclean stop a log is scanned from its checkpoint on, and everything before counts as checked. So whatever
//! changes bytes below a checkpoint (a truncation, above all) first makes the log forget it, durably. A checkpoint that
//! is missing costs a longer scan and nothing else.
//!
//! The log is a [`Stream`] of entries of which the last one of a partition counts. Once it has grown well beyond what
//! counts, all of that is written again at its end and the files before it go.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut};
use heizer_runtime::collections::HashMap;
use heizer_runtime::sync::Event;
use heizer_runtime::{fs, task, time};

use crate::context::StorageContext;
use crate::epoch::EpochStart;
use crate::error::{IoContext, LogFailed, StorageError};
use crate::log::Log;
use crate::producer::ProducerState;
use crate::stream::Stream;

/// Logs are noted this often while they grow.
const INTERVAL: Duration = Duration::from_secs(5);
/// A log that has grown by this much is not kept waiting.
pub(crate) const HURRY_BYTES: u64 = 64 << 20;
/// A larger entry, which is one with many producers, is worth writing once the log has grown by so many times its size.
const SMALL_ENTRY_BYTES: usize = 4 << 10;
const BYTES_PER_ENTRY_BYTE: u64 = 32;
/// The files of the stream are small, so that what no longer counts goes soon.
const FILE_BYTES: u32 = 4 << 20;
/// The stream is rewritten when it is larger than this and twice as large as what counts.
const REWRITE_BYTES: u64 = 8 << 20;
const VERSION: u8 = 1;

/// Which partition, by its topic's id.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionKey {
    pub(crate) topic_id: [u8; 16],
    pub(crate) partition: i32,
}

impl PartitionKey {
    /// `None` for a directory that is not named as that of a partition in service.
    pub(crate) fn of(topic_id: [u8; 16], directory: &str) -> Option<Self> {
        let (_, partition) = directory.rsplit_once('-')?;
        Some(Self { topic_id, partition: partition.parse().ok()? })
    }
}

/// A place in a log below which everything is on stable storage and was checked, with what a scan from there on has to
/// know of the part before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Base offset of the segment.
    pub(crate) segment: i64,
    /// Where a batch ends in its file.
    pub(crate) position: u32,
    /// The offset after that batch.
    pub(crate) next_offset: i64,
    /// The timestamp of the segment's first batch, if it has one.
    pub(crate) first_timestamp: Option<i64>,
    /// The segment's largest timestamp so far, -1 without any, and the relative offset of the batch that has it.
    pub(crate) max_timestamp: i64,
    pub(crate) max_timestamp_relative: u32,
    /// Leader epochs from the segment's base on; the one that covers it as if it started there.
    pub(crate) epochs: Vec<EpochStart>,
    /// Producers as of `next_offset`, with all batches remembered.
    pub(crate) producers: ProducerState,
}

impl Checkpoint {
    fn encode(&self, key: PartitionKey) -> Vec<u8> {
        let mut out = key_prefix(key, true);
        out.put_i64(self.segment);
        out.put_u32(self.position);
        out.put_i64(self.next_offset);
        out.put_i64(self.first_timestamp.unwrap_or(-1));
        out.put_i64(self.max_timestamp);
        out.put_u32(self.max_timestamp_relative);
        out.put_u32(u32::try_from(self.epochs.len()).expect("epochs of one segment"));
        for epoch in &self.epochs {
            out.put_i32(epoch.epoch);
            out.put_i64(epoch.start);
        }
        self.producers.encode_whole(&mut out);
        out
    }

    fn decode(mut rest: &[u8]) -> Option<Self> {
        let segment = rest.try_get_i64().ok()?;
        let position = rest.try_get_u32().ok()?;
        let next_offset = rest.try_get_i64().ok()?;
        let first_timestamp = Some(rest.try_get_i64().ok()?).filter(|&timestamp| timestamp >= 0);
        let max_timestamp = rest.try_get_i64().ok()?;
        let max_timestamp_relative = rest.try_get_u32().ok()?;
        let count = rest.try_get_u32().ok()?;
        let mut epochs = Vec::new();
        for _ in 0..count {
            epochs.push(EpochStart { epoch: rest.try_get_i32().ok()?, start: rest.try_get_i64().ok()? });
        }
        let producers = ProducerState::decode_whole(&mut rest)?;
        let checkpoint = Self {
            segment,
            position,
            next_offset,
            first_timestamp,
            max_timestamp,
            max_timestamp_relative,
            epochs,
            producers,
        };
        (rest.is_empty() && segment >= 0 && next_offset >= segment).then_some(checkpoint)
    }
}

/// What every entry starts with: version, whether a checkpoint follows, the partition.
fn key_prefix(key: PartitionKey, follows: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u8(VERSION);
    out.put_u8(u8::from(follows));
    out.put_slice(&key.topic_id);
    out.put_i32(key.partition);
    out
}

/// The partition of an entry, and its checkpoint as bytes; none where it is forgotten.
fn split_entry(mut entry: &[u8]) -> Option<(PartitionKey, Option<&[u8]>)> {
    if entry.try_get_u8().ok()? != VERSION {
        return None;
    }
    let follows = entry.try_get_u8().ok()? == 1;
    let (topic_id, rest) = entry.split_first_chunk()?;
    let mut rest = rest;
    let key = PartitionKey { topic_id: *topic_id, partition: rest.try_get_i32().ok()? };
    Some((key, follows.then_some(rest)))
}

/// The partition of an entry of the checkpoint log, and its checkpoint; none where it is forgotten, or makes no sense.
pub(crate) fn decode_entry(entry: &[u8]) -> Option<(PartitionKey, Option<Checkpoint>)> {
    let (key, body) = split_entry(entry)?;
    Some((key, body.and_then(Checkpoint::decode)))
}

/// What counts of one partition.
struct Noted {
    /// The whole entry, as it was appended.
    entry: Vec<u8>,
    /// Grows with every entry: later ones belong to partitions that were written to more recently.
    sequence: u64,
}

/// The checkpoints of one core's logs in one data directory.
pub(crate) struct Checkpoints {
    me: Weak<Checkpoints>,
    stream: Rc<Stream>,
    noted: RefCell<HashMap<PartitionKey, Noted>>,
    noted_bytes: Cell<u64>,
    last_sequence: Cell<u64>,
    /// Logs that have grown since they were noted.
    grown: RefCell<Vec<Weak<Log>>>,
    /// A task notes them; it exists only while there are any.
    noting: Cell<bool>,
    hurry: Event,
}

impl Checkpoints {
    /// Reads the checkpoint log in `dir`, which is made where it is missing. An entry that makes no sense is left out.
    pub(crate) async fn open(dir: &Path, ctx: &Rc<StorageContext>) -> Result<Rc<Self>, StorageError> {
        let (stream, entries) = Stream::open_with_file_bytes(dir, FILE_BYTES, ctx).await?;
        let checkpoints = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            stream,
            noted: RefCell::default(),
            noted_bytes: Cell::new(0),
            last_sequence: Cell::new(0),
            grown: RefCell::default(),
            noting: Cell::new(false),
            hurry: Event::new(),
        });
        for entry in entries {
            match split_entry(&entry.payload) {
                Some((key, Some(_))) => checkpoints.remember(key, Some(entry.payload.to_vec())),
                Some((key, None)) => checkpoints.remember(key, None),
                None => {}
            }
        }
        Ok(checkpoints)
    }

    /// The checkpoint of a partition, if there is one.
    pub(crate) fn get(&self, key: PartitionKey) -> Option<Checkpoint> {
        let noted = self.noted.borrow();
        let (_, body) = split_entry(&noted.get(&key)?.entry)?;
        Checkpoint::decode(body?)
    }

    /// Larger for partitions that were noted later; 0 for those that never were.
    pub(crate) fn recency(&self, key: PartitionKey) -> u64 {
        self.noted.borrow().get(&key).map_or(0, |noted| noted.sequence)
    }

    /// Notes the log within a few seconds, at once where it is in a hurry.
    pub(crate) fn has_grown(&self, log: Weak<Log>, hurry: bool) {
        self.grown.borrow_mut().push(log);
        if !self.noting.replace(true) {
            let me = self.me.upgrade().expect("called through an Rc");
            drop(task::spawn(async move { me.note_grown().await }));
        }
        if hurry {
            self.hurry();
        }
    }

    pub(crate) fn hurry(&self) {
        self.hurry.notify_all();
    }

    async fn note_grown(&self) {
        loop {
            let hurry = self.hurry.listen();
            // Whether in a hurry or not.
            let _ = time::timeout(INTERVAL, hurry).await;
            let grown = self.grown.take();
            for log in grown.iter().filter_map(Weak::upgrade) {
                self.note(&log);
            }
            self.rewrite_if_large();
            if self.grown.borrow().is_empty() {
                self.noting.set(false);
                return;
            }
        }
    }

    /// Appends what the log has to say, and keeps it on the list while there is more to come.
    fn note(&self, log: &Rc<Log>) {
        let Some(key) = log.key() else { return };
        if let Some((checkpoint, grown_bytes)) = log.take_checkpoint() {
            let entry = checkpoint.encode(key);
            let worth_it =
                entry.len() <= SMALL_ENTRY_BYTES || grown_bytes >= BYTES_PER_ENTRY_BYTE * entry.len() as u64;
            // The stream's failure has been logged where it happened. Without an entry the next scan is longer.
            if worth_it && self.stream.append(&entry).is_ok() {
                self.remember(key, Some(entry));
                log.was_noted(&checkpoint, grown_bytes);
            }
        }
        if log.wants_checkpoint() {
            self.has_grown(Rc::downgrade(log), false);
        }
    }

    /// From here on the partition has no checkpoint, whatever crashes. To be awaited before anything below the
    /// checkpoint changes.
    pub(crate) async fn forget(&self, key: PartitionKey) -> Result<(), LogFailed> {
        if !self.noted.borrow().contains_key(&key) {
            return Ok(());
        }
        let end = self.stream.append(&key_prefix(key, false))?;
        self.remember(key, None);
        self.stream.wait_durable(end).await
    }

    /// Brings everything noted so far to stable storage and closes the log.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        self.stream.close().await
    }

    fn remember(&self, key: PartitionKey, entry: Option<Vec<u8>>) {
        let mut noted = self.noted.borrow_mut();
        let sequence = self.last_sequence.get() + 1;
        self.last_sequence.set(sequence);
        let (mut bytes, added) = (self.noted_bytes.get(), entry.as_ref().map_or(0, Vec::len));
        let before = match entry {
            Some(entry) => noted.insert(key, Noted { entry, sequence }),
            None => noted.remove(&key),
        };
        bytes += added as u64;
        bytes -= before.map_or(0, |before| before.entry.len() as u64);
        self.noted_bytes.set(bytes);
    }

    fn rewrite_if_large(&self) {
        if self.stream.bytes() < REWRITE_BYTES.max(2 * self.noted_bytes.get()) {
            return;
        }
        let start = self.stream.end();
        let noted = self.noted.borrow();
        let mut in_order: Vec<&Noted> = noted.values().collect();
        in_order.sort_unstable_by_key(|noted| noted.sequence);
        // All of it or none: what comes before goes only if all of it is here again.
        if in_order.iter().all(|noted| self.stream.append(&noted.entry).is_ok()) {
            self.stream.truncate_before(start);
        }
    }
}

/// The directory of a core's checkpoint log in a data directory. A change of the number of cores moves partitions to other cores, and with
/// them their checkpoints lose their meaning: those of another number are removed by the first core.
pub(crate) fn directory(data_dir: &Path, cores: usize, core: u16) -> PathBuf {
    data_dir.join(ROOT).join(layout_name(cores)).join(format!("core-{core}"))
}

/// Removes the checkpoints of other numbers of cores. Before this core's logs change.
pub(crate) async fn remove_other_layouts(data_dir: &Path, cores: usize) -> Result<(), StorageError> {
    let root = data_dir.join(ROOT);
    fs::create_dir_all(&root).await.at(&root, "create")?;
    for entry in fs::read_dir(&root).await.at(&root, "list")? {
        if entry.name != layout_name(cores) {
            let path = root.join(&entry.name);
            fs::remove_dir_all(&path).await.at(&path, "remove")?;
        }
    }
    fs::create_dir_all(&root.join(layout_name(cores))).await.at(&root, "create")?;
    fs::sync_dir(&root).await.at(&root, "sync")?;
    fs::sync_dir(data_dir).await.at(data_dir, "sync")
}

/// The directory of all checkpoint logs in a data directory.
pub(crate) const ROOT: &str = "checkpoints";

fn layout_name(cores: usize) -> String {
    format!("{cores}-cores")
}
