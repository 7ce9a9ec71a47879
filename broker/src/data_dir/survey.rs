//! A look at every data directory at a start: which ones answer, what each is called, how it was left, what it has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heizer_runtime::fs as async_fs;
use heizer_storage::{DirListing, OpenMode, StorageError, remove_deleted, remove_log};

use super::{DataDirError, META, take_clean_marker};

/// Which directories have held logs, in the one with the metadata.
const KNOWN: &str = "log-directories";
const DIRECTORY_ID: &str = "directory.id=";

/// What every core has to know of a data directory.
#[derive(Clone, Debug)]
pub struct DirFacts {
    /// Where it is.
    pub path: PathBuf,
    /// `directory.id`; of an offline one, what it was when it was last seen, or nil.
    pub id: [u8; 16],
    /// How its logs are to be opened.
    pub mode: OpenMode,
    /// It has held logs of this broker before: those of unknown topics are of topics that were deleted.
    pub was_known: bool,
    /// Why it is offline, if it is.
    pub failure: Option<Arc<str>>,
}

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// In the order of `log.dirs`.
    pub dirs: Vec<DirFacts>,
    /// What each has, nothing for an offline one.
    pub(super) listings: Vec<DirListing>,
    /// Directories that have held logs and do not answer, or are not among `log.dirs` any more.
    pub(super) missing: Vec<Known>,
}

/// A directory that has held logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: [u8; 16],
    pub(super) path: PathBuf,
}

impl Survey {
    /// Looks at the directories in `paths`, those with a reason in `failures` excepted, and takes away the markers of
    /// a clean stop and what moves and deletions have left. `new_id` makes ids for new directories.
    pub async fn take(
        paths: &[(PathBuf, Option<String>)],
        metadata: usize,
        node_id: i32,
        new_id: impl Fn() -> [u8; 16],
    ) -> Result<Survey, DataDirError> {
        let metadata_dir = &paths[metadata].0;
        let mut known = load_known(metadata_dir).await?;
        let before = known.clone();
        let mut survey = Survey { dirs: Vec::new(), listings: Vec::new(), missing: Vec::new() };
        for (at, (path, failure)) in paths.iter().enumerate() {
            let looked = match failure {
                Some(reason) => Err(reason.clone()),
                None => match look(path, &before, node_id, &new_id).await {
                    Err(error) if at == metadata => return Err(error),
                    looked => looked.map_err(|error| error.to_string()),
                },
            };
            survey.add(path, looked, &before);
        }
        for (at, dir) in survey.online() {
            if let Some((other, _)) = survey.online().find(|(other, found)| *other < at && found.id == dir.id)
            {
                let (one, other) = (survey.dirs[other].path.clone(), dir.path.clone());
                return Err(DataDirError::SameId { one, other });
            }
            known.retain(|known| known.id != dir.id);
            known.push(Known { id: dir.id, path: dir.path.clone() });
        }
        known.sort_by(|a, b| a.path.cmp(&b.path));
        if known != before {
            store_known(metadata_dir, &known).await?;
        }
        let is_online = |known: &Known| survey.online().any(|(_, dir)| dir.id == known.id);
        survey.missing = known.into_iter().filter(|known| !is_online(known)).collect();
        survey.tell();
        Ok(survey)
    }

    fn add(&mut self, path: &Path, looked: Result<Looked, String>, before: &[Known]) {
        let path = path.to_owned();
        match looked {
            Ok(Looked { id, clean, listing }) => {
                let was_known = before.iter().any(|known| known.id == id);
                // A new directory was left by nobody.
                let is_new = !was_known && listing.logs.is_empty();
                let mode = if clean || is_new { OpenMode::Clean } else { OpenMode::Unclean };
                self.dirs.push(DirFacts { path, id, mode, was_known, failure: None });
                self.listings.push(listing);
            }
            Err(reason) => {
                tracing::error!(directory = %path.display(), reason, "a data directory is offline");
                let id = before.iter().find(|known| known.path == path).map_or([0; 16], |known| known.id);
                let failure = Some(reason.into());
                let (mode, was_known) = (OpenMode::Unclean, false);
                self.dirs.push(DirFacts { path, id, mode, was_known, failure });
                self.listings.push(DirListing::default());
            }
        }
    }

    fn tell(&self) {
        for Known { id, path } in &self.missing {
            if !self.dirs.iter().any(|dir| dir.path == *path && dir.failure.is_some()) {
                let id = heizer_storage::encode_id(*id);
                tracing::warn!(
                    directory = %path.display(), id,
                    "a data directory that has held logs is missing; its partitions are offline until it is back, \
                     or until its line is removed from {KNOWN} beside the metadata"
                );
            }
        }
    }

    /// The directories that answer, with their places.
    pub(super) fn online(&self) -> impl Iterator<Item = (usize, &DirFacts)> {
        self.dirs.iter().enumerate().filter(|(_, dir)| dir.failure.is_none())
    }

    /// Why a log that is nowhere may be somewhere all the same.
    pub(super) fn missing_reason(&self) -> Option<Arc<str>> {
        let paths: Vec<String> = self.missing.iter().map(|known| known.path.display().to_string()).collect();
        let reason = || format!("it may be in {}, which is missing", paths.join(" or "));
        (!paths.is_empty()).then(|| reason().into())
    }

    /// Whether any log may have lost its end.
    pub fn is_unclean(&self) -> bool {
        self.dirs.iter().any(|dir| dir.mode == OpenMode::Unclean)
    }

    /// How many logs each directory has.
    pub fn log_counts(&self) -> Vec<u64> {
        self.listings.iter().map(|listing| listing.logs.len() as u64).collect()
    }
}

/// What a directory that answers says of itself.
struct Looked {
    id: [u8; 16],
    clean: bool,
    listing: DirListing,
}

async fn look(
    path: &Path,
    before: &[Known],
    node_id: i32,
    new_id: impl Fn() -> [u8; 16],
) -> Result<Looked, DataDirError> {
    let id = identify(path, before, node_id, new_id).await?;
    let at = |source| DataDirError::Io { path: path.to_owned(), source };
    let clean = take_clean_marker(path).await.map_err(at)?;
    remove_deleted(path).await?;
    let listing = DirListing::read(path).await?;
    for future in &listing.futures {
        remove_log(path, future).await?;
    }
    Ok(Looked { id, clean, listing })
}

/// The directory's id, made where it has none. One without an id where another one was known is an empty mount point.
async fn identify(
    directory: &Path,
    before: &[Known],
    node_id: i32,
    new_id: impl Fn() -> [u8; 16],
) -> Result<[u8; 16], DataDirError> {
    let path = directory.join(META);
    let io = |source| DataDirError::Io { path: path.clone(), source };
    let text = match async_fs::read(&path).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("version=1\nnode.id={node_id}\n"),
        Err(error) => return Err(io(error)),
    };
    let id = text.lines().find_map(|line| line.strip_prefix(DIRECTORY_ID));
    if let Some(id) = id {
        return heizer_storage::decode_id(id.trim()).ok_or_else(|| {
            let reason = format!("{id} is not a directory id");
            StorageError::Corrupt { path: path.clone(), reason }.into()
        });
    }
    if before.iter().any(|known| known.path == directory) {
        let reason = "no directory.id, though logs were kept here: is its file system mounted?".to_owned();
        return Err(StorageError::Corrupt { path, reason }.into());
    }
    let id = new_id();
    let text = format!("{}\n{DIRECTORY_ID}{}\n", text.trim_end(), heizer_storage::encode_id(id));
    async_fs::write_atomic(&path, text.into_bytes()).await.map_err(io)?;
    Ok(id)
}

async fn load_known(metadata_dir: &Path) -> Result<Vec<Known>, DataDirError> {
    let path = metadata_dir.join(KNOWN);
    let bytes = match async_fs::read(&path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(DataDirError::Io { path, source }),
    };
    let text = String::from_utf8_lossy(&bytes);
    let parse = |line: &str| {
        let (id, directory) = line.split_once(' ')?;
        Some(Known { id: heizer_storage::decode_id(id)?, path: PathBuf::from(directory) })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let damaged = || DataDirError::NotKnown { path: path.clone(), line: line.to_owned() };
            parse(line).ok_or_else(damaged)
        })
        .collect()
}

async fn store_known(metadata_dir: &Path, known: &[Known]) -> Result<(), DataDirError> {
    let mut text = "# Directories that have held logs of this broker: id and path.\n".to_owned();
    for Known { id, path } in known {
        text.push_str(&format!("{} {}\n", heizer_storage::encode_id(*id), path.display()));
    }
    let path = metadata_dir.join(KNOWN);
    async_fs::write_atomic(&path, text.into_bytes()).await.map_err(|source| DataDirError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use heizer_runtime::sim::block_on;

    use super::*;

    const PATHS: [&str; 2] = ["/a", "/b"];

    async fn make() {
        for path in PATHS {
            async_fs::create_dir_all(Path::new(path)).await.expect("made");
        }
    }

    async fn take(failures: [Option<&str>; 2], ids: &Cell<u8>) -> Result<Survey, DataDirError> {
        let paths =
            PATHS.map(PathBuf::from).into_iter().zip(failures.map(|reason| reason.map(str::to_owned)));
        let new_id = || {
            ids.set(ids.get() + 1);
            [ids.get(); 16]
        };
        Survey::take(&paths.collect::<Vec<_>>(), 0, 1, new_id).await
    }

    #[test]
    fn directories_keep_their_ids_and_one_that_is_away_is_remembered() {
        block_on(1, async {
            make().await;
            let ids = Cell::new(0);
            let first = take([None, None], &ids).await.expect("both answer");
            assert_eq!((first.dirs[0].id, first.dirs[1].id, first.missing.len()), ([1; 16], [2; 16], 0));
            assert!(!first.dirs[1].was_known && !first.is_unclean(), "new directories were left by nobody");
            let second = take([None, Some("no such device")], &ids).await.expect("one answers");
            assert_eq!((second.dirs[0].id, second.dirs[1].id), ([1; 16], [2; 16]));
            assert!(second.dirs[0].was_known && second.dirs[1].failure.is_some());
            assert_eq!(second.missing, [Known { id: [2; 16], path: PathBuf::from("/b") }]);
            // What it needs is remembered although nobody names it any more.
            let one = [(PathBuf::from("/a"), None)];
            let third =
                Survey::take(&one, 0, 1, || unreachable!("nothing is new")).await.expect("it answers");
            assert_eq!(third.missing.len(), 1);
            let fourth = take([None, None], &ids).await.expect("both answer");
            assert_eq!((fourth.missing.len(), fourth.dirs[1].id, ids.get()), (0, [2; 16], 2));
            let meta = async_fs::read(Path::new("/b/meta.properties")).await.expect("there");
            let meta = String::from_utf8(meta).expect("text");
            assert_eq!(meta, "version=1\nnode.id=1\ndirectory.id=AgICAgICAgICAgICAgICAg\n");
        });
    }

    #[test]
    fn a_copied_directory_and_a_damaged_list_are_refused() {
        block_on(2, async {
            make().await;
            let ids = Cell::new(0);
            take([None, None], &ids).await.expect("both answer");
            let meta = async_fs::read(Path::new("/a/meta.properties")).await.expect("there");
            async_fs::write_atomic(Path::new("/b/meta.properties"), meta).await.expect("copied");
            let error = take([None, None], &ids).await.expect_err("the same id");
            assert!(matches!(error, DataDirError::SameId { .. }), "{error}");
            async_fs::write_atomic(Path::new("/a/log-directories"), b"nonsense\n".to_vec())
                .await
                .expect("written");
            let error = take([None, None], &ids).await.expect_err("damaged");
            assert!(error.to_string().contains("`nonsense` is not an id and a path"), "{error}");
        });
    }
}
