//! Running on the real machine: one pinned executor per core, signals, orderly end.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::core::{self, Backend, Core};
use crate::cores::{self, CoreId};
use crate::ring::{self, Clock, Doorbell, Driver, Mailbox};

/// How the cores are set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CPUs to run on, a core each. Empty: one core that is not pinned.
    pub cpus: Vec<usize>,
    /// Entries of each core's submission queue; a power of two.
    pub ring_entries: u32,
    /// How long an idle core spins before it sleeps. Spinning spares a wake-up of some 25 µs and costs a whole CPU;
    /// zero on shared hosts.
    pub spin: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config { cpus: Vec::new(), ring_entries: 1_024, spin: Duration::ZERO }
    }
}

/// The cores could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel gave no thread, ring or signal mask.
    #[error("cannot start core {core}: {reason}; see `dmesg` and the limits of memlock and nofile")]
    Core {
        /// Which core, counted from zero.
        core: usize,
        /// What the kernel or the executor said.
        reason: String,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// glommio's own ring has nothing to do: the least memory and entries it takes.
const SCHEDULER_RING_ENTRIES: usize = 8;
const SCHEDULER_IO_MEMORY_BYTES: usize = 64 << 10;
/// glommio's preempt timer loses wake-ups when it fires often; this never fires in practice.
const PREEMPT_TIMER: Duration = Duration::from_secs(3_600);

/// Runs `main` on every core until all have returned; the outputs in core order.
///
/// SIGTERM and SIGINT ask for shutdown: [`shutdown`] resolves on every core. The signal mask of the calling thread
/// and of all threads made later blocks both signals from then on.
pub fn run<M, Fut, T>(config: &Config, main: M) -> Result<Vec<T>, StartError>
where
    M: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let signals = block_signals().map_err(StartError::Signals)?;
    let placements: Vec<Placement> = match config.cpus.as_slice() {
        [] => vec![Placement::Unbound],
        cpus => cpus.iter().map(|cpu| Placement::Fixed(*cpu)).collect(),
    };
    let shared = Arc::new(Shared {
        mailboxes: placements.iter().map(|_| Mailbox::new()).collect(),
        clock: Clock::start(),
        running: AtomicUsize::new(placements.len()),
        failed: AtomicBool::new(false),
        ready: std::sync::Barrier::new(placements.len()),
    });
    let ended = Arc::new(end_counter().map_err(StartError::Signals)?);
    let mut threads = Vec::new();
    for (index, placement) in placements.into_iter().enumerate() {
        let (shared, main, config) = (shared.clone(), main.clone(), config.clone());
        let bell = EndBell(ended.clone());
        let body = move || {
            let _bell = bell;
            run_core(index, placement, &config, &shared, main)
        };
        let thread = thread::Builder::new().name(format!("heizer-{index}")).spawn(body);
        threads.push(thread.map_err(|error| StartError::Core { core: index, reason: error.to_string() })?);
    }
    wait_for_end(&signals, &shared, &ended, threads.len()).map_err(StartError::Signals)?;
    threads
        .into_iter()
        .enumerate()
        .map(|(core, thread)| {
            let gone = || StartError::Core { core, reason: "its thread panicked".to_owned() };
            thread.join().unwrap_or_else(|_| Err(gone()))
        })
        .collect()
}

/// Runs `future` on one unpinned real core: for command-line verbs, and tests on real files and sockets.
pub fn block_on<F, Fut, T>(future: F) -> Result<T, StartError>
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let outputs = run(&Config { ring_entries: 256, ..Config::default() }, future)?;
    Ok(outputs.into_iter().next().expect("one core, one output"))
}

/// The CPUs that this process may run on.
pub fn available_cpus() -> Vec<usize> {
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all zeros is an empty set; the call fills the set of the size it is told, and the macro reads it.
    unsafe {
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, set.as_mut_ptr()) != 0 {
            return vec![0];
        }
        let set = set.assume_init();
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

struct Shared {
    mailboxes: Arc<[Mailbox]>,
    clock: Clock,
    /// Cores whose main has not returned.
    running: AtomicUsize,
    /// A core could not start, so that none shall.
    failed: AtomicBool,
    /// All rings exist before any core sends a message.
    ready: std::sync::Barrier,
}

fn run_core<M, Fut, T>(
    index: usize,
    placement: Placement,
    config: &Config,
    shared: &Shared,
    main: M,
) -> Result<T, StartError>
where
    M: Fn() -> Fut,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    let started = start_core(index, placement, config, shared);
    if started.is_err() {
        shared.failed.store(true, Ordering::SeqCst);
    }
    shared.ready.wait();
    let (executor, core) = started?;
    if shared.failed.load(Ordering::SeqCst) {
        let reason = "another core could not start".to_owned();
        return Err(StartError::Core { core: index, reason });
    }
    let _current = core::enter(core.clone());
    let spin = config.spin;
    let Backend::Ring(driver) = &core.backend else { unreachable!("made above") };
    let (driver, polls) = (driver.clone(), driver.polls());
    let flusher = ring::flush_until_closed(core.clone(), polls.clone(), spin);
    Ok(executor.run(polls.watch(Box::pin(async move {
        glommio::spawn_local(flusher).detach();
        let output = main().await;
        // Others may still call this core: it serves them until every main has returned.
        shared.running.fetch_sub(1, Ordering::SeqCst);
        while shared.running.load(Ordering::SeqCst) > 0 {
            crate::time::sleep(Duration::from_millis(1)).await;
        }
        driver.drain().await;
        output
    }))))
}

fn start_core(
    index: usize,
    placement: Placement,
    config: &Config,
    shared: &Shared,
) -> Result<(LocalExecutor, Rc<Core>), StartError> {
    let failed = |reason: String| StartError::Core { core: index, reason };
    let executor = LocalExecutorBuilder::new(placement)
        .ring_depth(SCHEDULER_RING_ENTRIES)
        .io_memory(SCHEDULER_IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_TIMER)
        .make()
        .map_err(|error| failed(error.to_string()))?;
    let id = CoreId(u16::try_from(index).map_err(|error| failed(error.to_string()))?);
    let driver = Driver::new(id, config.ring_entries, shared.clock, shared.mailboxes.clone())
        .map_err(|error| failed(format!("io_uring: {error}")))?;
    let core = Core::new(id, shared.mailboxes.len(), random_seed(), Backend::Ring(driver));
    Ok((executor, core))
}

fn random_seed() -> u64 {
    let mut seed = [0_u8; 8];
    // SAFETY: writes at most eight bytes to `seed`.
    let filled = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    assert_eq!(filled, 8, "the kernel's random source always answers eight bytes");
    u64::from_ne_bytes(seed)
}

/// The signals that ask for shutdown, blocked in this thread and in those it makes.
fn block_signals() -> io::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that the other calls read; no handler is installed.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        let status = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        Ok(set.assume_init())
    }
}

/// Turns signals into shutdown requests until every core's thread has rung its [`EndBell`]. Sleeps meanwhile.
fn wait_for_end(
    signals: &libc::sigset_t,
    shared: &Shared,
    ended: &OwnedFd,
    threads: usize,
) -> io::Result<()> {
    let mut doorbell = Doorbell::new()?;
    // SAFETY: reads the set; a non-negative result is a descriptor that nobody else owns.
    let asked = owned(unsafe { libc::signalfd(-1, signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    let mut running = threads;
    while running > 0 {
        let awaited = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut polled = [awaited(ended), awaited(&asked)];
        // SAFETY: the kernel writes to the two entries that it is told of; both descriptors are open.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) } < 0 {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => continue,
                _ => return Err(error),
            }
        }
        let [rung, signalled] = polled.map(|entry| entry.revents != 0);
        if rung {
            let mut count = [0; size_of::<u64>()];
            read_exactly(ended, &mut count)?;
            running = running.saturating_sub(usize::try_from(u64::from_ne_bytes(count)).unwrap_or(threads));
        }
        if signalled {
            match read_exactly(&asked, &mut [0; size_of::<libc::signalfd_siginfo>()]) {
                // Another waiter of this process has taken it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            }
            for mailbox in shared.mailboxes.iter() {
                doorbell.send(mailbox, Box::new(request_shutdown_here));
            }
        }
    }
    Ok(())
}

/// Counts the ends of threads, for one thread that waits for them.
fn end_counter() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
}

/// Held by a thread, rings when that ends, also in a panic.
struct EndBell(Arc<OwnedFd>);

impl Drop for EndBell {
    fn drop(&mut self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: reads the eight bytes of `one`; the descriptor is open while it is shared.
        let written = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        debug_assert_eq!(written, 8, "the counter is far from full");
    }
}

/// A descriptor that a system call has just made, or its error.
fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass what the kernel has made for them, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Fills `buf` in one read, as eventfd and signalfd give their records.
fn read_exactly(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel writes at most `buf.len()` bytes there; the descriptor is open.
    let read = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
    match usize::try_from(read) {
        Ok(read) if read == buf.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn request_shutdown_here() {
    core::current().shutdown.request();
}

/// Asks every core to end, as SIGTERM does.
pub fn request_shutdown() {
    for core in cores::all() {
        cores::cast(core, request_shutdown_here);
    }
}

/// Whether shutdown has been asked for.
pub fn shutdown_requested() -> bool {
    core::current().shutdown.is_requested()
}

/// Resolves when shutdown is asked for.
pub async fn shutdown() {
    let core = core::current();
    let listener = core.shutdown.listen();
    if !core.shutdown.is_requested() {
        listener.await;
    }
}
