//! The simulated network: streams between nodes with latency, segmentation, back-pressure, resets and cuts.
//!
//! A connection is a [`Link`] of two pipes. Everything that crosses a pipe is a segment that arrives after a seeded
//! time, in order. A cut holds segments back, as lost packets that will be sent again; healing lets them through.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use futures::channel::oneshot;

use super::world::{Occurrence, World};
use crate::sync::Event;

const LOOPBACK_NS: (u64, u64) = (3_000, 50_000);
const REMOTE_NS: (u64, u64) = (20_000, 500_000);
/// One segment in a hundred takes this long: queues, or a lost packet sent again.
const HICCUP_NS: (u64, u64) = (2_000_000, 30_000_000);
const HICCUP_PPM: u32 = 10_000;

/// Bytes under way and unread in one direction, after which a writer waits.
const PIPE_BYTES_MAX: usize = 128 << 10;
const SEGMENT_BYTES_MAX: usize = 64 << 10;
const BACKLOG_MAX: usize = 128;

/// A connection attempt without an answer is repeated after a second, then two, four…, and given up after this many.
const CONNECT_ATTEMPTS: u32 = 7;
const CONNECT_RETRY_NS: u64 = 1_000_000_000;

const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// The address of a node: 10.0.0.1 is the first's.
pub(super) fn node_ip(node: usize) -> IpAddr {
    let [high, low] = u16::try_from(node + 1).expect("node counts fit u16").to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

#[derive(Default)]
pub(super) struct Network {
    listeners: RefCell<BTreeMap<SocketAddr, Vec<Rc<Listening>>>>,
    links: RefCell<BTreeMap<u64, Weak<Link>>>,
    last_link: Cell<u64>,
    last_port: Cell<u16>,
    /// Directed pairs of nodes between which nothing gets through.
    cuts: RefCell<BTreeSet<(usize, usize)>>,
}

struct Listening {
    node: usize,
    backlog: RefCell<VecDeque<Endpoint>>,
    arrived: Event,
}

impl Listening {
    /// Resets who waits to be accepted.
    fn turn_away(&self, world: &Rc<World>) {
        let backlog = std::mem::take(&mut *self.backlog.borrow_mut());
        for endpoint in backlog {
            endpoint.link.reset(world, endpoint.side);
        }
    }
}

impl Network {
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.cuts.borrow_mut().insert((from, to));
    }

    pub(super) fn heal(&self, world: &Rc<World>, from: usize, to: usize) {
        if self.cuts.borrow_mut().remove(&(from, to)) {
            for link in self.live_links() {
                for side in [0, 1] {
                    if (link.nodes[side], link.nodes[1 - side]) == (from, to) {
                        link.resume(world, side);
                    }
                }
            }
        }
    }

    pub(super) fn heal_all(&self, world: &Rc<World>) {
        let cuts = self.cuts.borrow().clone();
        cuts.into_iter().for_each(|(from, to)| self.heal(world, from, to));
    }

    /// Resets every connection of a node, as its machine does when it is asked again.
    pub(super) fn crash(&self, world: &Rc<World>, node: usize) {
        for link in self.live_links() {
            for side in [0, 1] {
                if link.nodes[side] == node {
                    link.reset(world, side);
                }
            }
        }
    }

    /// Closes the listeners of a node that has ended, also those that something of it still holds.
    pub(super) fn close_listeners(&self, world: &Rc<World>, node: usize) {
        let mut closed = Vec::new();
        self.listeners.borrow_mut().retain(|_, same| {
            closed.extend(same.extract_if(.., |listening| listening.node == node));
            !same.is_empty()
        });
        closed.iter().for_each(|listening| listening.turn_away(world));
    }

    fn live_links(&self) -> Vec<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        links.retain(|_, link| link.strong_count() > 0);
        links.values().filter_map(Weak::upgrade).collect()
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.borrow().contains(&(from, to))
    }

    fn free_port(&self) -> u16 {
        let port = self.last_port.get().wrapping_add(1).max(EPHEMERAL_PORT_MIN);
        self.last_port.set(port);
        port
    }

    fn bind(&self, node: usize, mut addr: SocketAddr) -> io::Result<(SocketAddr, Rc<Listening>)> {
        let mut listeners = self.listeners.borrow_mut();
        while addr.port() == 0 {
            let port = self.free_port();
            if listeners.keys().all(|taken| taken.port() != port) {
                addr.set_port(port);
            }
        }
        let same = listeners.entry(addr).or_default();
        // Every node has all addresses (0.0.0.0) of its own, but there is one loopback and one of each other.
        if !addr.ip().is_unspecified() && same.iter().any(|listening| listening.node != node) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let listening = Rc::new(Listening { node, backlog: RefCell::default(), arrived: Event::new() });
        same.push(listening.clone());
        Ok((addr, listening))
    }

    /// Who listens on `addr` as seen from `node`: one node's listeners, which share what comes.
    fn route(&self, node: usize, addr: SocketAddr) -> Vec<Rc<Listening>> {
        let listeners = self.listeners.borrow();
        let exact = listeners.get(&addr).cloned().unwrap_or_default();
        if !exact.is_empty() {
            return exact;
        }
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
        let any6 = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), addr.port());
        let candidates: Vec<_> =
            [any, any6].iter().filter_map(|any| listeners.get(any)).flatten().cloned().collect();
        let of =
            |node| candidates.iter().filter(|listening| listening.node == node).cloned().collect::<Vec<_>>();
        if !addr.ip().is_loopback() {
            let target =
                candidates.iter().map(|listening| listening.node).find(|&to| node_ip(to) == addr.ip());
            return target.map(of).unwrap_or_default();
        }
        let own = of(node);
        match candidates.first() {
            Some(first) if own.is_empty() => of(first.node),
            _ => own,
        }
    }

    fn latency(&self, world: &World, from: usize, to: usize) -> u64 {
        let usual = if from == to { LOOPBACK_NS } else { REMOTE_NS };
        let (low, high) = if from != to && world.rng.chance(HICCUP_PPM) { HICCUP_NS } else { usual };
        world.rng.between(low, high)
    }

    fn link(&self, nodes: [usize; 2], addrs: [SocketAddr; 2]) -> Rc<Link> {
        self.last_link.set(self.last_link.get() + 1);
        let link = Rc::new(Link { nodes, addrs, pipes: Default::default() });
        self.links.borrow_mut().insert(self.last_link.get(), Rc::downgrade(&link));
        link
    }
}

/// One attempt to connect, under way from `node`.
struct Connecting {
    world: Rc<World>,
    node: usize,
    addr: SocketAddr,
    attempts: u32,
    done: oneshot::Sender<io::Result<SimStream>>,
}

impl Connecting {
    /// The request leaves now.
    fn send(self) {
        let target = self.target();
        let latency = self.world.network.latency(&self.world, self.node, target.unwrap_or(self.node));
        let world = self.world.clone();
        let arrive = Occurrence::Network(Box::new(move || self.arrive(target)));
        world.at(world.now_ns() + latency, arrive);
    }

    /// The node asked, as far as the address tells.
    fn target(&self) -> Option<usize> {
        let listener = self.world.network.route(self.node, self.addr).first().map(|listening| listening.node);
        let nodes = self.world.nodes.borrow().len();
        listener.or_else(|| (0..nodes).find(|&node| node_ip(node) == self.addr.ip()))
    }

    /// The request is where it should be: a listener of that node takes it, by seed.
    fn arrive(self, target: Option<usize>) {
        if self.done.is_canceled() {
            return;
        }
        let world = self.world.clone();
        let network = &world.network;
        if let Some(target) = target
            && (network.is_cut(self.node, target) || network.is_cut(target, self.node))
        {
            return self.retry();
        }
        let listening = network.route(self.node, self.addr);
        if listening.is_empty() {
            let back = network.latency(&world, target.unwrap_or(self.node), self.node);
            return self.answer(back, Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        }
        let chosen = &listening[world.rng.index(listening.len())];
        if chosen.backlog.borrow().len() >= BACKLOG_MAX {
            return self.retry();
        }
        let own_ip = if self.addr.ip().is_loopback() { self.addr.ip() } else { node_ip(self.node) };
        let own = SocketAddr::new(own_ip, network.free_port());
        let link = network.link([self.node, chosen.node], [own, self.addr]);
        let endpoint = |side| Endpoint { world: world.clone(), link: link.clone(), side };
        chosen.backlog.borrow_mut().push_back(endpoint(1));
        chosen.arrived.notify_all();
        let back = network.latency(&world, chosen.node, self.node);
        self.answer(back, Ok(SimStream(Rc::new(endpoint(0)))));
    }

    fn answer(self, latency: u64, answer: io::Result<SimStream>) {
        let done = self.done;
        // Whoever asked may be gone; the stream closes then.
        let arrive = Occurrence::Network(Box::new(move || drop(done.send(answer))));
        self.world.at(self.world.now_ns() + latency, arrive);
    }

    fn retry(mut self) {
        self.attempts += 1;
        if self.attempts == CONNECT_ATTEMPTS {
            return self.answer(0, Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)));
        }
        let wait = CONNECT_RETRY_NS << (self.attempts - 1);
        let world = self.world.clone();
        world.at(world.now_ns() + wait, Occurrence::Network(Box::new(move || self.send())));
    }
}

/// A connection: side 0 opened it, side 1 accepted it. `pipes[s]` carries what side `s` sends.
struct Link {
    nodes: [usize; 2],
    addrs: [SocketAddr; 2],
    pipes: [RefCell<Pipe>; 2],
}

#[derive(Default)]
struct Pipe {
    under_way: VecDeque<Segment>,
    arrived: VecDeque<Bytes>,
    /// Bytes in both queues.
    held: usize,
    last_arrival: u64,
    /// Segments that should have arrived while their way was cut.
    stalled: usize,
    /// The sender will send no more.
    finished: bool,
    /// The sender can send no more: the connection was reset.
    broken: bool,
    /// The end, or a reset, has arrived.
    ended: bool,
    reset: bool,
    /// The receiver wants no more.
    discarding: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Data(Bytes),
    End,
    Reset,
}

impl Link {
    /// Puts a segment of `side` on its way.
    fn send(self: &Rc<Self>, world: &Rc<World>, side: usize, segment: Segment) {
        let mut pipe = self.pipes[side].borrow_mut();
        if let Segment::Data(bytes) = &segment {
            pipe.held += bytes.len();
        }
        pipe.under_way.push_back(segment);
        drop(pipe);
        self.schedule_arrival(world, side);
    }

    fn schedule_arrival(self: &Rc<Self>, world: &Rc<World>, side: usize) {
        let latency = world.network.latency(world, self.nodes[side], self.nodes[1 - side]);
        let mut pipe = self.pipes[side].borrow_mut();
        pipe.last_arrival = (world.now_ns() + latency).max(pipe.last_arrival);
        let (link, weak) = (self.clone(), Rc::downgrade(world));
        let arrive = move || {
            if let Some(world) = weak.upgrade() {
                link.arrive(&world, side);
            }
        };
        world.at(pipe.last_arrival, Occurrence::Network(Box::new(arrive)));
    }

    /// The oldest segment of `side` reaches the other side.
    fn arrive(self: &Rc<Self>, world: &Rc<World>, side: usize) {
        let mut pipe = self.pipes[side].borrow_mut();
        if world.network.is_cut(self.nodes[side], self.nodes[1 - side]) {
            pipe.stalled += 1;
            return;
        }
        match pipe.under_way.pop_front().expect("each arrival was scheduled for a segment") {
            Segment::Data(bytes) if pipe.discarding => {
                pipe.held -= bytes.len();
                drop(pipe);
                return self.reset(world, 1 - side);
            }
            Segment::Data(bytes) => pipe.arrived.push_back(bytes),
            Segment::End => pipe.ended = true,
            Segment::Reset => {
                pipe.reset = true;
                let writer = {
                    let mut other = self.pipes[1 - side].borrow_mut();
                    other.broken = true;
                    other.writer.take()
                };
                writer.into_iter().for_each(Waker::wake);
            }
        }
        let reader = pipe.reader.take();
        drop(pipe);
        reader.into_iter().for_each(Waker::wake);
    }

    fn resume(self: &Rc<Self>, world: &Rc<World>, side: usize) {
        let stalled = std::mem::take(&mut self.pipes[side].borrow_mut().stalled);
        (0..stalled).for_each(|_| self.schedule_arrival(world, side));
    }

    /// `side` closes: what it sent still arrives, then the end; what it has not read is gone.
    fn close(self: &Rc<Self>, world: &Rc<World>, side: usize) {
        self.stop_receiving(side);
        self.stop_sending(world, side, Segment::End);
    }

    /// `side` throws the connection away.
    fn reset(self: &Rc<Self>, world: &Rc<World>, side: usize) {
        self.stop_receiving(side);
        if self.pipes[side].borrow().broken {
            return;
        }
        self.pipes[side].borrow_mut().broken = true;
        self.pipes[side].borrow_mut().finished = false;
        self.stop_sending(world, side, Segment::Reset);
    }

    fn stop_receiving(&self, side: usize) {
        let mut pipe = self.pipes[1 - side].borrow_mut();
        pipe.discarding = true;
        pipe.held -= pipe.arrived.iter().map(Bytes::len).sum::<usize>();
        pipe.arrived.clear();
        let waiting = [pipe.reader.take(), pipe.writer.take()];
        drop(pipe);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    fn stop_sending(self: &Rc<Self>, world: &Rc<World>, side: usize, last: Segment) {
        let mut pipe = self.pipes[side].borrow_mut();
        if std::mem::replace(&mut pipe.finished, true) {
            return;
        }
        let writer = pipe.writer.take();
        drop(pipe);
        writer.into_iter().for_each(Waker::wake);
        self.send(world, side, last);
    }
}

/// One side of a connection; closes it when dropped.
struct Endpoint {
    world: Rc<World>,
    link: Rc<Link>,
    side: usize,
}

impl Endpoint {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut pipe = self.link.pipes[1 - self.side].borrow_mut();
        if pipe.discarding {
            return Poll::Ready(Ok(0));
        }
        if pipe.arrived.is_empty() {
            if pipe.reset {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNRESET)));
            }
            if pipe.ended {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // One read in four gets less than it could.
        let mut wanted = buf.capacity() - buf.len();
        if self.world.rng.below(4) == 0 {
            wanted = 1 + self.world.rng.index(wanted);
        }
        let mut count = 0;
        while count < wanted
            && let Some(first) = pipe.arrived.front_mut()
        {
            let part = first.split_to(first.len().min(wanted - count));
            buf.extend_from_slice(&part);
            count += part.len();
            if first.is_empty() {
                pipe.arrived.pop_front();
            }
        }
        pipe.held -= count;
        let writer = pipe.writer.take();
        drop(pipe);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    /// Sends some of `part`.
    fn poll_write(&self, cx: &mut Context<'_>, part: &mut Bytes) -> Poll<io::Result<()>> {
        let mut pipe = self.link.pipes[self.side].borrow_mut();
        if pipe.broken {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNRESET)));
        }
        if pipe.finished {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EPIPE)));
        }
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.held);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(pipe);
        let mut count = part.len().min(room).min(SEGMENT_BYTES_MAX);
        if self.world.rng.below(2) == 0 {
            count = 1 + self.world.rng.index(count);
        }
        let segment = part.split_to(count);
        self.link.send(&self.world, self.side, Segment::Data(segment));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.link.close(&self.world, self.side);
    }
}

/// A simulated connection. Clones share it.
#[derive(Clone)]
pub(crate) struct SimStream(Rc<Endpoint>);

impl SimStream {
    pub(super) async fn connect(world: Rc<World>, node: usize, addr: SocketAddr) -> io::Result<SimStream> {
        let (done, wait) = oneshot::channel();
        Connecting { world, node, addr, attempts: 0, done }.send();
        match wait.await {
            Ok(answer) => answer,
            // The simulation is over.
            Err(oneshot::Canceled) => std::future::pending().await,
        }
    }

    pub(crate) async fn read(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let read = poll_fn(|cx| self.0.poll_read(cx, &mut buf)).await;
        (read, buf)
    }

    pub(crate) async fn write_all(&self, parts: Vec<Bytes>) -> io::Result<()> {
        for mut part in parts {
            while part.has_remaining() {
                poll_fn(|cx| self.0.poll_write(cx, &mut part)).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        self.0.link.close(&self.0.world, self.0.side);
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.0.link.addrs[1 - self.0.side]
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream").field("peer", &self.peer_addr()).finish_non_exhaustive()
    }
}

/// A simulated listening socket of one core.
pub(crate) struct SimListener {
    world: Rc<World>,
    addr: SocketAddr,
    listening: Rc<Listening>,
}

impl SimListener {
    pub(super) fn bind(world: Rc<World>, node: usize, addr: SocketAddr) -> io::Result<SimListener> {
        let (addr, listening) = world.network.bind(node, addr)?;
        Ok(SimListener { world, addr, listening })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        loop {
            let arrived = self.listening.arrived.listen();
            let next = self.listening.backlog.borrow_mut().pop_front();
            if let Some(endpoint) = next {
                let stream = SimStream(Rc::new(endpoint));
                let peer = stream.peer_addr();
                return Ok((stream, peer));
            }
            arrived.await;
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut listeners = self.world.network.listeners.borrow_mut();
        if let Some(same) = listeners.get_mut(&self.addr) {
            same.retain(|listening| !Rc::ptr_eq(listening, &self.listening));
            if same.is_empty() {
                listeners.remove(&self.addr);
            }
        }
        drop(listeners);
        self.listening.turn_away(&self.world);
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("addr", &self.addr).finish_non_exhaustive()
    }
}
