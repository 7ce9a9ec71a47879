//! Files on the ring.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use io_uring::{opcode, squeue, types};

use super::driver::Driver;
use super::op::Op;
use crate::buf::{AlignedBuf, BLOCK_BYTES};
use crate::fs::{OpenOptions, WriteSync};

/// The kernel takes at most this many parts in one vectored write.
const IOVECS_MAX: usize = 1_024;

#[derive(Clone, Debug)]
pub(crate) struct File {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    driver: Driver,
    fd: OwnedFd,
    direct: bool,
}

/// A path as the kernel wants it.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path holds a zero byte"))
}

impl File {
    pub(crate) async fn open(driver: Driver, path: &Path, options: OpenOptions) -> io::Result<File> {
        let flags = open_flags(options);
        let opened = if options.direct {
            match open(&driver, path, flags | libc::O_DIRECT).await {
                // File systems without direct I/O say EINVAL, after creating the file where asked to.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    (open(&driver, path, flags & !libc::O_EXCL).await?, false)
                }
                opened => (opened?, true),
            }
        } else {
            (open(&driver, path, flags).await?, false)
        };
        let (fd, direct) = opened;
        Ok(File { shared: Rc::new(Shared { driver, fd, direct }) })
    }

    /// A file in `dir` that has no name and goes with its last clone.
    pub(super) async fn unnamed(driver: Driver, dir: &Path) -> io::Result<File> {
        let fd = open(&driver, dir, libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC).await?;
        Ok(File { shared: Rc::new(Shared { driver, fd, direct: false }) })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.shared.direct
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.shared.fd.as_raw_fd()
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.shared.fd.as_raw_fd())
    }

    /// Submits an operation that keeps this file open until it completes.
    fn submit<R: 'static>(
        &self,
        resources: R,
        build: impl FnOnce(types::Fd, &mut R) -> squeue::Entry,
    ) -> Op<(R, UnderWay)> {
        let fd = self.fd();
        Op::submit(&self.shared.driver.inner, (resources, UnderWay::new(self)), |(resources, _)| {
            build(fd, resources)
        })
    }

    pub(crate) async fn read_at(&self, buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        if self.shared.direct {
            assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && buf.len().is_multiple_of(BLOCK_BYTES));
        }
        let mut buf = buf;
        let mut filled = 0;
        while filled < buf.len() {
            let op = self.submit(buf, |fd, buf| {
                let rest = &mut buf[filled..];
                let len = u32::try_from(rest.len()).unwrap_or(!(BLOCK_BYTES as u32 - 1));
                opcode::Read::new(fd, rest.as_mut_ptr(), len).offset(offset + filled as u64).build()
            });
            let (result, (returned, _)) = op.await;
            buf = returned;
            match result {
                Ok(0) => break,
                Ok(read) => filled += read as usize,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buf),
            }
            // A direct read that ends off a block boundary has met the end of the file.
            if self.shared.direct && !filled.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        (Ok(filled), buf)
    }

    pub(crate) async fn write_at(&self, parts: Vec<Bytes>, offset: u64, sync: WriteSync) -> io::Result<()> {
        if self.shared.direct {
            let block = BLOCK_BYTES as u64;
            assert!(offset.is_multiple_of(block), "a direct write starts on a block");
            for part in &parts {
                let aligned = (part.as_ptr() as usize).is_multiple_of(BLOCK_BYTES);
                assert!(
                    aligned && part.len().is_multiple_of(BLOCK_BYTES),
                    "a direct write is of whole blocks"
                );
            }
        }
        let flags = match sync {
            WriteSync::None => 0,
            WriteSync::Data => libc::RWF_DSYNC,
        };
        let mut rest = Parts::new(parts);
        let mut offset = offset;
        while !rest.is_empty() {
            let op = self.submit(rest, |fd, rest| {
                let (iovecs, count) = rest.iovecs();
                opcode::Writev::new(fd, iovecs, count).offset(offset).rw_flags(flags).build()
            });
            let (result, (returned, _)) = op.await;
            rest = returned;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest.advance(written as usize);
                    offset += u64::from(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let op = self.submit((), |fd, ()| opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build());
        op.await.0.map(drop)
    }

    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        self.submit((), |fd, ()| opcode::Fsync::new(fd).build()).await.0.map(drop)
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let op = self.submit((), |fd, ()| opcode::Fallocate::new(fd, len).offset(offset).build());
        match op.await.0 {
            // File systems without preallocation (some network and overlay ones) get a longer file instead.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let end = offset + len;
                if self.len().await? < end { self.set_len(end).await } else { Ok(()) }
            }
            result => result.map(drop),
        }
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        // Ftruncate on the ring is younger (6.9) than the oldest kernel served; the call itself does not block long.
        let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
        // SAFETY: takes no pointers; the descriptor is open while `self` lives.
        let status = unsafe { libc::ftruncate(self.shared.fd.as_raw_fd(), len) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: fstat fills the structure it is given where it returns zero; the descriptor is open.
        let stat = unsafe {
            if libc::fstat(self.shared.fd.as_raw_fd(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            stat.assume_init()
        };
        Ok(stat.st_size as u64)
    }
}

/// An operation on a file, counted until it completes.
struct UnderWay(File);

impl UnderWay {
    fn new(file: &File) -> UnderWay {
        let count = &file.shared.driver.inner.file_operations;
        count.set(count.get() + 1);
        UnderWay(file.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let count = &self.0.shared.driver.inner.file_operations;
        count.set(count.get() - 1);
    }
}

fn open_flags(options: OpenOptions) -> libc::c_int {
    let access = match (options.read, options.write) {
        (_, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (true, true) => libc::O_RDWR,
    };
    let mut flags = access | libc::O_CLOEXEC;
    if options.create || options.create_new {
        flags |= libc::O_CREAT;
    }
    if options.create_new {
        flags |= libc::O_EXCL;
    }
    if options.truncate {
        flags |= libc::O_TRUNC;
    }
    flags
}

pub(super) async fn open(driver: &Driver, path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    const MODE: libc::mode_t = 0o640;
    let op = Op::submit(&driver.inner, c_path(path)?, |path| {
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(flags).mode(MODE).build()
    })
    .yielding_fd();
    let fd = op.await.0?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What remains to be written or sent, with the vector that shows it to the kernel.
pub(super) struct Parts {
    parts: Vec<Bytes>,
    /// Parts before this one are done.
    first: usize,
    iovecs: Vec<libc::iovec>,
}

impl Parts {
    pub(super) fn new(mut parts: Vec<Bytes>) -> Parts {
        parts.retain(|part| !part.is_empty());
        Parts { iovecs: Vec::with_capacity(parts.len().min(IOVECS_MAX)), parts, first: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == self.parts.len()
    }

    /// Points the vector at what remains; valid while this stays where it is.
    pub(super) fn iovecs(&mut self) -> (*const libc::iovec, u32) {
        self.iovecs.clear();
        self.iovecs.extend(
            self.parts[self.first..]
                .iter()
                .take(IOVECS_MAX)
                .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }),
        );
        (self.iovecs.as_ptr(), self.iovecs.len() as u32)
    }

    pub(super) fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let part = &mut self.parts[self.first];
            let step = written.min(part.len());
            part.advance(step);
            written -= step;
            if part.is_empty() {
                self.first += 1;
            }
        }
    }
}
