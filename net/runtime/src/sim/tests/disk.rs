use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;

use crate::buf::{AlignedBuf, BLOCK_BYTES};
use crate::fs::{self, DirEntry, File, OpenOptions, WriteSync};
use crate::sim::{DiskFaults, DiskLie, LieKind, NodeId, Sim, block_on};
use crate::task::spawn;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn options() -> OpenOptions {
    OpenOptions { read: true, write: true, create: true, ..OpenOptions::default() }
}

async fn open(path: &str) -> File {
    File::open(path.as_ref(), options()).await.expect("it opens")
}

/// A new file, its directory synced.
async fn create(path: &str) -> File {
    let file = open(path).await;
    fs::sync_dir(Path::new(path).parent().expect("not the root")).await.expect("synced");
    file
}

async fn write(file: &File, bytes: &[u8], offset: u64, sync: WriteSync) {
    file.write_at(vec![Bytes::copy_from_slice(bytes)], offset, sync).await.expect("written");
}

fn block(byte: u8) -> Bytes {
    let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
    buf.fill(byte);
    buf.freeze()
}

/// What reading `path` gives after each of many crashes following `prepare`; none when it does not exist.
fn after_crashes<F: Future<Output = ()> + 'static>(
    path: &'static str,
    prepare: impl Fn() -> F,
) -> BTreeSet<Option<Vec<u8>>> {
    let crash = |seed| {
        let (mut sim, node) = crashed(seed, prepare());
        sim.run(node, async {
            match fs::read(path.as_ref()).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                read => Some(read.expect("it reads")),
            }
        })
    };
    (0..100).map(crash).collect()
}

fn crashed(seed: u64, prepare: impl Future<Output = ()> + 'static) -> (Sim, NodeId) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    sim.run(node, prepare);
    sim.crash(node);
    (sim, node)
}

#[test]
fn a_file_reads_what_was_written_and_zeros_where_nothing_was() {
    block_on(1, async {
        fs::create_dir_all("/a/b".as_ref()).await.expect("created");
        let file = open("/a/b/file").await;
        file.write_at(vec![Bytes::from_static(b"hello "), Bytes::from_static(b"world")], 10, WriteSync::None)
            .await
            .expect("written");
        assert_eq!(file.len().await.expect("a length"), 21);
        file.allocate(0, 100).await.expect("allocated");
        let (read, buf) = file.read_at(AlignedBuf::zeroed(200), 5).await;
        assert_eq!(read.expect("it reads"), 95, "short only at the end of the file");
        assert_eq!(&buf[..17], b"\0\0\0\0\0hello world\0");
        file.set_len(12).await.expect("cut");
        assert_eq!(fs::read("/a/b/file".as_ref()).await.expect("it reads"), b"\0\0\0\0\0\0\0\0\0\0he");
        let (read, _) = file.read_at(AlignedBuf::zeroed(8), 12).await;
        assert_eq!(read.expect("it reads"), 0);
    });
}

#[test]
fn concurrent_writes_complete_in_any_order() {
    let last = |seed| {
        block_on(seed, async {
            let file = open("/file").await;
            join_all((b'a'..=b'c').map(|byte| file.write_at(vec![block(byte)], 0, WriteSync::None))).await;
            fs::read("/file".as_ref()).await.expect("it reads")[0]
        })
    };
    assert_eq!((0..60).map(last).collect::<BTreeSet<u8>>(), BTreeSet::from(*b"abc"));
}

#[test]
fn a_write_goes_on_when_its_future_is_dropped() {
    block_on(2, async {
        let file = open("/file").await;
        assert!(file.write_at(vec![block(1)], 0, WriteSync::None).now_or_never().is_none());
        crate::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(file.len().await.expect("a length"), BLOCK);
    });
}

#[test]
fn synced_data_survive_a_crash_and_unsynced_are_old_or_new() {
    let left = after_crashes("/file", || async {
        let file = create("/file").await;
        write(&file, &[b'a'; 1024], 0, WriteSync::None).await;
        file.sync_data().await.expect("synced");
        write(&file, &[b'b'; 512], 0, WriteSync::None).await;
        write(&file, &[b'c'; 512], 1024, WriteSync::Data).await;
    });
    let expected = |first: u8| Some([[first; 512], [b'a'; 512], [b'c'; 512]].concat());
    assert_eq!(left, BTreeSet::from([expected(b'a'), expected(b'b')]));
}

#[test]
fn a_new_file_is_durable_only_once_its_directory_is_synced() {
    let left = after_crashes("/file", || async {
        let file = open("/file").await;
        write(&file, b"x", 0, WriteSync::Data).await;
    });
    assert_eq!(left, BTreeSet::from([None, Some(b"x".to_vec())]));
    let left = after_crashes("/file", || async {
        let file = create("/file").await;
        write(&file, b"x", 0, WriteSync::Data).await;
    });
    assert_eq!(left, BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn directories_are_durable_only_once_their_parents_are_synced() {
    let left = after_crashes("/a/b/file", || async {
        fs::create_dir_all("/a/b".as_ref()).await.expect("created");
        let file = create("/a/b/file").await;
        write(&file, b"x", 0, WriteSync::Data).await;
        fs::sync_dir("/a".as_ref()).await.expect("synced");
    });
    assert_eq!(left, BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn an_unsynced_removal_or_rename_may_be_undone_but_a_rename_never_loses_the_file() {
    let left = after_crashes("/old", || async {
        write(&create("/old").await, b"x", 0, WriteSync::Data).await;
        fs::remove_file("/old".as_ref()).await.expect("removed");
    });
    assert_eq!(left, BTreeSet::from([None, Some(b"x".to_vec())]));
    for seed in 0..100 {
        let (mut sim, node) = crashed(seed, async {
            fs::create_dir_all("/there".as_ref()).await.expect("created");
            write(&create("/old").await, b"x", 0, WriteSync::Data).await;
            fs::rename("/old".as_ref(), "/there/new".as_ref()).await.expect("renamed");
            if crate::random::below(2) == 0 {
                fs::sync_dir("/there".as_ref()).await.expect("synced");
            }
        });
        sim.run(node, async move {
            let exists = async |path: &str| fs::exists(path.as_ref()).await.expect("known");
            assert!(exists("/old").await != exists("/there/new").await, "seed {seed}");
        });
    }
}

#[test]
fn an_atomic_write_leaves_the_old_or_the_new_file() {
    let left = after_crashes("/conf", || async {
        fs::write_atomic("/conf".as_ref(), b"old".to_vec()).await.expect("written");
        let write = spawn(fs::write_atomic("/conf".as_ref(), b"newer".to_vec()));
        let some_time = std::time::Duration::from_micros(crate::random::below(3000));
        let _ = crate::time::timeout(some_time, write).await;
    });
    assert_eq!(left, BTreeSet::from([Some(b"old".to_vec()), Some(b"newer".to_vec())]));
    let left = after_crashes("/conf", || async {
        fs::write_atomic("/conf".as_ref(), b"old".to_vec()).await.expect("written");
        fs::write_atomic("/conf".as_ref(), b"new".to_vec()).await.expect("written");
    });
    assert_eq!(left, BTreeSet::from([Some(b"new".to_vec())]));
}

#[test]
fn a_killed_process_loses_nothing_it_wrote_until_the_machine_crashes() {
    let left_by = |power_cut: bool| {
        let read = |seed| {
            let mut sim = Sim::new(seed);
            let node = sim.node(1);
            sim.run(node, async {
                let file = open("/file").await;
                write(&file, b"one", 0, WriteSync::None).await;
                assert!(
                    file.write_at(vec![Bytes::from_static(b"two")], 3, WriteSync::None)
                        .now_or_never()
                        .is_none()
                );
            });
            sim.kill(node);
            assert!(!sim.is_up(node));
            if power_cut {
                sim.run(node, async {});
                sim.crash(node);
            }
            sim.run(node, async { fs::read("/file".as_ref()).await.ok() })
        };
        (0..50).map(read).collect::<BTreeSet<_>>()
    };
    assert_eq!(left_by(false), BTreeSet::from([Some(b"onetwo".to_vec())]));
    assert!(left_by(true).contains(&None));
}

#[test]
fn paths_behave_like_a_file_system() {
    block_on(3, async {
        let kind = |result: io::Result<()>| result.expect_err("it fails").kind();
        fs::create_dir_all("/data/one".as_ref()).await.expect("created");
        fs::create_dir_all("/data/one".as_ref()).await.expect("there already");
        write(&open("/data/two").await, b"abc", 0, WriteSync::None).await;
        let entry = |name: &str, is_dir, len| DirEntry { name: name.into(), is_dir, len };
        let listed = fs::read_dir("/data".as_ref()).await.expect("listed");
        assert_eq!(listed, [entry("one", true, 0), entry("two", false, 3)]);
        assert_eq!(kind(fs::remove_file("/data/none".as_ref()).await), io::ErrorKind::NotFound);
        assert_eq!(kind(fs::remove_file("/data/one".as_ref()).await), io::ErrorKind::IsADirectory);
        assert_eq!(kind(fs::create_dir_all("/data/two/x".as_ref()).await), io::ErrorKind::NotADirectory);
        let new = OpenOptions { create_new: true, ..options() };
        let again = File::open("/data/two".as_ref(), new).await;
        assert_eq!(again.expect_err("it exists").kind(), io::ErrorKind::AlreadyExists);
        let missing = File::open("/data/x/y".as_ref(), options()).await;
        assert_eq!(missing.expect_err("no directory").kind(), io::ErrorKind::NotFound);
        let read_only = OpenOptions { read: true, ..OpenOptions::default() };
        let file = File::open("/data/two".as_ref(), read_only).await.expect("it opens");
        file.write_at(vec![block(0)], 0, WriteSync::None).await.expect_err("opened for reading");
        let cut = OpenOptions { truncate: true, ..options() };
        let file = File::open("/data/two".as_ref(), cut).await.expect("it opens");
        assert!(file.is_empty().await.expect("a length"));
        fs::remove_dir_all("/data".as_ref()).await.expect("removed");
        fs::remove_dir_all("/data".as_ref()).await.expect("nothing to remove");
        assert!(!fs::exists("/data/two".as_ref()).await.expect("known"));
        write(&file, b"still open", 0, WriteSync::None).await;
        assert_eq!(file.len().await.expect("a length"), 10);
    });
}

#[test]
#[should_panic(expected = "but the address is")]
fn a_direct_write_from_an_unaligned_address_is_a_bug() {
    block_on(4, async {
        let direct = OpenOptions { direct: true, ..options() };
        let file = File::open("/file".as_ref(), direct).await.expect("it opens");
        assert!(file.is_direct());
        file.write_at(vec![block(1)], BLOCK, WriteSync::None).await.expect("aligned");
        let mut buf = AlignedBuf::zeroed(2 * BLOCK_BYTES);
        buf[0] = 1;
        let unaligned = buf.freeze().slice(512..512 + BLOCK_BYTES);
        let _ = file.write_at(vec![unaligned], 0, WriteSync::None).await;
    });
}

#[test]
#[should_panic(expected = "but the offset is 512")]
fn a_direct_read_at_an_unaligned_offset_is_a_bug() {
    block_on(5, async {
        let direct = OpenOptions { direct: true, ..options() };
        let file = File::open("/file".as_ref(), direct).await.expect("it opens");
        let _ = file.read_at(AlignedBuf::zeroed(BLOCK_BYTES), 512).await;
    });
}

#[test]
fn a_full_disk_says_so_and_takes_writes_again_after_a_removal() {
    let mut sim = Sim::new(6);
    let node = sim.node(1);
    sim.set_disk_faults(node, DiskFaults { capacity_bytes: 2 * BLOCK, ..DiskFaults::default() });
    sim.run(node, async {
        let file = open("/file").await;
        file.allocate(0, 2 * BLOCK).await.expect("it fits");
        write(&file, &[1; 100], BLOCK, WriteSync::None).await;
        let error = file.write_at(vec![block(1)], 2 * BLOCK, WriteSync::None).await.expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::free_bytes("/".as_ref()).await.expect("known"), 0);
        fs::remove_file("/file".as_ref()).await.expect("removed");
        write(&open("/other").await, &[1; 100], 0, WriteSync::None).await;
        assert_eq!(fs::free_bytes("/".as_ref()).await.expect("known"), BLOCK);
    });
}

#[test]
fn injected_errors_come_at_their_rates_and_a_failed_sync_promises_nothing() {
    let mut sim = Sim::new(7);
    let node = sim.node(1);
    sim.run(node, async { write(&create("/file").await, &[0; 512], 0, WriteSync::Data).await });
    sim.set_disk_faults(node, DiskFaults { read_error_ppm: 500_000, ..DiskFaults::default() });
    sim.run(node, async {
        let file = open("/file").await;
        let mut failed = 0;
        for _ in 0..100 {
            failed += u32::from(file.read_at(AlignedBuf::zeroed(512), 0).await.0.is_err());
        }
        assert!((25..75).contains(&failed), "{failed} of 100 reads failed");
    });
    sim.set_disk_faults(node, DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
    sim.run(node, async {
        let file = open("/file").await;
        write(&file, &[1; 512], 0, WriteSync::None).await;
        let error = file.sync_data().await.expect_err("every sync fails");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        fs::sync_dir("/".as_ref()).await.expect_err("every sync fails");
    });
}

#[test]
fn bit_rot_flips_one_bit() {
    let mut sim = Sim::new(8);
    let node = sim.node(1);
    sim.run(node, async { write(&open("/file").await, &[0; 1000], 0, WriteSync::Data).await });
    sim.flip_bit(node, "/file".as_ref(), 700, 3).expect("the byte exists");
    sim.flip_bit(node, "/file".as_ref(), 1000, 3).expect_err("the file is shorter");
    let bytes = sim.run(node, async { fs::read("/file".as_ref()).await.expect("it reads") });
    let flipped: Vec<_> = (0..1000).filter(|&at| bytes[at] != 0).collect();
    assert_eq!((flipped, bytes[700]), (vec![700], 8));
}

#[test]
fn a_dead_device_fails_every_operation_below_it_and_no_other() {
    let mut sim = Sim::new(5);
    let node = sim.node(1);
    let file = sim.run(node, async {
        for directory in ["/a", "/ab"] {
            fs::create_dir_all(directory.as_ref()).await.expect("made");
        }
        fs::sync_dir(Path::new("/")).await.expect("synced");
        let file = create("/a/f").await;
        write(&file, b"kept", 0, WriteSync::Data).await;
        file
    });
    sim.kill_device(node, Path::new("/a"));
    let file = sim.run(node, async move {
        let eio =
            |failed: io::Result<()>| assert_eq!(failed.expect_err("dead").raw_os_error(), Some(libc::EIO));
        eio(file.read_at(AlignedBuf::for_reading(4), 0).await.0.map(drop));
        eio(file.write_at(vec![Bytes::from_static(b"lost")], 0, WriteSync::None).await);
        eio(file.sync_data().await);
        eio(file.allocate(0, 10).await);
        eio(file.set_len(0).await);
        eio(File::open("/a/f".as_ref(), options()).await.map(drop));
        eio(fs::read_dir(Path::new("/a")).await.map(drop));
        eio(fs::sync_dir(Path::new("/a")).await);
        eio(fs::create_dir_all(Path::new("/a/b")).await);
        eio(fs::remove_file(Path::new("/a/f")).await);
        eio(fs::rename(Path::new("/ab"), Path::new("/a/b")).await);
        eio(fs::exists(Path::new("/a/f")).await.map(drop));
        write(&create("/ab/f").await, b"fine", 0, WriteSync::Data).await;
        file
    });
    drop(file);
    sim.revive_device(node, Path::new("/a"));
    let read = sim.run(node, async { fs::read(Path::new("/a/f")).await.expect("back") });
    assert_eq!(read, b"kept");
}

const ALWAYS: u32 = 1_000_000;

/// A node with `/file` of four blocks of `a` to `d` and `/other` of two blocks of `x`, all durable, and then `faults`.
fn with_files(seed: u64, faults: DiskFaults) -> (Sim, NodeId) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    sim.run(node, async {
        let file = create("/file").await;
        for (at, byte) in (0..).zip(b'a'..=b'd') {
            write(&file, &block(byte), at * BLOCK, WriteSync::Data).await;
        }
        write(&create("/other").await, &[b'x'; 2 * BLOCK_BYTES], 0, WriteSync::Data).await;
    });
    sim.set_disk_faults(node, faults);
    (sim, node)
}

/// The first byte of each block of a file, once it was seen that the others are the same.
async fn blocks_of(path: &str) -> String {
    let bytes = fs::read(path.as_ref()).await.expect("it reads");
    let block = |block: &[u8]| {
        assert!(block.iter().all(|byte| *byte == block[0]), "a block of {path} is torn");
        char::from(block[0])
    };
    bytes.chunks(BLOCK_BYTES).map(block).collect()
}

fn lie(kind: LieKind, path: &str, blocks: Range<u64>) -> DiskLie {
    DiskLie { kind, path: Some(path.into()), range: blocks.start * BLOCK..blocks.end * BLOCK }
}

#[test]
fn a_short_transfer_lets_something_happen_between_its_two_pieces() {
    let faults = DiskFaults { short_transfer_ppm: ALWAYS, ..DiskFaults::default() };
    let (mut written, mut read) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..100 {
        let (mut sim, node) = with_files(seed, faults);
        let before = sim.disk_operations(node);
        let (w, r) = sim.run(node, async {
            let file = File::open("/file".as_ref(), OpenOptions { direct: true, ..options() }).await;
            let file = file.expect("it opens");
            let parts = |byte| vec![block(byte); 3];
            let first = file.write_at(parts(b'1'), 0, WriteSync::None);
            let second = file.write_at(parts(b'2'), 0, WriteSync::None);
            let (first, second, (read, buf)) =
                futures::join!(first, second, file.read_at(AlignedBuf::zeroed(4 * BLOCK_BYTES), 0));
            first.and(second).expect("both written");
            assert_eq!(read.expect("it reads"), 4 * BLOCK_BYTES);
            let seen: String = buf.chunks(BLOCK_BYTES).map(|block| char::from(block[0])).collect();
            (blocks_of("/file").await, seen)
        });
        assert!(sim.disk_operations(node) >= before + 1 + 2 + 2 + 2);
        assert!(w.ends_with('d') && r.ends_with('d'), "the last block is not written: {w} {r}");
        written.insert(w);
        read.insert(r);
    }
    assert!(written.contains("111d") && written.contains("222d"), "{written:?}");
    assert!(written.contains("211d") || written.contains("122d"), "cut at any block: {written:?}");
    assert!(written.contains("221d") || written.contains("112d"), "cut at any block: {written:?}");
    assert!(read.iter().any(|seen| seen.starts_with("ab1")), "a torn read: {read:?}");
}

#[test]
fn a_process_that_ends_between_the_pieces_of_a_short_write_leaves_the_first() {
    let left = |seed| {
        let (mut sim, node) =
            with_files(seed, DiskFaults { short_transfer_ppm: ALWAYS, ..DiskFaults::default() });
        let file = sim.run(node, open("/file"));
        sim.kill_at_disk_operation(node, 1);
        let done = sim.run_until_down(node, async move {
            let parts = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
            file.write_at(parts, 0, WriteSync::Data).await
        });
        assert!(done.is_none() && !sim.is_up(node));
        sim.crash(node);
        let bytes = sim.run(node, async { fs::read("/file".as_ref()).await.expect("it reads") });
        String::from_utf8(bytes[..6].to_vec()).expect("letters")
    };
    let expected = ["oaaaaa", "onaaaa", "oneaaa", "onetaa", "onetwa"].map(String::from);
    assert_eq!((0..100).map(left).collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[test]
fn a_lost_write_is_reported_as_done_and_the_old_bytes_stay() {
    let (mut sim, node) = with_files(9, DiskFaults { lost_write_ppm: ALWAYS, ..DiskFaults::default() });
    sim.run(node, async {
        let file = open("/file").await;
        file.write_at(vec![block(b'1'); 2], BLOCK, WriteSync::Data).await.expect("so it says");
        file.write_at(vec![block(b'2')], 4 * BLOCK, WriteSync::Data).await.expect("so it says");
    });
    sim.crash(node);
    let left = sim.run(node, async { (blocks_of("/file").await, blocks_of("/other").await) });
    assert_eq!(left, ("abcd\0".into(), "xx".into()));
    let lost = |blocks| lie(LieKind::LostWrite, "/file", blocks);
    assert_eq!(sim.disk_lies(node), [lost(1..3), lost(4..5)]);
    assert!(sim.disk_lies(node).iter().all(|lie| lie.kind.is_lasting()));
}

#[test]
fn a_misdirected_write_lands_at_another_block_and_the_right_place_keeps_its_bytes() {
    let left = |seed| {
        let (mut sim, node) =
            with_files(seed, DiskFaults { misdirected_write_ppm: ALWAYS, ..DiskFaults::default() });
        sim.run(node, async {
            let file = open("/file").await;
            file.write_at(vec![block(b'1')], BLOCK, WriteSync::Data).await.expect("so it says");
        });
        sim.crash(node);
        let left = sim.run(node, async { (blocks_of("/file").await, blocks_of("/other").await) });
        let [lost, landed] = &sim.disk_lies(node)[..] else { panic!("one write, two places") };
        assert_eq!(*lost, lie(LieKind::LostWrite, "/file", 1..2));
        assert_eq!(landed.kind, LieKind::MisdirectedWrite);
        let at = usize::try_from(landed.range.start / BLOCK).expect("a small file");
        let hit = if landed.path.as_deref() == Some("/file".as_ref()) { &left.0 } else { &left.1 };
        assert_eq!(&hit[at..=at], "1");
        left
    };
    let expected = [("1bcd", "xx"), ("ab1d", "xx"), ("abc1", "xx"), ("abcd", "1x"), ("abcd", "x1")];
    let expected = expected.map(|(file, other)| (file.to_owned(), other.to_owned()));
    assert_eq!((0..100).map(left).collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[test]
fn a_misdirected_read_returns_another_block_and_harms_nothing() {
    let faults = DiskFaults { misdirected_read_ppm: ALWAYS, ..DiskFaults::default() };
    let read = |seed| {
        let (mut sim, node) = with_files(seed, faults);
        let byte = sim.run(node, async {
            let (read, buf) = open("/file").await.read_at(AlignedBuf::zeroed(BLOCK_BYTES), BLOCK).await;
            assert_eq!(read.expect("so it says"), BLOCK_BYTES);
            assert!(buf.iter().all(|byte| *byte == buf[0]));
            char::from(buf[0])
        });
        assert_eq!(sim.disk_lies(node), [lie(LieKind::MisdirectedRead, "/file", 1..2)]);
        assert!(!LieKind::MisdirectedRead.is_lasting());
        sim.set_disk_faults(node, DiskFaults::default());
        let left = sim.run(node, async { (blocks_of("/file").await, blocks_of("/other").await) });
        assert_eq!(left, ("abcd".into(), "xx".into()));
        byte
    };
    assert_eq!((0..100).map(read).collect::<BTreeSet<char>>(), BTreeSet::from(['a', 'c', 'd', 'x']));
}

#[test]
fn a_corrupt_read_has_one_bit_flipped_and_harms_nothing() {
    let (mut sim, node) = with_files(10, DiskFaults { corrupt_read_ppm: ALWAYS, ..DiskFaults::default() });
    let places = sim.run(node, async {
        let file = open("/file").await;
        let mut places = BTreeSet::new();
        for _ in 0..50 {
            let (read, buf) = file.read_at(AlignedBuf::zeroed(BLOCK_BYTES), 0).await;
            assert_eq!(read.expect("so it says"), BLOCK_BYTES);
            let wrong: Vec<_> = (0..BLOCK_BYTES).filter(|&at| buf[at] != b'a').collect();
            assert_eq!(wrong.len(), 1);
            assert_eq!((buf[wrong[0]] ^ b'a').count_ones(), 1);
            places.insert(wrong[0]);
        }
        places
    });
    assert!(places.len() > 30, "anywhere: {places:?}");
    assert_eq!(sim.disk_lies(node), vec![lie(LieKind::CorruptRead, "/file", 0..1); 50]);
    sim.set_disk_faults(node, DiskFaults::default());
    assert_eq!(sim.run(node, async { blocks_of("/file").await }), "abcd");
}

#[test]
fn faults_are_part_of_what_a_seed_decides() {
    let run = |seed| {
        let often = 200_000;
        let (mut sim, node) = with_files(seed, DiskFaults::default());
        let file = sim.run(node, open("/file"));
        let faults = DiskFaults {
            read_error_ppm: often,
            write_error_ppm: often,
            sync_error_ppm: often,
            no_space_ppm: often,
            short_transfer_ppm: often,
            lost_write_ppm: often,
            misdirected_write_ppm: often,
            misdirected_read_ppm: often,
            corrupt_read_ppm: often,
            slowness: 3,
            ..DiskFaults::default()
        };
        sim.set_disk_faults(node, faults);
        sim.crash_at_disk_operation(node, 60);
        let went_down = sim.run_until_down(node, async move {
            loop {
                let at = crate::random::below(4) * BLOCK;
                let _ = file.write_at(vec![block(b'1'); 2], at, WriteSync::Data).await;
                let _ = file.read_at(AlignedBuf::zeroed(2 * BLOCK_BYTES), at).await;
                let _ = file.sync_data().await;
            }
        });
        assert_eq!(went_down, None::<()>);
        sim.set_disk_faults(node, DiskFaults::default());
        let left = sim.run(node, async { fs::read("/file".as_ref()).await.expect("it reads") });
        (sim.schedule_hash(), sim.disk_operations(node), sim.disk_lies(node), left)
    };
    for seed in 0..10 {
        let once = run(seed);
        assert!(once.2.len() > 3, "seed {seed}: hardly a lie in {:?}", once.2);
        assert_eq!(once, run(seed), "seed {seed}");
    }
    assert_ne!(run(0).0, run(1).0);
}

#[test]
fn a_power_cut_at_a_disk_operation_comes_before_or_after_it_by_the_seed() {
    let left = |nth| {
        let cut = move |seed| {
            let (mut sim, node) = with_files(seed, DiskFaults::default());
            let before = sim.disk_operations(node);
            sim.crash_at_disk_operation(node, nth);
            let done = sim.run_until_down(node, async {
                let file = open("/file").await;
                write(&file, b"1", 0, WriteSync::Data).await;
                write(&file, b"2", 0, WriteSync::Data).await;
            });
            assert_eq!((done, sim.is_up(node)), (None, false));
            assert_eq!(sim.disk_operations(node), before + nth);
            let first = sim.run(node, async { fs::read("/file".as_ref()).await.expect("it reads")[0] });
            char::from(first)
        };
        (0..100).map(cut).collect::<BTreeSet<char>>()
    };
    assert_eq!(left(1), BTreeSet::from(['a']));
    assert_eq!(left(2), BTreeSet::from(['a', '1']));
    assert_eq!(left(3), BTreeSet::from(['1', '2']));
}

#[test]
fn a_kill_at_a_disk_operation_keeps_it_and_what_is_under_way() {
    for seed in 0..50 {
        let (mut sim, node) = with_files(seed, DiskFaults::default());
        let file = sim.run(node, open("/file"));
        sim.kill_at_disk_operation(node, 1);
        let done = sim.run_until_down(node, async move {
            let write = |byte, at| file.write_at(vec![block(byte)], at, WriteSync::None);
            let _ = futures::join!(write(b'1', 0), write(b'2', BLOCK));
            file.len().await
        });
        assert!(done.is_none());
        assert_eq!(sim.run(node, async { blocks_of("/file").await }), "12cd");
    }
}

#[test]
fn an_end_that_was_set_can_be_taken_back_and_goes_with_its_life() {
    let (mut sim, node) = with_files(11, DiskFaults::default());
    sim.crash_at_disk_operation(node, 1);
    sim.cancel_end(node);
    assert_eq!(sim.run_until_down(node, async { blocks_of("/file").await }), Some("abcd".into()));
    sim.crash_at_disk_operation(node, 1);
    sim.kill(node);
    assert_eq!(sim.run_until_down(node, async { blocks_of("/file").await }), Some("abcd".into()));
}

#[test]
#[should_panic(expected = "the node of the future that is waited for went down")]
fn a_future_that_must_end_does_not_survive_its_node() {
    let (mut sim, node) = with_files(12, DiskFaults::default());
    sim.crash_at_disk_operation(node, 2);
    sim.run(node, async { blocks_of("/file").await });
}
