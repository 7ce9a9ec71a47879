//! The real backend against the machine it runs on: each trap of the executor and of io_uring has its scenario.

#![allow(clippy::disallowed_methods, reason = "a test that must not hang keeps its own time")]

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use heizer_runtime::buf::{AlignedBuf, BLOCK_BYTES};
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::fs::{self, Device, DeviceSync, File, OpenOptions, WriteSync};
use heizer_runtime::host::{self, Config};
use heizer_runtime::load::load;
use heizer_runtime::net::{Listener, Stream};
use heizer_runtime::sync::Event;
use heizer_runtime::task;
use heizer_runtime::time::{self, now, sleep, timeout};

const HANG: Duration = Duration::from_secs(60);

fn two_cores() -> Config {
    Config { cpus: vec![0, 0], ring_entries: 64, ..Config::default() }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

async fn echo_once(stream: Stream) {
    let mut buf = BytesMut::with_capacity(4096);
    loop {
        let (read, filled) = stream.read(buf).await;
        buf = filled;
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) => stream.write_all(vec![buf.split().freeze()]).await.expect("the peer reads"),
        }
        buf.reserve(4096);
    }
}

#[test]
fn a_large_vectored_write_comes_back_whole_and_in_order() {
    host::block_on(|| async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let addr = listener.local_addr();
        task::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            echo_once(stream).await;
        });
        let client = Stream::connect(addr).await.expect("it listens");
        let parts: Vec<Bytes> = (0..3_000_u32)
            .map(|part| Bytes::from(part.to_be_bytes().repeat(1 + part as usize % 97)))
            .collect();
        let sent: Vec<u8> = parts.iter().flatten().copied().collect();
        let writer = client.clone();
        task::spawn(async move { writer.write_all(parts).await.expect("the peer reads") });
        let mut received = BytesMut::with_capacity(sent.len());
        while received.len() < sent.len() {
            let (read, filled) = client.read(received).await;
            received = filled;
            assert!(read.expect("a live peer") > 0);
        }
        assert!(received == sent.as_slice());
    })
    .expect("the runtime starts");
}

/// What the device is depends on the machine; on any of them its flush does what its kind says.
#[test]
fn a_device_is_flushed_or_known_not_to_take_it() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (disk, memory) = (directory.path().to_owned(), std::path::PathBuf::from("/dev/shm"));
    let (of_disk, of_memory, left) = host::block_on(move || {
        let (disk, memory) = (disk.clone(), memory.clone());
        async move {
            let device = Device::open(&disk).await;
            match device.sync() {
                DeviceSync::PerFile => drop(device.flush().await.expect_err("nothing to flush")),
                _ => device.flush().await.expect("flushed"),
            }
            let left = fs::read_dir(&disk).await.expect("a list").len();
            (device.sync(), Device::open(&memory).await.sync(), left)
        }
    })
    .expect("a core");
    println!("the device of the test directory: {of_disk:?}");
    assert_eq!((of_memory, left), (DeviceSync::PerFile, 0), "tmpfs has no device; nothing is left behind");
}

#[test]
fn direct_writes_are_read_back_and_survive_truncation_and_rename() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().to_owned();
    host::block_on(move || {
        let path = path.clone();
        async move {
            let nested = path.join("a/b");
            fs::create_dir_all(&nested).await.expect("created");
            let name = nested.join("segment");
            let options = OpenOptions {
                read: true,
                write: true,
                create_new: true,
                direct: true,
                ..OpenOptions::default()
            };
            let file = File::open(&name, options).await.expect("opened");
            file.allocate(0, 64 << 10).await.expect("allocated");
            let mut block = AlignedBuf::zeroed(2 * BLOCK_BYTES);
            block.fill(7);
            let parts = vec![block.freeze(), AlignedBuf::zeroed(BLOCK_BYTES).freeze()];
            file.write_at(parts, BLOCK_BYTES as u64, WriteSync::Data).await.expect("written");
            let (read, buf) = file.read_at(AlignedBuf::zeroed(4 * BLOCK_BYTES), 0).await;
            assert_eq!(read.expect("read"), 4 * BLOCK_BYTES);
            assert!(buf[..BLOCK_BYTES].iter().all(|byte| *byte == 0));
            assert!(buf[BLOCK_BYTES..3 * BLOCK_BYTES].iter().all(|byte| *byte == 7));
            file.set_len(10_000).await.expect("cut");
            let (read, _) = file.read_at(AlignedBuf::zeroed(4 * BLOCK_BYTES), 0).await;
            assert_eq!(read.expect("read"), 10_000, "a direct read ends at the end of the file");
            let renamed = nested.join("renamed");
            fs::rename(&name, &renamed).await.expect("renamed");
            fs::sync_dir(&nested).await.expect("synced");
            let names: Vec<String> =
                fs::read_dir(&nested).await.expect("listed").into_iter().map(|entry| entry.name).collect();
            assert_eq!(names, ["renamed"]);
            fs::write_atomic(&name, b"v1".to_vec()).await.expect("written");
            fs::write_atomic(&name, b"version 2".to_vec()).await.expect("replaced");
            assert_eq!(fs::read(&name).await.expect("read"), b"version 2");
            fs::remove_dir_all(&path.join("a")).await.expect("removed");
            assert!(!fs::exists(&nested).await.expect("looked up"));
        }
    })
    .expect("the runtime starts");
}

/// The scheduler's own timers and channels starve while tasks stay runnable; ours must not.
#[test]
fn timers_messages_and_sockets_come_through_while_tasks_never_rest() {
    host::run(&two_cores(), || async {
        let stop = Rc::new(Cell::new(false));
        let spinning = stop.clone();
        let spinner = task::spawn(async move {
            while !spinning.get() {
                task::yield_now().await;
            }
        });
        let other = CoreId(1 - cores::current().0);
        let work = async {
            for round in 0..200_u64 {
                sleep(Duration::from_micros(500)).await;
                let echoed = cores::call(other, move || async move {
                    sleep(Duration::from_micros(100)).await;
                    round
                });
                assert_eq!(echoed.await, Ok(round));
            }
        };
        timeout(HANG, work).await.expect("no wake-up is lost");
        stop.set(true);
        spinner.await.expect("no panic");
    })
    .expect("the runtime starts");
}

/// Sleep, announcement and doorbell race at every round: one lost wake-up hangs the test.
#[test]
fn idle_cores_lose_no_wake_up() {
    host::run(&two_cores(), || async {
        let other = CoreId(1 - cores::current().0);
        let work = async {
            for round in 0..20_000_u64 {
                assert_eq!(cores::call(other, move || async move { round }).await, Ok(round));
            }
        };
        timeout(HANG, work).await.expect("no wake-up is lost");
    })
    .expect("the runtime starts");
}

/// Tasks that wake only each other, without any I/O, are all that would end a sleep.
#[test]
fn a_core_sleeps_only_when_no_task_is_ready() {
    host::block_on(|| async {
        const TASKS: u64 = 7;
        const TURNS: u64 = 70_000;
        let (turn, changed) = (Rc::new(Cell::new(0_u64)), Event::new());
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let (turn, changed) = (turn.clone(), changed.clone());
                task::spawn(async move {
                    loop {
                        let listen = changed.listen();
                        match turn.get() {
                            TURNS.. => return,
                            mine if mine % TASKS == number => {
                                turn.set(mine + 1);
                                changed.notify_all();
                            }
                            _ => listen.await,
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            timeout(HANG, task).await.expect("nobody is forgotten").expect("no panic");
        }
    })
    .expect("the runtime starts");
}

/// Whoever computes for long keeps everybody else on the core waiting, and that is told; a spinning core is idle too.
#[test]
fn a_core_is_busy_while_it_computes_and_idle_while_it_sleeps() {
    for spin in [Duration::ZERO, Duration::from_micros(200)] {
        let config = Config { spin, ..Config::default() };
        host::run(&config, || async {
            const LONG: Duration = Duration::from_millis(120);
            let before = load();
            sleep(4 * LONG).await;
            let slept = load();
            assert!(slept.busy - before.busy < 2 * LONG, "{slept:?}");
            let begun = now();
            while now() - begun < LONG {
                std::hint::spin_loop();
            }
            sleep(Duration::from_millis(1)).await;
            let worked = load();
            assert!(worked.busy - slept.busy >= LONG && worked.cpu > slept.cpu, "{worked:?}");
            assert!(worked.stalls > slept.stalls && worked.stalled - slept.stalled >= LONG, "{worked:?}");
        })
        .expect("the runtime starts");
    }
}

#[test]
fn messages_for_a_core_that_computes_wait_and_are_counted() {
    host::run(&two_cores(), || async {
        const OTHER: CoreId = CoreId(1);
        if cores::current() == OTHER {
            return;
        }
        let computing = Arc::new(AtomicBool::new(true));
        let until = computing.clone();
        cores::cast(OTHER, move || {
            while until.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
        let taken = async || {
            while cores::waiting_messages(OTHER) > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(HANG, taken()).await.expect("it begins to compute");
        (0..5).for_each(|_| cores::cast(OTHER, || ()));
        let waiting = cores::waiting_messages(OTHER);
        computing.store(false, Ordering::Release);
        assert_eq!(waiting, 5);
        timeout(HANG, taken()).await.expect("it goes on");
    })
    .expect("the runtime starts");
}

/// A scheduler timer of a millisecond loses wake-ups within seconds; ours run for them.
#[test]
fn a_thousand_short_sleeps_end_none_too_early() {
    host::block_on(|| async {
        let sleepers: Vec<_> = (0..10_u64)
            .map(|sleeper| {
                task::spawn(async move {
                    for round in 0..100 {
                        let duration = Duration::from_micros(100 * ((sleeper * 7 + round) % 13));
                        let start = now();
                        sleep(duration).await;
                        assert!(now() - start >= duration);
                    }
                })
            })
            .collect();
        for sleeper in sleepers {
            timeout(HANG, sleeper).await.expect("no hang").expect("no panic");
        }
    })
    .expect("the runtime starts");
}

/// The kernel may write into a dropped read's buffer until the read completes.
#[test]
fn dropped_operations_keep_their_memory_until_the_kernel_is_done() {
    host::block_on(|| async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let client = Stream::connect(listener.local_addr()).await.expect("it listens");
        let (server, _) = listener.accept().await.expect("a connection");
        for round in 0..500_u32 {
            let dropped =
                timeout(Duration::from_micros(50), server.read(BytesMut::with_capacity(4096))).await;
            assert!(dropped.is_err(), "nothing was sent before");
            client.write_all(vec![Bytes::copy_from_slice(&round.to_be_bytes())]).await.expect("sent");
            let mut got = BytesMut::with_capacity(4);
            // A cancelled read may have won the race and taken the bytes with it; then they are gone with it.
            match timeout(Duration::from_millis(200), server.read(got)).await {
                Ok((read, buf)) => {
                    assert!(read.expect("a live peer") > 0);
                    got = buf;
                    assert_eq!(got.len(), 4);
                }
                Err(_) => continue,
            }
        }
        assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err());
    })
    .expect("the runtime starts");
}

/// An accept that completes while its future is being dropped would take the connection with it, open for ever.
#[test]
fn dropped_accepts_lose_no_connection() {
    host::block_on(|| async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let addr = listener.local_addr();
        let clients = task::spawn(async move {
            for _ in 0..500 {
                let client = Stream::connect(addr).await.expect("it listens");
                let (read, _) = client.read(BytesMut::with_capacity(1)).await;
                assert_eq!(read.expect("a live peer"), 1);
            }
        });
        let serve = async {
            for _ in 0..500 {
                let (stream, _) = loop {
                    if let Ok(accepted) = timeout(Duration::from_micros(20), listener.accept()).await {
                        break accepted.expect("a connection");
                    }
                };
                stream.write_all(vec![Bytes::from_static(b"!")]).await.expect("the peer reads");
            }
        };
        timeout(HANG, serve).await.expect("every connection is accepted");
        clients.await.expect("every client is answered");
    })
    .expect("the runtime starts");
}

#[test]
fn calls_between_two_cores_start_in_order() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    host::run(&two_cores(), || async {
        if cores::current() == CoreId(1) {
            return;
        }
        let calls = (0..1_000_u64).map(|number| {
            cores::call(CoreId(1), move || async move {
                assert_eq!(SEEN.fetch_add(1, Ordering::Relaxed), number);
                task::yield_now().await;
            })
        });
        for output in futures::future::join_all(calls).await {
            output.expect("no panic");
        }
    })
    .expect("the runtime starts");
    assert_eq!(SEEN.load(Ordering::Relaxed), 1_000);
}

/// A panicking detached task would kill the executor.
#[test]
fn a_panic_ends_its_task_and_call_and_nothing_else() {
    host::run(&two_cores(), || async {
        if cores::current() == CoreId(1) {
            return;
        }
        let panicking = task::spawn(async { panic!("on purpose") });
        assert!(panicking.await.is_err());
        let call = cores::call(CoreId(1), || async {
            sleep(Duration::from_millis(1)).await;
            panic!("on purpose")
        });
        let output: Result<(), _> = call.await;
        assert!(output.is_err());
        assert_eq!(task::panics(), 1);
        assert_eq!(cores::call(CoreId(1), || async { task::panics() }).await, Ok(1));
    })
    .expect("the runtime starts");
}

#[test]
fn more_operations_than_the_ring_has_entries_all_complete() {
    host::block_on(|| async {
        let sleeps = (0..5_000_u64).map(|n| sleep(Duration::from_micros(n % 50)));
        let yields = (0..5_000).map(|_| task::yield_now());
        let all = futures::future::join(futures::future::join_all(sleeps), futures::future::join_all(yields));
        timeout(HANG, all).await.expect("no entry is lost");
    })
    .expect("the runtime starts");
}

#[test]
fn shutdown_reaches_every_core_and_waits_for_what_is_under_way() {
    let drained = Arc::new(AtomicBool::new(false));
    let seen = drained.clone();
    host::run(&two_cores(), move || {
        let drained = drained.clone();
        async move {
            let listener = Listener::bind(loopback()).expect("a free port");
            task::spawn(async move { drop(listener.accept().await) });
            if cores::current() == CoreId(0) {
                sleep(Duration::from_millis(5)).await;
                host::request_shutdown();
            }
            timeout(HANG, host::shutdown()).await.expect("every core is told");
            assert!(host::shutdown_requested());
            drained.store(true, Ordering::Relaxed);
        }
    })
    .expect("the runtime starts");
    assert!(seen.load(Ordering::Relaxed));
}

/// The scheduler sees that its main has ended only when no task is runnable.
#[test]
fn a_core_ends_although_its_tasks_never_rest() {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = ended.clone();
    let running = std::thread::spawn(move || {
        host::run(&two_cores(), || async {
            task::spawn(async {
                loop {
                    task::yield_now().await;
                }
            });
            sleep(Duration::from_millis(5)).await;
        })
        .expect("the runtime starts");
        seen.store(true, Ordering::Release);
    });
    let hangs = std::time::Instant::now() + HANG;
    while !ended.load(Ordering::Acquire) {
        assert!(std::time::Instant::now() < hangs, "the cores must end");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.join().expect("no panic");
}

#[test]
fn background_work_keeps_its_share() {
    host::block_on(|| async {
        let mut pacer = task::Pacer::new(20);
        let start = now();
        let mut worked = Duration::ZERO;
        while worked < Duration::from_millis(4) {
            let slice = now();
            while now() - slice < Duration::from_micros(50) {
                std::hint::spin_loop();
            }
            worked += now() - slice;
            pacer.checkpoint().await;
        }
        // A lower bound holds on the busiest machine: sleeps never end early.
        assert!(now() - start >= worked * 3, "a fifth of the core leaves four fifths to others");
    })
    .expect("the runtime starts");
}

#[test]
fn the_wall_clock_is_in_milliseconds_since_1970() {
    host::block_on(|| async {
        assert!(time::wall_clock_ms() > 1_700_000_000_000);
    })
    .expect("the runtime starts");
}
