//! Operations on paths. Those that may wait for the journal or for freeing blocks go through the ring, whose worker
//! threads wait for them; looking something up is done in place.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::{opcode, types};

use super::driver::Driver;
use super::file::{File, c_path};
use super::op::Op;
use crate::fs::{DirEntry, OpenOptions};
use crate::helper::Helper;

const HERE: types::Fd = types::Fd(libc::AT_FDCWD);

pub(crate) async fn create_dir_all(driver: &Driver, path: &Path) -> io::Result<()> {
    const MODE: libc::mode_t = 0o750;
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if ancestor.as_os_str().is_empty() || ancestor.is_dir() {
            break;
        }
        missing.push(ancestor);
    }
    for directory in missing.into_iter().rev() {
        let op = Op::submit(&driver.inner, c_path(directory)?, |path| {
            opcode::MkDirAt::new(HERE, path.as_ptr()).mode(MODE).build()
        });
        match op.await.0 {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            made => drop(made?),
        }
    }
    Ok(())
}

pub(crate) async fn remove_file(driver: &Driver, path: &Path) -> io::Result<()> {
    unlink(driver, path, 0).await
}

async fn unlink(driver: &Driver, path: &Path, flags: i32) -> io::Result<()> {
    let op = Op::submit(&driver.inner, c_path(path)?, |path| {
        opcode::UnlinkAt::new(HERE, path.as_ptr()).flags(flags).build()
    });
    op.await.0.map(drop)
}

pub(crate) async fn remove_dir_all(driver: &Driver, path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            Box::pin(remove_dir_all(driver, &entry.path())).await?;
        } else {
            unlink(driver, &entry.path(), 0).await?;
        }
    }
    unlink(driver, path, libc::AT_REMOVEDIR).await
}

pub(crate) async fn rename(driver: &Driver, from: &Path, to: &Path) -> io::Result<()> {
    let op = Op::submit(&driver.inner, (c_path(from)?, c_path(to)?), |(from, to)| {
        opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build()
    });
    op.await.0.map(drop)
}

pub(crate) async fn sync_dir(driver: &Driver, path: &Path) -> io::Result<()> {
    let options = OpenOptions { read: true, ..OpenOptions::default() };
    File::open(driver.clone(), path, options).await?.sync_all().await
}

/// On a thread of its own, for it may take long and has no operation on the ring.
pub(crate) async fn sync_file_system(_: &Driver, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let sync = move || {
        let directory = std::fs::File::open(path)?;
        // SAFETY: takes no pointers; the descriptor is open as long as `directory`.
        let status = unsafe { libc::syncfs(directory.as_raw_fd()) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    Helper::start("heizer-sync")?.run(sync).await
}

pub(crate) async fn read_dir(_: &Driver, path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = entry.metadata()?;
        entries.push(DirEntry { name, is_dir: metadata.is_dir(), len: metadata.len() });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(crate) async fn exists(_: &Driver, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

pub(crate) async fn free_bytes(_: &Driver, path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(crate) async fn total_bytes(_: &Driver, path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

pub(crate) fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = c_path(path)?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: statvfs reads the zero-terminated path and fills the structure where it returns zero.
    unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.assume_init())
    }
}
