//! TCP, through the core's ring or the simulated network.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::core::{self, Backend};
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
        match &self.0 {
            StreamKind::Ring(stream) => stream.write_all(parts).await,
            StreamKind::Sim(stream) => stream.write_all(parts).await,
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
