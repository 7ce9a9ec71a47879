//! Files behind the page cache: what is there, bringing in what is not, and letting go of it.
//!
//! The kernel's own readahead brings the pages in: it makes large folios of a stream, where `POSIX_FADV_WILLNEED` makes
//! single pages, at twice the cost (ARCHITECTURE.md has the figures). It is set going by a read that must not wait
//! (`RWF_NOWAIT`), and awaited on the ring by a read of one byte, which waits for its page without a kernel thread.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use io_uring::{opcode, types};

use super::driver::Driver;
use super::file;
use super::op::Op;
use crate::buf::AlignedBuf;
use crate::core;

/// What is brought in and sent at once, at most.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;
/// How often one chunk's pages are asked for. Pages may be reclaimed as fast as they come; then the sender waits.
const ROUNDS_MAX: u32 = 8;
/// Bytes that nobody wants land here.
const SCRATCH_BYTES: usize = 4 << 10;
const SCRATCH_PARTS_MAX: usize = CHUNK_BYTES as usize / SCRATCH_BYTES;
/// The same on every architecture that has had it since its birth in Linux 6.5.
const SYS_CACHESTAT: libc::c_long = 451;

/// Whether the kernel tells what is in the page cache, and this process may ask.
pub(crate) fn has_cachestat() -> bool {
    // SAFETY: without a file the call looks at nothing else.
    let status = unsafe { libc::syscall(SYS_CACHESTAT, -1, 0_usize, 0_usize, 0_u32) };
    status < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}

/// A file opened for reading through the page cache. Clones share it, on any core.
#[derive(Clone, Debug)]
pub(crate) struct CachedFile {
    fd: Arc<OwnedFd>,
    page_bytes: u64,
}

impl CachedFile {
    /// `None` where the kernel has no `cachestat`, or the file system no reads that must not wait.
    pub(crate) async fn open(driver: &Driver, path: &Path) -> io::Result<Option<CachedFile>> {
        let fd = file::open(driver, path, libc::O_RDONLY | libc::O_CLOEXEC).await?;
        // SAFETY: takes no pointers.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_bytes = u64::try_from(page_bytes).map_err(io::Error::other)?;
        let file = CachedFile { fd: Arc::new(fd), page_bytes };
        let suited = file.cached_pages(0..1).is_ok()
            && match file.touch(0..1) {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
        // Readers stream, and this doubles the window in which the kernel reads ahead. Only advice: it may fail.
        // SAFETY: takes no pointers; the descriptor is open.
        unsafe { libc::posix_fadvise(file.fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
        Ok(suited.then_some(file))
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file. What is cached is taken at once.
    pub(crate) async fn read_at(
        &self,
        driver: &Driver,
        mut buf: AlignedBuf,
        offset: u64,
    ) -> (io::Result<usize>, AlignedBuf) {
        let part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: the part is the whole of `buf`, which nobody else uses.
        let mut filled = unsafe { self.read_without_waiting(&[part], offset) }.unwrap_or(0);
        while filled < buf.len() {
            let fd = types::Fd(self.fd.as_raw_fd());
            let op = Op::submit(&driver.inner, (buf, self.clone()), |(buf, _)| {
                let rest = &mut buf[filled..];
                let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
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
        }
        (Ok(filled), buf)
    }

    /// Has the kernel drop the pages that lie wholly within `range`, as far as nobody uses them. On a kernel thread:
    /// it may wait for other CPUs to let go of pages.
    pub(crate) async fn forget(&self, driver: &Driver, range: Range<u64>) -> io::Result<()> {
        let fd = types::Fd(self.fd.as_raw_fd());
        let (mut at, end) = (range.start, range.end);
        while at < end {
            // The operation's length has 32 bits.
            let len = (end - at).min(1 << 30);
            let op = Op::submit(&driver.inner, self.clone(), |_| {
                opcode::Fadvise::new(fd, len as libc::off_t, libc::POSIX_FADV_DONTNEED).offset(at).build()
            });
            op.await.0?;
            at += len;
        }
        Ok(())
    }

    /// Resolves when `range`, at most [`CHUNK_BYTES`], is in the page cache, as far as can be told.
    pub(super) async fn ready(&self, driver: &Driver, range: Range<u64>) -> io::Result<()> {
        assert!(!range.is_empty() && range.end - range.start <= CHUNK_BYTES);
        let pages = (range.end - 1) / self.page_bytes - range.start / self.page_bytes + 1;
        for round in 0..ROUNDS_MAX {
            let missing = pages.saturating_sub(self.cached_pages(range.clone())?);
            if round == 0 {
                core::current().file_sends.add_missed(missing * self.page_bytes);
            }
            // Pages that are on their way count as cached. A stream's come in order, so the last tells of the others.
            let asked = if missing == 0 { range.end - 1..range.end } else { range.clone() };
            let there = match self.touch(asked.clone()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if there >= asked.end - asked.start {
                return Ok(());
            }
            core::current().file_sends.add_wait();
            self.arrived(driver, asked.start + there).await?;
        }
        Ok(())
    }

    /// Waits for the page with the byte at `position`.
    async fn arrived(&self, driver: &Driver, position: u64) -> io::Result<()> {
        let fd = types::Fd(self.fd.as_raw_fd());
        let op = Op::submit(&driver.inner, ([0_u8; 1], self.clone()), |(byte, _)| {
            opcode::Read::new(fd, byte.as_mut_ptr(), 1).offset(position).build()
        });
        match op.await.0 {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Pages of `range` that are in the page cache, or on their way there.
    fn cached_pages(&self, range: Range<u64>) -> io::Result<u64> {
        #[repr(C)]
        struct Asked {
            offset: u64,
            len: u64,
        }
        #[repr(C)]
        #[derive(Default)]
        struct Found {
            cached: u64,
            _dirty: u64,
            _writeback: u64,
            _evicted: u64,
            _recently_evicted: u64,
        }
        let asked = Asked { offset: range.start, len: range.end - range.start };
        let mut found = Found::default();
        // SAFETY: the kernel reads one structure and fills the other, both laid out as cachestat(2) has them.
        let status = unsafe {
            libc::syscall(SYS_CACHESTAT, self.fd.as_raw_fd(), &raw const asked, &raw mut found, 0_u32)
        };
        if status == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
    }

    /// Sets the readahead going for `range`, at most [`CHUNK_BYTES`], unless it starts with what is cached: that
    /// many bytes, or [`io::ErrorKind::WouldBlock`] for none.
    fn touch(&self, range: Range<u64>) -> io::Result<usize> {
        let mut scratch = [MaybeUninit::<u8>::uninit(); SCRATCH_BYTES];
        let part = libc::iovec { iov_base: scratch.as_mut_ptr().cast(), iov_len: SCRATCH_BYTES };
        let mut parts = [part; SCRATCH_PARTS_MAX];
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let count = len.div_ceil(SCRATCH_BYTES);
        parts[count - 1].iov_len = len - (count - 1) * SCRATCH_BYTES;
        // SAFETY: all parts lie in `scratch`, which is of bytes that need no initial value and are never looked at.
        unsafe { self.read_without_waiting(&parts[..count], range.start) }
    }

    /// Reads what is cached from `offset` on.
    ///
    /// # Safety
    /// The kernel must be free to write to all that `parts` point to.
    unsafe fn read_without_waiting(&self, parts: &[libc::iovec], offset: u64) -> io::Result<usize> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let (fd, count) = (self.fd.as_raw_fd(), parts.len() as libc::c_int);
        // SAFETY: the caller answers for what the parts point to.
        let read = unsafe { libc::preadv2(fd, parts.as_ptr(), count, offset, libc::RWF_NOWAIT) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}
