//! How late a core is: its timers, doorbells, sockets and files, idle and at full load, on this machine.
//!
//! `cargo bench -p heizer-runtime --bench lateness [-- DIRECTORY]`: two cores, about twenty seconds. The files lie
//! below DIRECTORY, by default `target/bench-data`, so choose one on the disk in question; they are removed at the end.
//!
//! Full load means on each core: a task that never rests (slices of 20 µs), 32 connections that echo without pause,
//! and durable writes of 128 KiB one after the other. Core 0 measures; the other one answers.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use hdrhistogram::Histogram;
use heizer_runtime::buf::{AlignedBuf, BLOCK_BYTES};
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::fs::{self, File, OpenOptions, WriteSync};
use heizer_runtime::host::{self, Config};
use heizer_runtime::net::{Listener, Stream};
use heizer_runtime::task::{self, JoinHandle};
use heizer_runtime::time::{Instant, now, sleep, sleep_until};

/// How long each thing is measured, once idle and once loaded.
const PERIOD: Duration = Duration::from_millis(1_500);
/// Between two samples, so that an idle core has gone to sleep when the next one comes.
const PAUSE: Duration = Duration::from_micros(200);
const TIMER: Duration = Duration::from_millis(1);
const SLICE: Duration = Duration::from_micros(20);
const CONNECTIONS: usize = 32;
const MESSAGE_BYTES: usize = 64;
const FILE_BYTES: usize = 16 << 20;
const WRITE_BYTES: usize = 16 << 10;
const READ_BYTES: usize = BLOCK_BYTES;
const LOAD_WRITE_BYTES: usize = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench`.
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parent = given
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data"), PathBuf::from);
    let directory = parent.join(format!("lateness-{}", std::process::id()));
    let cpus = match host::available_cpus()[..] {
        [one] => vec![one, one],
        [one, two, ..] => vec![one, two],
        [] => return Err("this process may run on no CPU".into()),
    };
    let load_before = std::fs::read_to_string("/proc/loadavg")?;
    println!("cores on CPUs {cpus:?}, files in {}", directory.display());
    println!("load average before the start: {}", load_before.trim_end());
    let outputs = host::run(&Config { cpus, ..Config::default() }, move || run_core(directory.clone()))?;
    for report in outputs {
        if let Some(report) = report? {
            report.print();
        }
    }
    Ok(())
}

/// Core 0 measures and cleans up, also when it is interrupted; the other serves until then.
async fn run_core(directory: PathBuf) -> io::Result<Option<Report>> {
    if cores::current() != CoreId(0) {
        host::shutdown().await;
        return Ok(None);
    }
    let report = match select(pin!(measure(&directory)), pin!(host::shutdown())).await {
        Either::Left((report, _)) => report.map(Some),
        Either::Right(_) => Err(io::Error::other("interrupted")),
    };
    // Also after an interruption: a core ends once nothing is in flight.
    let stopped = on_every_core(stop_load).await;
    host::request_shutdown();
    fs::remove_dir_all(&directory).await?;
    let report = report?;
    stopped.map(|_| report)
}

struct Report {
    idle: Vec<Row>,
    loaded: Vec<Row>,
    /// Per core: echo and nothing else.
    echo_alone: Vec<Rates>,
    /// Per core: while `loaded` was measured.
    full_load: Vec<Rates>,
}

/// One thing and how long it took, in nanoseconds.
struct Row {
    what: &'static str,
    latency: Histogram<u64>,
}

async fn measure(directory: &Path) -> io::Result<Report> {
    fs::create_dir_all(directory).await?;
    let file = written_file(&directory.join("measured")).await?;
    let echo = on_every_core(open_room).await?;

    let idle = measure_latencies(&file, echo[1]).await?;

    let peers = echo.clone();
    on_every_core(move || start_echo(peers[peer().0 as usize])).await?;
    let before = Work::of_every_core().await?;
    sleep(PERIOD).await;
    let echo_alone = Work::since(&before).await?;

    let parent = directory.to_owned();
    on_every_core(move || start_slices_and_writes(parent.clone())).await?;
    let before = Work::of_every_core().await?;
    let loaded = measure_latencies(&file, echo[1]).await?;
    let full_load = Work::since(&before).await?;
    Ok(Report { idle, loaded, echo_alone, full_load })
}

async fn measure_latencies(file: &File, echo: SocketAddr) -> io::Result<Vec<Row>> {
    let timer = timers().await;
    let (one_way, both_ways) = doorbells().await?;
    let socket = sockets(echo).await?;
    let write = durable_writes(file).await?;
    let read = reads(file).await?;
    Ok(vec![
        Row { what: "timer of 1 ms: late by", latency: timer },
        Row { what: "doorbell, one way", latency: one_way },
        Row { what: "doorbell, there and back", latency: both_ways },
        Row { what: "socket echo, other core", latency: socket },
        Row { what: "16 KiB durable write", latency: write },
        Row { what: "4 KiB read", latency: read },
    ])
}

async fn timers() -> Histogram<u64> {
    let mut late = histogram();
    let end = now() + PERIOD;
    while now() < end {
        let due = now() + TIMER;
        sleep_until(due).await;
        record(&mut late, due, now());
    }
    late
}

/// A call to the other core: until it runs there, and until its answer is here.
async fn doorbells() -> io::Result<(Histogram<u64>, Histogram<u64>)> {
    let (mut one_way, mut both_ways) = (histogram(), histogram());
    let end = now() + PERIOD;
    while now() < end {
        let called = now();
        let arrived = cores::call(peer(), || async { now() }).await.map_err(io::Error::other)?;
        record(&mut one_way, called, arrived);
        record(&mut both_ways, called, now());
        sleep(PAUSE).await;
    }
    Ok((one_way, both_ways))
}

async fn sockets(echo: SocketAddr) -> io::Result<Histogram<u64>> {
    let mut latency = histogram();
    let stream = Stream::connect(echo).await?;
    let end = now() + PERIOD;
    while now() < end {
        let sent = now();
        round_trip(&stream).await?;
        record(&mut latency, sent, now());
        sleep(PAUSE).await;
    }
    Ok(latency)
}

/// `O_DIRECT` and `RWF_DSYNC`, over blocks that were written before: what an append to a prepared segment costs.
async fn durable_writes(file: &File) -> io::Result<Histogram<u64>> {
    let mut latency = histogram();
    let block = AlignedBuf::zeroed(WRITE_BYTES).freeze();
    let end = now() + PERIOD;
    for offset in offsets(WRITE_BYTES) {
        let began = now();
        if began >= end {
            break;
        }
        file.write_at(vec![block.clone()], offset, WriteSync::Data).await?;
        record(&mut latency, began, now());
        sleep(PAUSE).await;
    }
    Ok(latency)
}

async fn reads(file: &File) -> io::Result<Histogram<u64>> {
    let mut latency = histogram();
    let mut buf = AlignedBuf::zeroed(READ_BYTES);
    let end = now() + PERIOD;
    for offset in offsets(READ_BYTES) {
        let began = now();
        if began >= end {
            break;
        }
        let (read, returned) = file.read_at(buf, offset).await;
        buf = returned;
        assert_eq!(read?, READ_BYTES, "the file was written whole");
        record(&mut latency, began, now());
        sleep(PAUSE).await;
    }
    Ok(latency)
}

/// What a core owns for the measurement: its echo server, and its share of the load.
struct Room {
    loading: Cell<bool>,
    work: Cell<Work>,
    tasks: RefCell<Vec<JoinHandle<io::Result<()>>>>,
}

/// What a core's load has done.
#[derive(Clone, Copy, Default)]
struct Work {
    at: Instant,
    round_trips: u64,
    slices: u64,
    writes: u64,
}

/// What it has done in a second.
struct Rates {
    round_trips: f64,
    slices: f64,
    written_mb: f64,
}

impl Work {
    async fn of_every_core() -> io::Result<Vec<Work>> {
        on_every_core(|| async { Ok(Work { at: now(), ..cores::room::<Room>().work.get() }) }).await
    }

    async fn since(before: &[Work]) -> io::Result<Vec<Rates>> {
        let after = Work::of_every_core().await?;
        Ok(before.iter().zip(&after).map(|(before, after)| before.rates_until(after)).collect())
    }

    fn rates_until(&self, after: &Work) -> Rates {
        let seconds = (after.at - self.at).as_secs_f64();
        Rates {
            round_trips: (after.round_trips - self.round_trips) as f64 / seconds,
            slices: (after.slices - self.slices) as f64 / seconds,
            written_mb: (after.writes - self.writes) as f64 * LOAD_WRITE_BYTES as f64 / 1e6 / seconds,
        }
    }
}

impl Room {
    fn count(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.work.get();
        add(&mut work);
        self.work.set(work);
    }

    fn load(&self, task: impl Future<Output = io::Result<()>> + 'static) {
        self.tasks.borrow_mut().push(task::spawn(task));
    }
}

/// Prepares this core; answers where it echoes.
async fn open_room() -> io::Result<SocketAddr> {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr();
    task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            task::spawn(echo(stream));
        }
    });
    cores::set_room(Rc::new(Room {
        loading: Cell::new(true),
        work: Cell::default(),
        tasks: RefCell::default(),
    }));
    Ok(address)
}

async fn start_echo(peer: SocketAddr) -> io::Result<()> {
    let room = cores::room::<Room>();
    for _ in 0..CONNECTIONS {
        let stream = Stream::connect(peer).await?;
        let counted = room.clone();
        room.load(async move {
            while counted.loading.get() {
                round_trip(&stream).await?;
                counted.count(|work| work.round_trips += 1);
            }
            Ok(())
        });
    }
    Ok(())
}

async fn start_slices_and_writes(directory: PathBuf) -> io::Result<()> {
    let room = cores::room::<Room>();
    let counted = room.clone();
    room.load(async move {
        while counted.loading.get() {
            let end = now() + SLICE;
            while now() < end {
                std::hint::spin_loop();
            }
            counted.count(|work| work.slices += 1);
            task::yield_now().await;
        }
        Ok(())
    });
    let file = written_file(&directory.join(format!("load-{}", cores::current()))).await?;
    let counted = room.clone();
    room.load(async move {
        let block = AlignedBuf::zeroed(LOAD_WRITE_BYTES).freeze();
        for offset in offsets(LOAD_WRITE_BYTES).take_while(|_| counted.loading.get()) {
            file.write_at(vec![block.clone()], offset, WriteSync::Data).await?;
            counted.count(|work| work.writes += 1);
        }
        Ok(())
    });
    Ok(())
}

async fn stop_load() -> io::Result<()> {
    let Some(room) = cores::try_room::<Room>() else { return Ok(()) };
    room.loading.set(false);
    for task in room.tasks.take() {
        task.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Gives back what it gets until the peer leaves.
async fn echo(stream: Stream) {
    let mut buf = BytesMut::with_capacity(4096);
    loop {
        let (read, filled) = stream.read(buf).await;
        buf = filled;
        let Ok(1..) = read else { return };
        if stream.write_all(vec![buf.split().freeze()]).await.is_err() {
            return;
        }
        buf.reserve(4096);
    }
}

async fn round_trip(stream: &Stream) -> io::Result<()> {
    stream.write_all(vec![Bytes::from_static(&[7; MESSAGE_BYTES])]).await?;
    let mut buf = BytesMut::with_capacity(MESSAGE_BYTES);
    while buf.len() < MESSAGE_BYTES {
        let (read, filled) = stream.read(buf).await;
        buf = filled;
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// A direct file whose every block has been written and is on the disk.
async fn written_file(path: &Path) -> io::Result<File> {
    let options =
        OpenOptions { read: true, write: true, create_new: true, direct: true, ..OpenOptions::default() };
    let file = File::open(path, options).await?;
    if !file.is_direct() {
        return Err(io::Error::other(format!(
            "no direct I/O in {}: choose another directory",
            path.display()
        )));
    }
    file.write_at(vec![AlignedBuf::zeroed(FILE_BYTES).freeze()], 0, WriteSync::None).await?;
    file.sync_all().await?;
    Ok(file)
}

/// Where to read or write next: through the file from front to end, again and again.
fn offsets(step: usize) -> impl Iterator<Item = u64> {
    (0..FILE_BYTES as u64).step_by(step).cycle()
}

/// The other core.
fn peer() -> CoreId {
    CoreId(1 - cores::current().0)
}

async fn on_every_core<F, Fut, T>(f: F) -> io::Result<Vec<T>>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<T>> + 'static,
    T: Send + 'static,
{
    cores::call_all(f).await.map_err(io::Error::other)?.into_iter().collect()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .expect("one to sixty seconds in three digits are valid bounds")
}

fn record(latency: &mut Histogram<u64>, from: Instant, to: Instant) {
    latency.saturating_record(to.as_nanos().saturating_sub(from.as_nanos()));
}

impl Report {
    fn print(&self) {
        println!("\n{:<26}{:^40} {:^40}", "µs", "idle", "full load");
        let columns = format!("{:>10}{:>10}{:>10}{:>10}", "p50", "p99", "p99.9", "max");
        println!("{:<26}{columns} {columns}", "");
        for (idle, loaded) in self.idle.iter().zip(&self.loaded) {
            println!("{:<26}{} {}", idle.what, percentiles(&idle.latency), percentiles(&loaded.latency));
        }
        println!("\n{:<58}{:>10}{:>10}", "each second", "core 0", "core 1");
        print_rates("echo alone: round trips as client (as many as server)", &self.echo_alone, |rates| {
            rates.round_trips
        });
        print_rates("full load: round trips as client (as many as server)", &self.full_load, |rates| {
            rates.round_trips
        });
        print_rates("full load: slices of 20 µs", &self.full_load, |rates| rates.slices);
        print_rates("full load: MB in durable writes of 128 KiB", &self.full_load, |rates| rates.written_mb);
    }
}

fn percentiles(latency: &Histogram<u64>) -> String {
    let nanos = [0.5, 0.99, 0.999].map(|quantile| latency.value_at_quantile(quantile));
    let columns = nanos.into_iter().chain([latency.max()]);
    columns.map(|nanos| format!("{:>10.1}", nanos as f64 / 1e3)).collect()
}

fn print_rates(what: &str, cores: &[Rates], rate: impl Fn(&Rates) -> f64) {
    let columns: String = cores.iter().map(|rates| format!("{:>10.0}", rate(rates))).collect();
    println!("{what:<58}{columns}");
}
