//! Whole servers on the simulated network.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use heizer_runtime::fs::{self, CachedFile};
use heizer_runtime::net::Stream;
use heizer_runtime::sim::block_on;
use heizer_runtime::task::spawn;
use heizer_runtime::time::{now, sleep, timeout};

use crate::{Census, CloseReason, Limits, ListenerConfig, MemoryBudget, Reply, Request, Server, Service};

/// Answers after the milliseconds that the body starts with.
const ECHO: i16 = 100;
const NOTHING: i16 = 101;
const CLOSE: i16 = 102;
/// Answers with a mute of the milliseconds that the body starts with.
const MUTE: i16 = 103;
const PANIC: i16 = 104;
/// Answers 8 MiB.
const LARGE: i16 = 105;
/// Answers the body, then 3 MiB of a file, then the body once more.
const FILE: i16 = 106;
const FILE_BYTES: usize = 3 << 20;

/// A service whose answers the API key and the body choose.
#[derive(Default)]
struct Script {
    /// Correlation ids in the order of first polls.
    polled: RefCell<Vec<i32>>,
    running: Cell<usize>,
    running_most: Cell<usize>,
    finished: Cell<usize>,
    file: RefCell<Option<CachedFile>>,
    /// Counts the answers that have a file in them and have not left.
    held: Rc<()>,
}

impl Service for Script {
    fn call(self: &Rc<Self>, request: Request) -> impl Future<Output = Reply> + 'static {
        let script = Rc::clone(self);
        async move {
            let Request { header, body, lease: _lease, .. } = request;
            script.polled.borrow_mut().push(header.correlation_id);
            script.running.set(script.running.get() + 1);
            script.running_most.set(script.running_most.get().max(script.running.get()));
            let number = u64::from(u16::from_be_bytes([body[0], body[1]]));
            if header.api_key != MUTE && number > 0 {
                sleep(Duration::from_millis(number)).await;
            }
            script.running.set(script.running.get() - 1);
            script.finished.set(script.finished.get() + 1);
            let answer = |payload: Bytes| {
                let size = (4 + payload.len() as i32).to_be_bytes();
                let head = [size, header.correlation_id.to_be_bytes()].concat();
                vec![Bytes::from(head), payload]
            };
            match header.api_key {
                NOTHING => Reply::nothing(),
                CLOSE => Reply::Close,
                MUTE => {
                    let mute = Duration::from_millis(number);
                    Reply::Send { frame: answer(body), files: Vec::new(), mute, held: None }
                }
                PANIC => panic!("asked to"),
                FILE => {
                    let file = script.file.borrow().clone().expect("there is a file");
                    let size = (4 + 2 * body.len() + FILE_BYTES) as i32;
                    let head = [size.to_be_bytes(), header.correlation_id.to_be_bytes()].concat();
                    let frame = vec![Bytes::from(head), body.clone(), body];
                    let held = script.held.clone();
                    Reply::send_around(frame, vec![(2, file.region(1..1 + FILE_BYTES as u64))], Some(held))
                }
                LARGE => Reply::send(answer(vec![7; 8 << 20].into())),
                _ => Reply::send(answer(body)),
            }
        }
    }
}

/// A file whose bytes depend on where they are.
async fn file() -> CachedFile {
    let content: Vec<u8> = (0..FILE_BYTES + 10).map(|at| (at ^ (at >> 9)) as u8).collect();
    fs::write_atomic(Path::new("/file"), content).await.expect("written");
    // Half of the simulated opens find a system that is not up to it.
    loop {
        if let Some(file) = CachedFile::open(Path::new("/file")).await.expect("opened") {
            return file;
        }
    }
}

struct Fixture {
    server: Server<Script>,
    script: Rc<Script>,
    census: Arc<Census>,
    addr: SocketAddr,
}

impl Fixture {
    fn start(limits: Limits, budget_bytes: usize) -> Fixture {
        Fixture::start_with(limits, budget_bytes, Census::new(usize::MAX, usize::MAX))
    }

    fn start_with(limits: Limits, budget_bytes: usize, census: Arc<Census>) -> Fixture {
        let script = Rc::new(Script::default());
        let listener = ListenerConfig { name: "PLAINTEXT".into(), addr: "127.0.0.1:0".parse().unwrap() };
        let budget = MemoryBudget::new(budget_bytes, limits.request_bytes_max);
        let server =
            Server::bind(listener, limits, Arc::clone(&census), budget, Rc::clone(&script)).expect("bind");
        let addr = server.local_addr();
        let serving = server.clone();
        drop(spawn(async move { serving.serve().await }));
        Fixture { server, script, census, addr }
    }

    async fn connect(&self) -> Peer {
        Peer { stream: Stream::connect(self.addr).await.expect("connect"), buffer: BytesMut::new() }
    }

    async fn until(&self, what: &str, condition: impl Fn(&Fixture) -> bool) {
        for _ in 0..20_000 {
            if condition(self) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} never happened");
    }

    /// Nothing of any connection is left.
    async fn assert_empty(&self) {
        self.until("the last connection's end", |f| f.server.metrics().connections_current.get() == 0).await;
        let metrics = self.server.metrics();
        assert_eq!(self.server.budget().used(), 0);
        assert_eq!(self.server.budget().waiting(), 0);
        assert_eq!(self.census.total(), 0);
        assert_eq!(metrics.requests_current.get(), 0);
        assert_eq!(metrics.connections_opened.get(), metrics.connections_closed.get());
    }
}

struct Peer {
    stream: Stream,
    buffer: BytesMut,
}

impl Peer {
    async fn send(&self, bytes: impl Into<Bytes>) {
        self.stream.write_all(vec![bytes.into()]).await.expect("write");
    }

    /// The correlation id of the next answer, or `None` at the end of the stream.
    async fn answer(&mut self) -> Option<i32> {
        let answer = self.whole_answer().await?;
        Some(i32::from_be_bytes(answer[..4].try_into().unwrap()))
    }

    /// The next answer without its size.
    async fn whole_answer(&mut self) -> Option<BytesMut> {
        loop {
            if let Some(size) = self.buffer.first_chunk::<4>() {
                let size = i32::from_be_bytes(*size) as usize;
                if self.buffer.len() >= 4 + size {
                    return Some(self.buffer.split_to(4 + size).split_off(4));
                }
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.reserve(64 << 10);
            let (read, buffer) = self.stream.read(buffer).await;
            self.buffer = buffer;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }
}

fn frame(api_key: i16, correlation_id: i32, number: u16, padding: usize) -> Vec<u8> {
    let mut body = api_key.to_be_bytes().to_vec();
    body.extend(0i16.to_be_bytes());
    body.extend(correlation_id.to_be_bytes());
    body.extend((-1i16).to_be_bytes());
    body.extend(number.to_be_bytes());
    body.extend(vec![0xab; padding]);
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

// contract P4
#[test]
fn answers_leave_in_request_order_however_they_complete() {
    for seed in 0..20 {
        block_on(seed, async {
            let fixture = Fixture::start(Limits::default(), 64 << 20);
            let mut peer = fixture.connect().await;
            let delays = [50, 0, 30, 10, 0, 40, 20, 0];
            let all: Vec<u8> = delays
                .iter()
                .enumerate()
                .flat_map(|(at, &ms)| frame(ECHO, at as i32, ms, at * 1000))
                .collect();
            peer.send(all).await;
            for expected in 0..delays.len() as i32 {
                assert_eq!(peer.answer().await, Some(expected));
            }
            assert_eq!(*fixture.script.polled.borrow(), (0..delays.len() as i32).collect::<Vec<_>>());
            drop(peer);
            fixture.assert_empty().await;
            assert_eq!(fixture.server.metrics().closed(CloseReason::Peer), 1);
        });
    }
}

// contract P4
#[test]
fn a_request_with_acks_0_gets_no_bytes() {
    block_on(1, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut peer = fixture.connect().await;
        peer.send([frame(NOTHING, 1, 0, 0), frame(ECHO, 2, 0, 0), frame(NOTHING, 3, 5, 0)].concat()).await;
        peer.send(frame(ECHO, 4, 0, 0)).await;
        assert_eq!(peer.answer().await, Some(2));
        assert_eq!(peer.answer().await, Some(4));
        assert_eq!(fixture.server.metrics().bytes_out.get(), 2 * 10);
    });
}

#[test]
fn close_lets_earlier_answers_leave_and_answers_nothing_later() {
    block_on(2, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut peer = fixture.connect().await;
        peer.send([frame(ECHO, 1, 30, 0), frame(CLOSE, 2, 0, 0), frame(ECHO, 3, 0, 0)].concat()).await;
        assert_eq!(peer.answer().await, Some(1));
        assert_eq!(peer.answer().await, None);
        fixture.assert_empty().await;
        assert_eq!(fixture.server.metrics().closed(CloseReason::Service), 1);
    });
}

// contract P5, KIP-219
#[test]
fn a_throttled_connection_is_answered_first_and_muted_then() {
    block_on(3, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut peer = fixture.connect().await;
        let start = now();
        peer.send([frame(MUTE, 1, 500, 0), frame(ECHO, 2, 0, 0)].concat()).await;
        assert_eq!(peer.answer().await, Some(1));
        assert!(now() - start < Duration::from_millis(400));
        peer.send(frame(ECHO, 3, 0, 0)).await;
        // The second was in the same read as the first: it is held back only if it came after the answer.
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(peer.answer().await);
        }
        assert_eq!(answers, [Some(2), Some(3)]);
        assert!(now() - start >= Duration::from_millis(500));
    });
}

#[test]
fn requests_in_flight_are_bounded_for_each_connection() {
    block_on(4, async {
        let limits = Limits { requests_in_flight_max: 4, ..Limits::default() };
        let fixture = Fixture::start(limits, 64 << 20);
        let mut peer = fixture.connect().await;
        peer.send((0..40).flat_map(|at| frame(ECHO, at, 10, 100)).collect::<Vec<u8>>()).await;
        for expected in 0..40 {
            assert_eq!(peer.answer().await, Some(expected));
        }
        assert_eq!(fixture.script.running_most.get(), 4);
    });
}

#[test]
fn bad_frames_close_their_connection_and_no_other() {
    block_on(5, async {
        let limits = Limits { request_bytes_max: 1 << 20, ..Limits::default() };
        let fixture = Fixture::start(limits, 64 << 20);
        let mut bystander = fixture.connect().await;
        let cases: [(&[u8], CloseReason); 7] = [
            (&[0xff, 0xff, 0xff, 0xff, 1, 2, 3], CloseReason::Malformed),
            (&[0, 0, 0, 0], CloseReason::Malformed),
            (&[0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 1], CloseReason::Malformed),
            (&[0x7f, 0xff, 0xff, 0xff], CloseReason::Oversized),
            (&[0, 0x10, 0, 1], CloseReason::Oversized),
            (&[0x16, 0x03, 0x01, 0x02, 0, 1, 0], CloseReason::Tls),
            (b"GET /metrics HTTP/1.1\r\n\r\n", CloseReason::Http),
        ];
        for (bytes, reason) in cases {
            let before = fixture.server.metrics().closed(reason);
            let mut peer = fixture.connect().await;
            peer.send([frame(ECHO, 9, 20, 0)].concat()).await;
            assert_eq!(peer.answer().await, Some(9));
            drop(peer);
            let mut peer = fixture.connect().await;
            peer.send(bytes.to_vec()).await;
            assert_eq!(peer.answer().await, None, "{reason:?}");
            assert_eq!(fixture.server.metrics().closed(reason), before + 1, "{reason:?}");
        }
        bystander.send(frame(ECHO, 1, 0, 0)).await;
        assert_eq!(bystander.answer().await, Some(1));
        drop(bystander);
        fixture.assert_empty().await;
    });
}

#[test]
fn a_slow_sender_is_closed_and_holds_no_more_than_it_has_sent() {
    block_on(6, async {
        let limits =
            Limits { frame_grace: Duration::from_secs(2), frame_rate_min: 1 << 20, ..Limits::default() };
        let fixture = Fixture::start(limits, 256 << 20);
        let mut slow = fixture.connect().await;
        slow.send([&(50i32 << 20).to_be_bytes()[..], &[0; 100]].concat()).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(fixture.server.budget().used(), 64 << 10);
        let start = now();
        assert_eq!(slow.answer().await, None);
        assert!(now() - start < Duration::from_secs(3));
        assert_eq!(fixture.server.metrics().closed(CloseReason::Slow), 1);
        let mut prefix = fixture.connect().await;
        prefix.send(vec![0, 0]).await;
        assert_eq!(prefix.answer().await, None);
        assert_eq!(fixture.server.metrics().closed(CloseReason::Slow), 2);
        fixture.assert_empty().await;
    });
}

#[test]
fn a_spent_budget_stops_reading_and_everybody_gets_through_in_the_end() {
    for seed in 0..5 {
        block_on(seed, async {
            let fixture = Rc::new(Fixture::start(Limits::default(), 2 << 20));
            let peers: Vec<_> = (0..12)
                .map(|at| {
                    let fixture = Rc::clone(&fixture);
                    spawn(async move {
                        let mut peer = fixture.connect().await;
                        for round in 0..3 {
                            peer.send(frame(ECHO, round, 5, 700_000 + at * 10_000)).await;
                            assert_eq!(peer.answer().await, Some(round));
                        }
                    })
                })
                .collect();
            let watched = Rc::clone(&fixture);
            let watcher = spawn(async move {
                let mut most = 0;
                while watched.script.finished.get() < 36 {
                    most = most.max(watched.server.budget().used());
                    sleep(Duration::from_millis(1)).await;
                }
                most
            });
            for peer in peers {
                peer.await.expect("served");
            }
            let most = watcher.await.unwrap();
            assert!(most <= 2 << 20 && most > 700_000, "{most}");
            fixture.assert_empty().await;
        });
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    block_on(7, async {
        let limits = Limits { idle_max: Duration::from_secs(5), ..Limits::default() };
        let fixture = Fixture::start(limits, 64 << 20);
        let mut idle = fixture.connect().await;
        let mut waiting = fixture.connect().await;
        waiting.send(frame(ECHO, 1, 20_000, 0)).await;
        let start = now();
        assert_eq!(idle.answer().await, None);
        let passed = now() - start;
        assert!(passed >= Duration::from_secs(4) && passed < Duration::from_secs(7), "{passed:?}");
        assert_eq!(fixture.server.metrics().closed(CloseReason::Idle), 1);
        assert_eq!(waiting.answer().await, Some(1));
    });
}

#[test]
fn a_peer_that_takes_no_answer_is_dropped() {
    block_on(8, async {
        let limits = Limits { write_stall_max: Duration::from_secs(5), ..Limits::default() };
        let fixture = Fixture::start(limits, 64 << 20);
        let peer = fixture.connect().await;
        peer.send((0..8).flat_map(|at| frame(LARGE, at, 0, 0)).collect::<Vec<u8>>()).await;
        fixture.until("the stall", |f| f.server.metrics().closed(CloseReason::Stalled) == 1).await;
        fixture.assert_empty().await;
        drop(peer);
    });
}

#[test]
fn large_answers_arrive_whole() {
    block_on(9, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut peer = fixture.connect().await;
        peer.send([frame(LARGE, 1, 0, 0), frame(ECHO, 2, 0, 0)].concat()).await;
        assert_eq!(peer.answer().await, Some(1));
        assert_eq!(peer.answer().await, Some(2));
    });
}

#[test]
fn connection_limits_refuse_and_recover() {
    block_on(10, async {
        let fixture = Fixture::start_with(Limits::default(), 64 << 20, Census::new(3, 2));
        let mut first = fixture.connect().await;
        let mut second = fixture.connect().await;
        let mut third = fixture.connect().await;
        first.send(frame(ECHO, 1, 0, 0)).await;
        second.send(frame(ECHO, 2, 0, 0)).await;
        assert_eq!(first.answer().await, Some(1));
        assert_eq!(second.answer().await, Some(2));
        assert_eq!(third.answer().await, None);
        assert_eq!(fixture.server.metrics().refused_per_ip.get(), 1);
        drop(first);
        fixture.until("the place is free", |f| f.census.total() == 1).await;
        let mut fourth = fixture.connect().await;
        fourth.send(frame(ECHO, 4, 0, 0)).await;
        assert_eq!(fourth.answer().await, Some(4));
    });
}

#[test]
fn a_drain_answers_what_is_in_flight_and_accepts_nothing_more() {
    block_on(11, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut busy = fixture.connect().await;
        let mut idle = fixture.connect().await;
        busy.send(frame(ECHO, 1, 300, 0)).await;
        sleep(Duration::from_millis(50)).await;
        let server = fixture.server.clone();
        let drained = spawn(async move { server.drain(Duration::from_secs(5)).await });
        assert_eq!(busy.answer().await, Some(1));
        assert_eq!(busy.answer().await, None);
        assert_eq!(idle.answer().await, None);
        timeout(Duration::from_secs(1), drained).await.expect("the drain ends with the last answer").unwrap();
        let refused = match Stream::connect(fixture.addr).await {
            Ok(stream) => Peer { stream, buffer: BytesMut::new() }.answer().await.is_none(),
            Err(_) => true,
        };
        assert!(refused);
        fixture.assert_empty().await;
        assert_eq!(fixture.server.metrics().closed(CloseReason::Drained), 2);
    });
}

#[test]
fn a_drain_out_of_time_drops_what_is_left() {
    block_on(12, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut busy = fixture.connect().await;
        busy.send(frame(ECHO, 1, 60_000, 0)).await;
        sleep(Duration::from_millis(50)).await;
        let start = now();
        fixture.server.drain(Duration::from_secs(2)).await;
        assert!(now() - start < Duration::from_millis(2_100));
        assert_eq!(busy.answer().await, None);
        assert_eq!(fixture.script.finished.get(), 0);
        fixture.assert_empty().await;
    });
}

#[test]
fn a_request_whose_peer_left_runs_to_its_end() {
    block_on(13, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let peer = fixture.connect().await;
        peer.send([frame(NOTHING, 1, 200, 0), frame(ECHO, 2, 60_000, 0)].concat()).await;
        sleep(Duration::from_millis(50)).await;
        drop(peer);
        fixture.assert_empty().await;
        assert_eq!(fixture.script.finished.get(), 1, "the short one finished, the long one's grace was over");
    });
}

#[test]
fn a_panic_in_the_service_ends_its_connection_alone() {
    block_on(14, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut bystander = fixture.connect().await;
        let mut peer = fixture.connect().await;
        peer.send(frame(PANIC, 1, 0, 0)).await;
        assert_eq!(peer.answer().await, None);
        bystander.send(frame(ECHO, 1, 0, 0)).await;
        assert_eq!(bystander.answer().await, Some(1));
        drop(bystander);
        fixture.assert_empty().await;
        assert_eq!(fixture.server.metrics().closed(CloseReason::Panicked), 1);
    });
}

#[test]
fn thousands_of_hostile_connections_leave_nothing_behind() {
    block_on(15, async {
        let limits = Limits {
            request_bytes_max: 8 << 20,
            frame_grace: Duration::from_secs(1),
            finish_grace: Duration::from_secs(1),
            ..Limits::default()
        };
        let fixture = Rc::new(Fixture::start(limits, 16 << 20));
        for wave in 0..30u64 {
            let peers: Vec<_> = (0..100u64)
                .map(|at| {
                    let fixture = Rc::clone(&fixture);
                    spawn(async move {
                        let peer = fixture.connect().await;
                        // The server may close before everything is sent.
                        let _ = peer.stream.write_all(vec![hostile(wave * 100 + at).into()]).await;
                        if at % 3 == 0 {
                            sleep(Duration::from_millis(at * 20)).await;
                        }
                    })
                })
                .collect();
            for peer in peers {
                peer.await.unwrap();
            }
        }
        fixture.assert_empty().await;
        assert_eq!(fixture.server.metrics().connections_opened.get(), 3000);
        let mut honest = fixture.connect().await;
        honest.send(frame(ECHO, 1, 0, 3 << 20)).await;
        assert_eq!(honest.answer().await, Some(1));
    });
}

fn hostile(kind: u64) -> Vec<u8> {
    match kind % 8 {
        0 => Vec::new(),
        1 => vec![0],
        2 => vec![0xff; 64],
        3 => [&(8i32 << 20).to_be_bytes()[..], &[0; 10]].concat(),
        4 => [&(4i32 << 20).to_be_bytes()[..], &[0; 200_000]].concat(),
        5 => frame(ECHO, 1, 30_000, 100)[..12].to_vec(),
        6 => frame(ECHO, 1, 30_000, 5_000),
        _ => (0..4096u64).map(|at| (at.wrapping_mul(kind) >> 3) as u8 & 0x1f).collect(),
    }
}

#[test]
fn an_idle_connection_costs_little_memory() {
    block_on(16, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let peer = fixture.connect().await;
        let addr = peer.stream.peer_addr();
        let connection = crate::connection::Connection {
            stream: peer.stream,
            info: Rc::new(crate::ConnectionInfo {
                id: 0,
                peer: addr,
                local: addr,
                listener: "PLAINTEXT".into(),
            }),
            watch: Rc::new(crate::watch::Watch::new(now())),
            limits: Rc::new(Limits::default()),
            budget: fixture.server.budget().clone(),
            metrics: fixture.server.metrics(),
        };
        let task = size_of_val(&crate::connection::run(&connection, &fixture.script));
        assert!(task + crate::frame::READ_BYTES <= 8 << 10, "the task takes {task} bytes");
    });
}

#[test]
fn real_sockets_carry_pipelined_and_large_frames_and_drain() {
    heizer_runtime::host::block_on(|| async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let mut peer = fixture.connect().await;
        let sizes = [0, 5_000, 70_000, 3 << 20, 10];
        let all: Vec<u8> =
            sizes.iter().enumerate().flat_map(|(at, &size)| frame(ECHO, at as i32, 3, size)).collect();
        peer.send(all).await;
        peer.send([frame(LARGE, 5, 0, 0), frame(NOTHING, 6, 0, 0), frame(ECHO, 7, 0, 0)].concat()).await;
        for expected in [0, 1, 2, 3, 4, 5, 7] {
            assert_eq!(peer.answer().await, Some(expected));
        }
        fixture.server.drain(Duration::from_secs(5)).await;
        assert_eq!(peer.answer().await, None);
        fixture.assert_empty().await;
    })
    .expect("a core");
}

// contract P4
#[test]
fn answers_out_of_files_leave_in_request_order_among_the_others() {
    for seed in 0..10 {
        block_on(seed, async {
            let fixture = Fixture::start(Limits::default(), 64 << 20);
            *fixture.script.file.borrow_mut() = Some(file().await);
            let mut peer = fixture.connect().await;
            let kinds = [FILE, ECHO, FILE, FILE, LARGE, ECHO];
            let delays = [30, 0, 0, 20, 0, 10];
            let all: Vec<u8> =
                (0..6).flat_map(|at| frame(kinds[at], at as i32, delays[at], at * 700)).collect();
            peer.send(all).await;
            for (at, kind) in kinds.into_iter().enumerate() {
                let answer = peer.whole_answer().await.expect("an answer");
                assert_eq!(answer[..4], (at as i32).to_be_bytes());
                if kind == FILE {
                    let body = 2 + at * 700;
                    assert_eq!(answer.len(), 4 + 2 * body + FILE_BYTES);
                    let inside = &answer[4 + body..4 + body + FILE_BYTES];
                    assert!(
                        inside
                            .iter()
                            .zip(1..)
                            .all(|(byte, at): (&u8, usize)| *byte == (at ^ (at >> 9)) as u8)
                    );
                    assert_eq!(answer[4..4 + body], answer[4 + body + FILE_BYTES..]);
                }
            }
            fixture.until("the end of all writes", |f| Rc::strong_count(&f.script.held) == 1).await;
            drop(peer);
            fixture.assert_empty().await;
        });
    }
}

#[test]
fn a_peer_that_takes_nothing_of_a_file_is_cut_off_and_what_its_answer_held_is_freed() {
    block_on(3, async {
        let limits = Limits { write_stall_max: Duration::from_secs(2), ..Limits::default() };
        let fixture = Fixture::start(limits, 64 << 20);
        *fixture.script.file.borrow_mut() = Some(file().await);
        let peer = fixture.connect().await;
        peer.send([frame(FILE, 1, 0, 0), frame(FILE, 2, 0, 0)].concat()).await;
        fixture.until("the answers", |f| Rc::strong_count(&f.script.held) == 3).await;
        fixture.until("the cut", |f| f.server.metrics().closed(CloseReason::Stalled) == 1).await;
        fixture.assert_empty().await;
        assert_eq!(Rc::strong_count(&fixture.script.held), 1);
        drop(peer);
    });
}

#[test]
fn a_file_that_is_too_short_ends_the_connection_rather_than_the_server() {
    block_on(4, async {
        let fixture = Fixture::start(Limits::default(), 64 << 20);
        let whole = file().await;
        fs::write_atomic(Path::new("/file"), vec![0; 100]).await.expect("written");
        let short = loop {
            if let Some(file) = CachedFile::open(Path::new("/file")).await.expect("opened") {
                break file;
            }
        };
        *fixture.script.file.borrow_mut() = Some(short);
        let mut peer = fixture.connect().await;
        peer.send(frame(FILE, 1, 0, 0)).await;
        assert_eq!(peer.answer().await, None);
        *fixture.script.file.borrow_mut() = Some(whole);
        let mut peer = fixture.connect().await;
        peer.send(frame(FILE, 2, 0, 0)).await;
        assert_eq!(peer.answer().await, Some(2));
        assert_eq!(fixture.server.metrics().closed(CloseReason::Io), 1);
    });
}
