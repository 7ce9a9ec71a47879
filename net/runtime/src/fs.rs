//! Files and directories, through the core's ring or the simulated disk.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use crate::buf::AlignedBuf;
use crate::core::{self, Backend};
use crate::{random, ring, sim};

/// How [`File::open`] opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Create it when it is missing.
    pub create: bool,
    /// Create it, fail when it exists.
    pub create_new: bool,
    /// Cut it to nothing.
    pub truncate: bool,
    /// Past the page cache (`O_DIRECT`), where the file system can; else buffered, see [`File::is_direct`].
    pub direct: bool,
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSync {
    /// The device has accepted the data (direct), or the page cache has (buffered).
    None,
    /// The data are on stable storage (`RWF_DSYNC`).
    Data,
}

/// When a direct write without [`WriteSync::Data`] is on stable storage, given that its blocks are *settled*: they were
/// written before, put on stable storage with the file's length, and have been the file's ever since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceSync {
    /// When it is complete: the device has no volatile cache, and the file system (ext4, xfs without `reflink`) writes
    /// settled blocks in place.
    NoCache,
    /// When a [`Device::flush`] that began afterwards has ended: one flush serves the writes of many files.
    SharedFlush,
    /// When the file itself was synced. Nothing is known of others that would do.
    PerFile,
}

/// The device under a directory, as one core uses it.
#[derive(Debug)]
pub struct Device(DeviceKind);

#[derive(Debug)]
enum DeviceKind {
    Ring(ring::Device),
    Sim(sim::SimDevice),
}

impl Device {
    /// The device of the file system that holds the directory `dir`, and what is in it.
    ///
    /// It cannot fail: one of which nothing can be found out is [`DeviceSync::PerFile`].
    pub async fn open(dir: &Path) -> Device {
        Device(match &core::current().backend {
            Backend::Ring(driver) => DeviceKind::Ring(ring::Device::open(driver, dir).await),
            Backend::Sim(driver) => DeviceKind::Sim(driver.disk().device()),
        })
    }

    /// What it takes to bring a write into settled blocks onto stable storage.
    pub fn sync(&self) -> DeviceSync {
        match &self.0 {
            DeviceKind::Ring(device) => device.sync(),
            DeviceKind::Sim(device) => device.sync(),
        }
    }

    /// Puts on stable storage every direct write into settled blocks, of any file of this device, that was complete
    /// when the flush began. An error leaves open which of them are.
    ///
    /// # Errors
    /// What the device says, and `Unsupported` for one that is [`DeviceSync::PerFile`].
    pub async fn flush(&self) -> io::Result<()> {
        match &self.0 {
            DeviceKind::Ring(device) => device.flush().await,
            DeviceKind::Sim(device) => device.flush().await,
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes of a file.
    pub len: u64,
}

/// An open file. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub struct File(FileKind);

#[derive(Clone, Debug)]
enum FileKind {
    Ring(ring::File),
    Sim(sim::SimFile),
}

impl File {
    /// Opens `path`.
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        Ok(File(match &core::current().backend {
            Backend::Ring(driver) => FileKind::Ring(ring::File::open(driver.clone(), path, options).await?),
            Backend::Sim(driver) => FileKind::Sim(driver.disk().open(path, options).await?),
        }))
    }

    /// Whether I/O bypasses the page cache, which demands aligned buffers, offsets and lengths.
    pub fn is_direct(&self) -> bool {
        match &self.0 {
            FileKind::Ring(file) => file.is_direct(),
            FileKind::Sim(file) => file.is_direct(),
        }
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file. A direct file wants `offset` and
    /// `buf.len()` in multiples of [`crate::buf::BLOCK_BYTES`].
    pub async fn read_at(&self, buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        match &self.0 {
            FileKind::Ring(file) => file.read_at(buf, offset).await,
            FileKind::Sim(file) => file.read_at(buf, offset).await,
        }
    }

    /// Writes all of `parts`, one after the other, at `offset`. A direct file wants every address, length and the
    /// offset in multiples of [`crate::buf::BLOCK_BYTES`].
    pub async fn write_at(&self, parts: Vec<Bytes>, offset: u64, sync: WriteSync) -> io::Result<()> {
        match &self.0 {
            FileKind::Ring(file) => file.write_at(parts, offset, sync).await,
            FileKind::Sim(file) => file.write_at(parts, offset, sync).await,
        }
    }

    /// Puts the data on stable storage (`fdatasync`).
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            FileKind::Ring(file) => file.sync_data().await,
            FileKind::Sim(file) => file.sync_data().await,
        }
    }

    /// Puts data and metadata on stable storage (`fsync`).
    pub async fn sync_all(&self) -> io::Result<()> {
        match &self.0 {
            FileKind::Ring(file) => file.sync_all().await,
            FileKind::Sim(file) => file.sync_all().await,
        }
    }

    /// Reserves space, extending the file as needed (`fallocate`); the new part reads as zeros.
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::Ring(file) => file.allocate(offset, len).await,
            FileKind::Sim(file) => file.allocate(offset, len).await,
        }
    }

    /// Cuts or extends the file to `len` bytes.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::Ring(file) => file.set_len(len).await,
            FileKind::Sim(file) => file.set_len(len).await,
        }
    }

    /// The file's length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        match &self.0 {
            FileKind::Ring(file) => file.len().await,
            FileKind::Sim(file) => file.len().await,
        }
    }

    /// Whether the file holds nothing.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }
}

/// A file that nobody writes to any more, opened for reading through the page cache. Clones share it, on any core.
#[derive(Clone, Debug)]
pub struct CachedFile(CachedKind);

#[derive(Clone, Debug)]
pub(crate) enum CachedKind {
    Ring(ring::CachedFile),
    /// All of it, as it was when it was opened.
    Sim(Bytes),
}

impl CachedFile {
    /// Opens `path`. `None` where the kernel or the file system cannot tell what is cached: then it is read and sent
    /// instead. In a simulation that is so half of the time.
    pub async fn open(path: &Path) -> io::Result<Option<CachedFile>> {
        match &core::current().backend {
            Backend::Ring(driver) => {
                let file = ring::CachedFile::open(driver, path).await?;
                Ok(file.map(|file| CachedFile(CachedKind::Ring(file))))
            }
            Backend::Sim(_) if random::u64() & 1 == 0 => Ok(None),
            Backend::Sim(_) => {
                let content = read(path).await?;
                Ok(Some(CachedFile(CachedKind::Sim(content.into()))))
            }
        }
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    pub async fn read_at(&self, mut buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        match (&self.0, &core::current().backend) {
            (CachedKind::Ring(file), Backend::Ring(driver)) => file.read_at(driver, buf, offset).await,
            (CachedKind::Sim(content), _) => {
                let rest = usize::try_from(offset).ok().and_then(|from| content.get(from..)).unwrap_or(&[]);
                let count = rest.len().min(buf.len());
                buf[..count].copy_from_slice(&rest[..count]);
                (Ok(count), buf)
            }
            _ => unreachable!("a file of another backend"),
        }
    }

    /// Lets go of the pages that lie wholly within `range`, as far as nobody uses them.
    pub async fn forget(&self, range: Range<u64>) -> io::Result<()> {
        match (&self.0, &core::current().backend) {
            (CachedKind::Ring(file), Backend::Ring(driver)) => file.forget(driver, range).await,
            (CachedKind::Sim(_), _) => Ok(()),
            _ => unreachable!("a file of another backend"),
        }
    }

    /// The bytes of `range`, to be sent: no memory but a reference that keeps the file open.
    pub fn region(&self, range: Range<u64>) -> FileRegion {
        assert!(range.start <= range.end, "a region starts before its end");
        FileRegion { file: self.clone(), range }
    }
}

/// Consecutive bytes of a [`CachedFile`], for [`crate::net::Stream::send_file`]. It may go to other cores.
#[derive(Clone, Debug)]
pub struct FileRegion {
    file: CachedFile,
    range: Range<u64>,
}

impl FileRegion {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).expect("regions fit usize")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Where it lies in its file.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Takes the first `count` bytes off.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn split_to(&mut self, count: usize) -> FileRegion {
        assert!(count <= self.len(), "a region of {} bytes has no {count}", self.len());
        let middle = self.range.start + count as u64;
        let first = FileRegion { file: self.file.clone(), range: self.range.start..middle };
        self.range.start = middle;
        first
    }

    pub(crate) fn file(&self) -> &CachedKind {
        &self.file.0
    }
}

/// Declares a path operation that either backend carries out.
macro_rules! path_operation {
    ($(#[$doc:meta])* $name:ident($($arg:ident),+) -> $output:ty) => {
        $(#[$doc])*
        pub async fn $name($($arg: &Path),+) -> io::Result<$output> {
            match &core::current().backend {
                Backend::Ring(driver) => ring::path::$name(driver, $($arg),+).await,
                Backend::Sim(driver) => driver.disk().$name($($arg),+).await,
            }
        }
    };
}

path_operation! {
    /// Creates a directory and the missing ones above it.
    create_dir_all(path) -> ()
}
path_operation! {
    /// Removes a file.
    remove_file(path) -> ()
}
path_operation! {
    /// Removes a directory with all that is in it; a missing one is no error.
    remove_dir_all(path) -> ()
}
path_operation! {
    /// Renames, replacing a file at `to`.
    rename(from, to) -> ()
}
path_operation! {
    /// Makes creations, renames and removals in a directory durable.
    sync_dir(path) -> ()
}
path_operation! {
    /// Puts everything on stable storage that anybody has written to the file system that holds `path` (`syncfs`).
    sync_file_system(path) -> ()
}
path_operation! {
    /// What is in a directory, sorted by name.
    read_dir(path) -> Vec<DirEntry>
}
path_operation! {
    /// Whether something is there.
    exists(path) -> bool
}
path_operation! {
    /// Bytes free for an unprivileged process on the file system that holds `path`.
    free_bytes(path) -> u64
}
path_operation! {
    /// Bytes that the file system that holds `path` has in all.
    total_bytes(path) -> u64
}

/// Reads, writes and syncs of files that this core has under way.
pub fn operations_under_way() -> usize {
    match &core::current().backend {
        Backend::Ring(driver) => driver.file_operations(),
        Backend::Sim(driver) => driver.disk_operations(),
    }
}

/// The whole of a small file.
pub async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path, OpenOptions { read: true, ..OpenOptions::default() }).await?;
    let len = usize::try_from(file.len().await?).map_err(io::Error::other)?;
    let (read, mut buf) = file.read_at(AlignedBuf::for_reading(len), 0).await;
    buf.truncate(read?);
    Ok(buf.to_vec())
}

/// Replaces `path` by `contents` so that a crash leaves the old or the new file whole: a temporary file beside it,
/// synced, renamed over it, and the directory synced.
pub async fn write_atomic(path: &Path, contents: Vec<u8>) -> io::Result<()> {
    replace(path, contents).await?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent).await,
        _ => sync_dir(Path::new(".")).await,
    }
}

/// Like [`write_atomic`], but which of the two files a crash leaves is open until the caller has synced the directory:
/// once for several files.
pub async fn replace(path: &Path, contents: Vec<u8>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let options = OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() };
    let file = File::open(temporary, options).await?;
    if !contents.is_empty() {
        file.write_at(vec![Bytes::from(contents)], 0, WriteSync::None).await?;
    }
    file.sync_all().await?;
    drop(file);
    rename(temporary, path).await
}
