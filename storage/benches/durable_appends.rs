//! What a durable append costs on a real disk: latency and CPU, with few and with many partitions that want it at once.
//!
//! Each partition of one core appends a batch, waits until it is on stable storage, and appends the next.
//!
//!     cargo bench -p heizer-storage --bench durable_appends -- DIRECTORY [PARTITIONS,… [BATCH_BYTES [SEGMENT_BYTES]]]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future;
use heizer_runtime::time::{Instant, now};
use heizer_runtime::{fs, host, task};
use heizer_storage::{AppendOrigin, Level, Log, LogConfig, LogDir, OpenMode, StorageContext, StorageLimits};
use heizer_wire::record_batch::{BatchHeader, HEADER_BYTES, LENGTH_END};

const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(6);
/// What `/proc/self/stat` counts in, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;
/// The CRC covers everything from here on.
const CRC_FROM: usize = 21;

#[derive(Clone)]
struct Case {
    dir: PathBuf,
    partitions: usize,
    batch_bytes: usize,
    segment_bytes: u32,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(dir) = args.first().map(PathBuf::from) else {
        // Without a directory there is no disk to measure: as when all benches of the workspace are run.
        println!("durable_appends: give it a directory on the disk to measure");
        return;
    };
    let counts = args.get(1).map_or("1,64,1000", String::as_str).split(',');
    let number =
        |at: usize, default: usize| args.get(at).map_or(default, |text| text.parse().expect("a number"));
    println!(
        "partitions  writes/s  p50 us  p99 us  p99.9 us  CPU us/write  MiB on disk/partition  by file, shared, neither; flushes"
    );
    for partitions in counts.map(|count| count.parse().expect("a number")) {
        let case = Case {
            dir: dir.join(format!("durable-appends-{partitions}")),
            partitions,
            batch_bytes: number(2, 16 << 10),
            segment_bytes: u32::try_from(number(3, 1 << 30)).expect("segment.bytes"),
        };
        let config = host::Config { ring_entries: 1024, ..host::Config::default() };
        let line = host::run(&config, move || measure(case.clone())).expect("a core");
        println!("{}", line[0]);
    }
}

async fn measure(case: Case) -> String {
    fs::remove_dir_all(&case.dir).await.expect("an empty place");
    fs::create_dir_all(&case.dir).await.expect("a directory");
    let home = LogDir::new(&case.dir, StorageContext::new(StorageLimits::default()));
    let config = LogConfig {
        segment_bytes: case.segment_bytes,
        retention_bytes: i64::from(case.segment_bytes),
        ..LogConfig::default()
    };
    let mut logs = Vec::new();
    for partition in 0..case.partitions {
        let name = format!("topic-{partition}");
        let opened = Log::open(&home, &name, [1; 16], config.clone(), OpenMode::Unclean).await;
        logs.push(opened.expect("a log").0);
    }
    let from = now() + WARM_UP;
    let until = from + MEASURED;
    let batch = batch(case.batch_bytes);
    let cpu = task::spawn(async move {
        heizer_runtime::time::sleep_until(from).await;
        let before = cpu_seconds();
        heizer_runtime::time::sleep_until(until).await;
        cpu_seconds() - before
    });
    let keepers = logs.iter().map(|log| task::spawn(retain(log.clone(), until)));
    let keepers: Vec<_> = keepers.collect();
    let appenders = logs.iter().map(|log| task::spawn(append_until(log.clone(), batch.clone(), from, until)));
    let mut latencies_us: Vec<u64> = Vec::new();
    for appended in future::join_all(appenders).await {
        latencies_us.extend(appended.expect("no panic"));
    }
    future::join_all(keepers).await;
    let cpu_s = cpu.await.expect("no panic");
    latencies_us.sort_unstable();
    let counts = home.flush_counts();
    let at = |share: f64| latencies_us[((latencies_us.len() - 1) as f64 * share) as usize];
    let line = format!(
        "{:>10} {:>9.0} {:>7} {:>7} {:>9} {:>13.1} {:>22.2}  {} {} {}; {}",
        case.partitions,
        latencies_us.len() as f64 / MEASURED.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        cpu_s * 1e6 / latencies_us.len() as f64,
        allocated_bytes(&case.dir) as f64 / (1 << 20) as f64 / case.partitions as f64,
        counts.by_file,
        counts.shared,
        counts.by_nothing,
        counts.device_flushes,
    );
    drop(logs);
    fs::remove_dir_all(&case.dir).await.expect("removed");
    line
}

/// Latencies in microseconds of the appends that came in the measured time.
async fn append_until(log: Rc<Log>, batch: Bytes, from: Instant, until: Instant) -> Vec<u64> {
    let mut latencies_us = Vec::new();
    loop {
        let started = now();
        if started >= until {
            return latencies_us;
        }
        let info = log.append(&batch, 0, AppendOrigin::Client, 1000).expect("append");
        log.wait_end_at(Level::Durable, info.last_offset + 1).await.expect("durable");
        if started >= from {
            let took = now().saturating_duration_since(started);
            latencies_us.push(u64::try_from(took.as_micros()).expect("short"));
        }
    }
}

/// Retention, as the broker's housekeeping does it, if more often.
async fn retain(log: Rc<Log>, until: Instant) {
    while now() < until {
        heizer_runtime::time::sleep(Duration::from_millis(500)).await;
        log.apply_retention(1000, log.end_at(Level::Durable)).await.expect("retention");
    }
}

/// One record of zeros that fills a batch of `bytes` bytes.
fn batch(bytes: usize) -> Bytes {
    let body = vec![0; bytes - HEADER_BYTES];
    let mut header = BatchHeader {
        base_offset: 0,
        batch_length: i32::try_from(bytes - LENGTH_END).expect("small"),
        partition_leader_epoch: 0,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: 1000,
        max_timestamp: 1000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 1,
    };
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&header.encode()[CRC_FROM..]), &body);
    [&header.encode()[..], &body].concat().into()
}

/// What this process has used of CPUs, the kernel's workers for its ring included.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is mounted");
    // After the name in brackets: state is field 3, utime 14, stime 15.
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>()
        / TICKS_PER_SECOND
}

fn allocated_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("a list").map(|entry| entry.expect("an entry"));
    let of = |entry: std::fs::DirEntry| match entry.file_type().expect("a type").is_dir() {
        true => allocated_bytes(&entry.path()),
        false => entry.metadata().expect("there").blocks() * 512,
    };
    entries.map(of).sum()
}
