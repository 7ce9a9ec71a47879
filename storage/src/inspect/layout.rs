//! What a path is: a data directory, a partition's directory, or one file.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use heizer_runtime::collections::HashMap;
use heizer_runtime::fs::{self, DirEntry};

use crate::checkpoint::ROOT as CHECKPOINTS;
use crate::error::{IoContext, StorageError};
use crate::inspect::tables::read_small_if_there;
use crate::paths::{self, EPOCHS, INDEX, LOG, LOG_START, METADATA, SNAPSHOT, TIME_INDEX};
use crate::stream::STREAM;

/// Kafka's index of aborted transactions.
pub(super) const TXN_INDEX: &str = "txnindex";
/// A snapshot of Kafka's metadata log: record batches, as in a segment.
const CHECKPOINT: &str = "checkpoint";
/// In a data directory that belongs to a broker, Heizer's or Kafka's.
const META: &str = "meta.properties";
/// The process that holds one of Heizer's data directories, as long as it runs.
const PID: &str = "heizer.pid";
/// Raft's streams in one of Heizer's data directories.
const RAFT: &str = "raft";
/// What the names of directories end with that are on their way out or in, Heizer's and Kafka's.
const PASSING_DIRS: [&str; 3] = ["-delete", "-future", "-stray"];
/// The same for files.
const PASSING_FILES: [&str; 4] = [".tmp", ".deleted", ".cleaned", ".swap"];

/// What somebody wants looked at.
#[derive(Debug)]
pub enum Target {
    /// A file, by its path.
    File(PathBuf),
    /// A partition's directory.
    Partition(PartitionDir),
    /// A directory with files of a stream.
    Stream(PathBuf),
    /// A directory with directories of partitions.
    DataDir(DataDir),
}

/// What a file holds, by its name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment: record batches.
    Log,
    /// The offset index of a segment.
    Index,
    /// The time index of a segment.
    TimeIndex,
    /// Kafka's index of aborted transactions.
    TxnIndex,
    /// What is known of idempotent producers.
    Snapshot,
    /// Entries of a Raft stream.
    Stream,
    /// `leader-epoch-checkpoint`.
    Epochs,
    /// `partition.metadata`.
    Metadata,
    /// `log-start-offset-checkpoint`, a partition's or, of Kafka, a data directory's.
    LogStart,
    /// `quorum-state` of Kafka's metadata log.
    QuorumState,
    /// On its way out or in; no part of the log.
    Passing,
    /// Nothing that belongs here.
    Other,
}

impl FileKind {
    /// What a file of this name holds.
    pub fn of(name: &str) -> Self {
        if PASSING_FILES.iter().any(|ending| name.ends_with(ending)) {
            return Self::Passing;
        }
        match name {
            EPOCHS => return Self::Epochs,
            METADATA => return Self::Metadata,
            LOG_START => return Self::LogStart,
            "quorum-state" => return Self::QuorumState,
            _ => {}
        }
        // Kafka's snapshots of metadata have an offset and an epoch in their names.
        let checkpoint = name.split_once('-').is_some_and(|(offset, rest)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            rest.split_once('.')
                .is_some_and(|(epoch, suffix)| digits(offset) && digits(epoch) && suffix == CHECKPOINT)
        });
        match paths::parse_numbered(name) {
            Some((_, LOG)) => Self::Log,
            _ if checkpoint => Self::Log,
            Some((_, INDEX)) => Self::Index,
            Some((_, TIME_INDEX)) => Self::TimeIndex,
            Some((_, TXN_INDEX)) => Self::TxnIndex,
            Some((_, SNAPSHOT)) => Self::Snapshot,
            Some((_, STREAM)) => Self::Stream,
            _ => Self::Other,
        }
    }

    /// The offset in the name of a numbered file.
    pub fn base_of(name: &str) -> Option<i64> {
        paths::parse_numbered(name).map(|(base, _)| base)
    }
}

/// A partition's directory and the files in it.
#[derive(Clone, Debug)]
pub struct PartitionDir {
    /// Where it is.
    pub path: PathBuf,
    /// Topic and number by its name.
    pub name: Option<(String, i32)>,
    /// Where the log starts, where a data directory's checkpoint says so.
    pub checkpointed_start: Option<i64>,
    /// The process of Heizer that holds the data directory, if it runs.
    pub held_by: Option<u32>,
    pub(super) files: Vec<DirEntry>,
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Directories of partitions, by topic and number.
    pub partitions: Vec<(String, i32)>,
    /// Directories of streams: Raft's, and the checkpoint logs.
    pub streams: Vec<PathBuf>,
    /// Directories on their way out or in.
    pub passing: Vec<PathBuf>,
    /// The process of Heizer that holds the directory, if it runs.
    pub held_by: Option<u32>,
    log_starts: HashMap<(String, i32), i64>,
}

impl Target {
    /// Finds out what is at `path`.
    pub async fn find(path: &Path) -> Result<Target, StorageError> {
        let entries = match fs::read_dir(path).await {
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Ok(Target::File(path.to_owned()));
            }
            entries => entries.at(path, "look at")?,
        };
        let holds = |kind: &[FileKind]| {
            entries.iter().any(|entry| !entry.is_dir && kind.contains(&FileKind::of(&entry.name)))
        };
        if holds(&[FileKind::Log, FileKind::Epochs, FileKind::Metadata]) {
            return PartitionDir::read(path).await.map(Target::Partition);
        }
        if holds(&[FileKind::Stream]) {
            return Ok(Target::Stream(path.to_owned()));
        }
        let partitions = entries.iter().any(|entry| entry.is_dir && partition_name(&entry.name).is_some());
        if partitions || entries.iter().any(|entry| entry.name == META) {
            return DataDir::read(path, &entries).await.map(Target::DataDir);
        }
        if path.file_name().and_then(|name| partition_name(name.to_str()?)).is_some() {
            return PartitionDir::read(path).await.map(Target::Partition);
        }
        let reason = "neither a partition's directory nor a data directory".to_owned();
        Err(StorageError::Corrupt { path: path.to_owned(), reason })
    }
}

impl PartitionDir {
    /// Lists the directory of a partition.
    pub async fn read(path: &Path) -> Result<Self, StorageError> {
        let files = fs::read_dir(path).await.at(path, "list")?;
        let name = path.file_name().and_then(|name| partition_name(name.to_str()?));
        let home = path.parent().unwrap_or(Path::new("."));
        let starts = log_starts(home).await?;
        let checkpointed_start = name.as_ref().and_then(|name| starts.get(name).copied());
        let held_by = holder(home).await?;
        Ok(Self { path: path.to_owned(), name, checkpointed_start, held_by, files })
    }

    /// Segments by base offset, with their length in bytes.
    pub fn segments(&self) -> Vec<(i64, u64)> {
        let mut segments: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| match paths::parse_numbered(&file.name)? {
                (base, LOG) if !file.is_dir => Some((base, file.len)),
                _ => None,
            })
            .collect();
        segments.sort_unstable();
        segments
    }

    /// The files that say something of a log, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let told = self.files.iter().filter(|file| {
            !file.is_dir && !matches!(FileKind::of(&file.name), FileKind::Passing | FileKind::Other)
        });
        told.map(|file| self.path.join(&file.name))
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| !file.is_dir && file.name == name)
    }

    /// Whether the segment at `base` has the file with `suffix`.
    pub(super) fn has_numbered(&self, base: i64, suffix: &str) -> bool {
        let path = paths::numbered(Path::new(""), base, suffix);
        path.to_str().is_some_and(|name| self.has(name))
    }

    /// Whether the segment at `base` has both index files.
    pub(super) fn is_indexed(&self, base: i64) -> bool {
        self.has_numbered(base, INDEX) && self.has_numbered(base, TIME_INDEX)
    }
}

impl DataDir {
    async fn read(path: &Path, entries: &[DirEntry]) -> Result<Self, StorageError> {
        let mut found = Self {
            path: path.to_owned(),
            partitions: Vec::new(),
            streams: Vec::new(),
            passing: Vec::new(),
            held_by: holder(path).await?,
            log_starts: log_starts(path).await?,
        };
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            let below = path.join(&entry.name);
            if PASSING_DIRS.iter().any(|ending| entry.name.ends_with(ending)) {
                found.passing.push(below);
            } else if let Some(name) = partition_name(&entry.name) {
                found.partitions.push(name);
            } else if entry.name == RAFT || entry.name == CHECKPOINTS {
                found.streams.extend(streams_below(&below).await?);
            }
        }
        found.partitions.sort_by(|a, b| match a.0.cmp(&b.0) {
            Ordering::Equal => a.1.cmp(&b.1),
            other => other,
        });
        Ok(found)
    }

    /// The directory of one of its partitions.
    pub async fn partition(&self, topic: &str, partition: i32) -> Result<PartitionDir, StorageError> {
        let path = self.path.join(format!("{topic}-{partition}"));
        let files = fs::read_dir(&path).await.at(&path, "list")?;
        let name = (topic.to_owned(), partition);
        let checkpointed_start = self.log_starts.get(&name).copied();
        Ok(PartitionDir { path, name: Some(name), checkpointed_start, held_by: self.held_by, files })
    }
}

/// Topic and number out of a directory's name.
fn partition_name(name: &str) -> Option<(String, i32)> {
    let (topic, number) = name.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if topic.is_empty() || !digits { None } else { Some((topic.to_owned(), number.parse().ok()?)) }
}

/// The directories of streams below `root`, of all generations or layouts, and all cores.
pub(super) async fn streams_below(root: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut streams = Vec::new();
    for generation in fs::read_dir(root).await.at(root, "list")?.into_iter().filter(|entry| entry.is_dir) {
        let generation = root.join(generation.name);
        let cores = fs::read_dir(&generation).await.at(&generation, "list")?;
        streams.extend(cores.into_iter().filter(|core| core.is_dir).map(|core| generation.join(core.name)));
    }
    Ok(streams)
}

/// Where Kafka's partitions start, out of the checkpoint in their data directory.
async fn log_starts(data_dir: &Path) -> Result<HashMap<(String, i32), i64>, StorageError> {
    let text = read_small_if_there(&data_dir.join(LOG_START)).await?;
    let mut starts = HashMap::default();
    let text = text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    for line in text.lines().skip(2) {
        if let [topic, partition, offset] = line.split(' ').collect::<Vec<_>>()[..]
            && let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse())
        {
            starts.insert((topic.to_owned(), partition), offset);
        }
    }
    Ok(starts)
}

/// The process of Heizer that holds a data directory, by the file that it keeps there while it runs.
async fn holder(data_dir: &Path) -> Result<Option<u32>, StorageError> {
    let text = read_small_if_there(&data_dir.join(PID)).await?;
    let pid: Option<u32> = text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
    let Some(pid) = pid else { return Ok(None) };
    // A process that was killed leaves the file behind.
    let process = PathBuf::from(format!("/proc/{pid}"));
    Ok(fs::exists(&process).await.at(&process, "look for")?.then_some(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_known_by_their_names() {
        let table = [
            ("00000000000000000042.log", FileKind::Log),
            ("00000000000000000042-0000000003.checkpoint", FileKind::Log),
            ("00000000000000000042.index", FileKind::Index),
            ("00000000000000000042.timeindex", FileKind::TimeIndex),
            ("00000000000000000042.txnindex", FileKind::TxnIndex),
            ("00000000000000000042.snapshot", FileKind::Snapshot),
            ("00000000000000000042.stream", FileKind::Stream),
            ("00000000000000000042.log.deleted", FileKind::Passing),
            ("00000000000000000042.log.swap", FileKind::Passing),
            ("leader-epoch-checkpoint", FileKind::Epochs),
            ("partition.metadata", FileKind::Metadata),
            ("partition.metadata.tmp", FileKind::Passing),
            ("42.log", FileKind::Other),
            ("notes.txt", FileKind::Other),
        ];
        for (name, kind) in table {
            assert_eq!(FileKind::of(name), kind, "{name}");
        }
        assert_eq!(partition_name("a-b-7"), Some(("a-b".to_owned(), 7)));
        for name in ["topic", "-1", "topic-", "topic-x", "topic-99999999999", "core-+1"] {
            assert_eq!(partition_name(name), None, "{name}");
        }
    }
}
