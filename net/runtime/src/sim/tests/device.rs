//! Flushes of the device: what they cover depends on where a write went, and on the device.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::buf::{AlignedBuf, BLOCK_BYTES};
use crate::fs::{self, Device, DeviceSync, File, OpenOptions, WriteSync};
use crate::sim::{DiskFaults, Sim};

const BLOCK: u64 = BLOCK_BYTES as u64;
const ROOT: &str = "/";

async fn create(path: &str) -> File {
    let options =
        OpenOptions { read: true, write: true, create: true, direct: true, ..OpenOptions::default() };
    let file = File::open(Path::new(path), options).await.expect("it opens");
    fs::sync_dir(Path::new(ROOT)).await.expect("synced");
    file
}

async fn write(file: &File, byte: u8, block: u64, sync: WriteSync) {
    let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
    buf.fill(byte);
    let parts: Vec<Bytes> = vec![buf.freeze()];
    file.write_at(parts, block * BLOCK, sync).await.expect("written");
}

/// The bytes of the first two blocks of `/a` and `/b` after a crash: both settled in their first block, both with a
/// plain write into the first block and one behind the end; then, perhaps, a flush of the device.
fn after_crash(seed: u64, sync: DeviceSync, flush: bool) -> Vec<u8> {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    sim.set_device_sync(node, sync);
    sim.run(node, async move {
        let device = Device::open(Path::new(ROOT)).await;
        assert_eq!(device.sync(), sync);
        for path in ["/a", "/b"] {
            let file = create(path).await;
            write(&file, b'o', 0, WriteSync::Data).await;
            write(&file, b'n', 0, WriteSync::None).await;
            write(&file, b'e', 1, WriteSync::None).await;
        }
        if flush {
            device.flush().await.expect("flushed");
        }
    });
    sim.crash(node);
    sim.run(node, async {
        let mut left = Vec::new();
        for path in ["/a", "/b"] {
            let bytes = fs::read(Path::new(path)).await.expect("it reads");
            left.extend([bytes[0], bytes.get(BLOCK_BYTES).copied().unwrap_or(0)]);
        }
        left
    })
}

#[test]
fn a_flush_covers_settled_blocks_of_all_files_and_no_others() {
    let left: BTreeSet<_> = (0..60).map(|seed| after_crash(seed, DeviceSync::SharedFlush, true)).collect();
    assert!(left.iter().all(|bytes| bytes[0] == b'n' && bytes[2] == b'n'), "{left:?}");
    assert!(left.iter().any(|bytes| bytes[1] != b'e') && left.iter().any(|bytes| bytes[3] != b'e'));
}

#[test]
fn without_a_flush_a_volatile_cache_loses_and_a_lasting_one_keeps_settled_blocks() {
    let left: BTreeSet<_> = (0..60).map(|seed| after_crash(seed, DeviceSync::SharedFlush, false)).collect();
    assert!(left.iter().any(|bytes| bytes[0] == b'o'), "{left:?}");
    let left: BTreeSet<_> = (0..60).map(|seed| after_crash(seed, DeviceSync::NoCache, false)).collect();
    assert!(left.iter().all(|bytes| bytes[0] == b'n' && bytes[2] == b'n'), "{left:?}");
    assert!(left.iter().any(|bytes| bytes[1] != b'e'), "a place of its own takes the file's sync");
}

#[test]
fn a_flush_that_fails_says_so_and_one_that_means_nothing_is_refused() {
    let mut sim = Sim::new(1);
    let node = sim.node(1);
    sim.set_device_sync(node, DeviceSync::SharedFlush);
    sim.set_disk_faults(node, DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
    let failed = sim.run(node, async { Device::open(Path::new(ROOT)).await.flush().await });
    assert!(failed.is_err_and(|error| error.raw_os_error() == Some(libc::EIO)));
    sim.crash(node);
    sim.set_device_sync(node, DeviceSync::PerFile);
    let refused = sim.run(node, async { Device::open(Path::new(ROOT)).await.flush().await });
    assert!(refused.is_err_and(|error| error.kind() == io::ErrorKind::Unsupported));
}

#[test]
fn nodes_of_different_seeds_have_different_devices() {
    let kind = |seed| {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        sim.run(node, async { Device::open(Path::new(ROOT)).await.sync() })
    };
    let kinds: std::collections::HashSet<_, std::hash::RandomState> = (0..3).map(kind).collect();
    assert_eq!(kinds.len(), 3);
}
