//! TCP on the ring.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::driver::Driver;
use super::file::Parts;
use super::op::Op;

/// Connections that the kernel holds for us until we accept them.
pub(crate) const BACKLOG: i32 = 1_024;

#[derive(Debug)]
pub(crate) struct Listener {
    driver: Driver,
    socket: Rc<Socket>,
    local: SocketAddr,
    /// The accept under way; it outlives the futures that wait for it, or a dropped one might take a connection along.
    accepting: RefCell<Option<Op<Incoming>>>,
}

impl Listener {
    pub(crate) fn bind(driver: Driver, addr: SocketAddr) -> io::Result<Listener> {
        let socket = new_socket(addr)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let local = socket.local_addr()?.as_socket().expect("an IP socket has an IP address");
        Ok(Listener { driver, socket: Rc::new(socket), local, accepting: RefCell::default() })
    }

    pub(crate) fn check_free(addr: SocketAddr) -> io::Result<()> {
        if addr.port() == 0 {
            return Ok(());
        }
        let socket = new_socket(addr)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(1)
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. Dropping the future loses none: the next call goes on with the same accept.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (result, incoming) = poll_fn(|cx| {
            let mut accepting = self.accepting.borrow_mut();
            let op = accepting.get_or_insert_with(|| self.submit_accept());
            let completed = ready!(op.poll_unpin(cx));
            *accepting = None;
            Poll::Ready(completed)
        })
        .await;
        let fd = result?;
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        let peer = incoming.peer().ok_or_else(|| io::Error::other("a peer without an IP address"))?;
        Ok((Stream::new(self.driver.clone(), socket, peer)?, peer))
    }

    fn submit_accept(&self) -> Op<Incoming> {
        let fd = types::Fd(self.socket.as_raw_fd());
        Op::submit(&self.driver.inner, Incoming::new(self.socket.clone()), |incoming| {
            let (address, len) = incoming.pointers();
            opcode::Accept::new(fd, address, len).flags(libc::SOCK_CLOEXEC).build()
        })
        .cancelled_on_drop()
        .yielding_fd()
    }
}

/// Where the kernel puts the address of an accepted peer; keeps the listening socket open meanwhile.
struct Incoming {
    storage: SockAddrStorage,
    len: libc::socklen_t,
    _listener: Rc<Socket>,
}

impl Incoming {
    fn new(listener: Rc<Socket>) -> Incoming {
        let storage = SockAddrStorage::zeroed();
        Incoming { len: storage.size_of(), storage, _listener: listener }
    }

    fn pointers(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        ((&raw mut self.storage).cast(), &raw mut self.len)
    }

    fn peer(self) -> Option<SocketAddr> {
        // SAFETY: the kernel has filled in `len` bytes of the storage.
        unsafe { SockAddr::new(self.storage, self.len) }.as_socket()
    }
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))
}

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    driver: Driver,
    socket: Socket,
    peer: SocketAddr,
}

impl Stream {
    fn new(driver: Driver, socket: Socket, peer: SocketAddr) -> io::Result<Stream> {
        socket.set_tcp_nodelay(true)?;
        Ok(Stream { shared: Rc::new(Shared { driver, socket, peer }) })
    }

    pub(crate) async fn connect(driver: Driver, addr: SocketAddr) -> io::Result<Stream> {
        let socket = new_socket(addr)?;
        let fd = types::Fd(socket.as_raw_fd());
        let op = Op::submit(&driver.inner, (SockAddr::from(addr), socket), |(address, _)| {
            opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
        })
        .cancelled_on_drop();
        let (result, (_, socket)) = op.await;
        result?;
        Stream::new(driver, socket, addr)
    }

    pub(super) fn fd(&self) -> types::Fd {
        types::Fd(self.raw_fd())
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.shared.socket.as_raw_fd()
    }

    pub(super) fn driver(&self) -> &Driver {
        &self.shared.driver
    }

    pub(crate) async fn read(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let fd = self.fd();
        let op = Op::submit(&self.shared.driver.inner, (buf, self.clone()), |(buf, _)| {
            let spare = buf.spare_capacity_mut();
            let len = u32::try_from(spare.len()).unwrap_or(u32::MAX);
            opcode::Recv::new(fd, spare.as_mut_ptr().cast(), len).build()
        })
        .cancelled_on_drop();
        let (result, (mut buf, _)) = op.await;
        let read = match result {
            Ok(read) => read as usize,
            Err(error) => return (Err(error), buf),
        };
        let filled = buf.len() + read;
        assert!(filled <= buf.capacity());
        // SAFETY: the kernel has initialised `read` bytes behind the old length.
        unsafe { buf.set_len(filled) };
        (Ok(read), buf)
    }

    pub(crate) async fn write_all(&self, parts: Vec<Bytes>, more: bool) -> io::Result<()> {
        let fd = self.fd();
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        let mut rest = Outgoing { parts: Parts::new(parts), header: empty_header() };
        while !rest.parts.is_empty() {
            let op = Op::submit(&self.shared.driver.inner, (rest, self.clone()), |(rest, _)| {
                let header = rest.header();
                opcode::SendMsg::new(fd, header).flags(flags as u32).build()
            })
            .cancelled_on_drop();
            let (result, (returned, _)) = op.await;
            rest = returned;
            rest.parts.advance(result? as usize);
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        // A peer that has closed already makes this fail, which changes nothing.
        drop(self.shared.socket.shutdown(Shutdown::Both));
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.shared.peer
    }
}

/// A message header and what it points to.
struct Outgoing {
    parts: Parts,
    header: libc::msghdr,
}

impl Outgoing {
    fn header(&mut self) -> *const libc::msghdr {
        let (iovecs, count) = self.parts.iovecs();
        self.header.msg_iov = iovecs.cast_mut();
        self.header.msg_iovlen = count as usize;
        &raw const self.header
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all zeros is a header without name, data and control: null pointers and zero lengths.
    unsafe { std::mem::zeroed() }
}
