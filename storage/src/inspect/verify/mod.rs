//! Everything that can be checked of logs on a disk.
//!
//! | file | subject |
//! |---|---|
//! | `segment.rs` | batches and records of one segment: no I/O |
//! | `indexes.rs` | offset and time index against the batches: no I/O |
//! | `partition.rs` | one partition: its segments and small files |
//! | `stream.rs` | Raft's streams |

mod indexes;
mod partition;
mod segment;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::inspect::Progress;
use crate::inspect::layout::{DataDir, PartitionDir, Target};

/// Findings told of one file; after them, only how many more there are.
const FINDINGS_PER_FILE_MAX: u64 = 50;

/// How bad a finding is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing, and possible in a log that is in good order.
    Note,
    /// Damage.
    Error,
}

/// Something about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which file, or directory.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub position: Option<u64>,
    /// At which offset of the log.
    pub offset: Option<i64>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, ": position {position}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, ": offset {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What was looked at, and how much was found.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Partitions.
    pub partitions: u64,
    /// Segments.
    pub segments: u64,
    /// Batches, and messages of older formats.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Bytes of segments and streams.
    pub bytes: u64,
    /// Entries of Raft's streams.
    pub stream_entries: u64,
    /// Findings that are damage.
    pub errors: u64,
    /// Other findings.
    pub notes: u64,
}

/// Checks logs, one after the other, and tells what it finds as it goes.
pub struct Verifier<'a> {
    tell: &'a dyn Fn(Finding),
    progress: Progress<'a>,
    summary: Summary,
    /// How many findings there were of which file of the directory under way.
    told: BTreeMap<PathBuf, u64>,
}

impl<'a> Verifier<'a> {
    /// `tell` is called with every finding.
    pub fn new(tell: &'a dyn Fn(Finding), progress: Progress<'a>) -> Self {
        Self { tell, progress, summary: Summary::default(), told: BTreeMap::new() }
    }

    /// What was checked so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Checks everything below a directory. A file alone cannot be checked: its neighbours say what it should be.
    pub async fn verify(&mut self, target: &Target) -> Result<(), StorageError> {
        self.holder(target);
        match target {
            Target::File(path) => {
                let reason =
                    "is a file, and its neighbours say what it should be: name its directory".to_owned();
                Err(StorageError::Corrupt { path: path.clone(), reason })
            }
            Target::Partition(partition) => self.partition(partition).await,
            Target::Stream(dir) => self.stream(dir, None).await,
            Target::DataDir(dir) => self.data_dir(dir).await,
        }
    }

    /// Says whether a broker is at work in `target`.
    pub fn holder(&mut self, target: &Target) {
        let held = match target {
            Target::Partition(partition) => partition.held_by.map(|pid| (&partition.path, pid)),
            Target::DataDir(dir) => dir.held_by.map(|pid| (&dir.path, pid)),
            Target::File(_) | Target::Stream(_) => None,
        };
        if let Some((path, pid)) = held {
            let what =
                format!("process {pid} is at work here: what lies at the ends of logs may be in motion");
            self.note(path, None, None, what);
        }
    }

    async fn data_dir(&mut self, dir: &DataDir) -> Result<(), StorageError> {
        for (topic, partition) in &dir.partitions {
            let partition = dir.partition(topic, *partition).await?;
            self.partition(&partition).await?;
        }
        self.beside_partitions(dir).await
    }

    /// Checks what a data directory holds beside partitions: streams, and directories on their way out.
    pub async fn beside_partitions(&mut self, dir: &DataDir) -> Result<(), StorageError> {
        for stream in &dir.streams {
            self.stream(stream, dir.held_by).await?;
        }
        for path in &dir.passing {
            self.note(path, None, None, "on its way out or in; not looked at");
        }
        self.finish_directory();
        Ok(())
    }

    /// Checks one partition.
    pub async fn partition(&mut self, dir: &PartitionDir) -> Result<(), StorageError> {
        self.summary.partitions += 1;
        partition::verify(self, dir).await?;
        self.finish_directory();
        Ok(())
    }

    async fn stream(&mut self, dir: &Path, held_by: Option<u32>) -> Result<(), StorageError> {
        stream::verify(self, dir, held_by.is_some()).await?;
        self.finish_directory();
        Ok(())
    }

    fn error(&mut self, file: &Path, position: Option<u64>, offset: Option<i64>, what: impl Into<String>) {
        self.find(Finding {
            severity: Severity::Error,
            file: file.to_owned(),
            position,
            offset,
            what: what.into(),
        });
    }

    fn note(&mut self, file: &Path, position: Option<u64>, offset: Option<i64>, what: impl Into<String>) {
        self.find(Finding {
            severity: Severity::Note,
            file: file.to_owned(),
            position,
            offset,
            what: what.into(),
        });
    }

    fn find(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Error => self.summary.errors += 1,
            Severity::Note => self.summary.notes += 1,
        }
        let told = self.told.entry(finding.file.clone()).or_default();
        *told += 1;
        if *told <= FINDINGS_PER_FILE_MAX {
            (self.tell)(finding);
        }
    }

    /// Says how much was not told of the files of a directory that is done.
    fn finish_directory(&mut self) {
        for (file, told) in std::mem::take(&mut self.told) {
            if told > FINDINGS_PER_FILE_MAX {
                let what = format!("{} more findings like these", told - FINDINGS_PER_FILE_MAX);
                (self.tell)(Finding { severity: Severity::Note, file, position: None, offset: None, what });
            }
        }
    }

    /// Says what was wrong with a batch or an index entry.
    fn find_all(&mut self, file: &Path, found: Vec<Flaw>) {
        for Flaw { severity, position, offset, what } in found {
            let position = Some(position);
            self.find(Finding { severity, file: file.to_owned(), position, offset, what });
        }
    }
}

/// A finding whose file the caller knows.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    severity: Severity,
    position: u64,
    offset: Option<i64>,
    what: String,
}

impl Flaw {
    fn error(position: u64, offset: i64, what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, position, offset: Some(offset), what: what.into() }
    }

    fn note(position: u64, offset: i64, what: impl Into<String>) -> Self {
        Self { severity: Severity::Note, position, offset: Some(offset), what: what.into() }
    }
}
