//! The facade's files and paths on a simulated disk: the latency and the faults around [`Disk`] and [`Inode`].
//!
//! An operation takes effect when it completes, which is after a seeded time and therefore in any order. It goes on
//! when its future is dropped, as in a real ring.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::disk::{Disk, errno};
use super::inode::{Inode, SECTOR_BYTES};
use super::world::{CoreKey, Fate, World};
use crate::buf::{AlignedBuf, BLOCK_BYTES};
use crate::fs::{DeviceSync, DirEntry, OpenOptions, WriteSync};

const READ_NS: (u64, u64) = (10_000, 200_000);
const WRITE_NS: (u64, u64) = (15_000, 300_000);
const SYNC_NS: (u64, u64) = (50_000, 2_000_000);
const METADATA_NS: (u64, u64) = (5_000, 100_000);
/// One operation in a hundred takes this long: the device cleans up, or a neighbour is noisy.
const HICCUP_NS: (u64, u64) = (5_000_000, 40_000_000);
const HICCUP_PPM: u32 = 10_000;

/// A node's disk as one of its cores sees it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    world: Rc<World>,
    key: CoreKey,
    disk: Rc<RefCell<Disk>>,
}

impl SimDisk {
    pub(super) fn new(world: Rc<World>, key: CoreKey, disk: Rc<RefCell<Disk>>) -> SimDisk {
        SimDisk { world, key, disk }
    }

    pub(crate) async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<SimFile> {
        let (path, below) = (path.to_owned(), Rc::from(path));
        let opened = self.metadata(move |disk, context| {
            disk.check_device(&path)?;
            let inode = match disk.file(&path) {
                Ok(_) if options.create_new => return Err(errno(libc::EEXIST)),
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && (options.create || options.create_new) =>
                {
                    context.space(disk, 0, 0)?;
                    disk.create_file(&path)?
                }
                found => found?,
            };
            if options.truncate {
                inode.borrow_mut().set_len(0);
            }
            Ok(inode)
        });
        let inode = opened.await?;
        let device = Device(below);
        Ok(SimFile(Rc::new(OpenFile { disk: self.clone(), device, inode, options })))
    }

    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let change = move |disk: &mut Disk, context: &Context| {
            disk.check_device(&path)?;
            context.space(disk, 0, 0)?;
            disk.create_dir_all(&path)
        };
        self.metadata(change).await
    }

    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.path_change(path, Disk::remove_file).await
    }

    pub(crate) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.path_change(path, Disk::remove_dir_all).await
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        let rename = move |disk: &mut Disk, from: &Path| {
            disk.check_device(&to)?;
            disk.rename(from, &to)
        };
        self.path_change(from, rename).await
    }

    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let sync = move |disk: &mut Disk, context: &Context| match context.fate {
            Fate::Crashed => Ok(()),
            Fate::Completed if disk.check_device(&path).is_err() => disk.check_device(&path),
            Fate::Completed if context.fails(disk.faults.sync_error_ppm) => Err(errno(libc::EIO)),
            Fate::Completed => disk.sync_dir(&path),
        };
        self.operation(SYNC_NS, sync).await
    }

    pub(crate) async fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let sync = move |disk: &mut Disk, context: &Context| match context.fate {
            Fate::Crashed => Ok(()),
            Fate::Completed if disk.check_device(&path).is_err() => disk.check_device(&path),
            Fate::Completed if context.fails(disk.faults.sync_error_ppm) => Err(errno(libc::EIO)),
            Fate::Completed => {
                disk.sync_all();
                Ok(())
            }
        };
        self.operation(SYNC_NS, sync).await
    }

    pub(crate) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.path_query(path, Disk::read_dir).await
    }

    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.path_query(path, Disk::exists).await
    }

    pub(crate) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.path_query(path, |disk, _| Ok(disk.free_bytes())).await
    }

    pub(crate) async fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.path_query(path, |disk, _| Ok(disk.faults.capacity_bytes)).await
    }

    pub(crate) fn device(&self) -> SimDevice {
        SimDevice(self.clone())
    }

    fn path_change<F>(&self, path: &Path, change: F) -> impl Future<Output = io::Result<()>> + use<F>
    where
        F: FnOnce(&mut Disk, &Path) -> io::Result<()> + 'static,
    {
        let path: PathBuf = path.to_owned();
        self.metadata(move |disk, _| {
            disk.check_device(&path)?;
            change(disk, &path)
        })
    }

    fn path_query<T: 'static, F>(
        &self,
        path: &Path,
        query: F,
    ) -> impl Future<Output = io::Result<T>> + use<T, F>
    where
        F: FnOnce(&Disk, &Path) -> io::Result<T> + 'static,
    {
        let path: PathBuf = path.to_owned();
        self.metadata(move |disk, _| {
            disk.check_device(&path)?;
            query(disk, &path)
        })
    }

    fn metadata<T: 'static, F>(&self, operation: F) -> impl Future<Output = io::Result<T>> + use<T, F>
    where
        F: FnOnce(&mut Disk, &Context) -> io::Result<T> + 'static,
    {
        self.operation(METADATA_NS, operation)
    }

    /// Submits `operation`, to take effect after a time drawn from `latency`.
    fn operation<T: 'static, F>(
        &self,
        latency: (u64, u64),
        operation: F,
    ) -> impl Future<Output = T> + use<T, F>
    where
        F: FnOnce(&mut Disk, &Context) -> T + 'static,
    {
        let rng = &self.world.rng;
        let (low, high) = if rng.chance(HICCUP_PPM) { HICCUP_NS } else { latency };
        let latency = rng.between(low, high) * u64::from(self.disk.borrow().faults.slowness.max(1));
        let (world, disk) = (self.world.clone(), self.disk.clone());
        self.world.submit(self.key, latency, move |fate| {
            operation(&mut disk.borrow_mut(), &Context { world: &world, fate })
        })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("core", &self.key).finish_non_exhaustive()
    }
}

/// What an operation knows when it completes.
struct Context<'a> {
    world: &'a World,
    fate: Fate,
}

impl Context<'_> {
    fn fails(&self, per_million: u32) -> bool {
        self.world.rng.chance(per_million)
    }

    /// Whether a file may grow from `len` to `new_len`.
    fn space(&self, disk: &Disk, len: u64, new_len: u64) -> io::Result<()> {
        if self.fails(disk.faults.no_space_ppm) {
            return Err(errno(libc::ENOSPC));
        }
        disk.check_space(len, new_len)
    }
}

/// The device under a node's disk.
#[derive(Debug)]
pub(crate) struct SimDevice(SimDisk);

impl SimDevice {
    pub(crate) fn sync(&self) -> DeviceSync {
        self.0.disk.borrow().device_sync
    }

    /// Covers what is complete by now in places that are on stable storage. After a failure that is as open as before.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        if self.sync() == DeviceSync::PerFile {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let begin = |inode: Rc<RefCell<Inode>>| {
            let upto = inode.borrow_mut().begin_sync();
            (inode, upto)
        };
        let begun: Vec<_> = self.0.disk.borrow().files().cloned().map(begin).collect();
        let flush = move |disk: &mut Disk, context: &Context| {
            let failed = context.fate == Fate::Completed && context.fails(disk.faults.sync_error_ppm);
            for (inode, upto) in &begun {
                match context.fate {
                    Fate::Completed if !failed => inode.borrow_mut().end_flush(*upto),
                    _ => inode.borrow_mut().give_up_sync(),
                }
            }
            if failed { Err(errno(libc::EIO)) } else { Ok(()) }
        };
        self.0.operation(SYNC_NS, flush).await
    }
}

/// A file on a simulated disk. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimFile(Rc<OpenFile>);

/// Where a file was opened, which tells whether its device has died since.
#[derive(Clone)]
struct Device(Rc<Path>);

impl Device {
    fn check(&self, disk: &Disk) -> io::Result<()> {
        disk.check_device(&self.0)
    }
}

struct OpenFile {
    disk: SimDisk,
    device: Device,
    inode: Rc<RefCell<Inode>>,
    options: OpenOptions,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("options", &self.options).finish_non_exhaustive()
    }
}

impl SimFile {
    pub(crate) fn is_direct(&self) -> bool {
        self.0.options.direct
    }

    pub(crate) async fn read_at(&self, buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        self.assert_aligned("offset", offset);
        self.assert_aligned("length", buf.len() as u64);
        let end = buf.len();
        let cut = self.first_piece(end);
        let (first, buf) = self.read_piece(buf, 0..cut, offset).await;
        if cut == end || first.as_ref().ok() != Some(&cut) {
            return (first, buf);
        }
        let (rest, buf) = self.read_piece(buf, cut..end, offset).await;
        (rest.map(|count| cut + count), buf)
    }

    /// Fills `piece` of `buf`, whose first byte lies at `offset` of the file.
    async fn read_piece(
        &self,
        mut buf: AlignedBuf,
        piece: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, AlignedBuf) {
        let (inode, readable) = (self.0.inode.clone(), self.0.options.read);
        let device = self.0.device.clone();
        let read = move |disk: &mut Disk, context: &Context| {
            if !readable {
                return (Err(errno(libc::EBADF)), buf);
            }
            if let Err(error) = device.check(disk) {
                return (Err(error), buf);
            }
            if context.fails(disk.faults.read_error_ppm) {
                return (Err(errno(libc::EIO)), buf);
            }
            let offset = offset + piece.start as u64;
            let count = inode.borrow().read(offset, &mut buf[piece.clone()]);
            let read = &mut buf[piece.start..piece.start + count];
            disk.lie_about(&inode, offset, read, &context.world.rng);
            (Ok(count), buf)
        };
        self.0.disk.operation(READ_NS, read).await
    }

    pub(crate) async fn write_at(
        &self,
        mut parts: Vec<Bytes>,
        offset: u64,
        sync: WriteSync,
    ) -> io::Result<()> {
        self.assert_aligned("offset", offset);
        for part in &parts {
            self.assert_aligned("address", part.as_ptr().addr() as u64);
            self.assert_aligned("length", part.len() as u64);
        }
        self.assert_writable()?;
        let cut = self.first_piece(parts.iter().map(Bytes::len).sum());
        let rest = split_off(&mut parts, cut);
        self.write_piece(parts, offset, sync).await?;
        if rest.is_empty() { Ok(()) } else { self.write_piece(rest, offset + cut as u64, sync).await }
    }

    async fn write_piece(&self, parts: Vec<Bytes>, offset: u64, sync: WriteSync) -> io::Result<()> {
        let (inode, direct) = (self.0.inode.clone(), self.0.options.direct);
        let device = self.0.device.clone();
        let write = move |disk: &mut Disk, context: &Context| {
            device.check(disk)?;
            let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
            let old_len = inode.borrow().len();
            context.space(disk, old_len, old_len.max(offset + len))?;
            let durable = sync == WriteSync::Data && context.fate == Fate::Completed;
            if let Some(lie) = disk.lie_of_write(&inode, offset, len, &context.world.rng) {
                lie.carry_out(&inode, &parts, offset, durable);
                return Ok(());
            }
            let mut inode = inode.borrow_mut();
            // Of a failed write any number of sectors got through.
            let failed = context.fails(disk.faults.write_error_ppm);
            let sectors = len / SECTOR_BYTES;
            let allowed = if failed { context.world.rng.below(sectors + 1) * SECTOR_BYTES } else { len };
            write_parts(&mut inode, &parts, offset, allowed);
            if failed {
                return Err(errno(libc::EIO));
            }
            match sync {
                _ if context.fate == Fate::Crashed => {}
                WriteSync::Data => inode.sync_range(offset..offset + len),
                WriteSync::None if disk.device_sync == DeviceSync::NoCache && direct => {
                    let upto = inode.begin_sync();
                    inode.end_flush(upto);
                }
                WriteSync::None => {}
            }
            Ok(())
        };
        let latency = match sync {
            WriteSync::None => WRITE_NS,
            WriteSync::Data => SYNC_NS,
        };
        self.0.disk.operation(latency, write).await
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let upto = self.0.inode.borrow_mut().begin_sync();
        let (inode, device) = (self.0.inode.clone(), self.0.device.clone());
        let sync = move |disk: &mut Disk, context: &Context| {
            let mut inode = inode.borrow_mut();
            if context.fate == Fate::Crashed {
                return Ok(());
            }
            if device.check(disk).is_err() || context.fails(disk.faults.sync_error_ppm) {
                inode.fail_sync(upto);
                return Err(errno(libc::EIO));
            }
            inode.end_sync(upto);
            Ok(())
        };
        self.0.disk.operation(SYNC_NS, sync).await
    }

    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        self.sync_data().await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.assert_writable()?;
        let (inode, device) = (self.0.inode.clone(), self.0.device.clone());
        let allocate = move |disk: &mut Disk, context: &Context| {
            device.check(disk)?;
            let old_len = inode.borrow().len();
            context.space(disk, old_len, old_len.max(offset + len))?;
            inode.borrow_mut().allocate(offset + len);
            Ok(())
        };
        self.0.disk.metadata(allocate).await
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        self.assert_writable()?;
        let (inode, device) = (self.0.inode.clone(), self.0.device.clone());
        let set_len = move |disk: &mut Disk, _: &Context| {
            device.check(disk)?;
            inode.borrow_mut().set_len(len);
            Ok(())
        };
        self.0.disk.metadata(set_len).await
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let inode = self.0.inode.clone();
        self.0.disk.metadata(move |_, _| Ok(inode.borrow().len())).await
    }

    /// How much of a transfer of `len` bytes its first piece is: all of it, unless it comes out short.
    fn first_piece(&self, len: usize) -> usize {
        let (rng, faults) = (&self.0.disk.world.rng, self.0.disk.disk.borrow().faults);
        let unit = if self.0.options.direct { BLOCK_BYTES } else { 1 };
        if len <= unit || !rng.chance(faults.short_transfer_ppm) {
            return len;
        }
        unit * (1 + rng.index((len - 1) / unit))
    }

    fn assert_aligned(&self, what: &str, value: u64) {
        assert!(
            !self.0.options.direct || value.is_multiple_of(BLOCK_BYTES as u64),
            "direct I/O wants multiples of {BLOCK_BYTES}, but the {what} is {value}"
        );
    }

    fn assert_writable(&self) -> io::Result<()> {
        if self.0.options.write { Ok(()) } else { Err(errno(libc::EBADF)) }
    }
}

/// Leaves the first `at` bytes in `parts` and gives the rest.
fn split_off(parts: &mut Vec<Bytes>, mut at: usize) -> Vec<Bytes> {
    let mut rest = Vec::new();
    for part in std::mem::take(parts) {
        let kept = part.len().min(at);
        at -= kept;
        rest.push(part.slice(kept..));
        parts.push(part.slice(..kept));
    }
    parts.retain(|part| !part.is_empty());
    rest.retain(|part| !part.is_empty());
    rest
}

/// Writes the first `allowed` bytes of `parts`.
pub(super) fn write_parts(inode: &mut Inode, parts: &[Bytes], offset: u64, allowed: u64) {
    let mut at = 0;
    for part in parts {
        let count = (part.len() as u64).min(allowed - at);
        if count > 0 {
            inode.write(offset + at, &part[..count as usize]);
        }
        at += count;
    }
}
