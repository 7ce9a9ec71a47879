//! TCP, through the core's ring or the simulated network.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::core::{self, Backend};
use crate::fs::{CachedKind, FileRegion};
use crate::{ring, sim};

/// A listening socket of one core. Every core binds its own to the same address and the kernel spreads the
/// connections (`SO_REUSEPORT`).
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Ring(ring::Listener),
    Sim(sim::SimListener),
}

impl Listener {
    /// Listens on `addr`; port 0 takes a free one.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        Ok(Listener(match &core::current().backend {
            Backend::Ring(driver) => ListenerKind::Ring(ring::Listener::bind(driver.clone(), addr)?),
            Backend::Sim(driver) => ListenerKind::Sim(driver.bind(addr)?),
        }))
    }

    /// Fails with [`io::ErrorKind::AddrInUse`] where anybody else listens on `addr`, which [`Listener::bind`] cannot
    /// tell: sockets of one user share a port under `SO_REUSEPORT`, also between processes. Ask before the first bind.
    pub fn check_free(addr: SocketAddr) -> io::Result<()> {
        match &core::current().backend {
            Backend::Ring(_) => ring::Listener::check_free(addr),
            Backend::Sim(_) => Ok(()),
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            ListenerKind::Ring(listener) => listener.local_addr(),
            ListenerKind::Sim(listener) => listener.local_addr(),
        }
    }

    /// The next connection and its peer.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.0 {
            ListenerKind::Ring(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(StreamKind::Ring(stream)), peer))
            }
            ListenerKind::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(StreamKind::Sim(stream)), peer))
            }
        }
    }
}

/// A TCP connection without delay (`TCP_NODELAY`). One task may read while another writes. Clones share it; the last
/// one closes it.
#[derive(Clone, Debug)]
pub struct Stream(StreamKind);

#[derive(Clone, Debug)]
enum StreamKind {
    Ring(ring::Stream),
    Sim(sim::SimStream),
}

impl Stream {
    /// Connects to `addr`.
    pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        Ok(Stream(match &core::current().backend {
            Backend::Ring(driver) => StreamKind::Ring(ring::Stream::connect(driver.clone(), addr).await?),
            Backend::Sim(driver) => StreamKind::Sim(driver.connect(addr).await?),
        }))
    }

    /// Appends what arrives to the spare capacity of `buf`, which must not be empty. `Ok(0)`: the peer is done.
    pub async fn read(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        assert!(buf.capacity() > buf.len(), "a read needs spare capacity");
        match &self.0 {
            StreamKind::Ring(stream) => stream.read(buf).await,
            StreamKind::Sim(stream) => stream.read(buf).await,
        }
    }

    /// Sends all of `parts`, one after the other, without gathering them first.
    pub async fn write_all(&self, parts: Vec<Bytes>) -> io::Result<()> {
        self.write(parts, false).await
    }

    /// As [`Stream::write_all`], for what is followed at once by more: the last packet may wait for that.
    pub async fn write_all_before_more(&self, parts: Vec<Bytes>) -> io::Result<()> {
        self.write(parts, true).await
    }

    async fn write(&self, parts: Vec<Bytes>, more: bool) -> io::Result<()> {
        match &self.0 {
            StreamKind::Ring(stream) => stream.write_all(parts, more).await,
            StreamKind::Sim(stream) => stream.write_all(parts).await,
        }
    }

    /// Sends the bytes of a file without copying them in user space. The file stays open meanwhile; should it have
    /// become shorter than the region, that is an [`io::ErrorKind::UnexpectedEof`].
    pub async fn send_file(&self, region: FileRegion) -> io::Result<()> {
        match (&self.0, region.file()) {
            (StreamKind::Ring(stream), CachedKind::Ring(file)) => {
                stream.send_file(file, region.range()).await
            }
            (StreamKind::Sim(stream), CachedKind::Sim(content)) => {
                let range = region.range();
                let sent = content.get(range.start as usize..range.end as usize);
                let sent = sent.ok_or(io::ErrorKind::UnexpectedEof)?;
                let sends = &core::current().file_sends;
                sends.add_call(sent.len() as u64, false);
                stream.write_all(vec![content.slice_ref(sent)]).await
            }
            _ => unreachable!("a file of another backend"),
        }
    }

    /// Ends both directions and wakes whoever reads or writes.
    pub fn shutdown(&self) {
        match &self.0 {
            StreamKind::Ring(stream) => stream.shutdown(),
            StreamKind::Sim(stream) => stream.shutdown(),
        }
    }

    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        match &self.0 {
            StreamKind::Ring(stream) => stream.peer_addr(),
            StreamKind::Sim(stream) => stream.peer_addr(),
        }
    }
}

/// What a core has sent by [`Stream::send_file`], counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSendCounts {
    /// Bytes handed to sockets.
    pub bytes: u64,
    /// System calls that did so, or found the socket full.
    pub calls: u64,
    /// Calls that had to wait, for the disk most likely, and the core with them.
    pub stalls: u64,
    /// Times that a connection waited for pages, and nothing but that connection.
    pub waits: u64,
    /// Bytes that were not in the page cache when their turn came.
    pub missed_bytes: u64,
}

/// What this core has sent out of files so far.
pub fn file_sends() -> FileSendCounts {
    core::current().file_sends.0.get()
}

/// The counters behind [`file_sends`].
#[derive(Debug, Default)]
pub(crate) struct FileSends(Cell<FileSendCounts>);

impl FileSends {
    fn change(&self, change: impl FnOnce(&mut FileSendCounts)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }

    pub(crate) fn add_call(&self, sent: u64, stalled: bool) {
        self.change(|counts| {
            counts.calls += 1;
            counts.bytes += sent;
            counts.stalls += u64::from(stalled);
        });
    }

    pub(crate) fn add_wait(&self) {
        self.change(|counts| counts.waits += 1);
    }

    pub(crate) fn add_missed(&self, bytes: u64) {
        self.change(|counts| counts.missed_bytes += bytes);
    }
}
