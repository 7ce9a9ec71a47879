//! The data directories: who holds them, in which format they are, how they were left, and which core has which raft
//! groups.
//!
//! | file | what it says |
//! |---|---|
//! | `heizer.pid` | the process that holds the directory; locked as long as it runs |
//! | `format` | the version of everything in here |
//! | `meta.properties` | which broker it belongs to, and its own id, as Kafka writes them |
//! | `.kafka_cleanshutdown` | every log in here was closed in good order; gone while the broker runs |
//! | `TOPIC-PARTITION/` | a partition's log, in Kafka's own format |
//!
//! One of them, the first unless `metadata.log.dir` says otherwise, also has
//!
//! | file | what it says |
//! |---|---|
//! | `raft/layout` | generation and layout of the raft streams in `raft/GENERATION/core-N` |
//! | `log-directories` | which directories have held logs, by id and path: one that is missing may have some still |
//!
//! `survey.rs` looks at them all at a start, `plan.rs` says from that where every partition is, `placer.rs` where a new
//! one goes. `glance.rs` looks at one without touching it.

mod glance;
mod placer;
mod plan;
mod survey;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use heizer_runtime::fs as async_fs;

use crate::metadata::Layout;

pub use glance::Glance;
pub use placer::Placer;
pub use plan::{Place, Plan, free_bytes};
pub use survey::{DirFacts, Survey};

/// The newest format that this version reads, and the one it writes.
const FORMAT: u32 = 1;

const PID: &str = "heizer.pid";
const FORMAT_FILE: &str = "format";
const META: &str = "meta.properties";
const CLEAN: &str = ".kafka_cleanshutdown";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum DataDirError {
    #[error("data directory {} is in use by process {pid}; stop that one or choose another with --data-dir", path.display())]
    Locked { path: PathBuf, pid: String },
    #[error("data directory {} was written in format {found}, and this version reads up to {FORMAT}; use a newer heizer", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("data directory {} belongs to broker {found}, not to {asked}; use --node-id {found} or another --data-dir", path.display())]
    OtherNode { path: PathBuf, found: String, asked: i32 },
    #[error("{}: `{text}` is not a format version; restore the file or choose another directory with --data-dir", path.display())]
    NotAFormat { path: PathBuf, text: String },
    #[error("{}: the layout of the raft streams cannot be read ({reason}); restore the file from a backup", path.display())]
    Layout { path: PathBuf, reason: String },
    #[error("data directories {} and {} are the same one; name it once in log.dirs", one.display(), other.display())]
    Same { one: PathBuf, other: PathBuf },
    #[error("data directories {} and {} have the same directory.id in meta.properties: one is a copy of the other; remove one from log.dirs", one.display(), other.display())]
    SameId { one: PathBuf, other: PathBuf },
    #[error("{}: `{line}` is not an id and a path; restore the file or remove the line", path.display())]
    NotKnown { path: PathBuf, line: String },
    #[error(transparent)]
    Storage(#[from] heizer_storage::StorageError),
    #[error("{}: {source}; mend its permissions or choose another directory with --data-dir", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A data directory that this process holds. Dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    pid: File,
}

impl DataDir {
    /// Takes the directory for this process; it is created where it is missing. Blocks: called before the cores start.
    pub fn claim(path: &Path, node_id: i32) -> Result<DataDir, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        create_durably(path).map_err(at(path))?;
        let pid_path = path.join(PID);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut pid = options.open(&pid_path).map_err(at(&pid_path))?;
        match pid.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                pid.read_to_string(&mut holder).map_err(at(&pid_path))?;
                return Err(DataDirError::Locked { path: path.to_owned(), pid: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(DataDirError::Io { path: pid_path, source }),
        }
        check_format(path)?;
        check_owner(path, node_id)?;
        pid.set_len(0).and_then(|()| writeln!(pid, "{}", std::process::id())).map_err(at(&pid_path))?;
        Ok(DataDir { path: path.to_owned(), pid })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes every directory out of `log.dirs`. One that the system keeps back is told of and left out, unless it is
    /// the one with the metadata; one that is another's or of another format is a mistake, whichever it is. Blocks.
    pub fn claim_all(
        paths: &[PathBuf],
        metadata: usize,
        node_id: i32,
    ) -> Result<Vec<Result<DataDir, DataDirError>>, DataDirError> {
        let mut claims: Vec<Result<DataDir, DataDirError>> = Vec::with_capacity(paths.len());
        for (at, path) in paths.iter().enumerate() {
            let real = fs::canonicalize(path).ok();
            let is_same = |other: &&PathBuf| real.is_some() && fs::canonicalize(other).ok() == real;
            if let Some(other) = paths[..at].iter().find(is_same) {
                return Err(DataDirError::Same { one: other.clone(), other: path.clone() });
            }
            match DataDir::claim(path, node_id) {
                Err(error @ DataDirError::Io { .. }) if at != metadata => claims.push(Err(error)),
                claim => claims.push(Ok(claim?)),
            }
        }
        Ok(claims)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // The lock goes with the process in any case; the file is only what people look at.
        drop(fs::remove_file(self.path.join(PID)));
        drop(self.pid.unlock());
    }
}

/// Creates a directory and the missing ones above it, so that a power cut does not take them away again.
fn create_durably(path: &Path) -> io::Result<()> {
    let is_missing = |directory: &&Path| !directory.as_os_str().is_empty() && !directory.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    for directory in missing {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn check_format(directory: &Path) -> Result<(), DataDirError> {
    if format_of(directory)?.is_some() {
        return Ok(());
    }
    let path = directory.join(FORMAT_FILE);
    fs::write(&path, format!("{FORMAT}\n")).map_err(|source| DataDirError::Io { path, source })
}

/// The format that the directory is in, one that this version reads; none in a new one.
fn format_of(directory: &Path) -> Result<Option<u32>, DataDirError> {
    let path = directory.join(FORMAT_FILE);
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => Err(DataDirError::Newer { path: directory.to_owned(), found }),
        Ok(found) => Ok(Some(found)),
        Err(_) => Err(DataDirError::NotAFormat { path, text: text.trim().to_owned() }),
    }
}

/// Marks the directory as the broker's, or finds that it is another's.
fn check_owner(directory: &Path, node_id: i32) -> Result<(), DataDirError> {
    if is_owned(directory, node_id)? {
        return Ok(());
    }
    let path = directory.join(META);
    let text = format!("version=1\nnode.id={node_id}\n");
    fs::write(&path, text).map_err(|source| DataDirError::Io { path, source })
}

/// Whether the directory is marked as this broker's; one that is marked as another's is an error.
fn is_owned(directory: &Path, node_id: i32) -> Result<bool, DataDirError> {
    let Some(text) = read_if_there(&directory.join(META))? else { return Ok(false) };
    let found = text.lines().find_map(|line| line.strip_prefix("node.id=")).unwrap_or_default().trim();
    if found == node_id.to_string() {
        return Ok(true);
    }
    Err(DataDirError::OtherNode { path: directory.to_owned(), found: found.to_owned(), asked: node_id })
}

fn read_if_there(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path: path.to_owned(), source }),
    }
}

/// Whether the last process that held the directory closed every log. The marker goes, for now there is one that may
/// not.
pub async fn take_clean_marker(directory: &Path) -> io::Result<bool> {
    let path = directory.join(CLEAN);
    if !async_fs::exists(&path).await? {
        return Ok(false);
    }
    async_fs::remove_file(&path).await?;
    async_fs::sync_dir(directory).await?;
    Ok(true)
}

/// Says that every log is closed.
pub async fn put_clean_marker(directory: &Path) -> io::Result<()> {
    async_fs::write_atomic(&directory.join(CLEAN), b"{\"version\":0}\n".to_vec()).await
}

/// The raft streams as they are on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Grows with every change of the layout.
    pub generation: u32,
    /// Which core's stream has which group.
    pub layout: Layout,
}

impl Streams {
    /// Where a core's stream is.
    pub fn directory(&self, data_dir: &Path, core: u16) -> PathBuf {
        self.root(data_dir).join(format!("core-{core}"))
    }

    /// Where all streams of the generation are.
    pub fn root(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("raft").join(self.generation.to_string())
    }

    /// What the manifest says; nothing in a new directory.
    pub async fn load(data_dir: &Path) -> Result<Option<Streams>, DataDirError> {
        let path = manifest(data_dir);
        let bytes = match async_fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        let damaged = |reason: String| DataDirError::Layout { path: path.clone(), reason };
        let (generation, layout) =
            bytes.split_first_chunk::<4>().ok_or_else(|| damaged("it is too short".to_owned()))?;
        let layout = Layout::decode(layout).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Streams { generation: u32::from_be_bytes(*generation), layout }))
    }

    /// Makes this the manifest: from here on these streams count, and no others.
    pub async fn store(&self, data_dir: &Path) -> Result<(), DataDirError> {
        let mut bytes = self.generation.to_be_bytes().to_vec();
        bytes.extend(self.layout.encode());
        let path = manifest(data_dir);
        async_fs::write_atomic(&path, bytes).await.map_err(|source| DataDirError::Io { path, source })
    }
}

fn manifest(data_dir: &Path) -> PathBuf {
    data_dir.join("raft").join("layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_a_new_one_after_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = DataDir::claim(directory.path(), 1).expect("free");
        let error = DataDir::claim(directory.path(), 1).expect_err("held");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        DataDir::claim(directory.path(), 1).expect("free again");
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        for (text, refused) in [("1\n", false), ("999\n", true), ("bananas", true)] {
            fs::write(directory.path().join(FORMAT_FILE), text).expect("written");
            assert_eq!(DataDir::claim(directory.path(), 1).is_err(), refused, "{text}");
            assert_eq!(fs::read_to_string(directory.path().join(FORMAT_FILE)).expect("there"), text);
        }
    }

    #[test]
    fn a_directory_belongs_to_one_broker() {
        let directory = tempfile::tempdir().expect("a directory");
        drop(DataDir::claim(directory.path(), 1).expect("a new directory"));
        let error = DataDir::claim(directory.path(), 2).expect_err("another broker's");
        assert!(error.to_string().contains("--node-id 1"), "{error}");
        DataDir::claim(directory.path(), 1).expect("its own");
    }

    #[test]
    fn several_directories_are_claimed_and_one_that_is_kept_back_is_left_out() {
        let root = tempfile::tempdir().expect("a directory");
        let [one, two, link] = ["one", "two", "link"].map(|name| root.path().join(name));
        // A file where a directory should be: no permission would stop root.
        fs::write(&two, b"").expect("written");
        let claims = DataDir::claim_all(&[one.clone(), two.clone()], 0, 1).expect("one of them will do");
        assert!(claims[0].is_ok() && claims[1].is_err());
        drop(claims);
        let error =
            DataDir::claim_all(&[one.clone(), two.clone()], 1, 1).expect_err("that one is indispensable");
        assert!(matches!(error, DataDirError::Io { .. }), "{error}");
        std::os::unix::fs::symlink(&one, &link).expect("linked");
        let error = DataDir::claim_all(&[one.clone(), link], 0, 1).expect_err("the same twice");
        assert!(error.to_string().contains("are the same one"), "{error}");
        let other = root.path().join("other");
        drop(DataDir::claim(&other, 2).expect("a new directory"));
        let error = DataDir::claim_all(&[one, other], 0, 1).expect_err("another broker's");
        assert!(matches!(error, DataDirError::OtherNode { .. }), "{error}");
    }

    #[test]
    fn the_layout_survives_a_restart() {
        heizer_runtime::sim::block_on(7, async {
            let data_dir = Path::new("/data");
            async_fs::create_dir_all(&data_dir.join("raft")).await.expect("made");
            assert_eq!(Streams::load(data_dir).await.expect("nothing there"), None);
            let streams = Streams { generation: 3, layout: Layout::compute(8, 2) };
            streams.store(data_dir).await.expect("stored");
            assert_eq!(Streams::load(data_dir).await.expect("there"), Some(streams));
        });
    }
}
