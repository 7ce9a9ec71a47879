//! A look at a data directory that takes nothing and changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{CLEAN, DataDirError, PID, format_of, is_owned, read_if_there};

/// How a data directory was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// There is a directory at all.
    pub is_there: bool,
    /// The process that works in it now.
    pub holder: Option<u32>,
    /// Whoever held it last closed every log.
    pub is_clean: bool,
    /// A broker has been here before.
    pub is_used: bool,
}

impl Glance {
    /// Looks at the directory for the broker `node_id`. Blocks.
    ///
    /// # Errors
    /// The broker could not take it: it is another's, of a newer format, or cannot be read.
    pub fn take(path: &Path, node_id: i32) -> Result<Glance, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        if !path.try_exists().map_err(at(path))? {
            return Ok(Glance::default());
        }
        // What is no directory, or shall not be read, says so here.
        drop(fs::read_dir(path).map_err(at(path))?);
        let (format, is_owned) = (format_of(path)?, is_owned(path, node_id)?);
        let clean = path.join(CLEAN);
        let is_clean = clean.try_exists().map_err(at(&clean))?;
        Ok(Glance { is_there: true, holder: holder(path)?, is_clean, is_used: format.is_some() || is_owned })
    }
}

/// The process that holds the lock. Asking for the lock would tell as well, but a broker that starts at that moment
/// would find it taken.
fn holder(path: &Path) -> Result<Option<u32>, DataDirError> {
    let path = path.join(PID);
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    let (Ok(pid), Ok(metadata)) = (text.trim().parse(), fs::metadata(&path)) else { return Ok(None) };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    Ok(has_lock(&locks, pid, metadata.ino()).then_some(pid))
}

/// Whether `/proc/locks` says that a process has locked a file with `flock`. The device is left out of account: some
/// file systems show one there and another one to everybody else.
fn has_lock(locks: &str, pid: u32, inode: u64) -> bool {
    locks.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", holder, file, ..] = fields.as_slice() else { return false };
        let found = file.rsplit(':').next().and_then(|text| text.parse::<u64>().ok());
        holder.parse() == Ok(pid) && found == Some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;

    #[test]
    fn a_directory_tells_how_it_was_left_and_stays_as_it_is() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("data");
        assert_eq!(Glance::take(&path, 1).expect("not there yet"), Glance::default());
        fs::create_dir(&path).expect("made");
        let new = Glance { is_there: true, ..Glance::default() };
        assert_eq!(Glance::take(&path, 1).expect("empty"), new);
        assert_eq!(fs::read_dir(&path).expect("there").count(), 0, "nothing was made");
        let held = DataDir::claim(&path, 1).expect("free");
        let used = Glance { is_used: true, ..new };
        let holder = Some(std::process::id());
        assert_eq!(Glance::take(&path, 1).expect("held"), Glance { holder, ..used.clone() });
        drop(held);
        assert_eq!(Glance::take(&path, 1).expect("left"), used);
        fs::write(path.join(PID), "1\n").expect("written");
        fs::write(path.join(CLEAN), "").expect("written");
        assert_eq!(Glance::take(&path, 1).expect("killed"), Glance { is_clean: true, ..used });
    }

    #[test]
    fn what_a_broker_would_refuse_is_an_error() {
        let root = tempfile::tempdir().expect("a directory");
        drop(DataDir::claim(root.path(), 1).expect("free"));
        let error = Glance::take(root.path(), 2).expect_err("another broker's");
        assert!(matches!(error, DataDirError::OtherNode { .. }), "{error}");
        let file = root.path().join("format");
        let error = Glance::take(&file, 1).expect_err("a file");
        assert!(matches!(error, DataDirError::Io { .. }), "{error}");
        fs::write(file, "999\n").expect("written");
        let error = Glance::take(root.path(), 1).expect_err("newer");
        assert!(matches!(error, DataDirError::Newer { .. }), "{error}");
    }

    #[test]
    fn a_lock_belongs_to_a_process_and_a_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 13539 fe:00:9986701 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 4 fe:00:9986701 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 7 fe:00:5 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 8 fe:00:6 0 EOF\n";
        assert!(has_lock(locks, 13539, 9986701));
        for (pid, inode) in [(13539, 5), (4, 9986701), (7, 5), (8, 6)] {
            assert!(!has_lock(locks, pid, inode), "{pid} {inode}");
        }
        assert!(!has_lock("", 1, 1));
    }
}
