//! Which logs are in which data directories, and which of several copies counts.
//!
//! A log is in the directory that has `TOPIC-N`. Two may have it, when a move from one to the other was cut short
//! (see `log/relocate.rs`): what the move was about to do stands in *notes*, empty files beside the logs.
//!
//! | name in a data directory | what it says |
//! |---|---|
//! | `TOPIC-N.<32 hex digits>-future` | a copy that a move is filling; none of it counts |
//! | `TOPIC-N.<directory id>-leaving` | as soon as that directory has `TOPIC-N`, this one's does not count |
//! | `TOPIC-N.<directory id>-arriving` | unless that directory says leaving, its `TOPIC-N` counts and not this one's |

use std::path::{Path, PathBuf};

use heizer_runtime::fs::{self, File, OpenOptions};

use crate::error::{IoContext, StorageError};
use crate::log::remove_directory;
use crate::paths::{self, METADATA};
use crate::segment::{read_if_there, remove_if_there};

const FUTURE_SUFFIX: &str = "-future";
const LEAVING_SUFFIX: &str = "-leaving";
const ARRIVING_SUFFIX: &str = "-arriving";
/// The longest of the suffixes, with the dot and the 32 digits before it.
const SUFFIX_BYTES_MAX: usize = 33 + ARRIVING_SUFFIX.len();
/// What file systems take.
const FILE_NAME_BYTES_MAX: usize = 255;

/// What a note tells of a log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// It is on its way to the directory named.
    Leaving,
    /// It is on its way from the directory named.
    Arriving,
}

/// A note beside the logs of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The log, `TOPIC-N`.
    pub log: String,
    /// What it says.
    pub kind: NoteKind,
    /// The other directory, by its id.
    pub directory: [u8; 16],
}

/// What a data directory has of logs, by names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirListing {
    /// Names of logs, `TOPIC-N`, sorted.
    pub logs: Vec<String>,
    /// Names of copies that moves were filling.
    pub futures: Vec<String>,
    /// Notes of moves.
    pub notes: Vec<Note>,
}

impl DirListing {
    /// Lists the data directory at `path`.
    pub async fn read(path: &Path) -> Result<DirListing, StorageError> {
        let mut listing = DirListing::default();
        for entry in fs::read_dir(path).await.at(path, "list")? {
            if let Some(note) = Note::parse(&entry.name) {
                listing.notes.push(note);
            } else if entry.is_dir && entry.name.ends_with(FUTURE_SUFFIX) {
                listing.futures.push(entry.name);
            } else if entry.is_dir && split_log_name(&entry.name).is_some() {
                listing.logs.push(entry.name);
            }
        }
        Ok(listing)
    }
}

impl Note {
    fn suffix(&self) -> &'static str {
        match self.kind {
            NoteKind::Leaving => LEAVING_SUFFIX,
            NoteKind::Arriving => ARRIVING_SUFFIX,
        }
    }

    fn path(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(suffixed(&self.log, self.directory, self.suffix()))
    }

    fn parse(name: &str) -> Option<Note> {
        let kinds = [(LEAVING_SUFFIX, NoteKind::Leaving), (ARRIVING_SUFFIX, NoteKind::Arriving)];
        let (rest, kind) =
            kinds.into_iter().find_map(|(suffix, kind)| Some((name.strip_suffix(suffix)?, kind)))?;
        let (log, digits) = rest.rsplit_once('.')?;
        let hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let directory = u128::from_str_radix(digits, 16).ok().filter(|_| hex)?.to_be_bytes();
        split_log_name(log)?;
        Some(Note { log: log.to_owned(), kind, directory })
    }

    /// Puts the note into a data directory, durably.
    pub(crate) async fn write(&self, data_dir: &Path) -> Result<(), StorageError> {
        let path = self.path(data_dir);
        let options = OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() };
        let file = File::open(&path, options).await.at(&path, "create")?;
        file.sync_all().await.at(&path, "sync")?;
        fs::sync_dir(data_dir).await.at(data_dir, "sync")
    }

    /// Takes the note, which may be gone already, out of a data directory, durably.
    pub async fn remove(&self, data_dir: &Path) -> Result<(), StorageError> {
        remove_if_there(&self.path(data_dir)).await?;
        fs::sync_dir(data_dir).await.at(data_dir, "sync")
    }
}

/// One of the directories that have a log of some name, with what its notes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCopy {
    /// The directory's id.
    pub directory: [u8; 16],
    /// Where the log was about to go.
    pub leaving_to: Option<[u8; 16]>,
    /// Where it was about to come from.
    pub arriving_from: Option<[u8; 16]>,
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In no directory.
    Nowhere,
    /// The copy with this index counts; all others are stale.
    At(usize),
    /// Another copy may count, in this directory, which cannot be asked.
    Missing([u8; 16]),
    /// Several copies, and nothing says which one counts.
    Ambiguous,
}

/// Which of a log's copies counts; `is_online` tells of a directory whether its copies are among these, if it has any.
pub fn whereabouts(copies: &[LogCopy], is_online: impl Fn(&[u8; 16]) -> bool) -> Whereabouts {
    let copy_in = |directory: &[u8; 16]| copies.iter().find(|copy| copy.directory == *directory);
    let is_stale = |copy: &LogCopy| {
        let has_left = copy.leaving_to.is_some_and(|to| copy_in(&to).is_some());
        let has_not_arrived = copy
            .arriving_from
            .and_then(|from| copy_in(&from))
            .is_some_and(|origin| origin.leaving_to.is_none());
        has_left || has_not_arrived
    };
    let mut live = copies.iter().enumerate().filter(|(_, copy)| !is_stale(copy));
    match (live.next(), live.next()) {
        (None, _) if copies.is_empty() => Whereabouts::Nowhere,
        (None, _) | (Some(_), Some(_)) => Whereabouts::Ambiguous,
        (Some((at, copy)), None) => {
            let others = [copy.leaving_to, copy.arriving_from];
            match others.into_iter().flatten().find(|other| !is_online(other)) {
                Some(missing) => Whereabouts::Missing(missing),
                None => Whereabouts::At(at),
            }
        }
    }
}

/// Topic and partition of a log's name.
pub fn split_log_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    if topic.is_empty() || !digits { None } else { Some((topic, partition.parse().ok()?)) }
}

/// Whether a log of this name can be moved: its name with what a move adds to it has to fit a file name.
pub fn can_be_moved(log: &str) -> bool {
    log.len() + SUFFIX_BYTES_MAX <= FILE_NAME_BYTES_MAX
}

/// Kafka's name for a copy that a move fills.
pub(crate) fn future_name(log: &str, id: [u8; 16]) -> String {
    suffixed(log, id, FUTURE_SUFFIX)
}

fn suffixed(log: &str, id: [u8; 16], suffix: &str) -> String {
    format!("{log}.{:032x}{suffix}", u128::from_be_bytes(id))
}

/// The id of the topic that the closed log in the directory `log` of a data directory belongs to, where its metadata
/// says so.
pub async fn topic_id_of(data_dir: &Path, log: &str) -> Result<Option<[u8; 16]>, StorageError> {
    let metadata = read_if_there(&data_dir.join(log).join(METADATA)).await?;
    Ok(metadata.and_then(|text| paths::decode_metadata(&text)))
}

/// Removes a closed log, or a copy that a move was filling, from a data directory. A crash on the way leaves what
/// [`remove_deleted`](crate::remove_deleted) finishes.
pub async fn remove_log(data_dir: &Path, log: &str) -> Result<(), StorageError> {
    remove_directory(&data_dir.join(log)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    fn copy(directory: [u8; 16], leaving_to: Option<[u8; 16]>, arriving_from: Option<[u8; 16]>) -> LogCopy {
        LogCopy { directory, leaving_to, arriving_from }
    }

    #[test]
    fn of_two_copies_the_one_counts_that_the_move_had_got_to() {
        let at_a = |leaving| copy(A, leaving, None);
        let at_b = |arriving| copy(B, None, arriving);
        let table: [(&str, Vec<LogCopy>, Whereabouts); 9] = [
            ("nothing", vec![], Whereabouts::Nowhere),
            ("no move", vec![at_a(None)], Whereabouts::At(0)),
            ("copied, not left", vec![at_a(None), at_b(Some(A))], Whereabouts::At(0)),
            ("left, not arrived", vec![at_a(Some(B))], Whereabouts::At(0)),
            ("left and arrived", vec![at_a(Some(B)), at_b(Some(A))], Whereabouts::At(1)),
            ("settled at the new place", vec![at_a(Some(B)), at_b(None)], Whereabouts::At(1)),
            ("gone from the old place", vec![at_b(Some(A))], Whereabouts::At(0)),
            ("the order says nothing", vec![at_b(Some(A)), at_a(Some(B))], Whereabouts::At(0)),
            ("copied by hand", vec![at_a(None), at_b(None)], Whereabouts::Ambiguous),
        ];
        for (case, copies, expected) in table {
            assert_eq!(whereabouts(&copies, |_| true), expected, "{case}");
        }
    }

    #[test]
    fn a_copy_whose_counterpart_cannot_be_asked_does_not_count() {
        let only = |online: [u8; 16]| move |id: &[u8; 16]| *id == online;
        assert_eq!(whereabouts(&[copy(A, Some(B), None)], only(A)), Whereabouts::Missing(B));
        assert_eq!(whereabouts(&[copy(B, None, Some(A))], only(B)), Whereabouts::Missing(A));
        assert_eq!(whereabouts(&[copy(A, None, None)], only(A)), Whereabouts::At(0));
    }

    #[test]
    fn names_of_logs_and_notes_are_told_from_all_others() {
        let note = Note { log: "a.b-c-12".to_owned(), kind: NoteKind::Leaving, directory: A };
        let name = note.path(Path::new("/")).file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(name, "a.b-c-12.01010101010101010101010101010101-leaving");
        assert_eq!(Note::parse(&name), Some(note));
        for name in
            ["a-1-leaving", "a-1.0101-arriving", "raft", "a-1.01010101010101010101010101010101-future"]
        {
            assert_eq!(Note::parse(name), None, "{name}");
        }
        assert_eq!(split_log_name("a.b-c-12"), Some(("a.b-c", 12)));
        for name in ["raft", "-1", "a-", "a-x", "a-+1", "a-99999999999", "a-1.0101-delete"] {
            assert_eq!(split_log_name(name), None, "{name}");
        }
        assert!(can_be_moved(&"x".repeat(213)) && !can_be_moved(&"x".repeat(214)));
    }
}
