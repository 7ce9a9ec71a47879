//! Parts of files to sockets on the real machine: full sockets, cold pages, peers that go, files of other cores.

#![allow(clippy::disallowed_methods, reason = "a test that must not hang keeps its own time")]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use heizer_runtime::buf::AlignedBuf;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::fs::{self, CachedFile, File, OpenOptions, WriteSync};
use heizer_runtime::host::{self, Config};
use heizer_runtime::net::{self, Listener, Stream};
use heizer_runtime::task;
use heizer_runtime::time::{sleep, timeout};

const HANG: Duration = Duration::from_secs(60);
/// More than both ends of a connection buffer.
const LARGE: usize = 24 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// The byte at each position of the files here.
fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Makes a file by direct writes, of which the page cache knows nothing.
async fn write_file(path: &Path, bytes: usize) {
    let options = OpenOptions { write: true, create_new: true, direct: true, ..OpenOptions::default() };
    let file = File::open(path, options).await.expect("created");
    let mut content = AlignedBuf::zeroed(bytes.next_multiple_of(4096));
    content[..bytes].copy_from_slice(&pattern(0..bytes));
    file.write_at(vec![content.freeze()], 0, WriteSync::None).await.expect("written");
    file.set_len(bytes as u64).await.expect("cut");
    file.sync_all().await.expect("synced");
}

async fn open(path: &Path) -> CachedFile {
    CachedFile::open(path).await.expect("opened").expect("a kernel with cachestat, and a file system for it")
}

/// Both ends of a connection.
async fn connection() -> (Stream, Stream) {
    let listener = Listener::bind("127.0.0.1:0".parse::<SocketAddr>().expect("an address")).expect("a port");
    let client = Stream::connect(listener.local_addr()).await.expect("it listens");
    (listener.accept().await.expect("a connection").0, client)
}

/// Reads `bytes` bytes, with a rest after each MiB.
async fn receive(stream: &Stream, bytes: usize, rest: Duration) -> BytesMut {
    let mut received = BytesMut::with_capacity(bytes);
    let mut rested = 0;
    while received.len() < bytes {
        let (read, filled) = stream.read(received).await;
        received = filled;
        assert!(read.expect("a live peer") > 0, "ended after {} bytes", received.len());
        if received.len() >= rested + (1 << 20) {
            rested = received.len();
            sleep(rest).await;
        }
    }
    received
}

fn run<F: Future<Output = ()> + 'static>(test: fn(PathBuf) -> F) {
    let directory = directory();
    let path = directory.path().join("segment");
    host::block_on(move || {
        let path = path.clone();
        async move { timeout(HANG, test(path)).await.expect("it does not hang") }
    })
    .expect("the runtime starts");
}

#[test]
fn a_region_arrives_whole_from_a_cold_file_over_a_socket_that_is_often_full() {
    run(|path| async move {
        write_file(&path, LARGE + 1_234).await;
        let file = open(&path).await;
        file.forget(0..LARGE as u64 + 1_234).await.expect("forgotten");
        let (server, client) = connection().await;
        let before = net::file_sends();
        let sending = task::spawn(async move {
            let mut region = file.region(77..LARGE as u64 + 1_234);
            let first = region.split_to(100_001);
            server.write_all_before_more(vec![Bytes::from_static(b"head")]).await?;
            server.send_file(first).await?;
            server.write_all(vec![Bytes::from_static(b"between")]).await?;
            server.send_file(region).await
        });
        let expected =
            [b"head", &pattern(77..100_078)[..], b"between", &pattern(100_078..LARGE + 1_234)[..]].concat();
        let received = receive(&client, expected.len(), Duration::from_millis(2)).await;
        assert!(received == expected, "what arrives is what the file holds");
        sending.await.expect("no panic").expect("sent");
        let after = net::file_sends();
        assert_eq!(after.bytes - before.bytes, (LARGE + 1_234 - 77) as u64);
        assert!(after.missed_bytes > before.missed_bytes, "the file was cold");
        assert!(after.waits > before.waits, "and the connection waited for it on the ring");
    });
}

/// The socket is non-blocking for the length of a call, which must fail no read of the ring.
#[test]
fn reads_on_the_same_connection_go_on_beside_a_region() {
    run(|path| async move {
        write_file(&path, LARGE).await;
        let file = open(&path).await;
        let (server, client) = connection().await;
        // Whoever has it open goes on.
        fs::remove_file(&path).await.expect("removed");
        let sender = server.clone();
        let sending = task::spawn(async move { sender.send_file(file.region(0..LARGE as u64)).await });
        let asker = client.clone();
        let asking = task::spawn(async move {
            for _ in 0..500 {
                asker.write_all(vec![Bytes::from_static(b"request")]).await.expect("the peer reads");
                sleep(Duration::from_micros(50)).await;
            }
        });
        let listening = task::spawn(async move { receive(&server, 500 * 7, Duration::ZERO).await.len() });
        let received = receive(&client, LARGE, Duration::from_micros(500)).await;
        assert!(received == pattern(0..LARGE));
        sending.await.expect("no panic").expect("sent");
        asking.await.expect("no panic");
        assert_eq!(listening.await.expect("no panic"), 500 * 7);
    });
}

#[test]
fn a_peer_that_goes_ends_the_sending_with_an_error() {
    run(|path| async move {
        write_file(&path, LARGE).await;
        let file = open(&path).await;
        let (server, client) = connection().await;
        let region = file.region(0..LARGE as u64);
        let sending = task::spawn(async move { server.send_file(region).await });
        receive(&client, 2 << 20, Duration::ZERO).await;
        drop(client);
        let error = sending.await.expect("no panic").expect_err("nobody reads");
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

#[test]
fn a_sending_that_is_given_up_while_the_socket_is_full_leaves_the_file_to_others() {
    run(|path| async move {
        write_file(&path, LARGE).await;
        let file = open(&path).await;
        let (server, client) = connection().await;
        let given_up =
            timeout(Duration::from_millis(300), server.send_file(file.region(0..LARGE as u64))).await;
        assert!(given_up.is_err(), "the peer reads nothing");
        // Ended from this side, the other one sees what was sent and then the end.
        server.shutdown();
        let (read, _) = client.read(BytesMut::with_capacity(4096)).await;
        assert!(read.expect("what was sent") > 0);
        let (server, client) = connection().await;
        let sending = task::spawn(async move { server.send_file(file.region(5..1_005)).await });
        assert!(receive(&client, 1_000, Duration::ZERO).await == pattern(5..1_005));
        sending.await.expect("no panic").expect("sent");
    });
}

#[test]
fn a_region_beyond_the_end_of_its_file_is_an_error_and_no_hang() {
    run(|path| async move {
        write_file(&path, 10_000).await;
        let file = open(&path).await;
        let (server, _client) = connection().await;
        let error = server.send_file(file.region(4_000..20_000)).await.expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (read, buf) = file.read_at(AlignedBuf::zeroed(8_192), 5_000).await;
        assert_eq!(read.expect("read"), 5_000, "a read ends at the end of the file");
        assert!(buf[..5_000] == pattern(5_000..10_000));
    });
}

#[test]
fn a_region_of_another_core_is_sent_from_this_one() {
    let directory = directory();
    let path = directory.path().join("segment");
    let config = Config { cpus: vec![0, 0], ring_entries: 64, ..Config::default() };
    host::run(&config, move || {
        let path = path.clone();
        async move {
            if cores::current() != CoreId(0) {
                return;
            }
            let region = cores::call(CoreId(1), move || async move {
                write_file(&path, 3 << 20).await;
                // The file is closed there once the region is gone here.
                open(&path).await.region(1..3 << 20)
            });
            let region = region.await.expect("the core answers");
            let (server, client) = connection().await;
            let sending = task::spawn(async move { server.send_file(region).await });
            let received = timeout(HANG, receive(&client, (3 << 20) - 1, Duration::ZERO)).await;
            assert!(received.expect("it does not hang") == pattern(1..3 << 20));
            sending.await.expect("no panic").expect("sent");
        }
    })
    .expect("the runtime starts");
}
