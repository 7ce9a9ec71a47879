//! Sending parts of files without a copy in user space: sendfile(2) of pages that are there.
//!
//! sendfile(2) waits for the disk whatever its flags, so it is asked only for what the page cache holds, and what that
//! lacks is awaited on the ring first. A full socket is awaited on the ring too.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::opcode;

use super::cached::{CHUNK_BYTES, CachedFile};
use super::op::Op;
use super::socket::Stream;
use crate::core;

/// A call that took less has not waited for the disk.
const STALL_MIN: Duration = Duration::from_micros(100);

impl Stream {
    /// Sends the bytes of `range`.
    pub(crate) async fn send_file(&self, file: &CachedFile, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        // What lies before this was in the page cache a moment ago.
        let mut ready = at;
        while at < range.end {
            if at == ready {
                ready = range.end.min(at + CHUNK_BYTES);
                file.ready(self.driver(), at..ready).await?;
            }
            match self.send_cached(file, at..ready) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    at += sent;
                    self.driver().yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable().await?;
                    ready = at;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One call. The socket must not make it wait, and the ring's operations want a socket that may: one that is
    /// non-blocking fails them with EAGAIN. So it is non-blocking for the length of this call, in which nothing else
    /// runs; operations under way have taken note of the flag at their start.
    fn send_cached(&self, file: &CachedFile, range: Range<u64>) -> io::Result<u64> {
        let mut offset = libc::off_t::try_from(range.start).map_err(io::Error::other)?;
        let count = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let (begun, waits) = (self.driver().now(), waits_of_this_thread());
        self.set_nonblocking(true)?;
        // SAFETY: the kernel reads and writes `offset` alone; both descriptors are open.
        let sent = unsafe { libc::sendfile(self.raw_fd(), file.fd().as_raw_fd(), &raw mut offset, count) };
        let sent = u64::try_from(sent).map_err(|_| io::Error::last_os_error());
        self.set_nonblocking(false)?;
        let took = self.driver().now().saturating_duration_since(begun);
        // Time alone would count the times in which others had the CPU.
        let stalled = took >= STALL_MIN && waits_of_this_thread() != waits;
        core::current().file_sends.add_call(*sent.as_ref().unwrap_or(&0), stalled);
        sent
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let value = libc::c_int::from(nonblocking);
        // SAFETY: the kernel reads one integer; the descriptor is open.
        let status = unsafe { libc::ioctl(self.raw_fd(), libc::FIONBIO, &raw const value) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Resolves when the socket takes bytes, or never will: the next call has the error.
    async fn writable(&self) -> io::Result<()> {
        let fd = self.fd();
        let op = Op::submit(&self.driver().inner, self.clone(), |_| {
            opcode::PollAdd::new(fd, libc::POLLOUT as u32).build()
        })
        .cancelled_on_drop();
        op.await.0.map(drop)
    }
}

/// How often this thread has given up the CPU because it had to wait.
fn waits_of_this_thread() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure it is given, for which all zeros are a value as well.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_nvcsw
    }
}
